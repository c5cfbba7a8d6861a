"""Airflow plugin of the federation: maps a region's partition to the partition of the region above that syncs it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from airflow.partition_mappers.base import PartitionMapper
from airflow.plugins_manager import AirflowPlugin

from federation.config import region_table
from federation.regions import RegionTree


class RegionAt(PartitionMapper):
    """Maps a region code to the region at `level` that it lies in; a code above that level, or unknown, wakes nobody.

    Runs in Airflow's scheduler and API server, which know nothing of the federation but FEDSYNC_FEDERATION: the region table
    is read from there, again whenever it changes.
    """

    def __init__(self, level: str, *, max_downstream_keys: int | None = None) -> None:
        super().__init__(max_downstream_keys=max_downstream_keys)
        self.level = level

    def to_downstream(self, key: str) -> str | Iterable[str]:
        region = _tree().ancestor(key, self.level)
        return region.code if region is not None else []

    def serialize(self) -> dict[str, Any]:
        return {"level": self.level, **super().serialize()}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> RegionAt:
        return cls(data["level"], max_downstream_keys=data.get("max_downstream_keys"))


def _tree() -> RegionTree:
    table = region_table(os.environ["FEDSYNC_FEDERATION"])
    return _read(table, table.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _read(table: Path, _stamp: int) -> RegionTree:
    return RegionTree.read(table)


class FedsyncPlugin(AirflowPlugin):
    """What the federation adds to Airflow."""

    name = "fedsync"
    partition_mappers = [RegionAt]
