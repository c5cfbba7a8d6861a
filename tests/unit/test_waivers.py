"""Waivers: one version of one record may pass one rule until a date; and the retention of what is quarantined."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from federation.cli import app
from federation.errors import FedsyncError
from federation.ledger.quarantine import PURGED, Item
from federation.runtime import open_federation
from tests.federations import CITY, E11, EAST, EAST_1, Small

BAD, WORSE, GOOD = "12", "13", "13900000009"
UNTIL = date(2026, 1, 10)
RULE = "expect_column_values_to_match_regex(phone)"


@pytest.fixture
def small(tmp_path: Path) -> Small:
    """R1 has a bad phone number that its community typed; the clock says 2026-01-01."""
    made = Small(tmp_path)
    made.two_residents()
    made.put(E11, "R1", phone=BAD)
    made.cascade()
    return made


def phone(small: Small, region: str = CITY) -> Any:
    return (small.get(region, "R1") or {})["phone"]


def items(small: Small, state: str | None = None) -> list[Item]:
    return small.federation.services.quarantine.open_items(state=state)


def waive(small: Small, until: date = UNTIL) -> Item:
    (item,) = items(small)
    return small.federation.waive(item.item_id[:12], by="王主任", reason="号段已核实", until=until, actor="root")


def full(small: Small) -> None:
    result = small.federation.cascade("resident", force_full=True)
    assert not result.errors, result.errors


def audits(small: Small, action: str) -> list[tuple[str, str, str]]:
    with small.federation.services.ledger.transaction() as connection:
        found = connection.exec_driver_sql(
            f"SELECT actor, subject, detail FROM audit WHERE action = '{action}' ORDER BY audit_id"
        )
        return [tuple(row) for row in found]


def test_a_waived_version_moves_with_the_next_run_and_all_the_way_up(small: Small) -> None:
    assert phone(small) == "13900000001"
    item = waive(small)
    assert (item.state, EAST_1 in small.federation.sweep("resident").parents["street"]) == ("replay", True)
    small.cascade()

    assert [phone(small, region) for region in (EAST_1, EAST, CITY)] == [BAD] * 3
    assert items(small) == []
    assert [one.state for one in items(small, "released")] == ["released"]
    assert small.store(E11).returns == []


def test_who_why_and_until_when_are_kept_and_the_reason_only_sealed(small: Small) -> None:
    item = waive(small)
    (waiver,) = small.federation.services.waivers.of_item(item.item_id)

    assert (waiver.waived_by, waiver.until, waiver.rule, waiver.key) == ("王主任", UNTIL, RULE, "R1")
    assert small.federation.services.waivers.reason(waiver) == "号段已核实"
    assert "号段".encode() not in waiver.reason
    ((actor, subject, detail),) = audits(small, "quarantine.waive")
    assert (actor, subject, json.loads(detail)) == ("root", item.item_id, {"by": "王主任", "until": "2026-01-10"})


def test_another_bad_version_of_the_record_is_not_covered(small: Small) -> None:
    waive(small)
    small.put(E11, "R1", phone=WORSE)
    small.cascade()

    assert phone(small) == "13900000001"
    assert [item.key for item in items(small)] == ["R1"]
    small.put(E11, "R1", phone=BAD)
    small.cascade()
    assert phone(small) == BAD, "the waived version again, within its time"


def test_another_record_with_the_same_value_is_not_covered(small: Small) -> None:
    waive(small)
    small.cascade()
    small.put(E11, "R2", phone=BAD)
    small.cascade()

    assert [item.key for item in items(small)] == ["R2"]


def test_another_rule_that_the_version_fails_still_stops_it(tmp_path: Path) -> None:
    reason = {"reason": {"zh": "应短，现为“{value}”", "en": "too long: {value}"}}
    rules = [
        {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "phone", "regex": "^1"}, "meta": reason},
        {"type": "expect_column_value_lengths_to_equal", "kwargs": {"column": "phone", "value": 11}, "meta": reason},
    ]
    small = Small(tmp_path, changes={"expectations/resident.json": json.dumps({"name": "x", "expectations": rules})})
    small.resident("R1")
    small.cascade()
    small.put(E11, "R1", phone="2")
    small.cascade()
    for item in items(small):
        if item.rule.startswith("expect_column_values"):
            small.federation.waive(item.item_id, by="王", reason="是", until=UNTIL, actor="root")
    small.cascade()

    assert phone(small) != "2"
    assert [item.rule for item in items(small)] == ["expect_column_value_lengths_to_equal(phone)"]


def test_after_its_last_day_the_version_goes_back_to_quarantine_at_the_next_full_comparison(small: Small) -> None:
    item = waive(small)
    small.cascade()
    small.clock.now = datetime(2026, 1, 10, 15, tzinfo=UTC)  # 23:00 in Beijing: still the last day
    full(small)
    assert items(small) == []
    small.clock.now = datetime(2026, 1, 10, 17, tzinfo=UTC)
    full(small)

    (again,) = items(small)
    assert (again.item_id, again.state) == (item.item_id, "open"), "once, at the hop that had set it aside"
    assert [row["resident_id"] for row in small.store(E11).returns] == ["R1"]
    assert phone(small) == BAD, "what had moved stays until it is mended"
    full(small)
    assert [one.item_id for one in items(small)] == [item.item_id]
    small.put(E11, "R1", phone=GOOD)
    small.cascade()
    assert (items(small), phone(small)) == ([], GOOD)


def test_after_its_last_day_the_version_does_not_move_again(small: Small) -> None:
    waive(small, date(2026, 1, 1))
    small.clock.now += timedelta(days=2)
    small.cascade()

    assert phone(small) == "13900000001"
    assert [item.key for item in items(small)] == ["R1"]


def test_a_waiver_is_given_anew_with_another_date(small: Small) -> None:
    waive(small, date(2026, 1, 1))
    small.clock.now += timedelta(days=2)
    small.cascade()
    item = waive(small)
    small.cascade()

    assert phone(small) == BAD
    assert [one.until for one in small.federation.services.waivers.of_item(item.item_id)] == [UNTIL]


def test_only_an_open_item_of_a_gates_rule_can_be_waived_and_only_until_a_day_to_come(small: Small) -> None:
    with pytest.raises(FedsyncError, match="would end on 2025-12-31"):
        waive(small, date(2025, 12, 31))
    (item,) = items(small)
    small.put(E11, "R1", phone=GOOD)
    small.cascade()
    with pytest.raises(FedsyncError, match="is released"):
        small.federation.waive(item.item_id, by="王", reason="是", until=UNTIL, actor="root")
    small.put(E11, "R3", name="外人", community_code=CITY)
    small.cascade()
    with pytest.raises(FedsyncError, match="only a gate's rule"):
        waive(small)


# ── retention ────────────────────────────────────────────────────────────────────────────────────────────────


def released(small: Small) -> Item:
    small.put(E11, "R1", phone=GOOD)
    small.cascade()
    (item,) = items(small, "released")
    return item


def test_a_full_comparison_empties_what_is_past_its_retention_and_the_line_stays(small: Small) -> None:
    item = released(small)
    small.clock.now += timedelta(days=179)
    full(small)
    assert small.federation.services.quarantine.open(items(small, "released")[0]).record["phone"] == BAD
    small.clock.now += timedelta(days=2)
    full(small)

    (kept,) = items(small, "released")
    opened = small.federation.services.quarantine.open(kept)
    assert (kept.item_id, kept.payload, kept.first_seen) == (item.item_id, b"", item.first_seen)
    assert (opened.record, opened.reason_zh, opened.reason_en) == ({}, *PURGED)


def test_what_still_fails_is_seen_each_time_and_so_keeps_its_content(small: Small) -> None:
    small.clock.now += timedelta(days=400)
    full(small)

    assert small.federation.services.quarantine.open(items(small)[0]).record["phone"] == BAD


def test_what_comes_back_after_its_content_was_emptied_is_sealed_anew(small: Small) -> None:
    item = released(small)
    small.clock.now += timedelta(days=400)
    assert small.federation.purge("root") == {"resident": 1, "visit": 0}
    assert small.federation.purge("root") == {"resident": 0, "visit": 0}
    assert [detail.split()[0] for _, _, detail in audits(small, "quarantine.purge")] == ["1", "0", "0", "0"]
    small.put(E11, "R1", phone=BAD)
    small.cascade()

    (again,) = items(small)
    assert again.item_id == item.item_id
    assert small.federation.services.quarantine.open(again).record["phone"] == BAD


def test_a_dataset_may_say_a_shorter_retention_without_every_record_being_compared_anew(small: Small) -> None:
    released(small)
    path = small.folder / "datasets/resident.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "quarantine_days: 5\n", encoding="utf-8")
    before = {state.link_id: state.last_full for state in small.federation.services.links.all("resident").values()}
    small.federation = open_federation(small.folder, clock=small.clock)
    small.cascade()
    assert {s.link_id: s.last_full for s in small.federation.services.links.all("resident").values()} == before
    small.clock.now += timedelta(days=6)

    assert small.federation.purge("root")["resident"] == 1


def test_the_content_of_a_dataset_that_is_declared_no_more_is_emptied_as_well(small: Small) -> None:
    released(small)
    (small.folder / "datasets/resident.yaml").unlink()
    top = small.folder / "federation.yaml"
    top.write_text(top.read_text(encoding="utf-8").replace("resident: {}, ", ""), encoding="utf-8")
    small.federation = open_federation(small.folder, clock=small.clock)
    small.clock.now += timedelta(days=400)

    assert small.federation.purge("root") == {"visit": 0, "resident": 1}
    assert [item.payload for item in items(small, "released")] == [b""]


# ── the commands ─────────────────────────────────────────────────────────────────────────────────────────────

run = CliRunner()


def call(small: Small, *words: str) -> tuple[int, str]:
    result = run.invoke(app, ["quarantine", *words, "--file", str(small.folder)])
    return result.exit_code, result.output


def test_the_commands_waive_show_and_purge(small: Small) -> None:
    (item,) = items(small)
    words = ("waive", item.item_id[:10], "--by", "王主任", "--reason", "号段已核实")
    assert call(small, *words, "--until", "明天")[0] == 2
    assert call(small, *words)[0] == 2
    assert call(small, *words[:4], "--reason", " ", "--until", "2099-01-01")[0] == 2
    assert call(small, *words, "--until", "2020-01-01")[0] == 1
    code, text = call(small, *words, "--until", "2099-01-01", "--json")
    assert (code, json.loads(text)["until"]) == (0, "2099-01-01")
    code, text = call(small, "show", item.item_id, "--json")
    (waiver,) = json.loads(text)["waivers"]
    assert (waiver["waived_by"], waiver["reason"], waiver["until"]) == ("王主任", "号段已核实", "2099-01-01")
    assert "王主任" in call(small, "show", item.item_id)[1]
    small.cascade()
    assert phone(small) == BAD
    assert call(small, "replay", item.item_id)[0] == 1, "it was released: there is nothing to judge anew"
    code, text = call(small, "purge", "--json")
    assert (code, set(json.loads(text)["purged"])) == (0, {"resident", "visit"})
    assert call(small, "purge")[0] == 0
