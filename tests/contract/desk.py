"""Corrections to show, and how they look to people whatever shows them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from connectors.base import correction_schema
from federation.contract import Dataset

Row = dict[str, Any]
TEXTS = ("kind", "field", "current", "proposed", "raised_by", "state", "reason")
RAISED = datetime(2026, 3, 2, 17, 30, 5, 678901, tzinfo=UTC)
RAISED_HERE = "2026-03-03 01:30:05"


def name(short: str) -> str:
    """A correction's id: 32 hex digits. `a1` and the like are the beginning of one."""
    return f"{short:0<32}"


def line(short: str, record_id: str, **values: Any) -> Row:
    """One correction of the record: somebody's phone number, unless told otherwise."""
    return {
        "correction_id": name(short),
        "record_id": record_id,
        "kind": "edit",
        "field": "备注",
        "current": "旧",
        "proposed": "新",
        "raised_by": "110101001001 多福巷社区",
        "raised": RAISED,
        "due": date(2026, 3, 16),
        "state": "waiting",
        "reason": "",
        **values,
    }


def corrections(dataset: Dataset, *lines: Row) -> pa.Table:
    """As the engine hands them to a connector."""
    return pa.Table.from_pylist(list(lines), correction_schema(dataset))


def seen(dataset: Dataset, shown: Row, ruling: str = "", reason: str = "") -> Row:
    """What people see of a correction: all as text, an empty one for nothing; the words of kind and state are the engine's."""
    texts = {key: str(shown[key]) for key in dataset.key} | {word: shown[word] or "" for word in TEXTS}
    due = shown["due"].isoformat() if shown["due"] else ""
    return {**texts, "raised": RAISED_HERE, "due": due, "ruling": ruling, "ruling_reason": reason}
