"""A dataset and a way to open it over HTTP, for the tests of the REST connector."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from connectors.base import Batch, Node
from connectors.rest import RestConnector
from connectors.retrying import Budget, Retrier
from federation import canonical
from federation.contract import Dataset
from federation.regions import Region

REGION = Region("110101001000", "东华门街道", "street", "110101000000")
PEOPLE = Dataset.model_validate(
    {
        "name": "people",
        "label": "人员",
        "levels": ["street", "community"],
        "key": ["id"],
        "jurisdiction": "area",
        "originates": ["street"],
        "fields": {
            "id": {"label": "编号", "authority": "street"},
            "area": {"label": "社区代码", "authority": "street"},
            "name": {"label": "姓名", "authority": "street"},
            "phone": {"label": "手机号", "authority": "community"},
        },
    }
)


def node(url: str, dataset: Dataset = PEOPLE, columns: dict[str, str] | None = None, **options: Any) -> Node:
    given = {"base_url": url, "path": "/people", "token": "t", "timeout": [2, 2], **options}
    return Node(dataset, REGION, "platform", given, tuple(dataset.fields), columns or {})


def rest(url: str, *, retrier: Retrier | None = None, **options: Any) -> RestConnector:
    return RestConnector(node(url, **options), retrier)


def patient(pauses: list[float]) -> Retrier:
    """A retrier that notes its pauses instead of sleeping."""
    return Retrier(Budget(), sleep=pauses.append, jitter=lambda: 0.0)


def person(key: str, **values: Any) -> dict[str, Any]:
    return {"id": key, "area": "110101001001", "name": f"姓名{key}", "phone": None, **values}


def upserts(*rows: dict[str, Any], dataset: Dataset = PEOPLE) -> Batch:
    names = [name for name in dataset.fields if name in rows[0]]
    key = canonical.schema(dataset, dataset.key).empty_table()
    return Batch((pa.Table.from_pylist(list(rows), schema=canonical.schema(dataset, names)),), key)


def deletes(*keys: str) -> Batch:
    return Batch((), canonical.key_table(list(keys), PEOPLE))


def keys(*texts: str) -> pa.Table:
    return canonical.key_table(list(texts), PEOPLE)


def ids(table: pa.Table) -> list[str]:
    return sorted(table.column("id").to_pylist())
