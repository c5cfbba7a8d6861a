"""A connector around another one: everything passes through; a wrapper overrides what it is there for."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from connectors.base import Applied, Batch, Buckets, Capabilities, Changes, Connector, Digest, Node, Probe
from connectors.findings import Finding


class WrappingConnector(Connector):
    """Same contract as `inner`. `node`: as the wrapper's users see it, if that is another one."""

    def __init__(self, inner: Connector, node: Node | None = None) -> None:
        super().__init__(node or inner.node)
        self._inner = inner

    @property
    def inner(self) -> Connector:
        """What is wrapped. A wrapper that keeps it from being asked raises here."""
        return self._inner

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    @property
    def place(self) -> str | None:
        return self._inner.place

    def probe(self) -> Probe:
        return self.inner.probe()

    def inspect(self) -> Sequence[Finding]:
        return self.inner.inspect()

    def prepare(self) -> tuple[str, ...]:
        return self.inner.prepare()

    def unprepare(self) -> None:
        self.inner.unprepare()

    def changes(self, since: str | None, *, sweep: bool = True) -> Changes:
        return self.inner.changes(since, sweep=sweep)

    def fetch(self, keys: pa.Table) -> Changes:
        return self.inner.fetch(keys)

    def holding(self, name: str, values: pa.Array) -> pa.Table:
        return self.inner.holding(name, values)

    def apply(self, batch: Batch) -> Applied:
        return self.inner.apply(batch)

    def show_returns(self, returns: pa.Table) -> None:
        self.inner.show_returns(returns)

    def show_receipts(self, receipts: pa.Table) -> None:
        self.inner.show_receipts(receipts)

    def show_corrections(self, corrections: pa.Table) -> None:
        self.inner.show_corrections(corrections)

    def rulings(self) -> pa.Table:
        return self.inner.rulings()

    def digest(self) -> Digest:
        return self.inner.digest()

    def bucket_digests(self, asked: Buckets) -> pa.Table:
        return self.inner.bucket_digests(asked)

    def bucket_hashes(self, asked: Buckets, wanted: pa.Table) -> pa.Table:
        return self.inner.bucket_hashes(asked, wanted)

    def close(self) -> None:
        self._inner.close()
