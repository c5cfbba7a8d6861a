"""Waking hops from a DAG whose task `probe` pushed, as XCom `wake`, asset name → codes of the regions with news."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, task

from federation.regions import LEVEL_ZH


def wake(asset: Asset, name: str) -> Any:
    """The task `wake__<name>`, which announces the regions that `probe` found under this name."""

    level, _, direction = name.partition("__")
    shown = f"唤醒{LEVEL_ZH[level]}级{'（自上）' if direction == 'from_above' else '（自下）'} wake"

    @task(task_id=f"wake__{name}", task_display_name=shown, outlets=[asset])
    def wake(*, ti: Any = None, outlet_events: Any = None) -> None:
        """唤醒这些区划的链路 / wake the hops of these regions."""
        outlet_events[asset].add_partitions(ti.xcom_pull(task_ids="probe", key="wake")[name])

    return wake()
