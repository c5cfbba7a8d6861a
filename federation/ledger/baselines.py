"""Baselines (基线): what both ends of a link last agreed on, as immutable Parquet files on any fsspec location.

A baseline is a set of hash buckets: key + one 16-byte fingerprint per group + `at`, since when (milliseconds since 1970 UTC) both
ends agree on exactly these fingerprints: the record's receipt. A run that settles a key without agreeing on anything new (what
the gate stopped, what waits for a ruling) leaves `at` as it was. A change rewrites only the buckets it touches, or, where these hold
much more than it changes, adds a file of *news* (the changed keys, with `gone` for what left), which stands above the buckets until
it is worth while to fold all news in. Files always get new names; the link's row in the ledger points to the current set (the
*manifest*), and moves in the settling transaction. Files that no manifest has named for a day are collected: no reader
can still want them.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from federation.merge import Advance
from federation.storage import Storage
from federation.together import R, T, together
from federation.vector import query

BUCKET_ROWS = 100_000
"""Rows per bucket that a baseline grows towards before it is split further."""
NEWS_SHARE = 8
"""News are kept apart while they are at most one part in so many of the whole."""
_UNNAMED = "unnamed.json"
NEWS_FILES = 32
"""Files of news that a reader is made to open at most."""
AT_A_TIME = 4
"""Files that are read or written at a time."""


@dataclass(frozen=True)
class Manifest:
    """Which files make up a baseline. `groups`: group → hash of its field list; `files`: bucket → path under the root; `news`: paths,
    the newest last, with `news_rows` rows in all; `rows`: keys that are agreed on."""

    groups: dict[str, str]
    buckets: int
    files: dict[int, str]
    rows: int
    news: tuple[str, ...] = ()
    news_rows: int = 0

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file that it names."""
        return (*self.files.values(), *self.news)

    def dump(self) -> str:
        """As kept in the ledger."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str | None) -> Manifest:
        """The inverse of `dump`; None is the empty baseline."""
        if not text:
            return cls({}, 1, {}, 0)
        held = json.loads(text)
        files = {int(bucket): path for bucket, path in held["files"].items()}
        news, news_rows = tuple(held.get("news", ())), held.get("news_rows", 0)
        return cls(held["groups"], held["buckets"], files, held["rows"], news, news_rows)


class Baselines:
    """The baselines of a federation under one root (a folder or an fsspec URL)."""

    def __init__(self, root: Storage | str) -> None:
        self.storage = root if isinstance(root, Storage) else Storage(root)

    def read(self, manifest: Manifest, groups: Mapping[str, str], *, timed: bool = False) -> pa.Table:
        """key + fp_<group> for these groups (name → hash of the field list); null where a group was agreed on otherwise.

        `timed`: with a column `at`."""
        return self._whole(manifest, groups).select(_names(groups, timed))

    def pick(self, manifest: Manifest, groups: Mapping[str, str], keys: pa.Array, *, timed: bool = False) -> pa.Table:
        """`read` for some keys only, reading no bucket without need."""
        return self._whole(manifest, groups, keys).select(_names(groups, timed))

    def write(
        self,
        link_id: str,
        manifest: Manifest,
        groups: Mapping[str, str],
        change: Advance,
        at: int,
        known: pa.Table | None = None,
    ) -> Manifest:
        """Apply a change settled at `at` (ms); returns the next manifest. The old files stay until collected.

        `known`: what `read` or `pick` returned, timed, for all the keys that change, if that was asked already.
        """
        changed = pa.concat_arrays([change.upserts.column("key").combine_chunks(), change.removed])
        same = (
            dict(groups) == manifest.groups
            and _buckets_for(manifest.rows + change.upserts.num_rows) <= manifest.buckets
        )
        if same and not len(changed):
            return manifest
        touched = sorted(_bucket_of(changed, manifest.buckets).unique().to_pylist())
        if same and self._apart(manifest, len(changed), len(touched)):
            old = self.pick(manifest, groups, changed, timed=True) if known is None else _only(known, changed)
            fresh = _merged(old, change, changed, at)
            path = self._store(link_id, _news(fresh, change.removed))
            news, count = (*manifest.news, path), manifest.news_rows + len(changed)
            return replace(manifest, rows=manifest.rows - old.num_rows + fresh.num_rows, news=news, news_rows=count)
        if same and not manifest.news:
            files = {bucket: path for bucket, path in manifest.files.items() if bucket not in touched}
            buckets = manifest.buckets
            old = self._table([manifest.files[b] for b in touched if b in manifest.files], manifest, groups)
        else:
            buckets = max(manifest.buckets, _buckets_for(manifest.rows + change.upserts.num_rows))
            files, touched = {}, list(range(buckets))
            old = self.read(manifest, groups, timed=True)
        fresh = _merged(old, change, changed, at)
        numbers = _bucket_of(fresh.column("key").combine_chunks(), buckets)

        def stored(bucket: int) -> str | None:
            part = fresh.filter(pc.equal(numbers, bucket)) if buckets > 1 else fresh
            return self._store(link_id, part) if part.num_rows else None

        files |= {bucket: path for bucket, path in zip(touched, _files(stored, touched)) if path is not None}
        return Manifest(dict(groups), buckets, files, manifest.rows - old.num_rows + fresh.num_rows)

    def collect(self, link_id: str, keep: Manifest, older_than: float = 86_400.0) -> int:
        """Delete the link's files that nobody has named for so many seconds; how many. `keep`: what is named now.

        Since when a file is not named any more is noted beside the files (`unnamed.json`): however old it is, a neighbouring link that
        has just read the pointer, or a backup, may still want what this run has replaced.
        """
        notes, now = f"{link_id}/{_UNNAMED}", time.time()
        there = {entry.path.rpartition("/")[2] for entry in self.storage.entries(link_id)} - {_UNNAMED}
        noted: dict[str, float] = {}
        if self.storage.exists(notes):
            noted = json.loads(self.storage.read(notes))
        named = {path.rpartition("/")[2] for path in keep.paths}
        unnamed = {name: noted.get(name, now) for name in there - named}
        due = [name for name, since in unnamed.items() if now - since >= older_than]
        for name in due:
            self.storage.remove(f"{link_id}/{name}")
            del unnamed[name]
        if unnamed != noted:
            self.storage.write(notes, json.dumps(unnamed).encode())
        return len(due)

    def store_intent(self, link_id: str, intent: pa.Table) -> str:
        """Keep what a run is about to write, until it settles; returns the path."""
        return self._store(link_id, intent)

    def read_intent(self, path: str) -> pa.Table:
        """The inverse of `store_intent`."""
        with self.storage.open(path, "rb") as file:
            return pq.read_table(file)

    @staticmethod
    def _apart(manifest: Manifest, changed: int, touched: int) -> bool:
        """Whether a change is better kept as news than folded into the buckets that it touches."""
        room = len(manifest.news) < NEWS_FILES and (manifest.news_rows + changed) * NEWS_SHARE <= manifest.rows
        return room and manifest.buckets > 1 and changed * NEWS_SHARE <= manifest.rows * touched // manifest.buckets

    def _whole(self, manifest: Manifest, groups: Mapping[str, str], keys: pa.Array | None = None) -> pa.Table:
        """What the manifest's files say together, timed, of these keys (None: of all)."""
        buckets: Collection[int] = manifest.files
        if keys is not None and len(keys) < manifest.rows:
            buckets = _bucket_of(keys, manifest.buckets).unique().to_pylist()
        paths = [manifest.files[bucket] for bucket in sorted(buckets) if bucket in manifest.files]
        held = _only(self._table(paths, manifest, groups), keys)
        if not manifest.news:
            return held
        news = _only(self._newest(manifest, groups), keys)
        held = held.filter(pc.invert(pc.is_in(held.column("key"), news.column("key").combine_chunks())))
        return pa.concat_tables([held, news.filter(pc.invert(news.column("gone"))).select(held.column_names)])

    def _newest(self, manifest: Manifest, groups: Mapping[str, str]) -> pa.Table:
        """The last word on each key that the news speak of."""
        told = self._table(manifest.news, manifest, groups, news=True)
        if len(manifest.news) == 1:
            return told
        numbered = told.append_column("n", pa.array(np.arange(told.num_rows)))
        last = "SELECT * EXCLUDE (n) FROM told QUALIFY row_number() OVER (PARTITION BY key ORDER BY n DESC) = 1"
        return query(last, told=numbered).cast(told.schema)

    def _table(
        self, paths: Sequence[str], manifest: Manifest, groups: Mapping[str, str], *, news: bool = False
    ) -> pa.Table:
        """The files one after the other, with `at`, and of `news` with `gone`."""
        fields = [("key", pa.string()), *((f"fp_{name}", pa.binary()) for name in groups), ("at", pa.int64())]
        schema = pa.schema([*fields, ("gone", pa.bool_())] if news else fields)
        if not paths:
            return schema.empty_table()
        held = pa.concat_tables(_files(self._read, paths), promote_options="default")
        columns = [held.column("key")]
        for name, meaning in groups.items():
            same = manifest.groups.get(name) == meaning
            columns.append(held.column(f"fp_{name}") if same else pa.nulls(held.num_rows, pa.binary()))
        columns.append(held.column("at") if "at" in held.column_names else pa.nulls(held.num_rows, pa.int64()))
        return pa.table([*columns, held.column("gone")] if news else columns, schema=schema)

    def _read(self, path: str) -> pa.Table:
        with self.storage.open(path, "rb") as file:
            return pq.ParquetFile(file).read()  # `read_table` is made for folders, and costs twice as much

    def _store(self, link_id: str, part: pa.Table) -> str:
        path = f"{link_id}/{uuid.uuid4().hex}.parquet"
        with self.storage.open(path, "wb") as file:
            pq.write_table(part, file, compression="lz4", use_dictionary=False, write_statistics=False)
        return path


def _files(work: Callable[[T], R], files: Sequence[T]) -> list[R]:
    """An object store takes its time for each file, not for all of them."""
    return together(work, files, AT_A_TIME if len(files) > 2 else 1)


def _buckets_for(rows: int) -> int:
    buckets = 1
    while rows > buckets * BUCKET_ROWS:
        buckets *= 4
    return buckets


def _bucket_of(keys: pa.Array, buckets: int) -> pa.Array:
    if buckets == 1:
        return pa.repeat(pa.scalar(0, pa.int64()), len(keys))
    # DuckDB keeps the order of what it only maps
    found = query(
        f"SELECT CAST('0x' || left(sha256(key), 6) AS BIGINT) % {buckets} AS b FROM k", k=pa.table({"key": keys})
    )
    return found.column("b").combine_chunks()


def _names(groups: Mapping[str, str], timed: bool) -> list[str]:
    return ["key", *(f"fp_{name}" for name in groups), *(["at"] if timed else [])]


def _only(held: pa.Table, keys: pa.Array | None) -> pa.Table:
    return held if keys is None else held.filter(pc.is_in(held.column("key"), keys))


def _news(fresh: pa.Table, removed: pa.Array) -> pa.Table:
    told = fresh.append_column("gone", pa.repeat(False, fresh.num_rows))
    gone = pa.table({"key": removed, "gone": pa.repeat(True, len(removed))})
    return pa.concat_tables([told, gone], promote_options="default")


def _merged(old: pa.Table, change: Advance, changed: pa.Array, at: int) -> pa.Table:
    names = [name for name in change.upserts.column_names if name != "key"]
    same = " AND ".join(["o.key IS NOT NULL", *(f"o.{name} IS NOT DISTINCT FROM f.{name}" for name in names)])
    return query(
        f"""SELECT * FROM old ANTI JOIN changed USING (key)
            UNION ALL BY NAME
            SELECT f.* REPLACE (CASE WHEN {same} THEN o."at" ELSE f."at" END AS "at") FROM fresh f LEFT JOIN old o ON o.key = f.key""",
        old=old,
        fresh=change.upserts.append_column("at", pa.repeat(pa.scalar(at, pa.int64()), change.upserts.num_rows)),
        changed=pa.table({"key": changed}),
    )
