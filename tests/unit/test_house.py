"""The house: imports point one way, and what is light stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPOSITION_ROOT = "federation/runtime.py"


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", modules("federation"), ids=lambda path: path.name)
def test_the_engine_imports_neither_airflow_nor_a_connector_nor_an_adapter(path: Path) -> None:
    for name in imports(path):
        assert name.split(".")[0] not in ("airflow", "dags", "plugins"), name
        if name.startswith("connectors") and path != ROOT / COMPOSITION_ROOT:
            assert name in ("connectors.base", "connectors.findings"), name
        if name.startswith("great_expectations"):
            assert path.name.startswith(("gate", "quality")), (
                "Great Expectations belongs to the gate and the quality report"
            )


@pytest.mark.parametrize("path", modules("connectors"), ids=lambda path: path.name)
def test_a_connector_knows_the_contract_and_nothing_of_the_engine(path: Path) -> None:
    allowed = {
        "federation",
        *(
            f"federation.{name}"
            for name in ("errors", "contract", "canonical", "canonical_buckets", "canonical_json", "regions")
        ),
    }
    for name in imports(path):
        assert name.split(".")[0] not in ("airflow", "dags", "plugins", "great_expectations"), name
        if name.startswith("federation"):
            assert name in allowed, name


@pytest.mark.parametrize("module", ["federation.config", "federation.errors"])
def test_what_a_dag_file_imports_stays_light(module: str) -> None:
    heavy = ["pyarrow", "duckdb", "pandas", "sqlalchemy", "great_expectations", "requests", "openpyxl", "psycopg"]
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


def test_no_file_of_the_engine_grows_past_what_fits_a_head() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in ("federation", "connectors", "dags", "plugins")
        for path in modules(folder)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 500
    }
    assert not long


def test_each_row_of_the_decision_table_names_a_test_that_exists() -> None:
    written = (ROOT / "docs/semantics.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_[a-z_0-9]+)`", written))
    tests = "\n".join(path.read_text(encoding="utf-8") for path in modules("tests"))
    assert len(named) > 30
    assert not {name for name in named if f"def {name}(" not in tests}
    assert all((ROOT / path).exists() for path in re.findall(r"`((?:tests|federation)/[a-z_/]+\.py)`", written))


def pins(name: str) -> dict[str, str]:
    """Package → version, of a file of requirements."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = (line.partition(";")[0].strip().partition("==") for line in lines if "==" in line.partition(";")[0])
    return {package.split("[")[0]: version for package, _, version in found}


def test_the_image_has_the_extras_for_where_files_lie_and_reports_go_in_the_versions_that_the_tests_use() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    tested = pins("requirements-dev.txt")
    for package, _, version in (line.partition("==") for lines in extras.values() for line in lines):
        assert (package, pins("requirements-dev.in")[package], tested[package]) == (package, version, version)
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    installed = re.search(r"--constraint (\S+) --editable '\.\[(.+)\]'", image)
    assert installed is not None and installed[1] == "requirements-dev.txt"
    assert set(installed[2].split(",")) == {"sftp", "s3", "statsd", "openlineage"} <= set(extras)
    assert pins("requirements.txt").items() <= tested.items(), "what the image has is what the tests use"
