"""The reconciliation DAG of a dataset: parents in batches, each compared with all its children."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, Param, task

from federation.config import Config
from federation.contract import Dataset
from fedsync_airflow import reconcile_tasks
from fedsync_airflow.alerts import callbacks
from fedsync_airflow.docs import reconcile_doc
from fedsync_airflow.forms import regions
from fedsync_airflow.names import title


def reconcile_dag(config: Config, dataset: Dataset, defaults: dict[str, Any]) -> DAG:
    """Compares both ends of every link of a dataset on its schedule, or of some by hand."""
    cron = dataset.reconcile
    with DAG(
        f"{dataset.name}__reconcile",
        dag_display_name=title(dataset, "reconcile"),
        description=f"{dataset.name}: do both ends of each link hold the same?",
        doc_md=reconcile_doc(dataset),
        schedule=CronTriggerTimetable(cron, timezone=config.spec.timezone, run_immediately=False) if cron else None,
        tags=["fedsync", dataset.name, "reconcile"],
        default_args=defaults,
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        **callbacks(config, ends=True),
        params={
            "regions": regions(
                "只核对这些区划内的链路及其与上级的链路，每行一个代码；留空为全部 / only links inside these regions and the one above each, one code a line; empty: all",
            ),
            "dry_run": Param(
                False,
                type="boolean",
                title="只核对 / compare only",
                description="不合并，不修改任何记录 / merge nothing, change no record",
            ),
        },
    ) as dag:

        @task(task_display_name="分批 plan")
        def plan(params: Any = None) -> list[reconcile_tasks.Share]:
            """分批 / cut the parents into batches."""
            return reconcile_tasks.plan(dataset.name, params["regions"])

        @task(task_display_name="核对 compare", map_index_template="{{ task.op_kwargs['share']['label'] }}")
        def compare(share: reconcile_tasks.Share, params: Any = None) -> None:
            """核对这些上级与其下级，不一致的按常规合并修复 / compare these parents with their children, and merge again what differs."""
            reconcile_tasks.compare(dataset.name, share, repair=not params["dry_run"])

        compare.expand(share=plan())  # type: ignore[arg-type]
    return dag
