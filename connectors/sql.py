"""Relational databases through SQLAlchemy: PostgreSQL, MySQL, MariaDB and SQLite are first class, others take the common path.

Reading takes one consistent snapshot. Writing takes one transaction for a whole batch and touches only the columns that are being
delivered. Identifiers are quoted as the dialect does it, so that a column may be called "order" or 姓名.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, field_validator, model_validator
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    and_,
    func,
    inspect,
    literal,
    or_,
    select,
)
from sqlalchemy import types as sql
from sqlalchemy.exc import NoSuchTableError

from connectors import sql_buckets, sql_inspect, sql_write
from connectors.base import (
    Applied,
    Batch,
    Buckets,
    Capabilities,
    Changes,
    Connector,
    Node,
    Options,
    Probe,
    changes_of,
    fetched,
    having,
    no_keys,
    refuse_moved,
)
from connectors.findings import Finding
from connectors.sql_capture import Overlap, Watermark
from connectors.sql_database import Database, Patience, created, open_database, place_of
from connectors.sql_desk import SqlDesk
from connectors.sql_errors import driver_errors
from connectors.sql_keys import MANY_KEYS, key_conditions
from connectors.sql_log import LogCapture, Ours, change_table
from connectors.sql_log_table import LONGEST
from connectors.sql_returns import SqlReturns
from connectors.sql_sqlite import STAMPED
from connectors.sql_values import joined
from federation.canonical import key_table
from federation.contract import FieldSpec
from federation.errors import SchemaMismatch

STAMP = FieldSpec(type="timestamp", label="更新时间", authority="shared")
"""The column of last change that `prepare` creates."""


class SqlOptions(Options):
    """`url`: an SQLAlchemy URL. `table`: default the dataset's name; `schema_name`: default the connection's own.

    `capture`: `snapshot` reads everything; `cursor` what changed by `cursor_column` (a moment or a number that grows with each
    change, a field's column or not); `log` what triggers noted in `change_table` (default: a name made from the table's), kept for
    `keep_days` at least (see `connectors.sql_log`). `overlap_seconds`, `overlap_rows`: how far behind the newest change each read goes back.
    `create`: let `prepare` create the table if it is missing. `cheap_sweep`: list all keys at each cursor read, so that
    deletions travel at once; else they do at the next full comparison. `corrections`: the table beside it in which people see
    corrections and rule on them (see `connectors.sql_desk`); `prepare` creates it. Without it, they cannot. `returns`: the table beside it in
    which people see what is handed back to them (see `connectors.sql_returns`); true: `<table>_returns`; `prepare` creates it.
    `timeout`, `statement_timeout`: how long PostgreSQL or MySQL is waited for (see `connectors.sql_database.Patience`).
    """

    url: str
    table: str | None = None
    schema_name: str | None = None
    capture: Literal["snapshot", "cursor", "log"] = "snapshot"
    cursor_column: str | None = None
    overlap_seconds: float = Field(default=300.0, ge=0)
    overlap_rows: int = Field(default=1000, ge=0)
    create: bool = False
    cheap_sweep: bool = True
    corrections: str | None = None
    returns: str | Literal[True] | None = None
    timeout: float = Field(default=300.0, ge=1, le=86_400)
    statement_timeout: float | None = Field(default=None, gt=0, le=86_400)
    change_table: str | None = Field(default=None, min_length=1)
    keep_days: float = Field(default=7.0, ge=0)

    @property
    def patience(self) -> Patience:
        """How long the server is waited for."""
        return Patience(self.timeout, self.statement_timeout)

    @model_validator(mode="after")
    def _cursor_named(self) -> SqlOptions:
        if self.capture == "cursor" and not self.cursor_column:
            raise ValueError("capture: cursor needs `cursor_column`")
        return self

    @field_validator("change_table")
    @classmethod
    def _short(cls, name: str | None) -> str | None:
        if name is not None and len(name.encode()) > LONGEST:
            raise ValueError(f"at most {LONGEST} bytes in UTF-8")
        return name


class SqlConnector(Connector):
    """One table of one database. See the module and `SqlOptions`."""

    options_model = SqlOptions

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.options = SqlOptions.model_validate(node.options)
        self.table_name = self.options.table or node.dataset.name
        self.specs = node.dataset.fields

    @property
    def capabilities(self) -> Capabilities:
        cheap_sweep = self.options.cheap_sweep and self.options.capture != "log"  # deletions are seen without
        return Capabilities(
            self.options.capture,
            cheap_sweep=cheap_sweep,
            returns=self._returns is not None,
            corrections=self._desk is not None,
            checks=True,
        )

    @property
    def place(self) -> str | None:
        return place_of(self.options.url)

    def probe(self) -> Probe:
        if self._log is not None:
            return self._log.probe()
        with self._reading() as connection:
            return self._probed(connection)

    def _probed(self, connection: Connection) -> Probe:
        count = connection.execute(select(func.count()).select_from(self._table(connection))).scalar_one()
        token, detail = self._token(connection)
        return Probe(None if token is None else f"{count}:{token}", f"{count} rows{detail}")

    def inspect(self) -> Sequence[Finding]:
        told = self.options
        place = sql_inspect.Place(
            self.node, self.table_name, told.schema_name, told.cursor_column, told.create, told.corrections
        )
        with self._errors():
            found = sql_inspect.inspected(place, self._database, self.capabilities)
        if self._log is not None and all(one.state != "fail" for one in found):
            try:
                answer = self._log.probe()
            except SchemaMismatch:
                if not self.options.create:
                    raise
                answer = Probe(None, "")  # the first sync makes both tables
            found.append(sql_inspect.change_table(answer.detail, answer.token is not None))
        return found

    def prepare(self) -> tuple[str, ...]:
        made: tuple[str, ...] = ()
        if self.options.create:
            with self._errors():
                self._database.make()
                with self._database.creating() as connection:
                    made = created(connection, self._wanted_table())
        if self._desk is not None:
            made += self._desk.prepare()
        if self._returns is not None:
            made += self._returns.prepare()
        if self._log is not None:
            made += self._log.prepare()
        return made

    def unprepare(self) -> None:
        self._log_capture.unprepare()

    def changes(self, since: str | None, *, sweep: bool = True) -> Changes:
        if self._log is not None:
            return self._located(self._log.changes(since, sweep=sweep))
        if self.options.capture == "snapshot":
            with self._reading() as connection:
                return self._located(changes_of(self.node, self._raw(connection), present=True, cursor=None))
        with self._errors():
            horizon = self._database.horizon()
        with self._reading() as connection:
            stamp = self._stamp(connection)
            newest = self._database.newest(connection, stamp, self.node.timezone, horizon)
            condition = None if since is None else self._changed_since(connection, Watermark.parse(since))
            found = changes_of(
                self.node, self._raw(connection, condition), present=condition is None, cursor=newest.dump()
            )
            present = found.present
            if condition is not None:
                present = self._keys(connection) if sweep else None
        present = present if sweep else None
        return self._located(Changes(found.rows, found.rejects, no_keys(self.node), present, found.cursor))

    def fetch(self, keys: pa.Table) -> Changes:
        if not keys.num_rows:
            return self._picked([self.node.schema.empty_table()], keys)
        with self._reading() as connection:
            conditions = self._key_conditions(connection, keys)
            parts = [self._raw(connection, condition) for condition in conditions]
            found = self._picked(parts, keys)
            if found.deleted.num_rows and conditions[0] is not None:
                # What the contract reads as "R1" may stand in the database as "R1 ": before a row is called gone, look closer.
                loose = self._key_conditions(connection, found.deleted, trimmed=True)
                found = self._picked([*parts, *(self._raw(connection, condition) for condition in loose)], keys)
        return self._located(found)

    def holding(self, name: str, values: pa.Array) -> pa.Table:
        """Where a key may stand twice, everything is read: one such row alone would pass for a good one."""
        asked, condition = values.unique().drop_null(), None
        with self._reading() as connection:
            if len(asked) <= MANY_KEYS and self._keyed(connection):
                condition = self._database.holding(self._column(connection, name), self.specs[name], asked)
            raw = None if condition is None else self._raw(connection, condition)
        if raw is None:
            return super().holding(name, asked)
        return having(changes_of(self.node, raw, present=False, cursor=None).rows, name, asked)

    def apply(self, batch: Batch) -> Applied:
        tables = [rows for rows in batch.upserts if rows.num_rows]
        ours = Ours()
        if tables or batch.deletes.num_rows:
            with self._errors(), self._database.writing() as connection:
                before = None if self._log is None else self._log.begin(connection)
                alone = self._log is None and self._alone(connection, batch)
                target = self._target(connection)
                if batch.expected is not None:
                    refuse_moved(self.node, batch.expected, self._locked(connection, target, batch.expected.keys))
                    target = replace(target, checked=True)
                touched = sum(sql_write.upsert(self._database, connection, target, rows) for rows in tables)
                if batch.deletes.num_rows:
                    touched += sql_write.remove(self._database, connection, target, batch.deletes)
                if self._log is not None:
                    ours = self._log.ours(connection, before, batch.token, touched)
                elif alone:
                    ours = Ours(None, self._probed(connection).token)
        return Applied(sum(rows.num_rows for rows in tables), batch.deletes.num_rows, ours.cursor, ours.token)

    def show_returns(self, returns: pa.Table) -> None:
        if self._returns is not None:
            self._returns.show(returns)

    def show_corrections(self, corrections: pa.Table) -> None:
        if self._desk is None:
            return super().show_corrections(corrections)
        return self._desk.show(corrections)

    def rulings(self) -> pa.Table:
        return super().rulings() if self._desk is None else self._desk.rulings()

    def _locked(self, connection: Connection, target: sql_write.Target, wanted: pa.Array) -> pa.Table:
        """The rows with these keys as they are now; nobody else can change them until our transaction ends."""
        if not len(wanted) or (len(wanted) >= sql_write.FAST_ROWS and sql_write.is_empty(connection, target)):
            return self.node.schema.empty_table()
        keys = key_table(wanted, self.node.dataset)
        with sql_write.staged_keys(self._database, connection, target, keys) as chosen:
            raw = self._raw(connection, source=chosen)
        found = self._picked([raw], keys)
        if found.deleted.num_rows:
            loose = self._key_conditions(connection, found.deleted, trimmed=True)
            found = self._picked([raw, *(self._raw(connection, condition) for condition in loose)], keys)
        return found.rows

    def _alone(self, connection: Connection, batch: Batch) -> bool:
        """Whether nobody wrote since the batch's read, and nobody can until our transaction ends."""
        exclusive = self._database.excludes_writers and batch.token is not None and STAMPED not in batch.token
        return exclusive and self._probed(connection).token == batch.token

    def bucket_digests(self, asked: Buckets) -> pa.Table:
        with self._reading() as connection:
            pushed = self._pushed(connection, asked)
            told = None if pushed is None else pushed.digests(connection, self._table(connection))
        return super().bucket_digests(asked) if told is None else told

    def bucket_hashes(self, asked: Buckets, wanted: pa.Table) -> pa.Table:
        with self._reading() as connection:
            pushed = self._pushed(connection, asked)
            told = None if pushed is None else pushed.hashes(connection, self._table(connection), wanted)
        if told is None or told.column("hash").null_count:
            return super().bucket_hashes(asked, wanted)
        return told

    def _pushed(self, connection: Connection, asked: Buckets) -> sql_buckets.Statements | None:
        columns = {name: self._column(connection, name) for name in self.node.fields}
        return sql_buckets.statements(self._database, connection, self.node, columns, asked)

    # --- the table

    @cached_property
    def _database(self) -> Database:
        return open_database(self.options.url, self.options.patience)

    @cached_property
    def _desk(self) -> SqlDesk | None:
        options, name = self.options, self.options.corrections
        return None if name is None else SqlDesk(self.node, options.url, name, options.schema_name, options.patience)

    @cached_property
    def _returns(self) -> SqlReturns | None:
        options, told = self.options, self.options.returns
        name = f"{self.table_name}_returns" if told is True else told
        return None if name is None else SqlReturns(self.node, options.url, name, options.schema_name, options.patience)

    @cached_property
    def _log_capture(self) -> LogCapture:
        options, database = self.options, self._database
        log = change_table(self.node, database, self.table_name, options.schema_name, options.change_table)
        return LogCapture(self.node, database, log, self._table, self._raw, options.keep_days)

    @property
    def _log(self) -> LogCapture | None:
        return self._log_capture if self.options.capture == "log" else None

    def _errors(self) -> Any:
        return driver_errors(self.node, self.table_name)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._errors(), self._database.reading() as connection:
            yield connection

    def _table(self, connection: Connection) -> Table:
        """The table as it is in the database, checked against the contract; looked up once."""
        if "_found_table" not in self.__dict__:
            self._found_table = self._look_up(connection)
        return self._found_table

    def _look_up(self, connection: Connection) -> Table:
        schema = self.options.schema_name
        try:
            kinds = self._database.kinds(connection, self.table_name, schema)
        except NoSuchTableError as cause:
            raise self._mismatch(
                f"there is no table {self.table_name}",
                f"没有表 {self.table_name}",
                "检查 table 与 schema_name；新表可写 create: true / check `table` and `schema_name`; for a new table set `create: true`",
            ) from cause
        wanted = [self.node.column(name) for name in self.node.fields]
        if self.options.cursor_column:
            wanted.append(self.options.cursor_column)
        missing = [name for name in dict.fromkeys(wanted) if name not in kinds]
        if missing:
            raise self._mismatch(
                f"the table {self.table_name} lacks the column {', '.join(missing)} (it has {', '.join(kinds)})",
                f"表 {self.table_name} 缺少列 {', '.join(missing)}",
                "在 columns 中写明列名，或将字段列入 hosted / map it under `columns`, or list the field under `hosted`",
            )
        columns = (Column(name, kinds[name]) for name in dict.fromkeys(wanted))
        return Table(self.table_name, MetaData(schema=schema), *columns)

    def _mismatch(self, en: str, zh: str, todo: str) -> SchemaMismatch:
        return SchemaMismatch(
            en,
            zh,
            todo=todo,
            dataset=self.node.dataset.name,
            region=str(self.node.region),
            system=self.node.system,
            table=self.table_name,
        )

    def _wanted_table(self) -> Table:
        """The table that `prepare` creates."""
        keys = self.node.dataset.key
        columns: list[Column[Any]] = [
            self._database.column(self.node.column(name), self.specs[name], key=name in keys)
            for name in self.node.fields
        ]
        stamp = self.options.cursor_column
        if stamp and stamp not in {column.name for column in columns}:
            columns.append(self._database.column(stamp, STAMP, key=False))
        return Table(self.table_name, MetaData(schema=self.options.schema_name), *columns)

    def _target(self, connection: Connection) -> sql_write.Target:
        table = self._table(connection)
        name = self.options.cursor_column
        own = name is not None and name not in {self.node.column(field) for field in self.node.fields}
        stamp = table.c[name] if own and name and not isinstance(table.c[name].type, (Integer, sql.Numeric)) else None
        loading = sql_write.unlogged if self._log is None else self._log.log.loading
        generated = self._generated(connection)
        return sql_write.Target(self.node, table, stamp, self._keyed(connection), generated=generated, loading=loading)

    def _generated(self, connection: Connection) -> frozenset[str]:
        if "_found_generated" not in self.__dict__:
            place = self.table_name, self.options.schema_name
            self._found_generated = self._database.generated(connection, *place)
        return self._found_generated

    def _keyed(self, connection: Connection) -> bool:
        """Whether the database keeps the key unique."""
        if "_found_keyed" not in self.__dict__:
            keys = {self.node.column(name) for name in self.node.dataset.key}
            inspector, place = inspect(connection), (self.table_name, self.options.schema_name)
            kept = [inspector.get_pk_constraint(*place)["constrained_columns"]]
            kept += [found["column_names"] for found in inspector.get_unique_constraints(*place)]
            self._found_keyed = keys in [set(names) for names in kept]
        return self._found_keyed

    # --- reading

    def _column(self, connection: Connection, name: str) -> Column[Any]:
        return self._table(connection).c[self.node.column(name)]

    def _stamp(self, connection: Connection) -> Column[Any]:
        assert self.options.cursor_column is not None
        return self._table(connection).c[self.options.cursor_column]

    def _raw(
        self, connection: Connection, condition: Any = None, names: tuple[str, ...] | None = None, source: Any = None
    ) -> pa.Table:
        """Raw rows of the table (or of `source`, a join with it, whose rows are then locked)."""
        columns = {name: self._column(connection, name) for name in names or self.node.fields}
        statement = select(
            *(self._database.plain(column, self.specs[name], self.node.timezone) for name, column in columns.items())
        )
        if condition is not None:
            statement = statement.where(condition)
        if source is not None:
            statement = statement.select_from(source).with_for_update()
        return self._database.read(connection, statement, columns, self.specs)

    def _keys(self, connection: Connection) -> pa.Table:
        keys = self.node.dataset.key
        part = Node(self.node.dataset, self.node.region, self.node.system, {}, keys, {}, self.node.timezone)
        found = changes_of(part, self._raw(connection, names=keys), present=True, cursor=None).present
        assert found is not None
        return found

    def _changed_since(self, connection: Connection, watermark: Watermark) -> Any:
        """What may have changed; where the database does not keep keys unique, with all rows of the same keys."""
        overlap = Overlap(self.options.overlap_seconds, self.options.overlap_rows)
        condition = self._database.changed_since(self._stamp(connection), watermark, overlap)
        if condition is None or self._keyed(connection):
            return condition
        table = self._table(connection)
        keys = [self.node.column(name) for name in self.node.dataset.key]
        twin = table.alias()
        moved = self._database.changed_since(twin.c[self._stamp(connection).name], watermark, overlap)
        same = and_(*(table.c[name] == twin.c[name] for name in keys))
        return or_(condition, select(literal(1)).select_from(twin).where(moved, same).exists())

    def _token(self, connection: Connection) -> tuple[str | None, str]:
        """The watermark and a checksum of the rows about it (ties), or without a cursor a checksum of all rows."""
        table = self._table(connection)
        if self.options.capture == "snapshot":
            return self._database.checksum(connection, table, None), ""
        stamp = self._stamp(connection)
        newest = connection.execute(select(self._database.text(func.max(self._database.plain(stamp))))).scalar_one()
        watermark = self._database.newest(connection, stamp, self.node.timezone, None)
        about = self._database.changed_since(
            stamp, watermark, Overlap(self.options.overlap_seconds, self.options.overlap_rows)
        )
        return f"{newest}:{self._database.checksum(connection, table, about)}", f", newest {newest}"

    def _key_conditions(self, connection: Connection, keys: pa.Table, *, trimmed: bool = False) -> list[Any]:
        columns = {name: self._column(connection, name) for name in self.node.dataset.key}
        return key_conditions(self._database, columns, self.specs, keys, self.node.timezone, trimmed=trimmed)

    def _picked(self, parts: list[pa.Table], keys: pa.Table) -> Changes:
        return fetched(self.node, changes_of(self.node, joined(parts), present=False, cursor=None), keys)

    def _located(self, found: Changes) -> Changes:
        """Name the table in the rejects: where a person finds the row, by its key."""
        count = found.rejects.num_rows
        if not count:
            return found
        place = found.rejects.schema.get_field_index("locator")
        locator = pa.array([self.table_name] * count, pa.string())
        rejects = found.rejects.set_column(place, "locator", locator)
        return Changes(found.rows, rejects, found.deleted, found.present, found.cursor)
