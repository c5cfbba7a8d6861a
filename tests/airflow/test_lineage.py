"""OpenLineage events of a real task, as Airflow's provider writes them to its file transport."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fedsync_airflow import lineage

from tests.airflow.conftest import ROOT
from tests.airflow.declared import Hands
from tests.federations import CITY, E11, EAST, WEST

RUN = """
import sys, warnings
warnings.simplefilter("ignore")
from airflow.dag_processing.dagbag import DagBag
dag = DagBag(dag_folder=sys.argv[1], safe_mode=False).dags["lineage_of_one_hop"]
print(dag.test().state)
"""
DAG_FILE = f"""
from airflow.sdk import DAG, task
from fedsync_airflow import tasks
with DAG("lineage_of_one_hop", schedule=None, catchup=False):
    @task
    def collect():
        return tasks.collect("resident", "{CITY}")
    @task
    def sync(work):
        tasks.sync("resident", work)
    sync.expand(work=collect())
"""


def events_of_a_hop(tmp_path: Path, declaration: Path) -> list[dict[str, Any]]:
    """Runs one hop's two tasks in an Airflow of its own (a partition key cannot be given to `dag.test`), with a file transport."""
    dags, home, out = tmp_path / "dags", tmp_path / "home", tmp_path / "events.jsonl"
    dags.mkdir()
    (dags / "hop.py").write_text(DAG_FILE, encoding="utf-8")
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": "file", "log_file_path": str(out), "append": True}),
        "AIRFLOW__OPENLINEAGE__NAMESPACE": "city",
        "FEDSYNC_FEDERATION": str(declaration),
        "PYTHONPATH": f"{ROOT}:{ROOT / 'dags'}:{ROOT / 'plugins'}",
    }
    environment.pop("PYTEST_VERSION", None)
    for command in (["-m", "airflow", "db", "migrate"], ["-c", RUN, str(dags)]):
        done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
    assert "success" in done.stdout.splitlines(), done.stdout[-3000:]
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_a_mapped_sync_sends_one_event_with_both_ends_their_columns_and_their_rows(
    tmp_path: Path, hands: Hands, declaration: Path
) -> None:
    hands.settle()
    hands.resident("R1", E11, name="欧阳震华")
    hands.resident("R2", E11)
    events = events_of_a_hop(tmp_path, declaration)
    (event,) = [event for event in events if event.get("outputs")]
    assert event["eventType"] == "RUNNING"
    assert event["job"] == {**event["job"], "namespace": "city", "name": "lineage_of_one_hop.sync"}
    assert event["run"]["runId"] in {e["run"]["runId"] for e in events if e["eventType"] == "START"}
    outputs = {out["name"]: out for out in event["outputs"]}
    inputs = {one["name"]: one for one in event["inputs"]}
    assert set(outputs) == set(inputs) == {f"hosted/resident/{code}" for code in (CITY, EAST, WEST)}
    east = outputs[f"hosted/resident/{EAST}"]
    assert east["namespace"] == "fedsync://small"
    assert east["outputFacets"]["outputStatistics"]["rowCount"] == 2
    assert inputs[f"hosted/resident/{CITY}"]["inputFacets"]["inputStatistics"]["rowCount"] == 2
    columns = east["facets"]["columnLineage"]["fields"]
    assert set(columns) == {"resident_id", "name", "id_number", "community_code"}
    (source,) = columns["name"]["inputFields"]
    assert (source["namespace"], source["name"], source["field"]) == (
        "fedsync://small",
        f"hosted/resident/{CITY}",
        "name",
    )
    assert source["transformations"][0] == {**source["transformations"][0], "type": "DIRECT", "subtype": "IDENTITY"}
    city = outputs[f"hosted/resident/{CITY}"]["facets"]["columnLineage"]["fields"]
    assert {one["name"] for one in city["phone"]["inputFields"]} == {f"hosted/resident/{code}" for code in (EAST, WEST)}
    described = {field["name"]: field["description"] for field in east["facets"]["schema"]["fields"]}
    assert described["name"] == "姓名"
    text = json.dumps(events, ensure_ascii=False)
    assert "欧阳震华" not in text
    for facet in (east["facets"]["columnLineage"], east["facets"]["schema"], east["outputFacets"]["outputStatistics"]):
        assert facet["_schemaURL"].startswith("https://openlineage.io/spec/facets/")
        assert facet["_producer"].startswith("https://")


def test_it_is_off_unless_airflow_is_told_where_to_send(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not lineage.active()
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", '{"type": "console"}')
    assert lineage.active()
    monkeypatch.setitem(sys.modules, "airflow.providers.openlineage", None)
    assert not lineage.active()
