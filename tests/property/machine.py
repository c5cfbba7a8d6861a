"""What the state machines share: people who create, claim, edit (entitled or not), move and delete; rulings; runs and their faults.

Any link is synced in any order, dies at any failpoint, fails before or after a write, works on a stale reading, or is taken over.
At rest, `World.check` must hold. A machine says in its `initialize` rule, with `start`, on what systems its nodes are.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from federation import failpoints
from federation.errors import LeaseLost, Transient
from federation.ledger.links import LEASE
from tests.federations import CITY, REGIONS
from tests.property.world import COMMUNITIES, DATASET, Nodes, World

CODES = [line.split(",")[0] for line in REGIONS.strip().splitlines()[1:]]
KEYS = st.sampled_from(["A", "B", "C", "D", "E", "F"])
PLACES = st.sampled_from(COMMUNITIES)
BEGINNINGS = st.lists(st.tuples(KEYS, PLACES), max_size=4, unique_by=lambda pair: pair[0])
POLICIES = st.sampled_from(["revert", "hold"])
REGION = st.sampled_from(CODES)
LOWER = st.sampled_from([code for code in CODES if code != CITY])
PLACES_TO_DIE = st.sampled_from(
    [name for name in failpoints.NAMES if not name.startswith(("stage.", "correction.", "notify."))]
)
PLACES_TO_ACT = st.sampled_from(
    [
        *("upper.read.after", "lower.read.after", "merge.after", "intent.noted", "settle.before"),
        *("upper.apply.before", "upper.apply.after", "lower.apply.before", "lower.apply.after"),
    ]
)
DEEDS = st.sampled_from(["title", "remark", "own", "note", "move", "delete"])


class Crash(BaseException):
    """The process dies."""


class Machine(RuleBasedStateMachine):
    """See the module."""

    nodes: Nodes
    world: World

    def __init__(self) -> None:
        super().__init__()
        self.stale: tuple[str, Any] | None = None

    def start(self, world: World, beginnings: list[tuple[str, str]]) -> None:
        """The world's nodes hold these records (key, place) and agree on them."""
        self.nodes, self.world = world.nodes, world
        for key, place in beginnings:
            self.world.create(key, place)
        self.world.settle()

    # --- people

    @rule(key=KEYS, place=PLACES)
    def create(self, key: str, place: str) -> None:
        self.world.create(key, place)

    @rule(key=KEYS, community=PLACES)
    def claim(self, key: str, community: str) -> None:
        self.world.claim(key, community)

    @rule(key=KEYS, region=REGION, name=st.sampled_from(["title", "secret", "remark", "own"]))
    def edit(self, key: str, region: str, name: str) -> None:
        self.world.edit(key, region, name)

    @rule(key=KEYS, field=st.sampled_from(["remark", "own", "title"]))
    def edit_by_the_authority(self, key: str, field: str) -> None:
        record = self.world.records.get(key)
        if record is not None:
            self.world.edit(key, self.world._authority(record, field), field)

    @rule(key=KEYS, region=REGION)
    def edit_the_shared_field(self, key: str, region: str) -> None:
        self.world.note(key, region)

    @rule(key=KEYS, place=PLACES)
    def move(self, key: str, place: str) -> None:
        self.world.move(key, place)

    @rule(key=KEYS, region=REGION, place=PLACES)
    def mislay(self, key: str, region: str, place: str) -> None:
        self.world.mislay(key, region, place)

    @rule(key=KEYS, region=st.one_of(st.just(CITY), REGION))
    def delete(self, key: str, region: str) -> None:
        self.world.delete(key, region)

    @rule(number=st.integers(0, 5), accept=st.booleans())
    def rule_on_a_correction(self, number: int, accept: bool) -> None:
        self.world.rule(number, accept)

    @rule(number=st.integers(0, 5), challenger=st.booleans())
    def rule_on_a_contest(self, number: int, challenger: bool) -> None:
        self.world.award(number, challenger)

    # --- runs and faults

    def sync(self, lower: str, reading: Any = None) -> None:
        upper = self.nodes.federation.config.link(DATASET, lower).upper.code
        self.nodes.federation.sync_children(DATASET, upper, [lower], reading)

    @rule(lower=LOWER)
    def sync_one_link(self, lower: str) -> None:
        self.sync(lower)

    @rule(upper=REGION)
    def sync_a_parent(self, upper: str) -> None:
        if upper not in COMMUNITIES:
            self.nodes.federation.sync_parent(DATASET, upper)

    @rule()
    def sync_everything(self) -> None:
        self.nodes.federation.cascade(DATASET)

    @rule(lower=LOWER, place=PLACES_TO_DIE)
    def die(self, lower: str, place: str) -> None:
        def crash() -> None:
            raise Crash

        failpoints.arm(place, crash)
        try:
            self.sync(lower)
        except Crash:
            self._lease_stays(lower)
        finally:
            failpoints.disarm()

    def _lease_stays(self, lower: str) -> None:
        """A process that really dies gives nothing back; its lease is taken over once it has run out."""
        self.nodes.clock.now += LEASE + timedelta(seconds=1)

    @rule(
        lower=LOWER,
        place=st.sampled_from(["upper.apply.before", "upper.apply.after", "lower.apply.before", "lower.apply.after"]),
    )
    def fail_around_a_write(self, lower: str, place: str) -> None:
        def fail() -> None:
            raise Transient("the connection was cut", "连接中断")

        failpoints.arm(place, fail)
        try:
            self.sync(lower)
        finally:
            failpoints.disarm()

    @rule(
        lower=LOWER,
        place=st.sampled_from(
            ["merge.after", "intent.noted", "upper.apply.after", "lower.apply.after", "settle.before"]
        ),
    )
    def be_taken_over(self, lower: str, place: str) -> None:
        """A runner falls asleep; another takes its link over and finishes; the first one wakes up and must settle nothing."""
        slept = []

        def sleep() -> None:
            if not slept:
                slept.append(1)
                self.nodes.clock.now += LEASE + timedelta(seconds=1)
                self.sync(lower)

        failpoints.arm(place, sleep)
        try:
            upper = self.nodes.federation.config.link(DATASET, lower).upper.code
            _, errors = self.nodes.federation.sync_children(DATASET, upper, [lower], None)
        finally:
            failpoints.disarm()
        if slept:
            assert any(isinstance(error, LeaseLost) for error in errors.values()), errors

    @rule(lower=LOWER, place=PLACES_TO_ACT, deed=DEEDS, key=KEYS, region=REGION, community=PLACES)
    def people_work_while_a_link_runs(
        self, lower: str, place: str, deed: str, key: str, region: str, community: str
    ) -> None:
        """Between a read and its write, or right after it."""
        done = []

        def act() -> None:
            if done:
                return
            done.append(deed)
            if deed == "move":
                self.world.move(key, community)
            elif deed == "delete":
                self.world.delete(key, region)
            elif deed == "note":
                self.world.note(key, region)
            else:
                self.world.edit(key, region, deed)

        failpoints.arm(place, act)
        try:
            self.sync(lower)
        finally:
            failpoints.disarm()

    @rule(upper=REGION)
    def read_a_parent_for_later(self, upper: str) -> None:
        if upper not in COMMUNITIES:
            self.stale = upper, self.nodes.federation.collect(DATASET, upper)

    @precondition(lambda self: self.stale is not None)
    @rule()
    def use_the_stale_reading(self) -> None:
        assert self.stale is not None
        upper, reading = self.stale
        self.stale = None
        lowers = [link.lower.code for link in self.nodes.federation.config.links(DATASET, upper)]
        self.nodes.federation.sync_children(DATASET, upper, lowers, reading)

    @rule()
    def faults_heal(self) -> None:
        self.world.check()

    @invariant()
    def nothing_leaks(self) -> None:
        if hasattr(self, "world"):
            self.world.check_isolation()

    def teardown(self) -> None:
        failpoints.disarm()
        try:
            if hasattr(self, "world"):
                self.world.check()
        finally:
            if hasattr(self, "nodes"):
                self.nodes.close()
