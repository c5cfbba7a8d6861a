"""A real Airflow whose runs fail and overrun: its DAG processor and its executor tell the federation's channels."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from examples.beijing.airflow_local import running
from tests.airflow.declared import NEVER, Hands, declare
from tests.federations import CITY, RESIDENT
from tests.scripted_http import Say, Scripted, scripted

DAGS = 14


def subjects(server: Scripted) -> list[str]:
    return [alert["subject"] for request in server.asked for alert in request.body["alerts"]]


def wait_for(server: Scripted, subject: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if subject in subjects(server):
            return
        time.sleep(1)
    raise TimeoutError(f"{subject} was not told within {seconds:.0f} s: {subjects(server)}")


def test_a_failed_run_and_a_run_that_overruns_its_freshness_reach_the_channel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scripted(lambda request: Say()) as server:
        monkeypatch.setenv("DUTY", f"{server.url}/hook")
        top = "name: small\nalerts: {channels: {duty: {kind: webhook, url: {env: DUTY}}}}\n"
        files = {"federation.yaml": top, "datasets/resident.yaml": f"{RESIDENT}{NEVER}freshness: 1\n"}
        declaration = declare(tmp_path / "federation", **files)
        hands = Hands(declaration)
        hands.settle()
        hands.federation.close()
        with running(tmp_path / "airflow", declaration) as airflow:
            airflow.wait_ready(DAGS)
            assert airflow.import_errors() == []
            airflow.trigger("visit__city_district")  # without a partition key
            paused = f"{airflow.url}/api/v2/dags/resident__city_district"
            airflow.session.patch(paused, json={"is_paused": True}, timeout=30).raise_for_status()
            airflow.trigger("resident__city_district", CITY)  # stays queued
            wait_for(server, "run:visit__city_district/-", 120)
            wait_for(server, f"deadline:resident__city_district/{CITY}", 240)
    assert len(subjects(server)) == 2
