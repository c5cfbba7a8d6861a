"""What a gate's check hears of the records beside those that move: as they will be once all of them have arrived."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from connectors.base import Node
from connectors.memory import STORES, MemoryConnector
from federation.canonical import arrow_type, key_column, schema
from federation.delivery import Delivery
from federation.reading import KEY, read_node
from federation.surroundings import Surroundings
from tests.contract.dataset import REGION, SAMPLE, row

FIELDS = ("community_code", "name", "note", "visits")


class Goal(MemoryConnector):
    """A node that notes what it is asked."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.asked: list[tuple[str, list[Any]]] = []

    def holding(self, name: str, values: pa.Array) -> pa.Table:
        self.asked.append((name, sorted(values.drop_null().to_pylist())))
        return super().holding(name, values)


@pytest.fixture
def goal() -> Any:
    STORES.pop("goal", None)
    found = Goal(Node(SAMPLE, REGION, "memory", {"store": "goal", "capture": "log"}, tuple(SAMPLE.fields)))
    for key, name, note in (("R1", "甲", "一"), ("R2", "乙", "二"), ("R3", "甲", "三"), ("R4", None, "一")):
        found.store.put(key, row(key, name=name, note=note))
    yield found
    STORES.pop("goal", None)


def part(*rows: dict[str, Any], fields: tuple[str, ...] = FIELDS) -> tuple[tuple[str, ...], pa.Table]:
    """Rows that carry these fields; the others travel along, and are not written."""
    table = pa.Table.from_pylist(list(rows), schema(SAMPLE, ("record_id", *FIELDS)))
    return fields, table.append_column(KEY, key_column(table, SAMPLE))


def around(goal: Goal, *parts: Any, removals: tuple[str, ...] = (), whole: bool = False) -> Surroundings:
    since = None if whole else goal.changes(None).cursor
    delivery = Delivery(parts, pa.array(removals, pa.string()))
    return Surroundings(None, None, REGION, goal, read_node(goal, since, sweep=False), delivery)  # type: ignore[arg-type]


def held(found: Surroundings, name: str, *values: Any) -> list[Any]:
    return sorted(found.held(name, pa.array(values, arrow_type(SAMPLE.fields[name]))).to_pylist())


@pytest.mark.parametrize("whole", [True, False], ids=["read whole", "read in part"])
def test_each_record_that_will_hold_a_value_counts_once(goal: Goal, whole: bool) -> None:
    arriving = part(row("R2", name="甲"), row("R5", name="乙"), row("R6", name="乙"))
    found = around(goal, arriving, removals=("R3",), whole=whole)
    assert held(found, "name", "甲") == ["甲", "甲"]  # R1 stays, R2 takes it, R3 leaves
    assert held(found, "name", "乙", "丙") == ["乙", "乙"]  # R2 gives it up, two come
    assert held(found, "name") == []


@pytest.mark.parametrize("whole", [True, False], ids=["read whole", "read in part"])
def test_a_row_that_does_not_carry_the_field_keeps_the_value_that_it_has_there(goal: Goal, whole: bool) -> None:
    found = around(goal, part(row("R1", name="乙", note="九"), fields=("note",)), whole=whole)
    assert held(found, "name", "甲", "乙") == ["乙", "甲", "甲"] or held(found, "name", "甲", "乙") == [
        "甲",
        "甲",
        "乙",
    ]
    assert held(found, "note", "一", "九") == ["一", "九"]


def test_the_goal_is_asked_once_per_field_for_all_that_moves_and_only_for_that(goal: Goal) -> None:
    found = around(
        goal,
        part(row("R5", name="甲"), row("R6")),
        part(row("R7", name="丁", note="四"), fields=("name",)),
        part(row("R8", name="戊", note="五"), fields=("note",)),
    )
    for values in (("甲",), ("丁",), ("甲", "丁")):
        held(found, "name", *values)
    held(found, "note", "五")
    assert goal.asked == [("name", ["丁", "甲"]), ("note", ["五"])]


def test_the_goal_is_asked_again_for_a_value_that_does_not_move(goal: Goal) -> None:
    """A record that moved before, under a waiver that is over."""
    found = around(goal, part(row("R5", name="丁")))
    assert held(found, "name", "丁") == ["丁"]
    assert held(found, "name", "甲") == ["甲", "甲"]
    assert [sorted(values) for _, values in goal.asked] == [["丁"], ["丁", "甲"]]


def test_what_was_read_whole_is_not_asked_for(goal: Goal) -> None:
    held(around(goal, part(row("R5", name="甲")), whole=True), "name", "甲")
    assert goal.asked == []
