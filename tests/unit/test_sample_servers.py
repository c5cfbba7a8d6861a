from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from connectors.base import Node
from connectors.rest import RestConnector
from connectors.retrying import Budget, Retrier
from examples.beijing.hotline import Hotline
from examples.beijing.http_platform import Faults, merged
from examples.beijing.servers import Platforms, serving
from federation.errors import AccessDenied
from tests.unit.rest_sample import PEOPLE, REGION, deletes, ids, person, upserts

ROOT = Path(__file__).parents[2]


@pytest.fixture
def platforms(tmp_path: Path) -> Iterator[Platforms]:
    with serving(tmp_path) as running:
        yield running


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as opened:
        yield opened


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class Desk:
    """Somebody who works with the hotline over HTTP."""

    def __init__(self, session: requests.Session, platforms: Platforms) -> None:
        self.session = session
        self.url = f"{platforms.hotline.url}/api/v1/orders"
        self.headers = bearer(platforms.hotline_token)

    def __call__(self, method: str, order: str = "", body: Any = None, **query: Any) -> requests.Response:
        address = f"{self.url}/{order}" if order else self.url
        return self.session.request(method, address, params=query, json=body, headers=self.headers, timeout=5)


@pytest.fixture
def desk(session: requests.Session, platforms: Platforms) -> Desk:
    return Desk(session, platforms)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}])
def test_without_the_token_both_platforms_answer_401(
    platforms: Platforms, session: requests.Session, headers: dict[str, str]
) -> None:
    for url in (f"{platforms.hotline.url}/api/v1/orders", f"{platforms.street.url}/api/visits"):
        assert session.get(url, headers=headers, timeout=5).status_code == 401


def test_a_platform_without_a_token_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="HOTLINE_TOKEN"):
        Hotline(tmp_path, "")


def test_both_platforms_listen_on_this_machine_only(platforms: Platforms) -> None:
    for platform in (platforms.hotline, platforms.street):
        assert platform.url.startswith("http://127.0.0.1:")
        assert platform._server.socket.getsockname()[0] == "127.0.0.1"


def test_a_patch_changes_what_it_names_and_a_put_replaces_the_order(desk: Desk) -> None:
    order = {"order_no": "GD1", "caller": {"phone": "1", "name": "王"}, "handling": {"status": "待办"}}
    assert desk("PUT", "GD1", order).status_code == 201
    assert desk("PATCH", "GD1", {"caller": {"phone": "2"}}).status_code == 200
    shown = desk("GET", "GD1").json()
    assert (shown["code"], shown["msg"]) == (0, "ok")
    assert shown["data"]["caller"] == {"phone": "2", "name": "王"} and shown["data"]["handling"] == {"status": "待办"}
    desk("PUT", "GD1", {"caller": {"phone": "3"}})
    assert set(desk("GET", "GD1").json()["data"]) == {"order_no", "caller", "updated_at"}


def test_the_time_of_change_is_the_servers_and_never_repeats(desk: Desk) -> None:
    times = []
    for number in range(20):
        desk("PATCH", f"GD{number % 2}", {"updated_at": "1999-01-01", "title": str(number)})
        times.append(desk("GET", f"GD{number % 2}").json()["data"]["updated_at"])
    assert times == sorted(set(times)) and times[0] > "2025"


def test_orders_are_listed_by_page_and_by_time_of_change(desk: Desk) -> None:
    for number in range(25):
        desk("PATCH", f"GD{number:02}", {"title": str(number)})
    second = desk("GET", page=2, size=10).json()["data"]
    assert second["total"] == 25 and [item["order_no"] for item in second["items"]] == [f"GD{n}" for n in range(10, 20)]
    since = second["items"][5]["updated_at"]
    desk("PATCH", "GD00", {"title": "again"})
    changed = desk("GET", size=100, updated_since=since, sort="updated_at").json()["data"]
    assert [item["order_no"] for item in changed["items"]] == [*(f"GD{n}" for n in range(15, 25)), "GD00"]


@pytest.mark.parametrize(
    "query", [{"page": "x"}, {"size": "-1"}, {"updated_since": "yesterday"}, {"sort": "title; DROP TABLE records"}]
)
def test_a_query_that_makes_no_sense_is_answered_400(desk: Desk, query: dict[str, str]) -> None:
    answer = desk("GET", **query)
    assert answer.status_code == 400 and answer.json()["code"] == 400


@pytest.mark.parametrize("body", [[], "x", {"order_no": "other"}, {"caller": "王"}])
def test_an_order_that_makes_no_sense_is_answered_400_and_not_stored(desk: Desk, body: Any) -> None:
    assert desk("PATCH", "GD1", body).status_code == 400
    assert desk("GET", "GD1").status_code == 404


def test_a_broken_body_an_unknown_method_and_an_unknown_place_are_refused(desk: Desk) -> None:
    assert desk.session.put(f"{desk.url}/GD1", data=b"{", headers=desk.headers, timeout=5).status_code == 400
    assert desk("POST", "GD1", {}).status_code == 405
    assert desk.session.get(desk.url + "s", headers=desk.headers, timeout=5).status_code == 404


def test_deleting_twice_says_that_it_is_gone(desk: Desk) -> None:
    desk("PATCH", "GD1", {"title": "x"})
    assert [desk("DELETE", "GD1").status_code for _ in range(2)] == [200, 404]


def test_the_state_changes_with_each_write_and_only_then(desk: Desk, platforms: Platforms) -> None:
    def version() -> int:
        url = f"{platforms.hotline.url}/api/v1/state"
        return int(desk.session.get(url, headers=desk.headers, timeout=5).json()["data"]["version"])

    seen = [version(), version()]
    for step in (lambda: desk("PATCH", "GD1", {"title": "x"}), lambda: desk("DELETE", "GD1")):
        step()
        seen.append(version())
    desk("DELETE", "GD1")
    assert seen == [0, 0, 1, 2] and version() == 2


def test_data_outlives_a_restart(tmp_path: Path, session: requests.Session) -> None:
    for expected in (404, 200):
        with serving(tmp_path) as running:
            desk = Desk(session, running)
            assert desk("GET", "GD1").status_code == expected
            desk("PATCH", "GD1", {"title": "x"})
            before = desk("GET", "GD1").json()["data"]["updated_at"]
    with serving(tmp_path) as running:
        assert Desk(session, running)("GET", "GD1").json()["data"]["updated_at"] == before


def test_faults_strike_the_same_requests_each_time(tmp_path: Path, session: requests.Session) -> None:
    seen = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        with serving(tmp_path / name, hotline_faults=Faults(4, 3, 0.5, seed)) as running:
            desk = Desk(session, running)
            answers = [desk("GET") for _ in range(12)]
            seen.append([answer.status_code for answer in answers])
            assert {answer.headers.get("Retry-After") for answer in answers if answer.status_code == 429} == {"0.5"}
    assert seen[0] == seen[1] == [200, 200, 500, 429, 200, 500, 200, 429, 500, 200, 200, 429]
    assert seen[2] == [200, 500, 429, 200, 500, 200, 429, 500, 200, 200, 429, 200]


def test_every_second_broken_write_was_done_though_its_answer_was_lost(
    tmp_path: Path, session: requests.Session
) -> None:
    with serving(tmp_path, hotline_faults=Faults(broken_every=1)) as running:
        desk = Desk(session, running)
        assert {desk("PATCH", f"GD{number}", {"title": "x"}).status_code for number in range(4)} == {500}
        found, total = running.hotline.records.page("orders", offset=0, limit=10)
        assert total == 2 and [key for key, _, _ in found] == ["GD1", "GD3"]


def test_many_writers_at_once_lose_nothing(platforms: Platforms) -> None:
    def write(writer: int) -> None:
        with requests.Session() as session:
            desk = Desk(session, platforms)
            for number in range(10):
                assert desk("PATCH", "GD", {"caller": {f"w{writer}n{number}": 1}}).status_code in (200, 201)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    known = platforms.hotline.records.get("orders", "GD")
    assert known is not None and len(known[0]["caller"]) == 60
    assert platforms.hotline.records.version == 60


def test_merging_reaches_every_depth_and_leaves_the_rest() -> None:
    assert merged({"a": {"b": 1, "c": {"d": 2}}, "e": 3}, {"a": {"c": {"d": None}}, "e": {"f": 4}}) == {
        "a": {"b": 1, "c": {"d": None}},
        "e": {"f": 4},
    }


def hotline_connector(running: Platforms, **options: Any) -> RestConnector:
    given = {
        "base_url": running.hotline.url,
        "token": running.hotline_token,
        "path": "/api/v1/orders",
        "records": "data.items",
        "record": "data",
        "sort": {"sort": "order_no"},
        "paging": {"kind": "page", "parameter": "page", "size_parameter": "size", "size": 20, "total": "data.total"},
        "changed_since": {"parameter": "updated_since", "field": "updated_at", "overlap_seconds": 0},
        "state": {"path": "/api/v1/state", "field": "data.version"},
        "success": {"field": "code", "values": [0]},
        **options,
    }
    columns = {"id": "order_no", "area": "dispatch.community_code", "name": "caller.name", "phone": "caller.phone"}
    retrier = Retrier(Budget(attempts=8, first=0.001), jitter=lambda: 0.0)
    return RestConnector(Node(PEOPLE, REGION, "hotline", given, tuple(PEOPLE.fields), columns), retrier)


def test_the_rest_connector_works_with_the_hotline_through_all_its_faults(tmp_path: Path) -> None:
    with serving(tmp_path, hotline_faults=Faults(busy_every=5, broken_every=7, retry_after=0.001)) as running:
        connector = hotline_connector(running)
        written = [person(f"R{number:03}", phone=str(number)) for number in range(90)]
        assert connector.apply(upserts(*written)).written == 90
        first = connector.changes(None)
        assert sorted(first.rows.to_pylist(), key=lambda row: row["id"]) == written and first.rejects.num_rows == 0
        token = connector.probe().token
        connector.apply(upserts({"id": "R007", "phone": "13800000000"}))
        connector.apply(deletes("R008", "R009"))
        assert connector.probe().token != token
        second = connector.changes(first.cursor, sweep=True)
        assert second.present is not None and second.present.num_rows == 88
        (row,) = [row for row in second.rows.to_pylist() if row["id"] == "R007"]
        assert row == person("R007", phone="13800000000"), "the other columns stay as they were"
        connector.close()


def test_the_rest_connector_works_with_the_street_platform(platforms: Platforms) -> None:
    options = {
        "base_url": platforms.street.url,
        "token": platforms.street_token,
        "path": "/api/residents",
        "records": "records",
        "paging": {"kind": "offset", "parameter": "offset", "size_parameter": "limit", "size": 20, "total": "count"},
        "changed_since": {"parameter": "modified_since", "field": "modified", "overlap_seconds": 0},
        "keys": {"parameters": {"only": "keys"}},
        "times": "milliseconds",
        "state": {"path": "/api/residents/-/state", "field": "version"},
    }
    connector = RestConnector(Node(PEOPLE, REGION, "street", options, tuple(PEOPLE.fields)))
    connector.apply(upserts(*(person(f"R{number:03}") for number in range(50))))
    first = connector.changes(None)
    assert first.rows.num_rows == 50
    connector.apply(deletes("R001"))
    second = connector.changes(first.cursor, sweep=True)
    assert second.present is not None and second.present.num_rows == 49 and "R001" not in ids(second.present)
    options["token"] = "wrong"
    with pytest.raises(AccessDenied):
        RestConnector(Node(PEOPLE, REGION, "street", options, tuple(PEOPLE.fields))).probe()
    connector.close()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_told_to_stop(
    tmp_path: Path, session: requests.Session, stop: signal.Signals
) -> None:
    command = [
        sys.executable,
        "-m",
        "examples.beijing.servers",
        str(tmp_path),
        "--hotline-port",
        "0",
        "--street-port",
        "0",
    ]
    environment = {**os.environ, "HOTLINE_TOKEN": "one", "STREET_TOKEN": "two"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        urls = dict(process.stdout.readline().split() for _ in range(2))
        assert session.get(f"{urls['hotline']}/api/v1/orders", headers=bearer("one"), timeout=5).status_code == 200
        assert session.get(f"{urls['street']}/api/visits", headers=bearer("two"), timeout=5).status_code == 200
        began = time.monotonic()
        process.send_signal(stop)
        assert process.wait(10) == 0 and time.monotonic() - began < 5
        assert process.stderr.read() == ""


def test_the_command_says_which_token_is_missing(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("HOTLINE_TOKEN", "STREET_TOKEN")}
    command = [sys.executable, "-m", "examples.beijing.servers", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "HOTLINE_TOKEN" in done.stderr
