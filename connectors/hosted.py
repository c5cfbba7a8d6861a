"""Hosted records: the engine's own table, for a region that has no system, or for the columns that its system lacks.

One table serves all nodes of a federation: a record is its key and a JSON text of the fields that the node holds, so that a new
field or dataset needs no migration. Each write takes the node's next number, deletions leave a marker with theirs: reading what
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
    insert,
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
from connectors.sql_database import Database, open_database
from connectors.sql_errors import driver_errors
from federation.canonical import conform, key_column, key_table
from federation.errors import Conflict

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


class HostedOptions(Options):
    """`url`: the database of hosted records. `part`: `all` fields of a node, or the `companion` of a system that lacks some."""

    url: str
    part: Literal["all", "companion"] = "all"


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

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities("log", conditional=True)

    def probe(self) -> Probe:
        with self._reading() as connection:
            position = self._position(connection)
        return Probe(str(position), f"hosted, {position.seq} changes so far")

    def prepare(self) -> None:
        with self._errors():
            self._database.make()
            with self._database.creating() as connection:
                metadata.create_all(connection)
                if connection.execute(select(nodes.c.seq).where(self._mine(nodes))).first() is None:
                    connection.execute(insert(nodes).values(**self._me, epoch=secrets.token_hex(8), seq=0))

    def changes(self, since: str | None, *, sweep: bool = True) -> Changes:
        with self._reading() as connection:
            position = self._position(connection)
            known = Position.parse(since)
            floor = known.seq if known is not None and known.epoch == position.epoch else None
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

    def edit(self, raw: pa.Table) -> pa.Table:
        """Write rows that people typed (columns named after fields; only those are touched). The rejects, with reasons."""
        names = [name for name in self.node.fields if name in raw.column_names]
        typed = conform(raw, self.node.dataset, names, timezone=self.node.timezone)
        self.apply(Batch((typed.rows,), no_keys(self.node)))
        return typed.rejects

    def remove(self, keys: pa.Table) -> None:
        """Delete records by key, as people do."""
        self.apply(Batch((), keys))

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

    def _rows(self, connection: Connection, *conditions: Any) -> dict[str, str]:
        chosen = select(records.c.record_key, records.c.payload).where(self._mine(records), *conditions)
        return {found.record_key: found.payload for found in connection.execute(chosen)}

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
            held.update({key: (payload, deleted) for key, payload, deleted in connection.execute(chosen)})
        known: list[dict[str, Any]] = []
        new: list[dict[str, Any]] = []
        for key, values in wanted:
            payload, deleted = held.get(key, ("{}", True))
            before = {} if deleted else json.loads(payload)
            after = json.dumps({**before, **values}, ensure_ascii=False, sort_keys=True)
            if deleted or after != payload:
                (known if key in held else new).append({"k": key, "p": after, "s": seq, "d": False})
        known += [{"k": key, "p": "{}", "s": seq, "d": True} for key in gone if not held.get(key, ("", True))[1]]
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


def _text(value: Any) -> str | None:
    """A typed value as text that `conform` reads back as the same value."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    return format(value, "f") if isinstance(value, Decimal) else repr(value)
