"""The form of an old `.xls` workbook: read like any other; never written, since nothing that is well kept can write it truly.

What people enter goes up. What is to come down cannot be delivered: the run says so, and asks to save the workbook as .xlsx.
"""

from __future__ import annotations

import io

import pyarrow as pa
from python_calamine import CalamineError, CalamineWorkbook

from connectors.base import Node
from connectors.files import sha256
from connectors.locations import Copy, File
from connectors.sheet import Edit, Grid, Header, Value
from connectors.sheet_armour import disarmed
from connectors.sheet_form import Document, Form
from connectors.sheet_xlsx import OLE, old_or_locked
from federation.errors import Permanent, SchemaMismatch, Unreadable


class XlsForm(Form):
    """See the module. `sheet`: name of the data sheet."""

    writes = False

    def __init__(self, node: Node, file: File, sheet: str) -> None:
        super().__init__(node, file)
        self.sheet = sheet

    def token(self, content: bytes) -> str:
        return sha256(content)

    def opened(self, copy: Copy) -> Document:
        if not copy.content.startswith(OLE):
            raise self._other(copy.content)
        try:
            with CalamineWorkbook.from_filelike(io.BytesIO(copy.content)) as book:
                if self.sheet not in book.sheet_names:
                    raise self._no_sheet(book.sheet_names)
                found = book.get_sheet_by_name(self.sheet)
                top, left = found.start or (0, 0)
                rows = found.to_python(skip_empty_area=True)
        except CalamineError as cause:
            if "EncryptedPackage".encode("utf-16-le") in copy.content or "password" in str(cause).lower():
                raise old_or_locked(self.file, "EncryptedPackage".encode("utf-16-le")) from cause
            raise self.file.broken(
                f"the file is not a whole .xls workbook ({cause})",
                "不是完整的 .xls 工作簿（被截断或已损坏）",
                "用表格软件打开并另存为 .xlsx / open it in a spreadsheet program and save it as .xlsx",
            ) from cause
        cells: list[list[Value]] = [[None if cell == "" else cell for cell in row] for row in rows]
        grid = disarmed(Grid(cells, top + 1, left + 1, self.sheet), self.node)
        return Document(copy, grid, grid, sha256(copy.content))

    def _other(self, content: bytes) -> Exception:
        if content.startswith(b"PK"):
            en, zh, todo = "is an .xlsx under another name", "实为 .xlsx 格式", "改扩展名为 .xlsx / name it .xlsx"
        elif content.lstrip().startswith(b"<"):
            en, zh = "is a web page under another name", "实为网页（其他系统导出）"
            todo = "用表格软件打开并另存为 .xlsx / open it in a spreadsheet program and save it as .xlsx"
        else:
            return self.file.broken(
                "the file is no .xls workbook", "不是 .xls 工作簿", "另存为 .xlsx / save it as .xlsx"
            )
        return Unreadable(f"the file {en}", f"文件{zh}，与扩展名不符", todo=todo, file=self.file.where)

    def _no_sheet(self, names: list[str]) -> SchemaMismatch:
        known = "、".join(names)
        return SchemaMismatch(
            f"the workbook has no sheet “{self.sheet}”; it has: {known}",
            f"没有工作表“{self.sheet}”；现有：{known}",
            todo="恢复工作表名称，或改正选项 sheet / give the sheet its name back, or mend the option `sheet`",
            file=self.file.where,
        )

    def blank(self) -> bytes:
        raise self._read_only()

    def laid_out(self, document: Document) -> bytes:
        raise self._read_only()

    def edited(self, document: Document, header: Header, edit: Edit) -> bytes | None:
        if edit.updates or edit.appends or edit.deletes:
            raise self._read_only()
        return None

    def show_returns(self, returns: pa.Table) -> None:
        """There is no place for them."""

    def show_receipts(self, receipts: pa.Table) -> None:
        """There is no place for them."""

    def _read_only(self) -> Permanent:
        return Permanent(
            "an old .xls workbook is read, but cannot be written",
            "旧版 .xls 工作簿只能读取，不能写入",
            todo="用表格软件另存为 .xlsx，并改正选项 path / save it as .xlsx with a spreadsheet program, and mend the option `path`",
            file=self.file.where,
        )
