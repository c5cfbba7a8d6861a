"""A database as the connectors use it: one pool per URL and process, and what differs between kinds of databases.

`Database` is the common path, in SQLAlchemy Core, that any dialect can take; `Postgres`, `Mysql` and `Sqlite` have faster or safer ways.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from sqlalchemy import (
    URL,
    Column,
    Connection,
    Delete,
    Engine,
    Insert,
    Integer,
    Numeric,
    Table,
    Text,
    case,
    cast,
    create_engine,
    delete,
    func,
    insert,
    inspect,
    literal,
    make_url,
    select,
)
from sqlalchemy.types import TypeEngine

from connectors.sql_capture import Overlap, Watermark
from connectors.sql_values import column_type, for_driver, is_natural, is_zoned, naive_local, raw_columns
from federation.contract import FieldSpec

Columns = Mapping[str, Column[Any]]
"""Columns of a table by the field that they hold, in the order of a select or of a table to load."""


class Database:
    """One database, by the common path. Raises the driver's own errors (`driver_errors` translates)."""

    excludes_writers = False
    """Whether a writing transaction keeps all others from writing until it ends."""

    fast_into_empty = False
    """Whether loading straight into an empty table is the faster way."""

    strays = False
    """Whether `insert_or_update` may change a row of another key: one that a collation or another index takes for the same."""

    unstage = "DROP TABLE"
    """The statement that drops a staged table."""

    def __init__(self, url: URL) -> None:
        self.engine: Engine = self._engine(url)

    def _engine(self, url: URL) -> Engine:
        return self._pooled(url)

    def _pooled(self, url: URL, **arguments: Any) -> Engine:
        """At most one idle connection is kept per database: a city has hundreds of them. `arguments`: the driver's own."""
        return create_engine(
            url,
            hide_parameters=True,
            pool_size=1,
            max_overflow=32,
            pool_pre_ping=True,
            pool_recycle=600,
            connect_args=arguments,
        )

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one consistent state throughout."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes; all or nothing."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    def make(self) -> None:
        """Create the database itself, where that is ours to do."""
        return

    @contextmanager
    def creating(self) -> Iterator[Connection]:
        """A transaction that creates tables, one process at a time where the database can."""
        with self.writing() as connection:
            yield connection

    def kinds(self, connection: Connection, table: str, schema: str | None) -> dict[str, TypeEngine[Any]]:
        """The type of each column of a table. Raises NoSuchTableError."""
        return {found["name"]: found["type"] for found in inspect(connection).get_columns(table, schema)}

    def column(self, name: str, spec: FieldSpec, *, key: bool) -> Column[Any]:
        """The column that `prepare` creates for a field."""
        return Column(name, column_type(spec, key=key), primary_key=key, autoincrement=False)

    def read(
        self, connection: Connection, statement: Any, columns: Columns, specs: Mapping[str, FieldSpec]
    ) -> pa.Table:
        """Run a select of these columns; a raw table with columns named after fields, for `conform`."""
        return raw_columns(tuple(columns), connection.execute(statement).fetchall())

    def load(self, connection: Connection, table: Table, columns: Columns, rows: pa.Table, timezone: str) -> None:
        """Insert rows (columns named after fields) in bulk."""
        lists = [for_driver(rows.column(name), column.type, timezone) for name, column in columns.items()]
        names = [column.name for column in columns.values()]
        parameters = [dict(zip(names, row)) for row in zip(*lists)]
        connection.execute(insert(table), parameters)

    def stage(self, connection: Connection, name: str, like: str) -> None:
        """Create a temporary table with the columns of a compiled select."""
        connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {name} AS {like}")

    def plain(self, column: Column[Any], spec: FieldSpec | None = None, timezone: str = "UTC") -> Any:
        """A column as it is selected, for a field if it is one."""
        return column

    def trimmed(self, column: Column[Any]) -> Any:
        """A column's text without surrounding spaces, as most fields are normalised."""
        return func.trim(cast(self.plain(column), Text))

    def key_condition(self, column: Column[Any], spec: FieldSpec, values: Sequence[Any]) -> Any:
        """Rows whose key field is one of `values`; None if the database would compare them otherwise than the contract does."""
        return column.in_(values) if is_natural(spec, column.type) else None

    def same(self, left: Any, right: Any, spec: FieldSpec, column: Column[Any]) -> Any:
        """Whether two columns (of the table, and staged for it) hold the same key field."""
        return left == right

    def insert_or_update(self, table: Table, keys: Sequence[str], others: Sequence[str]) -> Insert:
        """An insert that gives way to a writer who inserted the same key meanwhile, where the database can."""
        return insert(table)

    def removal(self, table: Table, stage: Table, same: Any) -> Delete:
        """A delete of the rows that are `same` as a staged one."""
        return delete(table).where(select(literal(1)).select_from(stage).where(same).exists())

    def now(self, column: Column[Any], timezone: str) -> Any:
        """The database's clock, as the column keeps time."""
        if is_zoned(column.type):
            return func.now()
        local = naive_local(pa.chunked_array([[datetime.now(UTC)]], pa.timestamp("us", "UTC")), timezone)
        return literal(local[0].as_py(), column.type)

    def checksum(self, connection: Connection, table: Table, condition: Any) -> str | None:
        """An order-free hash of the rows (None as condition: of all), or None if the database cannot do it cheaply."""
        return None

    def horizon(self) -> str | None:
        """A moment such that whatever a transaction writes that is not visible yet was stamped then or later, if known.

        Must be asked before the reading transaction begins.
        """
        return None

    def newest(self, connection: Connection, column: Column[Any], timezone: str, horizon: str | None) -> Watermark:
        """The watermark now: the greatest value of the cursor column that lies neither in the future nor past the horizon."""
        if isinstance(column.type, (Integer, Numeric)):
            found = connection.execute(select(func.max(column))).scalar_one()
            return Watermark(None if found is None else int(found))
        past = case((column <= self.now(column, timezone), column))
        found = connection.execute(select(func.max(past))).scalar_one()
        return Watermark(None if found is None else found.isoformat())

    def changed_since(self, column: Column[Any], watermark: Watermark, overlap: Overlap) -> Any:
        """The condition that selects what may have changed since; None if that is everything."""
        at = watermark.at
        if at is None or isinstance(at, str) == isinstance(column.type, (Integer, Numeric)):
            return None
        if isinstance(at, str):
            return column.is_(None) | (column >= datetime.fromisoformat(at) - timedelta(seconds=overlap.seconds))
        return column.is_(None) | (column >= at - overlap.steps)


_open: dict[tuple[int, str], Database] = {}
_opening = threading.Lock()


def open_database(url: str) -> Database:
    """The database behind a URL; the same object for the same URL in one process (a forked child opens its own)."""
    me = (os.getpid(), url)
    with _opening:
        if me not in _open:
            _open[me] = _kind_of(_driven(make_url(url)))
        return _open[me]


def _driven(url: URL) -> URL:
    """With our driver, where none is named."""
    drivers = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
    return url.set(drivername=f"{url.drivername}+{drivers[url.drivername]}") if url.drivername in drivers else url


def _kind_of(url: URL) -> Database:
    backend = url.get_backend_name()
    if backend == "postgresql":
        from connectors.sql_postgres import Postgres

        return Postgres(url)
    if backend == "sqlite":
        from connectors.sql_sqlite import Sqlite

        return Sqlite(url)
    if backend in ("mysql", "mariadb") and url.get_driver_name() == "pymysql":
        from connectors.sql_mysql import Mysql

        return Mysql(url.set(drivername="mysql+pymysql"))
    return Database(url)


@atexit.register
def _close_all() -> None:
    for (process, _), database in list(_open.items()):
        if process == os.getpid():
            database.engine.dispose()
