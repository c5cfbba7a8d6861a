"""Sparing a system: quiet hours, how often it is asked, and how many requests a run may make."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from connectors import polite
from connectors.base import Batch, Connector, Node, no_keys
from connectors.level import Scope
from connectors.memory import MemoryConnector
from connectors.nodes import LEVEL_CONNECTORS, build, open_node
from connectors.polite import Pace, PoliteConnector, QuietHours, Rate, quiet_until
from connectors.rest import RestConnector
from connectors.retrying import Budget, Retrier, RetryingConnector
from federation.canonical_buckets import Buckets
from federation.errors import DeclarationError, Permanent, Resting
from federation.regions import LEVELS, Region
from tests.federations import CITY, E11, EAST_1, TOP, Small
from tests.scripted_http import Say, scripted
from tests.unit.rest_sample import PEOPLE, REGION, node, patient, person, rest, upserts

NIGHT = QuietHours.parse("22:00-06:00")
NOON = QuietHours.parse("12:00-13:30")


def at(text: str) -> datetime:
    """A moment by the clock of Beijing."""
    return datetime.fromisoformat(f"2026-01-31T{text}+08:00")


@pytest.mark.parametrize(
    ("hours", "now", "until"),
    [
        ([NIGHT], "21:59:59", None),
        ([NIGHT], "22:00:00", "2026-02-01T06:00"),
        ([NIGHT], "00:00:00", "2026-01-31T06:00"),
        ([NIGHT], "05:59:59", "2026-01-31T06:00"),
        ([NIGHT], "06:00:00", None),
        ([NOON], "12:30:00", "2026-01-31T13:30"),
        ([NOON], "13:30:00", None),
        ([NOON, NIGHT], "23:00:00", "2026-02-01T06:00"),
        ([QuietHours.parse("22:00-24:00")], "23:00:00", "2026-02-01T00:00"),
        ([QuietHours.parse("22:00-24:00"), QuietHours.parse("00:00-06:00")], "23:00:00", "2026-02-01T06:00"),
        ([], "23:00:00", None),
    ],
)
def test_quiet_hours_hold_from_their_start_to_before_their_end(
    hours: list[QuietHours], now: str, until: str | None
) -> None:
    found = quiet_until(hours, at(now).astimezone(UTC), "Asia/Shanghai")
    assert found == (None if until is None else datetime.fromisoformat(f"{until}+08:00"))


def test_quiet_hours_are_those_of_the_nodes_own_clock() -> None:
    now = datetime(2026, 7, 1, 3, 30, tzinfo=UTC)
    assert quiet_until([NIGHT], now, "Europe/Berlin") == datetime(2026, 7, 1, 4, tzinfo=UTC)
    assert quiet_until([NIGHT], now, "Asia/Shanghai") is None


def asleep(now: datetime = at("23:00:00")) -> tuple[PoliteConnector, MemoryConnector]:
    inner = MemoryConnector(Node(PEOPLE, REGION, "memory", {"store": "polite"}, tuple(PEOPLE.fields)))
    return PoliteConnector(inner, [NIGHT], now=lambda: now), inner


def test_within_quiet_hours_no_method_asks_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    connector, inner = asleep()
    asked: list[str] = []
    calls: dict[str, Any] = {
        "probe": (),
        "inspect": (),
        "prepare": (),
        "unprepare": (),
        "changes": (None,),
        "fetch": (no_keys(inner.node),),
        "holding": ("name", pa.array(["x"])),
        "apply": (Batch((), no_keys(inner.node)),),
        "show_returns": (no_keys(inner.node),),
        "show_receipts": (no_keys(inner.node),),
        "show_corrections": (no_keys(inner.node),),
        "rulings": (),
        "digest": (),
        "bucket_digests": (Buckets((), 0, ""),),
        "bucket_hashes": (Buckets((), 0, ""), no_keys(inner.node)),
    }
    public = {name for name in vars(Connector) if name[0] != "_" and callable(getattr(Connector, name))}
    assert public - {"close", "options_model", "watched"} == set(calls), "a method of the contract is not tried"
    for name, given in calls.items():
        monkeypatch.setattr(inner, name, lambda *_, **__: asked.append("asked"))
        with pytest.raises(Resting) as caught:
            getattr(connector, name)(*given)
        assert (caught.value.retry_after, "06:00" in caught.value.en, "06:00" in caught.value.zh) == (
            7 * 3600,
            True,
            True,
        )
        assert {"region", "system"} <= set(caught.value.where) and caught.value.todo
    assert asked == []
    assert connector.capabilities == inner.capabilities
    connector.close()


def test_outside_quiet_hours_the_connector_is_as_it_was() -> None:
    connector, _ = asleep(at("12:00:00"))
    connector.apply(upserts(person("R1")))
    assert connector.changes(None).rows.num_rows == 1 and connector.probe().token == "1"


def test_nobody_waits_for_hours_but_for_the_last_seconds() -> None:
    pauses: list[float] = []
    connector, _ = asleep()
    with pytest.raises(Resting):
        RetryingConnector(connector, patient(pauses)).probe()
    assert pauses == []
    moments = [at("05:59:50"), at("06:00:00")]
    late = PoliteConnector(connector._inner, [NIGHT], now=lambda: moments.pop(0))
    RetryingConnector(late, Retrier(Budget(), sleep=pauses.append, jitter=lambda: 0.0)).probe()
    assert pauses == [10]


def test_any_connector_may_have_quiet_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"store": "polite/any", "quiet_hours": ["22:00-06:00"]}
    given = Node(PEOPLE, REGION, "memory", options, tuple(PEOPLE.fields))
    opened = open_node(given, "memory", Scope({}), hosted=lambda _: pytest.fail("not hosted"))
    found = opened.inner.inner  # type: ignore[attr-defined]
    assert isinstance(found, PoliteConnector) and found._hours == (NIGHT,)


@pytest.mark.parametrize("hours", ["22:00", "22-6", "24:00-06:00", "6:00-8:00", "06:00-06:00", "22:00-06:60", "night"])
def test_quiet_hours_that_cannot_be_meant_are_refused(hours: str) -> None:
    given = Node(PEOPLE, REGION, "memory", {"store": "polite", "quiet_hours": [hours]}, tuple(PEOPLE.fields))
    with pytest.raises(DeclarationError, match="quiet_hours"):
        build(given, "memory")


# Over a federation


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Small, list[datetime]]]:
    """The community E11 has quiet hours; the list holds the time."""
    now = [at("12:00:00")]
    opened = PoliteConnector.__init__
    monkeypatch.setattr(
        polite.PoliteConnector, "__init__", lambda self, inner, hours: opened(self, inner, hours, now=lambda: now[0])
    )
    captures = dict.fromkeys(("city", "district", "street", "community"), "log")
    top = TOP.format(prefix=str(tmp_path), **captures)
    for level in captures:
        top += f"  - {{system: {level}, level: {level}, datasets: {{resident: {{}}, visit: {{}}}}}}\n"
    quiet = '{resident: {options: {quiet_hours: ["22:00-06:00"]}}}'
    top += f'  - {{system: community, regions: ["{E11}"], datasets: {quiet}}}\n'
    yield Small(tmp_path, changes={"federation.yaml": top}), now


def test_a_sweep_starts_no_link_with_a_resting_end_and_says_why(small: tuple[Small, list[datetime]]) -> None:
    federation, now = small
    federation.resident("R1")
    federation.cascade()
    federation.put(E11, "R1", phone="13911111111")
    now[0] = at("23:00:00")
    news = federation.federation.sweep("resident")
    assert news.parents == {"city": [], "district": [], "street": []}
    assert "06:00" in news.unreachable[E11]
    now[0] += timedelta(hours=7)
    assert federation.federation.sweep("resident").parents["street"] == [EAST_1]


def test_a_link_that_runs_into_quiet_hours_fails_with_the_reason_and_goes_on_afterwards(
    small: tuple[Small, list[datetime]],
) -> None:
    federation, now = small
    federation.resident("R1")
    federation.cascade()
    federation.put(CITY, "R1", name="王芳")
    now[0] = at("23:00:00")
    errors = federation.federation.cascade("resident").errors
    assert set(errors) == {f"resident/{E11}"} and isinstance(errors[f"resident/{E11}"], Resting)
    state = federation.federation.services.links.states([f"resident/{E11}"])[f"resident/{E11}"]
    assert (state.state, "静默时段，至 06:00" in str(state.reason_zh)) == ("failed", True)
    now[0] = at("12:00:00")
    federation.cascade()
    assert (federation.get(E11, "R1") or {})["name"] == "王芳"


# Requests


def test_a_run_that_has_made_all_its_requests_stops_and_says_what_to_raise() -> None:
    with scripted(lambda _: Say(200, [])) as server:
        connector = rest(server.url, requests_per_run=3, retrier=patient([]))
        connector.changes(None)
        with pytest.raises(Permanent, match="3 requests") as caught:
            connector.apply(upserts(*(person(f"R{number}") for number in range(9))))
        assert len(server.asked) == 3
        assert "requests_per_run" in caught.value.todo
        rest(server.url, requests_per_run=3).changes(None)
        assert len(server.asked) == 4, "the next run has its own"


def test_requests_that_are_repeated_count_as_well() -> None:
    with scripted(lambda _: Say(503)) as server:
        with pytest.raises(Permanent):
            rest(server.url, requests_per_run=2, retrier=patient([])).changes(None)
        assert len(server.asked) == 2


@pytest.mark.parametrize("wrong", [{"requests_per_run": 0}, {"requests_per_second": 0}])
def test_a_budget_of_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError):
        build(node("http://host", **wrong), "rest")


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.time = 100.0

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def waited(self, pace: Pace, rate: Rate, requests: int) -> float:
        began = self.time
        for _ in range(requests):
            pace.wait(rate, lambda: self.time, self.sleep)
        return round(self.time - began, 6)


def test_after_a_rest_a_burst_goes_at_once_and_what_follows_keeps_to_the_rate() -> None:
    clock, pace, rate = Clock(), Pace(), Rate(10, burst=5)
    assert clock.waited(pace, rate, 5) == 0
    assert clock.waited(pace, rate, 20) == 2.0
    clock.sleep(0.3)
    assert clock.waited(pace, rate, 4) == 0.1, "a short rest earns a short burst"
    clock.sleep(3600)
    assert clock.waited(pace, rate, 6) == 0.1, "a long rest earns no more than one"


def test_without_a_burst_every_request_keeps_its_distance() -> None:
    assert Clock().waited(Pace(), Rate(10), 21) == 2.0


def test_levels_that_share_a_platform_share_its_pace() -> None:
    clock, pace = Clock(), Pace()
    took = sum(clock.waited(pace, rate, 1) for rate in [Rate(10), Rate(5)] * 10 + [Rate(10)])
    assert took == pytest.approx(10 / 10 + 10 / 5)
    assert polite.pace_of("https://platform") is polite.pace_of("https://platform")


def of_level(level: str, **options: Any) -> RestConnector:
    """A platform at a level, as a federation opens it."""
    given = node("http://host", **options)
    region = Region("110101001001", "某地", level, None)
    made = build(Node(PEOPLE, region, given.system, given.options, given.fields), "rest")
    assert isinstance(made, RestConnector)
    return made


def test_a_platform_whose_declaration_says_nothing_is_asked_at_the_pace_of_its_level() -> None:
    manners = [LEVEL_CONNECTORS[level].manners for level in LEVELS]
    assert [of_level(level).client.rate for level in LEVELS] == [each.rate for each in manners]
    rates = [each.rate.per_second for each in manners if each.rate]
    assert len(rates) == len(LEVELS) and rates == sorted(rates, reverse=True) and min(rates) > 0
    bulks = [each.bulk for each in manners]
    assert bulks == sorted(bulks, reverse=True) and min(bulks) > 0


@pytest.mark.parametrize("level", LEVELS)
def test_a_declared_pace_counts_whatever_the_level_and_null_is_no_limit(level: str) -> None:
    assert of_level(level, requests_per_second=0.5).client.rate == Rate(0.5)
    assert of_level(level, requests_per_second=None).client.rate is None


@pytest.mark.parametrize(("declared", "sizes"), [({}, [50, 50, 20]), ({"size": 80}, [80, 40])])
def test_a_bulk_write_is_as_large_as_declared_else_as_its_level_bears(
    declared: dict[str, int], sizes: list[int]
) -> None:
    with scripted(lambda _: Say(204)) as server:
        given = node(server.url, bulk={"upsert": {"path": "/people/batch", **declared}}, requests_per_second=None)
        build(given, "rest").apply(upserts(*(person(f"R{number}") for number in range(120))))
        assert [len(request.body or []) for request in server.asked] == sizes


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "at most 10 requests a second (50 at once after a rest), the default of the level street"),
        ({"requests_per_second": 2.5}, "at most 2.5 requests a second, as declared"),
        ({"requests_per_second": None}, "as many requests as there are, as declared"),
    ],
)
def test_the_probe_tells_the_pace_in_force_and_who_set_it(options: dict[str, Any], told: str) -> None:
    with scripted(lambda _: Say(body=[])) as server:
        found = build(node(server.url, **options), "rest").inspect()
    assert [each.en for each in found if "pace" in each.en] == [f"pace: {told}"]
