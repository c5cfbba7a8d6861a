"""Pausing a link, a region or a system: it is left alone, the others go on, and it catches up without a full reload."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from connectors.memory import MemoryConnector
from federation.backfill import backfill
from federation.cli import app
from federation.errors import DeclarationError, FedsyncError, Transient
from federation.ledger.schema import audit
from federation.pausing import pause_of
from tests.federations import CITY, E11, E12, E21, EAST, EAST_1, EAST_2, W11, WEST, WEST_1, Small

PAUSES = [
    ("link", f"resident/{EAST_1}", {f"resident/{EAST_1}"}),
    ("region", EAST_1, {f"resident/{code}" for code in (EAST_1, E11, E12)}),
    ("region", EAST, {f"resident/{code}" for code in (EAST, EAST_1, EAST_2, E11, E12, E21)}),
    ("system", "community", {f"resident/{code}" for code in (E11, E12, E21, W11, "110102001002")}),
]


@pytest.fixture
def small(tmp_path: Path) -> Small:
    made = Small(tmp_path)
    made.resident("R1", E11)
    made.resident("R2", W11)
    made.cascade()
    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The regions whose systems are asked or written to, in order."""
    found: list[str] = []
    for name in ("probe", "changes", "fetch", "apply"):
        original = getattr(MemoryConnector, name)

        def noted(self: MemoryConnector, *given: Any, original: Any = original, **named: Any) -> Any:
            found.append(self.node.region.code)
            return original(self, *given, **named)

        monkeypatch.setattr(MemoryConnector, name, noted)
    return found


def pause(small: Small, kind: str, subject: str, **more: Any) -> None:
    pause_of(small.federation.services, kind, subject, "系统升级", more.get("until"), "李工")


def resume(small: Small, kind: Any, subject: str) -> None:
    small.federation.services.pauses.resume(kind, subject, "李工")


@pytest.mark.parametrize(("kind", "subject", "links"), PAUSES)
def test_exactly_the_links_of_a_pause_are_skipped_and_told_as_paused_not_as_failed(
    small: Small, kind: str, subject: str, links: set[str]
) -> None:
    small.put(CITY, "R1", name="王伟明")
    small.put(CITY, "R2", name="李娜娜")
    pause(small, kind, subject)
    assert set(small.federation.sweep("resident").skipped) == links
    result = small.cascade()
    assert set(result.skipped) == links
    assert all("系统升级" in why and "paused" in why for why in result.skipped.values())
    assert {state.state for state in small.federation.services.links.all("resident").values()} == {"ok"}
    assert (small.get(WEST_1, "R2") or {})["name"] == "李娜娜"
    assert (small.get(E11, "R1") or {})["name"] == "王伟"


@pytest.mark.parametrize(("kind", "subject", "links"), PAUSES)
def test_what_is_resumed_catches_up_in_both_directions_without_a_full_reload(
    small: Small, kind: str, subject: str, links: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pause(small, kind, subject)
    small.put(CITY, "R1", name="王伟明")
    small.put(E11, "R1", phone="13911111111")
    small.resident("R3", E11)
    small.cascade()
    full = {link: small.federation.services.links.all("resident")[link].last_full for link in links}
    resume(small, kind, subject)
    small.cascade()
    path = {CITY, EAST, EAST_1, E11}
    assert small.holders("R3") == path
    assert {(small.get(region, "R1") or {})["name"] for region in path} == {"王伟明"}
    assert {(small.get(region, "R1") or {})["phone"] for region in path} == {"13911111111"}
    assert {link: small.federation.services.links.all("resident")[link].last_full for link in links} == full
    assert not any(small.federation.sweep("resident").parents.values())


def test_a_paused_system_is_asked_nothing_at_all(small: Small, asked: list[str]) -> None:
    pause(small, "region", EAST)
    small.put(CITY, "R1", name="王伟明")
    small.federation.sweep("resident")
    small.cascade()
    assert asked and not set(asked) & {EAST, EAST_1, EAST_2, E11, E12, E21}
    asked.clear()
    pause(small, "system", "city")
    small.federation.sweep("resident")
    small.cascade()
    assert CITY not in asked
    assert WEST in asked


def test_a_paused_authority_is_not_asked_for_rulings_and_writes_what_was_accepted_after_the_pause(
    small: Small, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = MemoryConnector.rulings

    def noted(self: MemoryConnector) -> Any:
        asked.append(self.node.region.code)
        return original(self)

    monkeypatch.setattr(MemoryConnector, "rulings", noted)
    small.put(E11, "R1", name="王炜")
    small.cascade()
    (correction,) = small.federation.services.corrections.active("resident")
    pause(small, "system", "city")
    asked.clear()
    small.federation.sweep("resident")
    ruled = small.federation.rule(correction.correction_id, "accepted", "核实", "test")
    assert (ruled.state, ruled.applied) == ("accepted", False)
    assert CITY not in asked
    resume(small, "system", "city")
    small.cascade()
    assert {(small.get(region, "R1") or {})["name"] for region in (CITY, EAST, EAST_1, E11)} == {"王炜"}


def test_a_parent_none_of_whose_links_may_run_is_not_read(small: Small, asked: list[str]) -> None:
    pause(small, "region", CITY)
    reading = small.federation.collect("resident", CITY)
    assert not reading.anything
    assert asked == []


def test_a_pause_ends_by_itself_when_its_time_is_over(small: Small) -> None:
    pause(small, "link", f"resident/{EAST_1}", until=small.clock.now + timedelta(hours=2))
    small.put(CITY, "R1", name="王伟明")
    small.cascade()
    assert (small.get(E11, "R1") or {})["name"] == "王伟"
    small.clock.now += timedelta(hours=3)
    result = small.cascade()
    assert result.skipped == {}
    assert (small.get(E11, "R1") or {})["name"] == "王伟明"


def test_a_date_alone_means_the_end_of_that_day_where_the_federation_lies(small: Small) -> None:
    found = pause_of(small.federation.services, "region", EAST, "检修", datetime(2026, 1, 1), "李工")
    assert found.until is not None
    assert found.until.isoformat() == "2026-01-01T23:59:59+08:00"


def test_what_the_declaration_does_not_know_cannot_be_paused_and_what_is_not_paused_not_resumed(small: Small) -> None:
    for kind, subject in (("link", "resident/1"), ("region", "1"), ("system", "nobody"), ("planet", "earth")):
        with pytest.raises(DeclarationError):
            pause(small, kind, subject)
    with pytest.raises(FedsyncError, match="over"):
        pause(small, "region", EAST, until=small.clock.now - timedelta(hours=1))
    with pytest.raises(FedsyncError, match="reason"):
        pause_of(small.federation.services, "region", EAST, " ", None, "李工")
    with pytest.raises(FedsyncError, match="not paused"):
        resume(small, "region", EAST)


def test_each_pause_and_each_end_of_one_is_in_the_audit_trail(small: Small) -> None:
    pause(small, "region", EAST)
    resume(small, "region", EAST)
    with small.federation.services.ledger.transaction() as connection:
        lines = connection.execute(
            select(audit.c.actor, audit.c.action, audit.c.subject).where(audit.c.action.in_(["pause", "resume"]))
        ).all()
    assert [tuple(line) for line in lines] == [
        ("李工", "pause", f"region/{EAST}"),
        ("李工", "resume", f"region/{EAST}"),
    ]


def test_the_commands_pause_list_show_and_resume(small: Small) -> None:
    def call(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, [*words, "--file", str(small.folder)])
        return result.exit_code, result.output

    assert call("pause", "region", EAST_1)[0] == 2, "a reason is needed"
    assert call("pause", "region", EAST_1, "--reason", "机房检修", "--until", "2999-12-31")[0] == 0
    assert call("pause", f"link/resident/{WEST}", "--reason", "核对数据")[0] == 0
    code, text = call("pause", "list", "--json")
    assert (code, [one["subject"] for one in json.loads(text)]) == (0, [f"resident/{WEST}", EAST_1])
    code, text = call("status", "--dataset", "resident", "--json")
    skipped = {line["link"]: line["reason"] for line in json.loads(text)["links"] if line["state"] == "skipped"}
    assert set(skipped) == {f"resident/{code}" for code in (EAST_1, E11, E12, WEST)}
    assert "机房检修" in skipped[f"resident/{E11}"]
    code, text = call("sync", "--dataset", "resident", "--json")
    assert (code, set(json.loads(text)["skipped"])) == (0, set(skipped))
    assert call("resume", "region", EAST_1)[0] == call("resume", f"link/resident/{WEST}")[0] == 0
    assert json.loads(call("pause", "list", "--json")[1]) == []
    assert call("resume", "region", EAST_1)[0] == 1


def test_a_system_that_is_down_for_a_day_holds_up_its_own_links_only_and_catches_up(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = MemoryConnector.probe

    def down(self: MemoryConnector) -> Any:
        if self.node.region.code == EAST_1:
            raise Transient("no answer", "无响应")
        return original(self)

    monkeypatch.setattr(MemoryConnector, "probe", down)
    for hour in range(6):
        small.put(CITY, "R2", name=f"李娜{hour}")
        small.put(E21, f"V{hour}", "visit", community_code=E21, summary="平安")
        result = small.federation.cascade("resident")
        assert set(result.errors) <= {f"resident/{EAST_1}", f"resident/{E11}", f"resident/{E12}"}
        assert (small.get(W11, "R2") or {})["name"] == f"李娜{hour}"
        small.clock.now += timedelta(hours=3)
    small.put(CITY, "R1", name="王伟明")
    small.put(E11, "R1", phone="13911111111")
    small.federation.cascade("resident")
    states = small.federation.services.links.all("resident")
    assert {code for code, state in states.items() if state.state == "failed"} == {
        f"resident/{EAST_1}",
        f"resident/{E11}",
        f"resident/{E12}",
    }
    monkeypatch.undo()
    small.cascade()
    path = {CITY, EAST, EAST_1, E11}
    assert {(small.get(region, "R1") or {})["name"] for region in path} == {"王伟明"}
    assert {(small.get(region, "R1") or {})["phone"] for region in path} == {"13911111111"}
    assert {state.state for state in small.federation.services.links.all("resident").values()} == {"ok"}


def test_a_backfill_compares_the_links_of_one_region_and_of_its_way_to_the_top_and_no_other(
    small: Small, asked: list[str]
) -> None:
    small.store(E11).rows["R1"]["name"] = "悄悄改动"  # without a trace in any log: only a full comparison sees it
    small.store(EAST_1).rows.pop("R1")
    before = {link: state.last_full for link, state in small.federation.services.links.all("resident").items()}
    result = backfill(small.federation, "resident", EAST_1)
    assert result.errors == {}
    after = {link: state.last_full for link, state in small.federation.services.links.all("resident").items()}
    assert {link for link in after if after[link] != before[link]} == {
        f"resident/{code}" for code in (EAST, EAST_1, E11, E12)
    }
    assert not set(asked) & {WEST, WEST_1, W11, EAST_2, E21}
    assert {(small.get(region, "R1") or {})["name"] for region in (CITY, EAST, EAST_1, E11)} == {"王伟"}
    written = dict(small.store(E12).written)
    assert backfill(small.federation, "resident", EAST_1).moved == 0
    assert dict(small.store(E12).written) == written


def test_a_backfill_of_a_region_that_the_dataset_does_not_reach_says_so(small: Small) -> None:
    with pytest.raises(DeclarationError):
        backfill(small.federation, "resident", "999999999999")
    code = (
        CliRunner()
        .invoke(app, ["sync", "--dataset", "resident", "--region", E11, "--full", "--file", str(small.folder)])
        .exit_code
    )
    assert code == 0
