"""The scope of a level: no row of another jurisdiction passes, whatever the system's query returned, and none is ever written."""

from __future__ import annotations

import uuid
from typing import Any

import pyarrow as pa
import pytest

from connectors.base import Batch, Node, no_keys
from connectors.level import LevelConnector, Scope
from connectors.memory import MemoryConnector
from connectors.nodes import LEVEL_CONNECTORS
from federation.canonical import key_table, schema
from federation.errors import Permanent
from federation.regions import Region
from tests.contract.dataset import SAMPLE

CITY = Region("110000000000", "北京市", "city", None)
DISTRICT = Region("110101000000", "东城区", "district", CITY.code)
STREET = Region("110101001000", "东华门街道", "street", DISTRICT.code)
COMMUNITY = Region("110101001001", "多福巷社区", "community", STREET.code)
SIBLING = "110101001002"
LINE = [CITY.code, DISTRICT.code, STREET.code, COMMUNITY.code]


def guarded(region: Region) -> LevelConnector:
    """A node of this region over a store of its own. In scope: the region and what of the line lies below it."""
    below = LINE[LINE.index(region.code) :]
    node = Node(SAMPLE, region, "store", {"store": uuid.uuid4().hex}, tuple(SAMPLE.fields))
    inner = MemoryConnector(node)
    return LEVEL_CONNECTORS[region.level](inner, Scope(dict.fromkeys(below, region.code)))


def put(connector: LevelConnector, key: str, place: str | None) -> None:
    store = connector.inner.store  # type: ignore[attr-defined]
    store.put(key, {"record_id": key, "community_code": place, "name": key})


def upserts(*rows: dict[str, Any]) -> Batch:
    names = list(rows[0])
    written = pa.Table.from_pylist(list(rows), schema(SAMPLE, names))
    return Batch((written,), key_table([], SAMPLE))


@pytest.mark.parametrize("region", [CITY, DISTRICT, STREET, COMMUNITY], ids=lambda region: region.level)
@pytest.mark.parametrize("how", ["changes", "fetch"])
def test_rows_beyond_the_scope_are_set_apart_even_if_the_system_returned_them(region: Region, how: str) -> None:
    connector = guarded(region)
    put(connector, "inside", COMMUNITY.code)
    strays = {"elsewhere": "120101001001", "nonsense": "x", "nowhere": None}
    if region is COMMUNITY:
        strays |= {"sibling": SIBLING, "above": STREET.code}
    for key, place in strays.items():
        put(connector, key, place)
    keys = key_table(["inside", *strays], SAMPLE)
    found = connector.changes(None) if how == "changes" else connector.fetch(keys)
    assert found.rows.column("record_id").to_pylist() == ["inside"]
    assert found.outside is not None
    assert set(found.outside.column("record_id").to_pylist()) == set(strays)


@pytest.mark.parametrize("region", [CITY, DISTRICT, STREET, COMMUNITY], ids=lambda region: region.level)
def test_rows_beyond_the_scope_are_not_found_by_their_values(region: Region) -> None:
    connector = guarded(region)
    for key, place in {"inside": COMMUNITY.code, "elsewhere": "120101001001", "nowhere": None}.items():
        put(connector, key, place)
    found = connector.holding("name", pa.array(["inside", "elsewhere", "nowhere"]))
    assert found.column("record_id").to_pylist() == ["inside"]


@pytest.mark.parametrize("place", [SIBLING, STREET.code, "120101001001", None])
def test_a_row_beyond_the_scope_is_never_written_nor_are_the_others_of_its_batch(place: str | None) -> None:
    connector = guarded(COMMUNITY)
    rows = [{"record_id": "good", "community_code": COMMUNITY.code}, {"record_id": "stray", "community_code": place}]
    with pytest.raises(Permanent, match="属地") as caught:
        connector.apply(upserts(*rows))
    assert caught.value.where["region"] == str(COMMUNITY)
    assert connector.inner.changes(None).rows.num_rows == 0


def test_rows_within_the_scope_and_columns_without_a_jurisdiction_are_written() -> None:
    connector = guarded(COMMUNITY)
    assert connector.apply(upserts({"record_id": "good", "community_code": COMMUNITY.code})).written == 1
    assert connector.apply(upserts({"record_id": "good", "note": "电话已核"})).written == 1
    (row,) = connector.changes(None).rows.to_pylist()
    assert (row["community_code"], row["note"]) == (COMMUNITY.code, "电话已核")
    assert connector.apply(Batch((), no_keys(connector.node))).written == 0


def test_a_levels_connector_serves_no_other_level() -> None:
    node = Node(SAMPLE, STREET, "store", {"store": "level"}, tuple(SAMPLE.fields))
    with pytest.raises(AssertionError):
        LEVEL_CONNECTORS["community"](MemoryConnector(node), Scope({}))
