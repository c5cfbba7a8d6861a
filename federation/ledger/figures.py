"""What the ledger says about a federation as a whole: counted by the database, without opening a payload."""

from __future__ import annotations

import json
from datetime import date, timedelta

from sqlalchemy import func, select

from federation.ledger import schema
from federation.ledger.contests import Contests
from federation.ledger.corrections import OPEN as OPEN_CORRECTIONS
from federation.ledger.links import Links
from federation.ledger.quarantine import OPEN as OPEN_ITEMS
from federation.ledger.store import Ledger
from federation.metrics import Figures, Ran


def figures(ledger: Ledger, contests: Contests, window: timedelta, today: date, dataset: str | None = None) -> Figures:
    """Everything at one moment. `window`: how far back runs count; `today`: the date by which corrections are late."""
    now = ledger.clock()
    items, corrections, runs, alerts = schema.quarantine, schema.correction, schema.run, schema.alert
    aside = (
        select(items.c.link_id, items.c.dataset, items.c.origin, func.count())
        .where(items.c.state.in_(OPEN_ITEMS))
        .group_by(items.c.link_id, items.c.dataset, items.c.origin)
    )
    asked = (
        select(corrections.c.dataset, corrections.c.target, func.count())
        .where(corrections.c.state.in_(OPEN_CORRECTIONS))
        .group_by(corrections.c.dataset, corrections.c.target)
    )
    recent = select(runs.c.link_id, runs.c.started, runs.c.finished, runs.c.outcome, runs.c.counts).where(
        runs.c.finished > now - window
    )
    standing = (
        select(alerts.c.kind, func.count(alerts.c.subject.distinct()))
        .where(alerts.c.cleared.is_(None))
        .group_by(alerts.c.kind)
    )
    contested: dict[str, int] = {}
    for contest in contests.standing(dataset):
        contested[contest.dataset] = contested.get(contest.dataset, 0) + (contest.ruled is None)
    states = Links(ledger).all(dataset)
    with ledger.transaction() as connection:
        return Figures(
            now,
            window.total_seconds(),
            states,
            {(row[0], row[1], row[2]): int(row[3]) for row in connection.execute(aside)},
            {(row[0], row[1] or ""): int(row[2]) for row in connection.execute(asked)},
            {(row[0], row[1] or ""): int(row[2]) for row in connection.execute(asked.where(corrections.c.due < today))},
            contested,
            {row[0]: int(row[1]) for row in connection.execute(standing)},
            tuple(
                Ran(row.link_id, (row.finished - row.started).total_seconds(), row.outcome, json.loads(row.counts))
                for row in connection.execute(recent)
            ),
        )
