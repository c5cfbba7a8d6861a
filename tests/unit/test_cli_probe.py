"""`fedsync system probe` over a small federation: SQLite files, a workbook, hosted nodes."""

from __future__ import annotations

import importlib.util
import json
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from connectors.base import Connector
from connectors.findings import Finding
from connectors.memory import MemoryConnector
from federation.cli import app
from federation.probing import AT_ONCE, chosen, probe_nodes
from tests.federations import CITY, E11, E12, E21, EAST, EAST_1, REGIONS, RESIDENT, SUITE, Small, written
from tests.scripted_http import Say, scripted

TOP = """
name: probed
datasets: "datasets/*.yaml"
systems:
  store: {connector: sql, options: {url: "sqlite:///FOLDER/{region}.db", create: true}}
  office: {connector: sql, options: {url: "sqlite:///FOLDER/office.db"}}
  ledgers: {connector: workbook, options: {path: "FOLDER/{region}.xlsx"}}
nodes:
  - {system: store, level: city, datasets: {resident: {}}}
  - {system: store, level: district, datasets: {resident: {}}}
  - {system: office, regions: ["110101001000"], datasets: {resident: {}}}
  - {system: ledgers, level: community, datasets: {resident: {}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "regions.csv": REGIONS,
        "datasets/resident.yaml": RESIDENT,
        "expectations/resident.json": SUITE,
        "federation.yaml": TOP.replace("FOLDER", str(tmp_path)),
    }
    return written(tmp_path, files)


def run(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["system", "probe", *words, "-f", str(folder)])


def as_json(folder: Path, *words: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(run(folder, *words, "--json").stdout)
    return told


def test_every_node_is_reported_in_order_and_a_failure_makes_the_exit_code(folder: Path) -> None:
    result = run(folder, "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 1 and told["ok"] is False
    assert [node["region"] for node in told["nodes"]][:4] == [CITY, EAST, "110102000000", EAST_1]
    states = {node["region"]: node["state"] for node in told["nodes"]}
    assert (states[CITY], states[EAST_1], states[E11]) == ("ok", "fail", "fail")
    assert {node["system"] for node in told["nodes"]} == {"store", "office", "ledgers", "hosted"}


def test_a_system_a_region_and_a_dataset_narrow_the_nodes(folder: Path) -> None:
    assert {node["system"] for node in as_json(folder, "store")["nodes"]} == {"store"}
    inside = {node["region"] for node in as_json(folder, "--region", EAST)["nodes"]}
    assert CITY not in inside and {EAST, EAST_1, E11} <= inside and "110102000000" not in inside
    assert {
        node["region"] for node in as_json(folder, "ledgers", "--region", E11, "--dataset", "resident")["nodes"]
    } == {E11}


def test_nodes_that_are_sound_make_exit_code_0(folder: Path) -> None:
    result = run(folder, "store")
    assert result.exit_code == 0 and "3 节点 nodes: 3 正常 ok" in result.stdout


def test_a_node_that_does_not_exist_is_an_error_that_names_those_that_do(folder: Path) -> None:
    result = run(folder, "stroe")
    assert result.exit_code == 1 and "store" in result.stderr


def test_people_are_told_in_both_languages_what_is_wrong_and_what_to_do(folder: Path) -> None:
    shown = run(folder, "office").output
    assert "结构 schema" in shown and "/" in shown and "→" in shown
    few = run(folder, "store", "--region", EAST).stdout
    assert "策略 strategy" in few, "of a few nodes, all is shown"
    assert "策略 strategy" not in run(folder).stdout
    assert "策略 strategy" in run(folder, "--all").stdout


def test_probing_leaves_no_trace_in_any_system(folder: Path) -> None:
    run(folder)
    left = {path.name for path in folder.iterdir()}
    assert left == {"regions.csv", "datasets", "expectations", "federation.yaml", "state"}


def test_no_more_than_eight_nodes_are_inspected_at_once(tmp_path: Path) -> None:
    small = Small(tmp_path)
    lock, now, most = threading.Lock(), [0], [0]

    class Slow(MemoryConnector):
        def inspect(self) -> list[Finding]:
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.05)
            with lock:
                now[0] -= 1
            return [Finding("reach", "ok", "好", "fine")]

    def opener(binding: Any) -> Connector:
        return Slow(small.federation._opener(binding).node)

    federation = type(small.federation)(small.federation.services, opener)
    nodes = chosen(federation.config, None, None, None)
    reports = list(probe_nodes(federation, nodes))
    assert len(reports) == len(nodes) > AT_ONCE
    assert 1 < most[0] <= AT_ONCE
    assert [report.region for report in reports] == [node.region.code for node in nodes]


def test_one_node_that_cannot_even_be_opened_does_not_keep_the_others_from_being_inspected(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (folder / "federation.yaml").read_text()
    declared = text.replace('"sqlite:///' + str(folder) + '/office.db"', "{env: FEDSYNC_TEST_NOT_SET}")
    assert declared != text
    (folder / "federation.yaml").write_text(declared)
    monkeypatch.delenv("FEDSYNC_TEST_NOT_SET", raising=False)
    told = as_json(folder)
    (broken,) = [node for node in told["nodes"] if node["system"] == "office"]
    assert (
        broken["state"] == "fail"
        and "FEDSYNC_TEST_NOT_SET" in broken["findings"][0]["en"] + broken["findings"][0]["todo"]
    )
    assert any(node["state"] == "ok" for node in told["nodes"])


def at_dameng(folder: Path, patch: pytest.MonkeyPatch, url: str) -> str:
    """What people are told once the office keeps its records in the Dameng at this URL."""
    patch.setenv("FEDSYNC_TEST_DAMENG", url)
    text = (folder / "federation.yaml").read_text()
    declared = text.replace(f'"sqlite:///{folder}/office.db"', "{env: FEDSYNC_TEST_DAMENG}, timeout: 1")
    assert declared != text
    (folder / "federation.yaml").write_text(declared)
    result = run(folder, "office")
    assert result.exit_code == 1
    return result.stdout


def test_a_database_whose_driver_is_not_installed_names_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dmPython", None)
    told = at_dameng(folder, monkeypatch, "dm://fedsync@127.0.0.1:1/MISSING")
    assert 'pip install "fedsync[dameng]"' in told and "安装该数据库的驱动" in told


DAMENG = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("dmPython", "dmSQLAlchemy"))), reason="the extra `dameng` is not installed"
)


@DAMENG
def test_a_dameng_that_does_not_answer_is_told_as_such(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        told = at_dameng(folder, monkeypatch, f"dm://fedsync:secret@127.0.0.1:{closed.getsockname()[1]}/CITY")
    assert "数据库暂时无响应" in told and "CODE:-70028" in told and "secret" not in told


@DAMENG
def test_a_dameng_that_no_password_is_given_for_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = at_dameng(folder, monkeypatch, "dm://fedsync@127.0.0.1:1/CITY")
    assert "数据库拒绝访问" in told and "password cannot be empty" in told


def test_the_pace_is_what_the_node_declares_else_what_its_system_does_else_its_levels_default(folder: Path) -> None:
    with scripted(lambda _: Say(body=[])) as server:
        declared = (
            (folder / "federation.yaml")
            .read_text()
            .replace(
                "nodes:",
                f"""  platform: {{connector: rest, options: {{base_url: "{server.url}", path: /people}}}}
  shared: {{connector: rest, options: {{base_url: "{server.url}/shared", path: /people, requests_per_second: 3}}}}
nodes:
  - {{system: platform, regions: ["{E11}"], datasets: {{resident: {{}}}}}}
  - {{system: shared, regions: ["{E12}"], datasets: {{resident: {{}}}}}}
  - {{system: shared, regions: ["{E21}"], datasets: {{resident: {{options: {{requests_per_second: null}}}}}}}}""",
            )
        )
        (folder / "federation.yaml").write_text(declared)
        nodes = {node["region"]: node for node in as_json(folder)["nodes"]}
    told = {
        code: next(found["zh"] for found in nodes[code]["findings"] if "pace" in found["en"])
        for code in (E11, E12, E21)
    }
    assert told == {
        E11: "速率：每秒至多 5 次请求（空闲后可连发 25 次）（社区级默认）",
        E12: "速率：每秒至多 3 次请求（声明）",
        E21: "速率：不限速（声明）",
    }
