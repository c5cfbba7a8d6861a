"""The three-way merge: each row of its decision table, on tables made by hand."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from federation.contract import Dataset, LinkContract
from federation.merge import Plan, Side, advance, merge

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
    key: str, city: str = "1", street: str = "1", shared: str = "1", *, state: str = "have", version: int | None = None
) -> dict[str, Any]:
    absent = state == "gone"
    return {
        "key": key,
        "state": state,
        "version": version,
        **{
            f"fp_{name}": None if absent else value.encode() * 16
            for name, value in (("city", city), ("street", street), ("shared", shared))
        },
    }


FPS = [("fp_city", pa.binary()), ("fp_street", pa.binary()), ("fp_shared", pa.binary())]
SIDE = pa.schema([("key", pa.string()), ("state", pa.string()), ("version", pa.int64()), *FPS])


def side(*rows: dict[str, Any], complete: bool = True, frozen: tuple[str, ...] = ()) -> Side:
    return Side(pa.Table.from_pylist(list(rows), schema=SIDE), complete, pa.array(frozen, pa.string()))


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


def test_creation_is_for_those_entitled() -> None:
    assert decide(base(), side(row("a")), side())["action"] == "seed_down"
    found = decide(base(), side(), side(row("a")))
    assert (found["action"], found["correction"], found["raised_by"]) == ("hold_lower", "create", "lower")
    below = contract(originates=["street"])
    assert decide(base(), side(), side(row("a")), below)["action"] == "seed_up"
    assert decide(base(), side(row("a")), side(), below)["action"] == "hold_upper"


def test_deletion_is_for_those_entitled_and_else_the_row_comes_back() -> None:
    assert decide(base(row("a")), side(), side(row("a")))["action"] == "delete_down"
    found = decide(base(row("a")), side(row("a")), side())
    assert (found["action"], found["correction"], found["raised_by"]) == ("seed_down", "delete", "lower")
    below = contract(originates=["street"])
    assert decide(base(row("a")), side(row("a")), side(), below)["action"] == "delete_up"
    assert decide(base(row("a")), side(), side(row("a")), below)["action"] == "seed_up"


def test_gone_at_both_ends_is_forgotten() -> None:
    plan = merge(base(row("a")), side(), side(), contract())
    assert advance(plan, NO_KEYS, NO_KEYS).removed.to_pylist() == ["a"]


def test_a_record_that_left_for_another_child_is_retracted_after_its_last_edits_ascended() -> None:
    plan = merge(base(row("a")), side(row("a", city="2", state="left")), side(row("a", street="2")), contract())
    assert plan.removing("down").to_pylist() == ["a"]
    assert plan.moving("up").to_pylist() == [
        {"key": "a", "seed": False, "city": False, "street": True, "shared": False}
    ]


def test_what_the_gate_blocked_stays_as_the_baseline_has_it() -> None:
    plan = merge(base(row("a")), side(row("a", city="2")), side(row("a", street="2")), contract())
    after = advance(plan, NO_KEYS, pa.array(["a"])).upserts.to_pylist()[0]
    assert (after["fp_city"], after["fp_street"]) == (b"2" * 16, b"1" * 16)


def test_a_blocked_first_delivery_is_not_agreed_on() -> None:
    plan = merge(base(), side(row("a")), side(), contract())
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
    upper, lower = [row("a", city="2"), row("n")], [row("a", street="2"), row("d")]
    plan: Plan = merge(base(row("a"), row("d")), side(*upper), side(*lower), link)
    after = advance(plan, NO_KEYS, NO_KEYS)
    settled = [row("a", city="2", street="2"), row("n")]
    assert sorted(after.removed.to_pylist()) == ["d"]
    again = merge(after.upserts, side(*settled), side(*settled), link)
    assert again.decisions.num_rows == 0
