"""A process that is really killed (SIGKILL) anywhere between two steps, on real databases: the next process finishes its work."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from federation.failpoints import ENVIRONMENT
from tests.federations import CITY, E11, EAST, EAST_1, REGIONS, RESIDENT, SUITE, written

SYSTEMS = """
name: killed
datasets: "datasets/*.yaml"
systems:
  store: {connector: sql, options: {url: "sqlite:///FOLDER/{region}.db", create: true}}
nodes:
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    nodes = "".join(
        f"  - {{system: store, level: {level}, datasets: {{resident: {{}}}}}}\n"
        for level in ("city", "district", "street", "community")
    )
    files = {
        "regions.csv": REGIONS,
        "datasets/resident.yaml": RESIDENT,
        "expectations/resident.json": SUITE,
        "federation.yaml": SYSTEMS.replace("FOLDER", str(tmp_path)) + nodes,
    }
    written(tmp_path, files)
    assert sync(tmp_path) == 0
    execute(
        tmp_path,
        CITY,
        "INSERT INTO resident (resident_id, name, id_number, community_code, phone, care_level)"
        f" VALUES ('R1', '王伟', '110101199001010015', '{E11}', '13800000000', '无')",
    )
    assert sync(tmp_path) == 0
    return tmp_path


def sync(folder: Path, failpoint: str | None = None) -> int:
    environment = {**os.environ, **({ENVIRONMENT: failpoint} if failpoint else {})}
    command = [sys.executable, "-c", "from federation.cli import main; main()", "sync", "-f", str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode


def execute(folder: Path, region: str, statement: str) -> list[tuple[str, ...]]:
    with sqlite3.connect(folder / f"{region}.db") as connection:
        return connection.execute(statement).fetchall()


@pytest.mark.parametrize("place", ["intent.noted", "upper.apply.after", "lower.apply.after", "settle.pointer"])
def test_a_process_killed_there_is_followed_by_one_that_finishes_its_work(folder: Path, place: str) -> None:
    execute(folder, CITY, "UPDATE resident SET name = '王芳'")
    execute(folder, E11, "UPDATE resident SET phone = '13911111111'")
    assert sync(folder, place) == -signal.SIGKILL
    assert sync(folder) == 0
    for region in (CITY, EAST, EAST_1, E11):
        assert execute(folder, region, "SELECT name, phone FROM resident") == [("王芳", "13911111111")], region
    corrections = "SELECT count(*) FROM correction WHERE state <> 'logged'"
    with sqlite3.connect(folder / "state/ledger.db") as ledger:
        assert ledger.execute(corrections).fetchone() == (0,), "a delivery was taken for an edit"
