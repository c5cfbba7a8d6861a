"""The returns (退回) of a database: a table of the engine's own beside the data, where people read what to mend, and why.

One line for each, in the columns of `returns_table`; a line goes when its return ends. Nobody else writes there: people mend the record
itself. What `connectors.sql_desk` says of cursor and token holds here too. The reason may quote what the region's own people typed; grant the table to those who may read the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Column, Connection, String, Table, Text

from connectors.base import Node
from connectors.desk import standing, wall_clock
from connectors.sql_database import Patience
from connectors.sql_own import LONG, MOMENT, Line, OwnTable, own_table

_SHOWN = ("field", "rule", "reason_zh", "reason_en", "hop", "since", "state")


def returns_table(node: Node, name: str, schema: str | None) -> Table:
    """The table. `field`: the system's own name of the column to mend, null where none is named; `rule`: the rule that it fails;
    `since`: wall-clock time of the node, to the second; `state`: `open`, `replay`."""
    columns: list[Column[Any]] = [
        Column("field", Text),
        Column("rule", Text),
        Column("reason_zh", LONG),
        Column("reason_en", LONG),
        Column("hop", Text),
        Column("since", MOMENT),
        Column("state", String(20)),
    ]
    return own_table(node, name, schema, SqlReturns.line_id, columns)


class SqlReturns(OwnTable):
    """The returns of one node. `name`: their table."""

    line_id = "return_id"
    shown = _SHOWN
    holds = ("returns", "退回", "returns")

    def __init__(self, node: Node, url: str, name: str, schema: str | None, patience: Patience = Patience()) -> None:
        super().__init__(node, url, returns_table(node, name, schema), patience)

    def show(self, told: pa.Table) -> None:
        """Make the node's lines exactly those that stand."""
        super().show(standing(told))

    def _lines(self, told: pa.Table) -> dict[str, Line]:
        lines = {}
        for line in told.to_pylist():
            line["field"] = None if line["field"] is None else self.node.column(line["field"])
            line["since"] = wall_clock(line["since"], self.node.timezone)
            lines[line["return_id"]] = {name: line[name] for name in _SHOWN}
        return lines

    def _write(self, connection: Connection, told: pa.Table, wanted: Mapping[str, Line]) -> None:
        """A line that differs is written anew: there is nothing of people's in it."""
        held = self._held(connection)
        same = [name for name, line in wanted.items() if held.get(name) == line]
        self._remove(connection, [name for name in held if name not in same])
        self._add(connection, told, same)

    def _rows(self, new: pa.Table) -> Mapping[str, Any]:
        columns: dict[str, Any] = {name: new.column(name) for name in _SHOWN}
        fields = [None if name is None else self.node.column(name) for name in new.column("field").to_pylist()]
        columns["field"] = pa.array(fields, pa.string())
        columns["since"] = pc.floor_temporal(new.column("since"), unit="second")
        return columns
