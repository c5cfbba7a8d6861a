"""Crashes: a run that dies at any named place of the commit protocol is repaired by running again; nothing is lost or doubled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from federation import failpoints
from tests.federations import CITY, E11, E21, EAST, EAST_1, EAST_2, W11, WEST, WEST_1, Small


class Crash(BaseException):
    """Stands for the death of the process: nothing may catch it."""


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.disarm()


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)


def die_at(name: str, nth: int = 1) -> list[int]:
    """Let the nth pass of a place raise; returns a list whose length is the number of passes so far."""
    passes: list[int] = []

    def die() -> None:
        passes.append(1)
        if len(passes) == nth:
            raise Crash

    failpoints.arm(name, die)
    return passes


def begin(small: Small) -> None:
    """A settled federation with one correction that was accepted but not yet written at its authority."""
    for key, community in (("R1", E11), ("R2", E11), ("R3", E21), ("R4", E11)):
        small.resident(key, community)
    small.cascade()
    small.put(E11, "R4", name="王玮")
    small.cascade()
    small.cascade()
    services = small.federation.services
    (correction,) = services.corrections.active("resident")
    with services.ledger.transaction() as connection:
        services.corrections.settle(connection, correction, "accepted", "tester", "核实")


def edit(small: Small) -> None:
    """Something of everything: edits at both ends, a new record, a deletion, a move."""
    small.put(CITY, "R1", name="王芳")
    small.put(E11, "R1", phone="13911111111")
    small.drop(CITY, "R2")
    small.put(CITY, "R3", community_code=W11)
    small.put(E21, "R3", phone="13922222222")
    small.resident("R5", E21)


def assert_settled(small: Small) -> None:
    for region in (CITY, EAST, EAST_1, E11):
        row = small.get(region, "R1") or {}
        assert (row.get("name"), row.get("phone")) == ("王芳", "13911111111"), region
        assert (small.get(region, "R4") or {}).get("name") == "王玮", region
    assert small.holders("R2") == set()
    assert small.holders("R3") == {CITY, WEST, WEST_1, W11}
    assert small.holders("R5") == {CITY, EAST, EAST_2, E21}
    for region in (CITY, WEST, WEST_1, W11):
        assert (small.get(region, "R3") or {})["phone"] == "13922222222", region
    asked = [c for key in ("R1", "R2", "R5") for c in small.federation.services.corrections.about("resident", key)]
    assert not asked, "the engine's own work was taken for somebody's"
    assert small.cascade(force_full=True).moved == 0


def recover(small: Small) -> None:
    for _ in range(3):
        small.cascade()


FIRST = [(name, 1) for name in failpoints.NAMES if not name.startswith(("stage.", "recover.", "handover."))]
LATER = [(name, 3) for name in ("lower.apply.after", "upper.apply.after", "settle.before")]


@pytest.mark.parametrize(("name", "nth"), [*FIRST, *LATER])
def test_a_run_that_dies_there_is_repaired_by_running_again(small: Small, name: str, nth: int) -> None:
    begin(small)
    edit(small)
    passes = die_at(name, nth)
    try:
        recover(small)
    except Crash:
        assert len(passes) == nth
    else:
        assert len(passes) < nth, "the place was passed, but nothing died"
        assert nth > 1, f"{name} is never passed"
    failpoints.disarm()
    recover(small)
    assert_settled(small)


@pytest.mark.parametrize("name", ["recover.before", "recover.after", "baseline.file.after", "settle.before"])
def test_a_runner_that_dies_while_it_repairs_is_repaired_as_well(small: Small, name: str) -> None:
    begin(small)
    edit(small)
    die_at("lower.apply.after")
    with pytest.raises(Crash):
        recover(small)
    failpoints.disarm()
    die_at(name)
    with pytest.raises(Crash):
        recover(small)
    failpoints.disarm()
    recover(small)
    assert_settled(small)


@pytest.mark.parametrize("name", ["stage.before", "stage.after"])
def test_a_reading_that_was_not_staged_whole_is_simply_read_again(small: Small, name: str) -> None:
    begin(small)
    edit(small)
    reading = small.federation.collect("resident", CITY)
    die_at(name)
    with pytest.raises(Crash):
        small.federation.stage(reading)
    failpoints.disarm()
    recover(small)
    assert_settled(small)


def test_a_delivery_that_was_not_settled_is_not_taken_for_an_edit_of_the_receiver(small: Small) -> None:
    small.resident("R1")
    small.cascade()
    small.put(CITY, "R1", name="王芳")
    die_at("settle.before")
    with pytest.raises(Crash):
        small.cascade()
    failpoints.disarm()
    small.put(CITY, "R1", name="王兰")
    small.cascade()
    assert (small.get(E11, "R1") or {})["name"] == "王兰"
    assert small.federation.services.corrections.active("resident") == []


def test_a_record_that_was_delivered_but_not_settled_and_then_deleted_above_goes_below_as_well(small: Small) -> None:
    small.cascade()
    small.resident("R1")
    die_at("settle.before")
    with pytest.raises(Crash):
        small.cascade()
    failpoints.disarm()
    assert small.get(EAST, "R1") is not None
    small.drop(CITY, "R1")
    small.cascade()
    assert small.holders("R1") == set()
    assert small.federation.services.corrections.active("resident") == []
