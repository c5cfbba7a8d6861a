"""Tables of the engine's own beside a node's data, where people read what it has to tell them.

One line for each thing that is told, by its id. Several nodes may share one table if their datasets have the same key: each touches
only the lines of its own `dataset` and `region`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Column, Connection, MetaData, String, Table, Text, and_, bindparam, delete, inspect, select
from sqlalchemy import types as sql
from sqlalchemy.dialects import mysql

from connectors.base import Node
from connectors.sql_database import Database, Patience, created, open_database
from connectors.sql_errors import driver_errors
from connectors.sql_values import column_type
from federation.errors import SchemaMismatch

MOMENT = sql.DateTime().with_variant(Text(), "sqlite")
"""A moment as people of the node read it."""
LONG = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")

Line = dict[str, str | None]


def own_table(node: Node, name: str, schema: str | None, line_id: str, columns: Sequence[Column[Any]]) -> Table:
    """Such a table: the line's id, whose it is, the record's key, and these columns. Its info's `keys`: key field → column, named as in
    the data table unless it is one of the engine's own."""
    ours = {line_id, "dataset", "region", *(column.name for column in columns)}
    named = {field: node.column(field) for field in node.dataset.key}
    keys = {field: f"record_{column}" if column.lower() in ours else column for field, column in named.items()}
    return Table(
        name,
        MetaData(schema=schema),
        Column(line_id, String(32), primary_key=True),
        Column("dataset", String(63), primary_key=True),
        Column("region", String(12), primary_key=True),
        *(Column(column, _key_type(node, field)) for field, column in keys.items()),
        *columns,
        info={"keys": keys},
        mysql_charset="utf8mb4",
    )


def _key_type(node: Node, field: str) -> sql.TypeEngine[Any]:
    spec = node.dataset.fields[field]
    return MOMENT if spec.type == "timestamp" else column_type(spec, key=False)


class OwnTable(ABC):
    """The lines of one node in a table that `own_table` made. `line_id`, `shown`: the columns that name a line, and that may change while
    it is shown. `holds`: what the table holds, in English and Chinese, and the option that names it."""

    line_id: ClassVar[str]
    shown: ClassVar[Sequence[str]]
    holds: ClassVar[tuple[str, str, str]]

    def __init__(self, node: Node, url: str, table: Table, patience: Patience = Patience()) -> None:
        self.node = node
        self.url = url
        self.patience = patience
        self.table = table
        self._known = False

    def prepare(self) -> tuple[str, ...]:
        """Create the table if it is missing; what was made."""
        with self._errors(), self._database.creating() as connection:
            return created(connection, self.table)

    def show(self, told: pa.Table) -> None:
        """Make the node's lines exactly these, in one transaction that writes nothing but what differs."""
        wanted = self._lines(told)
        with self._errors():
            with self._database.reading() as connection:
                if self._held(connection) == wanted:
                    return
            with self._database.writing() as connection:
                self._write(connection, told, wanted)

    @abstractmethod
    def _lines(self, told: pa.Table) -> dict[str, Line]:
        """Line id → the columns that may change, as text."""

    @abstractmethod
    def _write(self, connection: Connection, told: pa.Table, wanted: Mapping[str, Line]) -> None: ...

    @abstractmethod
    def _rows(self, new: pa.Table) -> Mapping[str, Any]:
        """The `shown` columns of new lines, typed as in the table."""

    @cached_property
    def _database(self) -> Database:
        return open_database(self.url, self.patience)

    def _errors(self) -> Any:
        return driver_errors(self.node, self.table.name)

    @property
    def _me(self) -> dict[str, str]:
        return {"dataset": self.node.dataset.name, "region": self.node.region.code}

    @property
    def _mine(self) -> Any:
        return and_(*(self.table.c[name] == value for name, value in self._me.items()))

    @property
    def _same(self) -> Any:
        """The condition that a line is the node's, and the one that the parameter `known_id` names."""
        return and_(self._mine, self.table.c[self.line_id] == bindparam("known_id"))

    def _checked(self, connection: Connection) -> None:
        """Raise SchemaMismatch if the table is another one than ours: nothing may be deleted there."""
        if self._known:
            return
        found = {column["name"] for column in inspect(connection).get_columns(self.table.name, self.table.schema)}
        missing = [column.name for column in self.table.columns if column.name not in found]
        if missing:
            en, zh, option = self.holds
            raise SchemaMismatch(
                f"the table {self.table.name} is no table of {en} of this dataset: it lacks {', '.join(missing)}",
                f"表 {self.table.name} 不是该数据集的{zh}表：缺少列 {'、'.join(missing)}",
                todo=f"在 {option} 中另写一个表名，由引擎新建 / name another table under `{option}`; the engine creates it",
                dataset=self.node.dataset.name,
                region=str(self.node.region),
                system=self.node.system,
                table=self.table.name,
            )
        self._known = True

    def _held(self, connection: Connection) -> dict[str, Line]:
        """The lines that stand in the table, as `_lines` has them."""
        self._checked(connection)
        columns = [self._database.plain(self.table.c[name]) for name in (self.line_id, *self.shown)]
        found = connection.execute(select(*columns).where(self._mine)).fetchall()
        return {name: dict(zip(self.shown, map(text_of, values))) for name, *values in found}

    def _remove(self, connection: Connection, gone: Sequence[str]) -> None:
        if gone:
            connection.execute(delete(self.table).where(self._same), [{"known_id": name} for name in gone])

    def _add(self, connection: Connection, told: pa.Table, known: Sequence[str]) -> None:
        """Write the lines that are not among the `known`."""
        new = told.filter(pc.invert(pc.is_in(told.column(self.line_id), pa.array(known, pa.string()))))
        if not new.num_rows:
            return
        columns: dict[str, Any] = {self.line_id: new.column(self.line_id)}
        columns |= {name: pa.array([value] * new.num_rows) for name, value in self._me.items()}
        columns |= {column: new.column(field) for field, column in self.table.info["keys"].items()}
        columns |= self._rows(new)
        rows = pa.table(columns)
        into = {name: self.table.c[name] for name in rows.column_names}
        self._database.load(connection, self.table, into, rows, self.node.timezone)


def text_of(value: object) -> str | None:
    """A value as lines are compared."""
    return None if value is None else str(value)
