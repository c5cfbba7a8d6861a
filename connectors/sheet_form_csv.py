"""The form of a delimited file. Returns and receipts stand in files of those names beside it; there is no desk to rule on.

On the file of returns people write the right value under 改为, as on the sheet of a workbook. A value that their program made into 1.4E+10
is not taken: its digits are lost.
"""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from connectors import sheet_csv, sheet_receipts, sheet_returns
from connectors.base import Node
from connectors.files import sha256
from connectors.locations import Copy, File
from connectors.sheet import Edit, Grid, Header, header_of
from connectors.sheet_form import Document, Form


class CsvForm(Form):
    """See the module. `encoding`: as declared; None: as found."""

    def __init__(self, node: Node, file: File, encoding: str | None) -> None:
        super().__init__(node, file)
        self.encoding = encoding

    def token(self, content: bytes) -> str:
        return sheet_returns.marked(sha256(content), self._shown(self._returns()))

    def _read(self, content: bytes) -> sheet_csv.Opened:
        return sheet_csv.opened(self.file, content, self.encoding)

    def opened(self, copy: Copy) -> Document:
        grid = self._read(copy.content).grid
        if grid.rows:
            grid = sheet_csv.disarmed(grid, header_of(grid, self.node), self.node)
        return self._mended(copy, grid, self._shown(self._returns()))

    def _mended(self, copy: Copy, grid: Grid, shown: sheet_returns.Shown | None) -> Document:
        cursor = sheet_returns.marked(sha256(copy.content), shown)
        if shown is None or not shown.mends or not grid.rows:
            return Document(copy, grid, grid, cursor)
        changed, written = sheet_returns.mended(self.node, grid, header_of(grid, self.node), shown.mends)
        return Document(copy, grid, changed, cursor, written)

    def _returns(self) -> Copy | None:
        """The file of returns beside this one."""
        beside = self._named(sheet_returns.TITLE)
        return beside.read() if beside.exists() else None

    def _shown(self, copy: Copy | None) -> sheet_returns.Shown | None:
        if copy is None:
            return None
        grid = sheet_csv.opened(self._named(sheet_returns.TITLE), copy.content, None).grid
        shown = sheet_returns.read(self.node, sheet_csv.bare(grid))
        if shown is None:
            return None
        return replace(shown, mends=tuple(mend for mend in shown.mends if not sheet_csv.is_rounded(mend.value)))

    def blank(self) -> bytes:
        delimiter = "\t" if self.file.suffix == ".tsv" else ","
        return sheet_csv.blank(self.node, sheet_csv.Dialect(self.encoding or "utf-8-sig", delimiter))

    def laid_out(self, document: Document) -> bytes:
        return self.blank()

    def edited(self, document: Document, header: Header, edit: Edit) -> bytes | None:
        return sheet_csv.edited(self._read(document.copy.content), header, self.node, edit)

    def show_returns(self, returns: pa.Table) -> None:
        """What people mended goes into the data first."""
        there = self._returns()
        if (shown := self._shown(there)) is not None and shown.mends:
            document = self.opened(self.file.read())
            if document.mended:
                edit = Edit(document.mended, [], frozenset())
                self.replace(self.edited(document, header_of(document.stored, self.node), edit), document)
        rows = sheet_returns.table_of(self.node, sheet_returns.lines_of(self.node, returns))
        self._beside(sheet_returns.TITLE, rows, there)

    def show_receipts(self, receipts: pa.Table) -> None:
        beside = self._named(sheet_receipts.TITLE)
        there = beside.read() if beside.exists() else None
        self._beside(sheet_receipts.TITLE, sheet_receipts.lines_of(self.node, receipts), there)

    def _named(self, title: str) -> File:
        return self.file.beside(f"{self.file.stem}.{title}.csv")

    def _beside(self, title: str, rows: list[list[str]], shown: Copy | None) -> None:
        """Let the file `<name>.<title>.csv`, as it was read, hold these rows; let there be none if there are none."""
        beside = self._named(title)
        content = sheet_csv.table(rows) if rows else None
        if content == (shown and shown.content):
            return
        beside.refuse_if_open()
        if content is None:
            beside.remove()
        else:
            beside.replace(content, shown)
