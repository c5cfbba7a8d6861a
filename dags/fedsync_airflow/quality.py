"""The quality report's DAG of a dataset: nodes in batches, one process for each, then the pages over all of them."""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, CronTriggerTimetable, task

from federation.config import Config
from federation.contract import Dataset
from fedsync_airflow import quality_tasks
from fedsync_airflow.alerts import callbacks
from fedsync_airflow.docs import quality_doc
from fedsync_airflow.forms import regions
from fedsync_airflow.names import title


def quality_dag(config: Config, dataset: Dataset, defaults: dict[str, Any]) -> DAG:
    """Examines every node of a dataset on the federation's schedule, or some of them by hand."""
    with DAG(
        f"{dataset.name}__quality",
        dag_display_name=title(dataset, "quality"),
        description=f"{dataset.name}: Great Expectations over each node's whole data",
        doc_md=quality_doc(dataset, config.spec.quality.schedule),
        schedule=CronTriggerTimetable(
            config.spec.quality.schedule, timezone=config.spec.timezone, run_immediately=False
        ),
        tags=["fedsync", dataset.name, "quality"],
        default_args=defaults,
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        **callbacks(config, ends=True),
        params={
            "regions": regions(
                "只检查这些区划及其下级，每行一个代码；留空为全部 / only these regions and those inside them, one code a line; empty: all",
            )
        },
    ) as dag:

        @task(task_display_name="分批 plan")
        def plan(params: Any = None) -> list[quality_tasks.Share]:
            """分批 / cut the nodes into batches."""
            return quality_tasks.plan(dataset.name, params["regions"])

        @task(task_display_name="检查 examine", map_index_template="{{ task.op_kwargs['share']['label'] }}")
        def examine(share: quality_tasks.Share) -> None:
            """检查一批节点的全部数据 / judge all that a batch of nodes holds."""
            quality_tasks.examine(dataset.name, share)

        @task(task_display_name="发布 publish", trigger_rule="all_done")
        def publish() -> None:
            """发布页面，未读到的节点保留上次结果 / publish the pages; a node that was not read keeps its last result."""
            quality_tasks.publish(dataset.name)

        examined = examine.expand(share=plan())  # type: ignore[arg-type]
        # A leaf that fails with its parents: publishing succeeds whatever happened before it.
        done = EmptyOperator(
            task_id="done", task_display_name="完成 done", trigger_rule="none_failed", retry_policy=None
        )
        examined >> publish() >> done
        examined >> done
    return dag
