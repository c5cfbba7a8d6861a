"""Reading xlsx workbooks, fast and suspicious.

`Package` opens the zip within limits, finds the parts of a sheet and says whether the sheet's data may have changed: its tokens
cover the sheet, the shared texts and the formats, not the other sheets, so that showing returns does not wake the sweep.
Cells are read by calamine (25 times faster than openpyxl), which is handed only parts that were unpacked and looked at before: no
document type, no other encoding, no cell so far out that the sheet would not fit into memory. Links to other files are never
followed: a cell that has one holds its last result. What calamine shows as blank although something stands there (a formula
without a result, an error value) is found in the sheet's XML and reported as a fault.
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from xml.etree import ElementTree

from openpyxl.utils import column_index_from_string
from python_calamine import CalamineError, CalamineWorkbook

from connectors.files import sha256
from connectors.locations import File
from connectors.sheet import Grid, Value
from federation.errors import ConnectorError, SchemaMismatch, Unreadable

_CELL = re.compile(rb"<(?:\w+:)?c\b([^>]*?)(?:/>|>(.*?)</(?:\w+:)?c>)", re.DOTALL)
_FILLED = re.compile(rb'<(?:\w+:)?c\b[^>]*?\br="([A-Z]+)([0-9]+)"[^>]*(?<!/)>(?!</)')
_AT = re.compile(rb'\br="([A-Z]{1,3})([0-9]+)"')
_ERROR = re.compile(rb'\bt="e"')
_FORMULA = re.compile(rb"<(?:\w+:)?f[ />]")
_RESULT = re.compile(rb"<(?:\w+:)?v(?: [^>]*)?>[^<]")
OLE = b"\xd0\xcf\x11\xe0"
_WORKBOOK, _TEXTS, _STYLES = "xl/workbook.xml", "xl/sharedStrings.xml", "xl/styles.xml"
_FRAME = ("[Content_Types].xml", "_rels/.rels", _WORKBOOK, "xl/_rels/workbook.xml.rels", _TEXTS, _STYLES)
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    KeyError,
    ElementTree.ParseError,
)
_FAR_COLUMN = 702
"""Columns beyond ZZ: nobody works there."""
_DELICATE = {
    "xl/media/": ("图片", "pictures"),
    "xl/drawings/drawing": ("图形与图表", "shapes and charts"),
    "xl/vbaProject": ("宏", "macros"),
    "xl/pivot": ("数据透视表", "pivot tables"),
    "xl/slicer": ("切片器", "slicers"),
    "xl/timeline": ("日程表", "timelines"),
    "xl/ctrlProps": ("表单控件", "form controls"),
    "xl/threadedComments": ("批注会话", "threaded comments"),
    "xl/embeddings": ("嵌入对象", "embedded objects"),
}
"""Parts that openpyxl drops or damages when it saves: (zh, en)."""


@dataclass(frozen=True)
class Limits:
    """What a workbook may unpack to. `cells`: rows × columns of a sheet, from its first filled corner to its last."""

    megabytes: int = 200
    parts: int = 10_000
    cells: int = 25_000_000


@dataclass(frozen=True)
class Package:
    """The bytes of a workbook. Every method may raise Transient or Unreadable."""

    file: File
    content: bytes
    limits: Limits

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        if self.content.startswith(OLE):
            raise old_or_locked(self.file, self.content)
        try:
            package = zipfile.ZipFile(io.BytesIO(self.content))
        except _DAMAGE as cause:
            raise self._broken() from cause
        entries, limits = package.infolist(), self.limits
        size = sum(entry.file_size for entry in entries)
        if size > limits.megabytes << 20 or len(entries) > limits.parts:
            raise Unreadable(
                f"the workbook unpacks to {size >> 20} MB in {len(entries)} parts, more than the limit of {limits.megabytes} MB "
                f"(`max_mb`) in {limits.parts} parts",
                f"工作簿解压后 {size >> 20} MB、{len(entries)} 个部件，超过上限 {limits.megabytes} MB（max_mb）、{limits.parts} 个",
                todo="删去多余的行、工作表与图片，或调高 max_mb / delete surplus rows, sheets and pictures, or raise max_mb",
                file=self.file.where,
            )
        return package

    @cached_property
    def sheets(self) -> dict[str, str]:
        """Sheet name → part, in the workbook's order."""
        try:
            book = ElementTree.fromstring(self._part(_WORKBOOK))
            links = ElementTree.fromstring(self._part("xl/_rels/workbook.xml.rels"))
        except _DAMAGE as cause:
            raise self._broken() from cause
        targets = {link.get("Id", ""): link.get("Target", "") for link in links}
        found = {}
        for element in book.iter():
            if element.tag.endswith("}sheet"):
                link = next((value for name, value in element.attrib.items() if name.endswith("}id")), "")
                found[element.get("name", "")] = posixpath.normpath(posixpath.join("/xl", targets.get(link, "")))[1:]
        return found

    @cached_property
    def date1904(self) -> bool:
        """Whether days are counted from 1904, as old programs on a Mac did."""
        return bool(re.search(rb'\bdate1904="(1|true)"', self._read(_WORKBOOK)))

    @cached_property
    def has_formulas(self) -> bool:
        """Whether any sheet holds a formula."""
        return any(_has_formula(self._read(part)) for part in self.sheets.values() if part in self._zip.NameToInfo)

    @cached_property
    def delicate(self) -> list[tuple[str, str]]:
        """What this workbook holds that no library could save anew: (zh, en)."""
        names = self._zip.NameToInfo
        return [words for part, words in _DELICATE.items() if any(name.startswith(part) for name in names)]

    def _token_parts(self, sheet: str) -> list[str]:
        parts = [self._of(sheet), _TEXTS, _STYLES]
        return [part for part in parts if part in self._zip.NameToInfo]

    def token(self, sheet: str) -> str:
        """Cheap: from the checksums in the zip's directory."""
        entries = [self._zip.NameToInfo.get(part) for part in self._token_parts(sheet)]
        return sha256(*(f"{entry.filename} {entry.CRC} {entry.file_size}".encode() for entry in entries if entry))

    def cursor(self, sheet: str) -> str:
        """Strong: from the parts themselves."""
        return sha256(*(self._read(part) for part in self._token_parts(sheet)))

    def _read(self, part: str) -> bytes:
        try:
            return self._part(part)
        except _DAMAGE as cause:
            raise self._broken() from cause

    def grid(self, sheet: str) -> Grid:
        """The cells of a sheet; raises SchemaMismatch if there is none of that name."""
        part = self._of(sheet)
        try:
            xml = self._part(part)
            self._refuse_vast(sheet, xml)
            with CalamineWorkbook.from_filelike(io.BytesIO(self._proven(part))) as book:
                found = book.get_sheet_by_name(sheet)
                top, left = found.start or (0, 0)
                rows = found.to_python(skip_empty_area=True)
        except (*_DAMAGE, CalamineError) as cause:
            raise self._broken() from cause
        cells: list[list[Value]] = [[None if cell == "" else cell for cell in row] for row in rows]
        return Grid(cells, top + 1, left + 1, sheet, _faults(xml))

    def _of(self, sheet: str) -> str:
        try:
            return self.sheets[sheet]
        except KeyError:
            names = "、".join(self.sheets)
            raise SchemaMismatch(
                f"the workbook has no sheet “{sheet}”; it has: {names}",
                f"没有工作表“{sheet}”；现有：{names}",
                todo="恢复工作表名称，或改正选项 sheet / give the sheet its name back, or mend the option `sheet`",
                file=self.file.where,
            ) from None

    def _part(self, name: str) -> bytes:
        """A part, unpacked (which proves its checksum and size) and looked at; raises one of `_DAMAGE`."""
        if name not in self._unpacked:
            content = self._zip.read(name)
            if b"<!DOCTYPE" in content or b"\0" in content:
                raise zipfile.BadZipFile(f"{name} declares a document type, or is not in UTF-8")
            self._unpacked[name] = content
        return self._unpacked[name]

    @cached_property
    def _unpacked(self) -> dict[str, bytes]:
        return {}

    def _proven(self, part: str) -> bytes:
        """A package of what one sheet needs, each part looked at; not packed, since it is read once."""
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as package:
            for name in (*_FRAME, part):
                if name in self._zip.NameToInfo:
                    package.writestr(name, self._part(name))
        return out.getvalue()

    def _refuse_vast(self, sheet: str, xml: bytes) -> None:
        """A note typed by mistake into the last corner of a sheet would make of it thousands of millions of cells."""
        filled = _FILLED.findall(xml)
        if not filled:
            return
        columns = {letters: column_index_from_string(letters.decode()) for letters in {cell[0] for cell in filled}}
        last = int(filled[-1][1])
        if max(columns.values()) * last <= self.limits.cells:
            return
        outermost = max(columns, key=columns.__getitem__)
        wide = columns[outermost] > _FAR_COLUMN
        letters, row = next(cell for cell in filled if cell[0] == outermost) if wide else filled[-1]
        place = f"{letters.decode()}{row.decode()}"
        raise Unreadable(
            f"something stands far away from the data, in cell {place}",
            f"远离数据的单元格 {place} 中有内容",
            todo=f"删除该单元格的内容 / delete what stands in {place}",
            file=self.file.where,
            sheet=sheet,
        )

    def _broken(self) -> ConnectorError:
        return self.file.broken(
            "the file is not a whole xlsx workbook (cut off or damaged)",
            "不是完整的 xlsx 工作簿（被截断或已损坏）",
            "用表格软件打开并另存为 .xlsx，或从备份恢复 / open it in a spreadsheet program and save it as .xlsx, or restore it",
        )


def _has_formula(xml: bytes) -> bool:
    return any(mark in xml for mark in (b"<f>", b"<f ", b":f>", b":f "))


def old_or_locked(file: File, content: bytes) -> Unreadable:
    """The error for a workbook in the container of old programs: it has a password, or it is an .xls under another name."""
    if "EncryptedPackage".encode("utf-16-le") in content:
        return Unreadable(
            "the workbook is protected by a password",
            "工作簿设有打开密码",
            todo="取消打开密码 / remove the password",
            file=file.where,
        )
    return Unreadable(
        "the workbook is of the old .xls kind, whatever its name says",
        "文件实为旧版 .xls 格式，与扩展名不符",
        todo="另存为 .xlsx；只需读取时，也可改名为 .xls / save it as .xlsx; to have it only read, name it .xls",
        file=file.where,
    )


def _faults(xml: bytes) -> dict[tuple[int, int], str]:
    """Cells that look blank but are not. The scan costs as much as the reading, so it needs a reason."""
    if b't="e"' not in xml and not _has_formula(xml):
        return {}
    found = {}
    for attributes, inner in _CELL.findall(xml):
        rule = ""
        if _ERROR.search(attributes):
            rule = "sheet:error"
        elif _FORMULA.search(inner) and not _RESULT.search(inner) and b't="str"' not in attributes:
            rule = "sheet:formula"
        at = _AT.search(attributes)
        if rule and at:
            found[int(at[2]), column_index_from_string(at[1].decode())] = rule
    return found
