"""Quarantine (隔离): records that a gate, or a reader, set aside, with the reason, encrypted, until a good version comes."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, select, update

from federation import canonical
from federation.config import Link
from federation.contract import Dataset
from federation.errors import FedsyncError
from federation.ledger.schema import quarantine as table
from federation.ledger.store import Ledger, rows
from federation.reading import KEY, Reading
from federation.regions import Region
from federation.secrets import Keyring

OPEN = ("open", "replay")


@dataclass(frozen=True)
class Fault:
    """A record to set aside. `link_id`: the link (or node) that found it; `origin`: the region whose people can mend it.

    `payload`: the record, which also identifies the version, so that seeing it again changes nothing.
    """

    link_id: str
    dataset: str
    direction: str
    origin: str
    key: str
    field: str | None
    rule: str
    reason_zh: str
    reason_en: str
    payload: dict[str, Any]


@dataclass(frozen=True)
class Item:
    """One row of the ledger's `quarantine` table; the payload stays sealed until asked for."""

    item_id: str
    link_id: str
    dataset: str
    direction: str
    origin: str
    key: str
    field: str | None
    rule: str
    payload: bytes
    first_seen: datetime
    last_seen: datetime
    state: str
    closed: datetime | None


@dataclass(frozen=True)
class Opened:
    """What an item sealed: the record as it was, and why it was set aside. For people's eyes only."""

    record: dict[str, Any]
    reason_zh: str
    reason_en: str


class Quarantine:
    """Records set aside."""

    def __init__(self, ledger: Ledger, keyring: Keyring) -> None:
        self.ledger = ledger
        self._keyring = keyring

    def item_id(self, fault: Fault) -> str:
        """Stable for the same version of the same record at the same place."""
        return self._keyring.identify(fault.link_id, fault.direction, fault.key, fault.rule, _json(fault.payload))

    def record(self, connection: Connection, faults: Iterable[Fault]) -> set[str]:
        """Enter faults inside the settling transaction; one that is already open is only seen again. Returns their ids."""
        now = self.ledger.clock()
        entered = set()
        for fault in faults:
            item_id = self.item_id(fault)
            entered.add(item_id)
            seen = update(table).where(table.c.item_id == item_id).values(last_seen=now, state="open", closed=None)
            if connection.execute(seen).rowcount:
                continue
            sealed = _json({"record": fault.payload, "zh": fault.reason_zh, "en": fault.reason_en})
            names = ("link_id", "dataset", "direction", "origin", "key", "field", "rule")
            values = {name: getattr(fault, name) for name in names}
            payload = self._keyring.encrypt(sealed.encode(), item_id)
            connection.execute(
                table.insert().values(
                    **values, item_id=item_id, payload=payload, first_seen=now, last_seen=now, state="open"
                )
            )
        return entered

    def release(
        self, connection: Connection, link_id: str, direction: str, keys: Collection[str] | None, still: Collection[str]
    ) -> int:
        """Close what a link (or node) holds in a direction, for these keys (None: all), except the items in `still`."""
        held = rows(
            connection,
            select(table.c.item_id, table.c.key).where(
                table.c.link_id == link_id, table.c.direction == direction, table.c.state.in_(OPEN)
            ),
        )
        done = [row["item_id"] for row in held if row["item_id"] not in still and (keys is None or row["key"] in keys)]
        for item_id in done:
            connection.execute(
                update(table).where(table.c.item_id == item_id).values(state="released", closed=self.ledger.clock())
            )
        return len(done)

    def record_run(
        self,
        connection: Connection,
        link: Link,
        dataset: Dataset,
        upper: Reading,
        lower: Reading,
        faults: list[Fault],
        unreadable: list[Fault],
    ) -> int:
        """Enter what one link run set aside, and close what it found mended; returns how many were closed."""
        still = self.record(connection, [*faults, *unreadable])
        return (
            self.release(connection, link.id, "down", _seen(upper), still)
            + self.release(connection, link.id, "up", _seen(lower), still)
            + self.release_read(connection, dataset, link.lower, lower, still)
        )

    def release_read(
        self, connection: Connection, dataset: Dataset, region: Region, reading: Reading, still: Collection[str]
    ) -> int:
        """Close the rows of a node that could not be read before and now can."""
        return self.release(connection, f"{dataset.name}/{region.code}", "read", _seen(reading), still)

    def returns(self, items: Collection[Item], dataset: Dataset) -> pa.Table:
        """Items as a table of returns (退回): key columns + `canonical.REJECTS`, for `Connector.notify`."""
        schema = canonical.reject_schema(dataset)
        keys = (
            canonical.key_table([None if item.rule == "key:missing" else item.key for item in items], dataset)
            if items
            else None
        )
        if keys is None:
            return schema.empty_table()
        lines = []
        for item in items:
            opened = self.open(item)
            value = opened.record.get(item.field or "", opened.record.get("value"))
            lines.append(
                {
                    "locator": opened.record.get("locator"),
                    "field": item.field,
                    "value": None if value is None else str(value),
                    "rule": item.rule,
                    "reason_zh": opened.reason_zh,
                    "reason_en": opened.reason_en,
                }
            )
        beside = pa.Table.from_pylist(lines, schema=canonical.REJECTS)
        for name in beside.column_names:
            keys = keys.append_column(name, beside.column(name))
        return keys.cast(schema)

    def open_items(
        self,
        *,
        dataset: str | None = None,
        link_id: str | None = None,
        origin: str | None = None,
        state: str | None = None,
    ) -> list[Item]:
        """What is set aside now, oldest first."""
        statement = (
            select(table)
            .where(table.c.state.in_(OPEN if state is None else (state,)))
            .order_by(table.c.first_seen, table.c.item_id)
        )
        for column, value in ((table.c.dataset, dataset), (table.c.link_id, link_id), (table.c.origin, origin)):
            if value is not None:
                statement = statement.where(column == value)
        with self.ledger.transaction() as connection:
            return [Item(**row) for row in rows(connection, statement)]

    def find(self, prefix: str) -> Item:
        """The item whose id begins with `prefix`. Raises FedsyncError if there is none, or more than one."""
        with self.ledger.transaction() as connection:
            found = rows(connection, select(table).where(table.c.item_id.startswith(prefix, autoescape=True)).limit(2))
        if len(found) != 1:
            how = "no item" if not found else "more than one item"
            raise FedsyncError(
                f"{how} begins with {prefix!r}", "隔离编号不存在或不唯一", todo="fedsync quarantine list", key=prefix
            )
        return Item(**found[0])

    def open(self, item: Item) -> Opened:
        """Unseal an item."""
        held = json.loads(self._keyring.decrypt(item.payload, item.item_id))
        return Opened(held["record"], held["zh"], held["en"])

    def replay(self, item: Item, actor: str) -> None:
        """Ask the link's next run to read this record again and to judge it anew."""
        with self.ledger.transaction() as connection:
            connection.execute(
                update(table).where(table.c.item_id == item.item_id, table.c.state == "open").values(state="replay")
            )
            self.ledger.audit(connection, actor, "quarantine.replay", item.item_id)


def _seen(reading: Reading) -> set[str] | None:
    """The keys that a reading speaks of; None: all."""
    if reading.complete:
        return None
    gone = set(reading.deleted.to_pylist())
    return gone | set(reading.rows.column(KEY).to_pylist()) | set(reading.rejects.column(KEY).to_pylist())


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
