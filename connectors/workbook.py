"""A workbook (xlsx, xlsm; xls to read) or delimited file (csv), for communities and towns: what people actually fill in.

It lies in a local folder, on an SFTP server or in an object store (`connectors.locations`). The file is read whole (capture `snapshot`),
so deletions are seen. A write replaces the file in one step, keeps all that is not the engine's, and is refused with Conflict if
the data moved since it was read, or with Transient while somebody has it open. Cursor and probe token cover the data (what people
mended on the sheet of returns included), not what the engine shows beside it: showing never wakes the sweep in a
file that the engine laid out; in one of people's own, the first showing adds formats, which looks like a change once. A
spreadsheet program that saves the file stores all sheets anew, their texts in one place: then a ruling may look like a change once;
the read finds nothing.

What would erase data is refused: a missing file, a missing sheet, a key, jurisdiction or own column that vanished, and, once
synced, any column. `prepare` creates the file, or adds columns that the contract gained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field as Option
from pydantic import field_validator, model_validator

from connectors import workbook_inspect
from connectors.base import Applied, Batch, Capabilities, Changes, Connector, Node, Options, Probe, changes_of, fetched
from connectors.findings import Finding
from connectors.locations import Copy, File, S3Access, SftpAccess, access_fault, file_at
from connectors.sheet import FAULTS, Edit, Header, header_of, label, lacking, raw_table
from connectors.sheet_edit import edit_of
from connectors.sheet_form import Document, Form
from connectors.sheet_form_csv import CsvForm
from connectors.sheet_form_xls import XlsForm
from connectors.sheet_form_xlsx import OWN_SHEETS, XlsxForm
from connectors.sheet_xlsx import Limits
from federation.canonical import LOCATOR, reject_schema
from federation.errors import Conflict, located

_KINDS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".xls": "xls"}


class WorkbookOptions(Options):
    """`path`: the file, on this machine, `sftp://…` or `s3://…`; `access`: who we are there (`connectors.locations`).

    `format`: default by its suffix. `encoding`: of a csv; default: as found (UTF-8, else GB18030).
    """

    path: str
    access: SftpAccess | S3Access | None = None
    format: Literal["xlsx", "csv", "xls"] | None = None
    encoding: Literal["utf-8", "utf-8-sig", "gb18030"] | None = None
    sheet: str = "数据"
    max_mb: int = Option(default=200, gt=0, description="refuse a workbook that unpacks to more")

    @field_validator("sheet")
    @classmethod
    def _of_people(cls, sheet: str) -> str:
        if sheet in OWN_SHEETS:
            raise ValueError(f"{', '.join(OWN_SHEETS)} are the engine's own sheets")
        return sheet

    @model_validator(mode="after")
    def _reachable(self) -> WorkbookOptions:
        fault = access_fault(self.path, self.access)
        if fault is not None:
            raise ValueError(fault)
        return self


class WorkbookConnector(Connector):
    """See the module."""

    options_model = WorkbookOptions

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.options = WorkbookOptions.model_validate(node.options)
        self.file = file_at(self.options.path, self.options.access)
        self._form = _form_of(node, self.file, self.options)

    @classmethod
    def watched(cls, node: Node) -> Path | None:
        path = str(node.options.get("path", ""))
        return Path(path) if path and "://" not in path else None

    @property
    def capabilities(self) -> Capabilities:
        form = self._form
        return Capabilities(
            "snapshot",
            keyed_reads=False,
            conditional=form.writes,
            returns=form.writes,
            corrections=form.corrections,
            receipts=form.writes,
            writes=form.writes,
        )

    def probe(self) -> Probe:
        content = self.file.read().content
        with located(file=self.file.where):
            return Probe(self._form.token(content), f"{self.file.name}, {len(content)} bytes")

    def inspect(self) -> Sequence[Finding]:
        with located(file=self.file.where):
            document = self._opened()
            header = header_of(document.grid, self.node)
            found, size = self._found(document, header), len(document.copy.content)
            return workbook_inspect.inspected(self.node, self.file, header, found, self.capabilities, size)

    def prepare(self) -> tuple[str, ...]:
        where = self.file.where
        with located(file=where):
            if not self.file.exists() and self.file.create(self._form.blank()):
                return (f"文件 file {where}",)
            document = self._opened()
            if not document.stored.rows:
                self._form.replace(self._form.laid_out(document), document)
                return (f"表头 header {where}",)
            header = header_of(document.stored, self.node)
            if not header.missing:
                return ()
            content = self._form.edited(document, header, Edit({}, [], frozenset(), header.missing))
            self._form.replace(content, document)
            return (f"列 columns {'、'.join(label(self.node, name) for name in header.missing)} {where}",)

    def changes(self, since: str | None, *, sweep: bool = True) -> Changes:
        with located(file=self.file.where):
            document = self._opened()
            header = header_of(document.grid, self.node)
            gone = [name for name in header.missing if since is not None or name in self.node.owned]
            if gone:
                raise lacking(document.grid, self.node, header, gone)
        return self._found(document, header)

    def _found(self, document: Document, header: Header) -> Changes:
        raw, faults = raw_table(document.grid, header, self.node, self.node.fields)
        found = changes_of(self.node, raw, present=True, cursor=document.cursor)
        found = replace(found, missing=frozenset(header.missing))
        return _distrusting(self.node, found, raw, faults) if faults else found

    def fetch(self, keys: pa.Table) -> Changes:
        return fetched(self.node, self.changes(None), keys)

    def apply(self, batch: Batch) -> Applied:
        with located(file=self.file.where):
            document = self._opened()
            if batch.cursor is not None and batch.cursor != document.cursor:
                raise Conflict(
                    "somebody saved the file after it was read; nothing was written",
                    "读取后文件已被他人保存；未写入任何内容",
                )
            header = header_of(document.stored, self.node)
            edit = edit_of(self.node, document.stored, header, batch, document.mended)
            content = self._form.edited(document, header, edit)
            self._form.replace(content, document)
            left = document if content is None else self._form.opened(Copy(content, ""))
        token = self._form.token(left.copy.content) if batch.cursor is not None else None
        return Applied(sum(rows.num_rows for rows in batch.upserts), batch.deletes.num_rows, left.cursor, token)

    def show_returns(self, returns: pa.Table) -> None:
        """Show the returns (sheet 退回待改, or a csv of that name beside a csv). Writes nothing if they are shown already.

        What people mended on that sheet is put into the data sheet first.
        """
        with located(file=self.file.where):
            self._form.show_returns(returns)

    def show_receipts(self, receipts: pa.Table) -> None:
        """Show the receipts (sheet 回执, or a csv of that name beside a csv). Writes nothing if they are shown already.

        A sheet of people's own of that name stays as it is, and no receipts are shown.
        """
        with located(file=self.file.where):
            self._form.show_receipts(receipts)

    def show_corrections(self, corrections: pa.Table) -> None:
        """Show the corrections (sheet 校核, or a csv of that name beside a csv). Writes nothing if they are shown already."""
        with located(file=self.file.where):
            self._form.show_corrections(corrections)

    def rulings(self) -> pa.Table:
        with located(file=self.file.where):
            return self._form.rulings()

    def close(self) -> None:
        self.file.folder.close()

    def _opened(self) -> Document:
        return self._form.opened(self.file.read())


def _form_of(node: Node, file: File, options: WorkbookOptions) -> Form:
    kind = options.format or _KINDS.get(file.suffix, "xlsx")
    if kind == "csv":
        return CsvForm(node, file, options.encoding)
    if kind == "xls":
        return XlsForm(node, file, options.sheet)
    return XlsxForm(node, file, options.sheet, Limits(options.max_mb))


def _distrusting(node: Node, found: Changes, raw: pa.Table, faults: dict[str, tuple[str, str]]) -> Changes:
    """Move the rows with a faulty cell to the rejects, and name the fault of those that are there already."""
    keys = list(node.dataset.key)
    bad = raw.filter(pc.is_in(raw.column(LOCATOR), pa.array(list(faults), pa.string())))
    typed = node.conform(bad)
    refused = set(typed.rejects.column("locator").to_pylist())
    places = [place for place in bad.column(LOCATOR).to_pylist() if place not in refused]
    known = typed.rows.select(keys).append_column("locator", pa.array(places, pa.string()))
    moved = known.join(found.rows.select(keys), keys, join_type="left semi")
    kept = found.rows.join(known.select(keys), keys, join_type="left anti")
    lines = [*found.rejects.to_pylist(), *moved.to_pylist()]
    rejects = [
        {**line, **_wording(node, *faults[line["locator"]])} if line["locator"] in faults else line for line in lines
    ]
    return replace(
        found,
        rows=kept.select(node.schema.names).cast(node.schema),
        rejects=pa.Table.from_pylist(rejects, reject_schema(node.dataset)),
    )


def _wording(node: Node, field: str, rule: str) -> dict[str, str | None]:
    zh, en = FAULTS[rule]
    return {
        "field": field,
        "value": None,
        "rule": rule,
        "reason_zh": f"“{node.dataset.fields[field].label}”{zh}",
        "reason_en": f"{field} {en}",
    }
