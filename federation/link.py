"""One link run: lease → read → merge → gate → apply → settle (design: the commit protocol).

A crash between any two steps is repaired by running again: nothing is remembered but what the settling transaction wrote, and
everything applied before it is idempotent.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from connectors.base import Applied, Batch, Connector
from federation.canonical import regions_of
from federation.config import Link
from federation.correcting import Desk
from federation.delivery import FAILURE, Delivery, Judged, batch_of, judge, plan_delivery
from federation.errors import AccountingError, Conflict, FedsyncError, LinkHeld, located
from federation.etags import conditioned, unread
from federation.failpoints import reached
from federation.guards import check_clock, check_guards, check_schema, check_share
from federation.handover import not_handed_over
from federation.intents import intent_of, recovered
from federation.ledger.baselines import Manifest
from federation.ledger.links import Lease, LinkState
from federation.merge import Rulings, merge
from federation.merge_sql import UP
from federation.outcome import Outcome
from federation.reading import KEY, Reading, concerns, read_node, refetched, spoken_of
from federation.receipts import show_receipts
from federation.regions import Region
from federation.rejudging import undecided
from federation.reparenting import adopt
from federation.services import Services
from federation.settling import Round, Settlement
from federation.sides import lower_end, upper_end
from federation.surroundings import Surroundings
from federation.vouch import Evidence, SideName
from federation.waiving import Waiving

ATTEMPTS = 3
"""How often a link run starts anew because an end was edited between our read and our write."""


@dataclass
class Ends:
    """The two open connectors of a link.

    `upper_cursor`: the state of a conditional upper end after our own last write. `upper_token`: its probe token then, if
    nobody else wrote since it was read. `touched`: keys that were written to the upper end since the shared reading was taken;
    `displaced`: those among them that may have been another child's before.
    """

    upper: Connector
    lower: Connector
    upper_cursor: str | None = None
    upper_token: str | None = None
    touched: frozenset[str] = frozenset()
    displaced: frozenset[str] = frozenset()


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
        self.started = services.ledger.clock()
        self._trusts_tokens = True
        self._corrections = True
        self._refused = False

    def run(self, reading: Reading | None = None) -> Outcome:
        """Sync the link. Raises LinkHeld, LeaseHeld, and whatever a connector raises; each names the link."""
        with located(dataset=self.dataset.name, link=self.link.id, region=str(self.link.lower)):
            lease, state = self.services.links.acquire(self.link)
            try:
                reached("lease.taken")
                with self.services.links.kept(lease):
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
                self._trusts_tokens, self._refused = False, True
                # Some of what was decided may have been written before the conflict showed: the next attempt has to know it for ours.
                state = self.services.links.state(self.link)
        raise AssertionError("unreachable")

    def _once(self, lease: Lease, state: LinkState, reading: Reading | None) -> Outcome:
        check_clock(self.link, state, self.services.ledger.clock())
        if state.identity != self.identity:
            self._refuse_left_behind()
        if state.upper != self.link.upper.code:
            state = adopt(self.services, self.link, lease, state, self.ends.upper)
        if state.intent is not None:
            state = self._recover(lease, state)
            reading = None
        self._corrections = self.services.corrections.concern(
            self.dataset.name, (self.link.upper.code, self.link.lower.code)
        )
        ruled = self._desk(self.link.lower).work(self.ends.lower) if self._corrections else 0
        full = self.full_due(state)
        upper, lower = self._read(state, reading, full)
        if not upper.anything and not lower.anything and upper.present is None and lower.present is None:
            return self._quiet(lease, state, upper, lower, ruled)
        found = self._merge(state, upper, lower)
        settlement = Settlement(self.services, self.link, self.run_id, self.started, found, full, ruled)
        if not state.released:
            check_schema(self.link, (found.upper, found.lower), found.ends, found.baseline)
            check_guards(self.link, found.ends, found.baseline, found.manifest.rows, self.services.ledger.clock())
            check_share(self.link, self.gate, found.down, found.up)
        self._note_intent(lease, found)
        with settlement.ahead():
            positions = self._apply(found)
        outcome = settlement.settle(
            lease,
            state,
            identity=self.identity,
            upper_cursor=positions[0].cursor,
            lower_cursor=positions[1].cursor,
            upper_token=positions[0].token,
            lower_token=positions[1].token,
        )
        self._notify(settlement.changed, moved=outcome.moved)
        return outcome

    def _refuse_left_behind(self) -> None:
        """A node that was hosted and has a system by now: as long as that was not handed its records, they would look deleted."""
        for region in (self.link.upper, self.link.lower):
            if self.services.left_behind(self.services.config.binding(self.dataset.name, region.code)):
                raise not_handed_over(self.dataset.name, region)

    def _recover(self, lease: Lease, state: LinkState) -> LinkState:
        """Finish what a run that died, or was refused, was about to write: settle what of it did arrive."""
        reached("recover.before")
        upper, lower = self.ends.upper, self.ends.lower
        state = recovered(self.services, self.link, lease, state, upper, lower, self.run_id, refused=self._refused)
        self._trusts_tokens = False
        reached("recover.after")
        return state

    def _note_intent(self, lease: Lease, found: Round) -> None:
        """Write ahead what is about to change at both ends: proof for the neighbouring links, and for whoever takes over."""
        intent = intent_of(found.plan, found.change)
        if not intent.num_rows:
            return
        reached("intent.file.before")
        path = self.services.baselines.store_intent(self.link.id, intent)
        reached("intent.file.after")
        with self.services.ledger.transaction() as connection:
            self.services.links.settle(connection, lease, intent=path)
        reached("intent.noted")

    def _desk(self, region: Region) -> Desk:
        return self.services.desk(self.dataset, region)

    @cached_property
    def identity(self) -> str:
        """The checkpoint's identity (`federation.identity`). Another one forces a full merge."""
        return self.services.identities.of(self.link)

    def full_due(self, state: LinkState) -> bool:
        """Whether both ends must be read whole: never done, another identity, or the contract's term is over."""
        if self.force_full or state.last_full is None or state.identity != self.identity:
            return True
        return self.services.ledger.clock() - state.last_full >= timedelta(minutes=self.dataset.full_every)

    def _read(self, state: LinkState, reading: Reading | None, full: bool) -> tuple[Reading, Reading]:
        again = self._again(state)
        if state.identity != self.identity or state.last_ok is None:
            self.ends.upper.prepare()
            self.ends.lower.prepare()
        reached("upper.read.before")
        upper = self._read_upper(state, reading, full, again["upper"])
        reached("upper.read.after")
        reached("lower.read.before")
        lower = self._read_end(self.ends.lower, state, full, again["lower"], state.lower_cursor, state.lower_token)
        reached("lower.read.after")
        return upper, lower

    def _read_upper(self, state: LinkState, reading: Reading | None, full: bool, again: set[str]) -> Reading:
        """What was read for all children, if it covers this link's cursor; else a read of our own."""
        covers = reading is not None and (reading.complete or (not full and reading.since == state.upper_cursor))
        if reading is None or not covers or reading.fences.get(self.link.id) != state.fence:
            return self._read_end(self.ends.upper, state, full, again, state.upper_cursor, state.upper_token)
        if again and not reading.complete:
            return refetched(self.ends.upper, reading, pa.array(sorted(again), pa.string()))
        return reading

    def _read_end(
        self, end: Connector, state: LinkState, full: bool, again: set[str], cursor: str | None, token: str | None
    ) -> Reading:
        settled = token if self._trusts_tokens and not full and state.state == "ok" else None
        return read_node(end, None if full else cursor, sweep=full, again=again, settled=settled)

    def _again(self, state: LinkState) -> dict[str, set[str]]:
        """Keys to read at an end whether they changed there or not: replayed, waiting, contested, or to be compared."""
        services, dataset = self.services, self.dataset.name
        waits = services.waiting.keys(self.link.id)
        both = waits["upper"] | waits["lower"]
        again: dict[str, set[str]] = {"upper": set(both), "lower": set(both)}
        replayed = services.quarantine.open_items(link_id=self.link.id, state="replay")
        for item in (*replayed, *undecided(services, dataset, self.link.id)):
            again["upper" if item.direction == "down" else "lower"].add(item.key)
        contested = {contest.key for contest in services.contests.of_link(self.link.id)}
        again["upper"] |= contested
        again["lower"] |= contested
        if not self._corrections:
            return again
        again["lower"] |= {correction.key for correction in services.corrections.refused(self.link.id)}
        for side, region in (("upper", self.link.upper), ("lower", self.link.lower)):
            waiting = services.corrections.at_authority(dataset, region.code, "waiting")
            again[side] |= {correction.key for correction in waiting if not correction.checked}
        return again

    def _merge(self, state: LinkState, upper: Reading, lower: Reading) -> Round:
        reached("merge.before")
        contract, secret = self.link.contract, self.services.keyring.fingerprint
        meanings = self.services.meanings(contract)
        manifest = Manifest.parse(state.baseline)
        known = self._known(manifest, meanings, upper, lower)
        baseline = known.drop_columns(["at"])
        routes = self.services.config.tree.routes(self.link.lower.level)
        rulings = self._rulings()
        upper = self._up_to_date(upper, routes, [spoken_of(lower), baseline.column("key").combine_chunks()])
        for _ in range(ATTEMPTS):
            evidence = self._evidence("upper", meanings), self._evidence("lower", meanings)
            spoken = spoken_of(lower)
            above = upper_end(self.link, upper, routes, baseline, spoken, secret, evidence[0])
            told = above.rows.column(KEY).combine_chunks()
            below = lower_end(self.link, lower, baseline, told, secret, evidence[1])
            plan = merge(baseline, above.side, below.side, contract, rulings)
            needs_upper = pa.concat_arrays([plan.needs_upper, unread(self.ends.upper, upper, plan, "up")]).unique()
            needs_lower = pa.concat_arrays([plan.needs_lower, unread(self.ends.lower, lower, plan, "down")]).unique()
            if not len(needs_upper) and not len(needs_lower):
                break
            if len(needs_upper):
                upper = refetched(self.ends.upper, upper, needs_upper)
            if len(needs_lower):
                lower = refetched(self.ends.lower, lower, needs_lower)
        else:
            raise Conflict(
                "the ends kept changing while they were read", "读取期间数据不断变化", todo="稍后重试 / try again later"
            )
        down = self._judge("down", plan_delivery(plan, contract, "down", above.rows), above.rows, lower)
        up = self._judge("up", plan_delivery(plan, contract, "up", below.rows), below.rows, upper)
        reached("merge.after")
        return Round(upper, lower, (above, below), known, manifest, plan, down, up, meanings, evidence)

    def _known(self, manifest: Manifest, meanings: dict[str, str], upper: Reading, lower: Reading) -> pa.Table:
        """The baseline of whatever the two readings may be about, with times."""
        told = concerns(upper), concerns(lower)
        if told[0] is None or told[1] is None:
            return self.services.baselines.read(manifest, meanings, timed=True)
        keys = pa.concat_arrays([told[0], told[1], pa.array(sorted(self.ends.touched), pa.string())])
        return self.services.baselines.pick(manifest, meanings, keys, timed=True)

    def _judge(self, direction: str, delivery: Delivery, rows: pa.Table, held: Reading) -> Judged:
        """`rows`: all rows read where the delivery comes from; `held`: what was read where it goes to."""
        services, link = self.services, self.link
        source, goal = (link.upper, self.ends.lower) if direction == "down" else (link.lower, self.ends.upper)
        around = Surroundings(services, link, source, goal, held, delivery)
        standing = services.waivers.of_dataset(self.dataset.name) if self.gate is not None else []
        if self.gate is None or not standing:
            return judge(delivery, self.gate, around)
        waiving = Waiving(self.gate, services.waivers, standing, services.now().date())
        lapsed = waiving.lapsed(link.id, direction, rows, around).select(FAILURE.names).cast(FAILURE)
        return replace(judge(delivery, self.gate, around, waiving), lapsed=lapsed)

    def _up_to_date(self, upper: Reading, routes: Mapping[str, str], known: Sequence[pa.Array]) -> Reading:
        """The shared reading without what siblings have overwritten since: merged as it was read, it would undo their edits."""
        if not self.ends.touched:
            return upper
        placed = regions_of(upper.rows.column(self.dataset.jurisdiction), routes)
        mine = upper.rows.filter(pc.equal(placed, self.link.lower.code)).column(KEY).combine_chunks()
        touched = pa.array(sorted(self.ends.touched), pa.string())
        old = touched.filter(pc.is_in(touched, pa.concat_arrays([*known, mine])))
        return refetched(self.ends.upper, upper, old) if len(old) else upper

    def _evidence(self, side: SideName, meanings: dict[str, str]) -> Evidence:
        """What the links beyond an end agreed on. Asked after the end was read: what they agreed on before may be old."""
        services, link = self.services, self.link
        beyond, siblings = services.neighbours(link, side)
        region = link.upper if side == "upper" else link.lower
        states = services.links.states([*beyond, *siblings])
        return Evidence(
            side,
            services.baselines,
            meanings,
            [states[name] for name in beyond if name in states],
            [states[name] for name in siblings if name in states],
            services.tombstones.owed(link.id, region.code),
        )

    def _rulings(self) -> Rulings:
        services = self.services
        standing = services.corrections.refused(self.link.id) if self._corrections else []
        refused = [{"key": c.key, "group": c.group, "fp": c.group_fp} for c in standing]
        schema = pa.schema([("key", pa.string()), ("group", pa.string()), ("fp", pa.binary())])
        awarded = services.contests.awarded(self.link.id)
        return Rulings(pa.Table.from_pylist(refused, schema=schema), pa.array(awarded, pa.string()))

    def _apply(self, found: Round) -> tuple[_Position, _Position]:
        """Up first: a record that is retracted below must have handed over its people's last edits.

        Returns where both ends stand after our writes; where somebody else may have written as well, where they stood before.
        """
        contract, ends, nothing = self.link.contract, self.ends, pa.array([], pa.string())
        plan, secret = found.plan, self.services.keyring.fingerprint
        upper = _Position(ends.upper_cursor or found.upper.cursor, ends.upper_token or found.upper.token)
        up = batch_of(found.up.delivery, contract, upper.cursor, nothing, plan.expecting("up"), secret)
        if up.upserts or up.deletes.num_rows:
            # Noted before the write: one that fails half-way may have changed any of them, and siblings must read these keys anew.
            removed = found.up.delivery.removals.to_pylist()
            ends.touched |= {*found.up.delivery.written, *removed}
            ends.displaced |= {*self._placed(found), *removed}
        reached("upper.apply.before")
        applied = self._write(ends.upper, found.upper, replace(up, token=upper.token))
        reached("upper.apply.after")
        if applied is not None:
            ends.upper_cursor = applied.cursor or ends.upper_cursor
            ends.upper_token = applied.token or ends.upper_token
        lower = _Position(found.lower.cursor, found.lower.token)
        down = batch_of(found.down.delivery, contract, lower.cursor, found.up.blocked, plan.expecting("down"), secret)
        reached("lower.apply.before")
        written = self._write(ends.lower, found.lower, replace(down, token=lower.token))
        reached("lower.apply.after")
        return upper.after(applied), lower.after(written)

    def _placed(self, found: Round) -> list[str]:
        """Keys of rows that appear at the upper end, change their jurisdiction there, or are another child's already."""
        group = self.link.contract.group_of(self.dataset.jurisdiction)
        moved = f" OR move_{group.name} = {UP}" if group is not None else ""
        keys: list[str] = found.plan.where(f"action IN ('seed_up', 'retract'){moved}").column("key").to_pylist()
        return keys

    def _write(self, end: Connector, reading: Reading, batch: Batch) -> Applied | None:
        rows, keys = sum(part.num_rows for part in batch.upserts), batch.deletes.num_rows
        if not rows and not keys:
            return None
        if not end.capabilities.conditional:
            batch = replace(batch, cursor=None)
        applied = end.apply(conditioned(end, reading, batch))
        if (applied.written, applied.deleted) != (rows, keys):
            raise AccountingError(
                f"asked {end.node.region} to write {rows} and delete {keys}, it confirmed {applied.written} and {applied.deleted}",
                "写入数目与确认数目不符",
                todo="检查目标系统 / look at the target system",
            )
        return applied

    def _quiet(self, lease: Lease, state: LinkState, upper: Reading, lower: Reading, ruled: int) -> Outcome:
        """Nothing changed at either end: note that we looked, and how far, and let corrections pass.

        A token may differ though nothing that concerns us changed; were it not noted, the link would be woken again and again.
        """
        now, services = self.services.ledger.clock(), self.services
        mended = {"state": "ok", "reason_zh": None, "reason_en": None} if state.state == "failed" else {}
        with services.ledger.transaction() as connection:
            services.links.settle(
                connection,
                lease,
                upper_cursor=upper.cursor,
                lower_cursor=lower.cursor,
                upper_token=upper.token,
                lower_token=lower.token,
                last_run=now,
                last_ok=now,
                **mended,
            )
            crossed = services.cross(connection, self.link) if self._corrections else (0, 0)
        # after a run that had settled, but could not tell its people what became of theirs, there may be news
        self._notify(bool(sum(crossed) or ruled or mended), moved=False)
        return replace(
            Outcome.nothing(self.run_id, self.link.id, self.link.upper.code, self.link.lower.code),
            corrections_up=crossed[0],
            corrections_down=crossed[1],
            ruled=ruled,
        )

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
            word = "held" if held else "failed"
            self.services.links.record_run(connection, nothing, self.started, now, word, error=str(error))

    def _notify(self, changed: bool, *, moved: bool) -> None:
        """Show the people at both ends what was handed back to them, their corrections and their receipts."""
        reached("notify.before")
        for end, region in ((self.ends.lower, self.link.lower), (self.ends.upper, self.link.upper)):
            self.services.return_desk(self.dataset, region).show(end, changed=changed)
            if end.capabilities.corrections and (self._corrections or changed):
                shown = self._desk(region).shown()
                if shown.num_rows or changed:
                    end.show_corrections(shown)
            if end.capabilities.receipts:
                show_receipts(self.services, end, self.dataset, region, moved=moved)
