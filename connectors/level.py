"""What is true of a level, whatever technology its systems use: its scope, and its manners.

The scope of a node is its own region. Every read and every write passes this guard: a row whose jurisdiction lies elsewhere is
set apart when read (`Changes.outside`), whatever the system's query returned, and is an error when written, since that would be the
engine's own leak.

The manners of a level hold where a platform is asked by requests and its declaration does not say how many it bears: the lower the
level, the smaller its servers. They slow neither a database nor a file: there, one transaction or one upload carries a whole batch.

A level brings no defaults of capture. It is a fact of a system, and any default would be unsound elsewhere: a cursor needs a column that
moves with each change, a change table puts triggers into somebody's database. Nor does it limit the tasks that work on a system at a
time (`parallel`): Airflow starts no task whose pool nobody has made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from connectors.base import Applied, Batch, Buckets, Changes, Connector
from connectors.polite import Manners
from connectors.wrapping import WrappingConnector
from federation.canonical import regions_of
from federation.errors import Permanent


@dataclass(frozen=True)
class Scope:
    """`routes`: for every region code at or below the level, the code of the region at that level it lies in."""

    routes: Mapping[str, str]

    def of(self, jurisdiction: pa.ChunkedArray | pa.Array) -> pa.Array:
        """For each jurisdiction, the region at this level; null where it lies above, elsewhere or nowhere."""
        return regions_of(jurisdiction, self.routes)


class LevelConnector(WrappingConnector):
    """Base of the four levels."""

    level: ClassVar[str]
    manners: ClassVar[Manners]

    def __init__(self, inner: Connector, scope: Scope) -> None:
        super().__init__(inner)
        assert self.node.region.level == self.level, "a level's connector serves regions of that level only"
        self.scope = scope

    def changes(self, since: str | None, *, sweep: bool = True) -> Changes:
        return self._scoped(self.inner.changes(since, sweep=sweep))

    def fetch(self, keys: pa.Table) -> Changes:
        return self._scoped(self.inner.fetch(keys))

    def holding(self, name: str, values: pa.Array) -> pa.Table:
        rows = self.inner.holding(name, values)
        return rows.filter(pc.invert(self._outside(rows)))

    def apply(self, batch: Batch) -> Applied:
        for rows in batch.upserts:
            if self.node.dataset.jurisdiction in rows.column_names and pc.any(self._outside(rows)).as_py():
                raise Permanent(
                    "refused to write a row outside the node's jurisdiction",
                    "拒绝写入属地以外的记录",
                    todo="这是引擎缺陷，请报告 / this is a defect of the engine, please report it",
                    dataset=self.node.dataset.name,
                    region=str(self.node.region),
                )
        return self.inner.apply(batch)

    def bucket_digests(self, asked: Buckets) -> pa.Table:
        return self._inside(self.inner.bucket_digests(asked))

    def bucket_hashes(self, asked: Buckets, wanted: pa.Table) -> pa.Table:
        return self._inside(self.inner.bucket_hashes(asked, wanted))

    def _inside(self, told: pa.Table) -> pa.Table:
        """Of digests or hashes, those of places in the node's jurisdiction."""
        return told.filter(pc.fill_null(pc.equal(self.scope.of(told.column("place")), self.node.region.code), False))

    def _outside(self, rows: pa.Table) -> pa.Array:
        inside = pc.equal(self.scope.of(rows.column(self.node.dataset.jurisdiction)), self.node.region.code)
        return pc.invert(pc.fill_null(inside, False))

    def _scoped(self, found: Changes) -> Changes:
        outside = self._outside(found.rows)
        if not pc.any(outside).as_py():
            return found
        strays = found.rows.filter(outside)
        return replace(found, rows=found.rows.filter(pc.invert(outside)), outside=strays)
