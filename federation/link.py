"""One link run: lease → read → merge → gate → apply → settle (design: the commit protocol).

A crash between any two steps is repaired by running again: nothing is remembered but what the settling transaction wrote, and
everything applied before it is idempotent.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from connectors.base import Applied, Batch, Connector
from federation.accounting import Account, account
from federation.config import Config, Link
from federation.delivery import Judged, batch_of, judge, plan_delivery
from federation.errors import AccountingError, Conflict, FedsyncError, LinkHeld, located
from federation.gate import Gate
from federation.guards import check_guards, check_share
from federation.ledger.baselines import Baselines, Manifest
from federation.ledger.corrections import Corrections
from federation.ledger.links import Lease, Links, LinkState
from federation.ledger.quarantine import Quarantine
from federation.ledger.schema import receipt as receipt_table
from federation.ledger.schema import run as run_table
from federation.ledger.store import Ledger
from federation.merge import Plan, advance, merge
from federation.outcome import Outcome
from federation.proposals import faults_of, node_faults, proposals_of
from federation.reading import KEY, Reading, read_node, refetched
from federation.secrets import Keyring
from federation.sides import End, lower_end, upper_end

ATTEMPTS = 3
"""How often a link run starts anew because an end was edited between our read and our write."""


@dataclass(frozen=True)
class Services:
    """What a link run works with; one per process."""

    config: Config
    ledger: Ledger
    links: Links
    baselines: Baselines
    quarantine: Quarantine
    corrections: Corrections
    keyring: Keyring
    gates: dict[str, Gate | None]


@dataclass
class Ends:
    """The two open connectors of a link.

    `upper_cursor`: the state of a conditional upper end after our own last write. `upper_token`: its probe token then, if
    nobody else wrote since it was read.
    """

    upper: Connector
    lower: Connector
    upper_cursor: str | None = None
    upper_token: str | None = None


@dataclass(frozen=True)
class _Round:
    """One attempt's findings, from read to gate."""

    upper: Reading
    lower: Reading
    ends: tuple[End, End]
    agreed: pa.Array
    manifest: Manifest
    plan: Plan
    down: Judged
    up: Judged
    meanings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Position:
    """How far an end was read, and its probe token then."""

    cursor: str | None
    token: str | None

    def after(self, applied: Applied | None) -> _Position:
        """Where the end stands after our write, if nobody else wrote since; a cursor that does not count writes stays."""
        if applied is None or applied.token is None:
            return self
        return _Position(applied.cursor or self.cursor, applied.token)


class LinkRun:
    """Runs one link once. `reading`: what was read of the parent for all its children; None: this run reads it itself."""

    def __init__(self, services: Services, link: Link, ends: Ends, *, force_full: bool = False) -> None:
        self.services = services
        self.link = link
        self.ends = ends
        self.dataset = link.contract.dataset
        self.gate = services.gates[self.dataset.name]
        self.force_full = force_full
        self.run_id = uuid.uuid4().hex
        self._trusts_tokens = True

    def run(self, reading: Reading | None = None) -> Outcome:
        """Sync the link. Raises LinkHeld, LeaseHeld, and whatever a connector raises; each names the link."""
        with located(dataset=self.dataset.name, link=self.link.id, region=str(self.link.lower)):
            lease, state = self.services.links.acquire(self.link)
            try:
                return self._attempts(lease, state, reading)
            except FedsyncError as error:
                self._settle_failure(lease, error)
                raise
            finally:
                self.services.links.let_go(lease)

    def _attempts(self, lease: Lease, state: LinkState, reading: Reading | None) -> Outcome:
        for attempt in range(ATTEMPTS):
            try:
                return self._once(lease, state, reading)
            except Conflict:
                if attempt + 1 == ATTEMPTS:
                    raise
                reading, self.ends.upper_cursor, self.ends.upper_token = None, None, None
                self._trusts_tokens = False
        raise AssertionError("unreachable")

    def _once(self, lease: Lease, state: LinkState, reading: Reading | None) -> Outcome:
        full = self.full_due(state)
        found = self._read(state, reading, full)
        if found is None:
            return self._quiet(lease, state)
        check_guards(self.link, found.ends, found.agreed, released=state.released)
        check_share(self.link, self.gate, found.down, found.up, released=state.released)
        positions = self._apply(found)
        return self._settle(lease, state, found, full, positions)

    @cached_property
    def identity(self) -> str:
        """The checkpoint's identity: contract, gate and scope of both ends. Another one forces a full merge."""
        config = self.services.config
        ends = [config.binding(self.dataset.name, region.code) for region in (self.link.upper, self.link.lower)]
        parts = [
            self.dataset.model_dump_json(),
            self.gate.identity if self.gate else "",
            *(
                json.dumps([end.system, end.options, end.columns, end.hosted], default=str, sort_keys=True)
                for end in ends
            ),
            self.link.lower.code,
        ]
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()

    def full_due(self, state: LinkState) -> bool:
        """Whether both ends must be read whole: never done, another identity, or the contract's term is over."""
        if self.force_full or state.last_full is None or state.identity != self.identity:
            return True
        return self.services.ledger.clock() - state.last_full >= timedelta(minutes=self.dataset.full_every)

    def _read(self, state: LinkState, reading: Reading | None, full: bool) -> _Round | None:
        replayed = self._replayed()
        if state.last_ok is None:
            self.ends.upper.prepare()
            self.ends.lower.prepare()
        upper = self._read_upper(state, reading, full, replayed)
        lower = self._read_lower(state, full, replayed)
        if not upper.anything and not lower.anything and upper.present is None and lower.present is None:
            return None
        return self._merge(state, upper, lower)

    def _read_upper(
        self, state: LinkState, reading: Reading | None, full: bool, replayed: dict[str, set[str]]
    ) -> Reading:
        """What was read for all children, if it covers this link's cursor; else a read of our own."""
        covers = reading is not None and (reading.complete or (not full and reading.since == state.upper_cursor))
        if reading is None or not covers or reading.fences.get(self.link.id) != state.fence:
            return self._read_end(self.ends.upper, state, full, replayed["down"], state.upper_cursor, state.upper_token)
        if replayed["down"] and not reading.complete:
            return refetched(self.ends.upper, reading, pa.array(sorted(replayed["down"]), pa.string()))
        return reading

    def _read_lower(self, state: LinkState, full: bool, replayed: dict[str, set[str]]) -> Reading:
        again = replayed["up"] | replayed["read"]
        return self._read_end(self.ends.lower, state, full, again, state.lower_cursor, state.lower_token)

    def _read_end(
        self, end: Connector, state: LinkState, full: bool, again: set[str], cursor: str | None, token: str | None
    ) -> Reading:
        settled = token if self._trusts_tokens and not full and state.state == "ok" else None
        return read_node(end, None if full else cursor, sweep=full, again=again, settled=settled)

    def _replayed(self) -> dict[str, set[str]]:
        asked: dict[str, set[str]] = {"up": set(), "down": set(), "read": set()}
        for item in self.services.quarantine.open_items(link_id=self.link.id, state="replay"):
            asked[item.direction].add(item.key)
        return asked

    def _merge(self, state: LinkState, upper: Reading, lower: Reading) -> _Round:
        contract, secret = self.link.contract, self.services.keyring.fingerprint
        meanings = {group.name: self._meaning(group.fields) for group in contract.groups}
        manifest = Manifest.parse(state.baseline)
        baseline = self.services.baselines.read(manifest, meanings)
        agreed = baseline.column("key").combine_chunks()
        routes = self.services.config.tree.routes(self.link.lower.level)
        for _ in range(ATTEMPTS):
            spoken = pa.concat_arrays(
                [lower.rows.column(KEY).combine_chunks(), lower.outside.column(KEY).combine_chunks()]
            )
            above = upper_end(self.link, upper, routes, agreed, spoken, secret)
            below = lower_end(self.link, lower, agreed, above.rows.column(KEY).combine_chunks(), secret)
            plan = merge(baseline, above.side, below.side, contract)
            if not len(plan.needs_upper) and not len(plan.needs_lower):
                break
            if len(plan.needs_upper):
                upper = refetched(self.ends.upper, upper, plan.needs_upper)
            if len(plan.needs_lower):
                lower = refetched(self.ends.lower, lower, plan.needs_lower)
        else:
            raise Conflict(
                "the ends kept changing while they were read", "读取期间数据不断变化", todo="稍后重试 / try again later"
            )
        down = judge(plan_delivery(plan, contract, "down", above.rows), self.gate)
        up = judge(plan_delivery(plan, contract, "up", below.rows), self.gate)
        return _Round(upper, lower, (above, below), agreed, manifest, plan, down, up, meanings)

    def _meaning(self, fields: tuple[str, ...]) -> str:
        specs = [
            (name, self.dataset.fields[name].model_dump(include={"type", "scale", "normalise"})) for name in fields
        ]
        return hashlib.sha256(json.dumps(specs).encode()).hexdigest()[:16]

    def _apply(self, found: _Round) -> tuple[_Position, _Position]:
        """Up first: a record that is retracted below must have handed over its people's last edits.

        Returns where both ends stand after our writes; where somebody else may have written as well, where they stood before.
        """
        contract, ends, nothing = self.link.contract, self.ends, pa.array([], pa.string())
        upper = _Position(ends.upper_cursor or found.upper.cursor, ends.upper_token or found.upper.token)
        up = batch_of(found.up.delivery, contract, upper.cursor, nothing)
        applied = self._write(ends.upper, replace(up, token=upper.token))
        if applied is not None:
            ends.upper_cursor = applied.cursor or ends.upper_cursor
            ends.upper_token = applied.token or ends.upper_token
        lower = _Position(found.lower.cursor, found.lower.token)
        down = batch_of(found.down.delivery, contract, lower.cursor, found.up.blocked)
        return upper.after(applied), lower.after(self._write(ends.lower, replace(down, token=lower.token)))

    def _write(self, end: Connector, batch: Batch) -> Applied | None:
        rows, keys = sum(part.num_rows for part in batch.upserts), batch.deletes.num_rows
        if not rows and not keys:
            return None
        if not end.capabilities.conditional:
            batch = replace(batch, cursor=None)
        applied = end.apply(batch)
        if (applied.written, applied.deleted) != (rows, keys):
            raise AccountingError(
                f"asked {end.node.region} to write {rows} and delete {keys}, it confirmed {applied.written} and {applied.deleted}",
                "写入数目与确认数目不符",
                todo="检查目标系统 / look at the target system",
            )
        return applied

    def _settle(
        self, lease: Lease, state: LinkState, found: _Round, full: bool, positions: tuple[_Position, _Position]
    ) -> Outcome:
        services, now = self.services, self.services.ledger.clock()
        accounts = self._accounts(found)
        change = advance(found.plan, found.down.blocked, found.up.blocked)
        manifest = services.baselines.write(self.link.id, found.manifest, found.meanings, change)
        outcome = self._outcome(found, accounts)
        faults = faults_of(self.link, found.down, found.up, found.ends)
        unreadable = node_faults(self.link.lower, self.dataset, found.lower)
        with services.ledger.transaction() as connection:
            services.links.settle(
                connection,
                lease,
                identity=self.identity,
                baseline=manifest.dump(),
                upper_cursor=positions[0].cursor,
                lower_cursor=positions[1].cursor,
                upper_token=positions[0].token,
                lower_token=positions[1].token,
                state="ok",
                reason_zh=None,
                reason_en=None,
                released=False,
                last_run=now,
                last_ok=now,
                last_full=now if full else state.last_full,
                last_moved=now if outcome.moved else state.last_moved,
            )
            self._receipts(connection, found)
            released = services.quarantine.record_run(
                connection, self.link, self.dataset, found.upper, found.lower, faults, unreadable
            )
            services.corrections.record(connection, proposals_of(self.link, found.plan, found.ends))
            self._record_run(connection, outcome)
            if outcome.moved or faults:
                services.ledger.audit(connection, "engine", "link.settle", self.link.id, json.dumps(outcome.summary()))
        services.baselines.collect(self.link.id, manifest)
        self._notify(bool(faults or unreadable or released))
        return outcome

    def _accounts(self, found: _Round) -> tuple[Account, Account]:
        judged = (found.plan, found.agreed, found.down.blocked, found.up.blocked)
        return account("upper", found.ends[0], *judged), account("lower", found.ends[1], *judged)

    def _outcome(self, found: _Round, accounts: tuple[Account, Account]) -> Outcome:
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
            accounts={"upper": asdict(accounts[0]), "lower": asdict(accounts[1])},
        )

    def _receipts(self, connection: Any, found: _Round) -> None:
        for region, judged in ((self.link.lower, found.down), (self.link.upper, found.up)):
            written = sum(rows.num_rows for _, rows in judged.delivery.parts)
            if not written and not len(judged.delivery.removals):
                continue
            keys = [key for _, rows in judged.delivery.parts for key in rows.column(KEY).to_pylist()]
            content = hashlib.sha256(
                "\n".join(sorted([*keys, *judged.delivery.removals.to_pylist()])).encode()
            ).hexdigest()
            connection.execute(
                receipt_table.insert().values(
                    run_id=self.run_id,
                    link_id=self.link.id,
                    region=region.code,
                    written=written,
                    deleted=len(judged.delivery.removals),
                    content=content,
                    at=self.services.ledger.clock(),
                )
            )

    def _record_run(self, connection: Any, outcome: Outcome, error: FedsyncError | None = None) -> None:
        now = self.services.ledger.clock()
        result = "ok" if error is None else "held" if isinstance(error, LinkHeld) else "failed"
        connection.execute(
            run_table.insert().values(
                run_id=self.run_id,
                link_id=self.link.id,
                started=now,
                finished=now,
                outcome=result,
                counts=json.dumps(outcome.summary()),
                error=str(error) if error else None,
            )
        )

    def _quiet(self, lease: Lease, state: LinkState) -> Outcome:
        """Nothing changed at either end: note that we looked, and no more."""
        now = self.services.ledger.clock()
        with self.services.ledger.transaction() as connection:
            self.services.links.settle(connection, lease, last_run=now, last_ok=now)
        self._notify(False)
        return Outcome.nothing(self.run_id, self.link.id, self.link.upper.code, self.link.lower.code)

    def _settle_failure(self, lease: Lease, error: FedsyncError) -> None:
        held = isinstance(error, LinkHeld)
        now = self.services.ledger.clock()
        with self.services.ledger.transaction() as connection:
            self.services.links.settle(
                connection,
                lease,
                state="held" if held else "failed",
                reason_zh=error.zh,
                reason_en=str(error),
                last_run=now,
            )
            nothing = Outcome.nothing(self.run_id, self.link.id, self.link.upper.code, self.link.lower.code)
            self._record_run(connection, nothing, error)

    def _notify(self, changed: bool) -> None:
        """Show the people at both ends what was handed back to them."""
        for end, region in ((self.ends.lower, self.link.lower), (self.ends.upper, self.link.upper)):
            if not end.capabilities.returns:
                continue
            items = self.services.quarantine.open_items(dataset=self.dataset.name, origin=region.code)
            if items or changed:
                end.notify(self.services.quarantine.returns(items, self.dataset))
