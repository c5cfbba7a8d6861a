"""Delimited files: UTF-8 with or without a mark, or GB18030; the encoding, delimiter and line ends found are kept on writing.

A text that a spreadsheet program would run as a formula when it opens the file (it begins with = + - @, tab or return) is written
with an apostrophe before it, and so is one that looks like a number in scientific notation; reading takes the apostrophe off
again (`sheet_armour`), so values come back unchanged. Numbers are never touched. Spreadsheet programs turn long digits of a csv
into 1.1E+17: reading rejects such a row instead of believing it. People who work in such a program are better served by an xlsx.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from connectors.base import Node
from connectors.locations import File
from connectors.sheet import Edit, Grid, Header, Value, label
from connectors.sheet_armour import SCIENTIFIC, TEXT_TYPES
from federation.errors import Unreadable

MARK = b"\xef\xbb\xbf"
_ARMED = re.compile(r"'*[=+\-@\t\r]|''")
_ARMOURED = re.compile(r"'['=+\-@\t\r]")
_NUMBER = re.compile(r"-?[0-9]+([.][0-9]+)?")


@dataclass(frozen=True)
class Dialect:
    """How a file is written: encoding, delimiter, line end."""

    encoding: str
    delimiter: str = ","
    newline: str = "\r\n"


@dataclass(frozen=True)
class Opened:
    """A csv as found."""

    grid: Grid
    dialect: Dialect


def opened(file: File, content: bytes, declared: str | None) -> Opened:
    """Decode and split. Raises Unreadable (Transient while it is being written) with the line where it stops making sense."""
    encoding, text = _decoded(file, content, declared)
    first = text.split("\n", 1)[0]
    delimiter = max(",\t;", key=first.count)
    rows: list[list[Value]] = []
    lines: list[int] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        before = 0
        for row in reader:
            rows.append(list(row))
            lines.append(before + 1)
            before = reader.line_num
    except csv.Error as cause:
        raise file.broken(
            f"the csv cannot be split from line {before + 1} on: {cause}",
            f"自第 {before + 1} 行起无法解析：{cause}",
            "检查引号是否成对，或文件是否被截断 / check that quotes come in pairs and that the file is not cut off",
            line=before + 1,
        ) from cause
    newline = "\r\n" if first.endswith("\r") or "\n" not in text else "\n"
    if rows and text[-1] not in "\r\n":
        _refuse_unfinished(file)
    return Opened(Grid(rows, lines=lines), Dialect(encoding, delimiter, newline))


def _refuse_unfinished(file: File) -> None:
    """A last line without an end may be cut off by a writer that is still at work; after a while it is just a last line."""
    error = file.broken("the last line has no end", "末行不完整", "")
    if not isinstance(error, Unreadable):
        raise error


def _decoded(file: File, content: bytes, declared: str | None) -> tuple[str, str]:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Unreadable(
            "the csv is in UTF-16",
            "文件为 UTF-16（“Unicode 文本”）编码",
            todo="另存为“CSV UTF-8” / save it as “CSV UTF-8”",
            file=file.where,
        )
    marked = content.startswith(MARK)
    if marked and declared in (None, "utf-8", "utf-8-sig"):
        tries = ["utf-8-sig"]
    elif declared is not None:
        tries = ["utf-8" if declared == "utf-8-sig" else declared]
    else:
        tries = ["utf-8", "gb18030"]
    failed: UnicodeDecodeError | None = None
    for encoding in tries:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as cause:
            failed = failed or cause
        else:
            plain = declared is None and content.isascii()
            return ("utf-8-sig" if plain or declared == "utf-8-sig" else encoding), text
    assert failed is not None
    line = content[: failed.start].count(b"\n") + 1
    raise file.broken(
        f"byte {failed.start} on line {line} is not {' or '.join(tries)}",
        f"第 {line} 行（第 {failed.start} 字节）不是 {' 或 '.join(tries)} 编码",
        "按声明的编码另存，或改正选项 encoding / save it in the declared encoding, or mend the option `encoding`",
        line=line,
    ) from failed


def bare(grid: Grid) -> Grid:
    """A small table of the engine's as meant: apostrophes of ours taken off."""
    rows: list[list[Value]] = [
        [cell[1:] if isinstance(cell, str) and is_armoured(cell) else cell for cell in row] for row in grid.rows
    ]
    return replace(grid, rows=rows)


def is_armoured(text: str) -> bool:
    """Whether a text in a csv bears an apostrophe of ours."""
    return bool(_ARMOURED.match(text)) or (text.startswith("'") and bool(SCIENTIFIC.fullmatch(text[1:])))


def armed_text(value: Value, kind: str) -> str:
    """A value as it stands in the file."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(" ", "milliseconds" if value.microsecond else "seconds")
    if isinstance(value, Decimal):
        return f"{value:f}"
    text = repr(value) if isinstance(value, float) else str(value)
    if kind in TEXT_TYPES and (
        (_ARMED.match(text) and not _NUMBER.fullmatch(text)) or SCIENTIFIC.fullmatch(text.lstrip("'"))
    ):
        return f"'{text}"
    return text


def blank(node: Node, dialect: Dialect) -> bytes:
    """A new file: the header and nothing below."""
    return _encoded([[label(node, name) for name in node.fields]], dialect)


def with_columns(found: Opened, header: Header, node: Node, names: tuple[str, ...]) -> tuple[list[list[Value]], Header]:
    """Rows with these columns added at the end of the header."""
    rows = [list(row) for row in found.grid.rows]
    columns = dict(header.columns)
    for name in names:
        columns[name] = len(rows[header.index])
        rows[header.index].append(label(node, name))
    return rows, Header(header.index, columns, ())


def edited(found: Opened, header: Header, node: Node, edit: Edit) -> bytes | None:
    """The file after an edit; None if nothing in it changes. Rows that the edit does not name keep every character."""
    rows, header = with_columns(found, header, node, edit.add)
    changed = bool(edit.add or edit.appends or edit.deletes)
    width = len(rows[header.index])
    positions = {found.grid.number(index): index for index in range(len(found.grid.rows))}
    for number, values in edit.updates.items():
        changed = _put(rows[positions[number]], header, node, values) or changed
    gone = {positions[number] for number in edit.deletes}
    kept = [row for index, row in enumerate(rows) if index not in gone]
    for values in edit.appends:
        fresh: list[Value] = [""] * width
        _put(fresh, header, node, values)
        kept.append(fresh)
    return _encoded(kept, found.dialect) if changed else None


def _put(row: list[Value], header: Header, node: Node, values: dict[str, Value]) -> bool:
    changed = False
    for name, value in values.items():
        at = header.columns[name]
        row.extend([""] * (at + 1 - len(row)))
        text = armed_text(value, node.dataset.fields[name].type)
        changed = changed or row[at] != text
        row[at] = text
    return changed


def table(rows: Sequence[Sequence[str]]) -> bytes:
    """A small table for people to look at, in the encoding that their programs guess right."""
    safe: list[list[Value]] = [[armed_text(cell, "string") for cell in row] for row in rows]
    return _encoded(safe, Dialect("utf-8-sig"))


def _encoded(rows: list[list[Value]], dialect: Dialect) -> bytes:
    special = re.compile(
        f'["\r\n{dialect.delimiter}]'
    )  # csv.writer leaves a lone return bare, and no reader takes that

    def cell(value: Value) -> str:
        text = str(value)
        return '"' + text.replace('"', '""') + '"' if special.search(text) else text

    lines = (dialect.delimiter.join(map(cell, row)) + dialect.newline for row in rows)
    return "".join(lines).encode(dialect.encoding)
