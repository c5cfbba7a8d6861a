"""A real scheduler under faults, one Airflow for all acts: a child that cannot be reached, one partition woken twice at once, a scheduler
that is killed and started again, and a metadata database that drops everybody, in the middle of a cascade."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from tests.airflow.cluster import Cluster, cluster, compose_commands, database, wait_ready
from tests.airflow.three_levels import ThreeLevels
from tests.federations import CITY, EAST, EAST_1, EAST_2, WEST, WEST_1

DAGS = 6
ACTIVE = ("queued", "running")
STREETS = {"R0": EAST_1, "R1": EAST_2, "R2": WEST_1}
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeLevels]:
    with database("faults") as url, pytest.MonkeyPatch.context() as patch:
        made = ThreeLevels(tmp_path_factory.mktemp("faults") / "federation", url)
        for name, value in made.environment.items():
            patch.setenv(name, value)
        federation = made.open()
        federation.cascade("resident")
        for key, street in STREETS.items():
            made.resident(key, street, "王伟")
        assert not federation.cascade("resident").errors
        federation.close()
        yield made
        made.end()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, three: ThreeLevels) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("airflow")
    with cluster(home, three.declaration, "LocalExecutor", {}) as made:
        for name, command in compose_commands().items():
            if name in ("apiserver", "scheduler", "dag-processor"):
                made.start(name, command)
        wait_ready(made, DAGS)
        yield made


def new_runs(running: Cluster, before: set[str]) -> list[dict[str, Any]]:
    return [run for run in running.airflow.runs() if run["dag_run_id"] not in before]


def known(running: Cluster) -> set[str]:
    return {run["dag_run_id"] for run in running.airflow.runs()}


def until(
    running: Cluster, before: set[str], what: str, true: Callable[[], bool], timeout: float = 200
) -> list[dict[str, Any]]:
    """The new runs, once none is active any more and `true` holds. Services that end by themselves are started again."""

    def done() -> list[dict[str, Any]] | None:
        running.revive()
        runs = new_runs(running, before)
        return runs if runs and all(run["state"] not in ACTIVE for run in runs) and true() else None

    found: list[dict[str, Any]] = running.wait(what, done, timeout)
    return found


def arrived(three: ThreeLevels, key: str, name: str, phone: str | None = None) -> Callable[[], bool]:
    """Whether a record has a name at its street, and a phone at the city."""

    def there() -> bool:
        street = three.rows(STREETS[key])[key]
        return street[1] == name and (phone is None or three.rows(CITY)[key][2] == phone)

    return there


def blocked(three: ThreeLevels) -> bool:
    question = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(three.execute(question))


def test_a_child_that_cannot_be_reached_fails_alone_and_its_siblings_are_served(
    running: Cluster, three: ThreeLevels
) -> None:
    before = known(running)
    three.execute(f"ALTER ROLE {three.west} NOLOGIN")
    three.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", three.west)
    try:
        three.rename("R0", "王芳")
        three.rename("R2", "王强")
        three.phone(EAST_1, "R0", "13911111111")
        running.airflow.trigger("resident__sweep")
        runs = until(running, before, "the siblings to be served", arrived(three, "R0", "王芳", "13911111111"))
        failed = {(run["dag_id"], run["partition_key"]) for run in runs if run["state"] == "failed"}
        assert ("resident__city_district", CITY) in failed
        assert ("resident__district_street", EAST) not in failed
        assert three.rows(WEST_1)["R2"][1] == "王伟"
        three.assert_equal(but={WEST, WEST_1})
        federation = three.open()
        state = federation.services.links.state(federation.config.link("resident", WEST))
        federation.close()
        assert state.state == "failed"
        assert WEST in str(state.reason_en) and "resident" in str(state.reason_en) and "→" in str(state.reason_en)
    finally:
        three.execute(f"ALTER ROLE {three.west} LOGIN")


def test_one_partition_woken_twice_at_once_ends_well_doubles_nothing_and_serves_the_child_that_is_back(
    running: Cluster, three: ThreeLevels
) -> None:
    before = known(running)
    three.rename("R1", "李一")
    with psycopg.connect(three.database) as holding:
        holding.execute(f"LOCK TABLE resident_{EAST} IN EXCLUSIVE MODE")
        for _ in range(2):
            running.airflow.trigger("resident__city_district", CITY)
        running.wait("one of the two to write", lambda: blocked(three), 100)
        running.wait("the other to be at work as well", lambda: two_at_work(running), 100)
    both_arrived = lambda: arrived(three, "R1", "李一")() and arrived(three, "R2", "王强")()  # noqa: E731
    runs = until(running, before, "both runs to end", both_arrived)
    assert {run["state"] for run in runs} == {"success"}, runs
    assert len([run for run in runs if run["dag_id"] == "resident__city_district"]) >= 2
    three.assert_equal()


def two_at_work(running: Cluster) -> bool:
    """Whether both runs sync, or one of them has found the link taken and waits for its next try."""
    syncing = [task for task in running.tasks("running") if task["task_id"] == "sync"]
    return len(syncing) == 2 or any(task["task_id"] == "sync" for task in running.tasks("up_for_retry"))


def test_a_scheduler_killed_in_the_middle_of_a_cascade_and_started_again_completes_it(
    running: Cluster, three: ThreeLevels
) -> None:
    before = known(running)
    three.rename("R0", "王三")
    three.phone(EAST_1, "R0", "13933333333")
    with psycopg.connect(three.database) as holding:
        holding.execute(f"LOCK TABLE resident_{EAST} IN EXCLUSIVE MODE")
        running.airflow.trigger("resident__sweep")
        running.wait("a task to write", lambda: blocked(three), 100)
        running.kill("scheduler")
    began = time.monotonic()
    running.start("scheduler", compose_commands()["scheduler"])
    runs = until(running, before, "the cascade to complete", arrived(three, "R0", "王三", "13933333333"), 250)
    assert {run["state"] for run in runs} == {"success"}, runs
    three.assert_equal()
    print(f"completed {time.monotonic() - began:.0f} s after the scheduler's death")


def test_a_metadata_database_that_drops_everybody_delays_a_cascade_and_loses_nothing(
    running: Cluster, three: ThreeLevels
) -> None:
    before = known(running)
    three.rename("R2", "赵四")
    three.phone(WEST_1, "R2", "13944444444")
    name = make_url(running.metadata).database
    running.airflow.trigger("resident__sweep")
    ended = 0
    for _ in range(4):
        time.sleep(2.5)
        with psycopg.connect(three.database, autocommit=True) as connection:
            (count,) = connection.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s", (name,)
            ).fetchone() or (0,)
        ended += count
    assert ended > 6
    runs = until(running, before, "the cascade to complete", arrived(three, "R2", "赵四", "13944444444"), 250)
    failed = [run for run in runs if run["state"] == "failed"]
    if failed:  # a task that could not even report is a failed run; the next sweep finds what it left
        before = known(running)
        running.airflow.trigger("resident__sweep")
        assert {run["state"] for run in until(running, before, "the next sweep", lambda: True)} == {"success"}
    three.assert_equal()
    assert all(process.poll() in (None, -signal.SIGKILL) for process in running.processes.values())
