"""Pools: a system that says how much it bears gets no more than that, whichever dataset asks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from federation.cli import app
from federation.config import Config, load
from federation.pools import pool_of
from tests.federations import E11, REGIONS, RESIDENT, VISIT, written

TOP = f"""
name: pools
systems:
  registry: {{connector: memory, label: 市人口库, parallel: 2, options: {{store: "r/{{region}}"}}}}
  grid: {{connector: memory, parallel: 1, options: {{store: "g/{{region}}"}}}}
  office: {{connector: memory, options: {{store: "o/{{region}}"}}}}
  one: {{connector: memory, parallel: 5, options: {{store: "1/{{region}}"}}}}
nodes:
  - {{system: registry, level: city, datasets: {{resident: {{}}, visit: {{}}}}}}
  - {{system: grid, level: district, datasets: {{resident: {{}}}}}}
  - {{system: office, level: street, datasets: {{resident: {{}}}}}}
  - {{system: office, level: community, datasets: {{resident: {{}}}}}}
  - {{system: one, regions: ["{E11}"], datasets: {{resident: {{}}}}}}
"""


@pytest.fixture
def declared(tmp_path: Path) -> Config:
    files = {"federation.yaml": TOP, "regions.csv": REGIONS, "datasets/visit.yaml": VISIT}
    written(tmp_path, {**files, "datasets/resident.yaml": RESIDENT.replace("suite: resident.json\n", "")})
    return load(tmp_path)


def test_a_hop_takes_the_narrower_pool_of_the_systems_at_its_ends(declared: Config) -> None:
    resident = declared.dataset("resident")
    assert pool_of(declared, resident, "city", "district") == "fedsync_grid"
    assert pool_of(declared, resident, "district", "street") == "fedsync_grid"


def test_a_level_whose_nodes_do_not_share_a_system_or_whose_system_says_nothing_waits_for_nobody(
    declared: Config,
) -> None:
    assert pool_of(declared, declared.dataset("resident"), "street", "community") is None
    assert pool_of(declared, declared.dataset("visit"), "district", "street") is None


def test_a_pool_counts_for_every_dataset_of_its_system(declared: Config) -> None:
    assert pool_of(declared, declared.dataset("visit"), "city", "district") == "fedsync_registry"


def test_the_command_prints_what_airflow_imports(declared: Config) -> None:
    result = CliRunner().invoke(app, ["system", "pools", "--file", str(declared.file.path)])
    assert result.exit_code == 0, result.output
    pools = json.loads(result.output)
    assert {name: pool["slots"] for name, pool in pools.items()} == {
        "fedsync_registry": 2,
        "fedsync_grid": 1,
        "fedsync_one": 5,
    }
    assert pools["fedsync_registry"]["description"].startswith("市人口库")
    assert all(pool["include_deferred"] is False for pool in pools.values())
