"""A run that finds nothing new: it notes how far it looked, and a link that failed before is well again."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.base import Changes
from connectors.memory import MemoryConnector
from federation.errors import AccessDenied
from federation.ledger.links import LinkState
from tests.federations import CITY, EAST, Small


def link(small: Small) -> LinkState:
    return small.federation.services.links.all("resident")[f"resident/{EAST}"]


def rested(folder: Path) -> Small:
    """A federation of systems with change tables that has come to rest."""
    small = Small(folder, "log")
    small.resident("R1")
    small.cascade()
    assert not any(small.federation.sweep("resident").parents.values())
    return small


def test_a_token_that_differs_without_news_wakes_its_links_once(tmp_path: Path) -> None:
    small = rested(tmp_path)
    small.store(CITY).clock += 1
    assert small.federation.sweep("resident").parents["city"] == [CITY]
    result = small.federation.sync_parent("resident", CITY)
    assert not result.errors and not result.moved
    assert not any(small.federation.sweep("resident").parents.values())


def test_the_next_run_after_it_reads_on_from_where_it_looked(tmp_path: Path) -> None:
    small = rested(tmp_path)
    small.store(CITY).clock += 5
    small.federation.sync_parent("resident", CITY)
    assert link(small).upper_cursor == str(small.store(CITY).clock)
    small.put(CITY, "R1", name="李雷")
    small.cascade()
    found = small.get(EAST, "R1")
    assert found is not None and found["name"] == "李雷"


def test_a_link_that_failed_and_finds_nothing_new_is_well_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = rested(tmp_path)
    small.store(CITY).clock += 1
    changes = MemoryConnector.changes

    def refused(self: MemoryConnector, since: str | None, *, sweep: bool = True) -> Changes:
        if self.node.region.code == CITY:
            raise AccessDenied("no right", "无权限")
        return changes(self, since, sweep=sweep)

    with monkeypatch.context() as patched:
        patched.setattr(MemoryConnector, "changes", refused)
        assert small.federation.sync_parent("resident", CITY).errors
    assert link(small).state == "failed"
    assert not small.federation.sync_parent("resident", CITY).errors
    assert (link(small).state, link(small).reason_en) == ("ok", None)
    assert not any(small.federation.sweep("resident").parents.values())
