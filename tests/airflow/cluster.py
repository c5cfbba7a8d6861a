"""Airflow as operators run it: each service a process of its own, with the command that docker-compose.yml gives it, on a PostgreSQL.

Every service lives in its own process group and folder, so that one can be killed as a host dies, and ends with the `with` block.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import requests
import yaml
from sqlalchemy import make_url

from examples.beijing.airflow_local import LocalAirflow, environment, free_port
from tests.servers import postgres_url

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
LIVELY = {
    "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "12",
    "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "8",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "SCHEDULER__TASK_QUEUED_TIMEOUT": "40",
    "SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
    "DATABASE__SQL_ALCHEMY_POOL_SIZE": "5",
}
"""What docker-compose.yml waits minutes for is waited for in seconds here."""


def compose_commands() -> dict[str, list[str]]:
    """Service → its command, of all services of Airflow itself."""
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return {
        name: service["command"] for name, service in services.items() if service.get("command", [""])[0] == "airflow"
    }


@contextmanager
def database(label: str) -> Iterator[str]:
    """A PostgreSQL database of the test's own; its URL without a driver."""
    name = f"fedsync_{label}_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres_url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        yield make_url(postgres_url()).set(database=name).render_as_string(hide_password=False)
    finally:
        with psycopg.connect(postgres_url(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@dataclass
class Cluster:
    """The running services. `airflow`: their REST API."""

    home: Path
    metadata: str
    settings: dict[str, str]
    airflow: LocalAirflow
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    started: dict[str, list[str]] = field(default_factory=dict)

    def start(self, name: str, command: list[str], **more: str) -> None:
        """Start a service (again). `more`: settings of its own."""
        folder = self.home / name
        folder.mkdir(parents=True, exist_ok=True)
        ports = {f"AIRFLOW__LOGGING__{kind}_LOG_SERVER_PORT": str(free_port()) for kind in ("WORKER", "TRIGGER")}
        logs = {"AIRFLOW_HOME": str(folder), "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs")}
        with (folder / "service.log").open("ab") as out:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *command],
                env={**self.settings, **ports, **logs, **more},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started[name] = command

    def kill(self, name: str) -> None:
        """As a host dies: SIGKILL for the service and all that it started, whatever group that is in by now."""
        process = self.processes.pop(name)
        for pid in [*descendants(process.pid), process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def revive(self) -> list[str]:
        """Start again what ended by itself, as `restart: unless-stopped` does; the names."""
        ended = [name for name, process in self.processes.items() if process.poll() is not None]
        for name in ended:
            self.start(name, self.started[name])
        return ended

    def end(self) -> None:
        """End every service."""
        trees = [[process.pid, *descendants(process.pid)] for process in self.processes.values()]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in (pid for tree in trees for pid in tree):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            deadline = time.monotonic() + 4
            while number == signal.SIGTERM and time.monotonic() < deadline:
                if all(process.poll() is not None for process in self.processes.values()):
                    break
                time.sleep(0.2)
        for process in self.processes.values():
            process.wait()

    def tail(self, lines: int = 25) -> str:
        """The end of each service's log."""
        logs = sorted(self.home.glob("*/service.log"))
        return "\n".join(f"--- {p.parent.name}\n" + "\n".join(_lines(p)[-lines:]) for p in logs)

    def wait(self, what: str, found: Callable[[], Any], timeout: float, every: float = 0.5) -> Any:
        """Wait until `found` answers something, and what it answers; raises RuntimeError with the logs' ends."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with contextlib.suppress(requests.RequestException):
                answer = found()
                if answer:
                    return answer
            time.sleep(every)
        raise RuntimeError(f"waited {timeout:.0f} s in vain for: {what}\n{self.tail()}")

    def tasks(self, state: str) -> list[dict[str, Any]]:
        """Task instances in a state."""
        found: list[dict[str, Any]] = self.airflow.get("dags/~/dagRuns/~/taskInstances", state=state, limit=100)[
            "task_instances"
        ]
        return found

    def service_of(self, pid: int) -> str | None:
        """Which service started a process, however indirectly."""
        for name, process in self.processes.items():
            if pid in descendants(process.pid):
                return name
        return None


def descendants(pid: int) -> list[int]:
    """Every process that descends from one, the youngest generation last."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            number, _, rest = stat.read_text().rpartition(")")
            children.setdefault(int(rest.split()[1]), []).append(int(number.split(" ", 1)[0]))
    found, todo = [], [pid]
    while todo:
        todo = [child for parent in todo for child in children.get(parent, [])]
        found += todo
    return found


@contextmanager
def cluster(home: Path, declaration: Path, executor: str, more: dict[str, str]) -> Iterator[Cluster]:
    """A migrated metadata database and nothing started yet. `more`: environment of every service."""
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with database("airflow") as metadata:
        url = make_url(metadata).set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)
        settings = {
            **environment(home, declaration, port),
            **{f"AIRFLOW__{name}": value for name, value in LIVELY.items()},
            "AIRFLOW__CORE__EXECUTOR": executor,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
            "PYTHONUNBUFFERED": "1",
            **more,
        }
        migrated = subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env=settings,
            capture_output=True,
            text=True,
            check=False,
        )
        assert migrated.returncode == 0, migrated.stderr[-2000:]
        airflow = LocalAirflow(f"http://127.0.0.1:{port}", None, home / "airflow.log")  # type: ignore[arg-type]
        made = Cluster(home, metadata, settings, airflow)
        try:
            yield made
        finally:
            made.end()


def wait_ready(cluster: Cluster, dags: int, timeout: float = 180.0) -> None:
    """Wait until the API answers, the scheduler is alive and so many DAGs are known."""

    def ready() -> bool:
        ended = {name: p.returncode for name, p in cluster.processes.items() if p.poll() is not None}
        assert not ended, f"{ended}\n{cluster.tail()}"
        health = requests.get(f"{cluster.airflow.url}/api/v2/monitor/health", timeout=5).json()
        cluster.airflow._log_in()
        known = len(cluster.airflow.get("dags", limit=1000)["dags"])
        return health["scheduler"]["status"] == "healthy" and known >= dags

    cluster.wait("Airflow to be ready", ready, timeout)
    assert cluster.airflow.import_errors() == []


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines()
