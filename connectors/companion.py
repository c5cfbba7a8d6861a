"""Hosted companion: a system that lacks some columns, made whole by a table that the engine keeps for exactly these.

Weak nodes must not break the chain: the fields pass through the companion and the hop goes on. The companion is read whole
(it is the engine's own and holds keys of one node only); a row that the system does not have is not a row.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from connectors.base import (
    Applied,
    Batch,
    Buckets,
    Changes,
    Connector,
    Digest,
    Node,
    Probe,
    digest_of,
    no_keys,
    refuse_moved,
)
from connectors.findings import Finding
from connectors.wrapping import WrappingConnector
from federation.canonical import key_table


class CompanionConnector(WrappingConnector):
    """`main`: the system, whose node lacks `lacking`; `side`: the hosted table with the key and these fields."""

    def __init__(self, node: Node, main: Connector, side: Connector) -> None:
        super().__init__(main, node)
        self.side = side
        self.keys = list(node.dataset.key)
        self.lacking = [name for name in side.node.fields if name not in self.keys]

    def probe(self) -> Probe:
        main, side = self.inner.probe(), self.side.probe()
        token = None if main.token is None else json.dumps([main.token, side.token])
        return Probe(token, main.detail)

    def inspect(self) -> Sequence[Finding]:
        """Of the companion only what is wrong with it: all else is the engine's own business."""
        return (*self.inner.inspect(), *(found for found in self.side.inspect() if found.state == "fail"))

    def prepare(self) -> tuple[str, ...]:
        return (*self.inner.prepare(), *self.side.prepare())

    def unprepare(self) -> None:
        self.inner.unprepare()
        self.side.unprepare()

    def changes(self, since: str | None, *, sweep: bool = True) -> Changes:
        main_since, side_since = _parts(since)
        kept = self.side.changes(None)
        found = self.inner.changes(main_since, sweep=sweep)
        if side_since is not None and kept.cursor != side_since:
            found = self._with_touched(found, kept)
        return replace(self._joined(found, kept), cursor=json.dumps([found.cursor, kept.cursor]))

    def _with_touched(self, found: Changes, kept: Changes) -> Changes:
        """Add the system's rows whose companion may have changed but which did not change themselves."""
        missing = kept.rows.select(self.keys).join(found.rows.select(self.keys), self.keys, join_type="left anti")
        if not missing.num_rows:
            return found
        more = self.inner.fetch(missing)
        return replace(
            found,
            rows=pa.concat_tables([found.rows, more.rows]),
            rejects=pa.concat_tables([found.rejects, more.rejects]),
            etags=_both(found.etags, more.etags),
        )

    def fetch(self, keys: pa.Table) -> Changes:
        return self._joined(self.inner.fetch(keys), self.side.changes(None))

    def holding(self, name: str, values: pa.Array) -> pa.Table:
        if name in self.lacking:
            return Connector.holding(self, name, values)
        return self._whole(self.inner.holding(name, values), self.side.changes(None))

    def apply(self, batch: Batch) -> Applied:
        """The companion first: if the system then fails, the companion holds a value for a row that is tried again.

        A system that refuses writes decided on an older read is asked before, with an empty batch, so that its Conflict leaves
        the companion as it was; of one that compares rows, they are compared here with their hosted part as well.
        One that refuses row by row cannot be asked: of a row that it refuses, the companion's part is written.
        """
        if batch.expected is not None and self.capabilities.checks:
            now = self.fetch(key_table(batch.expected.keys, self.node.dataset))
            refuse_moved(self.node, batch.expected, now.rows)
        main_since, side_since = _parts(batch.cursor)
        main_token, side_token = _parts(batch.token)
        conditional = self.inner.capabilities.conditional and main_since is not None
        if conditional:
            main_since = self.inner.apply(Batch((), no_keys(self.node), main_since)).cursor
        parts = tuple(part for rows in batch.upserts if (part := self._part(rows, self.lacking)) is not None)
        side = self.side.apply(Batch(parts, batch.deletes, side_since if conditional else None, side_token))
        own = [name for name in self.node.fields if name not in self.lacking and name not in self.keys]
        main = tuple(
            part if (part := self._part(rows, own)) is not None else rows.select(self.keys) for rows in batch.upserts
        )
        applied = self.inner.apply(Batch(main, batch.deletes, main_since, main_token, batch.expected, batch.etags))
        alone = applied.token is not None and side.token is not None
        known = applied.cursor is not None and (conditional or alone)
        cursor = json.dumps([applied.cursor, side.cursor]) if known else None
        return replace(applied, cursor=cursor, token=json.dumps([applied.token, side.token]) if alone else None)

    def digest(self) -> Digest:
        return digest_of(self.node, self.changes(None).rows)

    def bucket_digests(self, asked: Buckets) -> pa.Table:
        return Connector.bucket_digests(self, asked)

    def bucket_hashes(self, asked: Buckets, wanted: pa.Table) -> pa.Table:
        return Connector.bucket_hashes(self, asked, wanted)

    def close(self) -> None:
        self.inner.close()
        self.side.close()

    def _part(self, rows: pa.Table, fields: list[str]) -> pa.Table | None:
        named = [name for name in rows.column_names if name in fields]
        return rows.select([*self.keys, *named]) if named else None

    def _joined(self, found: Changes, kept: Changes) -> Changes:
        return replace(found, rows=self._whole(found.rows, kept))

    def _whole(self, found: pa.Table, kept: Changes) -> pa.Table:
        """The system's rows with what the companion keeps of them."""
        rows = found.select([name for name in found.column_names if name not in self.lacking])
        if kept.rows.num_rows:
            whole = rows.join(kept.rows.select([*self.keys, *self.lacking]), self.keys, join_type="left outer")
        else:
            whole = rows
            for name in self.lacking:
                whole = whole.append_column(name, pa.nulls(rows.num_rows, self.node.schema.field(name).type))
        return whole.select(self.node.schema.names).cast(self.node.schema)


def _both(first: pa.Table | None, second: pa.Table | None) -> pa.Table | None:
    told = [etags for etags in (first, second) if etags is not None]
    return pa.concat_tables(told) if told else None


def _parts(cursor: str | None) -> tuple[str | None, str | None]:
    """The system's cursor and the companion's; what is no cursor of ours means: from the beginning."""
    try:
        held = json.loads(cursor or "null")
    except ValueError:
        return None, None
    return (held[0], held[1]) if isinstance(held, list) and len(held) == 2 else (None, None)
