"""Corrections, returns and receipts to show, and how they look to people whatever shows them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from connectors.base import RECEIPTS, correction_schema, returns_schema
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


def returned(short: str, record_id: str, **values: Any) -> Row:
    """One return of the record: its note, unless told otherwise."""
    line = {"return_id": name(short), "record_id": record_id, "field": "note", "value": "旧", "rule": "note_says"}
    texts = {"reason_zh": "备注应写明“情况”，现为“旧”", "reason_en": "the note must say more, it is '旧'"}
    return {**line, **texts, "hop": "东城区 → 北京市", "since": RAISED, "state": "open", **values}


def returns(dataset: Dataset, *lines: Row) -> pa.Table:
    """As the engine hands them to a connector."""
    return pa.Table.from_pylist(list(lines), returns_schema(dataset))


def return_seen(dataset: Dataset, shown: Row) -> Row:
    """What people see of a return, whatever shows it: which record, and why in two languages."""
    return {key: str(shown[key]) for key in dataset.key} | {word: shown[word] for word in ("reason_zh", "reason_en")}


def receipt(short: str, **values: Any) -> Row:
    """One receipt: three rows arrived from above, unless told otherwise."""
    line = {"at": RAISED, "way": "arrived", "other": "110101001000 东华门街道", "written": 3, "deleted": 0}
    return {**line, "run_id": name(short), **values}


def receipts(*lines: Row) -> pa.Table:
    """As the engine hands them to a connector."""
    return pa.Table.from_pylist(list(lines), RECEIPTS)


def receipt_seen(shown: Row) -> Row:
    """What people see of a receipt: all as text, the moment as their clock shows it."""
    way = {"arrived": "收到", "sent": "送出"}[shown["way"]]
    return {**{key: str(value) for key, value in shown.items()}, "at": RAISED_HERE, "way": way}
