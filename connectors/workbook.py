"""A workbook (xlsx) or delimited file (csv) in a folder, for communities and towns: what people actually fill in.

The file is read whole (capture `snapshot`), so deletions are seen. A write replaces the file in one step, keeps all that is not
the engine's, and is refused with Conflict if the data moved since it was read, or with Transient while somebody has it open.
Cursor and probe token cover the data, not the returns and corrections shown beside it: showing them never wakes the sweep in a
file that the engine laid out. A spreadsheet program that saves the file stores all sheets anew, their texts in one place: then a
ruling, and the engine's next writing, may each look like a change once; the read finds nothing.

What would erase data is refused: a missing file, a missing sheet, a key, jurisdiction or own column that vanished, and, once
synced, any column. `prepare` creates the file, or adds columns that the contract gained.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field as Option
from pydantic import field_validator

from connectors import files, sheet_csv, sheet_desk, sheet_xlsx, sheet_xlsx_write
from connectors.base import (
    RULINGS,
    Applied,
    Batch,
    Capabilities,
    Changes,
    Connector,
    Node,
    Options,
    Probe,
    changes_of,
    fetched,
)
from connectors.desk import told
from connectors.sheet import (
    FAULTS,
    RETURN_HEADERS,
    RETURNS,
    Edit,
    Grid,
    Header,
    Value,
    cell_values,
    header_of,
    label,
    lacking,
    raw_table,
)
from federation import canonical
from federation.canonical import LOCATOR, key_column, reject_schema
from federation.errors import Conflict, SchemaMismatch, located


class WorkbookOptions(Options):
    """`path`: the file. `format`: default by its suffix. `encoding`: of a csv; default: as found (UTF-8, else GB18030)."""

    path: Path
    format: Literal["xlsx", "csv"] | None = None
    encoding: Literal["utf-8", "utf-8-sig", "gb18030"] | None = None
    sheet: str = "数据"
    max_mb: int = Option(default=200, gt=0, description="refuse a workbook that unpacks to more")

    @field_validator("sheet")
    @classmethod
    def _of_people(cls, sheet: str) -> str:
        if sheet in (RETURNS, sheet_desk.TITLE):
            raise ValueError(f"{RETURNS} and {sheet_desk.TITLE} are the engine's own sheets")
        return sheet


@dataclass(frozen=True)
class _Document:
    """One reading of the file. `cursor`: token of its data."""

    content: bytes
    grid: Grid
    cursor: str


class WorkbookConnector(Connector):
    """See the module."""

    options_model = WorkbookOptions

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.options = WorkbookOptions.model_validate(node.options)
        self.path = self.options.path
        csv = self.options.format == "csv" or (
            self.options.format is None and self.path.suffix.lower() in (".csv", ".tsv", ".txt")
        )
        self._form: _Form = _Csv(node, self.options) if csv else _Xlsx(node, self.options)

    @property
    def capabilities(self) -> Capabilities:
        corrections = self._form.corrections
        return Capabilities("snapshot", keyed_reads=False, conditional=True, returns=True, corrections=corrections)

    def probe(self) -> Probe:
        content = files.read(self.path)
        with located(file=self.path):
            return Probe(self._form.token(content), f"{self.path.name}, {len(content)} bytes")

    def prepare(self) -> None:
        with located(file=self.path):
            if not self.path.exists() and files.create(self.path, self._form.blank()):
                return
            document = self._opened()
            if not document.grid.rows:
                self._replace(self._form.laid_out(document), document)
                return
            header = header_of(document.grid, self.node)
            if header.missing:
                self._replace(self._form.edited(document, header, Edit({}, [], frozenset(), header.missing)), document)

    def changes(self, since: str | None, *, sweep: bool = True) -> Changes:
        with located(file=self.path):
            document = self._opened()
            header = header_of(document.grid, self.node)
            gone = [name for name in header.missing if since is not None or name in self.node.owned]
            if gone:
                raise lacking(document.grid, self.node, header, gone)
        raw, faults = raw_table(document.grid, header, self.node, self.node.fields)
        found = changes_of(self.node, raw, present=True, cursor=document.cursor)
        found = replace(found, missing=frozenset(header.missing))
        return _distrusting(self.node, found, raw, faults) if faults else found

    def fetch(self, keys: pa.Table) -> Changes:
        return fetched(self.node, self.changes(None), keys)

    def apply(self, batch: Batch) -> Applied:
        with located(file=self.path):
            document = self._opened()
            if batch.cursor is not None and batch.cursor != document.cursor:
                raise Conflict(
                    "somebody saved the file after it was read; nothing was written",
                    "读取后文件已被他人保存；未写入任何内容",
                )
            header = header_of(document.grid, self.node)
            edit = _edit_of(self.node, document.grid, header, batch)
            content = self._form.edited(document, header, edit)
            self._replace(content, document)
            left = document if content is None else self._form.opened(content)
        token = self._form.token(left.content) if batch.cursor is not None else None
        return Applied(sum(rows.num_rows for rows in batch.upserts), batch.deletes.num_rows, left.cursor, token)

    def notify(self, returns: pa.Table) -> None:
        """Show the returns (sheet 退回待改, or a csv of that name beside a csv). Writes nothing if they are shown already."""
        with located(file=self.path):
            self._form.notify(self, _return_rows(self.node, returns))

    def show_corrections(self, corrections: pa.Table) -> None:
        """Show the corrections (sheet 校核, xlsx only). Writes nothing if they are shown already."""
        with located(file=self.path):
            self._form.show(self, corrections)

    def rulings(self) -> pa.Table:
        with located(file=self.path):
            return self._form.rulings()

    def _opened(self) -> _Document:
        return self._form.opened(files.read(self.path))

    def _replace(self, content: bytes | None, document: _Document) -> None:
        if content is not None:
            files.refuse_if_open(self.path)
            files.replace(self.path, content, document.content)


class _Form(ABC):
    """What differs between the file formats."""

    corrections = False
    """Whether it has room for a desk where people rule."""

    def __init__(self, node: Node, options: WorkbookOptions) -> None:
        self.node = node
        self.options = options

    @abstractmethod
    def token(self, content: bytes) -> str: ...

    @abstractmethod
    def opened(self, content: bytes) -> _Document: ...

    @abstractmethod
    def blank(self) -> bytes: ...

    @abstractmethod
    def laid_out(self, document: _Document) -> bytes: ...

    @abstractmethod
    def edited(self, document: _Document, header: Header, edit: Edit) -> bytes | None: ...

    @abstractmethod
    def notify(self, connector: WorkbookConnector, rows: list[list[str]]) -> None: ...

    def show(self, connector: WorkbookConnector, corrections: pa.Table) -> None:
        raise NotImplementedError

    def rulings(self) -> pa.Table:
        return RULINGS.empty_table()


class _Xlsx(_Form):
    corrections = True

    def _package(self, content: bytes) -> sheet_xlsx.Package:
        return sheet_xlsx.Package(self.options.path, content, self.options.max_mb << 20)

    def token(self, content: bytes) -> str:
        return self._package(content).token(self.options.sheet)

    def opened(self, content: bytes) -> _Document:
        package = self._package(content)
        cursor = package.cursor(self.options.sheet)
        return _Document(content, package.grid(self.options.sheet), cursor)

    def blank(self) -> bytes:
        return sheet_xlsx_write.blank(self.node, self.options.sheet)

    def laid_out(self, document: _Document) -> bytes:
        return sheet_xlsx_write.laid_out(self.options.path, document.content, self.node, self.options.sheet)

    def edited(self, document: _Document, header: Header, edit: Edit) -> bytes | None:
        return sheet_xlsx_write.edited(self.options.path, document.content, document.grid, header, self.node, edit)

    def notify(self, connector: WorkbookConnector, rows: list[list[str]]) -> None:
        document = connector._opened()
        package = self._package(document.content)
        shown = package.grid(RETURNS).rows if RETURNS in package.sheets else []
        if [[cell or "" for cell in row] for row in shown] == rows:
            return
        header = header_of(document.grid, self.node)
        content = sheet_xlsx_write.with_returns(
            self.options.path, document.content, document.grid, header, self.node, rows
        )
        connector._replace(content, document)

    def show(self, connector: WorkbookConnector, corrections: pa.Table) -> None:
        document = connector._opened()
        package = self._package(document.content)
        wanted, there = sheet_desk.lines_of(self.node, corrections), sheet_desk.TITLE in package.sheets
        try:
            shown = self._desk(package)
        except SchemaMismatch:
            if not wanted:  # a sheet of people's own, which merely has the name
                return
            raise
        if shown.lines == wanted and shown.sound and there == bool(wanted):
            return
        fill = partial(sheet_desk.fill, self.node, wanted, shown.written) if wanted else None
        header = header_of(document.grid, self.node)
        content = sheet_xlsx_write.with_sheet(
            self.options.path, document.content, document.grid, header, sheet_desk.TITLE, fill
        )
        connector._replace(content, document)

    def rulings(self) -> pa.Table:
        return told(self._desk(self._package(files.read(self.options.path))).rulings)

    def _desk(self, package: sheet_xlsx.Package) -> sheet_desk.Shown:
        there = sheet_desk.TITLE in package.sheets
        return sheet_desk.read(self.node, package.grid(sheet_desk.TITLE)) if there else sheet_desk.NOTHING


class _Csv(_Form):
    def token(self, content: bytes) -> str:
        return files.sha256(content)

    def _read(self, content: bytes) -> sheet_csv.Opened:
        return sheet_csv.opened(self.options.path, content, self.options.encoding)

    def opened(self, content: bytes) -> _Document:
        grid = self._read(content).grid
        if grid.rows:
            grid = sheet_csv.disarmed(grid, header_of(grid, self.node), self.node)
        return _Document(content, grid, files.sha256(content))

    def blank(self) -> bytes:
        delimiter = "\t" if self.options.path.suffix.lower() == ".tsv" else ","
        return sheet_csv.blank(self.node, sheet_csv.Dialect(self.options.encoding or "utf-8-sig", delimiter))

    def laid_out(self, document: _Document) -> bytes:
        return self.blank()

    def edited(self, document: _Document, header: Header, edit: Edit) -> bytes | None:
        return sheet_csv.edited(self._read(document.content), header, self.node, edit)

    def notify(self, connector: WorkbookConnector, rows: list[list[str]]) -> None:
        beside = self.options.path.with_name(f"{self.options.path.stem}.{RETURNS}.csv")
        shown = files.read(beside) if beside.exists() else None
        content = sheet_csv.table(rows) if rows else None
        if content == shown:
            return
        files.refuse_if_open(beside)
        if content is None:
            files.remove(beside)
        else:
            files.replace(beside, content, shown)


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


def _edit_of(node: Node, grid: Grid, header: Header, batch: Batch) -> Edit:
    """Decide which rows change, which are new and which go. A key that stands in several rows means all of them."""
    rows_of = _rows_by_key(node, grid, header)
    updates: dict[int, dict[str, Value]] = {}
    appends: list[dict[str, Value]] = []
    for rows in batch.upserts:
        columns = cell_values(rows, node)
        names = list(columns)
        for key, values in zip(key_column(rows, node.dataset).to_pylist(), zip(*columns.values())):
            row = dict(zip(names, values))
            if key not in rows_of:
                appends.append(row)
            for number in rows_of.get(key, ()):
                updates[number] = {name: value for name, value in row.items() if name not in node.dataset.key}
    gone = key_column(batch.deletes, node.dataset).to_pylist()
    deletes = frozenset(number for key in gone for number in rows_of.get(key, ()))
    return Edit(updates, appends, deletes, header.missing)


def _rows_by_key(node: Node, grid: Grid, header: Header) -> dict[str, list[int]]:
    """Key → the numbers of the rows that hold it."""
    raw, _ = raw_table(grid, header, node, node.fields)
    numbers = {grid.place(grid.number(index)): grid.number(index) for index in range(len(grid.rows))}
    keys = list(node.dataset.key)
    typed = canonical.conform(raw.select([*keys, LOCATOR]), node.dataset, keys, timezone=node.timezone)
    known = typed.rejects
    for name in keys:
        known = known.filter(known.column(name).is_valid())
    refused = set(typed.rejects.column("locator").to_pylist())
    places = [place for place in raw.column(LOCATOR).to_pylist() if place not in refused]
    found: dict[str, list[int]] = {}
    for table, where in ((typed.rows, places), (known, known.column("locator").to_pylist())):
        for key, place in zip(key_column(table, node.dataset).to_pylist(), where):
            found.setdefault(key, []).append(numbers[place])
    return found


def _return_rows(node: Node, returns: pa.Table) -> list[list[str]]:
    """The returns as people see them, header first; nothing at all if there are none."""
    if not returns.num_rows:
        return []
    keys = list(node.dataset.key)
    columns = cell_values(returns.select(keys), node)
    rows = [[*(label(node, name) for name in keys), *RETURN_HEADERS]]
    for at, line in enumerate(returns.to_pylist()):
        spec = node.dataset.fields.get(line["field"] or "")
        field = spec.label if spec else line["field"]
        texts = [columns[name][at] for name in keys] + [line["locator"], field]
        texts += [line[name] for name in ("value", "reason_zh", "reason_en")]
        rows.append(["" if text is None else str(text) for text in texts])
    return rows
