"""Writing xlsx workbooks: only the cells that change, everything else byte for byte as people left it.

The sheet's XML is edited in place (`xlsx_cells`, `xlsx_shift`), so formats, filters, notes, pictures, shapes, charts, pivot tables, macros and
formulas survive. Texts are written as texts, whatever they begin with: never as a formula. Only a new sheet is laid out by openpyxl,
and a package that is written in an unusual way is first saved anew by it, unless that would lose something: then it is refused.
"""

from __future__ import annotations

import io
import warnings
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from xml.sax.saxutils import quoteattr

from openpyxl import Workbook, load_workbook
from openpyxl.utils import get_column_letter

from connectors.base import Node
from connectors.sheet import Edit, Grid, Header, Value, label
from connectors.sheet_armour import armoured
from connectors.sheet_layout import (
    HEADER,
    LAST_ROW,
    MOMENT,
    NOT_LISTED,
    TEXT,
    Guide,
    blank_look,
    cell_look,
    guide_of,
    lay_out,
    number_format,
    width,
)
from connectors.sheet_text import LONGEST, is_armed
from connectors.sheet_xlsx import Package
from connectors.xlsx_cells import SheetXml
from connectors.xlsx_page import Page, with_page
from connectors.xlsx_parts import Odd, Parts, xml_text
from connectors.xlsx_shift import Gone, extend, take_out
from connectors.xlsx_styles import Styles
from federation.errors import Permanent, Unreadable

_EXACT_DIGITS = 15
_FIRST_DAY = date(1904, 1, 2)  # both of Excel's calendars count correctly from here on


def blank(node: Node, sheet: str) -> bytes:
    """A new workbook, laid out."""
    book = Workbook()
    book.active.title = sheet
    lay_out(book, book.active, node)
    return _saved(book)


def laid_out(package: Package, node: Node, sheet: str) -> bytes:
    """A workbook whose sheet is still empty, laid out; where that would lose something of people's, with its header alone."""
    if package.delicate:
        grid = Grid([[]], sheet=sheet)
        made = edited(package, grid, Header(0, {}, node.fields), node, Edit({}, [], frozenset(), node.fields))
        assert made is not None
        return made
    book = _loaded(package)
    lay_out(book, book[sheet], node)
    return _saved(book)


def edited(package: Package, grid: Grid, header: Header, node: Node, edit: Edit) -> bytes | None:
    """The workbook after an edit; None if nothing in it changes."""
    try:
        return _edited(package, grid, header, node, edit)
    except Odd as cause:
        return _edited(_plain(package, grid, header, cause), grid, header, node, edit)


def paged(package: Package, grid: Grid, header: Header, title: str, page: Page | None) -> bytes:
    """The workbook with the engine's sheet of this title as the page says; without it if there is no page."""
    try:
        return with_page(package.content, package.sheets, title, page)
    except Odd as cause:
        plain = _plain(package, grid, header, cause)
        return with_page(plain.content, plain.sheets, title, page)


def _edited(package: Package, grid: Grid, header: Header, node: Node, edit: Edit) -> bytes | None:
    parts = Parts(package.content)
    part = package.sheets[grid.sheet]
    sheet = SheetXml(parts.text(part), date1904=package.date1904)
    writer = _Writer(parts, sheet, grid, header, node)
    writer.add_columns(edit.add)
    changed = bool(edit.add or edit.appends or edit.deletes)
    for row, values in edit.updates.items():
        changed = writer.update(row, values) or changed
    if not changed:
        return None
    top = grid.number(header.index)
    last = max((grid.number(at) for at, row in enumerate(grid.rows) if any(c is not None for c in row)), default=top)
    last = max(last, top)
    writer.append(edit.appends, last)
    extend(parts, part, sheet, last, last + len(edit.appends))
    sheet.extend_dimension(last + len(edit.appends), max(writer.columns.values(), default=1))
    if edit.deletes:
        take_out(parts, part, sheet, Gone(grid.sheet, tuple(sorted(edit.deletes))))
    elif sheet.lost_formulas:
        parts.forget_calculation()
    writer.styles.store()
    parts.write(part, sheet.xml())
    if package.has_formulas:
        parts.recalculate_on_opening()
    return parts.dump()


class _Writer:
    """Puts values into one sheet. `columns`: field → column number."""

    def __init__(self, parts: Parts, sheet: SheetXml, grid: Grid, header: Header, node: Node) -> None:
        self.parts, self.sheet, self.grid, self.node = parts, sheet, grid, node
        self.top = grid.number(header.index)
        self.columns = {name: grid.left + at for name, at in header.columns.items()}
        self.styles = Styles(parts)

    def add_columns(self, names: tuple[str, ...]) -> None:
        """New columns at the end of the header, with what guides people."""
        end = self.grid.left + max((len(row) for row in self.grid.rows), default=0)
        for column, name in enumerate(names, start=end):
            self.columns[name] = column
            self.sheet.put(self.top, column, label(self.node, name), self.styles.look(HEADER))
            self.sheet.add_column(column, width(self.node, name), self.styles.look(blank_look(self.node, name)))
            guide = guide_of(self.node, name)
            if guide is not None:
                letter = get_column_letter(column)
                self.sheet.add_rule(self._rule(guide, name, f"{letter}{self.top + 1}:{letter}{LAST_ROW}"))

    def _rule(self, guide: Guide, name: str, cells: str) -> str:
        words, formula = 'allowBlank="1"', ""
        if guide.values:
            title, text = NOT_LISTED
            words += f' type="list" showErrorMessage="1" errorTitle="{title}" error="{text}"'
            formula = f"<formula1>{xml_text(guide.short_list or self._list_sheet(guide, name))}</formula1>"
        if guide.hint:
            words += f' showInputMessage="1" promptTitle={quoteattr(guide.title)} prompt={quoteattr(guide.hint)}'
        return f'<dataValidation {words} sqref="{cells}">{formula}</dataValidation>'

    def _list_sheet(self, guide: Guide, name: str) -> str:
        """A list too long for a rule, on a hidden sheet of its own; returns where it stands."""
        title = f"_选项_{name}"[:31]
        empty = f'<worksheet xmlns="{self.parts.namespace()}"><sheetData/></worksheet>'
        lists = SheetXml(empty)
        for row, value in enumerate(guide.values, start=1):
            lists.put(row, 1, value, 0)
        self.parts.add_sheet(title, lists.xml(), hidden=True)
        return f"'{title}'!$A$1:$A${len(guide.values)}"

    def update(self, row: int, values: dict[str, Value]) -> bool:
        """Put values into the cells of a row, keeping their look. Whether any of them changed."""
        changed = False
        for name, value in values.items():
            column = self.columns[name]
            meant, form = self._form(name, value)
            if _same(self._now(row, column), meant):
                continue
            changed = True
            text = self._armoured(name, meant)
            self.sheet.put(row, column, text, self._like(self.sheet.style(row, column), form, is_armed(text)))
        return changed

    def _now(self, row: int, column: int) -> Value:
        """What stands in a cell; `...` for what is not to be believed."""
        if (row, column) in self.grid.faults:
            return _UNSURE
        cells = self.grid.rows[row - self.grid.first]
        at = column - self.grid.left
        return cells[at] if at < len(cells) else None

    def _like(self, style: int, form: str, quoted: bool) -> int:
        """A format like this one that also lets a value be read back."""
        code = form if form == TEXT or self.styles.code(style) in ("General", TEXT) else None
        return self.styles.derived(style, code, quoted=quoted)

    def append(self, rows: list[dict[str, Value]], last: int) -> None:
        """Add rows below row `last`: dressed like the layout where the sheet is protected, else like the row above."""
        protected = self.sheet.protected
        above = (
            {name: self.sheet.style(last, column) for name, column in self.columns.items()} if last > self.top else {}
        )
        for number, values in enumerate(rows, start=last + 1):
            for name, column in self.columns.items():
                meant, form = self._form(name, values.get(name))
                meant = self._armoured(name, meant)
                if protected or not above.get(name):
                    look = cell_look(form, name in self.node.owned or not protected, is_armed(meant))
                    style = self.styles.look(look)
                else:
                    style = self._like(above[name], form, is_armed(meant))
                self.sheet.put(number, column, meant, style)

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

    def _armoured(self, name: str, value: Value) -> Value:
        return armoured(value, self.node.dataset.fields[name].type)

    def _text(self, name: str, text: str) -> str:
        if len(text) > LONGEST:
            raise Permanent(
                f"a text of {len(text)} characters does not fit into a cell (at most {LONGEST})",
                f"文本长 {len(text)} 字，超过单元格上限 {LONGEST}",
                todo="在来源处缩短，或为该字段声明 hosted / shorten it at its source, or declare the field as hosted",
                sheet=self.grid.sheet,
                field=name,
            )
        return text


_UNSURE = timedelta.max
"""Stands for the value of a faulty cell: nothing is the same as it."""


def _same(now: Value, meant: Value) -> bool:
    if now is None or meant is None or isinstance(meant, str):
        return now == meant
    if isinstance(meant, date):
        return isinstance(now, date) and abs(_as_moment(now) - _as_moment(meant)) < timedelta(microseconds=500)
    return not isinstance(now, (bool, date)) and now == meant


def _as_moment(value: date) -> datetime:
    return value if isinstance(value, datetime) else datetime.combine(value, time())


def _moment(value: datetime) -> str:
    return value.isoformat(" ", "milliseconds" if value.microsecond else "seconds")


def _plain(package: Package, grid: Grid, header: Header, cause: Odd) -> Package:
    """The workbook saved anew by openpyxl, in the usual way of writing. Formulas in the contract's columns become their results."""
    if package.delicate:
        zh, en = "、".join(zh for zh, _ in package.delicate), ", ".join(en for _, en in package.delicate)
        raise Permanent(
            f"the workbook is written in an unusual way ({cause}), and saving it anew would lose its {en}; nothing was written",
            f"工作簿的写法特殊（{cause}），重新保存会丢失其中的{zh}；未写入任何内容",
            todo="用 Excel、WPS 或 LibreOffice 打开并另存一次 / open it in Excel, WPS or LibreOffice and save it once",
            file=package.file.where,
        ) from cause
    book = _loaded(package)
    sheet = book[grid.sheet]
    for index in range(header.index + 1, len(grid.rows)):
        row, number = grid.rows[index], grid.number(index)
        for at in header.columns.values():
            cell = sheet._cells.get((number, grid.left + at))
            if cell is not None and cell.data_type == "f" and at < len(row) and row[at] is not None:
                cell.value = row[at]
                if isinstance(row[at], str):
                    cell.data_type = "s"
    return Package(package.file, _saved(book), package.limits)


def _loaded(package: Package) -> Workbook:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # extensions that it drops: those of weight were looked for
            return load_workbook(io.BytesIO(package.content), keep_vba=package.file.suffix == ".xlsm", rich_text=True)
    except Exception as cause:  # it raises whatever its parsers do
        raise Unreadable(
            f"the workbook cannot be edited: {cause}",
            "工作簿无法编辑",
            todo="用表格软件另存为 .xlsx 后重试 / save it again as .xlsx with a spreadsheet program",
            file=package.file.where,
        ) from cause


def _saved(book: Workbook) -> bytes:
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()
