"""The whole sample at work: every connector, all four levels, real files, databases and HTTP servers."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook

from examples.beijing.build import PLATFORMS, create
from examples.beijing.servers import serving
from federation.federation import Federation
from federation.runtime import open_federation

DATASETS = ("resident", "visit", "facility", "work_order")
COMMUNITY = "110102001004"


@pytest.fixture(scope="module")
def beijing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = create(tmp_path_factory.mktemp("samples") / "beijing", residents=120)
    with serving(folder / PLATFORMS) as platforms, pytest.MonkeyPatch.context() as environment:
        environment.setenv("HOTLINE_URL", platforms.hotline.url)
        environment.setenv("HOTLINE_TOKEN", platforms.hotline_token)
        environment.setenv("STREET_URL", platforms.street.url)
        environment.setenv("STREET_TOKEN", platforms.street_token)
        federation = open_federation(folder)
        for dataset in DATASETS:
            cascaded(federation, dataset)
        yield federation
        federation.close()


def cascaded(federation: Federation, dataset: str) -> int:
    result = federation.cascade(dataset)
    assert not result.errors, {place: str(error) for place, error in result.errors.items()}
    return result.moved


def held(federation: Federation, dataset: str, region: str) -> dict[str, dict[str, Any]]:
    with federation.node(dataset, region) as node:
        found = node.changes(None)
    assert found.rejects.num_rows == 0
    key = federation.config.dataset(dataset).key[0]
    return {row[key]: row for row in found.rows.to_pylist()}


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_node_holds_the_authoritys_value_of_each_field_it_may_see_and_of_its_own_area_only(
    beijing: Federation, dataset: str
) -> None:
    config = beijing.config
    contract = config.dataset(dataset)
    top = held(beijing, dataset, config.tree.at("city")[0].code)
    assert top
    for level in contract.levels[1:]:
        routes = config.tree.routes(level)
        for region in config.tree.at(level):
            fields = contract.fields_at(level)
            expected = {
                key: {name: row[name] for name in fields}
                for key, row in top.items()
                if routes[row[contract.jurisdiction]] == region.code
            }
            assert held(beijing, dataset, region.code) == expected, str(region)


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_second_cascade_moves_nothing(beijing: Federation, dataset: str) -> None:
    assert cascaded(beijing, dataset) == 0


def test_what_a_community_corrects_in_its_workbook_reaches_the_citys_registry(beijing: Federation) -> None:
    home = beijing.config.home
    path = home / "data/府右街南社区居委会/居民.xlsx"
    book = load_workbook(path)
    sheet = book["数据"]
    headers = [cell.value for cell in sheet[1]]
    number = sheet.cell(2, headers.index("居民编号") + 1).value
    sheet.cell(2, headers.index("手机号") + 1).value = "199 0000 9999"
    book.save(path)
    assert cascaded(beijing, "resident") == 3  # one row on each of three links, all the way up
    with closing(sqlite3.connect(home / "data/city/registry.db")) as city:
        assert city.execute("SELECT lxdh FROM t_rkjbxx WHERE rkbh = ?", (number,)).fetchone() == ("19900009999",)


def test_care_passes_a_district_whose_platform_has_no_column_for_it(beijing: Federation) -> None:
    home = beijing.config.home
    (number, row), *_ = held(beijing, "resident", COMMUNITY).items()
    level = "一般" if row["care_level"] != "一般" else "重点"
    with closing(sqlite3.connect(home / "data/city/registry.db")) as city:
        before = city.execute("SELECT xm FROM t_rkjbxx WHERE rkbh = ?", (number,)).fetchone()
    path: Path = home / "data/府右街南社区居委会/居民.xlsx"
    book = load_workbook(path)
    sheet = book["数据"]
    headers = [cell.value for cell in sheet[1]]
    at = next(cells[0].row for cells in sheet.iter_rows(min_row=2) if number in [cell.value for cell in cells])
    sheet.cell(at, headers.index("关爱等级") + 1).value = level
    sheet.cell(at, headers.index("关爱备注") + 1).value = "每周上门"
    book.save(path)
    cascaded(beijing, "resident")
    with closing(sqlite3.connect(home / "data/city/registry.db")) as city:
        found = city.execute("SELECT xm, gadj, gabz FROM t_rkjbxx WHERE rkbh = ?", (number,)).fetchone()
    assert found == (*before, level, "每周上门")
