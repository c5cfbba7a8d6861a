"""Baselines (基线): what both ends of a link last agreed on, as immutable Parquet files on any fsspec location.

A baseline is a set of hash buckets: key + one 16-byte fingerprint per group + when (milliseconds since 1970 UTC) the key was
last settled: the receipt that both ends then held this version. A change rewrites only the buckets it touches,
always under new names; the link's row in the ledger points to the current set (the *manifest*), and moves in the settling
transaction. Files that no manifest names are collected once they are old enough that no reader can still want them.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from federation.merge import Advance
from federation.vector import tables

BUCKET_ROWS = 100_000
"""Rows per bucket that a baseline grows towards before it is split further."""


@dataclass(frozen=True)
class Manifest:
    """Which files make up a baseline. `groups`: group → hash of its field list; `files`: bucket → path under the root."""

    groups: dict[str, str]
    buckets: int
    files: dict[int, str]
    rows: int

    def dump(self) -> str:
        """As kept in the ledger."""
        return json.dumps({"groups": self.groups, "buckets": self.buckets, "files": self.files, "rows": self.rows})

    @classmethod
    def parse(cls, text: str | None) -> Manifest:
        """The inverse of `dump`; None is the empty baseline."""
        if not text:
            return cls({}, 1, {}, 0)
        held = json.loads(text)
        return cls(held["groups"], held["buckets"], {int(k): v for k, v in held["files"].items()}, held["rows"])


class Baselines:
    """The baselines of a federation under one root (a folder or an fsspec URL)."""

    def __init__(self, root: str) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(root)

    def read(self, manifest: Manifest, groups: Mapping[str, str]) -> pa.Table:
        """key + fp_<group> for these groups (name → hash of the field list); null where a group was agreed on otherwise."""
        return self._table([manifest.files[bucket] for bucket in sorted(manifest.files)], manifest, groups)

    def pick(self, manifest: Manifest, groups: Mapping[str, str], keys: pa.Array, *, timed: bool = False) -> pa.Table:
        """`read` for some keys only, reading no bucket without need. `timed`: with a column `at`."""
        buckets = set(_bucket_of(keys, manifest.buckets).to_pylist()) if len(keys) < manifest.rows else manifest.files
        paths = [manifest.files[bucket] for bucket in sorted(buckets) if bucket in manifest.files]
        held = self._table(paths, manifest, groups, timed=timed)
        return held.filter(pc.is_in(held.column("key"), keys))

    def write(self, link_id: str, manifest: Manifest, groups: Mapping[str, str], change: Advance, at: int) -> Manifest:
        """Apply a change settled at `at` (ms); returns the next manifest. The old files stay until collected."""
        changed = pa.concat_arrays([change.upserts.column("key").combine_chunks(), change.removed])
        buckets = _buckets_for(manifest.rows + change.upserts.num_rows)
        if dict(groups) != manifest.groups or buckets > manifest.buckets:
            paths = [manifest.files[bucket] for bucket in sorted(manifest.files)]
            touched, old = list(range(buckets)), self._table(paths, manifest, groups, timed=True)
            files: dict[int, str] = {}
        elif len(changed) == 0:
            return manifest
        else:
            buckets = manifest.buckets
            touched = sorted(set(_bucket_of(changed, buckets).to_pylist()))
            old = self._table([manifest.files[b] for b in touched if b in manifest.files], manifest, groups, timed=True)
            files = {b: path for b, path in manifest.files.items() if b not in touched}
        fresh = _merged(old, change, changed, at)
        numbers = _bucket_of(fresh.column("key").combine_chunks(), buckets)
        for bucket in touched:
            part = fresh.filter(pc.equal(numbers, bucket)) if buckets > 1 else fresh
            if part.num_rows:
                files[bucket] = self._store(link_id, part)
        return Manifest(dict(groups), buckets, files, manifest.rows - old.num_rows + fresh.num_rows)

    def collect(self, link_id: str, keep: Manifest, older_than: float = 86_400.0) -> int:
        """Delete the link's files that `keep` does not name and that are older than so many seconds; how many."""
        folder = f"{self._root}/{link_id}"
        if not self._fs.exists(folder):
            return 0
        named = {path.rsplit("/", 1)[-1] for path in keep.files.values()}
        gone = 0
        for entry in self._fs.ls(folder, detail=True):
            made = entry.get("mtime") or entry.get("created") or 0
            stamp = made if isinstance(made, (int, float)) else getattr(made, "timestamp", lambda: 0.0)()
            if entry["name"].rsplit("/", 1)[-1] not in named and stamp and time.time() - stamp > older_than:
                self._fs.rm(entry["name"])
                gone += 1
        return gone

    def store_intent(self, link_id: str, intent: pa.Table) -> str:
        """Keep what a run is about to write, until it settles; returns the path."""
        return self._store(link_id, intent)

    def read_intent(self, path: str) -> pa.Table:
        """The inverse of `store_intent`."""
        with self._fs.open(f"{self._root}/{path}", "rb") as file:
            return pq.read_table(file)

    def _table(
        self, paths: Sequence[str], manifest: Manifest, groups: Mapping[str, str], *, timed: bool = False
    ) -> pa.Table:
        fields = [("key", pa.string()), *((f"fp_{name}", pa.binary()) for name in groups)]
        schema = pa.schema([*fields, ("at", pa.int64())] if timed else fields)
        parts = []
        for path in paths:
            with self._fs.open(f"{self._root}/{path}", "rb") as file:
                parts.append(pq.read_table(file))
        if not parts:
            return schema.empty_table()
        held = pa.concat_tables(parts, promote_options="default")
        columns = [held.column("key")]
        for name, meaning in groups.items():
            same = manifest.groups.get(name) == meaning
            columns.append(held.column(f"fp_{name}") if same else pa.nulls(held.num_rows, pa.binary()))
        if timed:
            known = "at" in held.column_names
            columns.append(held.column("at") if known else pa.nulls(held.num_rows, pa.int64()))
        return pa.table(columns, schema=schema)

    def _store(self, link_id: str, part: pa.Table) -> str:
        path = f"{link_id}/{uuid.uuid4().hex}.parquet"
        self._fs.makedirs(f"{self._root}/{link_id}", exist_ok=True)
        with self._fs.open(f"{self._root}/{path}", "wb") as file:
            pq.write_table(part, file, compression="zstd", use_dictionary=False)
        return path


def _buckets_for(rows: int) -> int:
    buckets = 1
    while rows > buckets * BUCKET_ROWS:
        buckets *= 4
    return buckets


def _bucket_of(keys: pa.Array, buckets: int) -> pa.Array:
    if buckets == 1:
        return pa.array([0] * len(keys), pa.int64())
    with tables(k=pa.table({"key": keys, "n": pa.array(range(len(keys)))})) as engine:
        found = engine.sql(f"SELECT CAST('0x' || left(sha256(key), 6) AS BIGINT) % {buckets} AS b FROM k ORDER BY n")
        return found.to_arrow_table().column("b").combine_chunks()


def _merged(old: pa.Table, change: Advance, changed: pa.Array, at: int) -> pa.Table:
    stamped = change.upserts.append_column("at", pa.array([at] * change.upserts.num_rows, pa.int64()))
    with tables(old=old, fresh=stamped, changed=pa.table({"key": changed})) as engine:
        return engine.sql(
            "SELECT * FROM old ANTI JOIN changed USING (key) UNION ALL BY NAME SELECT * FROM fresh ORDER BY key"
        ).to_arrow_table()
