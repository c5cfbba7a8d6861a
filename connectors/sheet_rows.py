"""Moving whole rows of an openpyxl sheet at once: its own `delete_rows` moves every cell once per deleted row, and nothing else.

Formulas in the rows that move up are shifted with them; formulas elsewhere that point at them are not.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from openpyxl.cell.cell import MergedCell
from openpyxl.formula.translate import Translator
from openpyxl.utils.cell import range_boundaries
from openpyxl.worksheet.cell_range import CellRange


def remove_rows(sheet: Any, rows: frozenset[int]) -> None:
    """Delete rows (numbers from 1); those below move up with their heights, comments, merged areas and formulas."""
    gone = sorted(rows)

    def moved(row: int) -> int:
        return row - bisect_left(gone, row)

    _move_merged(sheet, rows, moved)
    cells = {}
    for (row, column), cell in sheet._cells.items():
        if row in rows:
            continue
        if moved(row) != row:
            _move(cell, moved(row))
        cells[moved(row), column] = cell
    sheet._cells = cells
    heights = {row: sheet.row_dimensions[row] for row in sorted(sheet.row_dimensions)}
    sheet.row_dimensions.clear()
    for row, dimension in heights.items():
        if row not in rows:
            dimension.index = moved(row)
            sheet.row_dimensions[moved(row)] = dimension
    _shrink_ranges(sheet, len(gone), gone)


def _move(cell: Any, row: int) -> None:
    if not isinstance(cell, MergedCell):
        if cell.data_type == "f" and isinstance(cell.value, str):
            target = f"{cell.column_letter}{row}"
            cell.value = Translator(cell.value, origin=cell.coordinate).translate_formula(target)
        if cell.hyperlink is not None:
            cell.hyperlink.ref = f"{cell.column_letter}{row}"
    cell.row = row


def _move_merged(sheet: Any, rows: frozenset[int], moved: Any) -> None:
    """Areas that lose a row come apart; the others move."""
    for area in list(sheet.merged_cells.ranges):
        if any(area.min_row <= row <= area.max_row for row in rows):
            sheet.unmerge_cells(area.coord)
        else:
            by = moved(area.min_row) - area.min_row
            if by:
                area.shift(row_shift=by)


def extend_ranges(sheet: Any, last: int, new_last: int) -> None:
    """A filter or table that ended with the last row ends with the new last row."""
    for owner in (sheet.auto_filter, *sheet.tables.values()):
        if owner.ref:
            left, top, right, bottom = range_boundaries(owner.ref)
            if bottom == last and new_last > last:
                owner.ref = CellRange(min_col=left, min_row=top, max_col=right, max_row=new_last).coord
                if getattr(owner, "autoFilter", None) is not None and owner.autoFilter.ref:
                    owner.autoFilter.ref = owner.ref


def _shrink_ranges(sheet: Any, count: int, gone: list[int]) -> None:
    for owner in (sheet.auto_filter, *sheet.tables.values()):
        if owner.ref:
            left, top, right, bottom = range_boundaries(owner.ref)
            new_bottom = max(bottom - bisect_left(gone, bottom + 1), top + 1)
            owner.ref = CellRange(min_col=left, min_row=top, max_col=right, max_row=new_bottom).coord
            if getattr(owner, "autoFilter", None) is not None and owner.autoFilter.ref:
                owner.autoFilter.ref = owner.ref
