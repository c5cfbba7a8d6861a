"""What systems show to people that have no place of their own for it: the words of corrections (校核) and returns (退回), and reading
what people ruled."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from connectors.base import RULINGS, ruling_of

KINDS = {"edit": "修改", "create": "新增", "delete": "删除"}
STATES = {
    "waiting": "待裁定",
    "overdue": "逾期",
    "travelling": "流转中",
    "accepted": "已采纳",
    "rejected": "未采纳",
    "superseded": "已失效",
    "withdrawn": "已撤回",
}
OPEN = frozenset(("waiting", "overdue"))
"""The states of a correction on which people may rule."""


def told(lines: Iterable[tuple[Any, Any, Any]]) -> pa.Table:
    """`RULINGS` from (correction id, word, reason) as written. A correction that is ruled on both ways is not ruled on."""
    found: dict[str, dict[str, str | None]] = {}
    torn: set[str] = set()
    for name, word, reason in lines:
        ruling = ruling_of(word)
        if ruling is None or not name:
            continue
        line = {"correction_id": str(name), "ruling": ruling, "reason": _reason(reason)}
        if found.setdefault(str(name), line)["ruling"] != ruling:
            torn.add(str(name))
    return pa.Table.from_pylist([line for name, line in found.items() if name not in torn], schema=RULINGS)


def standing(returns: pa.Table) -> pa.Table:
    """The returns that still stand: without those that are told to be closed."""
    return returns.filter(pc.fill_null(pc.not_equal(returns.column("state"), "closed"), True))


def wall_clock(moment: datetime | None, timezone: str) -> str | None:
    """A moment as people of that zone read it, to the second."""
    return None if moment is None else f"{moment.astimezone(ZoneInfo(timezone)):%Y-%m-%d %H:%M:%S}"


def _reason(written: Any) -> str | None:
    return None if written is None else str(written).strip() or None
