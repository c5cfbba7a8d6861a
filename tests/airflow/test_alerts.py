"""What Airflow notices is told over the federation's channels: callbacks of real runs, over a real HTTP server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import SyncCallback
from fedsync_airflow import alerts
from fedsync_airflow.factory import build_dags

from federation.config import load
from federation.errors import FedsyncError, Transient
from tests.airflow.declared import NEVER, Hands, declare
from tests.federations import CITY, E11, EAST, EAST_1, RESIDENT
from tests.scripted_http import Say, Scripted, scripted


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted(lambda request: Say()) as running:
        yield running


@pytest.fixture
def declaration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Scripted) -> Path:
    top = f"name: small\nalerts: {{channels: {{duty: {{kind: webhook, url: '{server.url}/hook'}}}}}}\n"
    path = declare(
        tmp_path / "federation",
        **{"federation.yaml": top, "datasets/resident.yaml": RESIDENT + NEVER + "freshness: 90\n"},
    )
    monkeypatch.setenv("FEDSYNC_FEDERATION", str(path))
    return path


class Run:
    """What Airflow hands to a callback, as far as it is read."""

    def __init__(self, key: str | None) -> None:
        self.partition_key = key
        self.run_id = "manual__1"


class Dag:
    def __init__(self, dag_id: str) -> None:
        self.dag_id = dag_id


def context(dag_id: str, key: str | None = None) -> dict[str, Any]:
    return {"dag": Dag(dag_id), "dag_run": Run(key), "run_id": "manual__1", "reason": "task_failure"}


def told(server: Scripted) -> list[tuple[str, list[str]]]:
    return [(r.body["event"], [alert["subject"] for alert in r.body["alerts"]]) for r in server.asked]


def held(hands: Hands) -> None:
    for number in range(30):
        hands.resident(f"R{number}", E11)
    hands.settle()
    for number in range(30):
        hands.drop(E11, f"R{number}")
    assert hands.federation.cascade("resident").errors


def test_every_dag_of_a_dataset_has_its_freshness_as_deadline_and_a_callback_for_failures(declaration: Path) -> None:
    dags = {dag.dag_id: dag for dag in build_dags(load(declaration))}
    for name in ("resident__city_district", "resident__sweep"):
        (deadline,) = dags[name].deadline
        assert (deadline.interval.total_seconds(), type(deadline.callback)) == (90 * 60, SyncCallback)
        assert deadline.callback.path == "fedsync_airflow.alerts.deadline_missed"
    assert all(dag.on_failure_callback is alerts.run_failed for dag in dags.values())
    assert {name for name, dag in dags.items() if dag.on_success_callback} == {
        f"{name}__{how}" for name in ("resident", "visit", "work_order") for how in ("quality", "reconcile")
    }


def test_without_channels_no_dag_has_a_callback_or_a_deadline(tmp_path: Path) -> None:
    for dag in build_dags(load(declare(tmp_path))):
        assert (dag.on_failure_callback, dag.on_success_callback, dag.deadline) == (None, None, None)


def test_a_failed_run_is_told_once_with_region_and_page_and_its_end_by_the_sweep_after_the_links_settled(
    hands: Hands, server: Scripted
) -> None:
    hands.settle()
    alerts.run_failed(context("resident__city_district", CITY))
    alerts.run_failed(context("resident__city_district", CITY))
    alerts.watch("resident")
    assert told(server) == [("alarm", [f"run:resident__city_district/{CITY}"])]
    (said,) = server.asked[0].body["alerts"]
    assert said["title_zh"] == "居民 市↔区 北京市"
    assert said["link"].endswith("/dags/resident__city_district/runs/manual__1")
    hands.resident("R1")
    hands.federation.cascade("resident")
    alerts.watch("resident")
    assert told(server)[1:] == [("clear", [f"run:resident__city_district/{CITY}"])]


def test_a_failure_that_a_held_link_explains_is_told_as_that_link_and_never_twice(
    hands: Hands, server: Scripted
) -> None:
    held(hands)
    alerts.run_failed(context("resident__street_community", EAST_1))
    alerts.watch("resident")
    assert told(server) == [("alarm", [f"held:resident/{E11}"])]


def test_a_missed_deadline_is_told_and_over_once_the_links_settled(hands: Hands, server: Scripted) -> None:
    run = {"dag_id": "resident__district_street", "dag_run_id": "r", "partition_key": EAST}
    alerts.deadline_missed({"dag_run": run, "deadline": {}})
    assert told(server) == [("alarm", [f"deadline:resident__district_street/{EAST}"])]
    assert "90 分钟" in server.asked[0].body["alerts"][0]["zh"]
    hands.settle()
    alerts.watch("resident")
    assert told(server)[1:] == [("clear", [f"deadline:resident__district_street/{EAST}"])]


@pytest.mark.parametrize(("way", "title"), [("quality", "质量报告"), ("reconcile", "核对")])
def test_a_sweep_that_failed_is_over_with_the_next_one_and_any_other_run_with_its_next_success(
    hands: Hands, server: Scripted, way: str, title: str
) -> None:
    alerts.run_failed(context("resident__sweep"))
    alerts.run_failed(context(f"resident__{way}"))
    alerts.watch("resident")
    alerts.run_succeeded(context(f"resident__{way}"))
    assert told(server) == [
        ("alarm", ["run:resident__sweep/-"]),
        ("alarm", [f"run:resident__{way}/-"]),
        ("clear", ["run:resident__sweep/-"]),
        ("clear", [f"run:resident__{way}/-"]),
    ]
    assert title in server.asked[1].body["alerts"][0]["title_zh"]


def test_a_failure_of_a_run_by_hand_is_told_and_does_not_stand(hands: Hands, server: Scripted) -> None:
    alerts.run_failed(context("fedsync__release"))
    assert told(server) == [("alarm", ["run:fedsync__release/-"])]
    from federation.ledger.alerts import AlertLog

    assert AlertLog(hands.federation.services.ledger).standing() == []


def test_when_the_ledger_is_what_is_broken_people_are_told_all_the_same(
    declaration: Path, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDSYNC_LEDGER", "postgresql://nobody@127.0.0.1:9/none")
    alerts.run_failed(context("resident__sweep"))
    assert told(server) == [("alarm", ["run:resident__sweep/-"])]


def test_a_channel_that_fails_fails_the_check_after_the_sweep(
    hands: Hands, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    held(hands)
    path = hands.federation.config.file.path
    path.write_text(path.read_text().replace(server.url, "http://127.0.0.1:9"))
    with pytest.raises(Transient) as raised:
        alerts.watch("resident")
    assert isinstance(raised.value, FedsyncError)
    assert raised.value.where["channel"] == "duty"
