"""The change table of log capture: what its triggers write, where a reader stands in it, and what each database must know how to do.

CHANGE TABLE  one line for each change of a row: its key, the operation (I, U, D), when, and what tells the reader what he has seen.
              A change of the key itself is two lines, for the old key and the new one. One line without a key (L) may stand for all rows
              that a bulk load brought into an empty table: whoever finds it reads everything, which he would have to anyway.
STATE         one line beside it, in `<change table>_state`: the table's `epoch` and what was purged.
EPOCH         the life of a change table, with whatever else makes its positions comparable. Another epoch: read everything.
POSITION      how far a reader got. What is committed later, however long ago it was written, lies after it (each database says why).
ANCHOR        the newest line that a position covers. If it is gone, the lines after the position may be gone as well, or the
              database is a restored one: read everything.
TIDY          no key stands in the table in another form than the contract gives it (`R1 `, `007` for a number). While all are, a
              key that was deleted is gone; else another row may be the same key, and that takes a look at all of them.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
from sqlalchemy import Column, Connection, MetaData, Table, select, tuple_

from connectors.base import Node
from connectors.sql_database import Columns, Database
from connectors.sql_values import is_natural
from federation.contract import FieldSpec
from federation.errors import AccessDenied, SchemaMismatch

OWN = ("log_seq", "log_xid", "log_batch", "log_writer", "log_mark", "log_op", "log_at")
"""Names of columns that stand beside the key."""
STATE = ("epoch", "key_columns", "purged", "untidy")
TRIGGERS = ("insert", "update", "delete")
LONGEST = 48
"""Bytes of a change table's name: its triggers are called after it, and PostgreSQL cuts names after 63."""
AT_ONCE = 5_000
"""Lines that one transaction purges or numbers."""


@dataclass(frozen=True)
class Cursor:
    """What a reader remembers between two reads."""

    epoch: str
    position: str
    anchor: str | None

    def dump(self) -> str:
        """As an opaque cursor."""
        return json.dumps([self.epoch, self.position, self.anchor])

    @classmethod
    def parse(cls, cursor: str | None) -> Cursor | None:
        """The inverse of `dump`; None for what is no cursor of ours."""
        try:
            held = json.loads(cursor or "null")
        except ValueError:
            return None
        return cls(*held) if isinstance(held, list) and len(held) == 3 else None


@dataclass(frozen=True)
class Standing:
    """A change table as one transaction sees it.

    `token`: differs whenever the table may have changed. `purged`: lines before it may be gone. `untidy`: keys once stood in
    another form. `behind`: lines wait to be numbered or counted (`ChangeTable.catch_up`). `empty`: the data table has no row.
    """

    epoch: str
    position: str
    anchor: str | None
    token: str
    purged: int
    untidy: bool
    behind: bool = False
    empty: bool = False

    @property
    def cursor(self) -> Cursor:
        """What to remember of it."""
        return Cursor(self.epoch, self.position, self.anchor)


class ChangeTable(ABC):
    """The change table of one data table in one kind of database. `name`: of the change table. Raises the driver's errors."""

    marks: ClassVar[tuple[str, ...]]
    """The columns that a change table of this database has beside the key."""
    stated: ClassVar[tuple[str, ...]] = STATE
    """The columns of its state."""

    def __init__(self, node: Node, database: Database, table: str, schema: str | None, name: str | None) -> None:
        self.node = node
        self.database = database
        self.table = table
        self.schema = schema
        self.name = name or default_name(table)
        self.state = f"{self.name}_state"
        self.keys = {field: key_name(node.column(field)) for field in node.dataset.key}

    # --- making it and removing it

    @abstractmethod
    def look(self, connection: Connection, data: Table) -> Standing | None:
        """Where it stands; None if it, or one of its triggers, is missing. `data`: the data table."""

    @abstractmethod
    def install(self, connection: Connection, data: Table) -> None:
        """Make it and its triggers, where nothing of it stands. Raises AccessDenied that says which right is missing."""

    @abstractmethod
    def uninstall(self, connection: Connection) -> None:
        """Remove all that `install` made, or what is left of it, and nothing else."""

    # --- reading it

    def catch_up(self) -> None:
        """Number or count what was committed since, so that later looks need not."""
        return

    @abstractmethod
    def since(self, lines: Table, position: str) -> Any:
        """The condition that selects the lines after a position. `lines`: the change table."""

    @abstractmethod
    def reaches(self, position: str, standing: Standing) -> bool:
        """Whether no line after the position was purged, as far as it stands now. No I/O."""

    @abstractmethod
    def remembers(self, connection: Connection, anchor: str) -> bool:
        """Whether the line is still there, and still the same."""

    def loaded(self, connection: Connection, position: str) -> bool:
        """Whether one of the lines after a position stands for a whole load (L)."""
        return False

    def changed_keys(self, connection: Connection, data: Table, position: str) -> pa.Table:
        """The keys on the lines after a position, each once, raw and named after fields."""
        columns = {field: data.c[self.node.column(field)] for field in self.keys}
        lines = self.entries(data)
        picked = [
            self.database.plain(lines.c[name], self.node.dataset.fields[field], self.node.timezone)
            for field, name in self.keys.items()
        ]
        return self._read(connection, self._distinct(picked, lines, position), columns)

    def changed_rows(self, data: Table, keys: pa.Table, position: str) -> Any:
        """The condition that selects the data table's rows with these keys (`changed_keys` of that position), and maybe more."""
        lines = self.entries(data)
        named = select(*(lines.c[name] for name in self.keys.values())).where(self.since(lines, position))
        return self._among(data, named)

    def exact(self, spec: FieldSpec, column: Column[Any]) -> bool:
        """Whether a column of this type can keep a value of the field in one form only, as far as its type tells."""
        return is_natural(spec, column.type)

    # --- our own writes

    def begin(self, connection: Connection, data: Table) -> Standing | None:
        """Where it stands before our own write, where `ours` needs to know."""
        return None

    @contextmanager
    def loading(self, connection: Connection) -> Iterator[bool]:
        """While we load rows into the empty data table: whether each statement that inserts there is one line (L), not one for each row."""
        yield False

    @abstractmethod
    def ours(
        self, connection: Connection, data: Table, before: Standing | None, token: str, touched: int
    ) -> Standing | None:
        """Where it stands after our own write, in its transaction; None unless nobody else wrote since `token`, nor can any
        other change hide behind ours. `touched`: how many rows we updated, deleted or inserted, a load that is one line as 1.
        """

    # --- keeping it small

    @abstractmethod
    def purge(self, days: float) -> None:
        """Delete lines older than that, but for the newest of them, in small transactions. It stands."""

    def set_untidy(self) -> None:
        """Note that keys stand in other forms than the contract's."""
        with self.database.writing() as connection:
            connection.execute(self.states.update().values(untidy=1))

    # --- tables

    def entries(self, data: Table) -> Table:
        """The change table. Its key columns have the types of the data table's."""
        kinds = [Column(name, data.c[self.node.column(field)].type) for field, name in self.keys.items()]
        return Table(self.name, MetaData(schema=self.schema), *(Column(name) for name in self.marks), *kinds)

    @property
    def states(self) -> Table:
        """The state's table."""
        return Table(self.state, MetaData(schema=self.schema), *(Column(name) for name in self.stated))

    @property
    def marked(self) -> Table:
        """The change table without its key."""
        return Table(self.name, MetaData(schema=self.schema), *(Column(name) for name in self.marks))

    # --- for the databases

    def _read(self, connection: Connection, statement: Any, columns: Columns) -> pa.Table:
        return self.database.read(connection, statement, columns, self.node.dataset.fields)

    def _distinct(self, picked: Sequence[Any], lines: Table, position: str) -> Any:
        return select(*picked).where(self.since(lines, position)).distinct()

    def _among(self, data: Table, keys: Any) -> Any:
        columns = [data.c[self.node.column(field)] for field in self.keys]
        return columns[0].in_(keys) if len(columns) == 1 else tuple_(*columns).in_(keys)

    def _first_state(self) -> dict[str, Any]:
        return {"epoch": secrets.token_hex(8), "key_columns": self._key_columns, "purged": 0, "untidy": 0}

    @property
    def _key_columns(self) -> str:
        return json.dumps([self.node.column(field) for field in self.keys], ensure_ascii=False)

    def _checked(self, state: Mapping[str, Any]) -> None:
        """Raise SchemaMismatch if the change table is that of another key."""
        if state["key_columns"] != self._key_columns:
            raise self.mismatch(
                f"the change table {self.name} records another key: {state['key_columns']}",
                f"变更表 {self.name} 记录的是另一主键：{state['key_columns']}",
                "在 change_table 中另写一个表名；若主键已改，先执行 fedsync system unprepare"
                " / name another `change_table`; if the key was changed, first run: fedsync system unprepare",
            )

    def _refuse_strangers(self, found: Mapping[str, Sequence[str]]) -> None:
        """Raise SchemaMismatch if a table of such a name is not ours: nothing of it may be dropped. `found`: table → columns."""
        for name, wanted in ((self.name, self.marks), (self.state, self.stated)):
            if name in found and not set(wanted) <= set(found[name]):
                raise self.mismatch(
                    f"the table {name} is no change table of ours",
                    f"表 {name} 不是引擎的变更表",
                    "在 change_table 中另写一个表名 / name another `change_table`",
                )

    def mismatch(self, en: str, zh: str, todo: str) -> SchemaMismatch:
        """Something about the table makes log capture impossible."""
        return SchemaMismatch(en, zh, todo=todo, **self._where)

    def denied(self, grants: Sequence[str]) -> AccessDenied:
        """The account lacks rights. `grants`: the statements that give them."""
        listed = " ".join(f"{grant};" for grant in grants)
        return AccessDenied(
            "the account may not set up log capture",
            "账号无权建立变更日志",
            todo=f"由数据库管理员执行，见 docs/grants.md / have an administrator run, see docs/grants.md: {listed}",
            **self._where,
        )

    @property
    def _where(self) -> dict[str, str]:
        node = self.node
        return {
            "dataset": node.dataset.name,
            "region": str(node.region),
            "system": node.system,
            "table": self.table,
        }


def default_name(table: str) -> str:
    """The name of a table's change table: short enough for every database, and another one for each table."""
    name = f"fedsync_log_{table}"
    if len(name.encode()) <= LONGEST:
        return name
    digest = hashlib.sha256(table.encode()).hexdigest()[:8]
    return f"{name.encode()[: LONGEST - 9].decode(errors='ignore')}_{digest}"


def key_name(column: str) -> str:
    """The name of a key column in the change table: its own, unless that is taken."""
    return f"key_{column}" if column.lower() in OWN else column


def run(connection: Connection, *statements: str) -> None:
    """Run statements as they are: in them, neither `%` nor `:` begins a parameter."""
    cursor = connection.connection.cursor()
    try:
        for statement in statements:
            cursor.execute(statement)
    finally:
        cursor.close()
