"""The receipts (回执) of a workbook: what arrived in it and what was taken from it, when; the newest on top."""

from __future__ import annotations

import pyarrow as pa

from connectors.base import Node
from connectors.desk import wall_clock
from connectors.sheet import Grid, places_of
from connectors.xlsx_page import Page

TITLE = "回执"
HEADERS = ("时间", "收发", "对方", "写入行数", "删除行数", "批次")
_WAYS = {"arrived": "收到", "sent": "送出"}
_WIDTHS = (22, 10, 32, 12, 12, 36)


def lines_of(node: Node, receipts: pa.Table) -> list[list[str]]:
    """The receipts as people see them, header first; nothing at all if there are none."""
    rows = [list(HEADERS)]
    for line in receipts.to_pylist():
        moment = wall_clock(line["at"], node.timezone) or ""
        counts = [str(line["written"]), str(line["deleted"])]
        rows.append([moment, _WAYS[line["way"]], line["other"], *counts, line["run_id"]])
    return rows if len(rows) > 1 else []


def page(lines: list[list[str]]) -> Page | None:
    """The sheet with these lines; None if there are none."""
    return Page(TITLE, lines[0], lines[1:], _WIDTHS, "70AD47") if lines else None


def read(grid: Grid) -> list[list[str]] | None:
    """What stands on the sheet, header first; None if it is people's own, or has lost a header."""
    found = places_of(grid, HEADERS)
    if found is None:
        return None
    top, places = found
    rows = [
        ["" if at >= len(row) or row[at] is None else str(row[at]) for at in places] for row in grid.rows[top + 1 :]
    ]
    return [list(HEADERS), *(row for row in rows if any(row))]
