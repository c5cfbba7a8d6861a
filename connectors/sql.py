"""Relational databases through SQLAlchemy: SQLite and PostgreSQL are first class, other dialects work by the common path.

Reading takes one consistent snapshot. Writing takes one transaction for a whole batch, touches only the columns that are being
delivered, updates rows that exist and inserts those that do not (never an upsert that would trip over other NOT NULL columns).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa
from pydantic import model_validator
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    MetaData,
    Table,
    and_,
    bindparam,
    create_engine,
    delete,
    func,
    insert,
    inspect,
    literal,
    or_,
    select,
    tuple_,
    type_coerce,
    update,
)
from sqlalchemy import types as sql
from sqlalchemy.pool import NullPool

from connectors import sql_postgres
from connectors.base import (
    Applied,
    Batch,
    Capabilities,
    Changes,
    Connector,
    Node,
    Options,
    Probe,
    changes_of,
    fetched,
    no_keys,
)
from connectors.sql_capture import Watermark
from connectors.sql_errors import driver_errors
from connectors.sql_sqlite import configure, token_of
from connectors.sql_values import column_type, local_text, raw_columns, rows_for, writer
from federation.errors import SchemaMismatch

KEYS_AT_ONCE = 400
MANY_KEYS = 20_000
"""From here on, reading the table and picking is cheaper than asking for keys."""


class SqlOptions(Options):
    """`url`: an SQLAlchemy URL. `capture`: `cursor` needs `cursor_column` (a column that grows with each change).

    `overlap_seconds` / `overlap_rows`: how far behind the newest change each read goes back (times / numbers).
    `create`: let `prepare` create the table if it is missing.
    """

    url: str
    table: str | None = None
    schema_name: str | None = None
    capture: Literal["snapshot", "cursor"] = "snapshot"
    cursor_column: str | None = None
    overlap_seconds: float = 300.0
    overlap_rows: int = 1000
    create: bool = False

    @model_validator(mode="after")
    def _cursor_named(self) -> SqlOptions:
        if self.capture == "cursor" and not self.cursor_column:
            raise ValueError("capture: cursor needs `cursor_column`")
        return self


class SqlConnector(Connector):
    """One table of one database. See the module and `SqlOptions`."""

    options_model = SqlOptions

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.options = SqlOptions.model_validate(node.options)
        self.table_name = self.options.table or node.dataset.name

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(self.options.capture)

    def probe(self) -> Probe:
        with self._reading() as connection:
            count = connection.execute(select(func.count()).select_from(self._table)).scalar_one()
            if self._stamp is not None:
                newest = connection.execute(select(func.max(self._stamp))).scalar_one()
                return Probe(f"{count}:{newest}", f"{count} rows, newest {newest}")
            if self._dialect == "postgresql":
                return Probe(f"{count}:{sql_postgres.checksum(connection, self._table)}", f"{count} rows")
            if self._dialect == "sqlite":
                return Probe(token_of(connection, self._select(), count), f"{count} rows")
        return Probe(None, f"{count} rows")

    def prepare(self) -> None:
        if not self.options.create:
            return
        with driver_errors(self.node, self.table_name):
            metadata = MetaData(schema=self.options.schema_name)
            keys = self.node.dataset.key
            columns = [
                Column(
                    self.node.column(name),
                    column_type(self.node.dataset.fields[name], key=name in keys, dialect=self._dialect),
                    primary_key=name in keys,
                    autoincrement=False,
                )
                for name in self.node.fields
            ]
            if self.options.cursor_column and self.options.cursor_column not in {column.name for column in columns}:
                columns.append(
                    Column(
                        self.options.cursor_column,
                        sql.Text() if self._dialect == "sqlite" else sql.DateTime(timezone=True),
                    )
                )
            Table(self.table_name, metadata, *columns)
            metadata.create_all(self._engine)

    def changes(self, since: str | None, *, sweep: bool = True) -> Changes:
        incremental = self.options.capture == "cursor" and since is not None
        with self._reading() as connection:
            newest = connection.execute(select(func.max(self._stamp))).scalar_one() if self._stamp is not None else None
            condition = self._changed_since(since) if incremental and since else None
            found = changes_of(self.node, self._raw(connection, condition), present=not incremental, cursor=None)
            present = self._keys(connection) if incremental and sweep else found.present
        cursor = Watermark(newest).dump() if self.options.capture == "cursor" else None
        return Changes(found.rows, found.rejects, no_keys(self.node), present, cursor)

    def fetch(self, keys: pa.Table) -> Changes:
        with self._reading() as connection:
            parts = [self._raw(connection, condition) for condition in self._key_conditions(keys)]
        raw = pa.concat_tables(parts, promote_options="permissive") if parts else self.node.schema.empty_table()
        return fetched(self.node, changes_of(self.node, raw, present=False, cursor=None), keys)

    def apply(self, batch: Batch) -> Applied:
        with driver_errors(self.node, self.table_name), self._engine.begin() as connection:
            for rows in batch.upserts:
                self._upsert(connection, rows)
            self._delete(connection, batch.deletes)
        return Applied(sum(rows.num_rows for rows in batch.upserts), batch.deletes.num_rows)

    def close(self) -> None:
        if "_engine" in self.__dict__:
            self._engine.dispose()

    @cached_property
    def _engine(self) -> Engine:
        url = self.options.url.replace("postgresql://", "postgresql+psycopg://", 1)
        with driver_errors(self.node, self.table_name):
            engine = create_engine(
                url, poolclass=NullPool, connect_args={"connect_timeout": 10} if url.startswith("postgresql") else {}
            )
            return configure(engine) if engine.dialect.name == "sqlite" else engine

    @property
    def _dialect(self) -> str:
        return self._engine.dialect.name

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """A connection that sees one consistent state."""
        with driver_errors(self.node, self.table_name), self._engine.connect() as connection:
            if self._dialect == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            _ = self._table
            with connection.begin():
                yield connection

    @cached_property
    def _table(self) -> Table:
        """The table as it is in the database, checked against the contract."""
        with driver_errors(self.node, self.table_name):
            inspector = inspect(self._engine)
            schema = self.options.schema_name
            if not (
                inspector.has_table(self.table_name, schema=schema)
                or self.table_name in inspector.get_view_names(schema=schema)
            ):
                raise self._mismatch(
                    f"there is no table {self.table_name}",
                    f"没有表 {self.table_name}",
                    "建表，或写 create: true / create it, or set `create: true`",
                )
            kinds = {found["name"]: found["type"] for found in inspector.get_columns(self.table_name, schema=schema)}
        wanted = [self.node.column(name) for name in self.node.fields]
        if self.options.cursor_column:
            wanted.append(self.options.cursor_column)
        missing = [name for name in dict.fromkeys(wanted) if name not in kinds]
        if missing:
            have = ", ".join(kinds)
            raise self._mismatch(
                f"the table {self.table_name} lacks the column {', '.join(missing)} (it has {have})",
                f"表 {self.table_name} 缺少列 {', '.join(missing)}",
                "在 columns 中写明列名，或列入 hosted / map it under `columns`, or list the field under `hosted`",
            )
        return Table(
            self.table_name, MetaData(schema=schema), *(Column(name, kinds[name]) for name in dict.fromkeys(wanted))
        )

    def _mismatch(self, en: str, zh: str, todo: str) -> SchemaMismatch:
        return SchemaMismatch(
            en, zh, todo=todo, dataset=self.node.dataset.name, region=str(self.node.region), system=self.node.system
        )

    @property
    def _stamp(self) -> Column[Any] | None:
        return self._table.c[self.options.cursor_column] if self.options.cursor_column else None

    def _column(self, name: str) -> Column[Any]:
        return self._table.c[self.node.column(name)]

    def _select(self) -> Any:
        """All fields as the database has them, in the order of the node's fields; text where its own decoding could fail."""
        plain = self._dialect == "sqlite"
        return select(*(sql_plain(self._column(name)) if plain else self._column(name) for name in self.node.fields))

    def _raw(self, connection: Connection, condition: Any) -> pa.Table:
        statement = self._select() if condition is None else self._select().where(condition)
        if self._dialect == "postgresql":
            return sql_postgres.read(connection, statement, self.node.fields)
        return raw_columns(self.node.fields, connection.execute(statement).fetchall())

    def _keys(self, connection: Connection) -> pa.Table:
        names = self.node.dataset.key
        columns = [sql_plain(self._column(name)) if self._dialect == "sqlite" else self._column(name) for name in names]
        raw = raw_columns(names, connection.execute(select(*columns)).fetchall())
        part = Node(self.node.dataset, self.node.region, self.node.system, {}, tuple(names), {}, self.node.timezone)
        found = changes_of(part, raw, present=True, cursor=None).present
        assert found is not None
        return found

    def _changed_since(self, since: str) -> Any:
        start = Watermark.parse(since).from_where(self.options.overlap_seconds, self.options.overlap_rows)
        if start is None or self._stamp is None:
            return None
        column: Any = sql_plain(self._stamp) if self._dialect == "sqlite" else self._stamp
        return or_(column >= literal(start), self._stamp.is_(None))

    def _key_conditions(self, keys: pa.Table) -> Iterator[Any]:
        names = self.node.dataset.key
        if keys.num_rows > MANY_KEYS:
            yield None
            return
        writers = [writer(self._column(name).type, self.node.timezone) for name in names]
        rows = [
            tuple(write(value) for write, value in zip(writers, row))
            for row in zip(*(keys.column(name).to_pylist() for name in names))
        ]
        for start in range(0, len(rows), KEYS_AT_ONCE):
            chunk = rows[start : start + KEYS_AT_ONCE]
            if len(names) == 1:
                yield self._column(names[0]).in_([row[0] for row in chunk])
            else:
                yield tuple_(*(self._column(name) for name in names)).in_(chunk)

    def _upsert(self, connection: Connection, rows: pa.Table) -> None:
        if not rows.num_rows:
            return
        keys = self.node.dataset.key
        others = [name for name in rows.column_names if name not in keys]
        columns = {name: self._column(name) for name in (*keys, *others)}
        stamp = self._own_stamp()
        if self._dialect == "postgresql":
            sql_postgres.upsert(
                connection, self._table, rows.select(list(columns)), columns, list(keys), stamp, self.node.timezone
            )
            return
        parameters = rows_for(rows, [(name, column.type) for name, column in columns.items()], self.node.timezone)
        stamped = {stamp: literal(self._now_text())} if stamp is not None else {}
        number = {name: f"c{i}" for i, name in enumerate(columns)}
        same = and_(*(columns[name] == bindparam(number[name], type_=columns[name].type) for name in keys))
        if others:
            values = {columns[name]: bindparam(number[name], type_=columns[name].type) for name in others}
            connection.execute(update(self._table).where(same).values({**values, **stamped}), parameters)
        fresh = select(
            *(bindparam(number[name], type_=columns[name].type) for name in columns), *stamped.values()
        ).where(~select(literal(1)).select_from(self._table).where(same).exists())
        connection.execute(
            insert(self._table).from_select([*columns.values(), *stamped], fresh, include_defaults=False), parameters
        )

    def _own_stamp(self) -> Column[Any] | None:
        """The cursor column, if it is the system's own (not a field): our writes must move it as its people's do."""
        name = self.options.cursor_column
        if (
            name is None
            or name in {self.node.column(field) for field in self.node.fields}
            or isinstance(self._table.c[name].type, sql.Integer)
        ):
            return None
        return self._table.c[name]

    def _now_text(self) -> Any:
        """Now, in the way the cursor column keeps time."""
        stamp = self._own_stamp()
        assert stamp is not None
        now = datetime.now(UTC)
        if self._dialect == "sqlite":
            return local_text(now, self.node.timezone)
        return writer(stamp.type, self.node.timezone)(now)

    def _delete(self, connection: Connection, keys: pa.Table) -> None:
        if not keys.num_rows:
            return
        names = list(self.node.dataset.key)
        parameters = rows_for(keys, [(name, self._column(name).type) for name in names], self.node.timezone)
        same = and_(
            *(self._column(name) == bindparam(f"c{i}", type_=self._column(name).type) for i, name in enumerate(names))
        )
        connection.execute(delete(self._table).where(same), parameters)


def sql_plain(column: Column[Any]) -> Any:
    """A column without its type's decoding: SQLite keeps whatever was put in, and a date that is none must not raise."""
    return type_coerce(column, sql.NullType())
