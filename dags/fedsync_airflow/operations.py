"""DAGs that operators trigger with a form: pause and resume, backfill, erase. None has a schedule but what finishes erasures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, Param, get_current_context, task

from federation.config import Config
from fedsync_airflow import operation_tasks
from fedsync_airflow.alerts import callbacks
from fedsync_airflow.docs_operations import backfill_doc, erase_doc, pause_doc
from fedsync_airflow.forms import REGION


def operation_dags(config: Config, defaults: dict[str, Any]) -> Iterator[DAG]:
    """All of them."""
    yield pause_dag(config, defaults)
    yield backfill_dag(config, defaults)
    yield erase_dag(config, defaults)


def _form(
    config: Config,
    name: str,
    title: str,
    description: str,
    doc: str,
    defaults: dict[str, Any],
    params: dict[str, Param],
    schedule: Any = None,
) -> DAG:
    return DAG(
        f"fedsync__{name}",
        dag_display_name=title,
        description=description,
        doc_md=doc,
        schedule=schedule,
        catchup=False,
        tags=["fedsync", "operate"],
        default_args=defaults,
        is_paused_upon_creation=False,
        params=params,
        **callbacks(config),
    )


def pause_dag(config: Config, defaults: dict[str, Any]) -> DAG:
    """Pauses or resumes a link, a region with all below it, or a system."""
    params = {
        "action": Param("pause", type="string", enum=["pause", "resume"], title="操作 / action"),
        "kind": Param("link", type="string", enum=["link", "region", "system"], title="类别 / kind"),
        "subject": Param(
            "",
            type="string",
            minLength=1,
            title="对象 / subject",
            description="链路编号、区划代码或系统名 / resident/110101001001, a region code, or the name of a system",
        ),
        "reason": Param(
            "", type="string", title="原因 / reason", description="暂停时必填 / needed to pause; name no person"
        ),
        "until": Param(
            None,
            type=["null", "string"],
            format="date-time",
            title="截止 / until",
            description="留空则直到恢复 / empty: until it is resumed",
        ),
    }
    what = "pause or resume a link, a region or a system"
    with _form(config, "pause", "暂停与恢复", what, pause_doc(), {**defaults, "retries": 0}, params) as dag:

        @task(task_display_name="暂停或恢复 pause")
        def pause(params: Any = None) -> None:
            """暂停或恢复 / pause or resume."""
            words = [params[name] for name in ("action", "kind", "subject", "reason", "until")]
            operation_tasks.pause(*words, operation_tasks.actor_of(get_current_context()))

        pause()
    return dag


def backfill_dag(config: Config, defaults: dict[str, Any]) -> DAG:
    """Compares all keys of one region's links in one dataset."""
    names = list(config.datasets)
    params = {
        "dataset": Param(names[0], type="string", enum=names, title="数据集 / dataset"),
        "region": Param("", type="string", pattern=REGION, title="区划 / region", description="12 位代码 / 12 digits"),
    }
    what = "compare all keys of one region"
    with _form(config, "backfill", "区划补数", what, backfill_doc(), defaults, params) as dag:

        @task(task_display_name="补数 backfill")
        def backfill(params: Any = None) -> None:
            """比对该区划的全部主键并补齐 / compare all keys of the region's links and bring them to rest."""
            operation_tasks.backfill(params["dataset"], params["region"])

        backfill()
    return dag


def erase_dag(config: Config, defaults: dict[str, Any]) -> DAG:
    """Erases one person's record; by its schedule, finishes what waits for a node that was down."""
    params = {
        "dataset": Param(
            "",
            type="string",
            enum=["", *config.datasets],
            title="数据集 / dataset",
            description="留空：只重试未完成的删除 / empty: only try again what is pending",
        ),
        "key": Param("", type="string", title="主键 / key"),
        "reason": Param(
            "", type="string", title="原因 / reason", description="加密保存 / kept encrypted; name no person"
        ),
        "by": Param("", type="string", title="负责人 / who answers for it"),
    }
    hourly = CronTriggerTimetable("17 * * * *", timezone=config.spec.timezone, run_immediately=False)
    what = "erase one person's record everywhere"
    with _form(config, "erase", "删除个人记录", what, erase_doc(), defaults, params, hourly) as dag:

        @task(task_display_name="删除 erase")
        def erase(params: Any = None) -> None:
            """删除记录，或重试未完成的删除 / erase the record, or try again what is pending."""
            words = [params[name] for name in ("dataset", "key", "reason", "by")]
            operation_tasks.erase(*words, operation_tasks.actor_of(get_current_context()))

        erase()
    return dag
