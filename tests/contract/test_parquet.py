"""A drop folder keeps the contract, whether its provider sends changes or everything anew, typed or as text."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq

from connectors.base import Connector
from connectors.parquet import ParquetConnector
from federation.canonical import schema
from tests.contract import desk
from tests.contract.dataset import make_node
from tests.contract.suite import ConnectorContract, Row
from tests.parquet_drop import drop, manifests

COLUMNS = {"name": "xm", "note": "bz 备注"}


class TestParquet(ConnectorContract):
    """The provider: the first drop is full, each later one a delta of the columns that it changes."""

    loose = False
    columns: ClassVar[dict[str, str]] = COLUMNS

    def connector(self) -> Connector:
        columns = {field: name for field, name in self.columns.items() if field in self.dataset.fields}
        options = {"path": self.folder / "drops"}
        return ParquetConnector(make_node(self.dataset, options, columns=columns))

    def column(self, field: str) -> str:
        return self.columns.get(field, field)

    def people_write(self, rows: list[Row]) -> None:
        if not any(about["kind"] == "full" for _, about in manifests(self.folder / "drops")):
            self.drop("full", [self.table(rows, list(self.dataset.fields))])
            return
        names = {tuple(values) for values in rows}
        parts = [[values for values in rows if tuple(values) == alike] for alike in names]
        self.drop("delta", [self.table(part, list(part[0])) for part in parts])

    def people_delete(self, key: Row) -> None:
        gone = self.table([key], list(self.dataset.key))
        self.drop("delta", [gone.append_column("_op", pa.array(["D"]))])

    def people_see_returns(self) -> list[Row]:
        path = self.folder / "drops" / "_returns.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        return [desk.return_seen(self.dataset, line) for line in found]

    def table(self, rows: list[Row], fields: list[str]) -> pa.Table:
        found = pa.Table.from_pylist(
            [{name: values.get(name) for name in fields} for values in rows], schema(self.dataset, fields)
        )
        return found.rename_columns([self.column(name) for name in fields])

    def drop(self, kind: str, tables: list[pa.Table]) -> None:
        moment = datetime.now(UTC)
        today = moment.astimezone(ZoneInfo("Asia/Shanghai")).date()
        count = len(manifests(self.folder / "drops"))
        drop(self.folder / "drops", f"dt={today}.{count:05d}", kind, tables, moment)

    def stored(self) -> list[Row]:
        """One row after the other, as the layout's description says."""
        held: dict[tuple[Any, ...], Row] = {}
        for path, about in manifests(self.folder / "drops"):
            if about["kind"] == "full":
                held = {}
            for part in about["files"]:
                for found in pq.read_table(path / part["name"]).to_pylist():
                    row = {name: found[self.column(name)] for name in self.dataset.fields if self.column(name) in found}
                    key = tuple(str(row[name]) for name in self.dataset.key)
                    if found.get("_op") == "D":
                        held.pop(key, None)
                    else:
                        held[key] = {**held.get(key, {}), **row}
        return list(held.values())


class TestParquetOfTexts(TestParquet):
    """All columns are text, so that anything may stand in them. A double key stands in one partition twice."""

    loose = True

    def table(self, rows: list[Row], fields: list[str]) -> pa.Table:
        return pa.table(
            {self.column(name): pa.array([_text(v.get(name)) for v in rows], pa.string()) for name in fields}
        )


class TestParquetInFullEachTime(TestParquet):
    """The provider sends everything anew each time; what the engine wrote it has taken over."""

    columns: ClassVar[dict[str, str]] = {}

    def people_write(self, rows: list[Row]) -> None:
        known = {tuple(str(found[name]) for name in self.dataset.key): found for found in self.stored()}
        for values in rows:
            key = tuple(str(values[name]) for name in self.dataset.key)
            known[key] = {**known.get(key, {}), **values}
        self.drop("full", [self.table(list(known.values()), list(self.dataset.fields))])

    def people_delete(self, key: Row) -> None:
        kept = [found for found in self.stored() if any(found[name] != value for name, value in key.items())]
        self.drop("full", [self.table(kept, list(self.dataset.fields))])


def _text(value: Any) -> str | None:
    if isinstance(value, datetime):
        return value.astimezone(ZoneInfo("Asia/Shanghai")).isoformat()
    if isinstance(value, (date, Decimal, bool, int, float)):
        return str(value)
    assert value is None or isinstance(value, str), json.dumps(value)
    return value
