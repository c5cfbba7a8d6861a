"""The cells of one sheet's XML, edited in place: rows and cells that are not touched keep every byte.

`SheetXml` splits the rows apart and takes only those to pieces that change. Raises `Odd` for XML that is not laid out as spreadsheet
programs do (a namespace prefix, rows or cells without their number, or out of order).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from html import unescape

from openpyxl.formula.translate import Translator
from openpyxl.utils import column_index_from_string, get_column_letter
from openpyxl.utils.datetime import CALENDAR_MAC_1904, CALENDAR_WINDOWS_1900, to_excel

from connectors.sheet import Value
from connectors.sheet_text import escaped
from connectors.xlsx_parts import Odd, xml_text

_ROW = re.compile(r"<row\b([^>]*?)(?:/>|>(.*?)</row>)", re.DOTALL)
_CELL = re.compile(r"<c\b([^>]*?)(?:/>|>(.*?)</c>)", re.DOTALL)
_NUMBER = re.compile(r'\br="([0-9]+)"')
_PLACE = re.compile(r'\br="([A-Z]+)([0-9]+)"')
_STYLE = re.compile(r'\bs="([0-9]+)"')
_FORMULA = re.compile(r"<f\b([^>]*?)(?:/>|>(.*?)</f>)", re.DOTALL)
_AREA = re.compile(r'<mergeCell\b[^>]*\bref="([A-Z]+)([0-9]+):([A-Z]+)([0-9]+)"')
_COLUMN = re.compile(r"<col\b[^>]*/?>")
_AFTER_RULES = (
    r"<(?:hyperlinks|printOptions|pageMargins|pageSetup|headerFooter|rowBreaks|colBreaks|customProperties|cellWatches|ignoredErrors"
    r"|smartTags|drawing|legacyDrawing|legacyDrawingHF|drawingHF|picture|oleObjects|controls|webPublishItems|tableParts|extLst|/worksheet)\b"
)


@dataclass
class Row:
    """One row: its attributes but for the number, and what it holds, still as XML (`""`: nothing)."""

    attributes: str
    inner: str


class SheetXml:
    """One sheet's XML. `rows`: by number, in order."""

    def __init__(self, xml: str, *, date1904: bool = False) -> None:
        self._epoch = CALENDAR_MAC_1904 if date1904 else CALENDAR_WINDOWS_1900
        found = re.search(r"<sheetData\s*(?:/>|>(.*)</sheetData>)", xml, re.DOTALL)
        if found is None or not re.search(r"<worksheet\b", xml[: found.start()]):
            raise Odd("the sheet's elements carry a prefix")
        self.head, self.tail = xml[: found.start()], xml[found.end() :]
        self.rows = _rows(found[1] or "")
        self._opened: dict[int, dict[int, tuple[str, str]]] = {}
        self._changed: set[int] = set()
        self.lost_formulas = False

    def xml(self) -> str:
        """The sheet as it is now."""
        self._close_all()
        rows = "".join(
            f'<row r="{number}"{row.attributes}>{row.inner}</row>'
            if row.inner
            else f'<row r="{number}"{row.attributes}/>'
            for number, row in sorted(self.rows.items())
        )
        return f"{self.head}<sheetData>{rows}</sheetData>{self.tail}"

    # --- cells

    def style(self, row: int, column: int) -> int:
        """The number of the format that a cell has, or would have: its own, else its row's, else its column's."""
        cell = self._cells(row).get(column) if row in self.rows else None
        own = _STYLE.search(cell[0]) if cell is not None else None
        if own is None and row in self.rows and 'customFormat="1"' in self.rows[row].attributes:
            own = _STYLE.search(self.rows[row].attributes)
        return int(own[1]) if own is not None else self._column_style(column)

    def put(self, row: int, column: int, value: Value, style: int) -> None:
        """Set a cell's value and format. What is covered by a merged area holds nothing and stays so."""
        if any(
            top <= row <= bottom and left <= column <= right and (row, column) != (top, left)
            for top, left, bottom, right in self._areas
        ):
            return
        cells = self._cells(row)
        before = cells.get(column)
        if before is not None and "<f" in before[1]:
            if 't="shared"' in before[1] or 't="array"' in before[1]:
                self._spell_out_shared()
                cells = self._cells(row)
            self.lost_formulas = True
        self._changed.add(row)
        kind, inner = self._content(value)
        cells[column] = (f"{f' s={chr(34)}{style}{chr(34)}' if style else ''}{kind}", inner)

    def _content(self, value: Value) -> tuple[str, str]:
        """The attribute that names a value's kind, and the value."""
        if value is None:
            return "", ""
        if isinstance(value, bool):
            return ' t="b"', f"<v>{int(value)}</v>"
        if isinstance(value, str):
            return ' t="inlineStr"', f'<is><t xml:space="preserve">{xml_text(escaped(value))}</t></is>'
        if isinstance(value, (date, datetime)):
            return "", f"<v>{to_excel(value, self._epoch)!r}</v>"
        if isinstance(value, (int, float, Decimal)):
            return "", f"<v>{value!r}</v>" if not isinstance(value, Decimal) else f"<v>{value:f}</v>"
        raise Odd(f"a cell cannot hold {type(value).__name__}")

    @cached_property
    def _areas(self) -> list[tuple[int, int, int, int]]:
        """Merged areas: top, left, bottom, right."""
        return [
            (int(top), column_index_from_string(left), int(bottom), column_index_from_string(right))
            for left, top, right, bottom in _AREA.findall(self.tail)
        ]

    @cached_property
    def _column_styles(self) -> list[tuple[int, int, int]]:
        found = []
        for column in _COLUMN.findall(self.head):
            numbers = {name: int(value) for name, value in re.findall(r'\b(min|max|style)="([0-9]+)"', column)}
            found.append((numbers.get("min", 0), numbers.get("max", 0), numbers.get("style", 0)))
        return found

    def _column_style(self, column: int) -> int:
        return next((style for first, last, style in self._column_styles if first <= column <= last), 0)

    def _cells(self, number: int) -> dict[int, tuple[str, str]]:
        """The cells of a row by column: attributes but for the place, and content."""
        if number not in self._opened:
            row = self.rows.get(number)
            self._opened[number] = _split(row.inner, number) if row else {}
        return self._opened[number]

    def _close_all(self) -> None:
        for number in self._changed:
            self._close(number, self._opened[number])
        self._opened, self._changed = {}, set()

    def _close(self, number: int, cells: dict[int, tuple[str, str]]) -> None:
        row = self.rows.setdefault(number, Row("", ""))
        row.attributes = re.sub(r'\sspans="[^"]*"', "", row.attributes)
        row.inner = "".join(
            f'<c r="{get_column_letter(column)}{number}"{attributes}>{inner}</c>'
            if inner
            else f'<c r="{get_column_letter(column)}{number}"{attributes}/>'
            for column, (attributes, inner) in sorted(cells.items())
        )

    # --- around the cells

    @property
    def protected(self) -> bool:
        """Whether locked cells are closed to people."""
        return bool(re.search(r'<sheetProtection\b[^>]*\bsheet="(1|true)"', self.tail))

    def add_column(self, column: int, width: int, style: int) -> None:
        """State the width and format of a column, if nothing is said of it yet."""
        if any(first <= column <= last for first, last, _ in self._column_styles):
            return
        made = f'<col min="{column}" max="{column}" width="{width}" customWidth="1" style="{style}"/>'
        after = [
            found for found in _COLUMN.finditer(self.head) if int(re.findall(r'\bmin="([0-9]+)"', found[0])[0]) < column
        ]
        if after:
            self.head = self.head[: after[-1].end()] + made + self.head[after[-1].end() :]
        elif "<cols>" in self.head:
            self.head = self.head.replace("<cols>", f"<cols>{made}", 1)
        else:
            self.head += f"<cols>{made}</cols>"
        self.__dict__.pop("_column_styles", None)

    def add_rule(self, rule: str) -> None:
        """Add a `dataValidation`, where the order of the sheet's elements wants it."""
        if "</dataValidations>" in self.tail:
            self.tail = self.tail.replace("</dataValidations>", f"{rule}</dataValidations>", 1)
            count = len(re.findall(r"<dataValidation\b", self.tail))
            self.tail = re.sub(r'(<dataValidations\b[^>]*\bcount=")[0-9]+', rf"\g<1>{count}", self.tail, count=1)
            return
        later = re.search(_AFTER_RULES, self.tail)
        if later is None:
            raise Odd("the sheet does not end as expected")
        made = f'<dataValidations count="1">{rule}</dataValidations>'
        self.tail = self.tail[: later.start()] + made + self.tail[later.start() :]

    # --- formulas

    @property
    def has_formulas(self) -> bool:
        """Whether any cell is a formula."""
        return any("<f" in row.inner for row in self.rows.values())

    def each_formula(self, change: Callable[[str], str]) -> None:
        """Change the text of every formula; shared ones are spelled out first."""
        if not self.has_formulas:
            return
        self._spell_out_shared()

        def changed(formula: re.Match[str]) -> str:
            return f"<f{formula[1]}>{xml_text(change(unescape(formula[2])))}</f>" if formula[2] else formula[0]

        for number, row in self.rows.items():
            if "<f" in row.inner:
                assert number not in self._opened
                row.inner = _FORMULA.sub(changed, row.inner)

    def _spell_out_shared(self) -> None:
        """Give each cell of a shared formula its own text, so that none depends on the cell that held it for all."""
        self._close_all()
        if not any('t="shared"' in row.inner for row in self.rows.values()):
            return
        masters: dict[str, Translator] = {}
        for number, row in sorted(self.rows.items()):
            if 't="shared"' not in row.inner:
                continue
            cells = _split(row.inner, number)
            for column, (attributes, inner) in sorted(cells.items()):
                formula = _FORMULA.search(inner)
                if formula is None or 't="shared"' not in formula[1]:
                    continue
                group = re.search(r'\bsi="([0-9]+)"', formula[1])
                place = f"{get_column_letter(column)}{number}"
                if group is None:
                    raise Odd("a shared formula without its group")
                if formula[2]:
                    masters[group[1]] = Translator(f"={unescape(formula[2])}", origin=place)
                if group[1] not in masters:
                    raise Odd("a shared formula whose first cell comes later")
                text = masters[group[1]].translate_formula(place)[1:]
                cells[column] = (attributes, inner.replace(formula[0], f"<f>{xml_text(text)}</f>", 1))
            self._close(number, cells)

    # --- rows

    def remove(self, gone: frozenset[int], moved: Callable[[int], int]) -> None:
        """Take rows out; those below move up. Formulas are not looked at."""
        self._close_all()
        kept: dict[int, Row] = {}
        for number, row in self.rows.items():
            if number in gone:
                self.lost_formulas = self.lost_formulas or "<f" in row.inner
                continue
            place = moved(number)
            if place != number:
                row.inner = _renumbered(row.inner, place)
            kept[place] = row
        self.rows = kept

    def extend_dimension(self, rows: int, columns: int) -> None:
        """Let the sheet's stated extent reach to this row and column, if it states one."""

        def grown(found: re.Match[str]) -> str:
            right = max(column_index_from_string(found[3] or found[1]), columns)
            bottom = max(int(found[4] or found[2]), rows)
            return f'<dimension ref="{found[1]}{found[2]}:{get_column_letter(right)}{bottom}"'

        pattern = r'<dimension\b[^>]*?\bref="([A-Z]+)([0-9]+)(?::([A-Z]+)([0-9]+))?"'
        self.head = re.sub(pattern, grown, self.head, count=1)


def _rows(body: str) -> dict[int, Row]:
    found: dict[int, Row] = {}
    end = last = 0
    for match in _ROW.finditer(body):
        number = _NUMBER.search(match[1])
        if number is None or int(number[1]) <= last or body[end : match.start()].strip():
            raise Odd("the sheet's rows are not numbered in order")
        last, end = int(number[1]), match.end()
        found[last] = Row(_without(match[1], number[0]), match[2] or "")
    if body[end:].strip():
        raise Odd("the sheet holds more than rows")
    return found


def _split(inner: str, number: int) -> dict[int, tuple[str, str]]:
    cells: dict[int, tuple[str, str]] = {}
    end = 0
    for match in _CELL.finditer(inner):
        place = _PLACE.search(match[1])
        if place is None or int(place[2]) != number or inner[end : match.start()].strip():
            raise Odd(f"the cells of row {number} do not say where they stand")
        end = match.end()
        cells[column_index_from_string(place[1])] = (_without(match[1], place[0]), match[2] or "")
    if inner[end:].strip():
        raise Odd(f"row {number} holds more than cells")
    return cells


def _without(attributes: str, one: str) -> str:
    """A tag's attributes without one of them, a blank before the first."""
    rest = attributes.replace(one, "", 1).replace("  ", " ").strip()
    return f" {rest}" if rest else ""


def _renumbered(inner: str, number: int) -> str:
    """The cells of a row under another row number."""
    return re.sub(r'(<c\b[^>]*?\br=")([A-Z]+)[0-9]+"', lambda cell: f'{cell[1]}{cell[2]}{number}"', inner)
