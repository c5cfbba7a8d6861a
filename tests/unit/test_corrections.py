"""Corrections (校核): the way to the authority, the ruling, and the way back, in both directions and through all four levels."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from connectors.memory import MemoryConnector
from federation.correcting import due_date, shown_state
from federation.errors import FedsyncError, Transient
from federation.ledger.corrections import Correction
from tests.federations import CITY, E11, E12, EAST, EAST_1, RESIDENT, W11, WEST, WEST_1, Small

HOLD = {"datasets/resident.yaml": RESIDENT + "on_correction: hold\n"}


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)


@pytest.fixture
def holding(tmp_path: Path) -> Small:
    return Small(tmp_path, changes=HOLD)


def only(small: Small) -> Correction:
    (correction,) = [
        c
        for c in small.federation.services.corrections.about("resident", "R1")
        if c.state not in ("logged", "withdrawn")
    ]
    return correction


def name_at(small: Small, *regions: str) -> set[str]:
    return {(small.get(region, "R1") or {}).get("name") for region in regions}


def propose(small: Small, region: str = E11, **values: str) -> Correction:
    small.resident("R1")
    small.cascade()
    small.put(region, "R1", **(values or {"name": "王玮"}))
    small.cascade()
    return only(small)


def test_a_proposal_travels_hop_by_hop_to_the_authority_and_waits_there(small: Small) -> None:
    correction = propose(small)
    assert (correction.state, correction.at, correction.target, correction.raised_by) == ("waiting", CITY, CITY, E11)
    assert [region for region, _ in correction.way] == [E11, EAST_1, EAST, CITY]
    assert name_at(small, CITY, EAST, EAST_1, E11) == {"王伟"}
    opened = small.federation.services.corrections.open(correction)
    assert (opened.proposed, opened.current) == ({"name": "王玮"}, {"name": "王伟"})


def test_an_accepted_proposal_is_written_at_the_authority_and_reaches_every_level_and_its_outcome_whoever_raised_it(
    small: Small,
) -> None:
    correction = propose(small)
    ruled = small.federation.rule(correction.correction_id[:12], "accepted", "已核对户口本", "tester")
    assert (ruled.state, ruled.applied, name_at(small, CITY)) == ("accepted", True, {"王玮"})
    small.cascade()
    assert name_at(small, CITY, EAST, EAST_1, E11) == {"王玮"}
    ended = only(small)
    assert (ended.state, ended.at, ended.closed is not None) == ("accepted", E11, True)
    shown = small.store(E11).corrections
    assert [(line["state"], line["reason"]) for line in shown] == [("accepted", "已核对户口本")]


def test_a_rejected_proposal_changes_nothing_and_its_reason_reaches_whoever_raised_it(small: Small) -> None:
    correction = propose(small)
    small.federation.rule(correction.correction_id, "rejected", "以户口本为准", "tester")
    small.cascade()
    assert name_at(small, CITY, EAST, EAST_1, E11) == {"王伟"}
    assert [(line["state"], line["reason"]) for line in small.store(E11).corrections] == [("rejected", "以户口本为准")]


def test_a_proposal_from_above_travels_down_to_the_community_that_owns_the_field(small: Small) -> None:
    correction = propose(small, CITY, phone="13900000000")
    assert (correction.state, correction.at, correction.target) == ("waiting", E11, E11)
    assert (small.get(CITY, "R1") or {})["phone"] == "13800000000"
    small.federation.rule(correction.correction_id, "accepted", "属实", "tester")
    small.cascade()
    assert {(small.get(region, "R1") or {})["phone"] for region in (CITY, EAST, EAST_1, E11)} == {"13900000000"}


def test_a_proposal_of_a_node_in_the_middle_goes_towards_the_authority_only(small: Small) -> None:
    correction = propose(small, EAST, phone="13900000000")
    assert (correction.target, correction.at, correction.raised_by) == (E11, E11, EAST)
    assert [region for region, _ in correction.way] == [EAST, EAST_1, E11]


def test_people_rule_in_their_own_system_and_the_next_run_takes_it_up(small: Small) -> None:
    correction = propose(small)
    (line,) = small.store(CITY).corrections
    assert (line["state"], line["current"], line["proposed"]) == ("waiting", "王伟", "王玮")
    small.store(CITY).rulings[line["correction_id"]] = ("采纳", "情况属实")
    assert small.federation.sweep("resident").parents["city"] == [CITY]
    small.cascade()
    assert name_at(small, CITY, E11) == {"王玮"}
    assert only(small).correction_id == correction.correction_id
    assert "东城" not in str(only(small).ruled_by) and CITY in str(only(small).ruled_by)


def test_a_ruling_on_a_community_field_is_taken_up_from_the_communitys_own_desk(small: Small) -> None:
    correction = propose(small, CITY, phone="13900000000")
    small.store(E11).rulings[correction.correction_id] = ("驳回", "号码未变")
    small.cascade()
    assert only(small).state == "rejected"
    assert (small.get(CITY, "R1") or {})["phone"] == "13800000000"


def test_a_correction_that_has_not_arrived_cannot_be_ruled_on(small: Small) -> None:
    small.resident("R1")
    small.cascade()
    small.put(E11, "R1", name="王玮")
    small.federation.sync_parent("resident", EAST_1)
    correction = only(small)
    assert (correction.state, correction.at) == ("raised", EAST_1)
    with pytest.raises(FedsyncError, match="stands at"):
        small.federation.rule(correction.correction_id, "accepted", "x", "tester")


def test_an_accepted_value_is_written_later_if_the_authority_does_not_answer(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    correction = propose(small)

    def unreachable(self: MemoryConnector, keys: object) -> object:
        raise Transient("no answer", "无响应")

    monkeypatch.setattr(MemoryConnector, "fetch", unreachable)
    monkeypatch.setattr("connectors.retrying.time.sleep", lambda seconds: None)
    with pytest.raises(Transient):
        small.federation.rule(correction.correction_id, "accepted", "属实", "tester")
    monkeypatch.undo()
    assert name_at(small, CITY) == {"王伟"}
    assert any(small.federation.sweep("resident").parents.values())
    small.cascade()
    assert name_at(small, CITY, E11) == {"王玮"}


def test_a_proposal_is_superseded_when_the_authority_changes_the_value_itself(small: Small) -> None:
    propose(small)
    small.put(CITY, "R1", name="王维")
    small.cascade()
    assert only(small).state == "superseded"
    assert name_at(small, CITY, EAST, EAST_1, E11) == {"王维"}


def test_a_proposal_ends_as_accepted_when_the_authority_types_the_same_value(small: Small) -> None:
    propose(small)
    small.put(CITY, "R1", name="王玮")
    small.cascade()
    assert (only(small).state, only(small).closed is not None) == ("accepted", True)


def test_a_newer_proposal_of_the_same_node_takes_the_place_of_the_older(small: Small) -> None:
    first = propose(small)
    small.put(E11, "R1", name="王炜")
    small.cascade()
    states = {c.correction_id: c.state for c in small.federation.services.corrections.about("resident", "R1")}
    assert states.pop(first.correction_id) == "withdrawn"
    assert list(states.values()) == ["waiting"]


def test_the_same_proposal_may_be_made_again_after_it_was_rejected(small: Small) -> None:
    correction = propose(small)
    small.federation.rule(correction.correction_id, "rejected", "不符", "tester")
    small.cascade()
    small.put(E11, "R1", name="王玮")
    small.cascade()
    states = [c.state for c in small.federation.services.corrections.about("resident", "R1")]
    assert states == ["rejected", "waiting"]


def test_under_hold_a_proposal_stands_where_it_was_made_until_it_is_ruled_on(holding: Small) -> None:
    correction = propose(holding)
    assert (name_at(holding, E11), name_at(holding, CITY, EAST, EAST_1)) == ({"王玮"}, {"王伟"})
    holding.federation.rule(correction.correction_id, "rejected", "不符", "tester")
    holding.cascade()
    assert name_at(holding, CITY, EAST, EAST_1, E11) == {"王伟"}
    assert [c.state for c in holding.federation.services.corrections.about("resident", "R1")] == ["rejected"]


def test_under_hold_an_accepted_proposal_of_a_node_in_the_middle_reaches_everybody(holding: Small) -> None:
    correction = propose(holding, EAST)
    assert (name_at(holding, EAST), name_at(holding, CITY, EAST_1, E11)) == ({"王玮"}, {"王伟"})
    holding.federation.rule(correction.correction_id, "accepted", "属实", "tester")
    holding.cascade()
    assert name_at(holding, CITY, EAST, EAST_1, E11) == {"王玮"}
    assert not any(holding.federation.sweep("resident").parents.values())


def test_under_hold_a_proposal_that_its_node_takes_back_ends_by_itself(holding: Small) -> None:
    correction = propose(holding)
    holding.put(E11, "R1", name="王伟")
    holding.cascade()
    (ended,) = holding.federation.services.corrections.about("resident", "R1")
    assert (ended.correction_id, ended.state, ended.closed is not None) == (correction.correction_id, "withdrawn", True)


def test_a_record_entered_by_somebody_not_entitled_is_proposed_and_created_once_accepted(small: Small) -> None:
    small.cascade()
    small.put(E11, "R9", name="赵六", community_code=E11, phone="13800000009", care_level="无")
    small.cascade()
    assert small.holders("R9") == {E11}
    (correction,) = small.federation.services.corrections.about("resident", "R9")
    assert (correction.kind, correction.state, correction.at) == ("create", "waiting", CITY)
    small.federation.rule(correction.correction_id, "accepted", "新迁入", "tester")
    small.cascade()
    assert small.holders("R9") == {CITY, EAST, EAST_1, E11}
    assert (small.get(CITY, "R9") or {})["phone"] == "13800000009"


def test_a_record_entered_in_the_middle_by_somebody_not_entitled_goes_nowhere(small: Small) -> None:
    small.cascade()
    small.put(EAST, "R9", name="赵六", community_code=E11)
    small.cascade()
    assert small.holders("R9") == {EAST}
    (correction,) = small.federation.services.corrections.about("resident", "R9")
    assert (correction.kind, correction.target) == ("create", CITY)


def test_a_proposed_creation_that_is_taken_back_ends_by_itself(small: Small) -> None:
    small.cascade()
    small.put(E11, "R9", name="赵六", community_code=E11)
    small.cascade()
    small.drop(E11, "R9")
    small.cascade()
    assert [c.state for c in small.federation.services.corrections.about("resident", "R9")] == ["withdrawn"]


def test_a_deletion_by_somebody_not_entitled_is_proposed_and_carried_out_once_accepted(small: Small) -> None:
    small.resident("R1")
    small.cascade()
    small.drop(EAST_1, "R1")
    small.cascade()
    assert small.holders("R1") == {CITY, EAST, EAST_1, E11}
    correction = only(small)
    assert (correction.kind, correction.state, correction.at) == ("delete", "waiting", CITY)
    small.federation.rule(correction.correction_id, "accepted", "已迁出", "tester")
    small.cascade()
    assert small.holders("R1") == set()


def test_a_proposal_for_a_record_that_moves_follows_it_to_its_new_authority(small: Small) -> None:
    correction = propose(small, CITY, phone="13900000000")
    assert correction.at == E11
    small.put(CITY, "R1", community_code=W11)
    small.cascade()
    moved = only(small)
    assert (moved.state, moved.at, moved.target) == ("waiting", W11, W11)
    assert [region for region, _ in moved.way][-3:] == [WEST, WEST_1, W11]
    small.federation.rule(moved.correction_id, "accepted", "属实", "tester")
    small.cascade()
    assert {(small.get(region, "R1") or {})["phone"] for region in (CITY, WEST, WEST_1, W11)} == {"13900000000"}


def test_a_proposal_is_told_in_no_plain_text_by_the_ledger(small: Small) -> None:
    propose(small, name="欧阳震华")
    kept = b"".join(path.read_bytes() for path in (small.folder / "state").rglob("*") if path.is_file())
    assert "欧阳震华".encode() not in kept


@pytest.mark.parametrize(
    ("raised", "due"),
    [
        (datetime(2026, 9, 28, 8, tzinfo=UTC), date(2026, 10, 16)),  # over National Day, with a working Saturday
        (datetime(2026, 3, 2, 8, tzinfo=UTC), date(2026, 3, 16)),
    ],
)
def test_a_term_counts_chinese_working_days(raised: datetime, due: date) -> None:
    assert due_date(raised, 10) == due


def test_a_correction_that_nobody_rules_on_in_time_is_overdue_at_both_ends_but_may_still_be_ruled_on(
    small: Small,
) -> None:
    correction = propose(small)
    small.clock.now += timedelta(days=40)
    assert shown_state(correction, small.clock()) == "overdue"
    small.cascade()
    assert [line["state"] for line in small.store(CITY).corrections] == ["overdue"]
    assert [line["state"] for line in small.store(E11).corrections] == ["overdue"]
    small.federation.rule(correction.correction_id, "accepted", "迟到的核实", "tester")
    small.cascade()
    assert name_at(small, E11) == {"王玮"}


def test_what_stands_in_doubt_in_the_middle_leaks_to_no_other_community(small: Small) -> None:
    small.resident("R1", E11)
    small.cascade()
    small.put(EAST_1, "R1", community_code=E12)
    for lower in (E11, E12):
        small.federation.sync_children("resident", EAST_1, [lower], None)
    assert small.holders("R1") == {CITY, EAST, EAST_1, E11}
    small.cascade()
    assert (small.get(EAST_1, "R1") or {})["community_code"] == E11
