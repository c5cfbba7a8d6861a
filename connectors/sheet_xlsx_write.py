"""Writing xlsx workbooks: only the cells that change, everything else as people left it.

openpyxl keeps formats, widths, filters, validations, comments, charts of its own kind and other sheets; it drops drawn shapes and
slicers. Texts are written as texts, whatever they begin with: never as a formula. A formula that people put into a column of
the contract becomes its last result when the engine next writes, since a saved formula without its result could not be read.
"""

from __future__ import annotations

import gc
import io
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from openpyxl import Workbook, load_workbook
from openpyxl.utils import get_column_letter

from connectors.base import Node
from connectors.sheet import RETURNS, Edit, Grid, Header, Value
from connectors.sheet_layout import MOMENT, TEXT, Styles, add_columns, lay_out, number_format
from connectors.sheet_rows import extend_ranges, remove_rows
from federation.errors import Permanent, Unreadable

_ESCAPED = re.compile("[\x00-\x08\x0b-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")
_ARMED = ("=", "+", "-", "@", "\t", "'")
_RUN = re.compile(rb"<(?:\w+:)?r>")
LONGEST = 32_767
_EXACT_DIGITS = 15
_FIRST_DAY = date(1904, 1, 2)  # both of Excel's calendars count correctly from here on


def blank(node: Node, sheet: str) -> bytes:
    """A new workbook, laid out."""
    book = Workbook()
    book.active.title = sheet
    lay_out(book, book.active, node)
    return _saved(book)


def laid_out(path: Path, content: bytes, node: Node, sheet: str) -> bytes:
    """A workbook whose sheet is still empty, laid out."""
    book = _loaded(path, content)
    lay_out(book, book[sheet], node)
    return _saved(book)


def edited(path: Path, content: bytes, grid: Grid, header: Header, node: Node, edit: Edit) -> bytes | None:
    """The workbook after an edit; None if nothing in it changes."""
    with _uncollected():
        book = _loaded(path, content)
        sheet = book[grid.sheet]
        top = grid.number(header.index)
        columns = {name: grid.left + at for name, at in header.columns.items()}
        end = grid.left + max((len(row) for row in grid.rows), default=0)
        added = {name: end + at for at, name in enumerate(edit.add)}
        add_columns(book, sheet, node, added, top)
        columns |= added
        writer = _Writer(sheet, node, columns)
        changed = bool(edit.add or edit.appends or edit.deletes)
        for row, values in edit.updates.items():
            changed = writer.update(row, values) or changed
        if not changed:
            return None
        freeze_formulas(sheet, grid, header)
        last = max(
            (grid.number(at) for at, row in enumerate(grid.rows) if any(c is not None for c in row)), default=top
        )
        writer.append(edit.appends, max(last, top))
        extend_ranges(sheet, last, last + len(edit.appends))
        if edit.deletes:
            remove_rows(sheet, edit.deletes)
        return _saved(book)


def with_returns(path: Path, content: bytes, grid: Grid, header: Header, node: Node, rows: list[list[str]]) -> bytes:
    """The workbook with the returns sheet holding exactly these rows (the first is its header); without it if there are none."""
    return with_sheet(path, content, grid, header, RETURNS, partial(_show_returns, rows) if rows else None)


def with_sheet(
    path: Path, content: bytes, grid: Grid, header: Header, title: str, fill: Callable[[Any], None] | None
) -> bytes:
    """The workbook with the engine's sheet `title` made anew in its place by `fill`; without it if there is no `fill`."""
    with _uncollected():
        book = _loaded(path, content)
        freeze_formulas(book[grid.sheet], grid, header)
        at = book.sheetnames.index(title) if title in book.sheetnames else None
        if at is not None:
            del book[title]
        if fill is not None:
            fill(book.create_sheet(title, at))
        return _saved(book)


def put_text(cell: Any, text: str) -> None:
    """Set a cell to a text whatever it begins with; an empty one leaves it blank."""
    _set(cell, _escaped(text) or None)


def _show_returns(rows: list[list[str]], sheet: Any) -> None:
    styles = Styles(sheet)
    for number, row in enumerate(rows, start=1):
        for column, text in enumerate(row, start=1):
            cell = sheet.cell(number, column)
            put_text(cell, text)
            cell._style = styles.header() if number == 1 else styles.cell(TEXT, True)
    for column, title in enumerate(rows[0], start=1):
        width = 44 if column > len(rows[0]) - 2 else 18
        sheet.column_dimensions[get_column_letter(column)].width = max(width, 2 * len(title) + 4)
    sheet.freeze_panes = "A2"


class _Writer:
    """Puts values into one sheet. `columns`: field → column number."""

    def __init__(self, sheet: Any, node: Node, columns: dict[str, int]) -> None:
        self.sheet = sheet
        self.node = node
        self.columns = columns
        self.styles = Styles(sheet)

    def update(self, row: int, values: dict[str, Value]) -> bool:
        """Put values into the cells of a row, keeping their look. Whether any of them changed."""
        changed = False
        for name, value in values.items():
            cell = self.sheet.cell(row, self.columns[name])
            meant, form = self._form(name, value)
            if _same(cell, meant):
                continue
            changed = True
            _set(cell, meant)
            if form == TEXT or cell.number_format in ("General", TEXT):
                cell.number_format = form
            if _armed(meant):
                cell.quotePrefix = True
        return changed

    def append(self, rows: list[dict[str, Value]], last: int) -> None:
        """Add rows below row `last`: dressed like the layout where the sheet is protected, else like the row above."""
        looks = {}
        for name, column in self.columns.items():
            above = self.sheet.cell(last, column)
            plain = self.sheet.protection.sheet or last <= self.sheet.min_row or not above.has_style
            looks[name] = None if plain else above
        for number, values in enumerate(rows, start=last + 1):
            for name in self.columns:
                meant, form = self._form(name, values.get(name))
                cell = self.sheet.cell(number, self.columns[name])
                _set(cell, meant)
                self._dress(cell, name, form, looks[name], _armed(meant))

    def _dress(self, cell: Any, name: str, form: str, above: Any, quoted: bool) -> None:
        if above is None:
            own = name in self.node.owned or not self.sheet.protection.sheet
            cell._style = self.styles.cell(form, own, quoted)
            return
        cell._style = above._style.__copy__()
        if form == TEXT or cell.number_format in ("General", TEXT):
            cell.number_format = form
        cell.quotePrefix = quoted

    def _form(self, name: str, value: Value) -> tuple[Value, str]:
        """What to write for a value, and the number format it needs to be read back as the same value."""
        usual = number_format(self.node, name)
        if value is None:
            return None, usual
        if isinstance(value, datetime):
            exact = f"{MOMENT}.000" if value.microsecond else MOMENT
            return (value, exact) if value.date() >= _FIRST_DAY else (_moment(value), TEXT)
        if isinstance(value, date):
            return (value, usual) if value >= _FIRST_DAY else (value.isoformat(), TEXT)
        if isinstance(value, int):
            return (value, usual) if len(str(abs(value))) <= _EXACT_DIGITS else (str(value), TEXT)
        if isinstance(value, Decimal):
            near = float(value)
            exact_number = len(value.as_tuple().digits) <= _EXACT_DIGITS and Decimal(f"{near:.15g}") == value
            return (near, usual) if exact_number else (f"{value:f}", TEXT)
        if isinstance(value, float):
            return (value, usual) if float(f"{value:.16g}") == value else (repr(value), TEXT)
        return self._text(name, str(value)), TEXT

    def _text(self, name: str, text: str) -> str:
        if len(text) > LONGEST:
            raise Permanent(
                f"a text of {len(text)} characters does not fit into a cell (at most {LONGEST})",
                f"文本长 {len(text)} 字，超过单元格上限 {LONGEST}",
                todo="在来源处缩短，或为该字段声明 hosted / shorten it at its source, or declare the field as hosted",
                sheet=self.sheet.title,
                field=name,
            )
        return _escaped(text)


def freeze_formulas(sheet: Any, grid: Grid, header: Header) -> None:
    """Replace formulas in the contract's columns by their last results; one without a result stays, and is reported."""
    for index in range(header.index + 1, len(grid.rows)):
        row, number = grid.rows[index], grid.number(index)
        for at in header.columns.values():
            cell = sheet._cells.get((number, grid.left + at))
            if cell is not None and cell.data_type == "f" and at < len(row) and row[at] is not None:
                value = row[at]
                _set(cell, _escaped(value) if isinstance(value, str) else value)


def _set(cell: Any, value: Value) -> None:
    """Set a cell's value; text stays text, even if it looks like a formula or an error."""
    if cell.__class__.__name__ == "MergedCell":  # the rest of a merged area holds nothing
        return
    if isinstance(value, str):
        cell._value, cell.data_type = value, "s"
    elif isinstance(value, date):
        cell._value, cell.data_type = value, "d"  # its setter would add a number format that nothing uses
    else:
        cell.value = value


def _same(cell: Any, value: Value) -> bool:
    now = cell.value
    if cell.data_type == "f":
        return False
    if isinstance(value, str) or now is None or value is None:
        return (str(now) if isinstance(now, list) else now) == value
    if isinstance(value, date) and isinstance(now, date):
        return abs(_as_moment(now) - _as_moment(value)) < timedelta(microseconds=500)
    return not isinstance(now, (bool, date)) and now == value


def _as_moment(value: date) -> datetime:
    return value if isinstance(value, datetime) else datetime.combine(value, time())


def _moment(value: datetime) -> str:
    return value.isoformat(" ", "milliseconds" if value.microsecond else "seconds")


def _armed(value: Value) -> bool:
    return isinstance(value, str) and value.startswith(_ARMED)


def _escaped(text: str) -> str:
    """Characters that XML cannot hold, as the format writes them (`_x000B_`); texts that look so already, made literal."""
    if not _ESCAPED.search(text):
        return text
    return _ESCAPED.sub(lambda match: f"_x{ord(match[0]):04X}_", text)


def _loaded(path: Path, content: bytes) -> Workbook:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # extensions that it drops: known, see the module
            return load_workbook(
                io.BytesIO(content), keep_vba=path.suffix.lower() == ".xlsm", rich_text=_has_rich_text(content)
            )
    except Exception as cause:  # it raises whatever its parsers do
        raise Unreadable(
            f"the workbook cannot be edited: {cause}",
            "工作簿无法编辑",
            todo="用表格软件另存为 .xlsx 后重试 / save it again as .xlsx with a spreadsheet program",
            file=path,
        ) from cause


def _has_rich_text(content: bytes) -> bool:
    """Whether some cell is coloured in part; keeping that costs a third more, so only those pay who need it."""
    with zipfile.ZipFile(io.BytesIO(content)) as package:
        texts = [name for name in package.namelist() if "sharedStrings" in name or "/worksheets/sheet" in name]
        return any(_RUN.search(package.read(name)) for name in texts)


def _saved(book: Workbook) -> bytes:
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector, which would look at each of 100 000 new cells again and again."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
