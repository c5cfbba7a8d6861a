"""A real Airflow over a real federation: one sweep, and the cascade finds its way down and up, to regions with news alone."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from examples.beijing.airflow_local import running
from tests.airflow.declared import BRANCH, Hands
from tests.federations import CITY, E11, EAST, EAST_1, W11, W12, WEST, WEST_1

DAGS = 12
EXPECTED = {
    ("resident__city_district", CITY),
    ("resident__district_street", EAST),
    ("resident__district_street", WEST),
    ("resident__street_community", EAST_1),
    ("resident__street_community", WEST_1),
}


def test_a_sweep_cascades_down_and_up_to_exactly_the_regions_with_news(
    tmp_path: Path, declaration: Path, hands: Hands
) -> None:
    hands.resident("R1", E11)
    hands.resident("R2", W11)
    hands.resident("R3", W12)
    hands.settle()
    with running(tmp_path / "airflow", declaration) as airflow:
        airflow.wait_ready(DAGS)
        assert airflow.import_errors() == []
        hands.resident("R4", E11, name="李娜")
        hands.put(W11, "R2", phone="13922222222")
        started = time.monotonic()
        airflow.trigger("resident__sweep")
        runs = airflow.wait_quiet(timeout=240.0)
        took = time.monotonic() - started
        group = airflow.process.pid
    assert {run["state"] for run in runs} == {"success"}, runs
    assert {(run["dag_id"], run["partition_key"]) for run in runs if run["partition_key"]} == EXPECTED
    assert {run["dag_id"] for run in runs if not run["partition_key"]} == {"resident__sweep"}
    assert [hands.get(region, "R4")["name"] for region in BRANCH] == ["李娜"] * 4
    assert hands.get(WEST, "R4") == {}
    assert [hands.get(region, "R2")["phone"] for region in (W11, WEST_1, WEST, CITY)] == ["13922222222"] * 4
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
    print(f"cascade: {took:.0f} s, {len(runs)} runs")
