"""The one retry wrapper: exponential back-off with jitter around any connector. Connectors themselves never retry.

Only `Transient` errors are tried again, and only as long as the budget of the run lasts; a system that says how long to wait
(Retry-After) is obeyed if that fits the budget.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from connectors.base import Applied, Batch, Capabilities, Changes, Connector, Digest, Probe
from federation.errors import Transient

T = TypeVar("T")


@dataclass(frozen=True)
class Budget:
    """`attempts` per call and `seconds` of waiting per connector; `first` is the first pause, doubled up to `longest`."""

    attempts: int = 5
    seconds: float = 60.0
    first: float = 0.2
    longest: float = 15.0


class RetryingConnector(Connector):
    """Wraps a connector; same contract, fewer transient errors."""

    def __init__(
        self, inner: Connector, budget: Budget = Budget(), sleep: Callable[[float], None] = time.sleep
    ) -> None:
        super().__init__(inner.node)
        self.inner = inner
        self.budget = budget
        self._left = budget.seconds
        self._sleep = sleep
        self._backoff = wait_random_exponential(multiplier=budget.first, max=budget.longest)

    def _call(self, step: Callable[[], T]) -> T:
        return Retrying(
            retry=retry_if_exception_type(Transient),
            wait=self._wait,
            stop=self._spent,
            sleep=self._pause,
            reraise=True,
        )(step)

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, Transient) else None
        return asked if asked is not None else self._backoff(state)

    def _spent(self, state: RetryCallState) -> bool:
        return state.attempt_number >= self.budget.attempts or self._wait(state) > self._left

    def _pause(self, seconds: float) -> None:
        self._left -= seconds
        self._sleep(seconds)

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    def probe(self) -> Probe:
        return self._call(self.inner.probe)

    def prepare(self) -> None:
        self._call(self.inner.prepare)

    def changes(self, since: str | None, *, sweep: bool = True) -> Changes:
        return self._call(lambda: self.inner.changes(since, sweep=sweep))

    def fetch(self, keys: pa.Table) -> Changes:
        return self._call(lambda: self.inner.fetch(keys))

    def apply(self, batch: Batch) -> Applied:
        return self._call(lambda: self.inner.apply(batch))

    def notify(self, returns: pa.Table) -> None:
        self._call(lambda: self.inner.notify(returns))

    def digest(self) -> Digest:
        return self._call(self.inner.digest)

    def close(self) -> None:
        self.inner.close()
