"""Reconciliation (核对): both ends of each link compared, and what differs made good by the ordinary merge.

Cursors and change tables tell what changed. They do not tell of a commit that came late, of rows that somebody restored from a backup, of a
change made while triggers were off. So each end sums up what it holds of the fields that travel on the link, by buckets
(`federation.canonical_buckets`), inside its own system where it can; only the rows of buckets that differ are looked at, and only the
records that really differ are merged again (`reconcile_run.KeyedRun`). What differs after that is explained by what holds it, or it is an
error. What has changed since the last sync differs as well, and is carried like any change.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa

from connectors.base import Buckets, Connector
from federation.canonical_buckets import MOST_DIGITS
from federation.comparing import KINDS, differences, differing_buckets, digits_for, of_region, suspects
from federation.config import Link
from federation.contract import Dataset
from federation.errors import FedsyncError
from federation.federation import Federation
from federation.ledger.baselines import Manifest
from federation.ledger.links import LinkState
from federation.link import Ends
from federation.reading import read_keys
from federation.reconcile_run import KeyedRun
from federation.reconcile_why import explained

ROUNDS = 2
"""How often a record is merged again: people may edit it while it is."""
NEVER = "尚未同步，请先 fedsync sync / never synced: run fedsync sync first"


@dataclass(frozen=True)
class Difference:
    """One record that both ends do not agree on. `kind`: `missing_below`, `missing_above`, `differing`. `why`: what holds it; None: nothing."""

    key: str
    kind: str
    why: str | None


@dataclass(frozen=True)
class Comparison:
    """One link, compared. `rows`: records of the upper end that are the child's. `found`: kind → how many differed.

    `repaired`: how many of them no longer do. `explained`: reason → how many still do because of it (`reconcile_why.REASONS`).
    `unexplained`: how many still do and nothing says why; where nothing was repaired, what a merge would look at. `left`: the differences
    that were left, keys included, if these were asked for. `skipped`: why it was not compared. `error`: why it could not be compared, or
    not be repaired; or that something is unexplained.
    """

    link: str
    upper: str
    lower: str
    rows: int = 0
    found: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    repaired: int = 0
    explained: dict[str, int] = field(default_factory=dict)
    unexplained: int = 0
    left: tuple[Difference, ...] = ()
    skipped: str | None = None
    error: FedsyncError | None = None

    @property
    def differed(self) -> int:
        """How many records differed."""
        return sum(self.found.values())


def parents(federation: Federation, dataset: str, region: str | None = None) -> list[str]:
    """The regions whose links to their children are compared, top down. `region`: only those inside it, and its link to its parent."""
    contract, tree = federation.config.dataset(dataset), federation.config.tree
    found = [parent for upper, _ in contract.hops for parent in tree.at(upper)]
    if region is None:
        return [parent.code for parent in found]
    wanted = tree[region]
    above = contract.upper_of(wanted.level) if wanted.level in contract.levels else None
    own = tree.ancestor(region, above) if above else None
    return [p.code for p in found if p == own or tree.lies_in(p.code, region)]


def children(federation: Federation, dataset: str, upper: str, region: str | None) -> list[str] | None:
    """The children of a parent that a comparison inside `region` is about; None: all."""
    tree = federation.config.tree
    if region is None or tree.lies_in(upper, region):
        return None
    return [region]


class Reconciler:
    """Compares links. `repair`: merge what differs. `tell_keys`: name the records that are left. `actor`: for the audit trail."""

    def __init__(self, federation: Federation, *, repair: bool = True, tell_keys: bool = False, actor: str) -> None:
        self.federation = federation
        self.services = federation.services
        self.repair = repair
        self.tell_keys = tell_keys
        self.actor = actor

    def parent(self, dataset: str, upper: str, lowers: Sequence[str] | None = None) -> list[Comparison]:
        """Compare a parent with all its children, or some. Each end is summed up once; one failing child stops no other."""
        links = [
            link for link in self.federation.config.links(dataset, upper) if lowers is None or link.lower.code in lowers
        ]
        states = self.services.links.states([link.id for link in links])
        open_, closed = self.federation.open_links(links, states)
        ready = [link for link in open_ if (state := states.get(link.id)) is not None and state.last_ok is not None]
        done = {link.id: _skipped(link, closed.get(link.id, NEVER)) for link in links if link not in ready}
        if ready:
            try:
                with self.federation.node(dataset, upper) as above:
                    done |= self._compared(above, ready, states)
            except FedsyncError as error:
                done |= {link.id: _failed(link, error) for link in ready if link.id not in done}
        return [done[link.id] for link in links]

    def _compared(self, above: Connector, links: list[Link], states: Mapping[str, LinkState]) -> dict[str, Comparison]:
        asked = self._asked(links, states)
        done: dict[str, Comparison] = {}
        below: dict[str, pa.Table] = {}
        with ThreadPoolExecutor(1) as pool:  # two systems work at the same time
            summed = pool.submit(above.bucket_digests, asked)
            for link in links:
                try:
                    below[link.id] = self._at_lower(link, lambda end: end.bucket_digests(asked))
                except FedsyncError as error:
                    done[link.id] = _failed(link, error)
            digests = summed.result()
        routes = self.federation.config.tree.routes(links[0].lower.level)
        differing: list[tuple[Link, int, pa.Table]] = []
        for link in links:
            if link.id in below:
                mine = of_region(digests, routes, link.lower.code)
                rows = sum(mine.column("rows").to_pylist())
                buckets = differing_buckets(mine, below[link.id])
                done[link.id] = Comparison(link.id, link.upper.code, link.lower.code, rows)
                differing += [(link, rows, buckets)] if buckets.num_rows else []
        if differing:
            told = above.bucket_hashes(asked, pa.concat_tables([buckets for _, _, buckets in differing]))
            for link, rows, buckets in differing:
                mine = of_region(told, routes, link.lower.code)
                done[link.id] = self._closer(above, link, rows, asked, buckets, mine)
        return done

    def _asked(self, links: Sequence[Link], states: Mapping[str, LinkState]) -> Buckets:
        contract = links[0].contract
        rows = sum(Manifest.parse(states[link.id].baseline).rows for link in links)
        places = len(self.federation.config.tree.below(links[0].upper.code, contract.dataset.levels[-1]))
        fields = tuple(name for name in contract.fields if name not in contract.dataset.key)
        return Buckets(fields, digits_for(rows, places, MOST_DIGITS), uuid.uuid4().hex[:16])

    def _at_lower(self, link: Link, work: Callable[[Connector], pa.Table]) -> pa.Table:
        with self.federation.node(link.contract.dataset.name, link.lower.code) as end:
            return work(end)

    def _closer(
        self, above: Connector, link: Link, rows: int, asked: Buckets, buckets: pa.Table, told: pa.Table
    ) -> Comparison:
        """Look at the rows of the buckets that differ, and merge the records that do."""
        dataset = link.contract.dataset
        try:
            with self.federation.node(dataset.name, link.lower.code) as below:
                keys = suspects(told, below.bucket_hashes(asked, buckets), dataset).to_pylist()
                found = self._differences(link, above, below, keys)
                left, since, error = found, None, None
                if self.repair and found.num_rows:
                    left, since, error = self._merged(link, above, below, found)
        except FedsyncError as problem:
            return _failed(link, problem, rows)
        return self._told(link, rows, found, left, explained(self.services, link, left, since), error)

    def _differences(self, link: Link, above: Connector, below: Connector, keys: Sequence[str]) -> pa.Table:
        routes = self.federation.config.tree.routes(link.lower.level)
        secret = self.services.keyring.fingerprint
        return differences(link, read_keys(above, keys), read_keys(below, keys), routes, secret)

    def _merged(
        self, link: Link, above: Connector, below: Connector, found: pa.Table
    ) -> tuple[pa.Table, datetime | None, FedsyncError | None]:
        """What is left of the differences after the merge, when that began, and why it did not come about."""
        left, since = found, None
        for _ in range(ROUNDS):
            keys = left.column("key").to_pylist()
            run = KeyedRun(self.services, link, Ends(above, below), keys)
            since = run.started
            try:
                run.run()
            except FedsyncError as error:
                return left, None, error
            left = self._differences(link, above, below, keys)
            if None not in explained(self.services, link, left, since):
                break
        return left, since, None

    def _told(
        self,
        link: Link,
        rows: int,
        found: pa.Table,
        left: pa.Table,
        reasons: list[str | None],
        error: FedsyncError | None,
    ) -> Comparison:
        counts = Counter(reasons)
        unexplained = counts.pop(None, 0)
        kinds = Counter(found.column("kind").to_pylist())
        if self.repair and unexplained and error is None:
            error = _unexplained(link.contract.dataset, link, unexplained)
        told = Comparison(
            link.id,
            link.upper.code,
            link.lower.code,
            rows,
            {kind: kinds[kind] for kind in KINDS},
            found.num_rows - left.num_rows,
            {reason: count for reason, count in counts.items() if reason is not None},
            unexplained,
            tuple(
                Difference(line["key"], line["kind"], why)
                for line, why in zip(left.to_pylist(), reasons)
                if self.tell_keys
            ),
            None,
            error,
        )
        if self.repair and found.num_rows:
            counted = {**told.found, "repaired": told.repaired, "explained": told.explained, "unexplained": unexplained}
            with self.services.ledger.transaction() as connection:
                self.services.ledger.audit(connection, self.actor, "link.reconcile", link.id, json.dumps(counted))
        return told


def _skipped(link: Link, why: str) -> Comparison:
    return Comparison(link.id, link.upper.code, link.lower.code, skipped=why)


def _failed(link: Link, error: FedsyncError, rows: int = 0) -> Comparison:
    told = error.at(dataset=link.contract.dataset.name, link=link.id)
    return Comparison(link.id, link.upper.code, link.lower.code, rows, error=told)


def _unexplained(dataset: Dataset, link: Link, count: int) -> FedsyncError:
    return FedsyncError(
        f"{count} record(s) still differ at both ends after the merge, and nothing explains it",
        f"合并后仍有 {count} 条记录两端不一致，且没有原因",
        todo=f"查看是哪些 / see which: fedsync reconcile {dataset.name} --region {link.lower.code} --dry-run --keys",
        dataset=dataset.name,
        link=link.id,
        region=str(link.lower),
    )
