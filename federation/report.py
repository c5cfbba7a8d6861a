"""What an operator asks of a federation: each link's state in one line, and the reach of each level."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select

from federation.federation import Federation
from federation.ledger.figures import figures
from federation.ledger.schema import run as run_table
from federation.ledger.store import rows
from federation.metrics import Sample, measure
from federation.reach import LevelReach, reach


@dataclass(frozen=True)
class LinkLine:
    """One link. `lag`: minutes since it last settled, as text; `pending`: records of its last run that did not get through.

    `state`: as in the ledger, or `skipped` while it is left alone; `reason` says why.
    """

    link: str
    dataset: str
    path: str
    state: str
    last_run: str | None
    lag: str | None
    pending: int
    quarantined: int
    corrections: int
    reason: str | None


def link_lines(federation: Federation, dataset: str | None = None) -> list[LinkLine]:
    """Every declared link, run or not, in the order of the declaration."""
    services, now = federation.services, federation.services.ledger.clock()
    states = services.links.all(dataset)
    items = Counter(item.link_id for item in services.quarantine.open_items(dataset=dataset))
    corrections = services.corrections.counts()
    counts = _last_counts(federation)
    links = list(federation.config.all_links(dataset))
    _, skipped = federation.open_links(links, states)
    lines = []
    for link in links:
        state = states.get(link.id)
        last = state.last_run if state else None
        ok = state.last_ok if state else None
        held = counts.get(link.id, {})
        lines.append(
            LinkLine(
                link.id,
                link.contract.dataset.name,
                f"{link.upper.name} → {link.lower.name}",
                "skipped" if link.id in skipped else state.state if state else "new",
                f"{last.astimezone():%m-%d %H:%M:%S}" if last else None,
                f"{(now - ok).total_seconds() / 60:.0f} min" if ok else None,
                int(held.get("quarantined", 0)) + int(held.get("held", 0)),
                items[link.id],
                corrections.get(link.id, 0),
                skipped.get(link.id) or (state.reason_en if state else None),
            )
        )
    return lines


def reach_lines(federation: Federation, dataset: str | None = None) -> list[LevelReach]:
    """The reach of each level of each dataset."""
    services, now = federation.services, federation.services.ledger.clock()
    names = [dataset] if dataset else list(federation.config.datasets)
    return [line for name in names for line in reach(federation.config, name, services.links.all(name), now)]


def samples(federation: Federation, dataset: str | None, links: int | None, window: int = 60) -> list[Sample]:
    """The metrics of one dataset or all, as the ledger stands. `links`: how many are named, None: all; `window`: minutes of runs."""
    config, services = federation.config, federation.services
    names = config.named(dataset)
    found = figures(services.ledger, services.contests, timedelta(minutes=window), services.now().date(), dataset)
    return measure(config, found, names, links=links)


def _last_counts(federation: Federation) -> dict[str, dict[str, int]]:
    newest = (
        select(run_table.c.link_id, func.max(run_table.c.finished).label("at")).group_by(run_table.c.link_id).subquery()
    )
    statement = select(run_table.c.link_id, run_table.c.counts).join(
        newest, (run_table.c.link_id == newest.c.link_id) & (run_table.c.finished == newest.c.at)
    )
    with federation.services.ledger.transaction() as connection:
        return {row["link_id"]: json.loads(row["counts"]) for row in rows(connection, statement)}
