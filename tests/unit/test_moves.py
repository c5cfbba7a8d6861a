"""Moves (属地变更), deletions and contested keys, in the orders in which they really meet."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.errors import FedsyncError
from tests.federations import (
    CITY,
    E11,
    E12,
    E21,
    EAST,
    EAST_1,
    EAST_2,
    RESIDENT,
    VISIT,
    W11,
    WEST,
    WEST_1,
    Small,
)

OLD = {CITY, EAST, EAST_1, E11}
PLACES = [(E12, {CITY, EAST, EAST_1, E12}), (E21, {CITY, EAST, EAST_2, E21}), (W11, {CITY, WEST, WEST_1, W11})]


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)


def phones(small: Small, regions: set[str], key: str = "R1") -> set[str]:
    return {(small.get(region, key) or {}).get("phone") for region in regions}


@pytest.mark.parametrize(("place", "path"), PLACES)
def test_a_move_takes_along_what_the_old_community_typed_before_it_knew(
    small: Small, place: str, path: set[str]
) -> None:
    small.resident("R1", E11)
    small.cascade()
    small.put(CITY, "R1", community_code=place)
    small.put(E11, "R1", phone="13911111111")
    small.cascade()
    assert small.holders("R1") == path
    assert phones(small, path) == {"13911111111"}


@pytest.mark.parametrize(("place", "path"), PLACES)
def test_an_edit_that_had_come_half_way_when_the_record_moved_is_carried_as_well(
    small: Small, place: str, path: set[str]
) -> None:
    small.resident("R1", E11)
    small.cascade()
    small.put(E11, "R1", phone="13911111111")
    small.federation.sync_parent("resident", EAST_1)
    small.put(E11, "R1", phone="13922222222")
    small.put(CITY, "R1", community_code=place)
    small.federation.sync_parent("resident", CITY)
    small.cascade()
    assert small.holders("R1") == path
    assert phones(small, path) == {"13922222222"}


def test_what_the_new_community_typed_is_never_overwritten_by_the_old_ones_late_edit(small: Small) -> None:
    small.resident("R1", E11)
    small.cascade()
    small.put(CITY, "R1", community_code=W11)
    for upper in (CITY, WEST, WEST_1):
        small.federation.sync_parent("resident", upper)
    small.put(W11, "R1", phone="13933333333")
    small.put(E11, "R1", phone="13911111111")
    small.cascade()
    assert phones(small, {CITY, WEST, WEST_1, W11}) == {"13933333333"}
    (late,) = small.federation.services.corrections.active("resident")
    assert (late.kind, late.state, late.at) == ("carry", "waiting", W11)


def test_a_record_that_moves_there_and_back_keeps_what_was_typed_last(small: Small) -> None:
    small.resident("R1", E11)
    small.cascade()
    small.put(CITY, "R1", community_code=W11)
    for upper in (CITY, WEST, WEST_1):
        small.federation.sync_parent("resident", upper)
    small.put(W11, "R1", phone="13933333333")
    for upper in (WEST_1, WEST, CITY):
        small.federation.sync_parent("resident", upper)
    small.put(CITY, "R1", community_code=E11)
    small.cascade()
    assert small.holders("R1") == OLD
    assert phones(small, OLD) == {"13933333333"}


def test_a_move_of_a_record_whose_change_is_quarantined_keeps_the_change_for_whoever_can_mend_it(small: Small) -> None:
    small.resident("R1", E11)
    small.cascade()
    small.put(E11, "R1", phone="1391111")
    small.cascade()
    (item,) = small.federation.services.quarantine.open_items()
    small.put(CITY, "R1", community_code=W11)
    small.cascade()
    assert small.holders("R1") == {CITY, WEST, WEST_1, W11}
    assert small.federation.services.quarantine.open(item).record["phone"] == "1391111"


SHARED = RESIDENT.replace(
    "phone: {label: 手机号, authority: community", "phone: {label: 手机号, authority: shared"
).replace("fields:\n", "version: edit\nfields:\n  edit: {label: 版本, type: int, authority: shared}\n")


@pytest.mark.parametrize("capture", ["mixed", "snapshot", "cursor", "log"])
@pytest.mark.parametrize(("old", "new"), [(E11, E12), (E12, E11), (E11, W11), (W11, E11)])
def test_a_shared_edit_made_just_before_a_move_arrives_at_the_new_place_as_well(
    tmp_path: Path, capture: str, old: str, new: str
) -> None:
    small = Small(tmp_path, capture, changes={"datasets/resident.yaml": SHARED})
    small.resident("R1", old, edit=1)
    small.cascade()
    small.put(old, "R1", phone="13911111111", edit=2)
    small.put(CITY, "R1", community_code=new)
    small.cascade()
    assert phones(small, small.holders("R1")) == {"13911111111"}
    assert old not in small.holders("R1")


def test_a_retraction_that_waited_for_a_quarantined_shared_edit_goes_on_once_that_is_mended(tmp_path: Path) -> None:
    small = Small(tmp_path, changes={"datasets/resident.yaml": SHARED})
    small.resident("R1", E11, edit=1)
    small.cascade()
    small.put(E11, "R1", phone="1391111", edit=2)
    small.put(CITY, "R1", community_code=E12)
    small.cascade()
    assert small.get(E11, "R1") is not None
    small.put(E11, "R1", phone="13911111111", edit=3)
    small.cascade()
    assert small.holders("R1") == {CITY, EAST, EAST_1, E12}
    assert phones(small, {CITY, EAST, EAST_1, E12}) == {"13911111111"}


def test_a_record_that_a_community_originated_is_moved_by_the_city(tmp_path: Path) -> None:
    visit = VISIT.replace(
        "community_code: {label: 社区代码, authority: community}", "community_code: {label: 社区代码, authority: city}"
    )
    small = Small(tmp_path, "log", changes={"datasets/visit.yaml": visit})
    small.put(E11, "V1", "visit", community_code=E11, summary="好")
    small.cascade("visit")
    small.put(CITY, "V1", "visit", community_code=W11)
    small.cascade("visit")
    assert small.holders("V1", "visit") == {CITY, WEST, WEST_1, W11}
    assert small.federation.services.corrections.active("visit") == []


def test_a_deletion_beats_a_concurrent_edit_which_is_kept_in_the_log(small: Small) -> None:
    small.resident("R1")
    small.cascade()
    small.drop(CITY, "R1")
    small.put(E11, "R1", phone="13911111111")
    small.cascade()
    assert small.holders("R1") == set()
    (lost,) = small.federation.services.corrections.active("resident", state="logged")
    assert small.federation.services.corrections.open(lost).proposed["phone"] == "13911111111"


def test_a_deletion_leaves_tombstones_until_every_link_has_acted_on_it(small: Small) -> None:
    small.resident("R1")
    small.cascade()
    small.drop(CITY, "R1")
    small.federation.sync_parent("resident", CITY)
    stones = small.federation.services.tombstones
    (stone,) = stones.about("resident", "R1")
    assert (stone.region, stone.kind, stone.link_id, stone.acknowledged) == (
        EAST,
        "deleted",
        f"resident/{EAST_1}",
        None,
    )
    small.cascade()
    assert {s.region for s in stones.about("resident", "R1")} == {EAST, EAST_1, E11}
    assert all(s.acknowledged for s in stones.about("resident", "R1"))


def test_a_record_created_anew_after_its_deletion_is_delivered_whole(small: Small) -> None:
    small.resident("R1")
    small.cascade()
    small.drop(CITY, "R1")
    small.cascade()
    small.resident("R1", name="新人", phone="13700000000")
    small.cascade()
    assert small.holders("R1") == OLD
    assert phones(small, OLD) == {"13700000000"}


def test_a_record_created_anew_before_the_deletion_had_arrived_shows_the_new_values_everywhere(small: Small) -> None:
    small.resident("R1")
    small.cascade()
    small.drop(CITY, "R1")
    small.federation.sync_parent("resident", CITY)
    small.resident("R1", phone="13700000000")
    small.cascade()
    assert small.holders("R1") == OLD
    assert phones(small, OLD) == {"13700000000"}


def test_a_record_deleted_in_the_middle_comes_back_with_the_communitys_unsent_edit(small: Small) -> None:
    small.resident("R1")
    small.cascade()
    small.drop(EAST_1, "R1")
    small.put(E11, "R1", phone="13911111111")
    small.federation.sync_children("resident", EAST_1, [E11], None)
    assert small.get(E11, "R1") is not None
    small.cascade()
    assert phones(small, OLD) == {"13911111111"}


def test_two_communities_that_claim_one_key_are_held_for_their_common_parent(small: Small) -> None:
    for community in (E11, E12):
        small.put(community, "V1", "visit", community_code=community, summary=f"来自{community}")
    small.cascade("visit")
    (contest,) = small.federation.services.contests.standing("visit")
    assert (contest.parent, contest.incumbent, contest.challenger) == (EAST_1, E11, E12)
    assert (small.get(CITY, "V1", "visit") or {})["summary"] == f"来自{E11}"
    assert (small.get(E12, "V1", "visit") or {})["summary"] == f"来自{E12}"


def test_communities_of_two_districts_are_held_for_the_city(small: Small) -> None:
    for community in (E11, W11):
        small.put(community, "V1", "visit", community_code=community, summary=f"来自{community}")
    small.cascade("visit")
    (contest,) = small.federation.services.contests.standing("visit")
    assert (contest.parent, contest.incumbent, contest.challenger) == (CITY, EAST, WEST)
    assert small.holders("V1", "visit") == {CITY, EAST, EAST_1, E11, WEST, WEST_1, W11}


def test_a_key_awarded_to_the_challenger_takes_its_record_everywhere_and_keeps_the_other_in_the_log(
    small: Small,
) -> None:
    for community in (E11, W11):
        small.put(community, "V1", "visit", community_code=community, summary=f"来自{community}")
    small.cascade("visit")
    contests = small.federation.services.contests
    (contest,) = contests.standing("visit")
    contests.rule(contest, WEST, "tester", "西城先登记")
    assert any(small.federation.sweep("visit").parents.values())
    small.cascade("visit")
    assert small.holders("V1", "visit") == {CITY, WEST, WEST_1, W11}
    assert (small.get(CITY, "V1", "visit") or {})["summary"] == f"来自{W11}"
    assert contests.standing("visit") == []
    logged = small.federation.services.corrections.active("visit", state="logged")
    assert any(small.federation.services.corrections.open(c).proposed.get("summary") == f"来自{E11}" for c in logged)


def test_a_key_refused_to_the_challenger_is_returned_to_it_and_free_once_it_gives_it_up(small: Small) -> None:
    for community in (E11, E12):
        small.put(community, "V1", "visit", community_code=community, summary=f"来自{community}")
    small.cascade("visit")
    contests = small.federation.services.contests
    (contest,) = contests.standing("visit")
    with pytest.raises(FedsyncError, match="does not claim"):
        contests.rule(contest, W11, "tester", "x")
    contests.rule(contest, E11, "tester", "多福巷先登记")
    small.cascade("visit")
    (item,) = small.federation.services.quarantine.open_items(dataset="visit")
    assert (item.origin, item.rule) == (E12, "contest:refused")
    assert [line["rule"] for line in small.store(E12, "visit").returns] == ["contest:refused"]
    small.drop(E12, "V1", "visit")
    small.cascade("visit")
    assert contests.standing("visit") == []
    assert small.federation.services.quarantine.open_items(dataset="visit") == []


def test_a_contest_ends_by_itself_when_the_first_holder_deletes_its_record(small: Small) -> None:
    for community in (E11, E12):
        small.put(community, "V1", "visit", community_code=community, summary=f"来自{community}")
    small.cascade("visit")
    small.drop(E11, "V1", "visit")
    small.cascade("visit")
    assert small.holders("V1", "visit") == {CITY, EAST, EAST_1, E12}
    assert small.federation.services.contests.standing("visit") == []


LATEST = VISIT.replace(
    "fields:\n", "version: at\non_contest: latest\nfields:\n  at: {label: 版本, type: int, authority: community}\n"
)


@pytest.mark.parametrize(("first", "second", "winner"), [(1, 2, E12), (2, 1, E11)])
def test_under_the_policy_latest_the_later_record_wins(tmp_path: Path, first: int, second: int, winner: str) -> None:
    small = Small(tmp_path, "log", changes={"datasets/visit.yaml": LATEST})
    for community, at in ((E11, first), (E12, second)):
        small.put(community, "V1", "visit", community_code=community, summary=f"来自{community}", at=at)
    small.cascade("visit")
    assert (small.get(CITY, "V1", "visit") or {})["summary"] == f"来自{winner}"
    assert small.get(winner, "V1", "visit") is not None


def test_a_record_typed_by_a_community_under_a_key_of_the_citys_is_not_delivered_there(small: Small) -> None:
    small.resident("R1", E11)
    small.cascade()
    small.put(W11, "R1", name="冒名", community_code=W11)
    small.cascade()
    small.cascade(force_full=True)
    assert (small.get(CITY, "R1") or {})["name"] == "王伟"
    assert (small.get(W11, "R1") or {})["name"] == "冒名"
    (told,) = small.federation.services.corrections.about("resident", "R1")
    assert (told.kind, told.state, told.raised_by) == ("create", "superseded", W11)


def test_a_record_that_its_authority_deleted_does_not_come_back_though_a_node_in_the_middle_lost_it_as_well(
    small: Small,
) -> None:
    small.resident("R1")
    small.resident("R2")
    small.cascade()
    small.drop(CITY, "R1")
    small.drop(EAST, "R1")
    small.cascade()
    assert small.holders("R1") == set()
    assert small.federation.services.corrections.active("resident") == []
    assert small.cascade(force_full=True).moved == 0


def test_a_record_that_moved_does_not_come_back_though_its_old_district_lost_it_as_well(small: Small) -> None:
    small.resident("R1", E11)
    small.resident("R2", E11)
    small.cascade()
    small.put(CITY, "R1", community_code=W11)
    small.put(E11, "R1", phone="13911111111")
    small.drop(EAST, "R1")
    small.cascade()
    path = PLACES[2][1]
    assert small.holders("R1") == path
    assert phones(small, path) == {"13911111111"}
    assert small.federation.services.contests.standing("resident") == []


def test_a_visit_that_its_community_deleted_does_not_come_back_though_the_street_lost_it_as_well(small: Small) -> None:
    for key in ("V1", "V2"):
        small.put(E11, key, dataset="visit", community_code=E11, summary="独居", visited_on=None, reply=None)
    small.cascade("visit")
    assert small.holders("V1", "visit") == OLD
    small.drop(E11, "V1", dataset="visit")
    small.drop(EAST_1, "V1", dataset="visit")
    small.federation.sync_parent("visit", EAST_1)
    small.cascade("visit")
    assert small.holders("V1", "visit") == set()
