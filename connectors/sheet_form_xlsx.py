"""The form of an xlsx or xlsm workbook: the data sheet that people keep, and the engine's sheets 退回待改, 校核 and 回执 beside it."""

from __future__ import annotations

import pyarrow as pa

from connectors import sheet_desk, sheet_receipts, sheet_returns, sheet_xlsx_write
from connectors.base import Node
from connectors.desk import told
from connectors.locations import Copy, File
from connectors.sheet import Edit, Grid, Header, header_of
from connectors.sheet_armour import disarmed
from connectors.sheet_form import Document, Form
from connectors.sheet_xlsx import Limits, Package
from connectors.xlsx_page import Page

OWN_SHEETS = (sheet_returns.TITLE, sheet_desk.TITLE, sheet_receipts.TITLE)
"""The engine's sheets."""


class XlsxForm(Form):
    """See the module. `sheet`: name of the data sheet."""

    corrections = True

    def __init__(self, node: Node, file: File, sheet: str, limits: Limits) -> None:
        super().__init__(node, file)
        self.sheet = sheet
        self.limits = limits

    def _package(self, content: bytes) -> Package:
        return Package(self.file, content, self.limits)

    def token(self, content: bytes) -> str:
        package = self._package(content)
        return sheet_returns.marked(package.token(self.sheet), self._returns(package))

    def opened(self, copy: Copy) -> Document:
        package = self._package(copy.content)
        returns = self._returns(package)
        cursor = sheet_returns.marked(package.cursor(self.sheet), returns)
        stored = disarmed(package.grid(self.sheet), self.node)
        if returns is None or not returns.mends:
            return Document(copy, stored, stored, cursor)
        grid, mended = sheet_returns.mended(self.node, stored, header_of(stored, self.node), returns.mends)
        return Document(copy, stored, grid, cursor, mended)

    def blank(self) -> bytes:
        return sheet_xlsx_write.blank(self.node, self.sheet)

    def laid_out(self, document: Document) -> bytes:
        return sheet_xlsx_write.laid_out(self._package(document.copy.content), self.node, self.sheet)

    def edited(self, document: Document, header: Header, edit: Edit) -> bytes | None:
        package = self._package(document.copy.content)
        return sheet_xlsx_write.edited(package, document.stored, header, self.node, edit)

    def _returns(self, package: Package) -> sheet_returns.Shown | None:
        """The sheet of returns; None if there is none, or it is people's own."""
        there = sheet_returns.TITLE in package.sheets
        return sheet_returns.read(self.node, package.grid(sheet_returns.TITLE)) if there else None

    def show_returns(self, returns: pa.Table) -> None:
        copy = self.file.read()
        package = self._package(copy.content)
        lines, shown = sheet_returns.lines_of(self.node, returns), self._returns(package)
        if shown is None and sheet_returns.TITLE in package.sheets:
            if lines:
                raise sheet_returns.alien()
            return  # a sheet of people's own, which merely has the name
        if (shown.lines if shown else []) == lines and not (shown and shown.mends):
            return
        document = self.opened(copy)
        content = self._landed(document) or copy.content
        self._show(document, content, sheet_returns.TITLE, sheet_returns.page(self.node, lines))

    def _landed(self, document: Document) -> bytes | None:
        """The workbook with what people mended put into the data sheet; None if they mended nothing."""
        if not document.mended:
            return None
        return self.edited(document, header_of(document.stored, self.node), Edit(document.mended, [], frozenset()))

    def show_corrections(self, corrections: pa.Table) -> None:
        copy = self.file.read()
        due, page = sheet_desk.renewed(self.node, self._desk(self._package(copy.content)), corrections)
        if due:
            self._show(self.opened(copy), copy.content, sheet_desk.TITLE, page)

    def show_receipts(self, receipts: pa.Table) -> None:
        copy = self.file.read()
        package = self._package(copy.content)
        lines, there = sheet_receipts.lines_of(self.node, receipts), sheet_receipts.TITLE in package.sheets
        shown = sheet_receipts.read(package.grid(sheet_receipts.TITLE)) if there else []
        if (
            shown is None or shown == lines
        ):  # a sheet of people's own keeps its name: there is nothing that they must act on
            return
        self._show(self.opened(copy), copy.content, sheet_receipts.TITLE, sheet_receipts.page(lines))

    def _show(self, document: Document, content: bytes, title: str, page: Page | None) -> None:
        package = self._package(content)
        if page is None and title not in package.sheets:
            return
        header = header_of(document.stored, self.node)
        self.replace(sheet_xlsx_write.paged(package, document.stored, header, title, page), document)

    def rulings(self) -> pa.Table:
        return told(sheet_desk.read(self.node, self._desk(self._package(self.file.read().content))).rulings)

    def _desk(self, package: Package) -> Grid | None:
        return package.grid(sheet_desk.TITLE) if sheet_desk.TITLE in package.sheets else None
