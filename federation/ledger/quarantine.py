"""Quarantine (隔离): records that a gate, or a reader, set aside, with the reason, encrypted, until a good version comes."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, or_, select, update

from federation.config import Link
from federation.contract import Dataset
from federation.errors import FedsyncError
from federation.ledger.schema import quarantine as table
from federation.ledger.store import Ledger, chunks, rows
from federation.reading import KEY, Reading
from federation.regions import Region
from federation.secrets import Keyring

OPEN = ("open", "replay")
PURGED = ("内容已超过保存期限，已清除", "its content is past its retention and was emptied")
"""What stands for the reason of an item whose payload was purged."""
NOWHERE = "nowhere"
"""`Item.shown` of an origin whose system has no place for returns."""

_ENDED = and_(table.c.state.not_in(OPEN), table.c.shown.in_(OPEN))
"""Shown to people, and closed since."""
_UNTOLD = or_(
    _ENDED,
    and_(
        table.c.state.in_(OPEN),
        or_(table.c.shown.is_(None), and_(table.c.shown != table.c.state, table.c.shown != NOWHERE)),
    ),
)


@dataclass(frozen=True)
class Fault:
    """A record to set aside. `link_id`: the link (or node) that found it; `origin`: the region whose people can mend it.

    `payload`: the record, which also identifies the version, so that seeing it again changes nothing. `fields`: what the reason may quote.
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
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Item:
    """One row of the ledger's `quarantine` table; the payload stays sealed until asked for.

    `state`: `open`; `replay`, to be judged anew; `released`, by a good version; `closed`, by a person. `closed`: when it ended.
    """

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
    shown: str | None

    @property
    def where(self) -> dict[str, str]:
        """What an error about it names."""
        return {"dataset": self.dataset, "link": self.link_id, "key": self.key}


@dataclass(frozen=True)
class Opened:
    """What an item sealed: the record as it was, and why it was set aside, in words that may quote `fields`. For people's eyes only."""

    record: dict[str, Any]
    reason_zh: str
    reason_en: str
    fields: tuple[str, ...]


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
            full = (table.c.item_id == item_id, table.c.payload != b"")
            seen = update(table).where(*full).values(last_seen=now, state="open", closed=None)
            if connection.execute(seen).rowcount:
                continue
            sealed = _json(
                {"record": fault.payload, "zh": fault.reason_zh, "en": fault.reason_en, "fields": fault.fields}
            )
            names = ("link_id", "dataset", "direction", "origin", "key", "field", "rule")
            values = {name: getattr(fault, name) for name in names}
            payload = self._keyring.encrypt(sealed.encode(), item_id)
            purged = update(table).where(table.c.item_id == item_id)
            if connection.execute(purged.values(payload=payload, last_seen=now, state="open", closed=None)).rowcount:
                continue
            connection.execute(
                table.insert().values(
                    **values, item_id=item_id, payload=payload, first_seen=now, last_seen=now, state="open"
                )
            )
        return entered

    def release(
        self, connection: Connection, link_id: str, direction: str, reading: Reading, still: Collection[str]
    ) -> int:
        """Close what a link (or node) holds in a direction, of the records that a reading speaks of, except the items in `still`."""
        held = rows(
            connection,
            select(table.c.item_id, table.c.key).where(
                table.c.link_id == link_id, table.c.direction == direction, table.c.state.in_(OPEN)
            ),
        )
        spoken = _spoken(reading, {row["key"] for row in held})
        done = [row["item_id"] for row in held if row["item_id"] not in still and row["key"] in spoken]
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
            self.release(connection, link.id, "down", upper, still)
            + self.release(connection, link.id, "up", lower, still)
            + self.release_read(connection, dataset, link.lower, lower, still)
        )

    def release_read(
        self, connection: Connection, dataset: Dataset, region: Region, reading: Reading, still: Collection[str]
    ) -> int:
        """Close the rows of a node that could not be read before and now can."""
        return self.release(connection, f"{dataset.name}/{region.code}", "read", reading, still)

    def returned_to(self, dataset: str, origin: str) -> list[Item]:
        """What the people of a region are to be told, oldest first: all that stands, and what was shown to them and has ended since."""
        mine = and_(table.c.dataset == dataset, table.c.origin == origin, or_(table.c.state.in_(OPEN), _ENDED))
        with self.ledger.transaction() as connection:
            found = rows(connection, select(table).where(mine).order_by(table.c.first_seen, table.c.item_id))
        return [Item(**row) for row in found]

    def untold(self, dataset: str) -> set[str]:
        """The regions whose people do not know yet how their returns stand."""
        statement = select(table.c.origin).where(table.c.dataset == dataset, _UNTOLD).distinct()
        with self.ledger.transaction() as connection:
            return {row["origin"] for row in rows(connection, statement)}

    def told(self, items: Collection[Item], *, shown: bool) -> None:
        """Note that the origin was told these; `shown`: whether it has a place for them."""
        news: dict[str, list[str]] = {}
        for item in items:
            state = "closed" if item.state not in OPEN else item.state if shown else NOWHERE
            if item.shown != state:
                news.setdefault(state, []).append(item.item_id)
        if not news:
            return
        with self.ledger.transaction() as connection:
            for state, ids in news.items():
                for part in chunks(ids, 500):
                    connection.execute(update(table).where(table.c.item_id.in_(part)).values(shown=state))

    def open_items(
        self,
        *,
        dataset: str | None = None,
        link_id: str | None = None,
        origin: str | None = None,
        key: str | None = None,
        state: str | None = None,
    ) -> list[Item]:
        """What is set aside now, oldest first."""
        statement = (
            select(table)
            .where(table.c.state.in_(OPEN if state is None else (state,)))
            .order_by(table.c.first_seen, table.c.item_id)
        )
        wanted = {"dataset": dataset, "link_id": link_id, "origin": origin, "key": key}
        for name, value in wanted.items():
            if value is not None:
                statement = statement.where(table.c[name] == value)
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
        """Unseal an item; of one whose payload was purged, nothing is left."""
        if not item.payload:
            return Opened({}, *PURGED, ())
        held = json.loads(self._keyring.decrypt(item.payload, item.item_id))
        return Opened(held["record"], held["zh"], held["en"], tuple(held.get("fields") or _fields_of(item)))

    def replay(self, item: Item, actor: str) -> None:
        """Ask the link's next run to read this record again and to judge it anew. Raises FedsyncError if it is set aside no more."""
        must_be_open(item)
        with self.ledger.transaction() as connection:
            self.ask_again(connection, item)
            self.ledger.audit(connection, actor, "quarantine.replay", item.item_id)

    def ask_again(self, connection: Connection, item: Item) -> None:
        """The same, inside the caller's transaction."""
        connection.execute(
            update(table).where(table.c.item_id == item.item_id, table.c.state == "open").values(state="replay")
        )

    def close(self, connection: Connection, item: Item) -> None:
        """End an item by a person's word."""
        mine = (table.c.item_id == item.item_id, table.c.state.in_(OPEN))
        connection.execute(update(table).where(*mine).values(state="closed", closed=self.ledger.clock()))

    def datasets(self) -> list[str]:
        """The datasets of which content is kept, those that are no longer declared included."""
        statement = select(table.c.dataset).where(table.c.payload != b"").distinct().order_by(table.c.dataset)
        with self.ledger.transaction() as connection:
            return [row["dataset"] for row in rows(connection, statement)]

    def purge(self, connection: Connection, dataset: str, before: datetime) -> int:
        """Empty the payloads of what was last seen before then (its line stays); returns how many."""
        old = (table.c.dataset == dataset, table.c.last_seen < before, table.c.payload != b"")
        return connection.execute(update(table).where(*old).values(payload=b"")).rowcount


def must_be_open(item: Item) -> None:
    """Raise FedsyncError for a record that is set aside no more."""
    if item.state not in OPEN:
        raise FedsyncError(
            f"the record is {item.state}, and set aside no more",
            "该记录已不在隔离中",
            todo="fedsync quarantine list",
            **item.where,
        )


def _spoken(reading: Reading, keys: set[str]) -> set[str]:
    """Which of these records a reading speaks of: it has them, or shows that the node does not."""
    if reading.complete or not keys:
        return keys
    read = set(reading.rows.column(KEY).to_pylist()) | set(reading.rejects.column(KEY).to_pylist())
    return (keys & (read | set(reading.deleted.to_pylist()))) | reading.absent(keys)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _fields_of(item: Item) -> list[str]:
    """Of an item that was sealed before the fields of its reason were."""
    return [item.field] if item.field else []
