"""The three-way merge: each row of its decision table, on tables made by hand."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from federation.contract import Dataset, LinkContract
from federation.merge import Plan, Rulings, Side, advance, merge, side_schema

NO_KEYS = pa.array([], pa.string())
FIELDS = {
    "id": {"label": "编号", "authority": "city"},
    "area": {"label": "属地", "authority": "city"},
    "own": {"label": "自有", "authority": "street"},
    "both": {"label": "共有", "authority": "shared"},
    "at": {"label": "版本", "type": "int", "authority": "shared"},
}


def contract(**changes: Any) -> LinkContract:
    declared = {
        "name": "d",
        "label": "数据",
        "levels": ["city", "street"],
        "key": ["id"],
        "jurisdiction": "area",
        "originates": ["city"],
        "version": "at",
        "fields": FIELDS,
        **changes,
    }
    return LinkContract(Dataset.model_validate(declared), "city", "street")


def row(
    key: str,
    city: str = "1",
    street: str = "1",
    shared: str = "1",
    *,
    state: str = "have",
    version: int | None = None,
    **told: bool,
) -> dict[str, Any]:
    absent = state == "gone"
    return {
        "key": key,
        "state": state,
        "version": version,
        **told,
        **{
            f"fp_{name}": None if absent else value.encode() * 16
            for name, value in (("city", city), ("street", street), ("shared", shared))
        },
    }


FPS = [("fp_city", pa.binary()), ("fp_street", pa.binary()), ("fp_shared", pa.binary())]


def side(*rows: dict[str, Any], complete: bool = True, frozen: tuple[str, ...] = ()) -> Side:
    table = pa.Table.from_pylist(list(rows), schema=side_schema(contract().groups))
    return Side(table, complete, pa.array(frozen, pa.string()))


def gone(key: str = "a", **told: bool) -> dict[str, Any]:
    return row(key, state="gone", **told)


def base(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=pa.schema([("key", pa.string()), *FPS]))


def decide(baseline: pa.Table, upper: Side, lower: Side, link: LinkContract | None = None) -> dict[str, Any]:
    plan = merge(baseline, upper, lower, link or contract())
    found = plan.decisions.to_pylist()
    assert len(found) <= 1
    return found[0] if found else {}


def test_nothing_changed_means_no_decision() -> None:
    assert decide(base(row("a")), side(row("a")), side(row("a"))) == {}


def test_a_change_above_of_a_descending_group_goes_down() -> None:
    found = decide(base(row("a")), side(row("a", city="2")), side(row("a")))
    assert (found["move_city"], found["raise_city"], found["move_street"]) == (2, "", 0)


def test_a_change_below_of_a_descending_group_is_proposed_and_restored() -> None:
    found = decide(base(row("a")), side(row("a")), side(row("a", city="2")))
    assert (found["move_city"], found["raise_city"]) == (2, "lower")


def test_under_the_policy_hold_a_proposal_stays_where_it_is() -> None:
    found = decide(base(row("a")), side(row("a")), side(row("a", city="2")), contract(on_correction="hold"))
    assert (found["move_city"], found["raise_city"]) == (0, "lower")


def test_when_both_ends_changed_the_authority_wins_and_the_other_value_is_proposed() -> None:
    found = decide(base(row("a")), side(row("a", city="2")), side(row("a", city="3")))
    assert (found["move_city"], found["raise_city"]) == (2, "lower")
    found = decide(base(row("a")), side(row("a", street="2")), side(row("a", street="3")))
    assert (found["move_street"], found["raise_street"]) == (3, "upper")


def test_the_same_change_at_both_ends_only_moves_the_baseline() -> None:
    plan = merge(base(row("a")), side(row("a", city="2")), side(row("a", city="2")), contract())
    assert plan.moving("down").num_rows == plan.moving("up").num_rows == 0
    assert advance(plan, NO_KEYS, NO_KEYS).upserts.to_pylist()[0]["fp_city"] == b"2" * 16


@pytest.mark.parametrize(
    ("upper_version", "lower_version", "move", "lost"),
    [(2, 1, 2, "lower"), (1, 2, 3, "upper"), (1, 1, 3, "upper"), (None, 1, 3, "upper"), (1, None, 2, "lower")],
)
def test_of_two_edits_of_a_shared_group_the_later_wins_and_ties_go_to_the_lower_end(
    upper_version: int | None, lower_version: int | None, move: int, lost: str
) -> None:
    found = decide(
        base(row("a")),
        side(row("a", shared="2", version=upper_version)),
        side(row("a", shared="3", version=lower_version)),
    )
    assert (found["move_shared"], found["lost_shared"]) == (move, lost)


def test_a_single_edit_of_a_shared_group_travels_from_where_it_was_made() -> None:
    assert decide(base(row("a")), side(row("a", shared="2")), side(row("a")))["move_shared"] == 2
    assert decide(base(row("a")), side(row("a")), side(row("a", shared="2")))["move_shared"] == 3


def test_a_record_that_an_end_is_entitled_to_create_is_delivered_whole() -> None:
    assert decide(base(), side(row("a", entitled=True)), side())["action"] == "seed_down"
    assert decide(base(), side(), side(row("a", entitled=True)))["action"] == "seed_up"


def test_a_record_created_below_by_somebody_not_entitled_is_held_where_a_level_above_rules_on_it() -> None:
    found = decide(base(), side(), side(row("a")))
    assert (found["action"], found["correction"], found["raised_by"]) == ("hold_lower", "create", "lower")


def test_a_record_created_above_by_somebody_not_entitled_is_held_where_a_level_below_rules_on_it() -> None:
    found = decide(base(), side(row("a")), side(), contract(originates=["street"]))
    assert (found["action"], found["correction"], found["raised_by"]) == ("hold_upper", "create", "upper")


def test_a_record_that_only_another_hop_can_rule_on_waits() -> None:
    plan = merge(base(), side(), side(row("a")), contract(originates=["street"]))
    assert plan.decisions.num_rows == 0
    assert plan.waiting.to_pylist() == [{"key": "a", "side": "lower"}]


def test_a_deletion_by_an_end_entitled_to_it_is_carried_out_at_the_other() -> None:
    assert decide(base(row("a")), side(gone(entitled=True)), side(row("a")))["action"] == "delete_down"
    assert decide(base(row("a")), side(row("a")), side(gone(entitled=True)))["action"] == "delete_up"


def test_a_deletion_by_somebody_else_is_a_correction_and_the_row_comes_back() -> None:
    found = decide(base(row("a")), side(row("a")), side(gone()))
    assert (found["action"], found["correction"], found["raised_by"]) == ("seed_down", "delete", "lower")
    found = decide(base(row("a")), side(gone()), side(row("a")))
    assert (found["action"], found["correction"], found["raised_by"]) == ("seed_up", "delete", "upper")


def test_a_row_missing_above_that_a_link_beyond_still_knows_waits_for_that_link() -> None:
    plan = merge(base(row("a")), side(gone(beyond=True)), side(row("a")), contract())
    assert plan.decisions.num_rows == 0
    assert plan.waiting.to_pylist() == [{"key": "a", "side": "upper"}]


def test_an_edit_that_loses_to_a_deletion_is_kept_in_the_log() -> None:
    found = decide(base(row("a")), side(gone(entitled=True)), side(row("a", street="2")))
    assert (found["action"], found["lost_street"]) == ("delete_down", "lower")
    found = decide(base(row("a")), side(row("a", city="2")), side(gone(entitled=True)))
    assert (found["action"], found["lost_city"]) == ("delete_up", "upper")


def test_gone_at_both_ends_is_forgotten() -> None:
    plan = merge(base(row("a")), side(), side(), contract())
    assert advance(plan, NO_KEYS, NO_KEYS).removed.to_pylist() == ["a"]


def test_a_record_that_left_for_another_child_is_retracted_and_its_last_edits_are_carried_to_its_new_place() -> None:
    plan = merge(base(row("a")), side(row("a", city="2", state="left")), side(row("a", street="2")), contract())
    assert plan.removing("down").to_pylist() == ["a"]
    assert plan.moving("up").num_rows == 0
    assert plan.decisions.to_pylist()[0]["carry_street"] == "lower"


def test_a_record_that_moved_away_above_is_removed_and_its_last_edits_are_carried() -> None:
    found = decide(base(row("a")), side(gone(entitled=True, moved=True)), side(row("a", street="2")))
    assert (found["action"], found["carry_street"], found["lost_street"]) == ("delete_down", "lower", "")


def test_a_shared_edit_of_a_record_that_left_ascends_unless_the_parent_has_a_later_one() -> None:
    found = decide(base(row("a")), side(row("a", state="left", version=1)), side(row("a", shared="2", version=2)))
    assert (found["action"], found["move_shared"], found["lost_shared"]) == ("retract", 3, "")
    found = decide(
        base(row("a")), side(row("a", shared="3", state="left", version=9)), side(row("a", shared="2", version=2))
    )
    assert (found["move_shared"], found["lost_shared"]) == (0, "lower")


def test_what_came_back_to_a_branch_is_newer_above_than_the_copy_left_below() -> None:
    found = decide(base(row("a")), side(row("a", street="2", arrived=True)), side(row("a")))
    assert (found["move_street"], found["raise_street"], found["carry_street"]) == (2, "", "")
    found = decide(base(row("a")), side(row("a", street="2", arrived=True)), side(row("a", street="3")))
    assert (found["move_street"], found["carry_street"]) == (2, "lower")


def test_a_key_that_another_child_holds_is_contested_and_nothing_is_overwritten() -> None:
    plan = merge(base(), side(row("a", state="left")), side(row("a", city="2", entitled=True)), contract())
    assert plan.acting("contest").to_pylist() == ["a"]
    assert plan.moving("up").num_rows == plan.moving("down").num_rows == 0
    assert advance(plan, NO_KEYS, NO_KEYS).upserts.num_rows == 0


def test_a_contested_key_that_was_awarded_below_replaces_the_record_above_which_is_kept_in_the_log() -> None:
    rulings = Rulings(pa.table({"key": NO_KEYS, "group": NO_KEYS, "fp": pa.array([], pa.binary())}), pa.array(["a"]))
    upper, lower = side(row("a", state="left")), side(row("a", city="2", entitled=True))
    found = merge(base(), upper, lower, contract(), rulings).decisions.to_pylist()[0]
    assert (found["action"], found["lost_city"], found["lost_street"]) == ("seed_up", "upper", "")


@pytest.mark.parametrize(("above", "below", "action"), [(1, 2, "seed_up"), (2, 1, "contest"), (1, 1, "contest")])
def test_under_the_policy_latest_the_later_claim_wins_and_ties_stay(above: int, below: int, action: str) -> None:
    upper, lower = side(row("a", state="left", version=above)), side(row("a", version=below, entitled=True))
    assert decide(base(), upper, lower, contract(on_contest="latest"))["action"] == action


def relay(**changes: Any) -> LinkContract:
    """The hop district → street of a dataset whose `city` and `community` fields pass through both ends."""
    fields = {**FIELDS, "own": {"label": "自有", "authority": "community"}}
    levels = ["city", "district", "street", "community"]
    declared = {"name": "d", "label": "数据", "levels": levels, "key": ["id"], "jurisdiction": "area", "version": "at"}
    declared |= {"originates": ["city"], "fields": fields, **changes}
    return LinkContract(Dataset.model_validate(declared), "district", "street")


def relayed(key: str, city: str = "1", community: str = "1", **told: Any) -> dict[str, Any]:
    held = row(key, city, **told)
    return {name.replace("street", "community"): value for name, value in held.items()} | {
        "fp_community": None if held["state"] == "gone" else community.encode() * 16
    }


def test_what_a_node_in_the_middle_holds_in_doubt_goes_nowhere_and_waits() -> None:
    link = relay()
    schema = side_schema(link.groups)

    def end(*rows: dict[str, Any]) -> Side:
        return Side(pa.Table.from_pylist(list(rows), schema=schema), True, NO_KEYS)

    known = pa.Table.from_pylist(
        [relayed("a")], schema=pa.schema([field for field in schema if field.name == "key" or field.name[:3] == "fp_"])
    )
    plan = merge(known, end(relayed("a", city="2", doubt_city=True)), end(relayed("a")), link)
    assert (plan.decisions.num_rows, plan.waiting.to_pylist()) == (0, [{"key": "a", "side": "upper"}])
    plan = merge(known, end(relayed("a")), end(relayed("a", community="2", doubt_community=True)), link)
    assert (plan.decisions.num_rows, plan.waiting.to_pylist()) == (0, [{"key": "a", "side": "lower"}])
    new = merge(known.slice(0, 0), end(relayed("a", entitled=True, doubt_city=True)), end(), link)
    assert (new.decisions.num_rows, new.waiting.to_pylist()) == (0, [{"key": "a", "side": "upper"}])


def test_under_the_policy_hold_a_refused_proposal_is_put_back_and_not_raised_again() -> None:
    refused = pa.table({"key": ["a"], "group": ["city"], "fp": pa.array([b"2" * 16], pa.binary())})
    link, upper = contract(on_correction="hold"), side(row("a"))
    lower = side(row("a", city="2"))
    found = merge(base(row("a")), upper, lower, link, Rulings(refused, NO_KEYS)).decisions.to_pylist()[0]
    assert (found["move_city"], found["raise_city"]) == (2, "")
    other = side(row("a", city="3"))
    found = merge(base(row("a")), upper, other, link, Rulings(refused, NO_KEYS)).decisions.to_pylist()[0]
    assert (found["move_city"], found["raise_city"]) == (0, "lower")


def test_what_the_gate_blocked_stays_as_the_baseline_has_it() -> None:
    plan = merge(base(row("a")), side(row("a", city="2")), side(row("a", street="2")), contract())
    after = advance(plan, NO_KEYS, pa.array(["a"])).upserts.to_pylist()[0]
    assert (after["fp_city"], after["fp_street"]) == (b"2" * 16, b"1" * 16)


def test_a_blocked_first_delivery_is_not_agreed_on() -> None:
    plan = merge(base(), side(row("a", entitled=True)), side(), contract())
    after = advance(plan, pa.array(["a"]), NO_KEYS)
    assert after.upserts.num_rows == 0
    assert len(after.removed) == 0


def test_a_key_that_cannot_be_read_is_left_alone() -> None:
    assert decide(base(row("a")), side(row("a", city="2")), side(frozen=("a",))) == {}


def test_rows_that_both_ends_had_before_the_first_sync_take_the_authoritys_value_without_a_proposal() -> None:
    found = decide(base(), side(row("a", city="2")), side(row("a", city="3", street="4")))
    assert (found["action"], found["move_city"], found["raise_city"], found["move_street"], found["raise_street"]) == (
        "resolve",
        2,
        "",
        3,
        "",
    )


def test_an_increment_that_needs_a_row_it_did_not_read_asks_for_it() -> None:
    plan = merge(base(row("a")), side(complete=False), side(row("a", city="2"), complete=False), contract())
    assert plan.needs_upper.to_pylist() == ["a"]
    assert plan.needs_lower.to_pylist() == []


def test_an_increment_leaves_alone_what_nobody_speaks_of() -> None:
    plan = merge(base(row("a"), row("b")), side(row("a", city="2"), complete=False), side(complete=False), contract())
    assert plan.decisions.column("key").to_pylist() == ["a"]


def test_a_group_that_was_never_agreed_on_takes_the_authoritys_value() -> None:
    known = base({**row("a"), "fp_city": None})
    found = decide(known, side(row("a", city="2")), side(row("a", city="3")))
    assert (found["move_city"], found["raise_city"]) == (2, "")


def test_merging_again_after_the_plan_was_carried_out_decides_nothing() -> None:
    link = contract()
    upper = [row("a", city="2"), row("n", entitled=True), gone("d", entitled=True)]
    lower = [row("a", street="2"), row("d")]
    plan: Plan = merge(base(row("a"), row("d")), side(*upper), side(*lower), link)
    after = advance(plan, NO_KEYS, NO_KEYS)
    settled = [row("a", city="2", street="2"), row("n")]
    assert sorted(after.removed.to_pylist()) == ["d"]
    again = merge(after.upserts, side(*settled), side(*settled), link)
    assert again.decisions.num_rows == 0
