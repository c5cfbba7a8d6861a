"""An Airflow of one's own, for the demo and for tests: `airflow standalone` on SQLite, bound to loopback, without a login.

Everything it starts lives in one process group and ends with the `with` block, also when that is left by an error or ctrl-C.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).parents[2]
ACTIVE = ("queued", "running")


def free_port() -> int:
    """A port on loopback that nobody uses right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(home: Path, federation: Path, port: int) -> dict[str, str]:
    """The environment of every Airflow process: the repository's DAGs and plugins, and settings for a lively local run."""
    url = f"http://127.0.0.1:{port}"
    settings = {
        "CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": "4",
        "CORE__MAX_ACTIVE_TASKS_PER_DAG": "8",
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "API__HOST": "127.0.0.1",
        "API__PORT": str(port),
        "API__BASE_URL": url,
        "API__WORKERS": "1",
        "API_AUTH__JWT_SECRET": _kept_secret(home / "jwt_secret"),
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
        "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    own = {f"AIRFLOW__{name}": value for name, value in settings.items()}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {
        **os.environ,
        **own,
        "AIRFLOW_HOME": str(home),
        "FEDSYNC_FEDERATION": str(federation),
        "PYTHONPATH": path,
        "NO_PROXY": "127.0.0.1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def _kept_secret(path: Path) -> str:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(32))
        path.chmod(0o600)
    return path.read_text()


@dataclass
class LocalAirflow:
    """A running Airflow and its REST API."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    session: requests.Session = field(default_factory=requests.Session)

    def wait_ready(self, dags: int, timeout: float = 180.0) -> None:
        """Wait until the API answers, the scheduler is alive and so many DAGs are known. Raises RuntimeError with the log's end."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"Airflow ended by itself:\n{self.tail()}")
            try:
                health = self.session.get(f"{self.url}/api/v2/monitor/health", timeout=5).json()
                self._log_in()
                known = len(self.get("dags", limit=1000)["dags"])
                if health["scheduler"]["status"] == "healthy" and known >= dags:
                    return
            except (requests.RequestException, ValueError, KeyError):
                pass
            time.sleep(1)
        raise RuntimeError(f"Airflow was not ready after {timeout:.0f} s:\n{self.tail()}")

    def _log_in(self) -> None:
        answer = self.session.get(f"{self.url}/auth/token", timeout=5)
        answer.raise_for_status()
        self.session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def get(self, path: str, **parameters: Any) -> Any:
        """GET under /api/v2."""
        answer = self.session.get(f"{self.url}/api/v2/{path}", params=parameters, timeout=30)
        if answer.status_code == 401:
            self._log_in()
            answer = self.session.get(f"{self.url}/api/v2/{path}", params=parameters, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def trigger(self, dag_id: str, partition_key: str | None = None, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run; its id."""
        body: dict[str, Any] = {"logical_date": None, "conf": dict(conf or {})}
        if partition_key is not None:
            body["partition_key"] = partition_key
        answer = self.session.post(f"{self.url}/api/v2/dags/{dag_id}/dagRuns", json=body, timeout=30)
        answer.raise_for_status()
        return str(answer.json()["dag_run_id"])

    def runs(self, dag_id: str = "~") -> list[dict[str, Any]]:
        """The latest runs of a DAG (`~`: of all), newest first."""
        found: list[dict[str, Any]] = self.get(f"dags/{dag_id}/dagRuns", limit=200, order_by="-run_after")["dag_runs"]
        return found

    def import_errors(self) -> list[dict[str, Any]]:
        """DAG files that could not be parsed."""
        found: list[dict[str, Any]] = self.get("importErrors")["import_errors"]
        return found

    def wait_quiet(self, timeout: float, settled: float = 6.0, tick: Any = None) -> list[dict[str, Any]]:
        """Wait until no run has been active for `settled` seconds; all runs. `tick(runs)` is called on each look."""
        deadline = time.monotonic() + timeout
        quiet_since: float | None = None
        while time.monotonic() < deadline:
            runs = self.runs()
            if tick is not None:
                tick(runs)
            if any(run["state"] in ACTIVE for run in runs):
                quiet_since = None
            else:
                quiet_since = quiet_since or time.monotonic()
                if time.monotonic() - quiet_since >= settled:
                    return runs
            time.sleep(1)
        raise TimeoutError(f"still busy after {timeout:.0f} s")

    def tail(self, lines: int = 40) -> str:
        """The end of Airflow's own log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""


@contextmanager
def running(home: Path, federation: Path, port: int | None = None) -> Iterator[LocalAirflow]:
    """Airflow, started; call `wait_ready`. Ends its whole process group on the way out."""
    home.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    log = home / "airflow.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "standalone"],
            env=environment(home, federation, port),
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield LocalAirflow(f"http://127.0.0.1:{port}", process, log)
        finally:
            _end_group(process)


def _end_group(process: subprocess.Popen[bytes], patience: float = 15.0) -> None:
    """End every process that the standalone command left in its group: ending only the parent leaves its children running."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and _group_lives(process.pid):
            process.poll()
            time.sleep(0.2)
    process.wait()


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
