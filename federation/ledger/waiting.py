"""What a link could not decide, because an end holds something that the link beyond it never agreed on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import pyarrow as pa
from sqlalchemy import Connection, delete, insert, select

from federation.ledger.schema import waiting as table
from federation.ledger.store import Ledger, chunks, rows

SideName = Literal["upper", "lower"]


def mark_of(baselines: Iterable[str | None]) -> str:
    """Changes whenever one of the links beyond an end agrees on something new."""
    return hashlib.sha256("\x1f".join(sorted(text or "" for text in baselines)).encode()).hexdigest()


class Waiting:
    """Keys that wait, by link and end."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def keys(self, link_id: str) -> dict[str, set[str]]:
        """End (`upper`, `lower`) → keys to read again, whether they changed or not."""
        found: dict[str, set[str]] = {"upper": set(), "lower": set()}
        with self.ledger.transaction() as connection:
            for row in rows(connection, select(table.c.side, table.c.key).where(table.c.link_id == link_id)):
                found[row["side"]].add(row["key"])
        return found

    def about(self, dataset: str, key: str) -> list[tuple[str, SideName]]:
        """(link, end) where one record waits."""
        mine = table.c.link_id.startswith(f"{dataset}/", autoescape=True) & (table.c.key == key)
        statement = select(table.c.link_id, table.c.side).where(mine).order_by(table.c.link_id, table.c.side)
        with self.ledger.transaction() as connection:
            return [(row["link_id"], row["side"]) for row in rows(connection, statement)]

    def marks(self) -> dict[tuple[str, SideName], str]:
        """(link, end) → the mark at which something began to wait there."""
        statement = select(table.c.link_id, table.c.side, table.c.mark).distinct()
        with self.ledger.transaction() as connection:
            return {(row["link_id"], row["side"]): row["mark"] for row in rows(connection, statement)}

    def ask(self, link_id: str, key: str) -> None:
        """Have a link's next run read this record anew at both ends, whatever its cursors say."""
        mine = (table.c.link_id == link_id) & (table.c.key == key)
        with self.ledger.transaction() as connection:
            connection.execute(delete(table).where(mine))
            connection.execute(
                insert(table),
                [{"link_id": link_id, "side": side, "key": key, "mark": ""} for side in ("upper", "lower")],
            )

    def replace(self, connection: Connection, link_id: str, waits: pa.Table, marks: Mapping[SideName, str]) -> None:
        """What waits after a run. `waits`: key, side."""
        connection.execute(delete(table).where(table.c.link_id == link_id))
        lines: Sequence[dict[str, str]] = [
            {"link_id": link_id, "side": row["side"], "key": row["key"], "mark": marks[row["side"]]}
            for row in waits.group_by(["key", "side"]).aggregate([]).to_pylist()
        ]
        for part in chunks(list(lines), 500):
            connection.execute(insert(table), part)
