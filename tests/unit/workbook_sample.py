"""A small dataset with one field of each type, and what a person does to its workbook."""

from __future__ import annotations

import datetime as dt
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
from openpyxl import load_workbook

from connectors.base import Batch, Node, no_keys
from connectors.workbook import WorkbookConnector
from federation.contract import Dataset
from federation.regions import Region

HERE = "110101001001"
DATASET = Dataset.model_validate(
    {
        "name": "resident",
        "label": "居民",
        "levels": ["street", "community"],
        "key": ["rid"],
        "jurisdiction": "region",
        "version": "seen",
        "originates": ["community"],
        "fields": {
            "rid": {"label": "居民编号", "authority": "community"},
            "region": {"label": "属地", "authority": "street"},
            "name": {"label": "姓名", "authority": "street"},
            "idno": {"label": "证件号", "authority": "street", "normalise": ["trim", "halfwidth", "upper"]},
            "phone": {
                "label": "电话",
                "authority": "community",
                "normalise": ["trim", "halfwidth"],
                "hint": "11 位手机号",
            },
            "kind": {"label": "类型", "type": "enum", "values": ["户籍", "流动"], "authority": "community"},
            "alone": {"label": "独居", "type": "bool", "authority": "community"},
            "born": {"label": "出生日期", "type": "date", "authority": "street"},
            "seen": {"label": "走访时间", "type": "timestamp", "authority": "shared"},
            "members": {"label": "人数", "type": "int", "authority": "community"},
            "rent": {"label": "租金", "type": "decimal", "authority": "community"},
            "area": {"label": "面积", "type": "float", "authority": "community"},
            "extra": {"label": "扩展", "type": "json", "authority": "street"},
        },
    }
)
WHOLE = {
    "rid": "R1",
    "region": HERE,
    "name": "张三",
    "idno": "110101199001011234",
    "phone": "13800000000",
    "kind": "户籍",
    "alone": True,
    "born": dt.date(1990, 1, 1),
    "seen": dt.datetime(2026, 1, 31, 8, 0, 0, 123000, tzinfo=dt.UTC),
    "members": 3,
    "rent": Decimal("1234.50"),
    "area": 71.25,
    "extra": '{"a":1}',
}


def node(path: Path, *, dataset: Dataset = DATASET, columns: dict[str, str] | None = None, **options: Any) -> Node:
    """The community's node, its file at `path`."""
    region = Region(HERE, "甲社区", "community", "110101001000")
    fields = dataset.fields_at("community")
    return Node(dataset, region, "台账", {"path": str(path), **options}, fields, columns or {})


def connector(path: Path, **words: Any) -> WorkbookConnector:
    """A connector whose file exists, laid out."""
    made = WorkbookConnector(node(path, **words))
    made.prepare()
    return made


def table(of: WorkbookConnector, *rows: dict[str, Any]) -> pa.Table:
    """Typed rows with the columns of the first."""
    names = list(rows[0])
    schema = pa.schema([of.node.schema.field(name) for name in names])
    return pa.Table.from_pylist(list(rows), schema)


def put(of: WorkbookConnector, *rows: dict[str, Any], delete: tuple[str, ...] = (), cursor: str | None = None) -> None:
    """Apply one batch."""
    gone = pa.table({"rid": pa.array(delete, pa.string())}) if delete else no_keys(of.node)
    of.apply(Batch((table(of, *rows),) if rows else (), gone, cursor))


def stored(of: WorkbookConnector) -> dict[str, dict[str, Any]]:
    """What the engine reads back, by key."""
    return {row["rid"]: row for row in of.changes(None).rows.to_pylist()}


def rejects(of: WorkbookConnector) -> list[dict[str, Any]]:
    """What the engine cannot trust."""
    found: list[dict[str, Any]] = of.changes(None).rejects.to_pylist()
    return found


class Person:
    """Somebody with the workbook open: `with Person(path) as sheet: sheet["A2"] = …`, saved on leaving."""

    def __init__(self, path: Path, sheet: str = "数据") -> None:
        self.path = path
        self.book = load_workbook(path)
        self.sheet = self.book[sheet]

    def __enter__(self) -> Any:
        return self.sheet

    def __exit__(self, *_: object) -> None:
        self.book.save(self.path)


def age(path: Path, seconds: float = 60.0) -> None:
    """Make a file look as if nobody had touched it for a while."""
    at = path.stat().st_mtime - seconds
    os.utime(path, (at, at))
