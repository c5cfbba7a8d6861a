"""Promises that only show when two things meet: found by breaking the engine on purpose (`tests/mutation`)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from connectors.base import Applied, Batch, Capabilities, no_keys
from connectors.memory import MemoryConnector
from federation.accounting import Account
from federation.errors import AccountingError, LinkHeld, Permanent, Transient
from federation.failpoints import arm, disarm
from tests.federations import CITY, E11, E12, EAST, EAST_1, RESIDENT, SUITE, Small

LIMITED = SUITE.replace('"meta": {}', '"meta": {"max_failing_share": 0.5, "min_records": 4}')
SHARED_PHONE = RESIDENT.replace(
    "phone: {label: 手机号, authority: community",
    "at: {label: 版本, type: int, authority: shared}\n  phone: {label: 手机号, authority: shared",
).replace("fields:\n", "version: at\nfields:\n")


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)


def edited_while_written(monkeypatch: pytest.MonkeyPatch, region: str, edit: Callable[[], None]) -> None:
    """Let people edit a node once, between the engine's read and its write there."""
    original, done = MemoryConnector.apply, False

    def late(self: MemoryConnector, batch: Batch) -> Applied:
        nonlocal done
        if self.node.region.code == region and not done:
            done = True
            edit()
        return original(self, batch)

    monkeypatch.setattr(MemoryConnector, "apply", late)


def test_a_value_typed_between_the_read_and_the_write_that_replaces_it_becomes_a_correction(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.resident("R1")
    small.cascade()
    small.put(CITY, "R1", name="王芳")
    edited_while_written(monkeypatch, EAST, lambda: small.put(EAST, "R1", name="王兰"))
    small.cascade()
    assert {(small.get(region, "R1") or {})["name"] for region in (CITY, EAST, EAST_1, E11)} == {"王芳"}
    corrections = small.federation.services.corrections
    assert [corrections.open(c).proposed for c in corrections.about("resident", "R1")] == [{"name": "王兰"}]


def test_an_edit_made_while_the_engine_writes_is_seen_by_the_next_run_though_the_system_cannot_write_conditionally(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Small(tmp_path, "log")
    monkeypatch.setattr(MemoryConnector, "capabilities", property(lambda self: Capabilities(self.options.capture)))
    small.resident("R1")
    small.cascade()
    small.put(CITY, "R1", name="王芳")
    edited_while_written(monkeypatch, E11, lambda: small.put(E11, "R1", phone="13911111111"))
    small.cascade()
    assert (small.get(CITY, "R1") or {})["phone"] == "13911111111"
    assert (small.get(E11, "R1") or {})["name"] == "王芳"


def test_a_record_entered_in_the_middle_reaches_the_levels_below_once_it_was_accepted(small: Small) -> None:
    small.cascade()
    small.put(EAST, "R9", name="赵六", community_code=E11, phone="13800000009")
    small.cascade()
    (correction,) = small.federation.services.corrections.about("resident", "R9")
    small.federation.rule(correction.correction_id, "accepted", "新迁入", "tester")
    small.cascade()
    assert small.holders("R9") == {CITY, EAST, EAST_1, E11}
    assert (small.get(E11, "R9") or {})["phone"] == "13800000009"


def test_a_record_that_was_announced_but_not_delivered_before_a_crash_is_delivered_and_nobody_is_asked(
    small: Small,
) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    small.cascade()
    small.resident("R1")
    arm("intent.noted", die)
    try:
        with pytest.raises(KeyboardInterrupt):
            small.cascade()
    finally:
        disarm()
    assert small.holders("R1") == {CITY}
    small.cascade()
    assert small.holders("R1") == {CITY, EAST, EAST_1, E11}
    assert small.federation.services.corrections.about("resident", "R1") == []


@pytest.mark.parametrize(("old", "new"), [(E11, E12), (E12, E11)])
def test_a_shared_edit_of_a_record_that_moves_to_the_neighbour_arrives_there_whoever_is_synced_first(
    tmp_path: Path, old: str, new: str
) -> None:
    small = Small(tmp_path, changes={"datasets/resident.yaml": SHARED_PHONE})
    small.resident("R1", old, at=1)
    small.cascade()
    small.put(old, "R1", phone="13911111111", at=2)
    small.put(CITY, "R1", community_code=new)
    small.cascade()
    assert small.holders("R1") == {CITY, EAST, EAST_1, new}
    assert {(small.get(region, "R1") or {})["phone"] for region in (CITY, EAST, EAST_1, new)} == {"13911111111"}
    assert not any(small.federation.sweep("resident").parents.values())


def test_a_record_stays_where_it_left_while_the_gate_holds_back_what_its_people_typed_last(tmp_path: Path) -> None:
    small = Small(tmp_path, changes={"datasets/resident.yaml": SHARED_PHONE})
    small.resident("R1", E11, at=1)
    small.cascade()
    small.put(CITY, "R1", community_code=E12)
    small.federation.sync_parent("resident", CITY)
    small.federation.sync_parent("resident", EAST)
    small.put(E11, "R1", phone="139", at=2)
    small.cascade()
    assert (small.get(E11, "R1") or {})["phone"] == "139"
    assert [line["rule"] for line in small.store(E11).returns]
    small.put(E11, "R1", phone="13911111111", at=3)
    small.cascade()
    assert small.holders("R1") == {CITY, EAST, EAST_1, E12}
    assert {(small.get(region, "R1") or {})["phone"] for region in (CITY, EAST, EAST_1, E12)} == {"13911111111"}


def test_a_level_refuses_to_write_a_row_outside_its_jurisdiction(small: Small) -> None:
    with small.federation.node("resident", E11) as connector:
        row = pa.table({"resident_id": ["R1"], "community_code": [E12]})
        with pytest.raises(Permanent, match="outside the node's jurisdiction"):
            connector.apply(Batch((row,), no_keys(connector.node)))
    assert small.get(E11, "R1") is None


def test_deletions_that_were_released_are_not_held_again_on_the_hops_that_pass_them_on(small: Small) -> None:
    for number in range(6):
        small.resident(f"R{number}")
    small.cascade()
    for number in range(6):
        small.drop(CITY, f"R{number}")
    errors = small.federation.cascade("resident").errors
    assert {link: type(error) for link, error in errors.items()} == {f"resident/{EAST}": LinkHeld}
    small.federation.services.links.release(f"resident/{EAST}", "tester")
    small.cascade()
    assert small.holders("R1") == set()


def test_a_link_most_of_whose_records_fail_the_gate_is_held_until_it_is_released(tmp_path: Path) -> None:
    small = Small(tmp_path, changes={"expectations/resident.json": LIMITED})
    for number in range(5):
        small.resident(f"R{number}")
    small.cascade()
    for number in range(5):
        small.put(E11, f"R{number}", phone="139")
    errors = small.federation.cascade("resident").errors
    assert {link: type(error) for link, error in errors.items()} == {f"resident/{E11}": LinkHeld}
    assert "5 of 5 records" in str(errors[f"resident/{E11}"])
    assert small.federation.services.quarantine.open_items() == []
    small.federation.services.links.release(f"resident/{E11}", "tester")
    small.cascade()
    assert len(small.federation.services.quarantine.open_items()) == 5


def test_a_run_whose_numbers_do_not_add_up_fails() -> None:
    with pytest.raises(AccountingError, match="read 3, accounted for 2"):
        Account(read=3, delivered=1, unchanged=1, quarantined=0, held=0, out_of_scope=0).check("upper")


def test_a_deletion_waits_for_a_row_that_cannot_be_read_and_is_carried_out_once_it_can(small: Small) -> None:
    small.resident("R1")
    small.cascade()
    small.put(EAST_1, "R1", care_level="不详")
    small.drop(CITY, "R1")
    small.cascade()
    assert small.holders("R1") == {EAST_1, E11}
    small.put(EAST_1, "R1", care_level="无")
    small.cascade()
    assert small.holders("R1") == set()


def test_while_a_row_without_a_key_stands_in_a_node_no_record_that_is_missing_there_counts_as_deleted(
    small: Small,
) -> None:
    for key in ("R1", "R2"):
        small.resident(key)
    small.cascade()
    small.put(E11, "R1", resident_id=None)
    small.store(E11).rows["R1"]["resident_id"] = None
    small.cascade()
    assert small.federation.services.corrections.about("resident", "R1") == []
    assert [line["rule"] for line in small.store(E11).returns] == ["key:missing"]
    small.put(E11, "R1")
    small.cascade()
    assert (small.get(E11, "R1") or {})["name"] == "王伟"
    assert small.store(E11).returns == []


def test_a_release_lets_one_run_pass_and_no_more(small: Small) -> None:
    for number in range(6):
        small.resident(f"R{number}")
    small.cascade()
    for _ in range(2):
        for number in range(6):
            small.drop(E11, f"R{number}")
        assert set(small.federation.cascade("resident").errors) == {f"resident/{E11}"}
        small.federation.services.links.release(f"resident/{E11}", "tester")
        small.cascade()
        assert small.get(E11, "R1") is not None


def test_a_change_that_a_system_never_told_of_is_found_by_the_next_full_comparison(tmp_path: Path) -> None:
    small = Small(tmp_path, "log")
    small.resident("R1")
    small.cascade()
    small.store(E11).rows["R1"]["phone"] = "13911111111"  # past the change table
    small.cascade()
    assert (small.get(CITY, "R1") or {})["phone"] == "13800000000"
    small.clock.now += timedelta(minutes=small.federation.config.dataset("resident").full_every)
    small.cascade()
    assert (small.get(CITY, "R1") or {})["phone"] == "13911111111"


def test_a_record_that_a_failed_run_brought_half_way_goes_on_over_a_link_that_carries_more_fields(
    tmp_path: Path,
) -> None:
    """The intent of the run below is evidence above, though it says nothing of fields that only the link above carries."""
    resident = RESIDENT.replace("originates: [city]", "originates: [city, community]")
    small = Small(tmp_path, changes={"datasets/resident.yaml": resident})
    small.put(E11, "R9", name="王伟", community_code=E11, phone="13800000000")
    small.federation.sync_parent("resident", EAST_1)

    def cut() -> None:
        raise Transient("the connection was cut", "连接中断")

    arm("upper.apply.after", cut)
    try:
        assert small.federation.sync_parent("resident", EAST).errors
    finally:
        disarm()
    small.cascade()
    assert small.holders("R9") == {CITY, EAST, EAST_1, E11}
