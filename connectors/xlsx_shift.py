"""What else refers to the rows of a sheet: told when rows are added at the end, or taken out and those below move up.

Filters, tables, merged areas, rules (conditional formats, drop-downs), links, notes, the places of pictures and shapes, chart series, names and
formulas anywhere in the workbook. A formula that pointed at a row that is gone says #REF!, as it does when people delete the row.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from html import unescape

from openpyxl.formula import Tokenizer

from connectors.xlsx_cells import SheetXml
from connectors.xlsx_parts import WORKBOOK, Parts, xml_text

_RANGE = re.compile(r"^(\$?)([A-Z]{1,3})(\$?)([0-9]+)(?::(\$?)([A-Z]{1,3})(\$?)([0-9]+))?$")
_ROWS = re.compile(r"^(\$?)([0-9]+):(\$?)([0-9]+)$")
_SELF_CLOSED = ("mergeCell", "hyperlink", "protectedRange", "ignoredError", "selection")
_RULES = ("conditionalFormatting", "dataValidation")
_REFERENCE = re.compile(r'\b(ref|sqref|activeCell|topLeftCell)="([^"]+)"')

_EXTENDED = re.compile(r"(<xm:sqref>)([^<]+)(</xm:sqref>)")
_EXTENDED_FORMULA = r"(<(xm:f)>)(.*?)(</\2>)"
"""Of rules in the extension list, as Excel 2010 and later keep those that refer to other sheets."""


@dataclass(frozen=True)
class Gone:
    """Rows that are taken out of the sheet of this name: their numbers, in order."""

    sheet: str
    rows: tuple[int, ...]

    def moved(self, row: int) -> int:
        """Where a row stands afterwards; of one that is gone, where the next one does."""
        return row - bisect_left(self.rows, row)

    def range(self, text: str) -> str | None:
        """A range such as `A1:B9` or `$A$2` afterwards; None if nothing of it is left. What is no range of rows stays."""
        cells = _RANGE.match(text)
        if cells is not None:
            first = int(cells[4])
            rows = self._rows(first, int(cells[8] or first))
            if rows is None:
                return None
            start = f"{cells[1]}{cells[2]}{cells[3]}{rows[0]}"
            return start if cells[6] is None else f"{start}:{cells[5]}{cells[6]}{cells[7]}{rows[1]}"
        whole = _ROWS.match(text)
        if whole is None:
            return text
        rows = self._rows(int(whole[2]), int(whole[4]))
        return None if rows is None else f"{whole[1]}{rows[0]}:{whole[3]}{rows[1]}"

    def _rows(self, first: int, last: int) -> tuple[int, int] | None:
        start, end = self.moved(first), last - bisect_right(self.rows, last)
        return (start, end) if end >= start else None

    def ranges(self, text: str) -> str:
        """Several ranges, blanks between; "" if nothing of them is left."""
        return " ".join(found for part in text.split() if (found := self.range(part)) is not None)

    def formula(self, text: str, *, inside: bool) -> str:
        """A formula (without =) afterwards. `inside`: whether it stands in this sheet, so that plain ranges mean it."""
        if not inside and self.sheet not in text:
            return text
        try:
            tokens = Tokenizer(f"={text}").items
        except Exception:  # it raises whatever it stumbles over; then the formula stays as it is
            return text
        return "".join(
            self._token(token.value, inside) if token.subtype == "RANGE" else token.value for token in tokens
        )

    def _token(self, text: str, inside: bool) -> str:
        sheet, mark, cells = text.rpartition("!")
        if (sheet.strip("'").replace("''", "'") != self.sheet) if mark else not inside:
            return text
        return f"{sheet}{mark}{self.range(cells) or '#REF!'}"


def take_out(parts: Parts, part: str, sheet: SheetXml, gone: Gone) -> None:
    """Take rows out of a sheet, and tell all that refers to them."""

    def here(formula: str) -> str:
        return gone.formula(formula, inside=True)

    sheet.each_formula(here)
    sheet.remove(frozenset(gone.rows), gone.moved)
    sheet.head = _around(sheet.head, gone)
    sheet.tail = _around(sheet.tail, gone)
    for table in parts.related(part, "table"):
        parts.write(
            table, _REFERENCE.sub(lambda found: f'{found[1]}="{_table_range(found[2], gone)}"', parts.text(table))
        )
    for notes in (*parts.related(part, "comments"), *parts.related(part, "threadedComment")):
        parts.write(notes, _notes(parts.text(notes), gone))
    for drawing in parts.related(part, "vmlDrawing"):
        parts.write(drawing, _note_boxes(parts.read(drawing).decode(), gone))
    for drawing in parts.related(part, "drawing"):
        moved = re.sub(
            r"(<(?:\w+:)?row>)([0-9]+)(<)",
            lambda row: f"{row[1]}{gone.moved(int(row[2]) + 1) - 1}{row[3]}",
            parts.text(drawing),
        )
        parts.write(drawing, moved)
    _elsewhere(parts, part, gone)
    if sheet.lost_formulas or sheet.has_formulas:
        parts.forget_calculation()


def extend(parts: Parts, part: str, sheet: SheetXml, last: int, new_last: int) -> None:
    """A filter or table that ended with the last row ends with the new last row."""

    def longer(found: re.Match[str]) -> str:
        cells = _RANGE.match(found[2])
        if cells is None or int(cells[8] or 0) != last:
            return found[0]
        return f'{found[1]}="{cells[1]}{cells[2]}{cells[3]}{cells[4]}:{cells[5]}{cells[6]}{cells[7]}{new_last}"'

    reference = re.compile(r'\b(ref)="([^"]+)"')
    sheet.tail = re.sub(r"<autoFilter\b[^>]*>", lambda tag: reference.sub(longer, tag[0]), sheet.tail)
    for table in parts.related(part, "table"):
        parts.write(table, reference.sub(longer, parts.text(table)))


def _table_range(text: str, gone: Gone) -> str:
    """A table keeps its header and at least one row."""
    cells = _RANGE.match(text)
    if cells is None or cells[8] is None:
        return gone.range(text) or text
    top = gone.moved(int(cells[4]))
    bottom = max(int(cells[8]) - bisect_right(gone.rows, int(cells[8])), top + 1)
    return f"{cells[1]}{cells[2]}{cells[3]}{top}:{cells[5]}{cells[6]}{cells[7]}{bottom}"


def _around(xml: str, gone: Gone) -> str:
    """What stands before and behind the rows of a sheet's XML."""

    def kept(found: re.Match[str]) -> str:
        reference = _REFERENCE.search(found[0])
        if reference is None or reference[1] == "activeCell":
            return _moved(found[0], gone)
        left = gone.ranges(reference[2])
        if not left and found[0].startswith("<selection"):
            return ""
        if found[0].startswith("<mergeCell") and _RANGE.match(left) and _single(left):
            return ""
        return _moved(found[0], gone) if left else ""

    xml = re.sub(
        r"<autoFilter\b[^>]*>",
        lambda tag: _REFERENCE.sub(lambda r: f'{r[1]}="{_table_range(r[2], gone)}"', tag[0]),
        xml,
    )
    for name in _SELF_CLOSED:
        xml = re.sub(rf"<{name}\b[^>]*/>", kept, xml)
    for name in _RULES:
        xml = re.sub(rf"<{name}\b[^>]*(?:/>|(?<!/)>.*?</{name}>)", kept, xml, flags=re.DOTALL)
    xml = re.sub(r"(<(formula[12]?)>)(.*?)(</\2>)", _formula_of(gone), xml, flags=re.DOTALL)
    xml = _EXTENDED.sub(lambda found: f"{found[1]}{_somewhere(found[2], gone)}{found[3]}", xml)
    xml = re.sub(_EXTENDED_FORMULA, _formula_of(gone), xml, flags=re.DOTALL)
    xml = re.sub(r"<(dimension|pane|sheetView)\b[^>]*>", lambda tag: _moved(tag[0], gone), xml)
    for name, item in (("mergeCells", "mergeCell"), ("dataValidations", "dataValidation"), ("hyperlinks", "hyperlink")):
        xml = _counted(xml, name, item)
    return xml


def _formula_of(gone: Gone) -> Callable[[re.Match[str]], str]:
    return lambda found: f"{found[1]}{xml_text(gone.formula(unescape(found[3]), inside=True))}{found[4]}"


def _moved(tag: str, gone: Gone) -> str:
    """A tag (with all inside it) whose first reference is moved; one to nothing points at the row that follows."""

    end = tag.index(">")
    moved = _REFERENCE.sub(lambda found: f'{found[1]}="{_somewhere(found[2], gone)}"', tag[:end])
    return moved + tag[end:]


def _somewhere(text: str, gone: Gone) -> str:
    """Ranges afterwards; if nothing of them is left, the cell that follows."""
    left = gone.ranges(text)
    if left:
        return left
    cells = _RANGE.match(text.split()[0])
    return f"{cells[2]}{gone.moved(int(cells[4]))}" if cells else text


def _single(text: str) -> bool:
    start, _, end = text.partition(":")
    return not end or start == end


def _counted(xml: str, name: str, item: str) -> str:
    """A list with its count mended; without it if nothing is left in it."""

    def mended(found: re.Match[str]) -> str:
        count = len(re.findall(rf"<{item}\b", found[2]))
        head = re.sub(r'\bcount="[0-9]*"', f'count="{count}"', found[1])
        return f"{head}{found[2]}{found[3]}" if count else ""

    return re.sub(rf"(<{name}\b[^>]*(?<!/)>)(.*?)(</{name}>)", mended, xml, flags=re.DOTALL)


def _notes(xml: str, gone: Gone) -> str:
    def kept(found: re.Match[str]) -> str:
        reference = re.search(r'\bref="([^"]+)"', found[0])
        left = gone.range(reference[1]) if reference else None
        return found[0].replace(reference[0], f'ref="{left}"', 1) if reference and left else ""

    return re.sub(r"<(comment|threadedComment)\b[^>]*(?<!/)>.*?</\1>", kept, xml, flags=re.DOTALL)


def _note_boxes(vml: str, gone: Gone) -> str:
    """The boxes in which notes are shown: each says its row (from 0), and between which rows it floats."""

    def anchored(found: re.Match[str]) -> str:
        numbers = [part.strip() for part in found[2].split(",")]
        for at in (2, 6):
            if len(numbers) == 8:
                numbers[at] = str(gone.moved(int(numbers[at]) + 1) - 1)
        return f"{found[1]}{', '.join(numbers)}{found[3]}"

    def kept(found: re.Match[str]) -> str:
        row = re.search(r"<x:Row>\s*([0-9]+)\s*</x:Row>", found[0])
        if row is None:
            return found[0]
        if int(row[1]) + 1 in gone.rows:
            return ""
        box = found[0].replace(row[0], f"<x:Row>{gone.moved(int(row[1]) + 1) - 1}</x:Row>", 1)
        return re.sub(r"(<x:Anchor>)(.*?)(</x:Anchor>)", anchored, box, flags=re.DOTALL)

    return re.sub(r"<v:shape\b.*?</v:shape>", kept, vml, flags=re.DOTALL)


def _elsewhere(parts: Parts, part: str, gone: Gone) -> None:
    """Names, formulas of other sheets, chart series."""

    def there(found: re.Match[str]) -> str:
        return f"{found[1]}{xml_text(gone.formula(unescape(found[2]), inside=False))}{found[3]}"

    wanted = [(WORKBOOK, r"(<definedName\b[^>]*(?<!/)>)(.*?)(</definedName>)")]
    wanted += [
        (name, r"(<(?:f\b[^>]*(?<!/)|xm:f)>)(.*?)(</(?:xm:)?f>)")
        for name in parts.names("xl/worksheets/sheet")
        if name != part
    ]
    wanted += [(name, r"(<(?:c:)?f>)(.*?)(</(?:c:)?f>)") for name in parts.names("xl/charts/chart")]
    for name, pattern in wanted:
        raw = parts.read(name)
        if gone.sheet.encode() in raw:
            text = raw.decode("utf-8-sig")
            moved = re.sub(pattern, there, text, flags=re.DOTALL)
            if moved != text:
                parts.write(name, moved)
