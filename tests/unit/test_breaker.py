"""The circuit breaker: a system that is down costs one timeout, however many nodes share it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from connectors import breaker
from connectors.base import Node
from connectors.breaker import Circuit, Limits, Unavailable, circuit_of
from connectors.level import Scope
from connectors.memory import MemoryConnector
from connectors.nodes import open_node
from connectors.retrying import Budget, Retrier
from federation.errors import AccessDenied, Conflict, FedsyncError, Permanent, Transient
from federation.regions import Region
from tests.faults.proxy import Fault, Proxy
from tests.unit.rest_sample import PEOPLE

STREET = Region("110101001000", "东华门街道", "street", "110101000000")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    breaker.forget()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def circuit(clock: Clock, **limits: float) -> Circuit:
    return Circuit("登记库", Limits(**limits), clock)  # type: ignore[arg-type]


def once(shared: Circuit) -> Retrier:
    """A node that tries once."""
    return Retrier(Budget(attempts=1), sleep=lambda _: None, circuit=shared)


def fail(shared: Circuit, error: FedsyncError | None = None) -> FedsyncError:
    def step() -> None:
        raise error or Transient("no answer", "无应答")

    with pytest.raises(FedsyncError) as caught:
        once(shared).call(step)
    return caught.value


def opened(clock: Clock, **limits: float) -> Circuit:
    shared = circuit(clock, **limits)
    for _ in range(5):
        fail(shared)
    return shared


def never() -> None:
    pytest.fail("the system was asked")


# --- opening


def test_after_so_many_failures_in_a_row_calls_fail_at_once(clock: Clock) -> None:
    shared = circuit(clock, failures=3)
    for _ in range(3):
        assert not isinstance(fail(shared), Unavailable)
    with pytest.raises(Unavailable):
        once(shared).call(never)


def test_the_error_says_since_when_why_and_when_it_is_tried_again(clock: Clock) -> None:
    shared = opened(clock)
    clock.now += 10
    with pytest.raises(Unavailable) as caught:
        once(shared).call(never)
    error = caught.value
    today = time.strftime("%Y-%m-%d ")
    for text in (error.en, error.zh):
        assert "登记库" in text and today in text
    assert "no answer" in error.en and "无应答" in error.zh and "asked again at" in error.en and "再试" in error.zh
    assert error.retry_after == 20 and error.todo
    assert isinstance(error.__cause__, Transient) and error.__cause__.__traceback__ is None


def test_one_answer_in_between_starts_the_count_anew(clock: Clock) -> None:
    shared = circuit(clock, failures=3)
    for _ in range(4):
        fail(shared)
        fail(shared)
        assert once(shared).call(lambda: "done") == "done"


@pytest.mark.parametrize("kind", [Permanent, AccessDenied, Conflict])
def test_a_refusal_is_an_answer_it_is_neither_tried_again_nor_counted(clock: Clock, kind: type[FedsyncError]) -> None:
    shared = circuit(clock, failures=3)
    for _ in range(10):
        assert isinstance(fail(shared, kind("no", "否")), kind)
    fail(shared)
    fail(shared)
    fail(shared, kind("no", "否"))
    fail(shared)
    assert once(shared).call(lambda: 1) == 1


def test_failures_long_ago_do_not_count(clock: Clock) -> None:
    shared = circuit(clock, failures=3, window=600)
    for _ in range(10):
        fail(shared)
        clock.now += 301
    assert once(shared).call(lambda: 1) == 1


def test_one_answer_that_was_waited_for_to_the_end_of_all_patience_is_enough(clock: Clock) -> None:
    shared = circuit(clock, failures=5, seconds=60)
    silent = Transient("silent", "无响应")
    silent.waited = 300.0
    fail(shared, silent)
    with pytest.raises(Unavailable):
        once(shared).call(never)


# --- trying again


def test_after_its_rest_one_call_is_let_through_and_its_answer_closes_the_circuit(clock: Clock) -> None:
    shared = opened(clock, rest=30)
    clock.now += 31
    others: list[FedsyncError] = []

    def step() -> str:
        with pytest.raises(Unavailable) as caught:
            once(shared).call(never)
        others.append(caught.value)
        return "done"

    assert once(shared).call(step) == "done" and len(others) == 1
    assert once(shared).call(lambda: "more") == "more"


def test_a_trial_that_fails_opens_it_for_another_rest_and_the_outage_is_still_the_same(clock: Clock) -> None:
    shared = opened(clock, rest=30)
    with pytest.raises(Unavailable) as before:
        once(shared).call(never)
    clock.now += 31
    assert not isinstance(fail(shared), Unavailable)
    with pytest.raises(Unavailable) as after:
        once(shared).call(never)
    assert after.value.en.split("; ")[0] == before.value.en.split("; ")[0]
    assert after.value.retry_after == 30


def test_the_one_that_tries_may_make_its_requests_within_its_call(clock: Clock) -> None:
    shared = opened(clock)
    clock.now += 31
    node = once(shared)
    assert node.call(lambda: node.call(lambda: "page")) == "page"


def test_a_trial_that_is_broken_off_lets_another_try(clock: Clock) -> None:
    shared = opened(clock)
    clock.now += 31

    def stopped() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(shared).call(stopped)
    assert once(shared).call(lambda: 1) == 1


def test_a_system_that_names_a_longer_wait_gets_it(clock: Clock) -> None:
    shared = circuit(clock, failures=1, rest=30)
    fail(shared, Transient("busy", "繁忙", retry_after=120))
    clock.now += 119
    with pytest.raises(Unavailable):
        once(shared).call(never)
    clock.now += 2
    assert once(shared).call(lambda: 1) == 1


def test_what_began_before_it_opened_and_fails_later_does_not_prolong_the_rest(clock: Clock) -> None:
    shared = circuit(clock, failures=1, rest=30)

    def late() -> None:
        fail(shared)
        clock.now += 20
        raise Transient("no answer", "无应答")

    with pytest.raises(Transient):
        once(shared).call(late)
    clock.now += 11
    assert once(shared).call(lambda: 1) == 1


# --- one system, many nodes


def test_many_nodes_have_no_more_patience_with_a_system_than_one(clock: Clock) -> None:
    """It answers now and then, so the circuit stays closed; but nobody waits for longer than the seconds of one budget in all."""
    shared = circuit(clock, seconds=60)
    pauses: list[float] = []
    for _ in range(100):
        node = Retrier(Budget(attempts=3, first=8, longest=8), pauses.append, lambda: 1.0, shared)
        errors = [Transient("busy", "繁忙")] * 2

        def step(errors: list[Transient] = errors) -> None:
            if errors:
                raise errors.pop()

        try:
            node.call(step)
        except Transient:
            once(shared).call(lambda: None)
    assert sum(pauses) <= 60 + 200 * Budget().earned


def test_a_recovery_gives_all_patience_back(clock: Clock) -> None:
    shared = circuit(clock, failures=1, seconds=60)
    silent = Transient("silent", "无响应")
    silent.waited = 50.0
    fail(shared, silent)
    assert shared.left == 10
    clock.now += 31
    once(shared).call(lambda: None)
    assert shared.left == 60


def test_threads_share_one_circuit_and_only_one_of_them_tries() -> None:
    shared = Circuit("登记库", Limits(failures=1, rest=0.2))
    fail(shared)
    time.sleep(0.25)
    asked: list[int] = []
    ready = threading.Barrier(8)

    def call() -> None:
        def step() -> None:
            asked.append(1)
            time.sleep(0.2)

        ready.wait(5)
        try:
            once(shared).call(step)
        except Unavailable:
            pass

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(call) for _ in range(8)]:
            done.result()
    assert len(asked) == 1


def test_nodes_share_a_circuit_by_their_server_whoever_logs_in() -> None:
    def place(url: str) -> str | None:
        node = Node(PEOPLE, STREET, "db", {"url": url}, tuple(PEOPLE.fields))
        return open_node(node, "sql", Scope({}), hosted=_not_hosted).place

    assert place("postgresql://one:secret@db.example:5432/city") == place("postgresql://two@db.example:5432/city")
    assert place("postgresql://one@db.example:5432/city") != place("postgresql://one@other.example:5432/city")
    assert "secret" not in str(place("postgresql://one:secret@db.example:5432/city"))
    assert circuit_of("a") is circuit_of("a") and circuit_of("a") is not circuit_of("b")


def test_what_only_one_node_uses_opens_no_circuit() -> None:
    """A workbook that somebody has open says nothing about the next community's."""
    assert circuit_of(None) is not circuit_of(None)
    shared = circuit_of(None)
    for _ in range(20):
        fail(shared)
    assert once(shared).call(lambda: 1) == 1


def test_trouble_with_the_companion_is_not_blamed_on_the_nodes_own_system() -> None:
    node = Node(PEOPLE, STREET, "db", {"store": "breaker"}, tuple(PEOPLE.fields))

    class Broken(MemoryConnector):
        @property
        def place(self) -> str | None:
            return "hosted"

        def probe(self) -> None:  # type: ignore[override]
            raise Transient("locked", "被锁定")

    made = open_node(node, "memory", Scope({}), lacking=("phone",), hosted=Broken)
    made.inner.inner.side.retrier._sleep = lambda _: None  # type: ignore[attr-defined]
    with pytest.raises(Transient):
        made.probe()
    with pytest.raises(Unavailable):
        Retrier(circuit=circuit_of("hosted")).call(never)
    assert made.retrier.call(lambda: 1) == 1  # type: ignore[attr-defined]


def _not_hosted(node: Node) -> MemoryConnector:
    raise AssertionError(node)


def _probe_all(url: str, nodes: int, **options: object) -> tuple[list[Transient], float]:
    """Probe so many communities that share one database, eight at a time, as a sweep does."""

    def one(number: int) -> Transient:
        region = Region(f"110101{number:06}", f"社区{number}", "community", "110101001000")
        node = Node(PEOPLE, region, "db", {"url": url, **options}, tuple(PEOPLE.fields))
        connector = open_node(node, "sql", Scope({}), hosted=_not_hosted)
        with pytest.raises(Transient) as caught:
            connector.probe()
        connector.close()
        return caught.value

    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        errors = list(pool.map(one, range(nodes)))
    return errors, time.monotonic() - started


def test_a_dead_database_of_7535_communities_costs_one_timeout() -> None:
    with Proxy("127.0.0.1", 1) as proxy:
        proxy.always(Fault("stall"))
        url = f"postgresql://nobody@127.0.0.1:{proxy.port}/none"
        errors, elapsed = _probe_all(url, 7535, timeout=1)
        assert proxy.counts["accepted"] <= 5 + 8, (
            "five attempts open the circuit; seven more may be on their way by then"
        )
    assert sum(isinstance(error, Unavailable) for error in errors) >= 7535 - 13
    assert elapsed < 60


def test_a_port_where_nobody_listens_opens_the_circuit_as_well() -> None:
    with Proxy("127.0.0.1", 1) as proxy:
        proxy.refuse()
        errors, _ = _probe_all(f"postgresql://nobody@127.0.0.1:{proxy.port}/none", 50)
    told = [error for error in errors if isinstance(error, Unavailable)]
    assert len(told) >= 50 - 13
    assert "refused" in told[-1].en.lower() and "secret" not in told[-1].en
