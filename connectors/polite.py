"""Sparing a system: how often it is asked, how much in one run, and when not at all.

Quiet hours are true of any system and wrap any connector. Rate and budget count requests, so the connectors that make them ask. What
a declaration leaves open, the manners of its level say.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from datetime import time as clock_time
from zoneinfo import ZoneInfo

from connectors.base import Connector
from connectors.wrapping import WrappingConnector
from federation.errors import Permanent, Resting


@dataclass(frozen=True)
class Rate:
    """So many requests a second. `burst`: so many may come at once after a rest."""

    per_second: float
    burst: int = 1


@dataclass(frozen=True)
class Manners:
    """How a system is spared whose declaration does not say. `rate`: None for no limit. `bulk`: records in one request that writes many."""

    rate: Rate | None = None
    bulk: int = 100


class Pace:
    """When the next request to one system may be sent, whichever threads send it, and at whatever rates.

    The generic cell rate algorithm (ITU-T I.371): a bucket of `burst` tokens that fills at the rate.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due = 0.0

    def wait(
        self, rate: Rate, now: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Return when it is this caller's turn."""
        interval = 1 / rate.per_second
        with self._lock:
            due = max(now(), self._due)
            turn = due - (rate.burst - 1) * interval
            self._due = due + interval
        if (pause := turn - now()) > 0:
            sleep(pause)


_PACES: dict[str, Pace] = {}
_PACES_LOCK = threading.Lock()


def pace_of(system: str) -> Pace:
    """One pace for all nodes of this process that share a system: it is the system that must be spared."""
    with _PACES_LOCK:
        return _PACES.setdefault(system, Pace())


class Allowance:
    """So many requests in one run (the life of a connector), repeated ones included."""

    def __init__(self, requests: int) -> None:
        self._requests = requests
        self._left = requests

    def spend(self) -> None:
        """Count one request. Raises Permanent once there is none left: to try again at once would only spend more."""
        if not self._left:
            raise Permanent(
                f"the run has made the {self._requests} requests that it may make",
                f"本次运行已用完 {self._requests} 次请求额度",
                todo="已写入的不会丢失，下次运行接着做；如总是不够，调大 requests_per_run、分页或批量的 size / what was written is not lost, "
                "the next run goes on from there; if it never suffices, raise `requests_per_run`, or the `size` of pages and bulk writes",
            )
        self._left -= 1


@dataclass(frozen=True)
class QuietHours:
    """From `start` to before `end` on the system's own clock, across midnight if `end` is earlier."""

    start: clock_time
    end: clock_time

    @classmethod
    def parse(cls, text: str) -> QuietHours:
        """From `22:00-06:00`; the day may end at 24:00."""
        start, end = (
            clock_time(int(hour) % 24, int(minute)) for hour, minute in (p.split(":") for p in text.split("-"))
        )
        return cls(start, end)

    def over(self, local: datetime) -> datetime | None:
        """When the quiet hours end that hold at a moment of local time; None if none do."""
        now, night = local.time(), self.end <= self.start
        if not (now >= self.start or now < self.end if night else self.start <= now < self.end):
            return None
        day = local.date() + timedelta(days=int(night and now >= self.start))
        return datetime.combine(day, self.end, local.tzinfo)


def quiet_until(hours: Sequence[QuietHours], moment: datetime, timezone: str) -> datetime | None:
    """The local time at which a system may be asked again, if it may not be now. Hours that follow each other count as one."""
    local = moment.astimezone(ZoneInfo(timezone))
    found: datetime | None = None
    for _ in range(len(hours) + 1):
        ends = [end for each in hours if (end := each.over(local)) is not None]
        if not ends:
            break
        local = found = max(ends)
    return found


class PoliteConnector(WrappingConnector):
    """Wraps a connector; same contract, but within the system's quiet hours each call raises Resting, and nothing is asked."""

    def __init__(
        self, inner: Connector, hours: Sequence[QuietHours], now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        super().__init__(inner)
        self._hours = tuple(hours)
        self._now = now

    @property
    def inner(self) -> Connector:
        """The connector, if it may be asked now."""
        now = self._now()
        until = quiet_until(self._hours, now, self.node.timezone)
        if until is not None:
            raise Resting(
                f"quiet hours until {until:%H:%M}",
                f"静默时段，至 {until:%H:%M}",
                todo="届时会自动继续；如须立即同步，请修改 quiet_hours / it goes on then; to sync now, change `quiet_hours`",
                retry_after=(until.astimezone(UTC) - now).total_seconds(),
                region=str(self.node.region),
                system=self.node.system,
            )
        return self._inner
