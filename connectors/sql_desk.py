"""The corrections desk (校核) of a database: a table of the engine's own beside the data, where people rule.

One line for each correction, in the columns of `desk_table`. People, or their program, write `ruling` (accept, reject, or as they
say it: 采纳, 不采纳, …) and `ruling_reason`; the engine writes all the others and never these two. Several nodes may share one
table if their datasets have the same key: each touches only the lines of its own `dataset` and `region`.

Neither showing nor ruling changes the node's cursor, which is made from the data table alone, nor its probe token, with one
exception: SQLite has no cheap sign of change per table, only the file's, so a token that covers more than `HASHED_ROWS` rows of
an SQLite file (a whole table read as `snapshot`, or so many rows within a cursor's overlap) differs after any write to the file.
Such a sweep reads once and finds nothing. What is shown already is not written again, so this happens per correction, not per run.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    String,
    Table,
    Text,
    and_,
    bindparam,
    delete,
    inspect,
    select,
    update,
)
from sqlalchemy import types as sql
from sqlalchemy.dialects import mysql

from connectors.base import Node
from connectors.desk import told, wall_clock
from connectors.sql_database import Database, open_database
from connectors.sql_errors import driver_errors
from connectors.sql_values import column_type
from federation.errors import SchemaMismatch

_SHOWN = {
    "kind": "kind",
    "field": "field",
    "current_value": "current",
    "proposed_value": "proposed",
    "raised_by": "raised_by",
    "raised": "raised",
    "due": "due",
    "state": "state",
    "reason": "reason",
}
"""Column → name in `correction_schema`, of what may change while a correction is shown. current is a reserved word in places."""

_PEOPLE = ("ruling", "ruling_reason")
_OURS = ("correction_id", "dataset", "region", *_SHOWN, *_PEOPLE)
_MOMENT = sql.DateTime().with_variant(Text(), "sqlite")

Line = dict[str, str | None]


def key_columns(node: Node) -> dict[str, str]:
    """Key field → its column on the desk: named as in the data table, unless the desk has another column of that name."""
    return {
        name: f"record_{column}" if (column := node.column(name)).lower() in _OURS else column
        for name in node.dataset.key
    }


def desk_table(node: Node, name: str, schema: str | None) -> Table:
    """The table. Moments are wall-clock time of the node, to the second; `due` is a day; `raised_by` names a region."""
    keys = [Column(column, _key_type(node, field)) for field, column in key_columns(node).items()]
    long = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
    return Table(
        name,
        MetaData(schema=schema),
        Column("correction_id", String(32), primary_key=True),
        Column("dataset", String(63), primary_key=True),
        Column("region", String(12), primary_key=True),
        *keys,
        Column("kind", String(20)),
        Column("field", Text),
        Column("current_value", long),
        Column("proposed_value", long),
        Column("raised_by", Text),
        Column("raised", _MOMENT),
        Column("due", sql.Date().with_variant(Text(), "sqlite")),
        Column("state", String(20)),
        Column("reason", Text),
        Column("ruling", Text),
        Column("ruling_reason", Text),
        mysql_charset="utf8mb4",
    )


def _key_type(node: Node, field: str) -> sql.TypeEngine[Any]:
    spec = node.dataset.fields[field]
    return _MOMENT if spec.type == "timestamp" else column_type(spec, key=False)


class SqlDesk:
    """The desk of one node. `name`: its table."""

    def __init__(self, node: Node, url: str, name: str, schema: str | None) -> None:
        self.node = node
        self.url = url
        self.table = desk_table(node, name, schema)
        self._known = False

    def prepare(self) -> None:
        """Create the table if it is missing."""
        with self._errors(), self._database.creating() as connection:
            self.table.create(connection, checkfirst=True)

    def show(self, corrections: pa.Table) -> None:
        """Make the node's lines exactly these, in one transaction that writes nothing but what differs."""
        wanted = self._lines(corrections)
        with self._errors():
            with self._database.reading() as connection:
                if self._held(connection) == wanted:
                    return
            with self._database.writing() as connection:
                self._write(connection, corrections, wanted)

    def rulings(self) -> pa.Table:
        """What people ruled: `RULINGS`."""
        with self._errors(), self._database.reading() as connection:
            self._checked(connection)
            columns = [self._database.plain(self.table.c[name]) for name in ("correction_id", *_PEOPLE)]
            return told(map(tuple, connection.execute(select(*columns).where(self._mine)).fetchall()))

    # --- the table

    @cached_property
    def _database(self) -> Database:
        return open_database(self.url)

    def _errors(self) -> Any:
        return driver_errors(self.node, self.table.name)

    @property
    def _me(self) -> dict[str, str]:
        return {"dataset": self.node.dataset.name, "region": self.node.region.code}

    @property
    def _mine(self) -> Any:
        return and_(*(self.table.c[name] == value for name, value in self._me.items()))

    def _checked(self, connection: Connection) -> None:
        """Raise SchemaMismatch if the table is another one than ours: nothing may be deleted there."""
        if self._known:
            return
        found = {column["name"] for column in inspect(connection).get_columns(self.table.name, self.table.schema)}
        missing = [column.name for column in self.table.columns if column.name not in found]
        if missing:
            raise SchemaMismatch(
                f"the table {self.table.name} is no table of corrections of this dataset: it lacks {', '.join(missing)}",
                f"表 {self.table.name} 不是该数据集的校核表：缺少列 {'、'.join(missing)}",
                todo="在 corrections 中另写一个表名，由引擎新建 / name another table under `corrections`; the engine creates it",
                dataset=self.node.dataset.name,
                region=str(self.node.region),
                system=self.node.system,
                table=self.table.name,
            )
        self._known = True

    # --- lines

    def _lines(self, corrections: pa.Table) -> dict[str, Line]:
        """Correction id → the columns that may change, as text."""
        lines = {}
        for line in corrections.to_pylist():
            line["raised"] = wall_clock(line["raised"], self.node.timezone)
            lines[line["correction_id"]] = {column: _text(line[name]) for column, name in _SHOWN.items()}
        return lines

    def _held(self, connection: Connection) -> dict[str, Line]:
        """The same of the lines that stand in the table."""
        self._checked(connection)
        columns = [self._database.plain(self.table.c[name]) for name in ("correction_id", *_SHOWN)]
        found = connection.execute(select(*columns).where(self._mine)).fetchall()
        return {name: dict(zip(_SHOWN, map(_text, values))) for name, *values in found}

    def _write(self, connection: Connection, corrections: pa.Table, wanted: Mapping[str, Line]) -> None:
        held = self._held(connection)
        same = and_(self._mine, self.table.c.correction_id == bindparam("known_id"))
        gone = [{"known_id": name} for name in held if name not in wanted]
        if gone:
            connection.execute(delete(self.table).where(same), gone)
        changed = [
            {"known_id": name, **{f"new_{column}": value for column, value in line.items()}}
            for name, line in wanted.items()
            if name in held and held[name] != line
        ]
        if changed:
            values: dict[str, Any] = {
                column: bindparam(f"new_{column}", type_=self.table.c[column].type) for column in _SHOWN
            }
            connection.execute(update(self.table).where(same).values(values), changed)
        known = pa.array(list(held), pa.string())
        new = corrections.filter(pc.invert(pc.is_in(corrections.column("correction_id"), known)))
        if new.num_rows:
            rows = self._rows(new)
            columns = {name: self.table.c[name] for name in rows.column_names}
            self._database.load(connection, self.table, columns, rows, self.node.timezone)

    def _rows(self, new: pa.Table) -> pa.Table:
        """New lines as typed columns, named after the desk's."""
        columns: dict[str, Any] = {"correction_id": new.column("correction_id")}
        columns |= {name: pa.array([value] * new.num_rows) for name, value in self._me.items()}
        columns |= {column: new.column(field) for field, column in key_columns(self.node).items()}
        columns |= {column: new.column(name) for column, name in _SHOWN.items()}
        columns["raised"] = pc.floor_temporal(new.column("raised"), unit="second")
        return pa.table(columns)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
