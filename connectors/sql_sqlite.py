"""What is particular about SQLite: locks, snapshots, and telling cheaply whether anything changed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event

SMALL = 20_000
"""Up to so many rows, hashing the content is cheap and tells this table's changes from those of its neighbours in the file."""


def configure(engine: Engine, *, immediate: bool = False) -> Engine:
    """Wait for other writers, make the file's folder, and begin transactions where SQLAlchemy says so, not the driver.

    `immediate`: take the write lock at once, for an engine whose transactions read before they write.
    """
    name = engine.url.database
    if name and name != ":memory:":
        Path(name).parent.mkdir(parents=True, exist_ok=True)

    @event.listens_for(engine, "connect")
    def _configure(driver: Any, _record: Any) -> None:
        driver.isolation_level = None
        driver.execute("PRAGMA busy_timeout = 20000")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def token_of(connection: Connection, statement: Any, count: int) -> str:
    """A token that differs whenever the rows differ: a hash of them, or of the file's stamps where that would cost too much."""
    if count > SMALL:
        return f"{count}:{_file_stamp(connection)}"
    total = 0
    for row in connection.execute(statement):
        digest = hashlib.blake2b(repr(tuple(row)).encode(), digest_size=16).digest()
        total = (total + int.from_bytes(digest, "big")) % 2**128
    return f"{count}:{total:032x}"


def _file_stamp(connection: Connection) -> str:
    stamps = []
    for suffix in ("", "-wal", "-journal"):
        path = Path(f"{connection.engine.url.database}{suffix}")
        if path.exists():
            found = path.stat()
            stamps.append(f"{suffix}{found.st_mtime_ns}.{found.st_size}")
    return "|".join(stamps)
