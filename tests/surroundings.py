"""Surroundings of moving records that a test makes up: what a gate's checks ask of a link run."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from federation.regions import RegionTree

BEIJING = Path(__file__).parents[1] / "examples/beijing/regions.csv"


def beijing() -> RegionTree:
    """The sample's region table."""
    return RegionTree.read(BEIJING)


@dataclass
class Here:
    """`people`: the keys that the dataset `resident` (or any other) holds. `values`: field → what all
    records hold at the goal."""

    tree: RegionTree = field(default_factory=beijing)
    region: str = "110101001001"
    now: datetime = datetime(2026, 3, 1, 8, tzinfo=UTC)
    people: frozenset[str] = frozenset()
    values: dict[str, list[Any]] = field(default_factory=dict)

    def exist(self, dataset: str, keys: pa.Array) -> pa.Array:
        return pa.array([key for key in keys.to_pylist() if key in self.people], pa.string())

    def held(self, name: str, values: pa.Array) -> pa.Array:
        asked = set(values.to_pylist())
        return pa.array([value for value in self.values.get(name, []) if value in asked], values.type)
