"""A provider of Parquet drops, as a data bureau's own program would be."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MANIFEST = "_manifest.json"


def drop(
    folder: Path,
    name: str,
    kind: str,
    tables: list[pa.Table],
    moment: datetime | None = None,
    **about: Any,
) -> Path:
    """Write a partition, manifest last. `about`: what the manifest says otherwise; `manifest=False`: it has none yet."""
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    parts, columns = [], {}
    for number, table in enumerate(tables):
        file = path / f"part-{number}.parquet"
        pq.write_table(table, file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        parts.append({"name": file.name, "rows": table.num_rows, "sha256": digest})
        columns.update({field.name: str(field.type) for field in table.schema})
    if about.pop("manifest", True):
        produced = (moment or datetime.now(UTC)).isoformat()
        told = {"kind": kind, "produced_at": produced, "files": parts, "schema": columns, **about}
        (path / MANIFEST).write_text(json.dumps(told), encoding="utf-8")
    return path


def manifests(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """All partitions of a folder with what their manifests say, in the order in which they count."""
    found = [(path.parent, json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob(f"dt=*/{MANIFEST}")]
    return sorted(
        found, key=lambda one: (one[0].name[3:13], datetime.fromisoformat(one[1]["produced_at"]), one[0].name)
    )
