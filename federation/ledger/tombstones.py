"""Tombstones: what the engine removed from a node, or saw leave, until every other link of that node has acted on it.

Without one, a record that is missing at a node which must not delete was deleted by that node's people, and comes back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa
from sqlalchemy import Connection, delete, insert, literal, or_, select, update

from federation.ledger.schema import tombstone as table
from federation.ledger.store import Ledger, chunks, rows

KEPT = timedelta(days=30)
"""How long a tombstone stays after the last link acknowledged it, for `fedsync trace`."""
GONE = ("deleted", "moved")
AT_ONCE = 500
"""Keys that one statement names."""


@dataclass(frozen=True)
class Tombstone:
    """One thing that happened to a record at a node, for one link to act on. See `ledger.schema.tombstone`."""

    dataset: str
    region: str
    key: str
    link_id: str
    kind: str
    destination: str | None
    fps: str | None
    by_link: str
    at: datetime
    acknowledged: datetime | None


class Tombstones:
    """Writing, reading and acknowledging tombstones; all inside the caller's transaction."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def owed(self, link_id: str, region: str) -> list[Tombstone]:
        """What this link has yet to act on at one of its ends."""
        mine = select(table).where(table.c.link_id == link_id, table.c.region == region, table.c.acknowledged.is_(None))
        with self.ledger.transaction() as connection:
            return [Tombstone(**row) for row in rows(connection, mine)]

    def about(self, dataset: str, key: str) -> list[Tombstone]:
        """Everything that is remembered of one record."""
        with self.ledger.transaction() as connection:
            statement = select(table).where(table.c.dataset == dataset, table.c.key == key).order_by(table.c.at)
            return [Tombstone(**row) for row in rows(connection, statement)]

    def place(self, connection: Connection, stones: Iterable[Tombstone]) -> None:
        """Enter tombstones; one at the same node for the same link is replaced."""
        for part in chunks(list(stones), 200):
            for stone in part:
                self._drop(connection, stone.dataset, stone.region, [stone.key], stone.link_id)
            connection.execute(insert(table), [vars(stone) for stone in part])

    def acknowledge(self, connection: Connection, link_id: str, keys: Sequence[str]) -> None:
        """Note that this link has acted on whatever it owed for these keys, at either end."""
        now = self.ledger.clock()
        for part in chunks(list(keys), AT_ONCE):
            connection.execute(
                update(table)
                .where(table.c.link_id == link_id, table.c.key.in_(part), table.c.acknowledged.is_(None))
                .values(acknowledged=now)
            )

    def returned(self, connection: Connection, dataset: str, region: str, back: Callable[[pa.Array], pa.Array]) -> None:
        """Records stand at a node again: what is still owed becomes `arrived`, the rest is over. `back`: tells which of these keys do; it is
        asked only if any was ever removed there.

        Nothing is owed by the link of the very region that a record had gone to: it went because the region table had that region elsewhere,
        or nowhere, for a while, and never left the region itself.
        """
        there = (table.c.dataset == dataset) & (table.c.region == region) & table.c.kind.in_(GONE)
        keys = pa.array(connection.scalars(select(table.c.key).where(there).distinct()).all(), pa.string())
        keys = back(keys) if len(keys) else keys
        for part in chunks(keys.to_pylist(), AT_ONCE):
            gone = there & table.c.key.in_(part)
            stayed = table.c.link_id == literal(f"{dataset}/") + table.c.destination
            connection.execute(delete(table).where(gone, or_(table.c.acknowledged.is_not(None), stayed)))
            connection.execute(update(table).where(gone).values(kind="arrived"))

    def hand_on(self, connection: Connection, link_id: str, old: str, new: str, keys: Sequence[str]) -> None:
        """A link has another upper end: what it owes for these keys at the `old` one it owes at the `new` one; the rest is over."""
        mine = (table.c.link_id == link_id) & (table.c.region == old) & table.c.acknowledged.is_(None)
        for part in chunks(list(keys), AT_ONCE):
            connection.execute(
                delete(table).where(table.c.link_id == link_id, table.c.region == new, table.c.key.in_(part))
            )
            connection.execute(update(table).where(mine, table.c.key.in_(part)).values(region=new))
        connection.execute(delete(table).where(mine))

    def purge(self, connection: Connection) -> None:
        """Forget what every link acknowledged long ago."""
        connection.execute(delete(table).where(table.c.acknowledged < self.ledger.clock() - KEPT))

    def _drop(self, connection: Connection, dataset: str, region: str, keys: Sequence[str], link_id: str) -> None:
        connection.execute(
            delete(table).where(
                table.c.dataset == dataset,
                table.c.region == region,
                table.c.key.in_(keys),
                table.c.link_id == link_id,
            )
        )


def as_table(stones: Sequence[Tombstone], groups: Sequence[str]) -> pa.Table:
    """key, kind, destination and fp_<group> of tombstones, for joining."""
    schema = pa.schema(
        [
            ("key", pa.string()),
            ("kind", pa.string()),
            ("destination", pa.string()),
            *((f"fp_{g}", pa.binary()) for g in groups),
        ]
    )
    lines = []
    for stone in stones:
        fps = json.loads(stone.fps or "{}")
        held = {f"fp_{g}": bytes.fromhex(fps[g]) if fps.get(g) else None for g in groups}
        lines.append({"key": stone.key, "kind": stone.kind, "destination": stone.destination, **held})
    return pa.Table.from_pylist(lines, schema=schema)
