"""Quarantined records of a region or dataset that was taken out of the declaration: told apart, refused to runs, closed by a person."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from federation import quarantined
from federation.cli import app
from federation.errors import FedsyncError
from federation.federation import Federation
from federation.ledger.quarantine import Item
from federation.quarantined import UNDECLARED
from federation.runtime import open_federation
from tests.federations import CITY, E11, EAST_1, Small

BAD, GOOD = "12", "13900000009"
LINK = f"resident/{E11}"


@pytest.fixture
def small(tmp_path: Path) -> Small:
    """R1 has a bad phone number that its community typed."""
    made = Small(tmp_path)
    made.two_residents()
    made.put(E11, "R1", phone=BAD)
    made.cascade()
    return made


def opened(small: Small) -> Federation:
    """The federation as its files declare it now."""
    return open_federation(small.folder, clock=small.clock)


def without_region(small: Small) -> str:
    """Take the community out of the region table; returns what to put back."""
    path = small.folder / "regions.csv"
    whole = path.read_text(encoding="utf-8")
    path.write_text("".join(line for line in whole.splitlines(True) if not line.startswith(E11)), encoding="utf-8")
    return whole


def with_region(small: Small, table: str) -> None:
    (small.folder / "regions.csv").write_text(table, encoding="utf-8")


def item_of(federation: Federation) -> Item:
    (item,) = federation.services.quarantine.open_items()
    return item


def close(federation: Federation) -> Item:
    told = {"by": "王主任", "reason": "社区已撤并", "actor": "root"}
    return quarantined.close(federation.services, item_of(federation).item_id, **told)


def state(federation: Federation, item: Item) -> str:
    return federation.services.quarantine.find(item.item_id).state


def call(small: Small, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["quarantine", *words, "-f", str(small.folder)])
    return result.exit_code, result.stdout + result.stderr


def exported(small: Small, name: str, *words: str) -> str:
    path = small.folder / name
    assert call(small, "export", str(path), *words)[0] == 0
    return path.read_text(encoding="utf-8-sig")


def phone(small: Small, region: str) -> Any:
    return (small.get(region, "R1") or {})["phone"]


def test_to_judge_anew_what_no_run_will_read_is_refused_and_says_what_to_do(small: Small) -> None:
    without_region(small)
    federation = opened(small)
    item = item_of(federation)
    code, text = call(small, "replay", item.item_id[:8])
    assert code == 1 and "no longer declared" in text and "不在声明中" in text and "fedsync quarantine close" in text
    with pytest.raises(FedsyncError, match="no longer declared"):
        federation.waive(item.item_id, by="王主任", reason="已核实", until=date(2027, 1, 1), actor="root")
    assert state(federation, item) == "open"


def test_the_list_and_the_export_tell_such_records_apart(small: Small) -> None:
    (line,) = json.loads(call(small, "list", "--json")[1])
    assert line["declared"] is True
    assert UNDECLARED not in exported(small, "before.csv")
    without_region(small)
    (line,) = json.loads(call(small, "list", "--json")[1])
    assert (line["declared"], line["state"]) == (False, "open")
    assert "链路" in call(small, "list")[1]
    assert f"待改 open；{UNDECLARED}" in exported(small, "after.csv")


def test_a_person_closes_it_with_a_reason_and_the_audit_trail_tells_who_and_why(small: Small) -> None:
    without_region(small)
    federation = opened(small)
    item = item_of(federation)
    words = ("close", item.item_id[:8], "--by", "王主任", "--reason", "社区已撤并")
    assert call(small, *words[:-1], " ")[0] == 2, "why must not be empty"
    code, text = call(small, *words, "--json")
    assert (code, json.loads(text)["state"]) == (0, "closed")
    assert json.loads(call(small, "list", "--json")[1]) == []
    with federation.services.ledger.transaction() as connection:
        query = "SELECT subject, detail FROM audit WHERE action = 'quarantine.close'"
        ((subject, detail),) = connection.exec_driver_sql(query).fetchall()
    assert (subject, json.loads(detail)) == (item.item_id, {"by": "王主任", "reason": "社区已撤并"})
    assert call(small, *words)[0] == 1, "it is closed already"
    assert call(small, "replay", item.item_id)[0] == 1
    assert "已关闭 closed" in exported(small, "closed.csv", "--state", "closed")


def test_what_a_closed_record_holds_is_kept_as_long_as_any_others(small: Small) -> None:
    without_region(small)
    federation = opened(small)
    item = close(federation)
    federation.purge("root")
    assert federation.services.quarantine.open(item).record["phone"] == BAD
    small.clock.now += timedelta(days=181)
    federation.purge("root")
    assert federation.services.quarantine.find(item.item_id).payload == b""


def test_a_record_whose_link_is_declared_is_not_closed_by_anybodys_word(small: Small) -> None:
    with pytest.raises(FedsyncError, match="its link is declared"):
        close(small.federation)
    assert state(small.federation, item_of(small.federation)) == "open"


def test_a_region_that_is_declared_again_before_that_goes_on_as_it_was(small: Small) -> None:
    table = without_region(small)
    assert not opened(small).cascade("resident").errors
    with_region(small, table)
    federation = opened(small)
    item = quarantined.replay(federation.services, item_of(federation).item_id, "root")
    assert state(federation, item) == "replay"
    small.put(E11, "R1", phone=GOOD)
    assert not federation.cascade("resident").errors
    assert state(federation, item) == "released" and phone(small, CITY) == GOOD


def test_what_still_fails_once_a_region_is_declared_again_is_found_although_it_was_closed_and_nobody_edited_it(
    small: Small,
) -> None:
    table = without_region(small)
    federation = opened(small)
    assert not federation.cascade("resident").errors
    item = close(federation)
    assert not federation.cascade("resident").errors
    with_region(small, table)
    federation = opened(small)
    assert EAST_1 in federation.sweep("resident").parents["street"]
    assert not federation.cascade("resident").errors
    assert item_of(federation).item_id == item.item_id
    assert phone(small, CITY) == "13900000001" and phone(small, E11) == BAD
    small.put(E11, "R1", phone=GOOD)
    assert not federation.cascade("resident").errors
    assert state(federation, item) == "released" and phone(small, CITY) == GOOD


def test_what_a_dataset_that_was_taken_out_left_behind_is_closed_as_well(small: Small) -> None:
    top = small.folder / "federation.yaml"
    top.write_text(top.read_text(encoding="utf-8").replace("resident: {}, ", ""), encoding="utf-8")
    (small.folder / "datasets/resident.yaml").unlink()
    federation = opened(small)
    assert call(small, "replay", item_of(federation).item_id)[0] == 1
    assert close(federation).state == "closed"


def test_a_row_that_could_not_be_read_is_closed_once_its_node_is_gone(small: Small) -> None:
    small.put(E11, "R2", care_level="不详")
    small.cascade()
    (unreadable,) = [item for item in small.federation.services.quarantine.open_items() if item.key == "R2"]
    assert unreadable.direction == "read" and quarantined.declared(small.federation.config, unreadable)
    without_region(small)
    federation = opened(small)
    assert not quarantined.declared(federation.config, unreadable)
    told = {"by": "王主任", "reason": "社区已撤并", "actor": "root"}
    assert quarantined.close(federation.services, unreadable.item_id, **told).state == "closed"
