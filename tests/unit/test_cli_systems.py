"""`fedsync system`: what it does to the systems, and how it says so."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from federation.cli import app
from tests.federations import CITY, E11, EAST, REGIONS, RESIDENT, WEST, written

run = CliRunner()
TOP = """
name: systems
systems:
  population:
    connector: sql
    options: {{url: "sqlite:///{folder}/{{region}}.db", create: true, capture: log}}
  others: {{connector: memory, options: {{store: "{folder}/{{region}}"}}}}
nodes:
  - {{system: population, level: city, datasets: {{resident: {{}}}}}}
  - {{system: population, level: district, datasets: {{resident: {{}}}}}}
  - {{system: others, level: street, datasets: {{resident: {{}}}}}}
"""


@pytest.fixture
def unprepared(tmp_path: Path) -> Path:
    """The city and two districts keep residents in databases with log capture; nothing was ever synced."""
    files = {
        "regions.csv": REGIONS,
        "datasets/resident.yaml": RESIDENT.replace("suite: resident.json\n", ""),
        "federation.yaml": TOP.format(folder=tmp_path),
    }
    return written(tmp_path, files)


@pytest.fixture
def folder(unprepared: Path) -> Path:
    """The same after its first sync."""
    assert call(unprepared, "sync")[0] == 0
    return unprepared


def call(folder: Path, *words: str) -> tuple[int, str]:
    result = run.invoke(app, [*words, "--file", str(folder), "--json"])
    return result.exit_code, result.output


def objects(folder: Path, region: str) -> set[str]:
    with closing(sqlite3.connect(folder / f"{region}.db")) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite%'")
        return {name for (name,) in found}


def test_unprepare_removes_what_was_put_into_a_system_and_leaves_its_data(folder: Path) -> None:
    assert len(objects(folder, EAST)) > 1
    code, text = call(folder, "system", "unprepare", "population")
    told = json.loads(text)
    assert (code, told["ok"], told["errors"]) == (0, True, [])
    assert {node["region"] for node in told["unprepared"]} == {CITY, EAST, WEST}
    assert [objects(folder, region) for region in (CITY, EAST, WEST)] == [{"resident"}] * 3


def test_unprepare_keeps_to_the_region_and_dataset_that_were_named(folder: Path) -> None:
    code, _ = call(folder, "system", "unprepare", "population", "--region", EAST, "--dataset", "resident")
    assert code == 0
    assert objects(folder, EAST) == {"resident"}
    assert len(objects(folder, WEST)) > 1


def test_a_sync_after_it_prepares_again(folder: Path) -> None:
    before = objects(folder, EAST)
    call(folder, "system", "unprepare", "population")
    assert call(folder, "sync")[0] == 0
    assert objects(folder, EAST) == before


def test_systems_that_put_nothing_there_have_nothing_removed(folder: Path) -> None:
    assert call(folder, "system", "unprepare", "others")[0] == 0


def test_one_node_that_fails_does_not_keep_the_others(folder: Path) -> None:
    (folder / f"{EAST}.db").write_bytes(b"no database at all, just some bytes that fill a page " * 99)
    code, text = call(folder, "system", "unprepare", "population")
    told = json.loads(text)
    assert (code, told["ok"]) == (1, False)
    assert EAST in told["errors"][0]["region"]
    assert {node["region"] for node in told["unprepared"]} == {CITY, WEST}


def test_a_system_that_is_not_declared_is_an_error_that_names_those_that_are(folder: Path) -> None:
    code, text = call(folder, "system", "unprepare", "nowhere")
    assert code == 1
    assert "population" in json.loads(text)["errors"][0]["todo"]


def test_prepare_makes_at_each_node_what_the_first_sync_would(unprepared: Path) -> None:
    code, text = call(unprepared, "system", "prepare")
    told = json.loads(text)
    assert (code, told["ok"], told["errors"]) == (0, True, [])
    made = {node["region"]: node["made"] for node in told["nodes"]}
    assert [len(made[region]) for region in (CITY, EAST, WEST)] == [2] * 3
    assert made[EAST][0] == "表 table resident" and "变更表" in made[EAST][1]
    before = objects(unprepared, EAST)
    assert call(unprepared, "sync")[0] == 0
    assert objects(unprepared, EAST) == before


def test_prepare_says_of_what_stands_that_it_was_there_and_leaves_it_alone(folder: Path) -> None:
    before = objects(folder, EAST)
    code, text = call(folder, "system", "prepare")
    assert code == 0
    assert {tuple(node["made"]) for node in json.loads(text)["nodes"]} == {()}
    assert objects(folder, EAST) == before
    shown = run.invoke(app, ["system", "prepare", EAST, "--file", str(folder)])
    assert shown.exit_code == 0 and "already there" in shown.output


def test_prepare_keeps_to_the_regions_and_the_dataset_that_were_named(unprepared: Path) -> None:
    code, text = call(unprepared, "system", "prepare", EAST, CITY, "--dataset", "resident")
    assert code == 0
    assert {node["region"] for node in json.loads(text)["nodes"]} == {EAST, CITY}
    assert not (unprepared / f"{WEST}.db").exists()


def test_a_node_that_cannot_be_prepared_is_named_and_the_others_are_prepared(unprepared: Path) -> None:
    (unprepared / f"{EAST}.db").write_bytes(b"no database at all, just some bytes that fill a page " * 99)
    code, text = call(unprepared, "system", "prepare")
    told = json.loads(text)
    assert (code, told["ok"], len(told["errors"])) == (1, False, 1)
    assert EAST in told["errors"][0]["region"]
    assert objects(unprepared, WEST) > {"resident"}
    shown = run.invoke(app, ["system", "prepare", "--file", str(unprepared)])
    assert shown.exit_code == 1 and EAST in shown.output


def test_preparing_what_has_no_node_is_an_error_that_says_what_was_named(unprepared: Path) -> None:
    contract = unprepared / "datasets/resident.yaml"
    three = contract.read_text(encoding="utf-8").replace(", community]\n", "]\n", 1)
    contract.write_text(three.replace("authority: community", "authority: street"), encoding="utf-8")
    for code in (E11, "999999999999"):
        result, text = call(unprepared, "system", "prepare", code)
        assert result == 1
        assert code in json.dumps(json.loads(text)["errors"])
