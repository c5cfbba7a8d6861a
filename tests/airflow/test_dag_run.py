"""Whole runs of the DAGs that need no partition key, by Airflow's own runner: what it skips, what it starts, what it ends as."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag

from tests.airflow.conftest import ROOT
from tests.airflow.declared import Hands
from tests.federations import E11

# Airflow's runner loads its whole web stack, whose packages warn of each other; what is ours is tested with warnings as errors
# in the other modules.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def _metadata() -> None:
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)


@pytest.fixture
def dags(_metadata: None, declaration: object) -> dict[str, Any]:
    return dict(DagBag(dag_folder=ROOT / "dags", safe_mode=False).dags)


def run(dag: Any, **conf: Any) -> tuple[str, dict[str, str]]:
    """The run's state and its tasks' states."""
    result = dag.test(run_conf=conf)
    return str(result.state), {ti.task_id: str(ti.state) for ti in result.get_task_instances()}


def test_a_sweep_starts_only_the_announcements_that_have_something_to_say(dags: dict[str, Any], hands: Hands) -> None:
    hands.resident("R1", E11)
    hands.settle()
    state, tasks = run(dags["resident__sweep"])
    assert state == "success"
    assert {name for name, how in tasks.items() if how == "success"} == {"probe"}
    hands.put(E11, "R1", phone="13911111111")
    state, tasks = run(dags["resident__sweep"])
    assert state == "success"
    assert {name for name, how in tasks.items() if how == "success"} == {"probe", "wake__street__from_above"}


def test_a_hop_that_is_started_without_a_partition_key_fails_and_says_what_to_give(
    dags: dict[str, Any], hands: Hands, capfd: pytest.CaptureFixture[str]
) -> None:
    state, tasks = run(dags["resident__city_district"])
    assert state == "failed"
    assert "本次运行没有分区键" in _told(capfd)
    assert tasks["collect"] == "failed"
    assert tasks["done"] == "upstream_failed"


def test_the_replay_dag_asks_for_the_record_again_and_leaves_a_line_in_the_audit_trail(
    dags: dict[str, Any], hands: Hands
) -> None:
    hands.resident("R1", E11)
    hands.settle()
    hands.put(E11, "R1", phone="1380000")
    hands.federation.cascade("resident")
    quarantine = hands.federation.services.quarantine
    (item,) = quarantine.open_items()
    state, _ = run(dags["fedsync__replay"], item=item.item_id[:12])
    assert state == "success"
    assert [found.state for found in quarantine.open_items()] == ["replay"]


def test_the_release_dag_refuses_a_link_that_is_not_held(
    dags: dict[str, Any], hands: Hands, capfd: pytest.CaptureFixture[str]
) -> None:
    hands.settle()
    state, _ = run(dags["fedsync__release"], link=f"resident/{E11}")
    assert state == "failed"
    assert "该链路未被拦截" in _told(capfd)


def test_the_release_dag_lets_a_held_link_pass(dags: dict[str, Any], hands: Hands) -> None:
    for number in range(30):
        hands.resident(f"R{number}", E11)
    hands.settle()
    for number in range(30):
        hands.drop(E11, f"R{number}")
    hands.federation.cascade("resident")
    links, link = hands.federation.services.links, hands.federation.config.link("resident", E11)
    assert links.state(link).state == "held"
    state, _ = run(dags["fedsync__release"], link=link.id)
    assert state == "success"
    assert links.state(link).released


def _told(capfd: pytest.CaptureFixture[str]) -> str:
    """What the tasks logged, escapes undone."""
    text = "".join(capfd.readouterr())
    return text + text.encode("ascii", "backslashreplace").decode("unicode_escape", "replace")


def test_the_operators_dags_do_what_their_forms_say(dags: dict[str, Any], hands: Hands) -> None:
    hands.resident("R1", E11)
    hands.settle()
    conf = {"action": "pause", "kind": "region", "subject": E11, "reason": "检修"}
    assert run(dags["fedsync__pause"], **conf)[0] == "success"
    (pause,) = hands.federation.services.pauses.standing()
    assert (pause.kind, pause.subject, pause.paused_by) == ("region", E11, "dag_test")
    assert run(dags["fedsync__pause"], **{**conf, "action": "resume"})[0] == "success"
    assert hands.federation.services.pauses.standing() == []
    assert run(dags["fedsync__backfill"], dataset="resident", region=E11)[0] == "success"
    assert run(dags["fedsync__erase"], dataset="resident", key="R1", reason="本人要求", by="李工")[0] == "success"
    assert hands.get(E11, "R1") == {}
    # Airflow's test runner keeps the last run's parameters: what the schedule starts has the form's defaults.
    assert run(dags["fedsync__erase"], dataset="", key="", reason="", by="")[0] == "success"
