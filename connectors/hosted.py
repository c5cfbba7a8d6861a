"""Hosted records: the engine's own table, for a region that has no system, or for the columns that its system lacks.

One table serves all nodes of a federation: a record is its key and a JSON text of the fields that the node holds, so that a new
field or dataset needs no migration. Each write takes the node's next sequence number, deletions leave a marker with theirs:
reading what changed since a number misses nothing, and a write decided on an older number is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    MetaData,
    String,
    Table,
    Text,
    and_,
    create_engine,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.pool import NullPool

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
from connectors.sql_errors import driver_errors
from connectors.sql_sqlite import configure
from federation.canonical import key_column, key_table
from federation.errors import Conflict

metadata = MetaData()
_NODE = (
    Column("dataset", String(64), primary_key=True),
    Column("region", String(12), primary_key=True),
    Column("part", String(10), primary_key=True),
)
nodes = Table("hosted_node", metadata, *(column._copy() for column in _NODE), Column("seq", BigInteger, nullable=False))
records = Table(
    "hosted_record",
    metadata,
    *(column._copy() for column in _NODE),
    Column("key", String(190), primary_key=True),
    Column("payload", Text, nullable=False),
    Column("seq", BigInteger, nullable=False, index=True),
    Column("deleted", Boolean, nullable=False),
)


class HostedOptions(Options):
    """`url`: the database of hosted records. `part`: `all` fields of a node, or the `companion` of a system that lacks some."""

    url: str
    part: Literal["all", "companion"] = "all"


class HostedConnector(Connector):
    """See the module."""

    options_model = HostedOptions

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.options = HostedOptions.model_validate(node.options)
        self._me = {"dataset": node.dataset.name, "region": node.region.code, "part": self.options.part}

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities("log", conditional=True)

    def probe(self) -> Probe:
        with self._transaction() as connection:
            seq = self._seq(connection)
        return Probe(str(seq), f"hosted, {seq} changes so far")

    def prepare(self) -> None:
        with driver_errors(self.node, records.name):
            try:
                metadata.create_all(self._engine)
            except (OperationalError, ProgrammingError, IntegrityError):
                metadata.create_all(self._engine)  # another process created the tables between our look and our try

    def changes(self, since: str | None, *, sweep: bool = True) -> Changes:
        floor = int(since) if since is not None else -1
        with self._transaction() as connection:
            seq = self._seq(connection)
            found = connection.execute(
                select(records.c.key, records.c.payload, records.c.deleted).where(
                    self._mine(records), records.c.seq > floor
                )
            ).all()
            every = (
                connection.execute(select(records.c.key).where(self._mine(records), ~records.c.deleted)).scalars().all()
                if sweep
                else None
            )
        changes = changes_of(
            self.node,
            self._raw([payload for _, payload, deleted in found if not deleted]),
            present=False,
            cursor=str(seq),
        )
        gone = (
            key_table([key for key, _, deleted in found if deleted], self.node.dataset)
            if since is not None
            else no_keys(self.node)
        )
        present = None if every is None else key_table(every, self.node.dataset)
        return Changes(changes.rows, changes.rejects, gone, present, str(seq))

    def fetch(self, keys: pa.Table) -> Changes:
        wanted = key_column(keys, self.node.dataset).to_pylist()
        payloads: list[str] = []
        with self._transaction() as connection:
            for start in range(0, len(wanted), 400):
                chosen = records.c.key.in_(wanted[start : start + 400])
                payloads += connection.execute(
                    select(records.c.payload).where(self._mine(records), ~records.c.deleted, chosen)
                ).scalars()
        return fetched(self.node, changes_of(self.node, self._raw(payloads), present=False, cursor=None), keys)

    def apply(self, batch: Batch) -> Applied:
        gone = key_column(batch.deletes, self.node.dataset).to_pylist()
        rows = [
            (key, row)
            for part in batch.upserts
            for key, row in zip(key_column(part, self.node.dataset).to_pylist(), part.to_pylist())
        ]
        with self._transaction() as connection:
            seq = self._next(connection, batch.cursor)
            held = self._held(connection, [key for key, _ in rows])
            for key, row in rows:
                self._store(
                    connection, key, {**held.get(key, {}), **{name: _text(value) for name, value in row.items()}}, seq
                )
            for key in gone:
                marker = update(records).where(self._mine(records), records.c.key == key, ~records.c.deleted)
                connection.execute(marker.values(deleted=True, payload="{}", seq=seq))
        return Applied(len(rows), len(gone), str(seq))

    def close(self) -> None:
        if "_engine" in self.__dict__:
            self._engine.dispose()

    @cached_property
    def _engine(self) -> Engine:
        with driver_errors(self.node, records.name):
            engine = create_engine(
                self.options.url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool
            )
            return configure(engine, immediate=True) if engine.dialect.name == "sqlite" else engine

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with driver_errors(self.node, records.name), self._engine.begin() as connection:
            yield connection

    def _mine(self, table: Table) -> Any:
        return and_(*(table.c[name] == value for name, value in self._me.items()))

    def _seq(self, connection: Connection) -> int:
        return int(
            connection.execute(select(func.coalesce(func.max(nodes.c.seq), 0)).where(self._mine(nodes))).scalar_one()
        )

    def _next(self, connection: Connection, decided_on: str | None) -> int:
        """Take the node's next number; its row is locked until the transaction ends. Raises Conflict if it moved on."""
        seq = connection.execute(select(nodes.c.seq).where(self._mine(nodes)).with_for_update()).scalar()
        if decided_on is not None and int(decided_on) != (seq or 0):
            raise Conflict(
                "hosted records changed since they were read", "托管数据在读取后已变化", region=str(self.node.region)
            )
        if seq is None:
            connection.execute(insert(nodes).values(**self._me, seq=1))
            return 1
        connection.execute(update(nodes).where(self._mine(nodes)).values(seq=seq + 1))
        return int(seq) + 1

    def _held(self, connection: Connection, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        held: dict[str, dict[str, Any]] = {}
        for start in range(0, len(keys), 400):
            chosen = records.c.key.in_(keys[start : start + 400])
            for key, payload, deleted in connection.execute(
                select(records.c.key, records.c.payload, records.c.deleted).where(self._mine(records), chosen)
            ):
                held[key] = {} if deleted else json.loads(payload)
        return held

    def _store(self, connection: Connection, key: str, payload: dict[str, Any], seq: int) -> None:
        values = {"payload": json.dumps(payload, ensure_ascii=False, sort_keys=True), "seq": seq, "deleted": False}
        changed = connection.execute(update(records).where(self._mine(records), records.c.key == key).values(**values))
        if not changed.rowcount:
            connection.execute(insert(records).values(**self._me, key=key, **values))

    def _raw(self, payloads: Sequence[str]) -> pa.Table:
        rows = [json.loads(payload) for payload in payloads]
        return pa.table({name: pa.array([row.get(name) for row in rows], pa.string()) for name in self.node.fields})


def _text(value: Any) -> str | None:
    """A typed value as text that `conform` reads back as the same value."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return (
        value.isoformat()
        if hasattr(value, "isoformat")
        else format(value, "f")
        if hasattr(value, "as_tuple")
        else repr(value)
    )
