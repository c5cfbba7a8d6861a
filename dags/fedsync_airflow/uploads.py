"""The DAG that a saved file wakes: `<dataset>__uploads`, for datasets with nodes that people edit as files.

A watcher in the triggerer notices the file within seconds; the run asks these nodes whether they really hold news and wakes their hops.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task
from fedsync_uploads import UploadTrigger

from federation.config import Config
from federation.contract import Dataset
from federation.uploads import watched_levels
from fedsync_airflow import tasks
from fedsync_airflow.alerts import callbacks
from fedsync_airflow.docs import uploads_doc
from fedsync_airflow.names import arrivals, declaration, title
from fedsync_airflow.waking import wake


def uploads_dag(config: Config, dataset: Dataset, defaults: dict[str, Any]) -> DAG | None:
    """None where no node of the dataset can be a file."""
    levels = watched_levels(dataset, _declared(config, dataset))
    if not levels:
        return None
    trigger = UploadTrigger(declaration(), dataset.name)
    name = f"{dataset.name}__uploads"
    saved = Asset(
        name=name, uri=f"fedsync://{dataset.name}/uploads", watchers=[AssetWatcher(name=name, trigger=trigger)]
    )
    with DAG(
        name,
        dag_display_name=title(dataset, "uploads"),
        description=f"{dataset.name}: somebody saved a file",
        doc_md=uploads_doc(dataset),
        schedule=[saved],
        tags=["fedsync", dataset.name, "uploads"],
        default_args=defaults,
        catchup=False,
        max_active_runs=4,
        is_paused_upon_creation=False,
        **callbacks(config, dataset),
    ) as dag:

        @task.branch(task_display_name="核实 probe")
        def probe(ti: Any = None, triggering_asset_events: Any = None) -> list[str]:
            """文件确有新内容的节点 / which of these files really hold something new."""
            regions = regions_of(triggering_asset_events or {})
            found = tasks.uploads(dataset.name, regions)
            ti.xcom_push(key="wake", value=found)
            return [f"wake__{name}" for name in found]

        probed = probe()
        for level in levels:
            if dataset.upper_of(level) is not None:
                probed >> wake(arrivals(dataset, level, "from_below"), f"{level}__from_below")
            if dataset.lower_of(level) is not None:
                probed >> wake(arrivals(dataset, level, "from_above"), f"{level}__from_above")
    return dag


def regions_of(events: Any) -> list[str]:
    """The regions that the events which started a run name."""
    told = [event.extra.get("payload") or {} for asset in events.values() for event in asset]
    return sorted({code for payload in told for code in payload.get("regions", ())})


def _declared(config: Config, dataset: Dataset) -> list[tuple[str, str]]:
    found = []
    for node in config.spec.nodes:
        if dataset.name in node.datasets and node.system in config.spec.systems:
            word = config.spec.systems[node.system].connector
            levels = {config.tree[code].level for code in node.regions} or {node.level or ""}
            found += [(word, level) for level in levels]
    return found
