"""How a sheet looks that people work in: what they may fill in is open, the rest is grey and locked, lists drop down.

The protection has no password: it guards against slips, not against people. A level that may create records finds whole blank
rows open below the data. To delete a row, a person lifts the protection (审阅 → 撤销工作表保护).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from openpyxl.cell.cell import Cell
from openpyxl.styles import Alignment, Font, PatternFill, Protection
from openpyxl.utils import get_column_letter
from openpyxl.workbook import Workbook
from openpyxl.worksheet.datavalidation import DataValidation
from openpyxl.worksheet.worksheet import Worksheet

from connectors.base import Node
from connectors.sheet import label

TEXT = "@"
MOMENT = "yyyy-mm-dd hh:mm:ss"
DAY = "yyyy-mm-dd"
_LISTS = "_选项"
_LAST_ROW = 1_048_576
_LONGEST_LIST = 255
_WIDTHS = {"timestamp": 20, "date": 12, "bool": 8, "json": 30, "int": 12, "float": 12, "decimal": 12}
_GREY = "FFEDEDED"
_BLUE = "FFD9E7F5"


def number_format(node: Node, name: str) -> str:
    """The format of a field's cells."""
    spec = node.dataset.fields[name]
    if spec.type == "decimal":
        return "0." + "0" * spec.scale if spec.scale else "0"
    return {"int": "0", "float": "General", "date": DAY, "timestamp": MOMENT}.get(spec.type, TEXT)


def originates(node: Node) -> bool:
    """Whether this node's level may create records."""
    return node.region.level in node.dataset.originates


class Styles:
    """Styles of one workbook. Cells may share what these methods return as long as nobody changes a cell's style in place."""

    def __init__(self, sheet: Worksheet) -> None:
        self._sheet = sheet
        self.header = cache(self._header)
        self.cell = cache(self._cell)

    def _header(self) -> Any:
        cell = self._scratch()
        cell.font = Font(bold=True)
        cell.fill = PatternFill("solid", start_color=_BLUE)
        cell.alignment = Alignment(horizontal="center", vertical="center", wrap_text=True)
        cell.number_format = TEXT
        return cell._style

    def _cell(self, form: str, own: bool, quoted: bool = False, wrapped: bool = False) -> Any:
        cell = self._scratch()
        if wrapped:
            cell.alignment = Alignment(vertical="top", wrap_text=True)
        cell.number_format = form
        cell.protection = Protection(locked=not own)
        if not own:
            cell.fill = PatternFill("solid", start_color=_GREY)
        if quoted:
            cell.quotePrefix = True
        return cell._style

    def _scratch(self) -> Any:
        return Cell(self._sheet, row=1, column=1)


def lay_out(book: Workbook, sheet: Worksheet, node: Node) -> None:
    """Lay out an empty sheet: header, widths, formats, drop-downs, hints, protection."""
    add_columns(book, sheet, node, {name: at for at, name in enumerate(node.fields, start=1)}, 1)
    sheet.freeze_panes = "A2"
    protect(sheet)
    styles = Styles(sheet)
    # The sheets of returns and of corrections use these: showing the first of them then changes no format of the workbook.
    for style in (styles.cell(TEXT, True), *(styles.cell(TEXT, own, wrapped=True) for own in (True, False))):
        book._cell_styles.add(style)


def protect(sheet: Worksheet) -> None:
    """Lock the cells whose style says so; rows and columns stay people's to order."""
    protection = sheet.protection
    protection.sheet = True
    for allowed in ("formatCells", "formatColumns", "formatRows", "insertRows", "deleteRows", "sort", "autoFilter"):
        setattr(protection, allowed, False)  # False: not forbidden


def add_columns(book: Workbook, sheet: Worksheet, node: Node, columns: dict[str, int], row: int) -> None:
    """Write the headers of new columns (field → column number) into `row`, and dress the columns below."""
    styles = Styles(sheet)
    for name, column in columns.items():
        own = name in node.owned
        letter = get_column_letter(column)
        title = label(node, name)
        header = sheet.cell(row, column, title)
        header._style = styles.header()
        dimension = sheet.column_dimensions[letter]
        dimension.width = max(_WIDTHS.get(node.dataset.fields[name].type, 16), 2 * len(title) + 4)
        dimension._style = _blank_style(styles, number_format(node, name), own, originates(node))
        if own or originates(node):
            _guide(book, sheet, node, name, f"{letter}{row + 1}:{letter}{_LAST_ROW}")


def _blank_style(styles: Styles, form: str, own: bool, open_below: bool) -> Any:
    """Of cells that are still empty: open to all who may add rows."""
    return styles.cell(form, own or open_below)


def _guide(book: Workbook, sheet: Worksheet, node: Node, name: str, cells: str) -> None:
    """A drop-down for an enum or bool, and the contract's hint when a cell is chosen."""
    spec = node.dataset.fields[name]
    values = spec.values if spec.type == "enum" else ("是", "否") if spec.type == "bool" else ()
    if not values and not spec.hint:
        return
    guide = DataValidation(type="list" if values else None, allow_blank=True)
    if values:
        guide.formula1 = _list_formula(book, name, values)
        guide.showErrorMessage = True
        guide.errorTitle, guide.error = "取值不在列表内", "请从下拉列表中选择 / choose from the list"
    if spec.hint:
        guide.showInputMessage = True
        guide.promptTitle, guide.prompt = spec.label[:32], spec.hint[:255]
    guide.add(cells)
    sheet.add_data_validation(guide)


def _list_formula(book: Workbook, name: str, values: tuple[str, ...]) -> str:
    joined = ",".join(values)
    if len(joined) <= _LONGEST_LIST and not any("," in value or '"' in value for value in values):
        return f'"{joined}"'
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
