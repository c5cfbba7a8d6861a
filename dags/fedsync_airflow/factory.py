"""From a declaration to DAGs. Their number depends on datasets and levels, never on nodes.

Per dataset: one DAG per hop, woken per region (the partition key) by the news that arrived at either end, and one sweep that
looks for news, one quality report and one reconciliation; one that saved files wake, where nodes are files. Announcing is one task per
asset, skipped when there is nothing to say: an outlet that a task leaves untouched would still be announced, under the run's own partition.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, CronTriggerTimetable, Param, PartitionedAssetTimetable, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException
from fedsync_plugin import RegionAt

from federation.config import Config
from federation.contract import Dataset
from federation.pools import pool_of
from fedsync_airflow import alerts, stats, tasks
from fedsync_airflow.docs import hop_doc, release_doc, replay_doc, sweep_doc
from fedsync_airflow.names import arrivals, hop_dag_id, hop_title, title
from fedsync_airflow.operations import operation_dags
from fedsync_airflow.quality import quality_dag
from fedsync_airflow.reconcile import reconcile_dag
from fedsync_airflow.retry import POLICY, RETRIES
from fedsync_airflow.uploads import uploads_dag
from fedsync_airflow.waking import wake

OWNER = "fedsync"
DEFAULT_POOL = "default_pool"
BY_HAND = 2000
"""The priority of what somebody waits for at the screen: above every dataset's."""
DEFAULTS: dict[str, Any] = {
    "owner": OWNER,
    "retries": RETRIES,
    "retry_delay": timedelta(seconds=10),
    "retry_policy": POLICY,
    # as it stands, whatever comes after a task: what people wait for goes first (see `urgency`)
    "weight_rule": "absolute",
    "priority_weight": 1,
}


def urgency(dataset: Dataset, what: int = 0) -> dict[str, Any]:
    """The default arguments of a DAG that moves a dataset's records: before all reports, and by the dataset's `priority`."""
    return {**DEFAULTS, "priority_weight": dataset.priority * 10 + what}


def build_dags(config: Config) -> Iterator[DAG]:
    """All DAGs of a federation. Touches no system and no secret."""
    for dataset in config.datasets.values():
        yield sweep_dag(config, dataset)
        for upper, lower in dataset.hops:
            yield hop_dag(config, dataset, upper, lower)
        yield quality_dag(config, dataset, DEFAULTS)
        yield reconcile_dag(config, dataset, DEFAULTS)
        uploads = uploads_dag(config, dataset, urgency(dataset, 5))
        if uploads is not None:
            yield uploads
    yield replay_dag(config)
    yield release_dag(config)
    yield from operation_dags(config, {**DEFAULTS, "priority_weight": BY_HAND})


def hop_dag(config: Config, dataset: Dataset, upper: str, lower: str) -> DAG:
    """Syncs one region of `upper` (the partition) with each of its children at `lower`."""
    down, up = arrivals(dataset, upper, "from_above"), arrivals(dataset, lower, "from_below")
    mapper = RegionAt(upper)
    pool = pool_of(config, dataset, upper, lower) or DEFAULT_POOL
    with DAG(
        hop_dag_id(dataset, upper, lower),
        dag_display_name=hop_title(dataset, upper, lower),
        description=f"{dataset.name}: {upper} <-> {lower}",
        doc_md=hop_doc(dataset, upper, lower),
        schedule=PartitionedAssetTimetable(assets=down | up, partition_mapper_config={down: mapper, up: mapper}),
        tags=["fedsync", dataset.name, "hop", f"{upper}-{lower}", upper, lower],
        default_args=urgency(dataset),
        catchup=False,
        max_active_runs=16,
        is_paused_upon_creation=False,
        **alerts.callbacks(config, dataset),
    ) as dag:

        @task(task_display_name="读取上级 collect", pool=pool)
        def collect() -> list[tasks.Work]:
            """读取上级节点一次 / read the parent once for all its children."""
            key = get_current_context()["dag_run"].partition_key
            return tasks.collect(dataset.name, tasks.partition_of(key, upper))

        @task(
            task_display_name="同步下级 sync",
            map_index_template="{{ task.op_kwargs['work']['label'] }}",
            pool=pool,
        )
        def sync(work: tasks.Work) -> None:
            """与一批下级逐链路同步 / sync the links to a batch of children."""
            tasks.sync(dataset.name, work)

        work = collect()
        synced = sync.expand(work=work)  # type: ignore[arg-type]
        # A leaf that fails with its parents: without it, announcements that come after a failure would make the run a success.
        done = EmptyOperator(
            task_id="done", task_display_name="完成 done", trigger_rule="none_failed", retry_policy=None
        )
        synced >> done
        if dataset.lower_of(lower) is not None:
            synced >> _announce_below(dataset, lower, work) >> done
        if dataset.upper_of(upper) is not None:
            synced >> _announce_above(dataset, upper, work) >> done
        if len(dataset.levels) == 2:
            synced >> _tidy(work) >> done
    return dag


def _announce_below(dataset: Dataset, lower: str, work: Any) -> Any:
    asset = arrivals(dataset, lower, "from_above")

    @task(task_display_name="唤醒下级 announce below", outlets=[asset], trigger_rule="all_done")
    def announce_below(work: list[tasks.Work] | None = None, *, outlet_events: Any = None) -> None:
        """唤醒有新数据的下级 / wake the children that hold something new."""
        tasks.tidy(work or [])
        below, _ = tasks.news_of(work or [])
        if not below:
            raise AirflowSkipException("no news below")
        outlet_events[asset].add_partitions(below)

    return announce_below(work)


def _announce_above(dataset: Dataset, upper: str, work: Any) -> Any:
    asset = arrivals(dataset, upper, "from_below")

    @task(task_display_name="唤醒上级 announce above", outlets=[asset], trigger_rule="all_done")
    def announce_above(work: list[tasks.Work] | None = None, *, outlet_events: Any = None) -> None:
        """上级有新数据时唤醒再上一级 / wake the hop above if the parent holds something new."""
        tasks.tidy(work or [])
        _, above = tasks.news_of(work or [])
        if not above:
            raise AirflowSkipException("no news above")
        outlet_events[asset].add_partitions(work[0]["upper"])  # type: ignore[index]

    return announce_above(work)


def _tidy(work: Any) -> Any:
    @task(task_display_name="清除暂存 tidy", trigger_rule="all_done")
    def tidy(work: list[tasks.Work] | None = None) -> None:
        """清除暂存数据 / throw away what was staged; where there is somebody to announce to, announcing does it."""
        tasks.tidy(work or [])

    return tidy(work)


def sweep_dag(config: Config, dataset: Dataset) -> DAG:
    """Looks for changed nodes on the dataset's schedule and wakes the hop of each link that may have news at either end."""
    with DAG(
        f"{dataset.name}__sweep",
        dag_display_name=title(dataset, "sweep"),
        description=f"{dataset.name}: which nodes hold news?",
        doc_md=sweep_doc(dataset),
        schedule=CronTriggerTimetable(dataset.schedule, timezone=config.spec.timezone),
        tags=["fedsync", dataset.name, "sweep"],
        default_args=urgency(dataset, 5),
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        **alerts.callbacks(config, dataset),
    ) as dag:

        @task.branch(task_display_name="探查 probe")
        def probe(ti: Any = None) -> list[str]:
            """轻量探查各节点 / probe every node cheaply."""
            found = tasks.sweep(dataset.name)
            ti.xcom_push(key="wake", value=found)
            return ["watch", *(f"wake__{name}" for name in found)]

        @task(task_display_name="告警与指标 watch")
        def watch() -> None:
            """告警与指标 / tell what needs a person, and how things stand."""
            stats.report(dataset.name)
            alerts.watch(dataset.name)

        probed = probe()
        probed >> watch()
        for upper, _ in dataset.hops:
            probed >> wake(arrivals(dataset, upper, "from_above"), f"{upper}__from_above")
    return dag


def replay_dag(config: Config) -> DAG:
    """Replays one quarantined record."""
    with DAG(
        "fedsync__replay",
        dag_display_name="隔离重放",
        description="replay one quarantined record",
        doc_md=replay_doc(),
        schedule=None,
        tags=["fedsync", "operate"],
        default_args={**DEFAULTS, "retries": 0, "priority_weight": BY_HAND},
        is_paused_upon_creation=False,
        **alerts.callbacks(config),
        params={
            "item": Param("", type="string", title="隔离编号 / quarantine id", description="fedsync quarantine list")
        },
    ) as dag:

        @task(task_display_name="重放 replay")
        def replay(params: Any = None) -> None:
            """要求重新读取并判定 / ask that the record be read and judged anew."""
            tasks.replay(params["item"], "airflow")

        replay()
    return dag


def release_dag(config: Config) -> DAG:
    """Releases one held link."""
    with DAG(
        "fedsync__release",
        dag_display_name="链路放行",
        description="release one held link",
        doc_md=release_doc(),
        schedule=None,
        tags=["fedsync", "operate"],
        default_args={**DEFAULTS, "retries": 0, "priority_weight": BY_HAND},
        is_paused_upon_creation=False,
        **alerts.callbacks(config),
        params={"link": Param("", type="string", title="链路 / link", description="resident/110101001001")},
    ) as dag:

        @task(task_display_name="放行 release")
        def release(params: Any = None) -> None:
            """放行一次 / let the link pass its guards once."""
            tasks.release(params["link"], "airflow")

        release()
    return dag
