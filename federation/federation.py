"""A federation at work: probing its nodes, syncing a parent with its children, running a cascade without Airflow.

The Airflow DAGs call `sweep`, `collect` and `sync_children`; `cascade` does the same in one process for `fedsync sync`.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date

import pyarrow as pa

from connectors.base import Connector
from federation.config import Binding, Link
from federation.contract import Dataset
from federation.errors import FedsyncError, LeaseHeld, Resting, located
from federation.ledger.baselines import Manifest
from federation.ledger.corrections import Correction
from federation.ledger.links import LinkState
from federation.ledger.quarantine import OPEN, Item
from federation.link import Ends, LinkRun
from federation.outcome import Outcome
from federation.proposals import node_faults
from federation.quarantined import must_be_declared
from federation.reading import Reading, nothing_read, read_node
from federation.rejudging import awaking
from federation.reparenting import awaited_by
from federation.services import Services

Opener = Callable[[Binding], Connector]
Progress = Callable[[Outcome], None]
PASSES = 24
"""A cascade over four levels settles in half a dozen passes; more means that two ends keep correcting each other."""


@dataclass(frozen=True)
class News:
    """Which parents have a link with news at either end: level → codes; and the nodes that could not be asked: code → why.

    `skipped`: links that were not looked at → why: a pause, or what they wait for.
    """

    parents: dict[str, list[str]]
    unreachable: dict[str, str]
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass
class CascadeResult:
    """What a cascade did. `outcomes`: of every link run; `errors`: link (or node) → what went wrong."""

    outcomes: list[Outcome] = field(default_factory=list)
    errors: dict[str, FedsyncError] = field(default_factory=dict)

    @property
    def skipped(self) -> dict[str, str]:
        """Link → why it was left alone, of those that were so to the end."""
        last = {outcome.link_id: outcome.skipped for outcome in self.outcomes}
        return {link: why for link, why in last.items() if why is not None}

    def add(self, later: CascadeResult) -> None:
        """Take up what was done later; an error that a link got over since is none any more."""
        self.outcomes += later.outcomes
        for outcome in later.outcomes:
            self.errors.pop(outcome.link_id, None)
        self.errors.update(later.errors)

    @property
    def moved(self) -> int:
        """Rows written or deleted anywhere."""
        return sum(o.descended + o.ascended + o.removed_below + o.removed_above for o in self.outcomes)

    @property
    def restless(self) -> bool:
        """Whether anything moved, corrections included."""
        return any(outcome.moved for outcome in self.outcomes)


class Federation:
    """A declared federation with its ledger. `opener` opens a node's connector (see `federation.runtime`); `closing`: what it holds."""

    def __init__(self, services: Services, opener: Opener, closing: Callable[[], None] = lambda: None) -> None:
        self.services = services
        self.config = services.config
        self._opener = opener
        self._closing = closing

    @contextmanager
    def node(self, dataset: str, region: str) -> Iterator[Connector]:
        """A node's connector, closed afterwards; its errors name the node and the line that declares it."""
        binding = self.config.binding(dataset, region)
        try:
            connector = self._opener(binding)
            try:
                yield connector
            finally:
                connector.close()
        except FedsyncError as error:
            error.at(dataset=dataset, region=str(binding.region), system=binding.system)
            raise

    def sweep(self, dataset: str, workers: int = 8) -> News:
        """Ask every node cheaply whether it may have changed since its links last settled."""
        contract = self.config.dataset(dataset)
        states = self.services.links.all(dataset)
        links, skipped = self.open_links(list(self.config.all_links(dataset)), states)
        asked = self._asked(contract, links, states)
        awake = {link.id for link in links if self._must_run(contract, link, states) or link.id in asked}
        quiet = [link for link in links if link.id not in awake and link.id in states and states[link.id].state == "ok"]
        codes = sorted({region.code for link in quiet for region in (link.upper, link.lower)})
        with ThreadPoolExecutor(workers) as pool:
            tokens = dict(zip(codes, pool.map(lambda code: self.token(dataset, code), codes)))
        for link in quiet:
            state, upper, lower = states[link.id], tokens[link.upper.code], tokens[link.lower.code]
            resting = isinstance(upper, Resting) or isinstance(lower, Resting)
            if not resting and (upper != state.upper_token or lower != state.lower_token):
                awake.add(link.id)
        parents: dict[str, set[str]] = {upper: set() for upper, _ in contract.hops}
        for link in links:
            if link.id in awake:
                parents[link.upper.level].add(link.upper.code)
        unreachable = {code: str(token) for code, token in tokens.items() if isinstance(token, FedsyncError)}
        return News({level: sorted(found) for level, found in parents.items()}, unreachable, skipped)

    def open_links(self, links: Sequence[Link], states: dict[str, LinkState]) -> tuple[list[Link], dict[str, str]]:
        """The links that may run now; of the others, why not: paused, or still waiting for a new parent (`federation.reparenting`)."""
        paused, skipped = self.services.paused(), dict[str, str]()
        for link in links:
            pause, state = paused.link(link), states.get(link.id)
            if pause is not None:
                skipped[link.id] = str(pause)
            elif state is not None and state.upper != link.upper.code:
                awaited = awaited_by(self.services, link, state)
                if awaited is not None:
                    skipped[link.id] = awaited
        return [link for link in links if link.id not in skipped], skipped

    def children(self, dataset: str, upper: str) -> tuple[list[Link], dict[str, str]]:
        """The links of a parent that may run now, and why the others are skipped (link → reason)."""
        links = self.config.links(dataset, upper)
        return self.open_links(links, self.services.links.states([link.id for link in links]))

    def _asked(self, contract: Dataset, links: Sequence[Link], states: dict[str, LinkState]) -> set[str]:
        """Links that are due though no node may have changed: replays, verdicts that may be others by now, rulings, corrections on
        their way, returns that their origin was not told of, what waited for a neighbouring link that has got on, and whatever a run
        left unfinished."""
        services = self.services
        asked = {item.link_id for item in services.quarantine.open_items(dataset=contract.name, state="replay")}
        asked |= {state.link_id for state in states.values() if state.intent is not None}
        asked |= awaking(services, contract)
        for contest in services.contests.standing(contract.name):
            state = states.get(contest.link_id)
            if contest.ruled and state and (state.last_ok is None or state.last_ok < contest.ruled):
                asked.add(contest.link_id)
        untold = services.quarantine.untold(contract.name)
        asked |= {
            link
            for region in untold
            if region in self.config.tree and (link := services.link_at(contract.name, region))
        }
        active = services.corrections.active(contract.name)
        asked |= {link for correction in active if (link := services.link_for(correction)) is not None}
        for region in {c.target for c in active if c.state == "waiting" and c.target}:
            if self._ruled_on(contract.name, region):
                asked.add(services.link_at(contract.name, region) or "")
        by_id = {link.id: link for link in links}
        for (link_id, side), mark in services.waiting.marks().items():
            if link_id in by_id and services.mark(by_id[link_id], side, states) != mark:
                asked.add(link_id)
        return asked

    def _ruled_on(self, dataset: str, region: str) -> bool:
        """Whether a node's people wrote a ruling beside a correction; a node that does not answer, or must not be asked, says no."""
        if self.services.paused().node(dataset, region):
            return False
        try:
            with self.node(dataset, region) as connector:
                return bool(connector.capabilities.corrections and connector.rulings().num_rows)
        except FedsyncError:
            return False

    def _must_run(self, contract: Dataset, link: Link, states: dict[str, LinkState]) -> bool:
        """Whether a link needs no probe to be due: failed, released, never compared for too long, or new.

        A new link waits for the chain above it unless records originate at one of its ends: what arrives will wake it.
        """
        state = states.get(link.id)
        if state is None or state.state == "new":
            above = states.get(f"{contract.name}/{link.upper.code}")
            originates = {link.upper.level, link.lower.level} & set(contract.originates)
            return bool(originates) or (above is not None and above.state == "ok")
        if state.state == "held":
            return state.released
        if state.identity != self.services.identities.of(link):
            return True
        late = (self.services.ledger.clock() - state.last_full).total_seconds() if state.last_full else 0.0
        return state.state == "failed" or late >= contract.full_every * 60

    def token(self, dataset: str, code: str) -> str | FedsyncError:
        """A node's probe token; one that differs from all if it cannot tell; the error if it does not answer."""
        try:
            with self.node(dataset, code) as connector:
                return connector.probe().token or f"unknown {uuid.uuid4().hex}"
        except FedsyncError as error:
            return error

    def collect(self, dataset: str, upper: str, *, force_full: bool = False) -> Reading:
        """Read a parent once for its children, from the cursor that most of them share. It is not asked if none of them may run."""
        links, _ = self.children(dataset, upper)
        if not links:
            with self.node(dataset, upper) as connector:
                return nothing_read(connector, None, None)
        states = [self.services.links.state(link) for link in links]
        fences = {state.link_id: state.fence for state in states}
        with self.node(dataset, upper) as connector:
            if any(state.last_ok is None for state in states):
                connector.prepare()
            self.services.desk(self.config.dataset(dataset), self.config.tree[upper]).work(connector)
            runs = [LinkRun(self.services, link, Ends(connector, connector)) for link in links]
            full = force_full or any(run.full_due(state) for run, state in zip(runs, states))
            cursor, token = Counter((s.upper_cursor, s.upper_token) for s in states).most_common(1)[0][0]
            settled = token if not full and all(state.state == "ok" for state in states) else None
            reading = read_node(connector, None if full else cursor, sweep=full, settled=settled)
        if reading.anything:
            self._note_unreadable(dataset, upper, reading)
        return replace(reading, fences=fences)

    def _note_unreadable(self, dataset: str, upper: str, reading: Reading) -> None:
        contract, region = self.config.dataset(dataset), self.config.tree[upper]
        faults = node_faults(region, contract, reading)
        with self.services.ledger.transaction() as connection:
            still = self.services.quarantine.record(connection, faults)
            self.services.quarantine.release_read(connection, contract, region, reading, still)

    def sync_children(
        self,
        dataset: str,
        upper: str,
        lowers: Sequence[str],
        reading: Reading | None,
        *,
        force_full: bool = False,
        progress: Progress | None = None,
    ) -> tuple[list[Outcome], dict[str, FedsyncError]]:
        """Sync a parent with some of its children. One failing child never stops its siblings; its error is returned.

        A link that is paused, or waits for its new parent, is left alone: its outcome says why (`Outcome.skipped`).
        """
        errors: dict[str, FedsyncError] = {}
        may_run, skipped = self.children(dataset, upper)
        outcomes = [
            Outcome.nothing("", f"{dataset}/{lower}", upper, lower, skipped=why)
            for lower in lowers
            if (why := skipped.get(f"{dataset}/{lower}")) is not None
        ]
        lowers = [link.lower.code for link in may_run if link.lower.code in set(lowers)]
        if not lowers:
            return outcomes, errors
        with self.node(dataset, upper) as above:
            shared: tuple[str | None, str | None] = (None, None)
            touched, displaced = frozenset[str](), frozenset[str]()
            passed = [reading.token] if reading is not None and reading.token is not None else []
            for lower in lowers:
                link, run_id = self.config.link(dataset, lower), ""
                try:
                    with self.node(dataset, lower) as below:
                        ends = Ends(above, below, *shared, touched)
                        run = LinkRun(self.services, link, ends, force_full=force_full)
                        run_id = run.run_id
                        try:
                            outcome = run.run(reading)
                        finally:
                            touched, displaced = ends.touched, displaced | ends.displaced
                        shared = (ends.upper_cursor, ends.upper_token)
                        passed += [ends.upper_token] if ends.upper_token is not None else []
                except FedsyncError as error:
                    errors[link.id] = error.at(link=link.id)
                    outcome = Outcome.nothing(run_id, link.id, upper, lower, error=str(error))
                outcomes.append(outcome)
                if progress:
                    progress(outcome)
        if shared[1] is not None:
            concerned = self._holding(dataset, lowers, displaced)
            others = [lower for lower in lowers if lower not in concerned]
            self.services.links.advance_upper(dataset, upper, others, passed, *shared)
        return outcomes, errors

    def _holding(self, dataset: str, lowers: Sequence[str], keys: Collection[str]) -> set[str]:
        """The children whose link agreed on one of these records."""
        if not keys:
            return set()
        wanted = pa.array(sorted(keys), pa.string())
        baselines = self.services.baselines
        states = self.services.links.states([f"{dataset}/{lower}" for lower in lowers]).values()
        return {s.lower for s in states if baselines.pick(Manifest.parse(s.baseline), {}, wanted).num_rows}

    def sync_parent(
        self, dataset: str, upper: str, *, force_full: bool = False, progress: Progress | None = None
    ) -> CascadeResult:
        """Collect a parent and sync all its children: what one hop's DAG run does."""
        result = CascadeResult()
        lowers = [link.lower.code for link in self.config.links(dataset, upper)]
        try:
            reading = self.collect(dataset, upper, force_full=force_full)
            outcomes, errors = self.sync_children(
                dataset, upper, lowers, reading, force_full=force_full, progress=progress
            )
        except FedsyncError as error:
            self.fail_children(dataset, upper, error)
            result.errors.update({link.id: error for link in self.children(dataset, upper)[0]})
            return result
        result.outcomes += outcomes
        result.errors.update(errors)
        return result

    def fail_children(self, dataset: str, upper: str, error: FedsyncError) -> None:
        """Note at each link of a parent that it could not start, because the parent could not be read."""
        if isinstance(error, LeaseHeld):
            return
        for link in self.children(dataset, upper)[0]:
            self.services.links.mark_failed(link.id, error)

    def cascade(
        self, dataset: str, region: str | None = None, *, force_full: bool = False, progress: Progress | None = None
    ) -> CascadeResult:
        """Sync a dataset down and up until nothing moves. `region`: only links inside it (and the one above it).

        The first pass visits every parent; later ones, as under Airflow, only those that a sweep finds to have news.
        """
        result = CascadeResult()
        parents = self._parents(dataset, region)
        for number in range(PASSES):
            restless = False
            for upper in parents:
                one = self.sync_parent(dataset, upper, force_full=force_full and number == 0, progress=progress)
                result.add(one)
                restless = restless or one.restless
            awake = self._awake(dataset, region)
            # Who cannot tell whether there is news, or does not answer, is awake each time: a pass that moved nothing ends it.
            if not awake or (not restless and set(awake) <= set(parents) and number):
                return result
            parents = awake if number % 2 else awake[::-1]
        if not restless:
            return result
        raise FedsyncError(
            f"{dataset} did not come to rest in {PASSES} passes: two ends keep correcting each other",
            f"{dataset} 经过 {PASSES} 轮仍未收敛",
            todo="用 fedsync status 查看仍在变动的链路 / fedsync status shows which links still move",
            dataset=dataset,
        )

    def _parents(self, dataset: str, region: str | None) -> list[str]:
        """Parents, top down."""
        return [
            parent.code
            for upper, _ in self.config.dataset(dataset).hops
            for parent in self.config.tree.at(upper)
            if region is None or self.config.tree.related(parent.code, region)
        ]

    def _awake(self, dataset: str, region: str | None) -> list[str]:
        """The parents that have a link with news, top down."""
        news = {code for codes in self.sweep(dataset).parents.values() for code in codes}
        return [code for code in self._parents(dataset, region) if code in news]

    def rule(self, prefix: str, verdict: str, reason: str, actor: str) -> Correction:
        """Accept, reject or withdraw a correction. What is accepted is written at the authority's node at once; if that does not
        answer, the error says so and the next run writes it. The outcome travels back with the next runs of the links between.
        """
        corrections = self.services.corrections
        correction = corrections.find(prefix)
        allowed = ("raised", "waiting") if verdict == "withdrawn" else ("waiting",)
        if correction.state not in allowed:
            raise FedsyncError(
                f"this correction is {correction.state} and stands at {self.config.tree[correction.at or '']}",
                "该校核未在待裁定状态",
                todo="先同步使其到达权威方 / sync until it has arrived at its authority"
                if correction.state == "raised"
                else "fedsync correction show",
                dataset=correction.dataset,
                key=correction.key,
            )
        with self.services.ledger.transaction() as connection:
            corrections.settle(connection, correction, verdict, actor, reason)
        if verdict == "accepted":
            assert correction.target is not None
            if self.services.paused().node(correction.dataset, correction.target):
                return corrections.find(correction.correction_id)  # written by the first run after the pause
            with self.node(correction.dataset, correction.target) as connector:
                region = self.config.tree[correction.target]
                self.services.desk(self.config.dataset(correction.dataset), region).carry_out(connector)
        return corrections.find(correction.correction_id)

    def waive(self, prefix: str, *, by: str, reason: str, until: date, actor: str) -> Item:
        """Let a quarantined record, in the version that was set aside, pass the rule that it fails, `until` the end of that day.

        It moves with its link's next run. Raises FedsyncError if it is not one of a gate's, is closed or purged, no run will read it, or the
        day is over.
        """
        services = self.services
        item = services.quarantine.find(prefix)
        must_be_declared(self.config, item)
        rule = services.rule(item)
        with located(**item.where):
            if rule is None:
                raise FedsyncError(
                    f"only a gate's rule can be waived, this is {item.rule}",
                    "只能豁免质量门的规则",
                    todo="请在来源处改正 / have it mended where it came from",
                )
            if item.state not in OPEN or not item.payload or until < services.now().date():
                raise FedsyncError(
                    f"the record is {item.state if item.payload else 'purged'}, and the waiver would end on {until}",
                    "该记录已关闭或已清除，或豁免期限已过",
                    todo="选今天或以后的日期；否则先重新同步 / name today or a later day; else sync again first",
                )
        version = services.waivers.version(
            self.config.dataset(item.dataset), rule.name, rule.needs, services.quarantine.open(item).record
        )
        services.waivers.waive(services.quarantine, item, version, by=by, reason=reason, until=until, actor=actor)
        return services.quarantine.find(item.item_id)

    def purge(self, actor: str) -> dict[str, int]:
        """Empty the payloads of quarantined records that have outlived their retention; how many of each dataset."""
        services = self.services
        done = {}
        for name in dict.fromkeys([*self.config.datasets, *services.quarantine.datasets()]):
            before = services.expired(self.config.datasets.get(name))
            with services.ledger.transaction() as connection:
                done[name] = services.quarantine.purge(connection, name, before)
                services.ledger.audit(connection, actor, "quarantine.purge", name, f"{done[name]} < {before.date()}")
        return done

    def stage(self, reading: Reading) -> str:
        """Keep a reading for other processes (`federation.staging`); a reference that may pass between tasks.

        Whoever passes it on throws it away: the records in it may be personal.
        """
        return self.services.staging.keep(reading)

    def close(self) -> None:
        """Give the connections of what is the engine's own back."""
        self._closing()
        self.services.ledger.close()
