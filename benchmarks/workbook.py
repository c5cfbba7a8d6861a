"""The workbook connector: 5 000 rows × 13 columns. Run: python benchmarks/workbook.py [rows]

Times (seconds, best of three; wall time, and processor time for a busy machine) what a link run does to a community's file: read it,
write it whole, update 100 rows, delete 20 and append 20, show a return, probe it; beside it, what openpyxl alone needs to load
and save the same file. A write reads the file again, since it is conditional, and reads what it left. Each step checks what it did, or
the program fails. The laid out file stays as people would find it: formats, drop-downs, protection.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
from openpyxl import load_workbook

sys.path.insert(0, str(Path(__file__).parents[1]))

from connectors.base import Batch, Node, no_keys, no_returns
from connectors.workbook import WorkbookConnector
from federation.contract import Dataset
from federation.regions import Region

HERE = "110101001001"
TYPES = {"rid": "string", "region": "string", "name": "string", "idno": "string", "phone": "string", "kind": "enum", "alone": "bool", "born": "date", "seen": "timestamp", "members": "int", "rent": "decimal", "address": "string", "note": "string"}  # fmt: skip
OWN = ("phone", "kind", "alone", "seen", "members", "rent", "note")


def dataset() -> Dataset:
    """The contract of the rows."""
    fields: dict[str, Any] = {
        name: {"label": name, "type": kind, "authority": "community" if name in OWN else "street"}
        for name, kind in TYPES.items()
    }
    fields["kind"]["values"] = ["户籍", "流动"]
    return Dataset.model_validate(
        {
            "name": "resident",
            "label": "居民",
            "levels": ["street", "community"],
            "key": ["rid"],
            "jurisdiction": "region",
            "originates": ["street", "community"],
            "fields": fields,
        }
    )


def row(n: int) -> dict[str, Any]:
    """One invented resident."""
    return {
        "rid": f"R{n:06d}",
        "region": HERE,
        "name": f"居民{n}",
        "idno": f"{110101190001010000 + n}",
        "phone": f"138{n:08d}",
        "kind": "户籍" if n % 3 else "流动",
        "alone": n % 7 == 0,
        "born": date(1940, 1, 1) + timedelta(n % 20000),
        "seen": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=n),
        "members": n % 6 + 1,
        "rent": Decimal(n % 5000) + Decimal("0.50"),
        "address": f"多福巷 {n % 90} 号楼 {n % 6 + 1} 单元 {n % 30 + 1} 室",
        "note": None if n % 4 else f"每周走访，第 {n} 户",
    }


def best(work: Callable[[], Any], before: Callable[[], Any] = lambda: None) -> tuple[float, float]:
    """Wall time and processor time, each the best of three."""
    walls, processors = [], []
    for _ in range(3):
        before()
        start, busy = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - start)
        processors.append(time.process_time() - busy)
    return min(walls), min(processors)


def main(count: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "台账.xlsx"
        contract = dataset()
        region = Region(HERE, "甲社区", "community", "110101001000")
        node = Node(contract, region, "台账", {"path": str(path)}, contract.fields_at("community"))
        book = WorkbookConnector(node)
        book.prepare()
        empty = path.read_bytes()
        rows = pa.Table.from_pylist([row(n) for n in range(count)], node.schema)

        cursor: list[str | None] = [None]

        def write(*upserts: pa.Table, deletes: pa.Table | None = None) -> None:
            book.apply(Batch(upserts, no_keys(node) if deletes is None else deletes, cursor[0]))

        def reset(content: bytes) -> Callable[[], Any]:
            def work() -> None:
                path.write_bytes(content)
                cursor[0] = book.changes(None).cursor

            return work

        found = {"write all": best(lambda: write(rows), reset(empty))}
        full = path.read_bytes()
        assert book.changes(None).rows.num_rows == count
        found["read all"] = best(lambda: book.changes(None))
        found["probe"] = best(book.probe)

        changed = rows.slice(0, 100).select(["rid", "name", "address"])
        changed = changed.set_column(1, "name", pa.array([f"改{n}" for n in range(changed.num_rows)]))
        found["update 100 rows"] = best(lambda: write(changed), reset(full))
        assert (
            sum(name.startswith("改") for name in book.changes(None).rows.column("name").to_pylist())
            == changed.num_rows
        )

        fresh = pa.Table.from_pylist([row(n) for n in range(count, count + 20)], node.schema)
        gone = rows.slice(count // 2, 20).select(["rid"])
        found["delete 20, append 20"] = best(lambda: write(fresh, deletes=gone), reset(full))
        assert book.changes(None).rows.num_rows == count

        line = {"rid": "R000000", "locator": "数据!第 2 行", "field": "phone", "value": "1", "rule": "r", "reason_zh": "有误", "reason_en": "bad"}  # fmt: skip
        returns = pa.Table.from_pylist([line], no_returns(node).schema)
        found["show a return"] = best(lambda: book.show_returns(returns), reset(full))
        path.write_bytes(full)
        found["(openpyxl: load and save)"] = best(lambda: load_workbook(path).save(path), reset(full))
        print(f"{count} rows × {len(TYPES)} columns, {len(full) >> 10} KB: wall, processor")
        for name, (wall, processor) in found.items():
            print(f"{name:28}{wall:8.3f} s {processor:8.3f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000)
