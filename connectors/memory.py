"""Records in this process's memory: for trying things out, and for the engine's own tests.

Stores are named (`options.store`); connectors with the same name see the same records. It can act as a system of each kind
of capture, so that the engine's strategies can be tested without a server.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from connectors.base import (
    RULINGS,
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
    refuse_moved,
    ruling_of,
)
from connectors.desk import standing
from federation.canonical import key_column, key_table
from federation.errors import Conflict


@dataclass
class Store:
    """Raw rows by key text, with the sequence number of the last write to each; what is shown to its people."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)
    clock: int = 0
    returns: list[dict[str, Any]] = field(default_factory=list)
    corrections: list[dict[str, Any]] = field(default_factory=list)
    rulings: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """Correction id → what its people wrote: ruling and reason."""
    columns: set[str] = field(default_factory=set)
    """Fields that some row had at an earlier whole read, since the last deletion: a store has no schema to lose them from."""

    def put(self, key: str, values: dict[str, Any]) -> None:
        """Insert or update one row, as its people would."""
        self.clock += 1
        self.rows[key] = {**self.rows.get(key, {}), **values}
        self.written[key] = self.clock
        self.deleted.pop(key, None)

    def drop(self, key: str) -> None:
        """Delete one row, as its people would."""
        if self.rows.pop(key, None) is not None:
            self.clock += 1
            self.deleted[key] = self.clock
            self.columns.clear()  # it may have been the only row with a value there


STORES: dict[str, Store] = {}


class MemoryOptions(Options):
    """`store`: name of the store. `capture`: which kind of system to act as. `conditional`: a write is refused if anything moved since
    the read, as in a workbook; else if one of its rows did, as in a database."""

    store: str
    capture: Literal["snapshot", "cursor", "log"] = "snapshot"
    conditional: bool = True


class MemoryConnector(Connector):
    """See the module."""

    options_model = MemoryOptions

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.options = MemoryOptions.model_validate(node.options)
        self.store = STORES.setdefault(self.options.store, Store())

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            self.options.capture,
            conditional=self.options.conditional,
            checks=not self.options.conditional,
            returns=True,
            corrections=True,
        )

    def probe(self) -> Probe:
        return Probe(str(self.store.clock), f"{len(self.store.rows)} rows")

    def changes(self, since: str | None, *, sweep: bool = True) -> Changes:
        if self.options.capture == "snapshot":
            since, sweep = None, True
        floor = int(since or 0)
        picked = [values for key, values in self.store.rows.items() if self.store.written[key] > floor or since is None]
        result = changes_of(self.node, self._raw(picked), present=False, cursor=str(self.store.clock))
        every = (
            changes_of(self.node, self._raw(list(self.store.rows.values())), present=True, cursor=None).present
            if sweep
            else None
        )
        gone = (
            self._keys([key for key, at in self.store.deleted.items() if at > floor])
            if self.options.capture == "log" and since
            else no_keys(self.node)
        )
        missing = self._missing(picked) if since is None else frozenset[str]()
        return Changes(result.rows, result.rejects, gone, every, result.cursor, missing=missing)

    def _missing(self, rows: list[dict[str, Any]]) -> frozenset[str]:
        """The fields that rows had at an earlier whole read and that none has now, though there are rows."""
        here = {name for row in rows for name in row}
        self.store.columns |= here
        others = set(self.node.fields) - set(self.node.dataset.key)
        return frozenset(self.store.columns & others - here) if rows else frozenset()

    def fetch(self, keys: pa.Table) -> Changes:
        return fetched(
            self.node,
            changes_of(self.node, self._raw(list(self.store.rows.values())), present=False, cursor=None),
            keys,
        )

    def apply(self, batch: Batch) -> Applied:
        conditional = self.options.conditional
        if conditional and batch.cursor is not None and int(batch.cursor) != self.store.clock:
            raise Conflict("the store changed since it was read", "读取后数据已变化", region=str(self.node.region))
        if not conditional and batch.expected is not None:
            keys = self._keys(batch.expected.keys.to_pylist())
            refuse_moved(self.node, batch.expected, self.fetch(keys).rows)
        alone = batch.token == str(self.store.clock)
        for rows in batch.upserts:
            for key, values in zip(key_column(rows, self.node.dataset).to_pylist(), rows.to_pylist()):
                self.store.put(key, values)
        gone = key_column(batch.deletes, self.node.dataset).to_pylist()
        for key in gone:
            self.store.drop(key)
        return Applied(
            sum(rows.num_rows for rows in batch.upserts),
            len(gone),
            str(self.store.clock) if conditional else None,
            str(self.store.clock) if alone else None,
        )

    def show_returns(self, returns: pa.Table) -> None:
        self.store.returns = standing(returns).to_pylist()

    def show_corrections(self, corrections: pa.Table) -> None:
        self.store.corrections = corrections.to_pylist()
        shown = {line["correction_id"] for line in self.store.corrections}
        self.store.rulings = {name: ruling for name, ruling in self.store.rulings.items() if name in shown}

    def rulings(self) -> pa.Table:
        written = [(name, ruling_of(word), reason) for name, (word, reason) in self.store.rulings.items()]
        lines = [dict(zip(RULINGS.names, line)) for line in written if line[1]]
        return pa.Table.from_pylist(lines, schema=RULINGS)

    def _raw(self, rows: list[dict[str, Any]]) -> pa.Table:
        columns = {name: _column([row.get(name) for row in rows]) for name in self.node.fields}
        return pa.table(columns) if rows else self.node.schema.empty_table()

    def _keys(self, texts: list[str]) -> pa.Table:
        return key_table(texts, self.node.dataset)


def _column(values: list[Any]) -> pa.Array:
    """One Arrow column; people mix types, and then everything is text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())
