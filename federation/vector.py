"""The vector engine: one in-memory DuckDB per process (starting one costs 15 ms).

`query` answers one statement over Arrow tables. Planning a statement of the merge costs ten times what running it over a few rows does,
and a city has thousands of links that ask the same: so for small tables the plan is kept, and only the rows are exchanged. Large tables
are planned anew, since a good plan depends on their sizes. What is larger than the memory that FEDSYNC_MEMORY grants (such as `2GB`;
default: most of the machine's) spills into a folder that nobody else may read.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from federation.processes import alive

MEMORY = "FEDSYNC_MEMORY"
SMALL = 20_000
"""Rows in all up to which a kept plan serves."""
KEPT = 256
"""Plans that are kept before all are forgotten: a process that sees so many shapes gains nothing from them."""


def query(sql: str, **named: pa.Table) -> pa.Table:
    """The answer to one statement in which these Arrow tables can be named."""
    if sum(table.num_rows for table in named.values()) > SMALL:
        with tables(**named) as engine:
            return engine.sql(sql).to_arrow_table()
    shape = (os.getpid(), sql, *((name, table.schema) for name, table in named.items()))
    plan = _plans.take(shape) or _planned(sql, named)
    for name, slot in plan.slots.items():
        slot.table = named[name]
    try:
        answer = plan.engine.sql("EXECUTE kept").to_arrow_table()
    finally:
        for slot in plan.slots.values():
            slot.table = slot.table.schema.empty_table()
    _plans.give(shape, plan)
    return answer


def where(table: pa.Table, mask: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The rows that a mask without nulls picks; the table itself, not a copy of it, if it picks all."""
    return table if pc.all(mask).as_py() else table.filter(mask)


@contextmanager
def tables(**named: pa.Table) -> Iterator[Any]:
    """A DuckDB cursor in which these Arrow tables can be queried by name; nothing stays behind."""
    with _database(os.getpid()).cursor() as engine:
        for name, table in named.items():
            engine.register(name, table)
        try:
            yield engine
        finally:
            for name in named:
                engine.unregister(name)


class _NotYet:
    """By which `import pandas` fails."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ImportError("pandas is not needed yet")


def _without_pandas() -> None:
    """Arrow looks for pandas when it first meets a Python list: half a second of the processor and 50 MB in every task, of which hardly
    any needs it. If it was missing then, Arrow looks again where a table is to become a frame; it only takes pandas' own kinds of
    nothing (NaT, NA), which stand in none of our lists, for no nulls."""
    if "pandas" in sys.modules:
        return
    finder = _NotYet()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([None])
    finally:
        sys.meta_path.remove(finder)


_without_pandas()


class _Slot:
    """A table of a kept plan: its schema stays, its rows are put in for each use."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_schema__(self) -> object:
        return self.table.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


@dataclass(frozen=True)
class _Plan:
    """A statement prepared as `kept` on a cursor of its own, where its tables are slots."""

    engine: Any
    slots: dict[str, _Slot]


class _Plans:
    """The kept plans that nobody uses right now. A plan serves one thread at a time."""

    def __init__(self) -> None:
        self._idle: dict[Any, list[_Plan]] = {}
        self._lock = threading.Lock()

    def take(self, shape: Any) -> _Plan | None:
        with self._lock:
            idle = self._idle.get(shape)
            return idle.pop() if idle else None

    def give(self, shape: Any, plan: _Plan) -> None:
        with self._lock:
            if len(self._idle) >= KEPT:
                self._idle.clear()
            self._idle.setdefault(shape, []).append(plan)

    def clear(self) -> None:
        with self._lock:
            self._idle.clear()


_plans = _Plans()
atexit.register(_plans.clear)


def _planned(sql: str, named: dict[str, pa.Table]) -> _Plan:
    engine = _database(os.getpid()).cursor()
    slots = {name: _Slot(table) for name, table in named.items()}
    for name, slot in slots.items():
        engine.register(name, slot)
    engine.execute(f"PREPARE kept AS {sql}")
    return _Plan(engine, slots)


@cache
def _database(process: int) -> Any:
    """A forked worker must not touch its parent's DuckDB: hence one per process id."""
    settings: dict[str, Any] = {"temp_directory": str(_private_folder() / str(process))}
    if os.environ.get(MEMORY):
        settings["memory_limit"] = os.environ[MEMORY]
    return duckdb.connect(":memory:", config=settings)


def _private_folder() -> Path:
    """Where processes of this user spill to, cleared of what processes that were killed left behind."""
    folder = Path(tempfile.gettempdir()) / f"fedsync-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)  # fails if somebody else made it
    for left in folder.iterdir():
        if left.name.isdigit() and not alive(int(left.name)):
            shutil.rmtree(left, ignore_errors=True)
    return folder
