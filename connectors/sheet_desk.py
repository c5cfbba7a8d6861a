"""The corrections desk (校核) of a workbook or csv: a sheet, or a file, on which people see corrections and choose 采纳 or 不采纳.

One row for each correction, all of it text. What people may fill in (裁定, 裁定理由 of a row that waits for them) is open, the rest
is grey and locked (in a workbook). They may sort the rows; what they wrote stays with its correction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from connectors.base import Node, ruling_of
from connectors.desk import KINDS, OPEN, STATES, wall_clock
from connectors.sheet import Grid, Value, cell_values, label, places_of
from connectors.sheet_text import short
from connectors.xlsx_page import Page
from federation.errors import SchemaMismatch

TITLE = "校核"
CHOICES = ("采纳", "不采纳")
_BESIDE = ("类型", "字段", "现值", "建议值", "提出单位", "提出时间", "处理期限", "状态", "说明")
_PEOPLE = ("裁定", "裁定理由")
_WIDTHS = {"编号": 36, "提出单位": 28, "现值": 36, "建议值": 36, "说明": 36, "裁定理由": 36, "提出时间": 22}
_OPEN = frozenset(STATES[state] for state in OPEN)


@dataclass(frozen=True)
class Shown:
    """A desk as it stands. `lines`: correction id → the engine's texts; `written`: id → what people wrote, ruling and reason.

    `rulings`: (id, ruling, reason) of every row. `sound`: each correction stands there once.
    """

    lines: dict[str, list[str]]
    written: dict[str, tuple[str, str]]
    rulings: list[tuple[str, str, str]]
    sound: bool


NOTHING = Shown({}, {}, [], True)


def lines_of(node: Node, corrections: pa.Table) -> dict[str, list[str]]:
    """Correction id → its row, in the order of the header, without the columns of people."""
    keys = list(node.dataset.key)
    columns = cell_values(corrections.select(keys), node)
    found = {}
    for at, line in enumerate(corrections.to_pylist()):
        texts = [line["correction_id"], *(columns[name][at] for name in keys)]
        texts += [KINDS.get(line["kind"], line["kind"]), line["field"], line["current"], line["proposed"]]
        texts += [line["raised_by"], wall_clock(line["raised"], node.timezone), line["due"]]
        texts += [STATES.get(line["state"], line["state"]), line["reason"]]
        found[line["correction_id"]] = [short("" if text is None else str(text)) for text in texts]
    return found


def read(node: Node, grid: Grid | None) -> Shown:
    """What stands on the desk; None: there is none. Raises SchemaMismatch if it is not the engine's, or has lost a header."""
    if grid is None or all(cell in (None, "") for row in grid.rows for cell in row):
        return NOTHING
    top, places = _header(node, grid)
    lines: dict[str, list[str]] = {}
    rulings = []
    sound = True
    for row in grid.rows[top + 1 :]:
        texts = [_text(row[at]) if at < len(row) else "" for at in places]
        name, ruling, reason = texts[0], texts[-2], texts[-1]
        if not name:
            continue
        sound = sound and name not in lines
        lines[name] = texts[: -len(_PEOPLE)]
        rulings.append((name, ruling, reason))
    return Shown(lines, _written(rulings), rulings, sound)


def renewed(node: Node, grid: Grid | None, corrections: pa.Table) -> tuple[bool, Page | None]:
    """Whether a desk must be written for these corrections, and what it is to hold then. `grid`: what stands there now; None: no desk."""
    wanted = lines_of(node, corrections)
    try:
        shown = read(node, grid)
    except SchemaMismatch:
        if not wanted:  # people's own, which merely has the name
            return False, None
        raise
    stands = shown.lines == wanted and shown.sound and (grid is not None) == bool(wanted)
    return not stands, page(node, wanted, shown.written)


def page(node: Node, lines: Mapping[str, list[str]], written: Mapping[str, tuple[str, str]]) -> Page | None:
    """The desk with these corrections and what people wrote beside them; None if there are none."""
    if not lines:
        return None
    titles = _titles(node)
    ours = len(titles) - len(_PEOPLE)
    rows = [[*texts, *written.get(name, ("", ""))] for name, texts in lines.items()]
    ruled = [at for at, texts in enumerate(rows) if texts[ours - 2] in _OPEN]
    return Page(
        TITLE,
        titles,
        rows,
        [max(_WIDTHS.get(title, 16), 2 * len(title) + 4) for title in titles],
        "4472C4",
        frozenset((at, column) for at in ruled for column in (ours, ours + 1)),
        {ours: CHOICES},
    )


def _titles(node: Node) -> list[str]:
    return ["编号", *(label(node, name) for name in node.dataset.key), *_BESIDE, *_PEOPLE]


def _header(node: Node, grid: Grid) -> tuple[int, list[int]]:
    titles = _titles(node)
    found = places_of(grid, titles)
    if found is not None:
        return found
    raise SchemaMismatch(
        f"“{TITLE}” is not the table that shows corrections: its header is not {'、'.join(titles)}",
        f"“{TITLE}”不是校核表：表头应为 {'、'.join(titles)}",
        todo=f"恢复表头；若是自建的表，请改名；也可删除该表，由引擎重建 / mend the header; rename a table of your own; or delete “{TITLE}”, it is made anew",
        sheet=TITLE,
    )


def _written(rulings: list[tuple[str, str, str]]) -> dict[str, tuple[str, str]]:
    """What stays beside each correction. Of a row that people copied, the word that rules; none, if the copies disagree."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for name, ruling, reason in rulings:
        words, reasons = found.setdefault(name, ([], []))
        words += [ruling] if ruling else []
        reasons += [reason] if reason else []
    kept = {}
    for name, (words, reasons) in found.items():
        ruled = [word for word in words if ruling_of(word)]
        torn = len({ruling_of(word) for word in ruled}) > 1
        kept[name] = ("" if torn else next(iter(ruled or words), ""), next(iter(reasons), ""))
    return kept


def _text(value: Value) -> str:
    return "" if value is None else str(value)
