"""Staged readings on disk: finding and throwing away those that hold one record."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from federation.contract import Dataset
from federation.reading import KEY


def discard(staging: Path, dataset: Dataset, key: str) -> int:
    """Throw away every staged reading of a dataset that speaks of a record; how many. A run that misses one reads its parent itself."""
    gone = 0
    for folder in sorted(staging.iterdir()) if staging.is_dir() else ():
        files = sorted(folder.glob("*.parquet"))
        if any(_speaks(path, dataset, key) for path in files):
            (folder / "about.json").unlink(missing_ok=True)
            for path in files:
                path.unlink(missing_ok=True)
            gone += 1
    return gone


def _speaks(path: Path, dataset: Dataset, key: str) -> bool:
    try:
        names = set(pq.read_schema(path).names)
        if KEY not in names or not set(dataset.key) <= names | {KEY}:
            return False
        found = pq.read_table(path, columns=[KEY]).column(KEY)
    except FileNotFoundError:
        return False  # its run has just ended
    return bool(pc.any(pc.is_in(found, pa.array([key], pa.string()))).as_py())
