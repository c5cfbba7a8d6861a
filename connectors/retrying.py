"""The one retry policy: exponential back-off with jitter, within a budget. Connectors themselves never retry.

Only `Transient` errors are tried again. A system that says how long to wait (Retry-After) is obeyed if that fits the budget.
`RetryingConnector` retries whole calls. A connector that makes many requests per call is a `RequestingConnector`: it shares the
same `Retrier` and passes each request through it, since reading 100 pages again because the last one failed would be impolite
and, where requests fail now and then, would never end.
"""

from __future__ import annotations

import random
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from connectors.base import Applied, Batch, Capabilities, Changes, Connector, Digest, Node, Probe
from federation.errors import Transient

T = TypeVar("T")


@dataclass(frozen=True)
class Budget:
    """How long to insist.

    `attempts` per step. `seconds` of waiting in all; each step that succeeds earns `earned` seconds back, never above
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

    May be nested (a request inside a call): what the inner step gave up on is not tried again by the outer one, so attempts
    do not multiply.
    """

    def __init__(
        self,
        budget: Budget = Budget(),
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.budget = budget
        self.left = budget.seconds
        self._sleep = sleep
        self._jitter = jitter
        # Weak: a kept exception would keep the frames of its traceback, and the tables in them.
        self._given_up: weakref.ref[Transient] | None = None

    def call(self, step: Callable[[], T]) -> T:
        """The step's result. Raises its last error once it is not Transient, or attempts or seconds are used up."""
        attempt = 1
        while True:
            try:
                result = step()
            except Transient as error:
                pause = self._pause(attempt, error)
                if self._was_given_up(error) or attempt >= self.budget.attempts or pause > self.left:
                    self._given_up = weakref.ref(error)
                    raise
            else:
                self.left = min(self.budget.seconds, self.left + self.budget.earned)
                return result
            self.left -= pause
            self._sleep(pause)
            attempt += 1

    def _pause(self, attempt: int, error: Transient) -> float:
        """Full jitter. On top of what the system asked for, a little: else all that it turned away come back together."""
        if error.retry_after is not None:
            return error.retry_after + self._jitter() * self.budget.first
        widest = min(self.budget.longest, self.budget.first * 2.0 ** (attempt - 1))
        return self._jitter() * widest

    def _was_given_up(self, error: Transient) -> bool:
        return self._given_up is not None and self._given_up() is error


class RequestingConnector(Connector):
    """Base of connectors that make many requests per call: each goes through `retrier` (default: none is tried again)."""

    def __init__(self, node: Node, retrier: Retrier | None = None) -> None:
        super().__init__(node)
        self.retrier = retrier or Retrier(NO_RETRY)


class RetryingConnector(Connector):
    """Wraps a connector; same contract, fewer transient errors."""

    def __init__(self, inner: Connector, retrier: Retrier | None = None) -> None:
        super().__init__(inner.node)
        self.inner = inner
        self.retrier = retrier or Retrier()

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    def probe(self) -> Probe:
        return self.retrier.call(self.inner.probe)

    def prepare(self) -> None:
        self.retrier.call(self.inner.prepare)

    def changes(self, since: str | None, *, sweep: bool = True) -> Changes:
        return self.retrier.call(lambda: self.inner.changes(since, sweep=sweep))

    def fetch(self, keys: pa.Table) -> Changes:
        return self.retrier.call(lambda: self.inner.fetch(keys))

    def apply(self, batch: Batch) -> Applied:
        return self.retrier.call(lambda: self.inner.apply(batch))

    def notify(self, returns: pa.Table) -> None:
        self.retrier.call(lambda: self.inner.notify(returns))

    def show_corrections(self, corrections: pa.Table) -> None:
        self.retrier.call(lambda: self.inner.show_corrections(corrections))

    def rulings(self) -> pa.Table:
        return self.retrier.call(self.inner.rulings)

    def digest(self) -> Digest:
        return self.retrier.call(self.inner.digest)

    def close(self) -> None:
        self.inner.close()
