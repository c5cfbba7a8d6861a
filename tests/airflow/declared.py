"""A small federation that lives on disk, so that other processes see the same records: every node is hosted by the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from connectors.base import Batch, no_keys
from federation.federation import Federation
from federation.runtime import open_federation
from tests.federations import CITY, E11, EAST, EAST_1, REGIONS, RESIDENT, SUITE, VISIT, written

NEVER = 'schedule: "0 0 29 2 *"\n'
ORDER = """
name: work_order
label: 工单
levels: [city, street]
key: [order_id]
jurisdiction: street_code
originates: [city]
fields:
  order_id: {label: 工单号, authority: city}
  street_code: {label: 街道代码, authority: city}
  result: {label: 办理结果, authority: street}
"""
BRANCH = (CITY, EAST, EAST_1, E11)


def declare(folder: Path, **more: str) -> Path:
    """Write the declaration; its top file."""
    files = {
        "federation.yaml": "name: small\n",
        "regions.csv": REGIONS,
        "datasets/resident.yaml": RESIDENT + NEVER,
        "datasets/visit.yaml": VISIT + NEVER,
        "datasets/work_order.yaml": ORDER + NEVER,
        "expectations/resident.json": SUITE,
        **more,
    }
    written(folder, files)
    return folder / "federation.yaml"


class Hands:
    """What the people at the nodes do, through the same connectors that the engine uses."""

    def __init__(self, declaration: Path) -> None:
        self.federation: Federation = open_federation(declaration)

    def put(self, region: str, key: str, **values: Any) -> None:
        with self.federation.node("resident", region) as node:
            node.prepare()
            row = {"resident_id": key, **values}
            node.apply(Batch((pa.table({name: [value] for name, value in row.items()}),), no_keys(node.node)))

    def drop(self, region: str, key: str) -> None:
        with self.federation.node("resident", region) as node:
            node.apply(Batch((), pa.table({"resident_id": [key]})))

    def get(self, region: str, key: str) -> dict[str, Any]:
        with self.federation.node("resident", region) as node:
            rows = node.changes(None).rows.to_pylist()
        return next((row for row in rows if row["resident_id"] == key), {})

    def resident(self, key: str, community: str = E11, **values: Any) -> None:
        given = {"name": "王伟", "id_number": "1", "phone": "13800000000", "care_level": "无", **values}
        self.put(CITY, key, community_code=community, **given)

    def settle(self) -> None:
        """Bring the federation to rest, so that a test starts without news."""
        result = self.federation.cascade("resident")
        assert not result.errors, {link: str(error) for link, error in result.errors.items()}
        assert not any(self.federation.sweep("resident").parents.values())
