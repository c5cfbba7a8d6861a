"""The one retry policy: exponential back-off with jitter, within a budget. Connectors themselves never retry.

Only `Transient` errors are tried again. A system that says how long to wait (Retry-After) is obeyed if that fits the budget.
`RetryingConnector` retries whole calls. A connector that makes many requests per call is a `RequestingConnector`: it shares the
same `Retrier` and passes each request through it, since reading 100 pages again because the last one failed would be impolite
and, where requests fail now and then, would never end.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from connectors.base import Applied, Batch, Buckets, Changes, Connector, Digest, Node, Probe
from connectors.breaker import Circuit, Limits
from connectors.findings import Finding
from connectors.polite import Manners
from connectors.wrapping import WrappingConnector
from federation.errors import FedsyncError, Resting, Transient

T = TypeVar("T")


@dataclass(frozen=True)
class Budget:
    """How long to insist.

    `attempts` per step. `seconds` of waiting in all, between attempts and for answers that did not come; where nodes share a system,
    for all of them together (`connectors.breaker`); each step that succeeds earns `earned` seconds back, never above
    `seconds`, so that a system that makes progress is not given up while a dead one costs at most `seconds`.
    `first` is the longest first pause in seconds, doubled with each attempt up to `longest`.
    """

    attempts: int = 5
    seconds: float = 60.0
    first: float = 0.2
    longest: float = 15.0
    earned: float = 0.5


NO_RETRY = Budget(attempts=1, seconds=0.0)


class Retrier:
    """Runs steps, trying again what may work again, until the budget is spent. Not thread-safe: one per node.

    `circuit`: what all nodes of one system share: whether it answers at all, and the seconds of waiting that are left; by default
    the node's own, which never opens. Retriers may be nested (a request inside a call, one system inside another): what the
    inner one gave up on is neither counted nor tried again by the outer one, so attempts do not multiply.
    """

    def __init__(
        self,
        budget: Budget = Budget(),
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
        circuit: Circuit | None = None,
    ) -> None:
        self.budget = budget
        self.circuit = circuit or Circuit(limits=Limits(failures=None, seconds=budget.seconds))
        self._sleep = sleep
        self._jitter = jitter

    @property
    def left(self) -> float:
        """Seconds of waiting that are left."""
        return self.circuit.left

    def call(self, step: Callable[[], T]) -> T:
        """The step's result. Raises its last error once it is not Transient, or attempts or seconds are used up; Unavailable if the
        system is not to be asked now."""
        attempt = 1
        while True:
            self._enter()
            try:
                result = step()
            except Transient as error:
                pause = self._pause(attempt, error)
                if error.given_up or not self._again(attempt, pause, error):
                    self.circuit.gave_way(self)
                    error.given_up = True
                    raise
            except FedsyncError:
                self.circuit.answered(self)
                raise
            except BaseException:
                self.circuit.gave_way(self)
                raise
            else:
                self.circuit.answered(self)
                self.circuit.earn(self.budget.earned)
                return result
            self._sleep(pause)
            attempt += 1

    def _enter(self) -> None:
        try:
            self.circuit.enter(self)
        except Transient as error:
            error.given_up = True
            raise

    def _again(self, attempt: int, pause: float, error: Transient) -> bool:
        if isinstance(error, Resting):  # nobody was asked: it says nothing about the system's health
            return attempt < self.budget.attempts and self.circuit.spend(pause)
        return self.circuit.failed(self, error) and attempt < self.budget.attempts and self.circuit.spend(pause)

    def _pause(self, attempt: int, error: Transient) -> float:
        """Full jitter. On top of what the system asked for, a little: else all that it turned away come back together."""
        if error.retry_after is not None:
            return error.retry_after + self._jitter() * self.budget.first
        widest = min(self.budget.longest, self.budget.first * 2.0 ** (attempt - 1))
        return self._jitter() * widest


class RequestingConnector(Connector):
    """Base of connectors that make many requests per call: each goes through `retrier` (default: none is tried again).

    `manners`: those of its level (default: none).
    """

    def __init__(self, node: Node, retrier: Retrier | None = None, manners: Manners = Manners()) -> None:
        super().__init__(node)
        self.retrier = retrier or Retrier(NO_RETRY)
        self.manners = manners


class RetryingConnector(WrappingConnector):
    """Same contract, fewer transient errors. Receipts are not tried again: the next run shows them."""

    def __init__(self, inner: Connector, retrier: Retrier | None = None) -> None:
        super().__init__(inner)
        self.retrier = retrier or Retrier()

    def probe(self) -> Probe:
        return self.retrier.call(self.inner.probe)

    def inspect(self) -> Sequence[Finding]:
        return self.retrier.call(self.inner.inspect)

    def prepare(self) -> tuple[str, ...]:
        return self.retrier.call(self.inner.prepare)

    def unprepare(self) -> None:
        self.retrier.call(self.inner.unprepare)

    def changes(self, since: str | None, *, sweep: bool = True) -> Changes:
        return self.retrier.call(lambda: self.inner.changes(since, sweep=sweep))

    def fetch(self, keys: pa.Table) -> Changes:
        return self.retrier.call(lambda: self.inner.fetch(keys))

    def holding(self, name: str, values: pa.Array) -> pa.Table:
        return self.retrier.call(lambda: self.inner.holding(name, values))

    def apply(self, batch: Batch) -> Applied:
        return self.retrier.call(lambda: self.inner.apply(batch))

    def show_returns(self, returns: pa.Table) -> None:
        self.retrier.call(lambda: self.inner.show_returns(returns))

    def show_corrections(self, corrections: pa.Table) -> None:
        self.retrier.call(lambda: self.inner.show_corrections(corrections))

    def rulings(self) -> pa.Table:
        return self.retrier.call(self.inner.rulings)

    def digest(self) -> Digest:
        return self.retrier.call(self.inner.digest)

    def bucket_digests(self, asked: Buckets) -> pa.Table:
        return self.retrier.call(lambda: self.inner.bucket_digests(asked))

    def bucket_hashes(self, asked: Buckets, wanted: pa.Table) -> pa.Table:
        return self.retrier.call(lambda: self.inner.bucket_hashes(asked, wanted))
