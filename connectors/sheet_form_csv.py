"""The form of a delimited file. Returns, corrections and receipts stand in files of those names beside it.

On the file of corrections people rule, on that of returns they write the right value under 改为, as on the sheets of a workbook. All are
written in UTF-8 with a mark, which programs guess right, and read in whichever encoding a program saved them.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from connectors import sheet_csv, sheet_desk, sheet_receipts, sheet_returns
from connectors.base import Node
from connectors.desk import told
from connectors.files import saved_by_somebody, sha256
from connectors.locations import Copy, File
from connectors.sheet import Edit, Grid, Header, header_of
from connectors.sheet_armour import disarmed
from connectors.sheet_form import Document, Form
from federation.errors import located


class CsvForm(Form):
    """See the module. `encoding`: as declared; None: as found."""

    corrections = True

    def __init__(self, node: Node, file: File, encoding: str | None) -> None:
        super().__init__(node, file)
        self.encoding = encoding

    def token(self, content: bytes) -> str:
        return sheet_returns.marked(sha256(content), self._shown(self._copy(sheet_returns.TITLE)))

    def _read(self, content: bytes) -> sheet_csv.Opened:
        return sheet_csv.opened(self.file, content, self.encoding)

    def opened(self, copy: Copy) -> Document:
        stored = disarmed(self._read(copy.content).grid, self.node, sheet_csv.is_armoured)
        shown = self._shown(self._copy(sheet_returns.TITLE))
        cursor = sheet_returns.marked(sha256(copy.content), shown)
        if shown is None or not shown.mends or not stored.rows:
            return Document(copy, stored, stored, cursor)
        grid, mended = sheet_returns.mended(self.node, stored, header_of(stored, self.node), shown.mends)
        return Document(copy, stored, grid, cursor, mended)

    def _shown(self, copy: Copy | None) -> sheet_returns.Shown | None:
        grid = self._grid(sheet_returns.TITLE, copy)
        return None if grid is None else sheet_returns.read(self.node, grid)

    def blank(self) -> bytes:
        delimiter = "\t" if self.file.suffix == ".tsv" else ","
        return sheet_csv.blank(self.node, sheet_csv.Dialect(self.encoding or "utf-8-sig", delimiter))

    def laid_out(self, document: Document) -> bytes:
        return self.blank()

    def edited(self, document: Document, header: Header, edit: Edit) -> bytes | None:
        return sheet_csv.edited(self._read(document.copy.content), header, self.node, edit)

    def show_returns(self, returns: pa.Table) -> None:
        """What people mended goes into the data first."""
        there, lines = self._copy(sheet_returns.TITLE), sheet_returns.lines_of(self.node, returns)
        shown = self._shown(there)
        if there is not None and shown is None:
            if lines:
                raise sheet_returns.alien().at(file=self._named(sheet_returns.TITLE).where)
            return  # a file of people's own, which merely has the name
        if shown is not None and shown.mends:
            document = self.opened(self.file.read())
            if document.mended:
                edit = Edit(document.mended, [], frozenset())
                self.replace(self.edited(document, header_of(document.stored, self.node), edit), document)
        self._beside(sheet_returns.TITLE, sheet_returns.table_of(self.node, lines), there)

    def show_corrections(self, corrections: pa.Table) -> None:
        with located(file=self._named(sheet_desk.TITLE).where):
            there = self._copy(sheet_desk.TITLE)
            due, page = sheet_desk.renewed(self.node, self._grid(sheet_desk.TITLE, there), corrections)
            if due:
                self._beside(sheet_desk.TITLE, [page.header, *page.rows] if page else [], there)

    def rulings(self) -> pa.Table:
        with located(file=self._named(sheet_desk.TITLE).where):
            grid = self._grid(sheet_desk.TITLE, self._copy(sheet_desk.TITLE))
            return told(sheet_desk.read(self.node, grid).rulings)

    def show_receipts(self, receipts: pa.Table) -> None:
        there = self._copy(sheet_receipts.TITLE)
        grid = self._grid(sheet_receipts.TITLE, there)
        if grid is not None and sheet_receipts.read(grid) is None:
            return  # a file of people's own keeps its name: there is nothing that they must act on
        self._beside(sheet_receipts.TITLE, sheet_receipts.lines_of(self.node, receipts), there)

    def _named(self, title: str) -> File:
        """The file `<name>.<title>.csv` beside this one."""
        return self.file.beside(f"{self.file.stem}.{title}.csv")

    def _copy(self, title: str) -> Copy | None:
        """What stands beside under this title; None if nothing does."""
        beside = self._named(title)
        return beside.read() if beside.exists() else None

    def _grid(self, title: str, copy: Copy | None) -> Grid | None:
        """The cells of a copy of that file, as meant."""
        return None if copy is None else sheet_csv.bare(sheet_csv.opened(self._named(title), copy.content, None).grid)

    def _beside(self, title: str, rows: Sequence[Sequence[str]], shown: Copy | None) -> None:
        """Let the file of this title, as it was read, hold these rows; let there be none if there are none."""
        beside = self._named(title)
        content = sheet_csv.table(rows) if rows else None
        if content == (shown and shown.content):
            return
        beside.refuse_if_open()
        if content is not None:
            beside.replace(content, shown)
        elif (now := self._copy(title)) is not None:
            if shown is None or now.content != shown.content:
                raise saved_by_somebody(beside.where)
            beside.remove()
