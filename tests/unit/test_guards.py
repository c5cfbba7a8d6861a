"""Guards: what must not happen without a person looking at it stops one link, says why, and goes on once released."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from connectors.base import Changes
from connectors.memory import MemoryConnector
from federation.errors import LeaseLost, LinkHeld
from federation.failpoints import arm, disarm
from federation.ledger.links import LEASE
from tests.federations import CITY, E11, E12, EAST, EAST_1, RESIDENT, VISIT, Small

LINK = f"resident/{E11}"


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)


def held(small: Small, link: str = LINK, dataset: str = "resident") -> str:
    """The one link that is held, and why."""
    errors = small.federation.cascade(dataset).errors
    assert {name: type(error) for name, error in errors.items()} == {link: LinkHeld}
    return str(errors[link])


def test_a_mass_change_stops_its_link_until_it_is_released_and_the_others_go_on(small: Small) -> None:
    for number in range(25):
        small.resident(f"R{number}", E11)
    small.resident("S1", E12)
    small.cascade()
    for number in range(25):
        small.put(E11, f"R{number}", phone=f"139000000{number:02}")
    small.put(E12, "S1", phone="13955555555")
    assert "changed 25 of 25" in held(small)
    assert (small.get(CITY, "S1") or {})["phone"] == "13955555555"
    assert (small.get(EAST_1, "R0") or {})["phone"] == "13800000000"
    small.federation.services.links.release(LINK, "tester")
    small.cascade()
    assert (small.get(CITY, "R24") or {})["phone"] == "13900000024"


def test_a_mass_change_that_was_released_is_not_held_again_on_the_hops_that_relay_it(small: Small) -> None:
    for number in range(25):
        small.resident(f"R{number}", E11)
    small.cascade()
    for number in range(25):
        small.put(CITY, f"R{number}", name="新名")
    assert "changed 25 of 25" in held(small, f"resident/{EAST}")
    small.federation.services.links.release(f"resident/{EAST}", "tester")
    small.cascade()
    assert (small.get(E11, "R24") or {})["name"] == "新名"


def losing_phone(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, the community's system has no column for phones."""
    original = MemoryConnector.changes

    def without_phone(connector: MemoryConnector, since: str | None, *, sweep: bool = True) -> Changes:
        found = original(connector, since, sweep=sweep)
        if connector.node.region.code != E11:
            return found
        return Changes(
            found.rows,
            found.rejects,
            found.deleted,
            found.present,
            found.cursor,
            found.outside,
            missing=frozenset({"phone"}),
        )

    monkeypatch.setattr(MemoryConnector, "changes", without_phone)


def test_a_column_that_vanished_stops_its_link_until_it_is_released(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.resident("R1")
    small.cascade()
    losing_phone(monkeypatch)
    small.put(E11, "R1", care_level="重点")
    assert "phone" in held(small)
    assert (small.get(CITY, "R1") or {})["care_level"] == "无"
    small.federation.services.links.release(LINK, "tester")
    small.cascade()
    assert (small.get(CITY, "R1") or {})["care_level"] == "重点"


def test_a_column_that_was_empty_for_all_may_be_left_out(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    small.resident("R1", phone=None)
    small.cascade()
    losing_phone(monkeypatch)
    small.put(CITY, "R1", name="王芳")
    small.cascade(force_full=True)
    assert (small.get(E11, "R1") or {})["name"] == "王芳"


def test_a_clock_that_was_set_back_stops_the_links_until_it_is_right_again(small: Small) -> None:
    small.resident("R1")
    small.cascade()
    small.clock.now -= timedelta(days=2)
    errors = small.federation.cascade("resident").errors
    assert errors
    assert all(isinstance(error, LinkHeld) and "clock" in str(error) for error in errors.values())
    small.clock.now += timedelta(days=2, minutes=1)
    for link in errors:
        small.federation.services.links.release(link, "tester")
    small.put(CITY, "R1", name="王芳")
    small.cascade()
    assert (small.get(E11, "R1") or {})["name"] == "王芳"


def test_a_record_from_the_future_stops_its_link_and_overwrites_nothing(tmp_path: Path) -> None:
    versioned = VISIT.replace(
        "fields:\n", "version: at\nfields:\n  at: {label: 时间, type: timestamp, authority: community}\n"
    ).replace("summary: {label: 情况, authority: community}", "summary: {label: 情况, authority: shared}")
    small = Small(tmp_path, changes={"datasets/visit.yaml": versioned})
    small.put(E11, "V1", "visit", community_code=E11, summary="甲", at=datetime(2025, 12, 31, tzinfo=UTC))
    small.cascade("visit")
    small.put(E11, "V1", "visit", summary="乙", at=datetime(2031, 1, 1, tzinfo=UTC))
    assert "future" in held(small, f"visit/{E11}", "visit")
    assert (small.get(EAST_1, "V1", "visit") or {})["summary"] == "甲"


def test_two_runners_on_one_link_never_both_settle(small: Small) -> None:
    small.resident("R1")
    small.cascade()
    small.put(CITY, "R1", name="王芳")
    slept: list[int] = []

    def sleep() -> None:
        if not slept:
            slept.append(1)
            small.clock.now += LEASE + timedelta(seconds=1)
            _, errors = small.federation.sync_children("resident", CITY, [EAST], None)
            assert not errors

    arm("settle.before", sleep)
    try:
        _, errors = small.federation.sync_children("resident", CITY, [EAST], None)
    finally:
        disarm()
    assert [type(error) for error in errors.values()] == [LeaseLost]
    small.cascade()
    assert (small.get(E11, "R1") or {})["name"] == "王芳"
    assert small.cascade(force_full=True).moved == 0


def test_the_share_that_counts_as_a_mass_change_is_the_contracts(tmp_path: Path) -> None:
    small = Small(tmp_path, changes={"datasets/resident.yaml": RESIDENT + "max_change: 1.0\n"})
    for number in range(25):
        small.resident(f"R{number}", E11)
    small.cascade()
    for number in range(25):
        small.put(E11, f"R{number}", phone="13911111111")
    small.cascade()
    assert (small.get(CITY, "R3") or {})["phone"] == "13911111111"
