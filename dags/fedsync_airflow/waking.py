"""Waking hops from a DAG whose task `probe` pushed, as XCom `wake`, asset name → codes of the regions with news."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, task


def wake(asset: Asset, name: str) -> Any:
    """The task `wake__<name>`, which announces the regions that `probe` found under this name."""

    @task(task_id=f"wake__{name}", outlets=[asset])
    def wake(*, ti: Any = None, outlet_events: Any = None) -> None:
        """唤醒这些区划的链路 / wake the hops of these regions."""
        outlet_events[asset].add_partitions(ti.xcom_pull(task_ids="probe", key="wake")[name])

    return wake()
