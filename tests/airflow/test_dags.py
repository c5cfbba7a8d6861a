"""The DAG file: what it declares, what it must never do while Airflow parses it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.utils.dag_version_inflation_checker import check_dag_file_stability

from federation.cli import app
from tests.airflow.conftest import ROOT
from tests.airflow.declared import NEVER, declare
from tests.federations import RESIDENT

DAGS = ROOT / "dags"
# Airflow's own reading of .airflowignore, in the pinned version.
pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
HEAVY = ("great_expectations", "pyarrow", "duckdb", "pandas", "polars", "openpyxl", "connectors", "federation.runtime")


def bag() -> DagBag:
    return DagBag(dag_folder=DAGS, safe_mode=False)


@pytest.fixture
def dags(declaration: Path) -> dict[str, Any]:
    found = bag()
    assert found.import_errors == {}
    return dict(found.dags)


def test_a_dataset_has_one_dag_per_hop_a_sweep_a_quality_report_and_a_reconciliation_whatever_its_number_of_nodes(
    dags: dict[str, Any],
) -> None:
    assert set(dags) == {
        *(f"{name}__{hop}" for name in ("resident", "visit") for hop in ("city_district", "district_street")),
        *(f"{name}__{hop}" for name in ("resident", "visit") for hop in ("street_community", "sweep")),
        *("work_order__city_street", "work_order__sweep", "fedsync__replay", "fedsync__release"),
        *("fedsync__pause", "fedsync__backfill", "fedsync__erase"),
        *(f"{name}__{how}" for name in ("resident", "visit", "work_order") for how in ("quality", "reconcile")),
    }


def test_every_dag_runs_at_once_tells_who_owns_it_and_explains_itself_in_both_languages(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        assert dag.is_paused_upon_creation is False, dag.dag_id
        assert "fedsync" in dag.tags
        assert dag.owner == "fedsync"
        assert dag.catchup is False
        assert any("\u4e00" <= letter <= "\u9fff" for letter in dag.dag_display_name), dag.dag_id
        assert any("\u4e00" <= letter <= "\u9fff" for letter in dag.doc_md)
        assert any(word.isascii() and word.isalpha() for word in dag.doc_md.split())


def test_every_task_and_dag_is_named_in_chinese_too_and_can_be_found_by_dataset_hop_and_level(
    dags: dict[str, Any],
) -> None:
    for dag in dags.values():
        assert dag.description
        for task in dag.tasks:
            assert any("\u4e00" <= letter <= "\u9fff" for letter in task.task_display_name), task.task_id
    assert set(dags["resident__street_community"].tags) == {
        "fedsync", "resident", "hop", "street-community", "street", "community",
    }  # fmt: skip


def test_a_hops_page_says_which_fields_flow_which_way_what_wakes_it_and_which_commands_help(
    dags: dict[str, Any],
) -> None:
    page = dags["resident__city_district"].doc_md
    assert "回流 down（以市级或以上为准）：姓名、社区代码、身份证号" in page
    assert "上报 up（以区级或以下为准）：手机号、关爱等级" in page
    assert "`resident__sweep`" in page
    assert "1440 分钟" in page
    commands = re.findall(r"`fedsync ([a-z]+)", " ".join(dag.doc_md for dag in dags.values()))
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    known |= {group.name for group in app.registered_groups}
    assert set(commands) <= known


def test_a_hop_announces_only_where_another_hop_listens(dags: dict[str, Any]) -> None:
    def outlets(dag_id: str) -> set[str]:
        return {asset.name for task in dags[dag_id].tasks for asset in task.outlets}

    assert outlets("resident__city_district") == {"resident__district__from_above"}
    assert outlets("resident__district_street") == {"resident__street__from_above", "resident__district__from_below"}
    assert outlets("resident__street_community") == {"resident__street__from_below"}
    assert outlets("work_order__city_street") == set()


def test_a_sweep_keeps_the_federations_own_time(dags: dict[str, Any]) -> None:
    assert str(dags["resident__sweep"].timetable.timezone) == "Asia/Shanghai"


def test_a_quality_report_keeps_the_federations_schedule_and_time_and_asks_for_regions(
    declaration: Path,
) -> None:
    declaration.write_text("name: small\nquality: {schedule: '15 3 * * 1'}\n", encoding="utf-8")
    dag = bag().dags["resident__quality"]
    assert (dag.timetable.expression, str(dag.timetable.timezone)) == ("15 3 * * 1", "Asia/Shanghai")
    assert dag.max_active_runs == 1
    assert set(dag.tags) == {"fedsync", "resident", "quality"}
    assert dag.params.get_param("regions").schema["type"] == "array"


@pytest.mark.parametrize(("declared", "cron"), [("", "30 3 * * *"), ("'0 4 * * 6'", "0 4 * * 6"), ("null", None)])
def test_a_reconciliation_runs_nightly_or_as_its_dataset_says(
    declaration: Path, declared: str, cron: str | None
) -> None:
    more = f"reconcile: {declared}\n" if declared else ""
    (declaration.parent / "datasets/resident.yaml").write_text(RESIDENT + NEVER + more, encoding="utf-8")
    dag = bag().dags["resident__reconcile"]
    assert getattr(dag.timetable, "expression", None) == cron
    assert dag.max_active_runs == 1
    assert set(dag.tags) == {"fedsync", "resident", "reconcile"}
    assert dag.params["dry_run"] is False


def test_what_operators_trigger_asks_with_a_form_that_knows_the_federation(dags: dict[str, Any]) -> None:
    def schema(dag: str, name: str) -> dict[str, Any]:
        return dict(dags[f"fedsync__{dag}"].params.get_param(name).schema)

    assert schema("pause", "kind")["enum"] == ["link", "region", "system"]
    assert schema("pause", "until")["format"] == "date-time"
    assert schema("backfill", "dataset")["enum"] == ["resident", "visit", "work_order"]
    assert schema("backfill", "region")["pattern"] == "^[0-9]{12}$"
    assert schema("erase", "dataset")["enum"] == ["", "resident", "visit", "work_order"]


def test_no_task_announces_two_assets(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        assert all(len(task.outlets) <= 1 for task in dag.tasks), dag.dag_id


def test_a_hop_hears_its_neighbours_and_the_sweep_and_an_upload_at_the_lowest_level(dags: dict[str, Any]) -> None:
    announced = {asset.name for dag in dags.values() for task in dag.tasks for asset in task.outlets}
    for dag_id in ("resident__city_district", "resident__district_street", "resident__street_community"):
        upper, lower = dag_id.removeprefix("resident__").split("_")
        heard = {asset.name for asset in dags[dag_id].timetable.asset_condition.objects}
        assert heard == {f"resident__{upper}__from_above", f"resident__{lower}__from_below"}
        # who uploads at the lowest level announces it through Airflow's asset-event API: no DAG arrives from below there
        assert heard - announced == ({"resident__community__from_below"} if lower == "community" else set())


def test_a_run_whose_work_failed_cannot_end_as_a_success(dags: dict[str, Any]) -> None:
    """The state of a run is that of its leaves, and announcements succeed whatever happened before them."""
    for dag_id, dag in dags.items():
        works = {"sync", "examine", "compare"} & set(dag.task_ids)
        if not works:
            continue
        leaves = [task for task in dag.leaves if works & {task.task_id, *task.upstream_task_ids}]
        assert any(task.trigger_rule in ("none_failed", "all_success") for task in leaves), dag_id


def test_the_dag_file_parses_the_same_way_every_time() -> None:
    for path in (DAGS / "fedsync_dags.py", *(DAGS / "fedsync_airflow").glob("*.py")):
        result = check_dag_file_stability(str(path))
        assert not result.warnings, (path, result.format_warnings())


def test_parsing_imports_nothing_heavy_touches_no_system_and_warns_of_nothing(declaration: Path) -> None:
    code = f"""
import json, sys
import airflow.sdk, airflow.partition_mappers.base, airflow.plugins_manager
import airflow.providers.standard.operators.empty, airflow.providers.standard.decorators.branch_python
sys.path[:0] = [{str(DAGS)!r}, {str(ROOT / "plugins")!r}, {str(ROOT)!r}]
before = set(sys.modules)
sys.addaudithook(lambda name, given: (_ for _ in ()).throw(RuntimeError(name)) if name in ("socket.connect", "sqlite3.connect") else None)
import warnings
warnings.simplefilter("error")
import fedsync_dags
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    imported = json.loads(run.stdout.splitlines()[-1])
    assert "fedsync_airflow.factory" in imported
    assert [name for name in imported if name.startswith(HEAVY) or name.split(".")[0] == "requests"] == []
    assert not (declaration.parent / "state").exists()


def test_without_the_variable_the_file_is_an_import_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDSYNC_FEDERATION", raising=False)
    found = bag()
    assert found.dags == {}
    (error,) = found.import_errors.values()
    assert "FEDSYNC_FEDERATION" in error


def test_a_faulty_declaration_is_an_import_error_that_names_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty = RESIDENT.replace("levels: [city, district", "levels: [planet, district")
    monkeypatch.setenv("FEDSYNC_FEDERATION", str(declare(tmp_path, **{"datasets/resident.yaml": faulty + NEVER})))
    found = bag()
    assert found.dags == {}
    (error,) = found.import_errors.values()
    assert "resident.yaml" in error
    assert "line=" in error


def test_tasks_that_move_records_take_the_pool_of_their_system_and_go_before_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = """
name: small
systems:
  registry: {connector: memory, parallel: 2, options: {store: "r/{region}"}}
nodes:
  - {system: registry, level: city, datasets: {resident: {}}}
"""
    more = {"federation.yaml": top, "datasets/resident.yaml": RESIDENT + NEVER + "priority: 7\n"}
    monkeypatch.setenv("FEDSYNC_FEDERATION", str(declare(tmp_path / "federation", **more)))
    dags: dict[str, Any] = bag().dags
    hop = {task.task_id: task for task in dags["resident__city_district"].tasks}
    assert {name: task.pool for name, task in hop.items() if task.pool != "default_pool"} == {
        "collect": "fedsync_registry",
        "sync": "fedsync_registry",
    }
    weights = {name: dags[name].tasks[0].priority_weight for name in dags}
    assert weights["fedsync__release"] > weights["resident__sweep"] > weights["resident__city_district"]
    assert weights["resident__city_district"] > weights["visit__sweep"] > weights["visit__quality"]
    assert {str(task.weight_rule) for dag in dags.values() for task in dag.tasks} == {"absolute"}
