"""Hosted records: the engine's own table, for a region that has no system, or for the columns that its system lacks.

One table serves all nodes of a federation: a record is its key and a JSON text of the fields that the node holds, so that a new
field or dataset needs no migration. The text is sealed (`connectors.hosted_seal`); the key is not: it is opaque by contract, and the
ledger holds the same one. Each write takes the node's next number, deletions leave a marker with theirs: reading what
changed since a number misses nothing, and a write decided on an older number is refused. The numbers carry the table's own name
(`epoch`): a database that was lost and made anew is not taken for the old one.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    MetaData,
    String,
    Table,
    Text,
    and_,
    bindparam,
    func,
    insert,
    inspect,
    select,
    update,
)

from connectors.base import (
    Applied,
    Batch,
    Capabilities,
    Changes,
    Connector,
    Node,
    Options,
    Probe,
    changes_of,
    fetched,
    no_keys,
)
from connectors.desk import standing
from connectors.findings import Finding, reached, strategy
from connectors.hosted_seal import Seal
from connectors.sql_database import Database, open_database, place_of
from connectors.sql_errors import driver_errors
from federation.canonical import conform, key_column, key_table
from federation.errors import Conflict, Permanent, SchemaMismatch, located

KEYS_AT_ONCE = 400
_KEY = Text().with_variant(String(190), "mysql", "mariadb")
metadata = MetaData()


def _whose() -> list[Column[Any]]:
    return [
        Column("dataset", String(63), primary_key=True),
        Column("region", String(12), primary_key=True),
        Column("part", String(10), primary_key=True),
    ]


nodes = Table(
    "hosted_node",
    metadata,
    *_whose(),
    Column("epoch", String(16), nullable=False),
    Column("seq", BigInteger, nullable=False),
)
records = Table(
    "hosted_record",
    metadata,
    *_whose(),
    Column("record_key", _KEY, primary_key=True),
    Column("payload", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("deleted", Boolean, nullable=False),
)
returns = Table(
    "hosted_return",
    metadata,
    *_whose(),
    Column("return_id", String(32), primary_key=True),
    Column("payload", Text, nullable=False),
)
"""What was handed back to people without a system, sealed: a reason may quote the record."""


def renewed(connection: Connection) -> None:
    """An older copy was put in the place of the hosted records: begin another life, so that no position of before is taken for ours."""
    for whose in connection.execute(select(nodes.c.dataset, nodes.c.region, nodes.c.part)).mappings().all():
        one = and_(*(nodes.c[name] == value for name, value in whose.items()))
        connection.execute(update(nodes).where(one).values(epoch=secrets.token_hex(8)))


class HostedOptions(Options):
    """`url`: the database of hosted records. `part`: `all` fields of a node, or the `companion` of a system that lacks some.

    `keys`: what they are sealed with, 32 bytes each, newest first.
    """

    url: str
    part: Literal["all", "companion"] = "all"
    keys: tuple[bytes, ...] = Field(min_length=1, repr=False)


@dataclass(frozen=True)
class Position:
    """How far a node's records have come: a number within one life (`epoch`) of the table."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"

    @classmethod
    def parse(cls, cursor: str | None) -> Position | None:
        """The inverse of `str`; None if it is not one of ours."""
        epoch, _, seq = (cursor or "").rpartition(":")
        return cls(epoch, int(seq)) if epoch and seq.isdigit() else None


class HostedConnector(Connector):
    """See the module. Besides the connector's contract, `edit` and `remove` are the hands of people without a system."""

    options_model = HostedOptions

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.options = HostedOptions.model_validate(node.options)
        self._me = {"dataset": node.dataset.name, "region": node.region.code, "part": self.options.part}
        self._seal = Seal(self.options.keys)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities("log", conditional=True, returns=self.whole)

    @property
    def place(self) -> str | None:
        return place_of(self.options.url)

    def probe(self) -> Probe:
        with self._reading() as connection:
            position = self._position(connection)
        return Probe(str(position), f"hosted, {position.seq} changes so far")

    def inspect(self) -> Sequence[Finding]:
        try:
            return super().inspect()
        except SchemaMismatch:  # the table is the engine's own, and made with the first sync
            return (
                *reached("首次同步时建立 / made with the first sync"),
                *strategy(self.capabilities, self.node.dataset),
            )

    def prepare(self) -> tuple[str, ...]:
        with self._errors():
            self._database.make()
            with self._database.creating() as connection:
                metadata.create_all(connection)
                if connection.execute(select(nodes.c.seq).where(self._mine(nodes))).first() is not None:
                    return ()
                connection.execute(insert(nodes).values(**self._me, epoch=secrets.token_hex(8), seq=0))
        return ("托管 hosted by the engine",)

    def changes(self, since: str | None, *, sweep: bool = True) -> Changes:
        with self._reading() as connection:
            position = self._position(connection)
            known = Position.parse(since)
            floor = known.seq if known is not None and known.epoch == position.epoch else None
            if floor is not None and floor > position.seq:
                raise self._gone_back(floor, position.seq)
            live = self._rows(connection, ~records.c.deleted, *([] if floor is None else [records.c.seq > floor]))
            gone = [] if floor is None else self._keys(connection, records.c.deleted, records.c.seq > floor)
            every = self._keys(connection, ~records.c.deleted) if sweep else None
        found = changes_of(self.node, self._raw(live), present=False, cursor=str(position))
        dataset = self.node.dataset
        return Changes(
            found.rows,
            found.rejects,
            key_table(gone, dataset) if gone else no_keys(self.node),
            None if every is None else key_table(every, dataset),
            str(position),
        )

    def fetch(self, keys: pa.Table) -> Changes:
        wanted = key_column(keys, self.node.dataset).to_pylist()
        with self._reading() as connection:
            found: dict[str, str] = {}
            for chunk in _chunks(wanted):
                found.update(self._rows(connection, ~records.c.deleted, records.c.record_key.in_(chunk)))
        return fetched(self.node, changes_of(self.node, self._raw(found), present=False, cursor=None), keys)

    def apply(self, batch: Batch) -> Applied:
        wanted = [row for rows in batch.upserts for row in self._texts(rows)]
        gone = key_column(batch.deletes, self.node.dataset).to_pylist()
        with self._writing() as connection:
            position = self._locked(connection)
            alone = str(position) in (batch.cursor, batch.token)
            if batch.cursor is not None and batch.cursor != str(position):
                raise Conflict(
                    "hosted records changed since they were read",
                    "托管数据在读取后已变化",
                    todo="将重新读取并合并 / they are read and merged again",
                    dataset=self.node.dataset.name,
                    region=str(self.node.region),
                    system=self.node.system,
                )
            if self._store(connection, wanted, gone, position.seq + 1):
                position = Position(position.epoch, position.seq + 1)
                connection.execute(update(nodes).where(self._mine(nodes)).values(seq=position.seq))
        return Applied(len(wanted), len(gone), str(position), str(position) if alone else None)

    def show_returns(self, returned: pa.Table) -> None:
        lines = {line["return_id"]: _shown(line) for line in standing(returned).to_pylist()}
        with self._writing() as connection:
            returns.create(connection, checkfirst=True)  # a table of hosted records may be older than returns
            held = dict(self._returned(connection))
            if held == lines:
                return
            connection.execute(returns.delete().where(self._mine(returns)))
            if lines:
                sealed = [{"return_id": one, "payload": self._closed(one, text)} for one, text in lines.items()]
                connection.execute(insert(returns), [{**self._me, **line} for line in sealed])

    def returned(self) -> list[dict[str, Any]]:
        """The returns that people are to mend, the oldest first: the key by field name, and the texts of `returns_schema`."""
        with self._reading() as connection:
            there = inspect(connection).has_table(returns.name)
            found = [json.loads(text) for _, text in self._returned(connection)] if there else []
        return sorted(found, key=lambda line: (line["since"] or "", line["return_id"]))

    def _returned(self, connection: Connection) -> list[tuple[str, str]]:
        """Return id and JSON text of each."""
        chosen = select(returns.c.return_id, returns.c.payload).where(self._mine(returns)).order_by(returns.c.return_id)
        return [(name, self._opened(name, sealed)) for name, sealed in connection.execute(chosen).all()]

    @property
    def whole(self) -> bool:
        """Whether it keeps records, and not just the fields that a system lacks."""
        return self.options.part == "all"

    def edit(self, raw: pa.Table) -> pa.Table:
        """Write rows that people typed (columns named after fields; only those are touched). The rejects, with reasons."""
        names = [name for name in self.node.fields if name in raw.column_names]
        typed = conform(raw, self.node.dataset, names, timezone=self.node.timezone)
        self.apply(Batch((typed.rows,), no_keys(self.node)))
        return typed.rejects

    def remove(self, keys: pa.Table) -> None:
        """Delete records by key, as people do."""
        self.apply(Batch((), keys))

    def erase(self, keys: pa.Table) -> None:
        """Delete records and the markers of their deletion. Only once whoever reads what changed here has heard of it."""
        self.remove(keys)
        with self._writing() as connection:
            for chunk in _chunks(key_column(keys, self.node.dataset).to_pylist()):
                mine = self._mine(records) & records.c.record_key.in_(chunk)
                connection.execute(records.delete().where(mine, records.c.deleted))

    def made(self) -> bool:
        """Whether anything was ever kept here."""
        try:
            with self._reading() as connection:
                chosen = select(records.c.record_key).where(self._mine(records)).limit(1)
                return connection.execute(chosen).first() is not None
        except SchemaMismatch:
            return False

    def live(self) -> int:
        """How many records there are; 0 if nothing was ever hosted here."""
        counted = select(func.count()).select_from(records).where(self._mine(records), ~records.c.deleted)
        try:
            with self._reading() as connection:
                return int(connection.execute(counted).scalar_one())
        except SchemaMismatch:
            return 0

    def rekey(self) -> int:
        """Seal with the newest key what an older one, or none, sealed; how many records that were. No news to anybody."""
        with self._writing() as connection:
            self._locked(connection)
            chosen = select(records.c.record_key, records.c.payload).where(self._mine(records), ~records.c.deleted)
            old = [(key, text) for key, text in connection.execute(chosen).all() if not self._seal.is_newest(text)]
            fresh = [{"k": key, "p": self._closed(key, self._opened(key, text))} for key, text in old]
            if fresh:
                same = and_(self._mine(records), records.c.record_key == bindparam("k"))
                connection.execute(update(records).where(same).values(payload=bindparam("p")), fresh)
            if inspect(connection).has_table(returns.name):
                for name, text in self._returned(connection):
                    one = and_(self._mine(returns), returns.c.return_id == name)
                    connection.execute(update(returns).where(one).values(payload=self._closed(name, text)))
        return len(fresh)

    # --- the database

    @cached_property
    def _database(self) -> Database:
        return open_database(self.options.url)

    def _errors(self) -> Any:
        return driver_errors(self.node, records.name)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._errors(), self._database.reading() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._errors(), self._database.writing() as connection:
            yield connection

    def _mine(self, table: Table) -> Any:
        return and_(*(table.c[name] == value for name, value in self._me.items()))

    def _position(self, connection: Connection) -> Position:
        found = connection.execute(select(nodes.c.epoch, nodes.c.seq).where(self._mine(nodes))).first()
        return Position("new", 0) if found is None else Position(found.epoch, found.seq)

    def _locked(self, connection: Connection) -> Position:
        """The position, which nobody else can move until the transaction ends."""
        found = connection.execute(
            select(nodes.c.epoch, nodes.c.seq).where(self._mine(nodes)).with_for_update()
        ).first()
        if found is not None:
            return Position(found.epoch, found.seq)
        fresh = Position(secrets.token_hex(8), 0)
        connection.execute(insert(nodes).values(**self._me, epoch=fresh.epoch, seq=0))
        return fresh

    # --- records

    def _gone_back(self, known: int, now: int) -> Permanent:
        return Permanent(
            f"the hosted records stand at change {now}, but {known} were read already: an older copy was put in their place",
            "托管数据库被换成了较旧的副本",
            todo="连同台账一起恢复同一备份 / restore the ledger from the same backup with them: fedsync restore --hosted",
            dataset=self.node.dataset.name,
            region=str(self.node.region),
            system=self.node.system,
        )

    def _place(self, key: str) -> str:
        return json.dumps([*self._me.values(), key])

    def _closed(self, key: str, text: str) -> str:
        return self._seal.close(text, self._place(key))

    def _opened(self, key: str, sealed: str) -> str:
        where = {"dataset": self.node.dataset.name, "region": str(self.node.region), "system": self.node.system}
        with located(**where, key=key):
            return self._seal.open(sealed, self._place(key))

    def _rows(self, connection: Connection, *conditions: Any) -> dict[str, str]:
        """Key → its JSON text."""
        chosen = select(records.c.record_key, records.c.payload).where(self._mine(records), *conditions)
        found = connection.execute(
            chosen
        ).all()  # all of it: a record that cannot be opened must not leave a cursor open
        return {key: self._opened(key, sealed) for key, sealed in found}

    def _keys(self, connection: Connection, *conditions: Any) -> list[str]:
        chosen = select(records.c.record_key).where(self._mine(records), *conditions)
        return list(connection.execute(chosen).scalars())

    def _texts(self, rows: pa.Table) -> list[tuple[str, dict[str, str | None]]]:
        """Each row's key and its other fields as text. Row by row: a hosted node holds one region's records."""
        keys = self.node.dataset.key
        others = rows.select([name for name in rows.column_names if name not in keys])
        texts = others.to_pylist() if others.num_columns else [{} for _ in range(rows.num_rows)]
        return [
            (key, {name: _text(value) for name, value in row.items()})
            for key, row in zip(key_column(rows, self.node.dataset).to_pylist(), texts)
        ]

    def _store(
        self,
        connection: Connection,
        wanted: Sequence[tuple[str, Mapping[str, str | None]]],
        gone: Sequence[str],
        seq: int,
    ) -> bool:
        """Write what differs from what is held, under the number `seq`; whether anything did."""
        held: dict[str, tuple[str, bool]] = {}
        for chunk in _chunks([key for key, _ in wanted] + list(gone)):
            chosen = select(records.c.record_key, records.c.payload, records.c.deleted).where(
                self._mine(records), records.c.record_key.in_(chunk)
            )
            held.update({key: (payload, deleted) for key, payload, deleted in connection.execute(chosen).all()})
        known: list[dict[str, Any]] = []
        new: list[dict[str, Any]] = []
        for key, values in wanted:
            sealed, deleted = held.get(key, ("", True))
            before = {} if deleted else json.loads(self._opened(key, sealed))
            after = {**before, **values}
            if deleted or after != before:
                text = self._closed(key, json.dumps(after, ensure_ascii=False, sort_keys=True))
                (known if key in held else new).append({"k": key, "p": text, "s": seq, "d": False})
        known += [{"k": key, "p": "", "s": seq, "d": True} for key in gone if not held.get(key, ("", True))[1]]
        if known:
            same = and_(self._mine(records), records.c.record_key == bindparam("k"))
            values_of: dict[str, Any] = {"payload": bindparam("p"), "seq": bindparam("s"), "deleted": bindparam("d")}
            connection.execute(update(records).where(same).values(values_of), known)
        if new:
            fresh = [
                {**self._me, "record_key": row["k"], "payload": row["p"], "seq": seq, "deleted": False} for row in new
            ]
            connection.execute(insert(records), fresh)
        return bool(known or new)

    def _raw(self, payloads: Mapping[str, str]) -> pa.Table:
        """Stored records as a raw table of text. Keys are typed already: they are not normalised a second time."""
        if not payloads:
            return self.node.schema.empty_table()
        values = [json.loads(payload) for payload in payloads.values()]
        others = [name for name in self.node.fields if name not in self.node.dataset.key]
        keys = key_table(list(payloads), self.node.dataset)
        columns = {name: keys.column(name) for name in self.node.dataset.key}
        columns |= {name: pa.array([row.get(name) for row in values], pa.string()) for name in others}
        return pa.table(columns)


def _chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), KEYS_AT_ONCE):
        yield keys[start : start + KEYS_AT_ONCE]


def _shown(line: Mapping[str, Any]) -> str:
    return json.dumps({name: _text(value) for name, value in line.items()}, ensure_ascii=False, sort_keys=True)


def _text(value: Any) -> str | None:
    """A typed value as text that `conform` reads back as the same value."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    return format(value, "f") if isinstance(value, Decimal) else repr(value)
