"""The partition mapper: whose run does a region's news start, and does that survive Airflow's serialization?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from airflow.sdk import Asset, PartitionedAssetTimetable
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from fedsync_plugin import FedsyncPlugin, RegionAt

from tests.federations import CITY, E11, EAST, EAST_1, REGIONS, W11, WEST

pytestmark = pytest.mark.usefixtures("declaration")


@pytest.mark.parametrize(
    ("level", "key", "expected"),
    [
        ("street", E11, [EAST_1]),
        ("street", EAST_1, [EAST_1]),
        ("district", E11, [EAST]),
        ("district", W11, [WEST]),
        ("city", E11, [CITY]),
        ("street", EAST, []),
        ("street", CITY, []),
        ("community", "999999999999", []),
        ("city", "", []),
    ],
)
def test_a_region_wakes_the_region_above_it_at_the_level_and_nobody_else(
    level: str, key: str, expected: list[str]
) -> None:
    found = RegionAt(level).to_downstream(key)
    assert ([found] if isinstance(found, str) else list(found)) == expected


def test_the_siblings_news_are_one_partition_of_their_parent() -> None:
    keys = {RegionAt("district").to_downstream(code) for code in (EAST_1, E11, "110101002001")}
    assert keys == {EAST}


def test_a_region_table_that_changed_on_disk_is_read_again(declaration: Path) -> None:
    mapper = RegionAt("street")
    assert mapper.to_downstream("110102001003") == []
    table = declaration.parent / "regions.csv"
    table.write_text(REGIONS + "110102001003,新社区,community,110102001000\n", encoding="utf-8")
    os.utime(table, ns=(1, 1))  # a coarse clock may not tell the two writes apart
    assert mapper.to_downstream("110102001003") == "110102001000"


def test_the_plugin_registers_the_mapper_in_airflow() -> None:
    from airflow import plugins_manager

    assert RegionAt in FedsyncPlugin.partition_mappers
    assert f"{RegionAt.__module__}.{RegionAt.__qualname__}" in plugins_manager.get_partition_mapper_plugins()


def test_the_mapper_survives_airflows_serialization_with_the_real_plugins_folder() -> None:
    above, below = Asset("x__street__from_above"), Asset("x__community__from_below")
    mapper = RegionAt("street", max_downstream_keys=1)
    timetable = PartitionedAssetTimetable(assets=above | below, partition_mapper_config={above: mapper, below: mapper})
    again = decode_timetable(encode_timetable(timetable))
    for asset in (above, below):
        read = again.get_partition_mapper(name=asset.name, uri=asset.uri)
        assert type(read).__qualname__ == "RegionAt"
        assert (read.level, read.max_downstream_keys) == ("street", 1)
        assert read.to_downstream(E11) == EAST_1
