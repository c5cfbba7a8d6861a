"""Circuit breaker (熔断): a system that does not answer one node answers none, so not each of its nodes has to find that out.

A *circuit* stands for one system, as all nodes of this process share it. It is *closed* while the system answers. Once attempts
failed in a row (only `Transient` errors count; any other answer, a refusal included, is an answer), it is *open*: calls fail at
once, with an error that says since when, why, and when it is tried again. Then one call is let through: its answer closes the
circuit, its failure opens it anew.

The circuit also holds the seconds that all nodes of the system together may spend on waiting: a thousand nodes have no more
patience with a system than one has.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from federation.errors import Transient


@dataclass(frozen=True)
class Limits:
    """When a circuit opens: after so many `failures` in a row within `window` seconds (None: never), or once those in a row waited
    `seconds` for answers. `rest`: seconds until one call is let through, or what the system asked for if that is longer.

    `seconds`: of waiting in all, which each success earns back in part (`Budget.earned`) and a recovery in full.
    """

    failures: int | None = 5
    window: float = 600.0
    seconds: float = 60.0
    rest: float = 30.0


class Unavailable(Transient):
    """The circuit is open: the system was not asked. `retry_after`: seconds until it will be."""


@dataclass(frozen=True)
class _Opening:
    """`at`: when one call may pass. `since`: wall-clock time of the first failure. `cause`: the last error, without its frames."""

    at: float
    since: datetime
    cause: Transient


class Circuit:
    """See the module. Safe for threads. `name`: the system, for people."""

    def __init__(self, name: str = "", limits: Limits = Limits(), clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._left = limits.seconds
        self._failed: deque[tuple[float, float]] = deque()
        self._opening: _Opening | None = None
        self._trial: object | None = None

    @property
    def left(self) -> float:
        """Seconds that may still be spent on waiting."""
        return self._left

    def enter(self, caller: object) -> None:
        """Ask to make an attempt. Raises Unavailable while the circuit is open, except for the one caller that tries it."""
        with self._lock:
            opening, now = self._opening, self._clock()
            if opening is None or self._trial is caller:
                return
            if self._trial is not None or now < opening.at:
                raise self._unavailable(opening, max(0.0, opening.at - now)) from opening.cause
            self._trial = caller

    def answered(self, caller: object) -> None:
        """The system answered, were it to refuse: the circuit is closed."""
        with self._lock:
            if self._opening is not None:
                self._left = self.limits.seconds
            self._opening = None
            self._failed.clear()
            self._let_go(caller)

    def failed(self, caller: object, error: Transient) -> bool:
        """An attempt failed; returns whether it is worth trying again soon."""
        with self._lock:
            now = self._clock()
            self._left -= error.waited
            tried = self._trial is caller
            self._let_go(caller)
            self._failed.append((now, error.waited))
            while self._failed[0][0] < now - self.limits.window:
                self._failed.popleft()
            if self._opening is not None and not tried:
                return False  # it began before the circuit opened
            if tried or self._is_enough():
                since = self._opening.since if self._opening else _wall(self._failed[0][0] - now)
                at = now + max(self.limits.rest, error.retry_after or 0.0)
                self._opening = _Opening(at, since, Transient(error.en, error.zh))
                self._failed.clear()
            return self._opening is None

    def gave_way(self, caller: object) -> None:
        """An attempt ended without telling anything about the system."""
        with self._lock:
            self._let_go(caller)

    def spend(self, seconds: float) -> bool:
        """Take a pause from what is left; False if that is too little."""
        with self._lock:
            if seconds > self._left:
                return False
            self._left -= seconds
            return True

    def earn(self, seconds: float) -> None:
        """Put something back, never above the limit."""
        with self._lock:
            self._left = min(self.limits.seconds, self._left + seconds)

    def _let_go(self, caller: object) -> None:
        if self._trial is caller:
            self._trial = None

    def _is_enough(self) -> bool:
        if self.limits.failures is None:
            return False
        waited = sum(waited for _, waited in self._failed)
        return len(self._failed) >= self.limits.failures or waited >= self.limits.seconds

    def _unavailable(self, opening: _Opening, rest: float) -> Unavailable:
        since, again = f"{opening.since:%Y-%m-%d %H:%M:%S%z}", f"{_wall(rest):%H:%M:%S}"
        return Unavailable(
            f"{self.name} has not answered since {since} ({opening.cause.en}); it is asked again at {again}",
            f"{self.name} 自 {since} 起无应答（{opening.cause.zh}）；将于 {again} 再试",
            todo="检查该系统；恢复后自动继续 / look at that system; once it answers, all goes on by itself",
            retry_after=rest,
        )


def _wall(ahead: float) -> datetime:
    """The wall clock's time in so many seconds, with its offset."""
    return datetime.now().astimezone() + timedelta(seconds=ahead)


_circuits: dict[tuple[int, str], Circuit] = {}
_finding = threading.Lock()


def circuit_of(place: str | None) -> Circuit:
    """The circuit of a system by its place (`Connector.place`): one for all its nodes in this process. None: never opens."""
    if place is None:
        return Circuit(limits=Limits(failures=None))
    with _finding:
        return _circuits.setdefault((os.getpid(), place), Circuit(place))


def forget() -> None:
    """Close all circuits of this process, as a new process would find them."""
    with _finding:
        _circuits.clear()
