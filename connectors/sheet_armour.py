"""Long numbers that a spreadsheet program spoilt, and the apostrophe that tells a text which merely looks like one apart.

Of a number a program keeps 15 digits; an id number of 18 becomes 1.10101E+17, as a number or, where a file was imported or pasted, as a
text. Its last digits are lost, so it is never believed. A text of such a look that is meant is written with an apostrophe
before it (and so is one that has the apostrophe already); reading takes it off again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from connectors.base import Node
from connectors.sheet import Grid, Value, header_of

TEXT_TYPES = ("string", "enum", "json")
SCIENTIFIC = re.compile(r"[+-]?[0-9]([.][0-9]+)?E[+]?[0-9]+", re.IGNORECASE)
_SAFE_DIGITS = 10**15


def is_rounded(value: Value, kind: str) -> bool:
    """Whether a spreadsheet program may have made this of a long number. `kind`: the type of its field; a `float` may be long."""
    if kind == "float":
        return False
    if isinstance(value, str):
        return "+" in value and bool(SCIENTIFIC.fullmatch(value.strip()))
    return type(value) is float and abs(value) >= _SAFE_DIGITS


def armoured(value: Value, kind: str) -> Value:
    """A value as it is to stand in a cell of a workbook."""
    meant = isinstance(value, str) and kind in TEXT_TYPES and is_rounded(value.lstrip("'"), kind)
    return f"'{value}" if meant else value


def is_armoured(text: str) -> bool:
    """Whether a text in a cell of a workbook bears an apostrophe of ours."""
    return text.startswith("'") and is_rounded(text.lstrip("'"), "string")


def disarmed(grid: Grid, node: Node, is_armoured: Callable[[str], bool] = is_armoured) -> Grid:
    """The grid as meant: apostrophes of ours (`is_armoured`) taken off, rounded numbers marked as faults."""
    if not grid.rows:
        return grid
    header = header_of(grid, node)
    columns = [(at, node.dataset.fields[name].type) for name, at in header.columns.items()]
    faults = dict(grid.faults)
    rows = [list(row) for row in grid.rows]
    for index in range(header.index + 1, len(rows)):
        row = rows[index]
        for at, kind in columns:
            value = row[at] if at < len(row) else None
            if isinstance(value, str) and kind in TEXT_TYPES and is_armoured(value):
                row[at] = value[1:]
            elif is_rounded(value, kind):
                faults[grid.number(index), grid.left + at] = "sheet:rounded"
    return replace(grid, rows=rows, faults=faults)
