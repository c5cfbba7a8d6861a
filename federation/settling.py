"""The last step of a link run: one ledger transaction that moves the baseline, the cursors and everything that people are told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property, partial

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection

from federation.accounting import Account, account
from federation.config import Link
from federation.correcting import due_date
from federation.delivery import Judged, delivered
from federation.failpoints import reached
from federation.ledger import receipts
from federation.ledger.baselines import Manifest
from federation.ledger.contests import Contest
from federation.ledger.links import Lease, LinkState
from federation.ledger.tombstones import Tombstone
from federation.merge import Advance, Plan, advance
from federation.outcome import Outcome
from federation.proposals import Proposer, claims_of, faults_of, node_faults
from federation.reading import KEY, Reading, only
from federation.returning import Origins
from federation.services import Services
from federation.sides import End
from federation.tombs import arrivals, removals_schema, stones_of
from federation.vector import query
from federation.vouch import Evidence

MANY = 20_000
"""Decisions from which on a thread of its own pays."""


@dataclass(frozen=True)
class Round:
    """One attempt's findings, from read to gate. Pairs are (upper, lower).

    `known`: the baseline of the keys that the readings may be about, with `at`, since when.
    """

    upper: Reading
    lower: Reading
    ends: tuple[End, End]
    known: pa.Table
    manifest: Manifest
    plan: Plan
    down: Judged
    up: Judged
    meanings: dict[str, str]
    evidence: tuple[Evidence, Evidence]

    @cached_property
    def change(self) -> Advance:
        """How the baseline moves on."""
        return advance(self.plan, self.down.blocked, self.up.blocked)

    @cached_property
    def baseline(self) -> pa.Table:
        """What was agreed on, as a merge takes it."""
        return self.known.drop_columns(["at"])

    @cached_property
    def agreed(self) -> pa.Array:
        """The keys of `baseline`."""
        return self.baseline.column("key").combine_chunks()


@dataclass
class Settlement:
    """Settles one round of a link run. `ruled`: corrections that moved on before it. `changed`: whether people have news."""

    services: Services
    link: Link
    run_id: str
    started: datetime
    found: Round
    full: bool
    ruled: int
    changed: bool = False
    crossed: tuple[int, int] = (0, 0)
    _standing: list[Contest] = field(default_factory=list)

    def settle(self, lease: Lease, state: LinkState, **position: str | None) -> Outcome:
        """Write everything. Raises AccountingError, and LeaseLost if another runner took the link over: then nothing is written."""
        services, found, now = self.services, self.found, self.services.ledger.clock()
        accounts = self._accounts
        reached("baseline.file.before")
        stamp = receipts.milliseconds(now)
        manifest = services.baselines.write(
            self.link.id, found.manifest, found.meanings, found.change, stamp, found.known
        )
        reached("baseline.file.after")
        self._standing = services.contests.of_link(self.link.id)
        refused = {contest.key for contest in self._standing if contest.state == "refused"}
        faults = faults_of(self.link, found.down, found.up, found.ends, found.plan, refused, self._origins())
        unreadable = node_faults(self.link.lower, self.link.contract.dataset, found.lower)
        removals = self._removals()
        acted = self._acted()
        forgotten = set(found.plan.acting("forget").to_pylist())
        # What both ends had lost by themselves is nobody's news unless another link still knows it.
        told = [s for s in stones_of(services, self.link, removals, now) if s.link_id or s.key not in forgotten]
        stones = [*told, *self._passed_on(acted[0])]
        marks = {
            evidence.side: services.mark(self.link, evidence.side, _by_id(evidence)) for evidence in found.evidence
        }
        moved = self._outcome(accounts).moved
        expired = services.expired(self.link.contract.dataset)
        reached("settle.before")
        with services.ledger.transaction() as connection:
            services.links.settle(
                connection,
                lease,
                **position,
                baseline=manifest.dump(),
                intent=None,
                state="ok",
                reason_zh=None,
                reason_en=None,
                released=False,
                last_run=now,
                last_ok=now,
                last_full=now if self.full else state.last_full,
                last_moved=now if moved else state.last_moved,
            )
            reached("settle.pointer")
            self._receipts(connection, now)
            released = services.quarantine.record_run(
                connection, self.link, self.link.contract.dataset, found.upper, found.lower, faults, unreadable
            )
            if self.full:
                services.quarantine.purge(connection, self.link.contract.dataset.name, expired)
            self._corrections(connection, removals)
            self._contests(connection)
            self._tombstones(connection, stones, [*acted[0], *acted[1]])
            services.waiting.replace(connection, self.link.id, self._waits, marks)
            outcome = self._outcome(accounts)
            services.links.record_run(connection, outcome, self.started, now, "ok")
            if outcome.moved or faults:
                services.ledger.audit(connection, "engine", "link.settle", self.link.id, json.dumps(outcome.summary()))
        reached("settle.after")
        services.baselines.collect(self.link.id, manifest)
        self.changed = bool(faults or unreadable or released or self.ruled or sum(self.crossed))
        return outcome

    def _origins(self) -> Origins:
        gate = self.services.gates[self.link.contract.dataset.name]
        rules = gate.suite.by_name if gate else {}
        return Origins(
            self.services, self.link, rules, pa.concat_arrays([self.found.down.blocked, self.found.up.blocked])
        )

    @contextmanager
    def ahead(self) -> Iterator[None]:
        """While the ends are written: work out what does not depend on how that goes, where it is worth a thread."""
        if self.found.plan.decisions.num_rows < MANY:
            yield
            return
        with ThreadPoolExecutor(1) as worker:
            working = worker.submit(lambda: (self._accounts, self._brought))
            yield
        working.result()

    @cached_property
    def _accounts(self) -> tuple[Account, Account]:
        found = self.found
        judged = (found.plan, found.agreed, found.down.blocked, found.up.blocked)
        return account("upper", found.ends[0], *judged), account("lower", found.ends[1], *judged)

    def _outcome(self, accounts: tuple[Account, Account]) -> Outcome:
        found = self.found
        held_back = pc.is_in(found.down.delivery.removals, found.up.blocked)
        return Outcome(
            run_id=self.run_id,
            link_id=self.link.id,
            upper=self.link.upper.code,
            lower=self.link.lower.code,
            descended=sum(rows.num_rows for _, rows in found.down.delivery.parts),
            ascended=sum(rows.num_rows for _, rows in found.up.delivery.parts),
            removed_below=len(held_back) - (pc.sum(held_back).as_py() or 0),
            removed_above=len(found.up.delivery.removals),
            quarantined=accounts[0].quarantined + accounts[1].quarantined,
            held=accounts[0].held + accounts[1].held,
            warned=found.down.warned + found.up.warned,
            corrections_up=self.crossed[0],
            corrections_down=self.crossed[1],
            ruled=self.ruled,
            accounts={"upper": asdict(accounts[0]), "lower": asdict(accounts[1])},
        )

    def _removals(self) -> pa.Table:
        """What this run removes from an end, or finds gone from both (`tombs.removals_schema`): a record that is forgotten here because
        one end was entitled to remove it is known to other links of the other end, where it would else come back."""
        found, groups = self.found, [group.name for group in self.found.plan.groups]
        schema = removals_schema(groups)
        if not len(found.change.removed):
            return schema.empty_table()
        jurisdiction = self.link.contract.dataset.jurisdiction
        stones = found.evidence[0].stones
        fps = ", ".join(f"base_{g} AS fp_{g}" for g in groups)
        return query(
            f"""
            WITH lost AS (
                SELECT d.*, u.state = 'left' AS away, coalesce(u.entitled, false) AS told_above,
                    coalesce(l.entitled, false) AS told_below, coalesce(l.moved, false) AS moved_below
                FROM d JOIN gone ON gone.key = d.key LEFT JOIN u ON u.key = d.key LEFT JOIN l ON l.key = d.key
            ),
            removed AS (
                SELECT *, CASE WHEN action = 'delete_up' THEN 'upper' ELSE 'lower' END AS removed, moved AS elsewhere
                FROM lost WHERE action <> 'forget' OR away OR told_above
                UNION ALL
                SELECT *, 'upper', moved_below FROM lost WHERE action = 'forget' AND NOT away AND told_below
            )
            SELECT r.key, r.removed,
                CASE WHEN action = 'retract' OR away OR elsewhere THEN 'moved' ELSE 'deleted' END AS kind,
                CASE WHEN action = 'retract' OR away THEN rows."{jurisdiction}" ELSE stones.destination END AS destination,
                action = 'retract' OR action = 'forget' AND away AS left, {fps}
            FROM removed r LEFT JOIN rows ON rows."{KEY}" = r.key LEFT JOIN stones ON stones.key = r.key
            """,
            d=found.plan.decisions,
            gone=pa.table({"key": found.change.removed}),
            u=found.ends[0].side.rows.select(["key", "state", "entitled"]),
            l=found.ends[1].side.rows.select(["key", "entitled", "moved"]),
            rows=found.ends[0].rows.select([KEY, jurisdiction]),
            stones=pa.table(
                {
                    "key": pa.array([stone.key for stone in stones], pa.string()),
                    "destination": pa.array([stone.destination for stone in stones], pa.string()),
                }
            ),
        ).cast(schema)

    def _corrections(self, connection: Connection, removals: pa.Table) -> None:
        """Raise, let pass, compare, redirect: everything that this run means for corrections."""
        services, found, contract = self.services, self.found, self.link.contract
        tree, corrections = services.config.tree, services.corrections
        secret = services.keyring.fingerprint
        moved = {row["key"]: row["destination"] for row in removals.to_pylist() if row["kind"] == "moved"}
        proposer = Proposer(self.link, tree, secret, moved)
        corrections.record(
            connection,
            proposer.proposals(found.plan, found.ends),
            lambda _: due_date(services.ledger.clock(), contract.dataset.correction_days),
        )
        self._redirect(connection, moved)
        self._taken_back(connection)
        done = [group.name for group in found.plan.groups]
        if found.plan.decisions.num_rows:
            settled = found.plan.where(" OR ".join(f"move_{name} <> 0" for name in done))
            corrections.restored(connection, self.link.id, settled.column("key").to_pylist())
        self.crossed = services.cross(connection, self.link)
        for reading, region in ((found.upper, self.link.upper), (found.lower, self.link.lower)):
            self.ruled += services.desk(contract.dataset, region).check(connection, reading)

    def _redirect(self, connection: Connection, moved: Mapping[str, str | None]) -> None:
        """A record moved: what was on its way to its old place goes to the new one."""
        services, dataset = self.services, self.link.contract.dataset
        tree = services.config.tree
        for correction in services.corrections.open_about(connection, dataset.name, list(moved)):
            place, target = moved[correction.key], correction.target
            if target is None or target not in tree or place is None or place not in tree:
                continue
            level = tree[target].level
            inside = tree.ancestor(target, self.link.lower.level) == self.link.lower
            heir = tree.ancestor(place, level)
            if inside and heir is not None and heir.code != target:
                services.corrections.retarget(connection, correction, heir.code)

    def _taken_back(self, connection: Connection) -> None:
        """Under the policy `hold`, a proposal whose node shows the authority's value again was withdrawn."""
        services, dataset = self.services, self.link.contract.dataset
        found = self.found
        for region, end, reading in (
            (self.link.upper, found.ends[0], found.upper),
            (self.link.lower, found.ends[1], found.lower),
        ):
            standing = services.corrections.open_of(connection, dataset.name, region.code, self.link.id)
            if not standing:
                continue
            wanted = {correction.key for correction in standing}
            rows = only(end.rows, pa.array(sorted(wanted), pa.string()))
            self.ruled += services.desk(dataset, region).taken_back(connection, standing, rows, reading.absent(wanted))

    def _contests(self, connection: Connection) -> None:
        claims = claims_of(self.link, self.services.config.tree, self.found.plan, self.found.ends)
        ends = self.found.ends
        standing = {contest.key for contest in self._standing}
        seen = {*ends[1].side.rows.column("key").to_pylist(), *self.found.lower.absent(standing)} if standing else set()
        review = self.link.contract.dataset.on_contest == "review"
        self.services.contests.record(connection, self.link.id, claims, seen, "open" if review else "refused")

    def _acted(self) -> list[list[str]]:
        """Per end, the keys of the tombstones that this run has acted on."""
        found = self.found
        open_ = set(self._waits.column("key").to_pylist())
        open_ |= {key for judged in (found.down, found.up) for key in judged.blocked.to_pylist()}
        acted = []
        for end, evidence in zip(found.ends, found.evidence):
            spoken = set(end.side.rows.column("key").to_pylist()) if evidence.stones else set()
            acted.append([stone.key for stone in evidence.stones if stone.key in spoken - open_])
        return acted

    def _passed_on(self, acted: list[str]) -> list[Tombstone]:
        """A record came back to this branch before its removal had come all the way down: the links below must know as well."""
        arrived = {stone.key for stone in self.found.evidence[0].stones if stone.kind == "arrived"}
        return arrivals(self.services, self.link, sorted(arrived & set(acted)))

    def _tombstones(self, connection: Connection, stones: list[Tombstone], acted: list[str]) -> None:
        tombstones, dataset = self.services.tombstones, self.link.contract.dataset.name
        tombstones.place(connection, stones)
        tombstones.acknowledge(connection, self.link.id, acted)
        for action, region in (("seed_down", self.link.lower), ("seed_up", self.link.upper)):
            tombstones.returned(connection, dataset, region.code, partial(self._back, action))
        tombstones.purge(connection)

    def _back(self, action: str, keys: pa.Array) -> pa.Array:
        """Which of these records this run brought back by this action."""
        brought = keys.filter(pc.is_in(keys, self.found.plan.acting(action)))
        return brought.filter(pc.is_in(brought, self.found.change.upserts.column("key").combine_chunks()))

    @cached_property
    def _waits(self) -> pa.Table:
        """key, side: what could not be decided, or not be done: in doubt, unreadable at one end while the other end went on, or to be
        removed below once the gate lets an edit of it pass above."""
        found = self.found
        removals = found.down.delivery.removals
        delayed = removals.filter(pc.is_in(removals, found.up.blocked))
        parts = [
            found.plan.waiting,
            pa.table({"key": delayed, "side": pa.array(["upper"] * len(delayed), pa.string())}),
        ]
        for side, end in (("upper", found.ends[0]), ("lower", found.ends[1])):
            stuck = end.side.frozen.filter(pc.is_in(end.side.frozen, found.agreed))
            keys = pa.concat_arrays([end.waiting, stuck])
            parts.append(pa.table({"key": keys, "side": pa.array([side] * len(keys), pa.string())}))
        return pa.concat_tables(parts)

    def _receipts(self, connection: Connection, now: datetime) -> None:
        """What each node holds now because of this run. A removal below that waits for an edit above has not happened."""
        for region, brought in zip((self.link.lower, self.link.upper), self._brought):
            receipts.enter(connection, self.run_id, self.link.id, region.code, brought, now)

    @cached_property
    def _brought(self) -> tuple[receipts.Brought, receipts.Brought]:
        """To the lower and to the upper end."""
        found, held_back = self.found, pc.is_in(self.found.down.delivery.removals, self.found.up.blocked)
        removed = found.down.delivery.removals.filter(pc.invert(held_back))
        down, up = found.down.delivery, found.up.delivery
        return (
            receipts.brought(delivered(found.plan, down, "down"), removed),
            receipts.brought(delivered(found.plan, up, "up"), up.removals),
        )


def _by_id(evidence: Evidence) -> dict[str, LinkState]:
    return {state.link_id: state for state in evidence.beyond}
