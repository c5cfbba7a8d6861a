"""Staging (暂存): what was read of a parent, kept for the processes that sync its children, on whichever host they run.

A reading lies in a folder of its own; its name is the reference that passes between tasks. Beside it each batch leaves its *news*: codes
of regions, no record. The records in a reading may be personal: whoever is through with it tidies, and what a run that died left is
purged.
"""

from __future__ import annotations

import json
import time
import uuid
from typing import TypedDict

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from federation.contract import Dataset
from federation.errors import Permanent
from federation.reading import ABOUT, KEY, Reading
from federation.storage import Storage

KEPT = 24 * 3600
"""Seconds that a run's folder is kept, so that an operator may clear and run its announcements again."""


class News(TypedDict):
    """What a batch left behind: children that hold something new, and whether the parent does."""

    below: list[str]
    above: bool


class Staging:
    """The staged readings of a federation."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def keep(self, reading: Reading) -> str:
        """Stage a reading; its reference."""
        name = uuid.uuid4().hex
        reading.save(self._storage.inside(name))
        return name

    def load(self, name: str) -> Reading | None:
        """A staged reading; None if it was tidied away, or never staged whole."""
        folder = self._storage.inside(name)
        return Reading.load(folder) if folder.exists(ABOUT) else None

    def remember(self, name: str, number: int, news: News) -> None:
        """Note the news of a batch. A retry adds to what the first try noted: nobody hears of it before the last one is over."""
        path = f"{name}/news-{number}.json"
        if self._storage.exists(path):
            before: News = json.loads(self._storage.read(path))
            news = News(
                below=sorted({*before["below"], *news["below"]}),
                above=before["above"] or news["above"],
            )
        self._storage.write(path, json.dumps(news).encode())

    def news(self, name: str) -> News:
        """The news of all batches together."""
        below: set[str] = set()
        above = False
        for entry in self._storage.entries(name):
            if entry.path.rpartition("/")[2].startswith("news-"):
                found: News = json.loads(self._storage.read(entry.path))
                below |= {*found["below"]}
                above = above or found["above"]
        return News(below=sorted(below), above=above)

    def tidy(self, name: str) -> None:
        """Throw away the staged records; the news stay for a day."""
        self._storage.remove(f"{name}/{ABOUT}")
        for entry in self._storage.entries(name):
            if entry.path.endswith(".parquet"):
                self._storage.remove(entry.path)

    def discard(self, dataset: Dataset, key: str) -> int:
        """Throw away every staged reading of a dataset that speaks of a record; how many. A run that misses one reads its parent itself."""
        found = {entry.path for entry in self._storage.entries() if entry.path.endswith(".parquet")}
        spoken = {path.partition("/")[0] for path in sorted(found) if self._speaks(path, dataset, key)}
        for name in spoken:
            self.tidy(name)
        return len(spoken)

    def _speaks(self, path: str, dataset: Dataset, key: str) -> bool:
        try:
            with self._storage.open(path, "rb") as file:
                staged = pq.ParquetFile(file)
                names = set(staged.schema_arrow.names)
                if KEY not in names or not set(dataset.key) <= names | {KEY}:
                    return False
                keys = staged.read([KEY]).column(KEY)
        except Permanent:
            if self._storage.exists(path):
                raise
            return False  # its run has just ended
        return bool(pc.any(pc.is_in(keys, pa.array([key], pa.string()))).as_py())

    def purge(self, older_than: float = KEPT) -> None:
        """Remove the folders of runs that ended, or died, longer ago than `older_than` seconds."""
        newest: dict[str, float] = {}
        for entry in self._storage.entries():
            folder = entry.path.partition("/")[0]
            newest[folder] = max(entry.made, newest.get(folder, 0.0))
        limit = time.time() - older_than
        for folder, made in newest.items():
            if made and made < limit:
                self._storage.remove_folder(folder)
