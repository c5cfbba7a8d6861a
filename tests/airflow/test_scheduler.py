"""A real Airflow over a real federation: a sweep, a saved workbook, an event by REST; each finds its way to regions with news alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook

from examples.beijing.airflow_local import LocalAirflow, running
from tests.airflow.declared import BRANCH, Hands, declare
from tests.federations import CITY, E11, E12, EAST, EAST_1, W11, W12, WEST, WEST_1

DAGS = 13
HOP = "resident__street_community"
BOOK = f"""
name: small
systems:
  books: {{connector: workbook, options: {{path: "{{home}}/{{region}}.xlsx"}}}}
nodes:
  - {{system: books, regions: ["{E12}"], datasets: {{resident: {{}}}}}}
"""
EXPECTED = {
    ("resident__city_district", CITY),
    ("resident__district_street", EAST),
    ("resident__district_street", WEST),
    ("resident__street_community", EAST_1),
    ("resident__street_community", WEST_1),
}


def test_a_sweep_a_saved_workbook_and_an_event_by_rest_reach_exactly_the_regions_with_news(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declaration = declare(tmp_path / "federation", **{"federation.yaml": BOOK})
    monkeypatch.setenv("FEDSYNC_FEDERATION", str(declaration))
    hands = Hands(declaration)
    hands.resident("R1", E11)
    hands.resident("R2", W11)
    hands.resident("R3", W12)
    hands.resident("R5", E12)
    hands.settle()
    with running(tmp_path / "airflow", declaration) as airflow:
        airflow.wait_ready(DAGS)
        assert airflow.import_errors() == []
        swept(airflow, hands)
        saved(airflow, hands, declaration.parent / f"{E12}.xlsx")
        announced(airflow, hands)
        group = airflow.process.pid
    hands.federation.close()
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


def swept(airflow: LocalAirflow, hands: Hands) -> None:
    """Edits at both ends of the chain, and one sweep."""
    hands.resident("R4", E11, name="李娜")
    hands.put(W11, "R2", phone="13922222222")
    runs = settled(airflow, lambda: airflow.trigger("resident__sweep"))
    assert {(run["dag_id"], run["partition_key"]) for run in runs if run["partition_key"]} == EXPECTED
    assert {run["dag_id"] for run in runs if not run["partition_key"]} - {"resident__uploads"} == {"resident__sweep"}
    assert [hands.get(region, "R4")["name"] for region in BRANCH] == ["李娜"] * 4
    assert hands.get(WEST, "R4") == {}
    assert [hands.get(region, "R2")["phone"] for region in (W11, WEST_1, WEST, CITY)] == ["13922222222"] * 4


def saved(airflow: LocalAirflow, hands: Hands, path: Path) -> None:
    """Somebody edits a workbook and saves it; nobody sweeps."""

    def save() -> None:
        book = load_workbook(path)
        sheet = book["数据"]
        column = next(cell.column for cell in sheet[1] if str(cell.value).startswith("手机号"))
        sheet.cell(2, column).value = "13955555555"
        before = {run["dag_run_id"] for run in airflow.runs()}
        book.save(path)
        began = time.monotonic()
        while not any(run["dag_id"] == HOP and run["dag_run_id"] not in before for run in airflow.runs()):
            assert time.monotonic() - began < 60, "the street's hop was not woken"
            time.sleep(0.5)
        print(f"woken after {time.monotonic() - began:.0f} s")

    runs = settled(airflow, save)
    assert {(run["dag_id"], run["partition_key"]) for run in runs if run["partition_key"]} == {
        ("resident__street_community", EAST_1),
        ("resident__district_street", EAST),
        ("resident__city_district", CITY),
    }
    assert hands.get(CITY, "R5")["phone"] == "13955555555"


def announced(airflow: LocalAirflow, hands: Hands) -> None:
    """A platform tells by REST that one community has news."""
    hands.put(W12, "R3", phone="13966666666")
    (asset,) = airflow.get("assets", name_pattern="resident__community__from_below")["assets"]

    def post() -> None:
        told = {"asset_id": asset["id"], "partition_key": W12}
        airflow.session.post(f"{airflow.url}/api/v2/assets/events", json=told, timeout=30).raise_for_status()

    runs = settled(airflow, post)
    assert ("resident__street_community", WEST_1) in {(run["dag_id"], run["partition_key"]) for run in runs}
    assert hands.get(CITY, "R3")["phone"] == "13966666666"


def settled(airflow: LocalAirflow, act: Callable[[], object]) -> list[dict[str, Any]]:
    """The runs that something led to, all of which succeeded."""
    before = {run["dag_run_id"] for run in airflow.runs()}
    act()
    runs = [run for run in airflow.wait_quiet(timeout=240.0) if run["dag_run_id"] not in before]
    assert {run["state"] for run in runs} == {"success"}, runs
    return runs
