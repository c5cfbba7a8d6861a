"""The returns (退回) of a workbook: a sheet on which people see what was handed back and why, and mend it in place.

In the column 改为 they write the right value; the next read takes it as their edit of that record's field, and the engine's next writing
puts it into the data sheet. A record that was also changed on the data sheet keeps what stands there: which of two edits
is the newer cannot be known, and the data sheet is where people look first. So 改为 counts only while the data sheet still
shows 现值, the value that was handed back. A value that their program made into 1.4E+10 is not taken: its digits are lost.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pyarrow as pa

from connectors.base import Node
from connectors.desk import standing
from connectors.files import sha256
from connectors.sheet import Grid, Header, Value, cell_text, cell_values, label, places_of, raw_table
from connectors.sheet_armour import is_rounded
from connectors.sheet_edit import keyed, rows_by_key
from connectors.sheet_text import short
from connectors.xlsx_page import Page
from federation.canonical import LOCATOR, conform
from federation.errors import SchemaMismatch

TITLE = "退回待改"
HEADERS = ("位置", "字段", "现值", "原因", "Reason")
MEND = "改为"
_MEND_HINT = "在此填写正确的值；也可直接在数据表中修改 / write the right value here, or mend it on the data sheet"
_WIDTHS = {"现值": 24, MEND: 24, "原因": 44, "Reason": 44}


@dataclass(frozen=True)
class Mend:
    """What people wrote under 改为: in which record (its key as shown), which field, instead of what, and the value."""

    key: tuple[Value, ...]
    field: str
    shown: str
    value: Value


@dataclass(frozen=True)
class Shown:
    """The sheet as it stands. `lines`: the engine's texts, header first; nothing if there is no such sheet of the engine's."""

    lines: list[list[str]]
    mends: tuple[Mend, ...] = ()

    @property
    def mark(self) -> bytes:
        """Differs whenever people wrote something else; empty while they wrote nothing."""
        said = [[*map(str, mend.key), mend.field, mend.shown, str(mend.value)] for mend in self.mends]
        return json.dumps(said).encode() if said else b""


def lines_of(node: Node, returns: pa.Table) -> list[list[str]]:
    """The returns as people see them, header first; nothing at all if there are none."""
    returns = standing(returns)
    if not returns.num_rows:
        return []
    keys = list(node.dataset.key)
    columns = cell_values(returns.select(keys), node)
    rows = [[*(label(node, name) for name in keys), *HEADERS]]
    for at, line in enumerate(returns.to_pylist()):
        spec = node.dataset.fields.get(line["field"] or "")
        texts = [columns[name][at] for name in keys] + [line["locator"], spec.label if spec else line["field"]]
        texts += [line[name] for name in ("value", "reason_zh", "reason_en")]
        rows.append([short("" if text is None else str(text)) for text in texts])
    return rows


def table_of(node: Node, lines: list[list[str]]) -> list[list[str]]:
    """The same with the empty column 改为 between."""
    at = len(node.dataset.key) + 3
    return [[*line[:at], "" if number else MEND, *line[at:]] for number, line in enumerate(lines)]


def page(node: Node, lines: list[list[str]]) -> Page | None:
    """The sheet with these lines; None if there are none. A line that says which field of which record is wrong can be mended."""
    if not lines:
        return None
    at = len(node.dataset.key) + 3
    known = _fields(node)
    header, *rows = table_of(node, lines)
    mendable = [n for n, line in enumerate(rows) if all(line[: len(node.dataset.key)]) and line[at - 2] in known]
    return Page(
        TITLE,
        header,
        rows,
        [max(_WIDTHS.get(title, 18), 2 * len(title) + 4) for title in header],
        "ED7D31",
        frozenset((n, at) for n in mendable),
        hints={at: _MEND_HINT},
    )


def read(node: Node, grid: Grid) -> Shown | None:
    """What stands on the sheet; None if it is people's own, or has lost a header."""
    keys = list(node.dataset.key)
    titles = [*(label(node, name) for name in keys), *HEADERS[:3], MEND, *HEADERS[3:]]
    found = places_of(grid, titles)
    if found is None:
        return None
    top, places = found
    mend = len(keys) + 3
    known = _fields(node)
    lines, mends = [titles[:mend] + titles[mend + 1 :]], []
    for row in grid.rows[top + 1 :]:
        cells = [row[at] if at < len(row) else None for at in places]
        texts = ["" if cell is None else str(cell) for cell in cells]
        if not any(texts):
            continue
        lines.append(texts[:mend] + texts[mend + 1 :])
        field = known.get(texts[mend - 2])
        if field is not None and texts[mend].strip() and not is_rounded(cells[mend], node.dataset.fields[field].type):
            mends.append(Mend(tuple(cells[: len(keys)]), field, texts[mend - 1], cells[mend]))
    return Shown(lines, tuple(mends))


def alien() -> SchemaMismatch:
    """The error for a sheet or file of this name that is not the engine's, or has lost a header."""
    return SchemaMismatch(
        f"“{TITLE}” is not the table that shows returns",
        f"“{TITLE}”不是引擎的退回表",
        todo=f"若是自建的表，请改名；也可删除该表，由引擎重建 / rename a table of your own; or delete “{TITLE}”, it is made anew",
        sheet=TITLE,
    )


def marked(token: str, returns: Shown | None) -> str:
    """A token of the data that also covers what people mended where the returns are shown."""
    return sha256(token.encode(), returns.mark) if returns is not None and returns.mends else token


def mended(node: Node, grid: Grid, header: Header, mends: tuple[Mend, ...]) -> tuple[Grid, dict[int, dict[str, Value]]]:
    """The data as mended, and what is to be written there: row number → values. Only mends that count (see the module)."""
    if not mends:
        return grid, {}
    raw, _ = raw_table(grid, header, node, node.fields)
    numbers = {grid.place(grid.number(index)): index for index in range(len(grid.rows))}
    now = {numbers[line[LOCATOR]]: line for line in raw.to_pylist()}
    rows_of = rows_by_key(node, grid, header)
    written: dict[int, dict[str, Value]] = {}
    rows = [list(row) for row in grid.rows]
    faults = dict(grid.faults)
    for key, mend in zip(_keys(node, mends), mends):
        numbered = rows_of.get(key or "", [])
        if len(numbered) != 1 or mend.field not in header.columns:
            continue
        index = numbers[grid.place(numbered[0])]
        line = now[index]
        if (line[mend.field] or "") != mend.shown and not _alike(node, line, mend.field, mend.shown):
            continue
        at = header.columns[mend.field]
        rows[index].extend([None] * (at + 1 - len(rows[index])))
        rows[index][at] = mend.value
        faults.pop((numbered[0], grid.left + at), None)
        text = cell_text(mend.value, node.dataset.fields[mend.field])
        typed = _typed(node, {**line, mend.field: text}, mend.field)
        written.setdefault(numbered[0], {})[mend.field] = mend.value if typed is None else typed
    return replace(grid, rows=rows, faults=faults), written


def _fields(node: Node) -> dict[str, str]:
    """Label → field, for fields that can be mended: not the key, by which the record is found."""
    labels = [node.dataset.fields[name].label for name in node.fields]
    return {
        node.dataset.fields[name].label: name
        for name in node.fields
        if name not in node.dataset.key and labels.count(node.dataset.fields[name].label) == 1
    }


def _keys(node: Node, mends: tuple[Mend, ...]) -> list[str | None]:
    """The key of each mend's record, as the engine writes keys; None for one that cannot be read."""
    fields = node.dataset.key
    columns = {
        name: pa.array([cell_text(mend.key[at], node.dataset.fields[name]) for mend in mends], pa.string())
        for at, name in enumerate(fields)
    }
    places = [str(at) for at in range(len(mends))]
    raw = pa.table({**columns, LOCATOR: pa.array(places, pa.string())})
    found = {place: key for key, place in keyed(node, raw)}
    return [found.get(place) for place in places]


def _alike(node: Node, line: dict[str, str | None], field: str, shown: str) -> bool:
    """Whether what stands in a row's field means the same as another text (`是` and `True`)."""
    if line.get(field) is None or not shown:
        return False
    one, other = (_typed(node, {**line, field: text}, field) for text in (line[field], shown))
    return one is not None and one == other


def _typed(node: Node, line: dict[str, str | None], field: str) -> Value:
    """A row's field as the contract types it; None if it does not fit."""
    names = [*node.dataset.key, field]
    raw = pa.table({name: pa.array([line[name]], pa.string()) for name in names})
    rows = conform(raw, node.dataset, names, timezone=node.timezone).rows
    return cell_values(rows, node)[field][0] if rows.num_rows else None
