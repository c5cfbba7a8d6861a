"""What follows from what an inspection found: judged the same for every technology."""

from __future__ import annotations

import pytest

from connectors import findings
from connectors.base import Capabilities
from federation.errors import AccessDenied, FedsyncError, Permanent, SchemaMismatch, Transient, Unreadable
from tests.contract.dataset import SAMPLE


def told(capabilities: Capabilities) -> dict[str, str]:
    return {one.en: one.state for one in findings.strategy(capabilities, SAMPLE)}


@pytest.mark.parametrize(
    ("error", "area"),
    [
        (Transient, "reach"),
        (AccessDenied, "credentials"),
        (SchemaMismatch, "schema"),
        (Permanent, "reach"),
        (Unreadable, "reach"),
    ],
)
def test_an_error_instead_of_an_answer_is_a_finding_with_the_same_advice(error: type[FedsyncError], area: str) -> None:
    one = findings.of_error(error("no", "否", todo="做 / do"))
    assert (one.area, one.state, one.en, one.zh, one.todo) == (area, "fail", "no", "否", "做 / do")


@pytest.mark.parametrize(
    ("capabilities", "says", "state"),
    [
        (Capabilities("log"), "seen at once", "ok"),
        (Capabilities("snapshot"), "at each read", "ok"),
        (Capabilities("cursor"), "by listing the keys", "ok"),
        (Capabilities("cursor", cheap_sweep=False), "every 24 h", "warn"),
        (Capabilities("cursor", present=False), "not seen", "warn"),
    ],
)
def test_how_deletions_are_seen_follows_from_the_capabilities(
    capabilities: Capabilities, says: str, state: str
) -> None:
    assert [found for text, found in told(capabilities).items() if "deletions" in text and says in text] == [state]


@pytest.mark.parametrize(
    ("capabilities", "says", "state"),
    [
        (Capabilities("log", conditional=True), "writes are conditional", "ok"),
        (Capabilities("log", checks=True), "writes are conditional", "ok"),
        (Capabilities("log"), "writes are unconditional", "warn"),
        (Capabilities("log", writes=False), "read-only system", "warn"),
        (Capabilities("log"), "by key", "ok"),
        (Capabilities("log", keyed_reads=False), "reading all", "ok"),
        (Capabilities("log", returns=True, corrections=True), "returns、校核 corrections", "ok"),
    ],
)
def test_how_records_are_written_and_read_follows_from_the_capabilities(
    capabilities: Capabilities, says: str, state: str
) -> None:
    assert [found for text, found in told(capabilities).items() if says in text] == [state]


@pytest.mark.parametrize(("skew", "state"), [(0.4, "ok"), (-4, "ok"), (61, "warn"), (-600, "warn"), (3601, "fail")])
def test_a_clock_that_is_off_beyond_the_contracts_tolerance_would_hold_links(skew: float, state: str) -> None:
    one = findings.clock(skew, 60)
    assert one.state == state and bool(one.todo) == (state != "ok")
    assert ("ahead of" if skew > 0 else "behind") in one.en


def test_a_right_that_cannot_be_told_is_neither_there_nor_missing() -> None:
    needed = {"read": ("读", "to read"), "write": ("写", "to write"), "create": ("建", "to create")}
    found = findings.rights(needed, {"read": True, "write": None, "create": False}, optional=False, todo="")
    assert [(one.state, one.en) for one in found] == [
        ("fail", "no right to create: to create"),
        ("warn", "cannot be told without writing: write"),
    ]
