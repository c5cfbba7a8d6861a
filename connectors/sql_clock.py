"""How a zone's clocks stood, so that any database can turn their readings into moments without a zone table of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

_FIRST, _LAST = 1901, 2100
MOST = 100
"""Changes of a clock up to which they are spelt out in a statement."""


@dataclass(frozen=True)
class Span:
    """From this reading on (to the next span's), the clock was `offset` seconds ahead of UTC; None: readings may be doubtful here."""

    start: datetime
    offset: int | None


@cache
def spans(timezone: str) -> tuple[Span, ...] | None:
    """The spans of a zone, latest first. What was read before the last one listed (before 1901) is doubtful as well.

    None: the clock still changes, or changed too often. A span of doubt holds all readings about a change, with an hour on both sides.
    """
    zone = ZoneInfo(timezone)
    hour = timedelta(hours=1)
    at = datetime(_FIRST, 1, 1, tzinfo=UTC)
    offset = _offset(at, zone)
    found = [Span(datetime(_FIRST, 1, 2), _seconds(offset))]
    while at.year < _LAST:
        after = at + timedelta(days=1)
        then = _offset(after, zone)
        if then != offset:
            readings = [moment.replace(tzinfo=None) + ahead for moment in (at, after) for ahead in (offset, then)]
            found += [Span(min(readings) - hour, None), Span(max(readings) + hour, _seconds(then))]
        at, offset = after, then
    if len(found) > 2 * MOST or found[-1].start.year > _LAST - 5:
        return None
    return tuple(reversed(found))


def moment_case(
    reading: str,
    timezone: str,
    literal: Callable[[datetime], str],
    moment: Callable[[int], str],
    doubtful: str,
) -> str | None:
    """SQL of the moment at which the clocks of a zone showed a time; None where that cannot be said.

    `reading`: SQL of that time, null for none. `literal`: SQL of a fixed time. `moment`: SQL of the moment, where the clocks were so many
    seconds ahead of UTC. `doubtful`: SQL for what was shown twice or never, or before 1901.
    """
    told = spans(timezone)
    if told is None:
        return None
    cases = " ".join(
        f"WHEN {reading} >= {literal(span.start)} THEN {doubtful if span.offset is None else moment(span.offset)}"
        for span in told
    )
    return f"CASE {cases} WHEN {reading} IS NOT NULL THEN {doubtful} END"


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None
    return offset


def _seconds(offset: timedelta) -> int:
    return int(offset.total_seconds())
