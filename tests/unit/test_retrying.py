from __future__ import annotations

import pytest

from connectors.base import Node
from connectors.level import Scope
from connectors.memory import MemoryConnector
from connectors.nodes import build, open_node
from connectors.rest import RestConnector
from connectors.retrying import Budget, Retrier, RetryingConnector
from federation.errors import AccessDenied, Conflict, FedsyncError, Permanent, SchemaMismatch, Transient, Unreadable
from tests.unit.rest_sample import PEOPLE, REGION, node


class Step:
    """Fails with these errors, one after the other, then succeeds."""

    def __init__(self, *errors: FedsyncError) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def transient(retry_after: float | None = None) -> Transient:
    return Transient("busy", "繁忙", retry_after=retry_after)


def retrier(pauses: list[float], budget: Budget = Budget(), jitter: float = 1.0) -> Retrier:
    return Retrier(budget, sleep=pauses.append, jitter=lambda: jitter)


@pytest.mark.parametrize("kind", [Permanent, AccessDenied, SchemaMismatch, Unreadable, Conflict])
def test_only_transient_errors_are_tried_again(kind: type[FedsyncError]) -> None:
    pauses: list[float] = []
    step = Step(kind("no", "否"))
    with pytest.raises(kind):
        retrier(pauses).call(step)
    assert (step.calls, pauses) == (1, [])


def test_pauses_double_up_to_the_longest() -> None:
    pauses: list[float] = []
    budget = Budget(attempts=6, first=1, longest=5)
    assert retrier(pauses, budget).call(Step(*(transient() for _ in range(5)))) == "done"
    assert pauses == [1, 2, 4, 5, 5]


def test_jitter_spreads_the_pauses_over_their_whole_width() -> None:
    pauses: list[float] = []
    patient = Retrier(Budget(attempts=201, seconds=1e6, first=4, longest=4), sleep=pauses.append)
    patient.call(Step(*(transient() for _ in range(200))))
    assert 0 <= min(pauses) < 0.5 and 3.5 < max(pauses) <= 4
    assert len(set(pauses)) > 190


def test_a_system_that_says_how_long_to_wait_is_never_asked_earlier() -> None:
    pauses: list[float] = []
    Retrier(Budget(first=0.2), sleep=pauses.append).call(Step(*(transient(retry_after=7) for _ in range(4))))
    assert all(7 <= pause <= 7.2 for pause in pauses) and len(set(pauses)) == 4


def test_a_wait_beyond_the_budget_is_not_begun() -> None:
    pauses: list[float] = []
    step = Step(transient(retry_after=61))
    with pytest.raises(Transient) as caught:
        retrier(pauses, Budget(seconds=60)).call(step)
    assert caught.value.retry_after == 61 and pauses == [] and step.calls == 1


def test_attempts_are_bounded_and_the_last_error_is_raised() -> None:
    errors = [transient() for _ in range(9)]
    step = Step(*errors)
    with pytest.raises(Transient) as caught:
        retrier([], Budget(attempts=3)).call(step)
    assert step.calls == 3 and caught.value is errors[2]


def test_a_dead_system_costs_no_more_seconds_than_the_budget_over_all_calls() -> None:
    pauses: list[float] = []
    patient = retrier(pauses, Budget(attempts=50, seconds=10, first=1, longest=4))
    for _ in range(20):
        with pytest.raises(Transient):
            patient.call(Step(*(transient() for _ in range(60))))
    assert sum(pauses) <= 10


def test_waiting_for_an_answer_that_did_not_come_counts_as_a_pause_does() -> None:
    """A server that says nothing for as long as it is waited for is not asked five times over."""
    silent = transient()
    silent.waited = 60.0
    step = Step(silent, transient())
    with pytest.raises(Transient):
        retrier([], Budget(seconds=60)).call(step)
    assert step.calls == 1


def test_an_answer_that_did_not_come_counts_once_in_nested_calls() -> None:
    silent = transient()
    silent.waited = 7.0
    shared = retrier([], Budget(attempts=1, seconds=60))
    with pytest.raises(Transient):
        shared.call(lambda: shared.call(Step(silent)))
    assert shared.left == 53


def test_a_system_that_makes_progress_is_not_given_up() -> None:
    pauses: list[float] = []
    patient = retrier(pauses, Budget(seconds=2, earned=0.5))
    for number in range(400):
        patient.call(Step(transient(retry_after=1)) if number % 10 == 0 else Step())
    assert len(pauses) == 40 and patient.left <= 2


def test_an_outer_call_does_not_multiply_the_attempts_of_its_requests() -> None:
    pauses: list[float] = []
    shared = retrier(pauses, Budget(attempts=3))
    step = Step(*(transient() for _ in range(99)))
    with pytest.raises(Transient):
        shared.call(lambda: shared.call(step))
    assert step.calls == 3


def test_an_outer_call_still_tries_again_what_no_request_gave_up_on() -> None:
    shared = retrier([])
    outer = Step(transient())

    def call() -> str:
        shared.call(Step(transient()))
        return outer()

    assert shared.call(call) == "done" and outer.calls == 2


def test_every_call_of_a_connector_is_retried() -> None:
    inner = MemoryConnector(Node(PEOPLE, REGION, "memory", {"store": "retrying"}, tuple(PEOPLE.fields)))
    pauses: list[float] = []
    wrapped = RetryingConnector(inner, retrier(pauses))
    step = Step(transient())
    original = inner.probe
    inner.probe = lambda: (step(), original())[1]  # type: ignore[method-assign]
    assert wrapped.probe().token == "0" and len(pauses) == 1


def test_a_connector_that_makes_many_requests_shares_the_retrier_of_its_wrapper() -> None:
    opened = open_node(node("http://127.0.0.1:9"), "rest", Scope({}), hosted=lambda _: pytest.fail("not hosted"))
    assert isinstance(opened, RetryingConnector)
    bare = opened.inner.inner  # type: ignore[attr-defined]
    assert isinstance(bare, RestConnector) and bare.retrier is opened.retrier


def test_a_bare_connector_tries_each_request_once() -> None:
    bare = build(node("http://127.0.0.1:9"), "rest")
    assert isinstance(bare, RestConnector)
    step = Step(transient(retry_after=0))
    with pytest.raises(Transient):
        bare.retrier.call(step)
    assert step.calls == 1
