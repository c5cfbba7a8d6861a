"""The region table changes while the federation is at work: another parent, one more community."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from federation.runtime import open_federation
from tests.federations import (
    CITY,
    E11,
    E12,
    E21,
    EAST,
    EAST_1,
    EAST_2,
    W11,
    WEST,
    WEST_1,
    Small,
)

NEW = "110101001003"
PARENTS = [(EAST_2, {CITY, EAST, EAST_2, E12}), (WEST_1, {CITY, WEST, WEST_1, E12})]


@pytest.fixture(params=["mixed", "snapshot"])
def small(tmp_path: Path, request: pytest.FixtureRequest) -> Small:
    return Small(tmp_path, request.param)


def regions(small: Small, *changes: tuple[str, str]) -> None:
    """The region table says something else from now on, to every process that opens the federation."""
    path = small.folder / "regions.csv"
    text = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    small.federation.close()
    small.federation = open_federation(small.folder, clock=small.clock)


def hang(small: Small, parent: str) -> None:
    regions(small, (f"{E12},银闸社区,community,{EAST_1}", f"{E12},银闸社区,community,{parent}"))


def writes(small: Small, region: str, dataset: str = "resident") -> tuple[dict[str, int], dict[str, int]]:
    """When each row of a node was last written, and deleted."""
    store = small.store(region, dataset)
    return dict(store.written), dict(store.deleted)


def settled(small: Small, *datasets: str) -> None:
    """Nothing is left to do: no sweep wakes anybody, and a full comparison moves nothing."""
    for dataset in datasets or ("resident",):
        assert not any(small.federation.sweep(dataset).parents.values())
        result = small.cascade(dataset, force_full=True)
        assert result.moved == 0
        assert result.skipped == {}
    assert small.federation.services.corrections.active() == []
    assert small.federation.services.quarantine.open_items() == []


@pytest.mark.parametrize(("parent", "path"), PARENTS)
def test_a_community_under_another_street_keeps_its_records_where_they_are_and_they_follow_it_above(
    small: Small, parent: str, path: set[str]
) -> None:
    small.resident("R1", E12)
    small.resident("R2", E11)
    small.cascade()
    small.put(E12, "R1", phone="13911111111")
    small.cascade()
    before = writes(small, E12)
    hang(small, parent)
    small.cascade()
    assert small.holders("R1") == path
    assert small.holders("R2") == {CITY, EAST, EAST_1, E11}
    assert {small.get(region, "R1")["phone"] for region in path} == {"13911111111"}  # type: ignore[index]
    assert writes(small, E12) == before
    settled(small)


@pytest.mark.parametrize(("parent", "path"), PARENTS)
def test_what_people_typed_above_and_below_while_the_parent_changed_arrives(
    small: Small, parent: str, path: set[str]
) -> None:
    small.resident("R1", E12)
    small.cascade()
    small.put(E12, "R1", phone="13911111111")
    small.put(CITY, "R1", name="王伟明")
    hang(small, parent)
    small.cascade()
    held = [small.get(region, "R1") or {} for region in path]
    assert {row["phone"] for row in held} == {"13911111111"}
    assert {row["name"] for row in held} == {"王伟明"}
    assert small.holders("R1") == path
    settled(small)


@pytest.mark.parametrize(("parent", "path"), PARENTS)
@pytest.mark.parametrize("order", ["bottom up", "street first"])
def test_an_edit_that_had_come_half_way_is_neither_lost_nor_proposed_whatever_runs_first(
    small: Small, parent: str, path: set[str], order: str
) -> None:
    small.resident("R1", E12)
    small.cascade()
    small.put(E12, "R1", phone="13911111111")
    small.federation.sync_parent("resident", EAST_1)
    assert (small.get(EAST, "R1") or {})["phone"] == "13800000000"
    hang(small, parent)
    uppers = [EAST_1, EAST_2, WEST_1, EAST, WEST, CITY] if order == "bottom up" else [parent]
    for upper in uppers:
        small.federation.sync_parent("resident", upper)
    small.cascade()
    assert small.holders("R1") == path
    assert {(small.get(region, "R1") or {})["phone"] for region in path} == {"13911111111"}
    assert (small.get(E12, "R1") or {})["phone"] == "13911111111"
    settled(small)


@pytest.mark.parametrize(("parent", "path"), PARENTS)
def test_a_correction_that_stands_below_is_still_one_under_the_new_parent(
    small: Small, parent: str, path: set[str]
) -> None:
    small.resident("R1", E12)
    small.cascade()
    small.put(E12, "R1", name="王炜")
    hang(small, parent)
    small.cascade()
    (found,) = small.federation.services.corrections.active("resident")
    assert (found.kind, found.raised_by, found.at, found.state) == ("edit", E12, CITY, "waiting")
    small.federation.rule(found.correction_id, "accepted", "核实无误", "test")
    small.cascade()
    assert {(small.get(region, "R1") or {})["name"] for region in path} == {"王炜"}
    settled(small)


@pytest.mark.parametrize(("parent", "path"), PARENTS)
@pytest.mark.parametrize("reached", [(), (CITY,), (CITY, EAST)])
def test_a_deletion_that_was_on_its_way_down_arrives_through_the_new_parent(
    small: Small, parent: str, path: set[str], reached: tuple[str, ...]
) -> None:
    small.resident("R1", E12)
    small.resident("R2", E12)
    small.cascade()
    small.drop(CITY, "R1")
    for upper in reached:
        small.federation.sync_parent("resident", upper)
    hang(small, parent)
    small.cascade()
    assert small.holders("R1") == set()
    assert small.holders("R2") == path
    settled(small)


@pytest.mark.parametrize(("parent", "path"), PARENTS)
def test_a_record_that_left_the_community_just_before_is_taken_from_it(
    small: Small, parent: str, path: set[str]
) -> None:
    small.resident("R1", E12)
    small.resident("R2", E12)
    small.cascade()
    small.put(CITY, "R1", community_code=W11)
    small.federation.sync_parent("resident", CITY)
    hang(small, parent)
    small.cascade()
    assert small.holders("R1") == {CITY, WEST, WEST_1, W11}
    assert small.holders("R2") == path
    settled(small)


@pytest.mark.parametrize(("parent", "path"), PARENTS)
@pytest.mark.parametrize("up", [True, False])
def test_what_the_community_originates_is_withdrawn_from_the_old_parent(
    small: Small, parent: str, path: set[str], up: bool
) -> None:
    for key in ("V1", "V2"):
        small.put(E12, key, "visit", community_code=E12, visited_on="2026-01-02", summary="平安")
    small.cascade("visit")
    small.put(E12, "V3", "visit", community_code=E12, visited_on="2026-01-03", summary="平安")
    small.put(EAST_1, "V1", "visit", reply="收到")
    small.federation.sync_parent("visit", EAST_1)
    if up:
        small.cascade("visit")
    small.put(E12, "V2", "visit", summary="需要帮助")
    before = set(writes(small, E12, "visit")[1])
    hang(small, parent)
    small.cascade("visit")
    for key in ("V1", "V2", "V3"):
        assert small.holders(key, "visit") == path
    assert {(small.get(region, "V2", "visit") or {})["summary"] for region in path} == {"需要帮助"}
    assert {(small.get(region, "V1", "visit") or {}).get("reply") for region in path} == {"收到"}
    assert set(writes(small, E12, "visit")[1]) == before
    settled(small, "visit")


def test_what_the_old_parent_typed_last_into_its_own_fields_is_carried_to_the_new_one(small: Small) -> None:
    small.put(E12, "V1", "visit", community_code=E12, visited_on="2026-01-02", summary="平安")
    small.cascade("visit")
    small.put(EAST_1, "V1", "visit", reply="收到")
    hang(small, EAST_2)
    small.cascade("visit")
    path = {CITY, EAST, EAST_2, E12}
    assert small.holders("V1", "visit") == path
    assert {(small.get(region, "V1", "visit") or {}).get("reply") for region in path} == {"收到"}
    settled(small, "visit")


def test_a_street_under_another_district_takes_its_communities_along(small: Small) -> None:
    small.resident("R1", E21)
    small.resident("R2", E11)
    small.put(E21, "V1", "visit", community_code=E21, visited_on="2026-01-02", summary="平安")
    for dataset in ("resident", "visit"):
        small.cascade(dataset)
    small.put(E21, "R1", phone="13911111111")
    small.put(E21, "V1", "visit", summary="需要帮助")
    before = writes(small, E21)
    regions(small, (f"{EAST_2},景山街道,street,{EAST}", f"{EAST_2},景山街道,street,{WEST}"))
    for dataset in ("resident", "visit"):
        small.cascade(dataset)
    path = {CITY, WEST, EAST_2, E21}
    assert small.holders("R1") == small.holders("V1", "visit") == path
    assert {(small.get(region, "R1") or {})["phone"] for region in path} == {"13911111111"}
    assert {(small.get(region, "V1", "visit") or {})["summary"] for region in path} == {"需要帮助"}
    assert writes(small, E21) == before
    settled(small, "resident", "visit")


def test_the_link_waits_as_long_as_the_old_way_has_not_settled_and_says_for_what(small: Small) -> None:
    small.resident("R1", E12)
    small.cascade()
    hang(small, EAST_2)
    result = small.federation.sync_parent("resident", EAST_2)
    assert set(result.skipped) == {f"resident/{E12}"}
    assert f"resident/{EAST_2}" in result.skipped[f"resident/{E12}"]
    assert result.errors == {}
    assert small.get(E12, "R1") is not None


def test_the_new_parent_may_not_be_handed_what_lies_outside_its_jurisdiction(small: Small) -> None:
    small.resident("R1", E12)
    small.cascade()
    hang(small, EAST_2)
    small.cascade()
    small.put(EAST_2, "R9", community_code=E11, name="越界")
    small.cascade()
    assert small.holders("R9") == {EAST_2}
    assert small.holders("R1") == {CITY, EAST, EAST_2, E12}


def test_hanging_a_community_back_is_as_good_as_never_having_moved_it(small: Small) -> None:
    small.resident("R1", E12)
    small.cascade()
    before = writes(small, E12)
    hang(small, WEST_1)
    small.federation.sync_parent("resident", CITY)
    regions(small, (f"{E12},银闸社区,community,{WEST_1}", f"{E12},银闸社区,community,{EAST_1}"))
    small.cascade()
    assert small.holders("R1") == {CITY, EAST, EAST_1, E12}
    assert writes(small, E12) == before
    settled(small)


def test_a_community_that_joins_the_table_is_seeded_by_the_next_sweep_without_touching_anybody_else(
    small: Small,
) -> None:
    small.resident("R1", E11)
    small.resident("R2", NEW)
    small.put(NEW, "V1", "visit", community_code=NEW, visited_on="2026-01-02", summary="平安")
    small.cascade()
    small.cascade("visit")
    assert small.holders("R2") == {CITY}
    before = {region: writes(small, region) for region in (E11, E12, E21, W11, WEST, WEST_1)}
    regions(small, (f"{E12},", f"{NEW},新怡社区,community,{EAST_1}\n{E12},"))
    woken = small.federation.sweep("resident").parents
    assert woken == {"city": [CITY], "district": [EAST], "street": [EAST_1]}
    assert small.federation.sweep("visit").parents["street"] == [EAST_1]
    small.cascade()
    small.cascade("visit")
    path = {CITY, EAST, EAST_1, NEW}
    assert small.holders("R2") == small.holders("V1", "visit") == path
    assert {region: writes(small, region) for region in before} == before
    settled(small, "resident", "visit")


def test_nothing_is_lost_if_a_run_dies_between_adopting_and_settling(tmp_path: Path, monkeypatch: Any) -> None:
    small = Small(tmp_path)
    small.resident("R1", E12)
    small.cascade()
    small.put(E12, "R1", phone="13911111111")
    hang(small, EAST_2)
    for upper in (CITY, EAST):
        small.federation.sync_parent("resident", upper)
    original = type(small.federation.services.links).settle
    calls = 0

    def dies(self: Any, connection: Any, lease: Any, **values: Any) -> None:
        nonlocal calls
        if lease.link_id == f"resident/{E12}" and "upper" not in values and (calls := calls + 1) == 1:
            raise KeyboardInterrupt
        original(self, connection, lease, **values)

    monkeypatch.setattr(type(small.federation.services.links), "settle", dies)
    with pytest.raises(KeyboardInterrupt):
        small.federation.sync_parent("resident", EAST_2)
    monkeypatch.undo()
    small.cascade()
    path = {CITY, EAST, EAST_2, E12}
    assert small.holders("R1") == path
    assert {(small.get(region, "R1") or {})["phone"] for region in path} == {"13911111111"}
    settled(small)


@pytest.mark.parametrize("typed", [False, True])
def test_a_street_that_leaves_the_table_hands_its_communities_over_all_the_same(small: Small, typed: bool) -> None:
    small.resident("R1", E21)
    small.cascade()
    small.put(E21, "R1", phone="13911111111")
    if typed:
        small.put(EAST_2, "R1", name="王炜")
        small.federation.sync_parent("resident", EAST)
        (found,) = small.federation.services.corrections.active("resident")
        assert found.raised_by == EAST_2
    regions(
        small,
        (f"{EAST_2},景山街道,street,{EAST}\n", ""),
        (f"{E21},隆福寺社区,community,{EAST_2}", f"{E21},隆福寺社区,community,{EAST_1}"),
    )
    small.cascade()
    path = {CITY, EAST, EAST_1, E21}
    assert small.holders("R1") == path
    assert {(small.get(region, "R1") or {})["phone"] for region in path} == {"13911111111"}
    assert not any(small.federation.sweep("resident").parents.values())


def test_what_people_typed_while_the_table_lacked_their_region_arrives_once_it_is_back(small: Small) -> None:
    small.resident("R1", E12)
    small.resident("R2", E12)
    small.cascade()
    line = f"{E12},银闸社区,community,{EAST_1}\n"
    regions(small, (line, ""))
    small.cascade()
    assert small.holders("R1") == {CITY}, "of the nodes that are declared"
    small.put(E12, "R1", phone="13911111111")
    small.drop(CITY, "R2")
    regions(small, (f"{E11},", f"{line}{E11},"))
    small.cascade()
    assert {(small.get(region, "R1") or {})["phone"] for region in (CITY, EAST, EAST_1, E12)} == {"13911111111"}
    assert small.holders("R2") == set(), "what was deleted meanwhile stays deleted"
    settled(small)
