"""A database as the connectors use it: one pool per URL and process, and what differs between kinds of databases.

`Database` is the common path, in SQLAlchemy Core, that any dialect can take; `Postgres`, `Mysql` and `Sqlite` have faster or safer ways,
`Oracle`, `Dameng` and `SqlServer` the ways that they need.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

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
    event,
    func,
    insert,
    inspect,
    literal,
    make_url,
    select,
    update,
)
from sqlalchemy.pool import QueuePool
from sqlalchemy.types import TypeEngine

from connectors.sql_capture import Overlap, Watermark
from connectors.sql_values import column_type, for_driver, is_natural, is_zoned, naive_local, raw_columns
from federation.contract import FieldSpec

if TYPE_CHECKING:
    from connectors.sql_buckets import BucketTexts

Columns = Mapping[str, Column[Any]]
"""Columns of a table by the field that they hold, in the order of a select or of a table to load."""


STAGE = "fedsync_stage"
CONNECT_SECONDS = 10
"""How long connecting may take, unless the URL says otherwise: a server that is there answers at once."""


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for, in seconds, so that one that is dead or stalled hangs nothing for ever.

    `timeout`: how long it may be silent while an answer is due; then the connection is given up (Transient), and the server, for
    which we are silent, drops it after twice that time, with its locks. `statement_timeout`: after which the server itself breaks off a
    statement, however busy; None: its own setting.
    """

    timeout: float = 300.0
    statement_timeout: float | None = None

    @property
    def connecting(self) -> int:
        """Seconds that connecting may take."""
        return max(1, min(CONNECT_SECONDS, round(self.timeout)))

    @property
    def abandoned(self) -> float:
        """Seconds after which the server may take it that we are gone: longer than a slow network needs to bring the last answer."""
        return 2 * self.timeout


class Database:
    """One database, by the common path. Raises the driver's own errors (`driver_errors` translates).

    `patience` holds where the driver has a way to keep it: here PostgreSQL, MySQL and Dameng.
    """

    excludes_writers = False
    """Whether a writing transaction keeps all others from writing until it ends."""

    fast_into_empty = False
    """Whether loading straight into an empty table is the faster way."""

    strays = False
    """Whether `insert_or_update` may change a row of another key: one that a collation or another index takes for the same."""

    buckets: BucketTexts | None = None
    """What it says of text and hashes; None: nothing that could be relied on."""

    def __init__(self, url: URL, patience: Patience = Patience()) -> None:
        self.patience = patience
        self.engine: Engine = self._engine(url)

    def _engine(self, url: URL) -> Engine:
        return self._pooled(url)

    def _pooled(self, url: URL, **arguments: Any) -> Engine:
        """At most one idle connection is kept per database, and only to the `MOST_IDLE` used last. `arguments`: the driver's own."""
        engine = create_engine(
            url,
            hide_parameters=True,
            pool_size=1,
            max_overflow=32,
            pool_pre_ping=True,
            pool_recycle=600,
            connect_args=arguments,
        )
        event.listen(engine, "checkin", lambda *_: _keep_idle(engine))
        return engine

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

    def fill(
        self, connection: Connection, table: Table, columns: Columns, rows: pa.Table, timezone: str, keys: Sequence[str]
    ) -> None:
        """`load` into an empty table, in the order of its key: a new key at a random place costs an index more than all the rest."""
        self.load(connection, table, columns, rows.sort_by([(name, "ascending") for name in keys]), timezone)

    def generated(self, connection: Connection, table: str, schema: str | None) -> frozenset[str]:
        """The columns of a table that the database fills in itself, and lets nobody write."""
        return frozenset(
            found["name"] for found in inspect(connection).get_columns(table, schema) if found.get("computed")
        )

    def stage(self, connection: Connection, like: str) -> str:
        """Create a temporary table with the columns of a compiled select; its name."""
        connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {STAGE} AS {like}")
        return STAGE

    def unstage(self, connection: Connection, name: str) -> None:
        """Drop what `stage` created."""
        connection.exec_driver_sql(f"DROP TABLE {name}")

    def update(self, connection: Connection, table: Table, stage: Table, same: Any, values: Mapping[Any, Any]) -> int:
        """Give the rows that are `same` as a staged one these values (by column); how many there were."""
        return int(connection.execute(update(table).where(same).values(dict(values))).rowcount)

    def text(self, expression: Any) -> Any:
        """An expression as text."""
        return cast(expression, Text)

    def plain(self, column: Column[Any], spec: FieldSpec | None = None, timezone: str = "UTC") -> Any:
        """A column as it is selected, for a field if it is one."""
        return column

    def trimmed(self, column: Column[Any]) -> Any:
        """A column's text without surrounding spaces, as most fields are normalised."""
        return func.trim(self.text(self.plain(column)))

    def key_condition(self, column: Column[Any], spec: FieldSpec, values: Sequence[Any]) -> Any:
        """Rows whose key field is one of `values`; None if the database would compare them otherwise than the contract does."""
        return column.in_(values) if is_natural(spec, column.type) else None

    def holding(self, column: Column[Any], spec: FieldSpec, values: pa.Array) -> Any:
        """Rows whose field is one of `values` (typed), and any others of which only the contract can tell whether it is; None if the
        database cannot tell them apart."""
        return None

    def same(self, left: Any, right: Any, spec: FieldSpec, column: Column[Any]) -> Any:
        """Whether two columns (of the table, and staged for it) hold the same key field."""
        return left == right

    def insert_or_update(self, table: Table, keys: Sequence[str], others: Sequence[str]) -> Insert:
        """An insert that gives way to a writer who inserted the same key meanwhile, where the database can."""
        return insert(table)

    def insert_new(self, table: Table, keys: Sequence[str], others: Sequence[str]) -> Insert:
        """An insert of keys that were not there a moment ago: one that skips a key which is there now, where the database can; else
        one whose keys nobody else can insert meanwhile, or `insert_or_update`."""
        return self.insert_or_update(table, keys, others)

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


MOST_IDLE = 16
"""Databases, per process, to which an idle connection is kept: a whole city opens hundreds, and their servers count connections."""

_open: dict[tuple[int, str, Patience], Database] = {}
_idle: OrderedDict[tuple[int, Engine], None] = OrderedDict()
_opening = threading.Lock()


def open_database(url: str, patience: Patience = Patience()) -> Database:
    """The database behind a URL; the same object for the same URL in one process (a forked child opens its own)."""
    me = (os.getpid(), url, patience)
    with _opening:
        if me not in _open:
            _open[me] = _kind_of(_driven(make_url(url)), patience)
        return _open[me]


def release_idle(url: str) -> None:
    """Close this process's idle connections to a database; the next use opens new ones."""
    me = os.getpid()
    with _opening:
        found = [database for (process, other, _), database in _open.items() if (process, other) == (me, url)]
    for database in found:
        database.engine.dispose()


def _keep_idle(engine: Engine) -> None:
    """A connection of this engine is about to be idle: those of the engines that were used longest ago go, except what is in use."""
    me = os.getpid()
    with _opening:
        _idle[me, engine] = None
        _idle.move_to_end((me, engine))
        stale = [_idle.popitem(last=False)[0] for _ in range(len(_idle) - MOST_IDLE)]
    for process, other in stale:
        if process == me and isinstance(other.pool, QueuePool) and not other.pool.checkedout():
            other.dispose()


def single(statement: str) -> str:
    """SQLAlchemy doubles each % for a driver that takes parameters; a statement, or name, without any is passed on as it is."""
    return statement.replace("%%", "%")


def created(connection: Connection, table: Table) -> tuple[str, ...]:
    """Create a table where it is missing; what was made, as `Connector.prepare` tells it."""
    if inspect(connection).has_table(table.name, schema=table.schema):
        return ()
    table.create(connection)
    return (f"表 table {table.fullname}",)


def place_of(url: str) -> str:
    """Which server and database a URL means, whoever logs in: a text without credentials."""
    found = make_url(url)
    return f"{found.get_backend_name()}://{found.host or ''}:{found.port or ''}/{found.database or ''}"


_DRIVEN = {
    "postgresql": "postgresql+psycopg",
    "kingbase": "postgresql+psycopg",
    "kingbase8": "postgresql+psycopg",
    "kingbasees": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "oracle": "oracle+oracledb",
    "mssql": "mssql+pymssql",
    "dm": "dm+dmPython",
    "dameng": "dm+dmPython",
}
"""What a URL's name means where it names no driver. KingbaseES speaks PostgreSQL's protocol; its own drivers call it kingbase8."""
_KINGBASE_PORT = 54321


def _driven(url: URL) -> URL:
    """With our driver, where none is named."""
    if url.drivername.startswith("kingbase") and url.port is None:
        url = url.set(port=_KINGBASE_PORT)
    return url.set(drivername=_DRIVEN.get(url.drivername, url.drivername))


def _kind_of(url: URL, patience: Patience) -> Database:
    backend = url.get_backend_name()
    if backend == "postgresql":
        from connectors.sql_postgres import Postgres

        return Postgres(url, patience)
    if backend == "sqlite":
        from connectors.sql_sqlite import Sqlite

        return Sqlite(url, patience)
    if backend in ("mysql", "mariadb") and url.get_driver_name() == "pymysql":
        from connectors.sql_mysql import Mysql

        return Mysql(url.set(drivername="mysql+pymysql"), patience)
    if backend == "oracle":
        from connectors.sql_oracle import Oracle

        return Oracle(url, patience)
    if backend == "mssql":
        from connectors.sql_mssql import SqlServer

        return SqlServer(url, patience)
    if backend == "dm":
        from connectors.sql_dameng import Dameng

        return Dameng(url, patience)
    return Database(url, patience)


@atexit.register
def _close_all() -> None:
    for (process, *_), database in list(_open.items()):
        if process == os.getpid():
            database.engine.dispose()
