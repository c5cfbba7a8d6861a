"""Reading one node once, for all links that touch it, and staging what was read as Parquet."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.base import ETAG, Changes, Connector, no_keys, no_rejects
from federation.canonical import key_column, key_table
from federation.contract import Dataset
from federation.failpoints import reached
from federation.storage import Storage
from federation.vector import where

KEY = "_key"
"""The column that holds a row's key as one text (`canonical.key_column`)."""
ABOUT = "about.json"
"""The file of a staged reading that is written last."""

_ETAGS = pa.schema([(KEY, pa.string()), (ETAG, pa.string())])


@dataclass(frozen=True)
class Reading:
    """What one node was found to hold or to have changed. Tables carry the key text in `_key`.

    `complete`: all rows were read, so whatever is not here does not exist. `present`: all keys there are, if they were
    listed. `since`/`cursor`: where the read began and what it covers. `token`: the probe's token, taken before the read.
    `fences`: of a read that is shared by several links, each link's fencing token before it: a link that somebody else leased
    since must not use it, for its baseline may know more than this reading. `missing`: fields that the system had no column for.
    `etags`: `_key`, `_etag` of rows and rejects, where the system told them.
    """

    rows: pa.Table
    outside: pa.Table
    rejects: pa.Table
    deleted: pa.Array
    present: pa.Array | None
    complete: bool
    since: str | None
    cursor: str | None
    token: str | None
    fences: Mapping[str, int] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    etags: pa.Table = field(default_factory=_ETAGS.empty_table)

    @property
    def anything(self) -> bool:
        """Whether there is anything to look at."""
        return (
            bool(self.rows.num_rows or self.outside.num_rows or self.rejects.num_rows or len(self.deleted))
            or self.complete
        )

    def absent(self, keys: Collection[str]) -> set[str]:
        """Which of these records the node is known not to have."""
        held = {key for rows in (self.rows, self.outside, self.rejects) for key in rows.column(KEY).to_pylist()}
        found = set(keys) - held
        if self.complete:
            return found
        gone = set(self.deleted.to_pylist())
        listed = None if self.present is None else set(self.present.to_pylist())
        return {key for key in found if key in gone or (listed is not None and key not in listed)}

    def with_fetched(self, changes: Changes, dataset: Dataset) -> Reading:
        """This reading with rows fetched by key folded in; they replace what was read of these keys before."""
        fresh = _of(changes, dataset, complete=False, since=None, token=None)
        keys = pa.concat_arrays(
            [fresh.rows.column(KEY).combine_chunks(), fresh.deleted, fresh.outside.column(KEY).combine_chunks()]
        )
        return replace(
            self,
            rows=pa.concat_tables([without(self.rows, keys), fresh.rows]),
            outside=pa.concat_tables([without(self.outside, keys), fresh.outside]),
            rejects=pa.concat_tables([self.rejects, fresh.rejects]),
            deleted=pa.concat_arrays([self.deleted, fresh.deleted]),
            etags=pa.concat_tables([without(without(self.etags, keys), _keys_of(fresh.etags)), fresh.etags]),
        )

    def save(self, folder: Storage) -> None:
        """Stage as Parquet, for another process to load."""
        reached("stage.before")
        for name in ("rows", "outside", "rejects", "etags"):
            _write(folder, name, getattr(self, name))
        _write(folder, "deleted", pa.table({KEY: self.deleted}))
        if self.present is not None:
            _write(folder, "present", pa.table({KEY: self.present}))
        about = {
            "complete": self.complete,
            "since": self.since,
            "cursor": self.cursor,
            "token": self.token,
            "present": self.present is not None,
            "fences": dict(self.fences),
            "missing": sorted(self.missing),
        }
        folder.write(ABOUT, json.dumps(about).encode())  # last: without it, nobody takes the rest for whole
        reached("stage.after")

    @classmethod
    def load(cls, folder: Storage) -> Reading:
        """The inverse of `save`."""
        about = json.loads(folder.read(ABOUT))
        rows, outside, rejects, etags = (_read(folder, name) for name in ("rows", "outside", "rejects", "etags"))
        present = _read(folder, "present").column(KEY).combine_chunks() if about["present"] else None
        return cls(
            rows,
            outside,
            rejects,
            _read(folder, "deleted").column(KEY).combine_chunks(),
            present,
            about["complete"],
            about["since"],
            about["cursor"],
            about["token"],
            about["fences"],
            frozenset(about["missing"]),
            etags,
        )


def _write(folder: Storage, name: str, table: pa.Table) -> None:
    with folder.open(f"{name}.parquet", "wb") as file:
        pq.write_table(table, file, compression="zstd")


def _read(folder: Storage, name: str) -> pa.Table:
    with folder.open(f"{name}.parquet", "rb") as file:
        return pq.read_table(file)


def spoken_of(reading: Reading) -> pa.Array:
    """The keys of all rows that were read, inside and outside the node's jurisdiction."""
    return pa.concat_arrays([rows.column(KEY).combine_chunks() for rows in (reading.rows, reading.outside)])


def concerns(reading: Reading) -> pa.Array | None:
    """The keys that a reading says anything of; None: it may say something of any key, since it tells what is there at all."""
    if reading.complete or reading.present is not None:
        return None
    return pa.concat_arrays([spoken_of(reading), reading.deleted, _keys_of(reading.rejects).drop_null()])


def _keys_of(table: pa.Table) -> pa.Array:
    return table.column(KEY).combine_chunks()


def without(table: pa.Table, keys: pa.Array) -> pa.Table:
    """The rows whose key is not among `keys`."""
    return where(table, pc.invert(pc.is_in(table.column(KEY), keys))) if table.num_rows and len(keys) else table


def only(table: pa.Table, keys: pa.Array) -> pa.Table:
    """The rows whose key is among `keys`."""
    return where(table, pc.is_in(table.column(KEY), keys)) if table.num_rows else table


def read_node(
    connector: Connector, since: str | None, *, sweep: bool, again: Collection[str] = (), settled: str | None = None
) -> Reading:
    """Read a node. `since=None` reads everything; `again`: keys to read as well, whether they changed or not.

    `settled`: the probe's token at which the node was last settled, if that may be trusted: while it stands, nothing is read.
    """
    token = connector.probe().token
    if settled is not None and token == settled and not again:
        return nothing_read(connector, since, token)
    found = connector.changes(since, sweep=sweep or connector.capabilities.cheap_sweep)
    complete = since is None or connector.capabilities.capture == "snapshot"
    reading = _of(found, connector.node.dataset, complete=complete, since=since, token=token)
    return reading if complete or not again else refetched(connector, reading, pa.array(sorted(again), pa.string()))


def refetched(connector: Connector, reading: Reading, keys: pa.Array) -> Reading:
    """The reading with these keys read anew."""
    dataset = connector.node.dataset
    return reading.with_fetched(connector.fetch(key_table(keys, dataset)), dataset)


def read_keys(connector: Connector, keys: Collection[str]) -> Reading:
    """These keys as they are now at a node; what it does not have is `deleted`."""
    dataset = connector.node.dataset
    return _of(connector.fetch(key_table(sorted(keys), dataset)), dataset, complete=False, since=None, token=None)


def nothing_read(connector: Connector, since: str | None, token: str | None) -> Reading:
    """The reading of a node that is not asked: its token says that nothing changed, or nobody wants to know."""
    node = connector.node
    empty = Changes(node.schema.empty_table(), no_rejects(node), no_keys(node), None, since)
    return _of(empty, node.dataset, complete=False, since=since, token=token)


def _of(changes: Changes, dataset: Dataset, *, complete: bool, since: str | None, token: str | None) -> Reading:
    def keyed(table: pa.Table) -> pa.Table:
        return table.append_column(KEY, key_column(table, dataset))

    def keys(table: pa.Table) -> pa.Array:
        return key_column(table, dataset)

    etags = keyed(changes.etags).select(_ETAGS.names) if changes.etags is not None else _ETAGS.empty_table()
    outside = changes.outside if changes.outside is not None else changes.rows.schema.empty_table()
    return Reading(
        keyed(changes.rows),
        keyed(outside),
        keyed(changes.rejects),
        keys(changes.deleted),
        None if changes.present is None else keys(changes.present),
        complete,
        since,
        changes.cursor,
        token,
        missing=changes.missing,
        etags=etags,
    )
