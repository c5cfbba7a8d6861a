"""Airflow for tests: a home of its own, set before anything imports Airflow, and the repository's DAGs and plugins."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOME = Path(tempfile.mkdtemp(prefix="fedsync-airflow-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
SETTINGS = {
    "AIRFLOW_HOME": str(HOME),
    "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME / 'airflow.db'}",
    "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(HOME / "logs"),
}
os.environ.update(SETTINGS)
sys.path[:0] = [str(ROOT / "dags"), str(ROOT / "plugins")]  # Airflow puts both there itself in its own processes

from tests.airflow.declared import Hands, declare  # noqa: E402  the settings above come first


@pytest.fixture
def declaration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A declared federation that FEDSYNC_FEDERATION names."""
    path = declare(tmp_path / "federation")
    monkeypatch.setenv("FEDSYNC_FEDERATION", str(path))
    return path


@pytest.fixture
def hands(declaration: Path) -> Iterator[Hands]:
    """The people at its nodes."""
    people = Hands(declaration)
    yield people
    people.federation.close()
