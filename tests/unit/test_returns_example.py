"""A record that the city's hop refuses is returned to the community's own workbook, table or platform, mended there, and ends everywhere."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook

from examples.beijing.build import PLATFORMS, create
from examples.beijing.servers import Platforms, serving
from federation.federation import Federation
from federation.runtime import open_federation

WORKBOOK, LEDGER, STREET = "110101005001", "110101001002", "110101005000"
"""海运仓社区, whose street has a platform behind HTTP; 银闸社区 with a database of its own; 北新桥街道."""
CHECKED = {
    "type": "expect_column_values_to_not_match_regex",
    "severity": "critical",
    "kwargs": {
        "column": "phone",
        "regex": "^13000000",
        "row_condition": {"type": "nullity", "column": {"name": "id_number"}, "is_null": False},
    },
    "meta": {"reason": {"zh": "该号段尚未启用，现为 {value}，请核对", "en": "nobody has such a number yet: {value}"}},
}
"""Judges only where the id number is at hand, which this declaration shows to city and district alone: between these two."""
DECENT = {
    "type": "expect_column_values_to_not_match_regex",
    "severity": "critical",
    "kwargs": {"column": "reply", "regex": "^略$"},
    "meta": {"reason": {"zh": "回复不能只写“{value}”，请写明处理情况", "en": "a reply must say what was done"}},
}


@dataclass
class Beijing:
    federation: Federation
    platforms: Platforms

    @property
    def home(self) -> Path:
        return self.federation.config.home

    def cascade(self, dataset: str = "resident") -> None:
        result = self.federation.cascade(dataset)
        assert not result.errors, {place: str(error) for place, error in result.errors.items()}

    def stopped(self, dataset: str = "resident") -> list[tuple[str, str]]:
        """Which link stopped something, and whose it is."""
        return [(i.link_id, i.origin) for i in self.federation.services.quarantine.open_items(dataset=dataset)]

    def in_the_citys_registry(self, column: str, table: str, number: str, key: str = "rkbh") -> Any:
        with closing(sqlite3.connect(self.home / "data/city/registry.db")) as city:
            return city.execute(f"SELECT {column} FROM {table} WHERE {key} = ?", (number,)).fetchone()[0]


def add_rule(folder: Path, suite: str, rule: dict[str, Any]) -> None:
    path = folder / "expectations" / suite
    held = json.loads(path.read_text(encoding="utf-8"))
    held["expectations"].append(rule)
    path.write_text(json.dumps(held, ensure_ascii=False), encoding="utf-8")


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def beijing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beijing]:
    folder = create(tmp_path_factory.mktemp("samples") / "beijing", residents=60)
    replace(folder / "datasets/resident.yaml", "visible: [city, district, street]", "visible: [city, district]")
    replace(folder / "federation.yaml", "id_number: idNumber, ", "")
    add_rule(folder, "resident.json", CHECKED)
    add_rule(folder, "visit.json", DECENT)
    with serving(folder / PLATFORMS) as platforms, pytest.MonkeyPatch.context() as environment:
        environment.setenv("HOTLINE_URL", platforms.hotline.url)
        environment.setenv("HOTLINE_TOKEN", platforms.hotline_token)
        environment.setenv("STREET_URL", platforms.street.url)
        environment.setenv("STREET_TOKEN", platforms.street_token)
        made = Beijing(open_federation(folder), platforms)
        made.cascade()
        yield made
        made.federation.close()


def test_a_returned_row_is_shown_fixed_and_closed_through_the_samples_real_workbook(beijing: Beijing) -> None:
    path = beijing.home / "data" / beijing.federation.config.tree[WORKBOOK].name / "居民.xlsx"
    book = load_workbook(path)
    sheet = book["数据"]
    headers = [cell.value for cell in sheet[1]]
    number = sheet.cell(2, headers.index("居民编号") + 1).value
    sheet.cell(2, headers.index("手机号") + 1).value = "13000000001"
    book.save(path)
    beijing.cascade()
    assert beijing.stopped() == [("resident/110101000000", WORKBOOK)], "street and district have taken it"
    assert beijing.in_the_citys_registry("lxdh", "t_rkjbxx", number) != "13000000001"

    book = load_workbook(path)
    sheet = book["退回待改"]
    titles = [cell.value for cell in sheet[1]]
    (line,) = sheet.iter_rows(min_row=2)
    told = dict(zip(titles, (cell.value for cell in line)))
    assert (told["居民编号"], told["字段"], told["现值"]) == (number, "手机号", "13000000001")
    assert told["原因"] == "该号段尚未启用，现为 13000000001，请核对" and "such a number" in told["Reason"]
    assert sheet.protection.sheet and [title for title, cell in zip(titles, line) if not cell.protection.locked] == [
        "改为"
    ]
    line[titles.index("改为")].value = "13900000001"
    book.save(path)
    beijing.cascade()
    assert beijing.in_the_citys_registry("lxdh", "t_rkjbxx", number) == "13900000001"
    book = load_workbook(path)
    assert "退回待改" not in book.sheetnames
    assert book["数据"].cell(2, headers.index("手机号") + 1).value == "13900000001"
    assert beijing.stopped() == [] and beijing.federation.services.quarantine.untold("resident") == set()


def test_a_returned_row_stands_in_the_table_beside_a_communitys_own_and_goes_when_it_is_mended(
    beijing: Beijing,
) -> None:
    with closing(sqlite3.connect(beijing.home / "data/yinzha/ledger.db")) as people:
        (number,) = people.execute("SELECT min(编号) FROM 居民").fetchone()
        people.execute("UPDATE 居民 SET 电话 = '13000000002' WHERE 编号 = ?", (number,))
        people.commit()
        beijing.cascade()
        asked = "SELECT 编号, field, rule, reason_zh, hop, state FROM 居民_returns"
        ((key, field, rule, reason, hop, state),) = people.execute(asked).fetchall()
        assert (key, field, state) == (number, "电话", "open") and "号段" in reason and rule
        assert hop == "东城区 → 北京市"
        people.execute("UPDATE 居民 SET 电话 = '13900000002' WHERE 编号 = ?", (number,))
        people.commit()
        beijing.cascade()
        assert people.execute(asked).fetchall() == []
    assert beijing.in_the_citys_registry("lxdh", "t_rkjbxx", number) == "13900000002"


def test_a_street_is_told_by_a_call_to_its_platform_and_once_more_when_it_is_over(beijing: Beijing) -> None:
    beijing.cascade("visit")
    street = beijing.platforms.street
    key, *_ = street.records.page("visits", offset=0, limit=1)[0][0]
    street.records.put("visits", key, {"reply": {"text": "略", "by": "王主任"}}, merge=True)
    beijing.cascade("visit")
    assert {origin for _, origin in beijing.stopped("visit")} == {STREET}
    told = street.returns["visits"]
    assert {(line["visitId"], line["field"], line["state"]) for line in told} == {(key, "reply.text", "open")}
    assert {line["hop"] for line in told} == {"北新桥街道 → 东城区", "北新桥街道 → 海运仓社区居委会"}
    assert {line["reason_zh"] for line in told} == {"回复不能只写“略”，请写明处理情况"}
    street.records.put("visits", key, {"reply": {"text": "已上门，联系家属"}}, merge=True)
    beijing.cascade("visit")
    assert {line["state"] for line in street.returns["visits"]} <= {"closed"}
    assert beijing.stopped("visit") == [] and beijing.federation.services.quarantine.untold("visit") == set()
    assert beijing.in_the_citys_registry("jzhf", "t_zfjl", key, "zfbh") == "已上门，联系家属"
