"""Why both ends of a link differ although they were merged: what holds a record, by the ledger and by what an end has of it."""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa

from federation.config import Link
from federation.services import Services

REASONS: dict[str, str] = {
    "unreadable": "不可读 unreadable",
    "quarantined": "隔离 quarantined",
    "contested": "争议 contested",
    "correction": "校核 correction open",
    "waiting": "等待相邻链路 waits for a neighbouring link",
    "outside": "属地以外 outside the jurisdiction",
}
"""Reason → what people read. `unreadable`: an end has a row that cannot be typed or trusted. `quarantined`: a gate, or the reader, set it
aside. `contested`: two children claim the key. `correction`: a proposal stands, until it is ruled on or though it was turned down. `waiting`: an end holds something
that the link beyond never agreed on. `outside`: the lower end places the record in another region."""


def explained(services: Services, link: Link, left: pa.Table, since: datetime | None) -> list[str | None]:
    """For each of the differences (`comparing.DIFFERENCES`), the first reason that holds; None if none does.

    `since`: when the merge that looked at them began, which heard of every proposal that still stands; None: there was none.
    """
    if not left.num_rows:
        return []
    keys = set(left.column("key").to_pylist())
    held = _held(services, link, keys, since)
    found: list[str | None] = []
    for line in left.to_pylist():
        key = line["key"]
        if "unreadable" in (line["above"], line["below"]):
            found.append("unreadable")
        elif reason := next((name for name, concerned in held.items() if key in concerned), None):
            found.append(reason)
        else:
            found.append("outside" if line["below"] == "elsewhere" else None)
    return found


def _held(services: Services, link: Link, keys: set[str], since: datetime | None) -> dict[str, set[str]]:
    """Reason → keys that the ledger holds for it on this link."""
    with services.ledger.transaction() as connection:
        standing = services.corrections.of_link_about(connection, link.id, sorted(keys), since)
    waits = services.waiting.keys(link.id)
    return {
        "quarantined": {item.key for item in services.quarantine.open_items(link_id=link.id) if item.key in keys},
        "contested": {contest.key for contest in services.contests.of_link(link.id)},
        "correction": {one.key for one in standing},
        "waiting": waits["upper"] | waits["lower"],
    }
