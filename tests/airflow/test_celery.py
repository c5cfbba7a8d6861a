"""Airflow with Celery, as docker-compose.yml runs it: a worker that dies in the middle of a task is not missed, and no disk is shared."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis

from examples.beijing.airflow_local import free_port
from tests.airflow.cluster import Cluster, cluster, compose_commands, database, wait_ready
from tests.airflow.three_levels import ThreeLevels
from tests.federations import CITY, EAST, EAST_1, EAST_2, WEST_1
from tests.stores import S3Place

DAGS = 6
WORKERS = ("worker-1", "worker-2")


@contextmanager
def broker() -> Iterator[str]:
    """A Redis of the test's own; its URL."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("this machine has no redis-server")
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port) as client:
            deadline = time.monotonic() + 10
            while True:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreeLevels]:
    store = S3Place()
    with database("three") as url:
        made = ThreeLevels(tmp_path / "federation", url, store.endpoint, store.bucket)
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made
        made.end()


def blocked(three: ThreeLevels) -> bool:
    """Whether somebody waits for a lock in the nodes' database."""
    return bool(
        three.execute("SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
    )


def worker_at_work(running: Cluster, dag: str) -> str | None:
    """The worker on which a task of a DAG runs right now."""
    for task in running.tasks("running"):
        if task["dag_id"] == dag and task["pid"]:
            return running.service_of(task["pid"])
    return None


@pytest.mark.timeout(600)
def test_a_worker_killed_in_the_middle_of_a_task_is_not_missed(tmp_path: Path, three: ThreeLevels) -> None:
    began = time.monotonic()
    federation = three.open()
    federation.cascade("resident")
    for number, street in enumerate((EAST_1, EAST_2, WEST_1)):
        three.resident(f"R{number}", street, "王伟")
    assert not federation.cascade("resident").errors
    with (
        broker() as url,
        cluster(
            tmp_path / "airflow",
            three.declaration,
            "CeleryExecutor",
            {
                "AIRFLOW__CELERY__BROKER_URL": url,
                "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",
                "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
                "AIRFLOW__CELERY__TASK_ACKS_LATE": "True",
                "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "60",
            },
        ) as running,
    ):
        running.settings["AIRFLOW__CELERY__RESULT_BACKEND"] = f"db+{running.metadata}".replace(
            "postgresql://", "postgresql+psycopg2://", 1
        )
        commands = compose_commands()
        worker = commands.pop("worker")
        for name, command in commands.items():
            running.start(name, command)
        for name in WORKERS:
            running.start(name, [*worker, "--celery-hostname", f"{name}@%h"])
        wait_ready(running, DAGS)
        ready = time.monotonic() - began
        three.rename("R0", "王芳")
        three.phone(EAST_1, "R0", "13911111111")
        with psycopg.connect(three.database) as holding:
            holding.execute(f"LOCK TABLE resident_{EAST} IN EXCLUSIVE MODE")
            running.airflow.trigger("resident__sweep")
            running.wait("a task to write to the district", lambda: blocked(three), 120)
            victim = running.wait("its worker", lambda: worker_at_work(running, "resident__city_district"), 20)
            assert victim in WORKERS
            running.kill(victim)
            killed = time.monotonic()
        runs = running.wait(
            "the cascade to complete",
            lambda: settled(running, three),
            180,
        )
        took = time.monotonic() - killed
        retried = [t for t in running.tasks("success") if t["try_number"] > 1]
    assert {run["state"] for run in runs} == {"success"}, runs
    assert retried, "the task that died with its worker was tried again"
    three.assert_equal()
    assert three.rows(CITY)["R0"] == (EAST_1, "王芳", "13911111111")
    assert not (three.folder / "state").exists(), "nothing was left on a disk that workers would have to share"
    assert federation.cascade("resident", force_full=True).moved == 0
    federation.close()
    print(f"ready after {ready:.0f} s; completed {took:.0f} s after the kill; {time.monotonic() - began:.0f} s in all")


def settled(running: Cluster, three: ThreeLevels) -> list[dict[str, object]] | None:
    """All runs, once none is active and the edits of both ends have arrived."""
    runs = running.airflow.runs()
    if any(run["state"] in ("queued", "running") for run in runs):
        return None
    there = three.rows(EAST_1).get("R0"), three.rows(CITY).get("R0")
    return runs if there[0] == there[1] == (EAST_1, "王芳", "13911111111") else None
