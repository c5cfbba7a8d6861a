"""A return (退回) travels to where the record came from, over as many hops as it came, and ends everywhere at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from connectors.memory import MemoryConnector
from federation.cli import app
from federation.errors import Transient
from federation.failpoints import arm, disarm
from federation.ledger.quarantine import Item
from federation.ledger.schema import run
from federation.ledger.store import rows
from tests.federations import CITY, E11, E12, EAST, EAST_1, RESIDENT, SUITE, VISIT, Small

REASON = {"zh": "手机号“{value}”与身份证“{id_number}”不符", "en": "{value!r} does not suit {id_number!r}"}


def rule(kind: str, reason: dict[str, str], condition: str | None = None, **kwargs: Any) -> dict[str, Any]:
    given = kwargs | ({"row_condition": condition, "condition_parser": "great_expectations"} if condition else {})
    return {"type": kind, "severity": "critical", "kwargs": given, "meta": {"reason": reason}}


def suite(*rules: dict[str, Any]) -> str:
    return json.dumps({"name": "resident", "meta": {}, "expectations": list(rules)}, ensure_ascii=False)


PAIR = suite(rule("expect_column_pair_values_to_be_equal", REASON, column_A="phone", column_B="id_number"))
"""It reads a field that only city and district see, so it judges nowhere but between them."""
SHARED = RESIDENT.replace(
    "  care_level:",
    "  seen: {label: 更新时间, type: timestamp, authority: shared}\n  remark: {label: 备注, authority: shared}\n  care_level:",
).replace("suite: resident.json", "suite: resident.json\nversion: seen")
LENIENT = {"ignore_row_if": "either_value_is_missing"}
WRONG = {"zh": "备注有误", "en": "the remark is wrong"}
REMARK = suite(rule("expect_column_pair_values_to_be_equal", WRONG, column_A="remark", column_B="id_number", **LENIENT))
BELOW = RESIDENT.replace(
    "  care_level:", "  remark: {label: 备注, authority: community, visible: [street, community]}\n  care_level:"
)
UNLIKE = {"zh": "姓名与备注“{remark}”不符", "en": "the name does not suit {remark!r}"}
NAMED = suite(rule("expect_column_pair_values_to_be_equal", UNLIKE, column_A="name", column_B="remark", **LENIENT))
"""It judges nowhere but between street and community."""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    made = Small(tmp_path, changes={"expectations/resident.json": PAIR})
    yield made
    made.federation.close()


def shown(small: Small, region: str, dataset: str = "resident") -> list[tuple[str, str]]:
    """Key and state of the returns that a region's people see."""
    key = "resident_id" if dataset == "resident" else "visit_id"
    return [(line[key], line["state"]) for line in small.store(region, dataset).returns]


def item(small: Small, dataset: str = "resident") -> Item:
    (found,) = small.federation.services.quarantine.open_items(dataset=dataset)
    return found


NUMBER = "110101199001010015"


def arrived(small: Small) -> None:
    """R1 everywhere, with a phone that suits its number."""
    small.resident(phone=NUMBER)
    small.cascade()
    assert small.get(E11, "R1") is not None


def test_a_run_that_settled_and_could_not_tell_its_people_says_why_and_tells_them_next_time(small: Small) -> None:
    def gone() -> None:
        raise Transient("the share is gone", "共享目录不可用", todo="稍后重试 / try again later")

    arrived(small)
    small.put(E11, "R1", phone="139")
    arm("notify.before", gone)
    try:
        failed = small.federation.cascade("resident")
    finally:
        disarm()
    assert failed.errors and all("the share is gone" in str(error) for error in failed.errors.values())
    with small.federation.services.ledger.transaction() as connection:
        told = rows(connection, select(run).where(run.c.outcome == "failed"))
    assert any(json.loads(line["counts"])["ascended"] for line in told), "what it did before is kept"
    small.cascade()
    assert shown(small, E11) == [("R1", "open")]


def test_what_a_community_typed_and_fails_at_the_citys_hop_is_returned_to_the_community(small: Small) -> None:
    arrived(small)
    small.put(E11, "R1", phone="139")
    small.cascade()
    stopped = item(small)
    assert (stopped.link_id, stopped.direction, stopped.origin) == (f"resident/{EAST}", "up", E11)
    assert small.get(EAST, "R1")["phone"] == "139" and small.get(CITY, "R1")["phone"] == NUMBER  # type: ignore[index]
    assert shown(small, E11) == [("R1", "open")]
    assert not any(shown(small, region) for region in (CITY, EAST, EAST_1, E12))


def test_a_reason_that_quotes_what_the_origin_may_not_see_is_not_shown_there(small: Small) -> None:
    arrived(small)
    small.put(E11, "R1", phone="139")
    small.cascade()
    (line,) = small.store(E11).returns
    assert NUMBER not in str(line)
    assert (line["field"], line["value"], line["hop"]) == ("phone", "139", "东城区 → 北京市")
    assert "联系上级" in line["reason_zh"] and "ask the level above" in line["reason_en"]
    opened = small.federation.services.quarantine.open(item(small))
    assert NUMBER in opened.reason_zh and set(opened.fields) == {"phone", "id_number"}


def test_the_origins_next_version_that_passes_ends_the_return_everywhere(small: Small) -> None:
    arrived(small)
    small.put(E11, "R1", phone="139")
    small.cascade()
    small.put(E11, "R1", phone=NUMBER)
    small.cascade()
    assert small.federation.services.quarantine.open_items() == []
    assert shown(small, E11) == []
    assert small.federation.sweep("resident").parents == {"city": [], "district": [], "street": []}


def test_what_the_city_holds_and_fails_at_the_last_hop_is_returned_to_the_city(tmp_path: Path) -> None:
    small = Small(tmp_path, changes={"datasets/resident.yaml": BELOW, "expectations/resident.json": NAMED})
    small.resident()
    small.cascade()
    small.put(E11, "R1", remark="王伟")
    small.cascade()
    small.put(CITY, "R1", name="张三")
    small.cascade()
    stopped = item(small)
    assert (stopped.link_id, stopped.direction, stopped.origin) == (f"resident/{E11}", "down", CITY)
    (line,) = small.store(CITY).returns
    assert (line["field"], line["value"], line["hop"]) == ("name", "张三", "东华门街道 → 多福巷社区")
    assert "备注" not in line["reason_zh"], "the city does not see the other field"
    assert not shown(small, EAST_1) and not shown(small, E11)
    small.put(CITY, "R1", name="王伟")
    small.cascade()
    assert small.federation.services.quarantine.open_items() == [] and not shown(small, CITY)
    small.federation.close()


@pytest.mark.parametrize("writer", [E11, EAST_1, EAST])
def test_a_shared_value_is_returned_to_whom_the_receipts_prove_to_have_written_it(tmp_path: Path, writer: str) -> None:
    small = Small(tmp_path, changes={"datasets/resident.yaml": SHARED, "expectations/resident.json": REMARK})
    small.resident()
    small.cascade()
    small.put(writer, "R1", remark="独居", seen=small.clock())
    small.cascade()
    stopped = item(small)
    assert (stopped.link_id, stopped.direction, stopped.origin) == (f"resident/{EAST}", "up", writer)
    assert shown(small, writer) == [("R1", "open")]
    small.put(writer, "R1", remark=NUMBER, seen=small.clock())
    small.cascade()
    assert not shown(small, writer) and small.federation.services.quarantine.open_items() == []
    small.federation.close()


def test_a_return_ends_when_its_record_is_deleted_though_no_link_ever_agreed_on_it(tmp_path: Path) -> None:
    visit = VISIT.replace("originates:", "suite: visit.json\noriginates:")
    bad = suite(rule("expect_column_values_to_match_regex", WRONG, column="summary", regex="^好"))
    small = Small(tmp_path, "cursor", changes={"datasets/visit.yaml": visit, "expectations/visit.json": bad})
    small.put(E11, "V0", "visit", community_code=E11, summary="好")
    small.cascade("visit")
    small.put(E11, "V1", "visit", community_code=E11, summary="坏")
    small.cascade("visit")
    assert shown(small, E11, "visit") == [("V1", "open")]
    small.drop(E11, "V1", "visit")
    small.cascade("visit")
    assert small.federation.services.quarantine.open_items() == [] and not shown(small, E11, "visit")
    small.federation.close()


def test_a_return_ends_when_the_rule_that_it_failed_is_no_more(small: Small, tmp_path: Path) -> None:
    arrived(small)
    small.put(E11, "R1", phone="139")
    small.cascade()
    small.federation.close()
    again = Small(tmp_path, changes={"expectations/resident.json": SUITE.replace("^1[3-9][0-9]{9}$", "^[0-9]*$")})
    again.cascade()
    assert again.federation.services.quarantine.open_items() == [] and not shown(again, E11)
    assert again.get(CITY, "R1")["phone"] == "139"  # type: ignore[index]
    again.federation.close()


def test_the_link_of_an_origin_is_woken_to_tell_it_of_its_returns_and_of_their_end(small: Small) -> None:
    arrived(small)
    small.put(E11, "R1", phone="139")
    small.federation.sync_parent("resident", EAST_1)
    small.federation.sync_parent("resident", EAST)
    small.federation.sync_parent("resident", CITY)
    assert item(small).shown is None and not shown(small, E11)
    assert EAST_1 in small.federation.sweep("resident").parents["street"]
    small.federation.sync_parent("resident", EAST_1)
    assert item(small).shown == "open" and shown(small, E11) == [("R1", "open")]
    small.put(E11, "R1", phone=NUMBER)
    for upper in (EAST_1, EAST, CITY):
        small.federation.sync_parent("resident", upper)
    assert small.federation.services.quarantine.untold("resident") == {E11}
    small.federation.sync_parent("resident", EAST_1)
    assert small.federation.services.quarantine.untold("resident") == set() and not shown(small, E11)


def test_the_list_of_quarantined_records_says_where_each_stopped_and_whither_it_is_returned(small: Small) -> None:
    arrived(small)
    small.put(E11, "R1", phone="139")
    small.cascade()
    asked = CliRunner().invoke(app, ["quarantine", "list", "--file", str(small.folder), "--json"])
    (line,) = json.loads(asked.stdout)
    assert (line["stopped"], line["shown"]) == ("东城区 → 北京市", "open")
    assert line["returned"] == ["东城区", "东华门街道", "多福巷社区"]


def test_a_declaration_that_changed_makes_the_nodes_ready_anew(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a table of returns that is declared later would be missing when it is first needed."""
    arrived(small)
    made: list[str] = []
    monkeypatch.setattr(MemoryConnector, "prepare", lambda self: made.append(self.node.region.code))
    small.cascade(force_full=True)
    assert made == []
    small.federation.close()
    again = Small(tmp_path, changes={"expectations/resident.json": SUITE.replace("^1[3-9][0-9]{9}$", "^[0-9]*$")})
    again.cascade()
    assert {CITY, EAST, EAST_1, E11} <= set(made)
    again.federation.close()
