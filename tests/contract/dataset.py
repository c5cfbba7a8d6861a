"""The datasets that every connector is tried on: each type of the contract once, and a composite key."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from connectors.base import Node
from federation.canonical import schema
from federation.contract import Dataset
from federation.regions import Region

REGION = Region("110101001001", "多福巷社区", "community", "110101001000")
LEVELS = ["city", "district", "street", "community"]

SAMPLE = Dataset.model_validate(
    {
        "name": "sample",
        "label": "样例",
        "levels": LEVELS,
        "key": ["record_id"],
        "jurisdiction": "community_code",
        "originates": ["city", "community"],
        "fields": {
            "record_id": {"label": "编号", "authority": "city"},
            "community_code": {"label": "社区代码", "authority": "city"},
            "name": {"label": "姓名", "authority": "city"},
            "note": {"label": "备注", "authority": "community"},
            "visits": {"label": "走访次数", "type": "int", "authority": "community"},
            "score": {"label": "评分", "type": "float", "authority": "community"},
            "income": {"label": "收入", "type": "decimal", "scale": 2, "authority": "city"},
            "insured": {"label": "参保", "type": "bool", "authority": "city"},
            "born": {"label": "出生日期", "type": "date", "authority": "city"},
            "seen_at": {"label": "最近联系", "type": "timestamp", "authority": "community"},
            "care": {"label": "关爱等级", "type": "enum", "values": ["无", "一般", "重点"], "authority": "community"},
            "extra": {"label": "其他", "type": "json", "authority": "community"},
        },
    }
)
"""Single key, every type."""

COMPOSITE = Dataset.model_validate(
    {
        "name": "visit_log",
        "label": "走访记录",
        "levels": LEVELS,
        "key": ["record_id", "visit_no"],
        "jurisdiction": "community_code",
        "originates": ["city", "community"],
        "fields": {
            "record_id": {"label": "编号", "authority": "city"},
            "visit_no": {"label": "次序", "type": "int", "authority": "city"},
            "community_code": {"label": "社区代码", "authority": "city"},
            "note": {"label": "备注", "authority": "community"},
        },
    }
)
"""The key is a text and a number."""

RICH: dict[str, Any] = {
    "name": "王小明",
    "note": "门口有台阶",
    "visits": -42,
    "score": 0.1,
    "income": Decimal("12345678.90"),
    "insured": True,
    "born": date(1931, 2, 28),
    "seen_at": datetime(2026, 1, 31, 16, 5, 6, 789000, tzinfo=UTC),
    "care": "重点",
    "extra": '{"a":[1,2.5,null],"中":"文"}',
}
"""A value of each type (the fields of `SAMPLE` beside key and jurisdiction)."""


def make_node(
    dataset: Dataset,
    options: dict[str, Any],
    *,
    fields: tuple[str, ...] | None = None,
    columns: dict[str, str] | None = None,
    region: Region = REGION,
) -> Node:
    """The node of a community that keeps `dataset` (all fields unless told) in the system under test."""
    return Node(dataset, region, "under_test", options, fields or tuple(dataset.fields), columns or {})


def row(record_id: str | None, **values: Any) -> dict[str, Any]:
    """A row of `SAMPLE`: its key, its jurisdiction and the named fields."""
    return {"record_id": record_id, "community_code": REGION.code, **values}


def whole(record_id: str | None, **values: Any) -> dict[str, Any]:
    """A row of `SAMPLE` with all fields filled in."""
    return row(record_id, **{**RICH, **values})


def visit(record_id: str, visit_no: int, **values: Any) -> dict[str, Any]:
    """A row of `COMPOSITE`."""
    return {"record_id": record_id, "visit_no": visit_no, "community_code": REGION.code, **values}


def table(dataset: Dataset, rows: Iterable[dict[str, Any]], *names: str) -> pa.Table:
    """Typed rows with exactly the columns `names` (default: those of the first row)."""
    listed = list(rows)
    picked = names or tuple(listed[0])
    return pa.Table.from_pylist(
        [{name: found.get(name) for name in picked} for found in listed], schema(dataset, picked)
    )
