"""Who was told what, and when: the ledger's `alert` table, shared by all workers.

A claim is one UPDATE that only one worker wins, so that a subject is told once however many notice it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Insert, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from federation.alarms import Alarm
from federation.ledger.schema import alert as table
from federation.ledger.store import Ledger, chunks, rows

KEPT = timedelta(days=30)
"""How long an alert that is over, or that nobody sees any more, is remembered."""


@dataclass(frozen=True)
class Standing:
    """One row: a subject as one channel knows it."""

    subject: str
    channel: str
    kind: str
    dataset: str | None
    title_zh: str
    title_en: str
    raised: datetime
    seen: datetime
    sent: datetime | None
    told: bool
    swallowed: int
    cleared: datetime | None


class AlertLog:
    """The ledger's `alert` table."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def claim(self, channel: str, alarms: Sequence[Alarm], every: timedelta) -> dict[str, Standing]:
        """Note that these were seen, and take those that the channel is to be told now: subject → how it stood before.

        Told now is what no message was sent about within `every`; the others are counted as swallowed. Whoever claims either
        confirms or gives back.
        """
        now, won = self.ledger.clock(), dict[str, Standing]()
        for part in chunks(list({alarm.subject: alarm for alarm in alarms}.values()), 300):
            with self.ledger.transaction() as connection:
                won |= self._claim(connection, channel, part, now, now - every)
        return won

    def _claim(
        self, connection: Connection, channel: str, alarms: list[Alarm], now: datetime, limit: datetime
    ) -> dict[str, Standing]:
        names = [alarm.subject for alarm in alarms]
        mine = (table.c.channel == channel) & table.c.subject.in_(names)
        connection.execute(self._insert(connection), [_row(alarm, channel, now) for alarm in alarms])
        again = update(table).where(mine, table.c.cleared.is_not(None))
        connection.execute(again.values(cleared=None, raised=now, told=False))
        due = or_(table.c.sent.is_(None), table.c.sent <= limit)
        won = set(
            connection.scalars(update(table).where(mine, due).values(sent=now, seen=now).returning(table.c.subject))
        )
        lost = [name for name in names if name not in won]
        others = update(table).where((table.c.channel == channel) & table.c.subject.in_(lost))
        connection.execute(others.values(seen=now, swallowed=table.c.swallowed + 1))
        return {
            row["subject"]: Standing(**row)
            for row in rows(connection, select(table).where(mine))
            if row["subject"] in won
        }

    def _insert(self, connection: Connection) -> Insert:
        kind: Any = postgresql if connection.dialect.name == "postgresql" else sqlite
        made: Insert = kind.insert(table).on_conflict_do_nothing()
        return made

    def confirm(self, channel: str, subjects: Collection[str]) -> None:
        """The channel was told."""
        self._set(channel, subjects, told=True, swallowed=0)

    def give_back(self, channel: str, subjects: Collection[str]) -> None:
        """The channel could not be told: whoever sees it next tries again."""
        self._set(channel, subjects, sent=None)

    def end(self, channel: str, subjects: Collection[str]) -> list[Standing]:
        """These are over; those of them that the channel was told of and is to hear the end of. Only one worker gets them."""
        now, over = self.ledger.clock(), list[Standing]()
        for part in chunks(sorted(subjects), 300):
            mine = (table.c.channel == channel) & table.c.subject.in_(part) & table.c.cleared.is_(None)
            with self.ledger.transaction() as connection:
                before = {row["subject"]: Standing(**row) for row in rows(connection, select(table).where(mine))}
                ended = update(table).where(mine).values(cleared=now).returning(table.c.subject)
                over += [before[name] for name in connection.scalars(ended) if before[name].told]
        return over

    def reopen(self, channel: str, subjects: Collection[str]) -> None:
        """The channel could not be told that these are over: the next check tries again."""
        self._set(channel, subjects, cleared=None)

    def standing(self, dataset: str | None = None) -> list[Standing]:
        """Whatever is not over, oldest first."""
        mine = [table.c.cleared.is_(None), *([table.c.dataset == dataset] if dataset is not None else [])]
        statement = select(table).where(*mine).order_by(table.c.raised, table.c.subject, table.c.channel)
        with self.ledger.transaction() as connection:
            return [Standing(**row) for row in rows(connection, statement)]

    def prune(self) -> None:
        """Forget what was not seen for long."""
        with self.ledger.transaction() as connection:
            connection.execute(delete(table).where(table.c.seen < self.ledger.clock() - KEPT))

    def _set(self, channel: str, subjects: Collection[str], **values: object) -> None:
        with self.ledger.transaction() as connection:
            for part in chunks(sorted(subjects), 300):
                mine = (table.c.channel == channel) & table.c.subject.in_(part)
                connection.execute(update(table).where(mine).values(**values))


def _row(alarm: Alarm, channel: str, now: datetime) -> dict[str, Any]:
    return {
        "subject": alarm.subject,
        "channel": channel,
        "kind": alarm.kind,
        "dataset": alarm.dataset,
        "title_zh": alarm.title_zh[:300],
        "title_en": alarm.title_en[:300],
        "raised": now,
        "seen": now,
        "told": False,
        "swallowed": 0,
    }
