"""The engine end to end on memory stores: what travels, what does not, and what comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.errors import LinkHeld
from tests.federations import CITY, E11, E12, EAST, EAST_1, W11, WEST, WEST_1, Small


@pytest.fixture(params=["snapshot", "cursor", "log"])
def small(tmp_path: Path, request: pytest.FixtureRequest) -> Small:
    return Small(tmp_path, request.param)


def test_a_record_reaches_exactly_the_nodes_of_its_jurisdiction(small: Small) -> None:
    small.resident("R1", E11)
    small.cascade()
    assert small.holders("R1") == {CITY, EAST, EAST_1, E11}


def test_the_first_delivery_seeds_every_visible_field_and_no_other(small: Small) -> None:
    small.resident("R1", E11)
    small.cascade()
    row = small.get(E11, "R1")
    assert row is not None
    assert (row["name"], row["phone"], row["care_level"]) == ("王伟", "13800000000", "无")
    assert "id_number" not in row
    assert "id_number" not in (small.get(EAST_1, "R1") or {})
    assert (small.get(EAST, "R1") or {})["id_number"] == "110101199001010015"


def test_an_edit_by_the_city_reaches_the_community(small: Small) -> None:
    small.resident()
    small.cascade()
    small.put(CITY, "R1", name="王芳")
    small.cascade()
    assert (small.get(E11, "R1") or {})["name"] == "王芳"


def test_an_edit_by_the_community_reaches_the_city(small: Small) -> None:
    small.resident()
    small.cascade()
    small.put(E11, "R1", phone="13911111111")
    small.cascade()
    assert (small.get(CITY, "R1") or {})["phone"] == "13911111111"


def test_edits_of_different_fields_at_both_ends_both_arrive(small: Small) -> None:
    small.resident()
    small.cascade()
    small.put(CITY, "R1", name="王芳")
    small.put(E11, "R1", phone="13911111111")
    small.cascade()
    for region in (CITY, EAST, EAST_1, E11):
        row = small.get(region, "R1") or {}
        assert (row["name"], row["phone"]) == ("王芳", "13911111111")


def test_running_again_changes_nothing(small: Small) -> None:
    small.resident()
    small.cascade()
    before = small.store(E11).clock
    assert small.cascade().moved == 0
    assert small.cascade(force_full=True).moved == 0
    assert small.store(E11).clock == before


def test_an_edit_of_a_field_that_is_not_ones_own_is_reverted_and_becomes_a_correction(small: Small) -> None:
    small.resident()
    small.cascade()
    small.put(E11, "R1", name="错误")
    small.cascade()
    assert (small.get(E11, "R1") or {})["name"] == "王伟"
    assert (small.get(CITY, "R1") or {})["name"] == "王伟"
    assert small.federation.services.corrections.counts() == {f"resident/{E11}": 1}


def test_an_edit_above_of_a_community_field_is_reverted_and_becomes_a_correction(small: Small) -> None:
    small.resident()
    small.cascade()
    small.put(CITY, "R1", phone="13700000000")
    small.cascade()
    assert (small.get(CITY, "R1") or {})["phone"] == "13800000000"
    assert (small.get(E11, "R1") or {})["phone"] == "13800000000"
    assert small.federation.services.corrections.counts() == {f"resident/{EAST}": 1}


def test_a_record_deleted_by_the_city_disappears_everywhere(small: Small) -> None:
    for number in range(5):
        small.resident(f"R{number}")
    small.cascade()
    small.drop(CITY, "R1")
    small.cascade()
    assert small.holders("R1") == set()
    assert small.holders("R2") == {CITY, EAST, EAST_1, E11}


def test_a_record_deleted_by_a_community_that_may_not_comes_back(small: Small) -> None:
    for number in range(5):
        small.resident(f"R{number}")
    small.cascade()
    small.drop(E11, "R1")
    small.cascade()
    assert small.holders("R1") == {CITY, EAST, EAST_1, E11}
    assert small.federation.services.corrections.counts() == {f"resident/{E11}": 1}


def test_a_record_created_by_a_community_that_may_not_is_held_and_goes_nowhere(small: Small) -> None:
    small.put(E11, "R9", name="新来", community_code=E11)
    small.cascade()
    assert small.holders("R9") == {E11}
    assert small.federation.services.corrections.counts() == {f"resident/{E11}": 1}


def test_a_record_that_originates_below_ascends_and_the_reply_descends(small: Small) -> None:
    small.put(E11, "V1", "visit", community_code=E11, visited_on="2026-01-05", summary="一切正常")
    small.cascade("visit")
    assert small.holders("V1", "visit") == {CITY, EAST, EAST_1, E11}
    small.put(EAST_1, "V1", "visit", reply="已阅")
    small.cascade("visit")
    assert (small.get(E11, "V1", "visit") or {})["reply"] == "已阅"
    assert (small.get(CITY, "V1", "visit") or {})["reply"] == "已阅"


def test_a_record_that_moves_to_another_district_leaves_the_old_branch_with_its_community_fields(small: Small) -> None:
    for number in range(5):
        small.resident(f"R{number}")
    small.cascade()
    small.put(E11, "R1", phone="13911111111")
    small.cascade()
    small.put(CITY, "R1", community_code=W11)
    small.cascade()
    assert small.holders("R1") == {CITY, WEST, WEST_1, W11}
    assert (small.get(W11, "R1") or {})["phone"] == "13911111111"


def test_a_record_that_moves_to_the_neighbouring_community_leaves_only_the_old_one(small: Small) -> None:
    for number in range(5):
        small.resident(f"R{number}")
    small.cascade()
    small.put(CITY, "R1", community_code=E12)
    small.cascade()
    assert small.holders("R1") == {CITY, EAST, EAST_1, E12}


def test_a_failing_record_is_quarantined_returned_and_released_when_it_is_mended(small: Small) -> None:
    small.resident("R1")
    small.resident("R2")
    small.cascade()
    small.put(E11, "R1", phone="1380000")
    small.put(E11, "R2", phone="13922222222")
    small.cascade()
    assert {(small.get(region, "R1") or {})["phone"] for region in (CITY, EAST, EAST_1)} == {"13800000000"}
    assert (small.get(CITY, "R2") or {})["phone"] == "13922222222"
    returned = small.store(E11).returns
    assert [(row["resident_id"], row["value"]) for row in returned] == [("R1", "1380000")]
    assert "11 位数字" in returned[0]["reason_zh"]
    small.put(E11, "R1", phone="13933333333")
    small.cascade()
    assert (small.get(CITY, "R1") or {})["phone"] == "13933333333"
    assert small.store(E11).returns == []
    assert small.federation.services.quarantine.open_items() == []


def test_a_value_that_cannot_be_typed_is_returned_and_stops_nobody_else(small: Small) -> None:
    small.put(E11, "V1", "visit", community_code=E11, visited_on="昨天", summary="门锁")
    small.put(E11, "V2", "visit", community_code=E11, visited_on="2026-01-05", summary="好")
    small.cascade("visit")
    assert small.holders("V1", "visit") == {E11}
    assert small.holders("V2", "visit") == {CITY, EAST, EAST_1, E11}
    assert [row["visit_id"] for row in small.store(E11, "visit").returns] == ["V1"]
    small.put(E11, "V1", "visit", visited_on="2026-01-06")
    small.cascade("visit")
    assert small.holders("V1", "visit") == {CITY, EAST, EAST_1, E11}
    assert small.store(E11, "visit").returns == []


def test_a_record_of_another_community_typed_into_a_sheet_goes_nowhere_and_is_returned(small: Small) -> None:
    small.put(E11, "V1", "visit", community_code=W11, visited_on="2026-01-05", summary="越界")
    small.cascade("visit")
    assert small.holders("V1", "visit") == {E11}
    assert [row["rule"] for row in small.store(E11, "visit").returns] == ["scope:outside"]


def test_a_suddenly_emptied_side_stops_its_link_only_until_it_is_released(small: Small) -> None:
    for number in range(6):
        small.resident(f"R{number}")
        small.resident(f"S{number}", W11)
    small.cascade()
    for number in range(6):
        small.drop(E11, f"R{number}")
    small.put(CITY, "S1", name="王芳")
    result = small.federation.cascade("resident")
    assert set(result.errors) == {f"resident/{E11}"}
    assert isinstance(result.errors[f"resident/{E11}"], LinkHeld)
    assert (small.get(W11, "S1") or {})["name"] == "王芳"
    small.federation.services.links.release(f"resident/{E11}", "tester")
    small.cascade()
    assert small.holders("R1") == {CITY, EAST, EAST_1, E11}


def test_every_run_accounts_for_everything_it_read(small: Small) -> None:
    for number in range(4):
        small.resident(f"R{number}")
    small.put(E11, "X", name="新来", community_code=E11)
    result = small.cascade()
    for outcome in result.outcomes:
        for account in outcome.accounts.values():
            parts = [account[name] for name in ("delivered", "unchanged", "quarantined", "held", "out_of_scope")]
            assert account["read"] == sum(parts)
    first = next(o for o in result.outcomes if o.link_id == f"resident/{E11}" and o.descended)
    assert (first.accounts["upper"]["delivered"], first.accounts["lower"]["held"]) == (4, 1)


def test_one_bad_record_among_twenty_thousand_delays_no_other(small: Small) -> None:
    for number in range(20_000):
        small.resident(f"R{number:05d}", E11)
    small.resident("R07777", E11, phone="139")
    small.cascade()
    assert len(small.store(E11).rows) == 19_999
    assert small.holders("R07777") == {CITY}
    (item,) = small.federation.services.quarantine.open_items(dataset="resident")
    assert item.key == "R07777"
