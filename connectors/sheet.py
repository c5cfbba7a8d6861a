"""A sheet as people keep it, whichever file holds it: headers, cells, and what to write into them.

Reading: the header row is the first of the leading rows that names the key and the jurisdiction (a title above it is fine, and so
are merged titles of groups, over columns named one row lower). Columns stand in any order, and a header may be the contract's
label, the node's own name or the field's, with notes of how to fill it in (姓名*, 姓名（必填）). Rows without any value in the contract's columns are no rows. Writing is decided
here as an `Edit` and done by `sheet_xlsx_write` or `sheet_csv`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from connectors.base import Node
from federation.canonical import LOCATOR
from federation.contract import FieldSpec
from federation.errors import SchemaMismatch

Value = str | int | float | bool | Decimal | date | datetime | time | timedelta | None
"""What a cell holds, or what is to be written into one. A datetime is local time of the node, without a zone."""

_HEADER_ROWS = 10
_NOTE = re.compile(r"^[(\[【]([^()\[\]【】]+)[)\]】]|[(\[【]([^()\[\]【】]+)[)\]】]$")
_HOW = re.compile(
    "必填|选填|必须|可选|不填|填写$|格式|示例|例如|[例如]:|yyyy|年月日|^1[0-9]位|单选|多选|下拉|请勿|required|optional|mandatory"
)
"""How a column is to be filled in, and not which column it is: 姓名（配偶） and 租金（万元） are others than 姓名 and 租金."""

FAULTS = {
    "sheet:formula": ("公式没有计算结果", "is a formula without a result"),
    "sheet:error": ("是错误值（如 #N/A）", "is an error value such as #N/A"),
    "sheet:rounded": (
        "是被表格软件舍入的长数字，后几位已丢失；请设为文本格式后重新填写",
        "is a long number that the spreadsheet rounded; make the cell text and type it again",
    ),
}
"""Rules for cells that hold something, but nothing that can be trusted: (zh, en)."""


@dataclass(frozen=True)
class Grid:
    """The cells of a sheet. `first`, `left`: the row and column number (from 1) of `rows[0][0]`; `sheet`: its name, "" in a csv.

    `faults`: (row, column) → rule of `FAULTS`, for cells whose value is not to be believed. `lines`: row numbers, where they
    do not simply count up from `first` (a csv whose cells hold line breaks).
    """

    rows: list[list[Value]]
    first: int = 1
    left: int = 1
    sheet: str = ""
    faults: dict[tuple[int, int], str] = field(default_factory=dict)
    lines: list[int] | None = None

    def number(self, index: int) -> int:
        """The row number, from 1, of `rows[index]`."""
        return self.lines[index] if self.lines else self.first + index

    def place(self, row: int) -> str:
        """Where a person finds a row: `数据!第 7 行`."""
        return f"{self.sheet}!第 {row} 行" if self.sheet else f"第 {row} 行"


@dataclass(frozen=True)
class Header:
    """`index`: of the header in `Grid.rows`. `columns`: field → position in a row of the grid. `missing`: fields without column."""

    index: int
    columns: dict[str, int]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Edit:
    """What is to become of a sheet. `updates`: row number → values by field; `appends`: new rows; `deletes`: row numbers."""

    updates: dict[int, dict[str, Value]]
    appends: list[dict[str, Value]]
    deletes: frozenset[int]
    add: tuple[str, ...] = ()


def label(node: Node, name: str) -> str:
    """The header under which a field is written: the node's own name if it has one, else the contract's label."""
    return node.columns.get(name) or node.dataset.fields[name].label


def required(node: Node) -> tuple[str, ...]:
    """The fields without which no row can be understood."""
    return tuple(dict.fromkeys([*node.dataset.key, node.dataset.jurisdiction]))


def header_of(grid: Grid, node: Node) -> Header:
    """Find the header. Raises SchemaMismatch that names what is missing and what was found."""
    best = Header(0, {}, node.fields)
    for index, row in enumerate(grid.rows[:_HEADER_ROWS]):
        header = _with_second_row(_matched(index, row, grid, node), grid, node)
        if not set(required(node)) & set(header.missing):
            return header
        if len(header.columns) > len(best.columns):
            best = header
    raise lacking(grid, node, best, [name for name in required(node) if name in best.missing])


def _with_second_row(header: Header, grid: Grid, node: Node) -> Header:
    """The header with the columns that stand one row lower, under a group's merged title.

    Titles that reach over both rows leave nothing in the lower one; a row that holds something there is data.
    """
    below = header.index + 1
    if not header.columns or not header.missing or below >= len(grid.rows):
        return header
    row = grid.rows[below]
    if any(at < len(row) and row[at] not in (None, "") for at in header.columns.values()):
        return header
    found = {name: at for name, at in _matched(below, row, grid, node).columns.items() if name in header.missing}
    if not found:
        return header
    return Header(below, header.columns | found, tuple(name for name in header.missing if name not in found))


def lacking(grid: Grid, node: Node, header: Header, names: Iterable[str]) -> SchemaMismatch:
    """The error for a sheet without these columns."""
    missing = "、".join(f"“{label(node, name)}”" for name in names)
    cells = grid.rows[header.index] if grid.rows else []
    found = "、".join(str(cell).strip() for cell in cells if cell not in (None, "")) or "（空 / none）"
    return SchemaMismatch(
        f"the sheet has no column {missing}; its header is: {found}",
        f"缺少列 {missing}；现有表头：{found}",
        todo="恢复该列的表头（如误删请撤销）；若是新增的列，运行 fedsync system prepare / restore the column's header (undo its deletion); "
        "for a column that is new, run fedsync system prepare",
        sheet=grid.sheet,
        row=grid.number(header.index) if grid.rows else 1,
    )


def _matched(index: int, row: list[Value], grid: Grid, node: Node) -> Header:
    words = {
        name: list(map(_plain, (label(node, name), node.dataset.fields[name].label, name))) for name in node.fields
    }
    known = frozenset(word for names in words.values() for word in names)
    positions: dict[str, list[int]] = {}
    for position, cell in enumerate(row):
        positions.setdefault(_without_notes(_plain(cell), known), []).append(position)
    columns: dict[str, int] = {}
    for name in node.fields:
        at = next((positions[word] for word in words[name] if word in positions), [])
        if len(at) > 1:
            raise SchemaMismatch(
                f"the column “{label(node, name)}” stands {len(at)} times",
                f"列“{label(node, name)}”出现了 {len(at)} 次",
                todo="保留一列，其余改名 / keep one of them and rename the others",
                sheet=grid.sheet,
                row=grid.number(index),
                field=name,
            )
        if at:
            columns[name] = at[0]
    return Header(index, columns, tuple(name for name in node.fields if name not in columns))


def _plain(cell: Value) -> str:
    """A header as a word: full width, blanks and line breaks, and the star of a mandatory column do not count."""
    text = unicodedata.normalize("NFKC", "" if cell is None else str(cell))
    return "".join(text.split()).strip("*").casefold()


def _without_notes(word: str, known: frozenset[str]) -> str:
    """A header without the notes around it, as far as it takes to be a known one."""
    while word not in known:
        note = _NOTE.search(word)
        if note is None or not all(map(_HOW.search, re.split("[,;、]", note[1] or note[2]))):
            break
        word = (word[: note.start()] + word[note.end() :]).strip("*")
    return word


def raw_table(
    grid: Grid, header: Header, node: Node, fields: Iterable[str]
) -> tuple[pa.Table, dict[str, tuple[str, str]]]:
    """The rows as text, columns named after fields, with `LOCATOR`; and the faulty ones: locator → (field, rule).

    Faulty cells are null in the table. A column that the sheet does not have is left out.
    """
    named = [(name, header.columns[name], node.dataset.fields[name]) for name in fields if name in header.columns]
    columns: dict[str, list[str | None]] = {name: [] for name, _, _ in named}
    places: list[str] = []
    faults: dict[str, tuple[str, str]] = {}
    for index in range(header.index + 1, len(grid.rows)):
        row, number = grid.rows[index], grid.number(index)
        texts = [cell_text(row[at], spec) if at < len(row) else None for _, at, spec in named]
        bad = _faults(grid, number, named)
        if not bad and all(text is None for text in texts):
            continue
        place = grid.place(number)
        places.append(place)
        for (name, _, _), text in zip(named, texts):
            columns[name].append(None if name in bad else text)
        if bad:
            faults[place] = next(iter(bad.items()))
    arrays = {name: pa.array(texts, pa.string()) for name, texts in columns.items()}
    return pa.table({**arrays, LOCATOR: pa.array(places, pa.string())}), faults


def _faults(grid: Grid, number: int, named: list[tuple[str, int, FieldSpec]]) -> dict[str, str]:
    if not grid.faults:
        return {}
    placed = ((name, grid.faults.get((number, grid.left + at))) for name, at, _ in named)
    return {name: rule for name, rule in placed if rule is not None}


def cell_text(value: Value, spec: FieldSpec) -> str | None:
    """A cell as its reader would write it down; None where nothing stands."""
    if isinstance(value, str):
        return value if value.strip() else None
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        # 15 digits are what a spreadsheet shows and a person means: 0.1 + 0.2 is 0.3
        return repr(value) if spec.type == "float" else f"{Decimal(f'{value:.15g}'):f}"
    if isinstance(value, datetime):
        return _moment_text(value, spec)
    return value.isoformat() if isinstance(value, (date, time)) else str(value)


def _moment_text(value: datetime, spec: FieldSpec) -> str:
    value = value + timedelta(microseconds=500)  # a sheet stores days as a float: the nearest millisecond is meant
    if spec.type == "date" or not (value.hour or value.minute or value.second or value.microsecond // 1000):
        return value.date().isoformat()
    return value.isoformat(" ", "milliseconds" if value.microsecond // 1000 else "seconds")


def cell_values(rows: pa.Table, node: Node) -> dict[str, list[Value]]:
    """Typed columns as values to write, by field: 是/否 for a bool, local time for a timestamp."""
    return {name: _values(rows.column(name).combine_chunks(), node, name) for name in rows.column_names}


def _values(column: pa.Array, node: Node, name: str) -> list[Value]:
    kind = node.dataset.fields[name].type
    if kind == "bool":
        column = pc.if_else(column, pa.scalar("是"), pa.scalar("否"))
    elif kind == "timestamp":
        return _local(column, node.timezone)
    values: list[Value] = column.to_pylist()
    return values


def _local(column: pa.Array, timezone: str) -> list[Value]:
    """Local times; where summer time ended and an hour came twice, text with the offset, since a cell has no zone."""
    here = pc.cast(column, pa.timestamp("us", timezone))
    local = pc.local_timestamp(here)
    again = pc.assume_timezone(local, timezone, ambiguous="earliest", nonexistent="earliest")
    values: list[Value] = local.to_pylist()
    twice = pc.fill_null(pc.not_equal(pc.cast(again, pa.int64()), pc.cast(here, pa.int64())), False)
    if pc.any(twice).as_py():
        utc = pc.local_timestamp(column).to_pylist()
        for index, ambiguous in enumerate(twice.to_pylist()):
            if ambiguous:
                values[index] = f"{utc[index].isoformat(' ', 'milliseconds')}+00"
    return values


def places_of(grid: Grid, titles: Sequence[str]) -> tuple[int, list[int]] | None:
    """Where an engine's sheet has its header, and where in it each title stands; of equal titles, the first is the first.

    None if no row holds them all: then the sheet is people's own, or has lost a header.
    """
    for index, row in enumerate(grid.rows[:_HEADER_ROWS]):
        free = list(enumerate("" if cell is None else str(cell).strip() for cell in row))
        places = []
        for title in titles:
            at = next((place for place, text in free if text == title), None)
            if at is None:
                break
            places.append(at)
            free = [(place, text) for place, text in free if place != at]
        else:
            return index, places
    return None
