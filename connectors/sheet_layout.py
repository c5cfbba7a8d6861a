"""How a sheet looks that people work in: what they may fill in is open, the rest is grey and locked, lists drop down.

The protection has no password: it guards against slips, not against people. A level that may create records finds whole blank
rows open below the data. To delete a row, a person lifts the protection (审阅 → 撤销工作表保护).
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

from openpyxl.cell.cell import Cell
from openpyxl.styles import Alignment, PatternFill, Protection
from openpyxl.styles.fonts import DEFAULT_FONT
from openpyxl.utils import get_column_letter
from openpyxl.workbook import Workbook
from openpyxl.worksheet.datavalidation import DataValidation
from openpyxl.worksheet.worksheet import Worksheet

from connectors.base import Node
from connectors.sheet import label
from connectors.xlsx_styles import Look

TEXT = "@"
MOMENT = "yyyy-mm-dd hh:mm:ss"
DAY = "yyyy-mm-dd"
_LISTS = "_选项"
LAST_ROW = 1_048_576
_LONGEST_LIST = 255
_WIDTHS = {"timestamp": 25, "date": 13, "bool": 8, "json": 30, "int": 12, "float": 12, "decimal": 12}
GREY = "EDEDED"
_BLUE = "D9E7F5"
HEADER = Look(TEXT, fill=_BLUE, bold=True, horizontal="center", vertical="center", wrapped=True)
"""How a header looks."""


def number_format(node: Node, name: str) -> str:
    """The format of a field's cells."""
    spec = node.dataset.fields[name]
    if spec.type == "decimal":
        return "0." + "0" * spec.scale if spec.scale else "0"
    return {"int": "0", "float": "General", "date": DAY, "timestamp": MOMENT}.get(spec.type, TEXT)


def originates(node: Node) -> bool:
    """Whether this node's level may create records."""
    return node.region.level in node.dataset.originates


def cell_look(form: str, own: bool, quoted: bool = False, wrapped: bool = False) -> Look:
    """How a cell below the header looks: grey and locked unless people fill it in."""
    return Look(form, not own, "" if own else GREY, quoted, vertical="top" if wrapped else "", wrapped=wrapped)


@cache
def _dressed(look: Look) -> dict[str, Any]:
    """A look as openpyxl's cells want it."""
    font = copy(DEFAULT_FONT)
    font.b = look.bold
    return {
        "font": font,
        "fill": PatternFill("solid", start_color=f"FF{look.fill}") if look.fill else PatternFill(),
        "alignment": Alignment(look.horizontal or None, look.vertical or None, wrap_text=look.wrapped or None),
        "protection": Protection(locked=look.locked),
        "number_format": look.code,
    }


def dress(cell: Any, look: Look) -> None:
    """Give a cell or a column of an openpyxl sheet a look."""
    for name, value in _dressed(look).items():
        setattr(cell, name, value)


def lay_out(book: Workbook, sheet: Worksheet, node: Node) -> None:
    """Lay out an empty sheet: header, widths, formats, drop-downs, hints, protection; on paper, all columns on a page."""
    _write_header(book, sheet, node)
    sheet.freeze_panes = "A2"
    sheet.row_dimensions[1].height = 30
    sheet.page_setup.orientation, sheet.page_setup.fitToWidth, sheet.page_setup.fitToHeight = "landscape", 1, 0
    sheet.sheet_properties.pageSetUpPr.fitToPage = True
    sheet.print_title_rows = "1:1"
    protect(sheet)
    # The engine's other sheets use these: showing the first of them then changes no format of the workbook.
    for own, quoted in product((True, False), repeat=2):
        scratch = Cell(sheet, row=1, column=1)  # each its own: the book keeps what it is given
        dress(scratch, cell_look(TEXT, own, wrapped=True))
        scratch.quotePrefix = quoted
        book._cell_styles.add(scratch._style)


def protect(sheet: Worksheet) -> None:
    """Lock the cells whose style says so; rows and columns stay people's to order."""
    protection = sheet.protection
    protection.sheet = True
    for allowed in ("formatCells", "formatColumns", "formatRows", "insertRows", "deleteRows", "sort", "autoFilter"):
        setattr(protection, allowed, False)  # False: not forbidden


def _write_header(book: Workbook, sheet: Worksheet, node: Node) -> None:
    for column, name in enumerate(node.fields, start=1):
        letter = get_column_letter(column)
        dress(sheet.cell(1, column, label(node, name)), HEADER)
        dimension = sheet.column_dimensions[letter]
        dimension.width = width(node, name)
        dress(dimension, blank_look(node, name))
        guide = guide_of(node, name)
        if guide is not None:
            _add_guide(book, sheet, guide, name, f"{letter}2:{letter}{LAST_ROW}")


def width(node: Node, name: str) -> int:
    """How wide a field's column is, in characters."""
    return max(_WIDTHS.get(node.dataset.fields[name].type, 20), 2 * len(label(node, name)) + 4)


def blank_look(node: Node, name: str) -> Look:
    """How a field's cells look that are still empty: open to all who may add rows."""
    return cell_look(number_format(node, name), name in node.owned or originates(node))


@dataclass(frozen=True)
class Guide:
    """What helps people to fill in a field's cells: a list to choose from (or none), and a hint (or none)."""

    values: tuple[str, ...]
    title: str
    hint: str

    @property
    def short_list(self) -> str | None:
        """The list as a rule holds it; None if it is too long or cannot be written so."""
        joined = ",".join(self.values)
        plain = not any("," in value or '"' in value for value in self.values)
        return f'"{joined}"' if plain and len(joined) <= _LONGEST_LIST else None


def guide_of(node: Node, name: str) -> Guide | None:
    """The guide of a field that people of this node may fill in; None if there is nothing to say."""
    if name not in node.owned and not originates(node):
        return None
    spec = node.dataset.fields[name]
    values = spec.values if spec.type == "enum" else ("是", "否") if spec.type == "bool" else ()
    return Guide(values, spec.label[:32], (spec.hint or "")[:255]) if values or spec.hint else None


NOT_LISTED = ("取值不在列表内", "请从下拉列表中选择 / choose from the list")
"""What is said of a value that is not in the list: title and text."""


def _add_guide(book: Workbook, sheet: Worksheet, guide: Guide, name: str, cells: str) -> None:
    rule = DataValidation(type="list" if guide.values else None, allow_blank=True)
    if guide.values:
        rule.formula1 = guide.short_list or _list_formula(book, name, guide.values)
        rule.showErrorMessage = True
        rule.errorTitle, rule.error = NOT_LISTED
    if guide.hint:
        rule.showInputMessage = True
        rule.promptTitle, rule.prompt = guide.title, guide.hint
    rule.add(cells)
    sheet.add_data_validation(rule)


def _list_formula(book: Workbook, name: str, values: tuple[str, ...]) -> str:
    lists = book[_LISTS] if _LISTS in book.sheetnames else book.create_sheet(_LISTS)
    lists.sheet_state = "hidden"
    taken = [lists.cell(1, at).value for at in range(1, lists.max_column + 1)]
    column = taken.index(name) + 1 if name in taken else len([cell for cell in taken if cell is not None]) + 1
    lists.cell(1, column, name)
    for row, value in enumerate(values, start=2):
        cell = lists.cell(row, column)
        cell.value = value
        cell.data_type = "s"
    letter = get_column_letter(column)
    return f"'{_LISTS}'!${letter}$2:${letter}${len(values) + 1}"
