"""The corrections desk (校核) of a database: a table of the engine's own beside the data, where people rule.

One line for each correction, in the columns of `desk_table`. People, or their program, write `ruling` (accept, reject, or as they
say it: 采纳, 不采纳, …) and `ruling_reason`; the engine writes all the others and never these two.

Neither showing nor ruling changes the node's cursor, which is made from the data table alone, nor its probe token, with one
exception: SQLite has no cheap sign of change per table, only the file's, so a token that covers more than `HASHED_ROWS` rows of
an SQLite file (a whole table read as `snapshot`, or so many rows within a cursor's overlap) differs after any write to the file.
Such a sweep reads once and finds nothing. What is shown already is not written again, so this happens per correction, not per run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Column, Connection, String, Table, Text, bindparam, select, update
from sqlalchemy import types as sql

from connectors.base import Node
from connectors.desk import told, wall_clock
from connectors.sql_database import Patience
from connectors.sql_own import LONG, MOMENT, Line, OwnTable, own_table, text_of

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


def desk_table(node: Node, name: str, schema: str | None) -> Table:
    """The table. Moments are wall-clock time of the node, to the second; `due` is a day; `raised_by` names a region."""
    columns: list[Column[Any]] = [
        Column("kind", String(20)),
        Column("field", Text),
        Column("current_value", LONG),
        Column("proposed_value", LONG),
        Column("raised_by", Text),
        Column("raised", MOMENT),
        Column("due", sql.Date().with_variant(Text(), "sqlite")),
        Column("state", String(20)),
        Column("reason", Text),
        Column("ruling", Text),
        Column("ruling_reason", Text),
    ]
    return own_table(node, name, schema, SqlDesk.line_id, columns)


class SqlDesk(OwnTable):
    """The desk of one node. `name`: its table."""

    line_id = "correction_id"
    shown = tuple(_SHOWN)
    holds = ("corrections", "校核", "corrections")

    def __init__(self, node: Node, url: str, name: str, schema: str | None, patience: Patience = Patience()) -> None:
        super().__init__(node, url, desk_table(node, name, schema), patience)

    def rulings(self) -> pa.Table:
        """What people ruled: `RULINGS`."""
        with self._errors(), self._database.reading() as connection:
            self._checked(connection)
            columns = [self._database.plain(self.table.c[name]) for name in (self.line_id, *_PEOPLE)]
            return told(map(tuple, connection.execute(select(*columns).where(self._mine)).fetchall()))

    def _lines(self, told: pa.Table) -> dict[str, Line]:
        lines = {}
        for line in told.to_pylist():
            line["raised"] = wall_clock(line["raised"], self.node.timezone)
            lines[line["correction_id"]] = {column: text_of(line[name]) for column, name in _SHOWN.items()}
        return lines

    def _write(self, connection: Connection, told: pa.Table, wanted: Mapping[str, Line]) -> None:
        """A line that differs is changed where it stands: people may have written their part of it."""
        held = self._held(connection)
        self._remove(connection, [name for name in held if name not in wanted])
        changed = [
            {"known_id": name, **{f"new_{column}": value for column, value in line.items()}}
            for name, line in wanted.items()
            if name in held and held[name] != line
        ]
        if changed:
            values: dict[str, Any] = {
                column: bindparam(f"new_{column}", type_=self.table.c[column].type) for column in _SHOWN
            }
            connection.execute(update(self.table).where(self._same).values(values), changed)
        self._add(connection, told, list(held))

    def _rows(self, new: pa.Table) -> Mapping[str, Any]:
        columns: dict[str, Any] = {column: new.column(name) for column, name in _SHOWN.items()}
        columns["raised"] = pc.floor_temporal(new.column("raised"), unit="second")
        return columns
