"""What is particular about SQLite: locks, snapshots, values of any type in any column, and telling whether anything changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    Integer,
    Table,
    Text,
    case,
    cast,
    create_engine,
    event,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.pool import NullPool
from sqlalchemy.types import NullType

from connectors.sql_capture import Overlap, Watermark
from connectors.sql_database import Columns, Database
from connectors.sql_values import as_text, is_natural, is_text, local_text, raw_columns
from federation.canonical import plain_ranges
from federation.contract import FieldSpec

BUSY_MILLISECONDS = 20_000
HASHED_ROWS = 20_000
"""Up to so many rows, hashing them is cheap and tells this table's changes from those of its neighbours in the file."""

_DAY = "-".join(["[0-9]" * 4, "[0-9]" * 2, "[0-9]" * 2])


class Sqlite(Database):
    """A file. Connecting costs next to nothing, so none is kept. Moments are kept as local text, as people's programs do."""

    excludes_writers = True

    def _engine(self, url: URL) -> Engine:
        self.path = Path(url.database or "")
        engine = create_engine(url, hide_parameters=True, poolclass=NullPool)

        @event.listens_for(engine, "connect")
        def _configure(driver: Any, _record: Any) -> None:
            driver.isolation_level = None  # transactions begin where we say so, not where the driver guesses
            driver.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
            driver.execute("PRAGMA secure_delete = ON")  # what we delete is a person, and must not stand in free pages

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            connection.exec_driver_sql(
                "BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN"
            )

        return engine

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        self._there()
        with super().reading() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Takes the write lock at once: a transaction that read first could not wait for another writer."""
        self._there()
        with self.engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection

    def make(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            self.path.touch()

    def _there(self) -> None:
        """Opening a file that does not exist would create it, and an empty database looks like everything was deleted."""
        if not self.path.is_file():
            raise FileNotFoundError(f"there is no file {self.path}")
        if not os.access(self.path, os.R_OK):
            raise PermissionError(f"the file {self.path} may not be read")

    def read(
        self, connection: Connection, statement: Any, columns: Columns, specs: Mapping[str, FieldSpec]
    ) -> pa.Table:
        return raw_columns(tuple(columns), connection.execute(statement).fetchall())

    def load(self, connection: Connection, table: Table, columns: Columns, rows: pa.Table, timezone: str) -> None:
        quote = connection.dialect.identifier_preparer
        listed = ", ".join(quote.quote(column.name) for column in columns.values())
        marks = ", ".join("?" * len(columns))
        values = [_suited(rows.column(name), timezone) for name in columns]
        connection.exec_driver_sql(
            f"INSERT INTO {quote.format_table(table)} ({listed}) VALUES ({marks})", list(zip(*values))
        )

    def plain(self, column: Column[Any], spec: FieldSpec | None = None, timezone: str = "UTC") -> Any:
        """Without its type's decoding: SQLite keeps whatever was put in, and a date that is none must not raise."""
        return type_coerce(column, NullType())

    def key_condition(self, column: Column[Any], spec: FieldSpec, values: Sequence[Any]) -> Any:
        if is_comparable(spec, column):
            return self.plain(column).in_(values)
        return cast(self.plain(column), Text).in_(values) if spec.type in ("string", "enum") else None

    def holding(self, column: Column[Any], spec: FieldSpec, values: pa.Array) -> Any:
        """Whatever its column is declared as: what is not kept as our own programs would keep it is left to the contract."""
        held = self.plain(column)
        kind = func.typeof(held)
        if spec.type == "int":
            return or_(held.in_(values.to_pylist()), kind.not_in(["integer", "null"]))
        if spec.type == "date":
            return or_(held.in_(values.cast(pa.string()).to_pylist()), not_(_like(held, _DAY)))
        if spec.type not in ("string", "enum"):
            return None
        told = cast(held, Text)
        plain = "".join(f"{first}-{last}" for first, last in plain_ranges(spec.normalise))
        untidy = (_like(told, pattern) for pattern in (f"*[^{plain}]*", " *", "* "))
        return or_(told.in_(values.to_pylist()), kind.in_(["real", "blob"]), *untidy)

    def same(self, left: Any, right: Any, spec: FieldSpec, column: Column[Any]) -> Any:
        """In a column without a type 7 and '7' are different, and people's programs wrote either."""
        if is_comparable(spec, column):
            return left == right
        return cast(self.plain(left), Text) == cast(self.plain(right), Text)

    def now(self, column: Column[Any], timezone: str) -> Any:
        return literal_column(
            f"'{local_text(datetime.now(UTC), timezone)}'"
        )  # as a parameter it would be taken for the column's type

    def checksum(self, connection: Connection, table: Table, condition: Any) -> str | None:
        """A hash of the rows, or of the file's stamps where there are too many."""
        rows = select(*(self.plain(column) for column in table.c))
        rows = rows if condition is None else rows.where(condition)
        if connection.execute(select(func.count()).select_from(rows.subquery())).scalar_one() > HASHED_ROWS:
            return f"{STAMPED}{self._file_stamp()}"
        total = 0
        for row in connection.execute(rows):
            digest = hashlib.blake2b(repr(tuple(row)).encode("utf-8", "replace"), digest_size=16).digest()
            total = (total + int.from_bytes(digest, "big")) % 2**128
        return f"{total:032x}"

    def _file_stamp(self) -> str:
        """Size, time and the change counters of the file and of its log: the time alone may stand still for some milliseconds."""
        stamps = []
        for path, counter in ((self.path, slice(24, 28)), (self.path.with_name(f"{self.path.name}-wal"), slice(0, 32))):
            if path.exists():
                found = path.stat()
                with path.open("rb") as content:
                    head = content.read(32)[counter].hex()
                stamps.append(f"{found.st_mtime_ns}.{found.st_size}.{head}")
        return "|".join(stamps)

    def newest(self, connection: Connection, column: Column[Any], timezone: str, horizon: str | None) -> Watermark:
        if isinstance(column.type, Integer):
            return Watermark(connection.execute(select(func.max(column))).scalar_one())
        second = _second(column)
        now = _seconds(local_text(datetime.now(UTC), timezone))
        found = connection.execute(select(func.max(case((second <= now, second))))).scalar_one()
        return Watermark(found)

    def changed_since(self, column: Column[Any], watermark: Watermark, overlap: Overlap) -> Any:
        if isinstance(watermark.at, str) or watermark.at is None:
            return None
        if isinstance(column.type, Integer):
            return or_(column.is_(None), column >= watermark.at - overlap.steps)
        second = _second(column)
        return or_(second.is_(None), second >= watermark.at - overlap.seconds)


def _like(expression: Any, pattern: str) -> Any:
    return expression.op("GLOB", is_comparison=True)(literal(pattern))


def _second(column: Column[Any]) -> Any:
    """A stamp kept as text, whatever its separator, zone or fraction, as a number; null if it is none (then it is read)."""
    return _seconds(type_coerce(column, NullType()))


def _seconds(stamp: Any) -> Any:
    return cast(func.strftime("%s", stamp), Integer)


def is_comparable(spec: FieldSpec, column: Column[Any]) -> bool:
    if spec.type in ("date", "timestamp", "decimal"):
        return False
    return is_text(column.type) if spec.type in ("string", "enum") else is_natural(spec, column.type)


def _suited(values: pa.ChunkedArray, timezone: str) -> list[Any]:
    kind = values.type
    if pa.types.is_boolean(kind):
        return list(values.cast(pa.int8()).to_pylist())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return list(values.to_pylist())
    return list(as_text(values, timezone).to_pylist())


STAMPED = "file:"
"""Begins a token that is made of the file's stamps: it says nothing of a transaction before its commit."""
