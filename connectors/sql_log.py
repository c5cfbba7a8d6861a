"""Log capture: what changed is read from a change table, which triggers fill inside the transactions of the people's own programs.

A read takes one snapshot of the database and does all of this in it: it finds where the change table stands, takes the keys on the
lines after the cursor, each once, and reads the rows that have these keys now. So rows are current, a key without a row is a
deletion, and its cost goes by the number of changes. No late commit is lost: a line of a transaction that was still open lies after
the position that the read returns (`connectors.sql_log_table`; how, each database's module says).

Where the change table cannot vouch for what lies between the cursor and now, everything is read, with all keys: it or one of its
triggers was removed or made anew, the data table was truncated, rewritten or replaced, the server was restored to an earlier state,
or the lines in between were purged since (`keep_days`).

Our own writes are logged as well, for the other links that read the table. The link that wrote them need not read them again: if
nobody else wrote in between, `apply` returns the position after them, and the token that a probe finds there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import CHAR, Connection, Table

from connectors.base import Changes, Node, Probe, changes_of
from connectors.sql_database import Database
from connectors.sql_errors import driver_errors
from connectors.sql_log_table import ChangeTable, Cursor, Standing
from federation.errors import SchemaMismatch, Transient


class Read(Protocol):
    """Reads the data table: all rows, or those that a condition selects; all fields, or those named. Raw."""

    def __call__(
        self, connection: Connection, condition: Any = None, names: tuple[str, ...] | None = None
    ) -> pa.Table: ...


@dataclass(frozen=True)
class Ours:
    """After our own write: the cursor and the token, as `Applied` has them."""

    cursor: str | None = None
    token: str | None = None


class LogCapture:
    """Log capture of one node. `table`: looks up the data table, checked against the contract; `read`: reads it."""

    def __init__(
        self,
        node: Node,
        database: Database,
        log: ChangeTable,
        table: Callable[[Connection], Table],
        read: Read,
        keep_days: float,
    ) -> None:
        self.node = node
        self.database = database
        self.log = log
        self.table = table
        self.read = read
        self.keep_days = keep_days

    def prepare(self) -> tuple[str, ...]:
        """Make the change table and its triggers, unless all of it stands; what was made."""
        with self._errors(), self.database.creating() as connection:
            data = self.table(connection)
            if self.log.look(connection, data) is not None:
                return ()
            self.log.uninstall(connection)
            self.log.install(connection, data)
        return (f"变更表与触发器 change table and triggers {self.log.name}",)

    def unprepare(self) -> None:
        """Remove them."""
        with self._errors(), self.database.creating() as connection:
            self.log.uninstall(connection)

    def probe(self) -> Probe:
        """The token where the change table stands; None where there is none."""
        with self._standing() as (_, standing):
            if standing is None:
                return Probe(None, "no change table yet")
            return Probe(standing.token, f"change table at {standing.position}")

    def changes(self, since: str | None, *, sweep: bool) -> Changes:
        """See the contract. Makes the change table if it is missing."""
        for _ in range(2):
            with self._standing() as (connection, standing):
                if standing is not None:
                    found, untidy = self._changes(connection, standing, Cursor.parse(since), since is not None, sweep)
                    break
            self.prepare()
        else:
            raise Transient(
                f"the change table {self.log.name} was removed while it was read",
                f"读取时变更表 {self.log.name} 被删除",
                todo="将自动重试 / it is tried again",
                table=self.log.table,
            )
        with self._errors():
            if untidy and not standing.untidy:
                self.log.set_untidy()
            self.log.purge(self.keep_days)
        return found

    # --- our own writes

    def begin(self, connection: Connection) -> Standing | None:
        """Before our own write, in its transaction."""
        return self.log.begin(connection, self.table(connection))

    def ours(self, connection: Connection, before: Standing | None, token: str | None, touched: int) -> Ours:
        """After our own write, in its transaction: what may be told of it. `token`: of the probe before its read."""
        after = None if token is None else self.log.ours(connection, self.table(connection), before, token, touched)
        return Ours() if after is None else Ours(after.cursor.dump(), after.token)

    # --- reading

    @contextmanager
    def _standing(self) -> Iterator[tuple[Connection, Standing | None]]:
        """A snapshot, and where the change table stands in it."""
        with self._errors():
            with self.database.reading() as connection:
                standing = self.log.look(connection, self.table(connection))
                if standing is None or not standing.behind:
                    yield connection, standing
                    return
            self.log.catch_up()
            with self.database.reading() as connection:
                yield connection, self.log.look(connection, self.table(connection))

    def _changes(
        self, connection: Connection, standing: Standing, cursor: Cursor | None, later: bool, sweep: bool
    ) -> tuple[Changes, bool]:
        """The changes, and whether keys stand in other forms than the contract's. `later`: this is not the first read."""
        if cursor is None or not self._covers(connection, standing, cursor):
            raw = self.read(connection)
            found = changes_of(self.node, raw, present=later or sweep, cursor=standing.cursor.dump())
            keys = pa.concat_tables([_keys(found.rows, self.node), _keys(found.rejects, self.node)])
            return found, not self._tidy(connection, raw, keys)
        return self._increment(connection, standing, cursor, sweep)

    def _covers(self, connection: Connection, standing: Standing, cursor: Cursor) -> bool:
        """Whether the lines after the cursor tell of all that happened since."""
        if standing.empty or cursor.epoch != standing.epoch or not self.log.reaches(cursor.position, standing):
            return False
        if cursor.anchor is not None and not self.log.remembers(connection, cursor.anchor):
            return False
        return not self.log.loaded(connection, cursor.position)

    def _increment(
        self, connection: Connection, standing: Standing, cursor: Cursor, sweep: bool
    ) -> tuple[Changes, bool]:
        data = self.table(connection)
        raw = self.log.changed_keys(connection, data, cursor.position)
        logged = self._keys_of(raw)
        assert logged.present is not None
        untidy = standing.untidy or not self._tidy(connection, raw, logged.present)
        rows = (
            self.read(connection, self.log.changed_rows(data, raw, cursor.position))
            if raw.num_rows
            else self.node.schema.empty_table()
        )
        found = changes_of(self.node, rows, present=False, cursor=standing.cursor.dump())
        known = pa.concat_tables([_keys(found.rows, self.node), _keys(found.rejects, self.node)])
        every = self._keys_of(self.read(connection, names=self.node.dataset.key)) if sweep or untidy else None
        if every is not None and every.present is not None:
            known = pa.concat_tables([known, every.present])
        names = list(self.node.dataset.key)
        deleted = logged.present.join(known, names, join_type="left anti").select(names)
        found = replace(found, deleted=deleted)
        return (found if every is None else _with_all(found, every, sweep)), untidy

    def _keys_of(self, raw: pa.Table) -> Changes:
        """Keys alone, typed; `present` are all of them that are readable."""
        node = self.node
        part = Node(node.dataset, node.region, node.system, {}, node.dataset.key, {}, node.timezone)
        return changes_of(part, raw, present=True, cursor=None)

    def _tidy(self, connection: Connection, raw: pa.Table, typed: pa.Table) -> bool:
        """Whether each raw key stands in the contract's form: the typed keys then hold the very same value."""
        data = self.table(connection)
        for name in self.node.dataset.key:
            column = data.c[self.node.column(name)]
            if not self.log.exact(self.node.dataset.fields[name], column):
                return False
            values = raw.column(name)
            if isinstance(column.type, CHAR) and pa.types.is_string(values.type):
                values = pc.utf8_rtrim(values, " ")  # the database itself takes no account of its padding
            try:
                values = values.cast(typed.schema.field(name).type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                return False
            kept = typed.column(name)
            if not values.equals(kept) and not pc.all(pc.is_in(values, kept.combine_chunks())).as_py():
                return False
        return True

    def _errors(self) -> Any:
        return driver_errors(self.node, self.log.table)


def _keys(rows: pa.Table, node: Node) -> pa.Table:
    """The keys of rows, or of those rejects that have one."""
    keys = rows.select(list(node.dataset.key))
    for name in node.dataset.key:
        keys = keys.filter(keys.column(name).is_valid())
    return keys


def _with_all(found: Changes, every: Changes, sweep: bool) -> Changes:
    """With all keys, if they were asked for, or if rows without a key stand in the table: these are told with each read, since any
    of the records that are missing may be one of them.
    """
    names = every.rows.column_names
    keyless = every.rejects.filter(_keyless(every.rejects, names))
    if not sweep and not keyless.num_rows:
        return found
    known = found.rejects.filter(pc.invert(_keyless(found.rejects, names)))
    return replace(found, rejects=pa.concat_tables([known, keyless]), present=every.present)


def _keyless(rejects: pa.Table, keys: list[str]) -> pa.ChunkedArray:
    nothing = pa.chunked_array([[False] * rejects.num_rows], pa.bool_())
    for name in keys:
        nothing = pc.or_(nothing, pc.is_null(rejects.column(name)))
    return nothing


def change_table(node: Node, database: Database, table: str, schema: str | None, name: str | None) -> ChangeTable:
    """The change table of a data table. Raises SchemaMismatch for a kind of database without one."""
    backend = database.engine.dialect.name
    if backend == "postgresql":
        from connectors.sql_log_postgres import PostgresChanges

        return PostgresChanges(node, database, table, schema, name)
    if backend in ("mysql", "mariadb"):
        from connectors.sql_log_mysql import MysqlChanges

        return MysqlChanges(node, database, table, schema, name)
    if backend == "sqlite":
        from connectors.sql_log_sqlite import SqliteChanges

        return SqliteChanges(node, database, table, schema, name)
    raise SchemaMismatch(
        f"log capture is not made for {backend}",
        f"{backend} 不支持日志捕获",
        todo="改为 capture: cursor 或 snapshot / set `capture: cursor` or `snapshot`",
        dataset=node.dataset.name,
        region=str(node.region),
        system=node.system,
    )
