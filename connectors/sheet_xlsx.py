"""Reading xlsx workbooks, fast and suspicious.

`Package` opens the zip within limits, finds the parts of a sheet and says whether the sheet's data may have changed: its tokens
cover the sheet, the shared texts and the formats, not the other sheets, so that showing returns does not wake the sweep.
Cells are read by calamine (25 times faster than openpyxl); what it shows as blank although something stands there (a formula
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
from pathlib import Path
from xml.etree import ElementTree

from openpyxl.utils import column_index_from_string
from python_calamine import CalamineError, CalamineWorkbook

from connectors.files import broken, sha256
from connectors.sheet import Grid, Value
from federation.errors import ConnectorError, SchemaMismatch, Unreadable

_CELL = re.compile(rb"<(?:\w+:)?c\b([^>]*?)(?:/>|>(.*?)</(?:\w+:)?c>)", re.DOTALL)
_AT = re.compile(rb'\br="([A-Z]{1,3})([0-9]+)"')
_ERROR = re.compile(rb'\bt="e"')
_FORMULA = re.compile(rb"<(?:\w+:)?f[ />]")
_RESULT = re.compile(rb"<(?:\w+:)?v(?: [^>]*)?>[^<]")
_OLE = b"\xd0\xcf\x11\xe0"
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    KeyError,
    ElementTree.ParseError,
)


@dataclass(frozen=True)
class Package:
    """The bytes of a workbook. `max_bytes`: refuse to unpack more than this. Every method may raise Transient or Unreadable."""

    path: Path
    content: bytes
    max_bytes: int

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        if self.content.startswith(_OLE):
            raise Unreadable(
                "the workbook is protected by a password, or of the old .xls kind",
                "工作簿设有打开密码，或为旧版 .xls 格式",
                todo="取消打开密码并另存为 .xlsx / remove the password and save it as .xlsx",
                file=self.path,
            )
        try:
            package = zipfile.ZipFile(io.BytesIO(self.content))
        except _DAMAGE as cause:
            raise self._broken() from cause
        size = sum(entry.file_size for entry in package.infolist())
        if size > self.max_bytes:
            raise Unreadable(
                f"the workbook unpacks to {size >> 20} MB, more than the limit of {self.max_bytes >> 20} MB",
                f"工作簿解压后 {size >> 20} MB，超过上限 {self.max_bytes >> 20} MB",
                todo="删去多余的行、工作表与图片，或调高 max_mb / delete surplus rows, sheets and pictures, or raise max_mb",
                file=self.path,
            )
        return package

    @cached_property
    def sheets(self) -> dict[str, str]:
        """Sheet name → part, in the workbook's order."""
        try:
            book = ElementTree.fromstring(self._part("xl/workbook.xml"))
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

    def _token_parts(self, sheet: str) -> list[str]:
        parts = [self._of(sheet), "xl/sharedStrings.xml", "xl/styles.xml"]
        return [part for part in parts if part in self._zip.NameToInfo]

    def token(self, sheet: str) -> str:
        """Cheap: from the checksums in the zip's directory."""
        entries = [self._zip.getinfo(part) for part in self._token_parts(sheet)]
        return sha256(*(f"{entry.filename} {entry.CRC} {entry.file_size}".encode() for entry in entries))

    def cursor(self, sheet: str) -> str:
        """Strong: from the parts themselves."""
        try:
            return sha256(*(self._part(part) for part in self._token_parts(sheet)))
        except _DAMAGE as cause:
            raise self._broken() from cause

    def grid(self, sheet: str) -> Grid:
        """The cells of a sheet; raises SchemaMismatch if there is none of that name."""
        part = self._of(sheet)
        try:
            xml = self._part(part)  # also proves the checksum, before another reader unpacks it
            with CalamineWorkbook.from_filelike(io.BytesIO(self.content)) as book:
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
                file=self.path,
            ) from None

    def _part(self, name: str) -> bytes:
        content = self._zip.read(name)
        if b"<!DOCTYPE" in content[:4096]:
            raise zipfile.BadZipFile(f"{name} declares a document type")
        return content

    def _broken(self) -> ConnectorError:
        return broken(
            self.path,
            "the file is not a whole xlsx workbook (cut off or damaged)",
            "不是完整的 xlsx 工作簿（被截断或已损坏）",
            "用表格软件打开并另存为 .xlsx，或从备份恢复 / open it in a spreadsheet program and save it as .xlsx, or restore it",
        )


def _faults(xml: bytes) -> dict[tuple[int, int], str]:
    """Cells that look blank but are not. The scan costs as much as the reading, so it needs a reason."""
    if not _ERROR.search(xml) and not _FORMULA.search(xml):
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
