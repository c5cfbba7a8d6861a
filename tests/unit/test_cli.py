"""The command: what it prints, how it ends, and that scripts can rely on both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from federation.cli import app
from tests.federations import CITY, E11, Small

run = CliRunner()


@pytest.fixture
def small(tmp_path: Path) -> Small:
    made = Small(tmp_path)
    made.resident("R1")
    return made


def call(small: Small, *words: str) -> tuple[int, str]:
    result = run.invoke(app, [*words, "--file", str(small.folder)])
    return result.exit_code, result.output


def test_check_says_what_was_declared(small: Small) -> None:
    code, text = call(small, "check", "--json")
    assert (code, json.loads(text)) == (0, {"ok": True, "regions": 11, "datasets": ["resident", "visit"], "links": 20})


def test_check_names_file_line_and_key_of_each_problem_and_ends_with_1(small: Small) -> None:
    path = small.folder / "datasets/resident.yaml"
    path.write_text(path.read_text().replace("levels: [city,", "levels: [town,"))
    code, text = call(small, "check", "--json")
    assert code == 1
    (problem, *_) = json.loads(text)["errors"]
    assert problem["file"].endswith("resident.yaml")
    assert (problem["line"], problem["key"].split(".")[0]) == ("4", "levels")


def test_check_refuses_a_connectors_unknown_option(small: Small) -> None:
    path = small.folder / "federation.yaml"
    path.write_text(path.read_text().replace("capture: snapshot", "capture: snapshot, colour: red"))
    code, text = call(small, "check", "--json")
    assert code == 1
    assert "colour" in text


def test_check_refuses_a_suite_that_names_an_unknown_column(small: Small) -> None:
    path = small.folder / "expectations/resident.json"
    path.write_text(path.read_text().replace('"column": "phone"', '"column": "telephone"'))
    code, text = call(small, "check", "--json")
    assert code == 1
    assert "telephone" in text
    assert "resident.json" in text


def test_a_missing_declaration_is_a_clear_error() -> None:
    result = run.invoke(app, ["check", "--file", "/nowhere/federation.yaml"])
    assert result.exit_code == 1
    assert "/nowhere/federation.yaml" in result.stderr


def test_an_unknown_command_or_option_ends_with_2() -> None:
    assert run.invoke(app, ["frobnicate"]).exit_code == 2
    assert run.invoke(app, ["schema", "nothing"]).exit_code == 2


@pytest.mark.parametrize("kind", ["federation", "dataset"])
def test_schema_is_a_json_schema_for_editors(kind: str) -> None:
    result = run.invoke(app, ["schema", kind])
    assert json.loads(result.stdout)["type"] == "object"


def test_sync_moves_records_and_says_how_many(small: Small) -> None:
    code, text = call(small, "sync", "--json")
    assert code == 0
    assert json.loads(text)["datasets"]["resident"]["descended"] == 3
    assert (small.get(E11, "R1") or {})["name"] == "王伟"


def test_sync_of_an_unknown_region_or_dataset_ends_with_1(small: Small) -> None:
    assert call(small, "sync", "--region", "999999999999")[0] == 1
    assert call(small, "sync", "--dataset", "nothing")[0] == 1


def test_sync_of_a_region_touches_only_links_in_and_above_it(small: Small) -> None:
    small.resident("W1", "110102001001")
    assert call(small, "sync", "--dataset", "resident", "--region", "110101000000")[0] == 0
    assert small.get(E11, "R1") is not None
    assert small.get("110102001001", "W1") is None


def test_a_failing_link_ends_with_1_and_the_others_go_on(small: Small) -> None:
    call(small, "sync", "--json")
    small.store(E11).rows.clear()
    small.put(E11, "X", name="x", community_code=E11)
    for number in range(8):
        small.resident(f"Q{number}")
    code, _ = call(small, "sync", "--json")
    assert code == 0
    for number in range(8):
        small.drop(E11, f"Q{number}")
    small.put(CITY, "R1", name="王芳")
    code, text = call(small, "sync", "--json")
    assert code == 1
    assert json.loads(text)["errors"][0]["kind"] == "LinkHeld"
    code, text = call(small, "link", "release", f"resident/{E11}", "--json")
    assert (code, json.loads(text)["ok"]) == (0, True)
    assert call(small, "sync", "--json")[0] == 0
    assert call(small, "link", "release", f"resident/{E11}")[0] == 1


def test_status_shows_links_and_reach(small: Small) -> None:
    call(small, "sync", "--json")
    code, text = call(small, "status", "--json")
    told = json.loads(text)
    assert code == 0
    assert {line["state"] for line in told["links"]} == {"ok"}
    assert {(line["level"], line["reached"]) for line in told["reach"] if line["dataset"] == "resident"} == {
        ("district", 2),
        ("street", 3),
        ("community", 5),
    }
    assert call(small, "status")[0] == 0


def test_quarantine_lists_shows_and_replays(small: Small) -> None:
    call(small, "sync", "--json")
    small.put(E11, "R1", phone="138")
    call(small, "sync", "--json")
    code, text = call(small, "quarantine", "list", "--json")
    (item,) = json.loads(text)
    assert (code, item["key"], item["origin"]) == (0, "R1", E11)
    assert "138" in item["reason_zh"]
    code, text = call(small, "quarantine", "show", item["item_id"][:8], "--json")
    assert (code, json.loads(text)["record"]["phone"]) == (0, "138")
    assert call(small, "quarantine", "show", item["item_id"][:8])[0] == 0
    assert call(small, "quarantine", "list")[0] == 0
    assert call(small, "quarantine", "replay", item["item_id"][:8])[0] == 0
    assert json.loads(call(small, "quarantine", "list", "--json")[1])[0]["state"] == "replay"
    assert call(small, "quarantine", "show", "zzz")[0] == 1
    with small.federation.services.ledger.transaction() as connection:
        lists = connection.exec_driver_sql("SELECT detail FROM audit WHERE action = 'quarantine.list'").fetchall()
    assert [json.loads(detail)["lines"] for (detail,) in lists] == [1, 1, 1], "a reason quotes what was typed"
