"""What is particular about Dameng (达梦): its SQL is Oracle's in most things, but creating a table ends the transaction.

For DM8, through dmPython and dmSQLAlchemy. No server has run this yet: run `tests/contract/test_sql_live.py` against yours first. As DM8 is
described: a statement that defines something commits what was done before it; global temporary tables and their ON COMMIT; `''` is text
unless COMPATIBLE_MODE is 2. As the drivers' code has it: the error codes, that dmPython drops the zone of a moment both ways, what the dialect
does with many rows. Taken to be as in Oracle: MERGE, SYS_EXTRACT_UTC, SERIALIZABLE as one state for a whole transaction.

A `TIMESTAMP WITH TIME ZONE` keeps moments; `DATETIME` and `TIMESTAMP` keep local time, as people's programs write it.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

from sqlalchemy import URL, Column, Connection, Engine, SmallInteger, String, event, inspect, util
from sqlalchemy import types as sql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from connectors.sql_database import STAGE
from connectors.sql_oracle import KEY_LENGTH, Oracle
from connectors.sql_values import column_type, is_text, is_zoned
from federation.contract import FieldSpec


class Moment(sql.TIMESTAMP):
    """A TIMESTAMP WITH TIME ZONE that is written as text: the driver would drop the zone."""

    def __init__(self) -> None:
        super().__init__(timezone=True)

    def bind_processor(self, dialect: Any) -> Callable[[datetime | None], str | None]:
        return moment_text


def moment_text(moment: datetime | None) -> str | None:
    """A moment, or a UTC reading, as Dameng reads it."""
    if moment is None:
        return None
    utc = moment.astimezone(UTC) if moment.tzinfo else moment
    return f"{utc.replace(tzinfo=None).isoformat(' ', 'microseconds')} +00:00"


class Dameng(Oracle):
    """Dameng through dmPython."""

    def _engine(self, url: URL) -> Engine:
        import_dialect()
        waits = {"login_timeout": self.patience.connecting, "connection_timeout": max(1, round(self.patience.timeout))}
        engine = self._pooled(url, **{name: given for name, given in waits.items() if name not in url.query})
        event.listen(engine, "do_executemany", _many)
        return engine

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self.engine.connect().execution_options(isolation_level="SERIALIZABLE") as connection, connection.begin():
            yield connection

    def kinds(self, connection: Connection, table: str, schema: str | None) -> dict[str, TypeEngine[Any]]:
        found = super().kinds(connection, table, schema)
        return {name: Moment() if is_zoned(kind) else kind for name, kind in found.items()}

    def column(self, name: str, spec: FieldSpec, *, key: bool) -> Column[Any]:
        kind = column_type(spec, key=key)
        if key and is_text(kind):
            kind = String(KEY_LENGTH)
        elif spec.type == "bool":
            kind = SmallInteger()
        elif spec.type == "timestamp":
            kind = Moment()
        return Column(name, kind, primary_key=key, autoincrement=False)

    def stage(self, connection: Connection, like: str) -> str:
        """A global temporary table: its definition stays and serves all sessions, its rows are the transaction's own. Defined by a
        connection of its own, since that commits; named after its columns, so that a changed column gets another."""
        probe = connection.exec_driver_sql(like)
        shape = hashlib.sha256(f"{like}\n{probe.cursor.description}".encode()).hexdigest()
        probe.close()
        name = f"{STAGE}_{shape[:16]}"
        if not inspect(connection).has_table(name):
            self._define(f"CREATE GLOBAL TEMPORARY TABLE {name} ON COMMIT DELETE ROWS AS {like}", name)
        return name

    def unstage(self, connection: Connection, name: str) -> None:
        connection.exec_driver_sql(f"DELETE FROM {name}")

    def _define(self, statement: str, name: str) -> None:
        with self.engine.connect() as own:
            try:
                own.exec_driver_sql(statement)
            except DBAPIError:
                own.rollback()
                if not inspect(own).has_table(name):  # else another process was faster
                    raise
            own.commit()


def import_dialect() -> None:
    """Import dmSQLAlchemy. It imports its asynchronous half along, which asks for `await_fallback`, gone since SQLAlchemy 2.1 and used nowhere
    else: where that is missing, an empty module stands in for that half while the rest is imported. Raises ImportError."""
    importlib.import_module("dmPython")  # named in the error if it is this that is missing
    half = "dmSQLAlchemy.dmasync"
    if hasattr(util, "await_fallback") or "dmSQLAlchemy" in sys.modules:
        importlib.import_module("dmSQLAlchemy")
        return
    stand_in = ModuleType(half)
    stand_in.dialect_async = None  # type: ignore[attr-defined]
    sys.modules[half] = stand_in
    try:
        importlib.import_module("dmSQLAlchemy")
    finally:
        del sys.modules[half]


def _many(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
    """Many rows, without the `RETURNING key INTO ?` that the dialect adds to each: nobody asks for the keys that we just wrote. Local times
    go as text, as the dialect sends them."""
    cursor.executemany(statement, [[_sent(value) for value in row] for row in parameters])
    return True


def _sent(value: Any) -> Any:
    return value.isoformat(" ", "microseconds") if isinstance(value, datetime) else value
