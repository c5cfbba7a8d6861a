"""The parts of an xlsx package, to be changed one by one: whatever is not touched stays byte for byte.

Pictures, shapes, charts, pivot tables, macros, notes and settings that no library models therefore survive our writing. Parts are
edited as text; `Odd` is raised where one is written in a way that this does not expect (a namespace prefix, a comment inside).
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

WORKBOOK, TYPES, STYLES = "xl/workbook.xml", "[Content_Types].xml", "xl/styles.xml"
_CHAIN = "xl/calcChain.xml"
_SHEET_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"
_ENCODING = re.compile(r"<\?xml[^>]*\bencoding=[\"']([^\"']+)")
_SHEET = re.compile(r"<sheet\b[^>]*/>")
_LOCAL = re.compile(r"<definedName\b[^>]*?>.*?</definedName>", re.DOTALL)


class Odd(Exception):
    """This part is not written the way that we can edit in place."""


class Parts:
    """The parts of one package. Names are those in the zip."""

    def __init__(self, content: bytes) -> None:
        self._zip = zipfile.ZipFile(io.BytesIO(content))
        self._order = [entry.filename for entry in self._zip.infolist()]
        self._new: dict[str, bytes | None] = {}

    def __contains__(self, name: str) -> bool:
        return self._new[name] is not None if name in self._new else name in self._zip.NameToInfo

    def names(self, beginning: str = "") -> list[str]:
        """The parts whose name begins so."""
        known = [*self._order, *(name for name in self._new if name not in self._zip.NameToInfo)]
        return [name for name in known if name in self and name.startswith(beginning)]

    def read(self, name: str) -> bytes:
        """A part's bytes. Raises Odd if there is none."""
        if name in self._new:
            content = self._new[name]
        else:
            content = self._zip.read(name) if name in self._zip.NameToInfo else None
        if content is None:
            raise Odd(f"there is no {name}")
        return content

    def text(self, name: str) -> str:
        """A part's XML. Raises Odd if it is not plain UTF-8 without comments."""
        try:
            text = self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError as cause:
            raise Odd(f"{name} is not in UTF-8") from cause
        if "<!" in text:
            raise Odd(f"{name} holds a comment or raw text")
        declared = _ENCODING.match(text)
        if declared is not None and declared[1].lower() != "utf-8":
            raise Odd(f"{name} is in {declared[1]}")
        return text

    def write(self, name: str, content: bytes | str) -> None:
        """Set a part."""
        self._new[name] = content.encode() if isinstance(content, str) else content

    def remove(self, name: str) -> None:
        """Take a part out, and what the package says of it."""
        if name not in self:
            return
        self._new[name] = None
        types = self.text(TYPES)
        self.write(TYPES, re.sub(rf'<Override\b[^>]*PartName="/{re.escape(name)}"[^>]*/>', "", types))

    def dump(self) -> bytes:
        """The package as it is now."""
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as package:
            for name in self.names():
                known = self._zip.NameToInfo.get(name)
                entry = zipfile.ZipInfo(name, known.date_time if known else (1980, 1, 1, 0, 0, 0))
                entry.compress_type = known.compress_type if known else zipfile.ZIP_DEFLATED
                entry.external_attr = known.external_attr if known else 0o600 << 16
                package.writestr(entry, self.read(name))
        return out.getvalue()

    # --- what belongs to what

    def related(self, name: str, kind: str) -> list[str]:
        """The parts that a part refers to by relationships of this kind (the last word of its type)."""
        path = _rels(name)
        if path not in self:
            return []
        found = []
        for link in ElementTree.fromstring(self.read(path)):
            if link.get("Type", "").rpartition("/")[2] == kind and link.get("TargetMode") != "External":
                target = posixpath.join("/", posixpath.dirname(name), link.get("Target", ""))
                found.append(posixpath.normpath(target)[1:])
        return [part for part in found if part in self]

    def forget_calculation(self) -> None:
        """Formulas went or moved: drop the order of calculation, which the program makes anew."""
        if _CHAIN in self:
            self.remove(_CHAIN)
            links = self.text(_rels(WORKBOOK))
            self.write(
                _rels(WORKBOOK), re.sub(r'<Relationship\b[^>]*Target="/?(?:xl/)?calcChain\.xml"[^>]*/>', "", links)
            )

    def recalculate_on_opening(self) -> None:
        """Values changed on which formulas may depend: their results are to be worked out when the file is next opened."""
        book = self.text(WORKBOOK)
        if "fullCalcOnLoad=" in book:
            return
        if "<calcPr" in book:
            book = book.replace("<calcPr", '<calcPr fullCalcOnLoad="1"', 1)
        else:
            before = r"</sheets>(?:\s*<functionGroups\b.*?</functionGroups>)?(?:\s*<externalReferences>.*?</externalReferences>)?"
            before += r"(?:\s*<definedNames>.*?</definedNames>|\s*<definedNames\s*/>)?"
            book = re.sub(
                before, lambda sheets: f'{sheets[0]}<calcPr fullCalcOnLoad="1"/>', book, count=1, flags=re.DOTALL
            )
        self.write(WORKBOOK, book)

    # --- whole sheets

    def namespace(self) -> str:
        """The namespace of the workbook's own elements (there are two: of the usual and of the strict kind)."""
        found = re.search(r'<workbook\b[^>]*\bxmlns="([^"]+)"', self.text(WORKBOOK))
        if found is None:
            raise Odd("the workbook's elements carry a prefix")
        return found[1]

    def add_sheet(self, title: str, xml: str, *, hidden: bool = False) -> None:
        """A new sheet behind all others."""
        numbers = [
            int(found) for name in self.names("xl/worksheets/sheet") for found in re.findall(r"sheet(\d+)\.xml$", name)
        ]
        part = f"xl/worksheets/sheet{max(numbers, default=0) + 1}.xml"
        book, links, types = self.text(WORKBOOK), self.text(_rels(WORKBOOK)), self.text(TYPES)
        sheets = _SHEET.findall(book)
        prefix = re.search(r"(\w+):id=", sheets[-1]) if sheets else None
        kind = re.search(r'\bType="([^"]+/worksheet)"', links)  # it has another name in workbooks of the strict kind
        if prefix is None or kind is None or "</sheets>" not in book:
            raise Odd("the workbook's list of sheets is not as expected")
        ids = [int(found) for sheet in sheets for found in re.findall(r'sheetId="(\d+)"', sheet)]
        taken = [int(found) for found in re.findall(r'\bId="rId(\d+)"', links)]
        link = f"rId{max(taken, default=0) + 1}"
        state = ' state="hidden"' if hidden else ""
        element = f'<sheet name={quoteattr(title)} sheetId="{max(ids, default=0) + 1}"{state} {prefix[1]}:id="{link}"/>'
        relation = f'<Relationship Id="{link}" Type="{kind[1]}" Target="/{part}"/>'
        self.write(WORKBOOK, book.replace("</sheets>", f"{element}</sheets>", 1))
        self.write(_rels(WORKBOOK), links.replace("</Relationships>", f"{relation}</Relationships>", 1))
        override = f'<Override PartName="/{part}" ContentType="{_SHEET_TYPE}"/>'
        self.write(TYPES, types.replace("</Types>", f"{override}</Types>", 1))
        self.write(part, xml)

    def remake_sheet(self, part: str, xml: str) -> None:
        """A sheet's content made anew; what was attached to the old one goes."""
        self.write(part, xml)
        if _rels(part) in self:
            self.remove(_rels(part))

    def remove_sheet(self, title: str, part: str) -> None:
        """Take a sheet out; names that belong to one behind it are told that it moved up."""
        book = self.text(WORKBOOK)
        sheets = _SHEET.findall(book)
        wanted = quoteattr(title)
        at = next((n for n, sheet in enumerate(sheets) if f"name={wanted}" in sheet), None)
        if at is None or len(sheets) < 2:
            raise Odd(f"the sheet {title} cannot be found in the list")
        link = re.search(r'\w+:id="([^"]+)"', sheets[at])
        book = book.replace(sheets[at], "", 1)
        book = _LOCAL.sub(lambda name: _renumbered(name[0], at), book)
        book = re.sub(r"<definedNames>\s*</definedNames>", "", book)
        book = re.sub(r'(activeTab|firstSheet)="(\d+)"', lambda tab: f'{tab[1]}="{_above(int(tab[2]), at)}"', book)
        self.write(WORKBOOK, book)
        if link is not None:
            links = self.text(_rels(WORKBOOK))
            self.write(_rels(WORKBOOK), re.sub(rf'<Relationship\b[^>]*\bId="{re.escape(link[1])}"[^>]*/>', "", links))
        self.remove(_rels(part))
        self.remove(part)


def _rels(name: str) -> str:
    folder, base = posixpath.split(name)
    return posixpath.join(folder, "_rels", f"{base}.rels")


def _renumbered(name: str, gone: int) -> str:
    found = re.search(r'localSheetId="(\d+)"', name)
    if found is None or int(found[1]) < gone:
        return name
    if int(found[1]) == gone:
        return ""
    return name.replace(found[0], f'localSheetId="{int(found[1]) - 1}"', 1)


def _above(tab: int, gone: int) -> int:
    return max(tab - (tab >= gone), 0)


def xml_text(text: str) -> str:
    """A text inside an element."""
    return escape(text)
