"""Four levels under every fault: a Hypothesis state machine over a city, 2 districts, 3 streets and 5 communities in memory.

People create, claim, edit (entitled or not), move and delete; corrections and contests are ruled on; any link is synced in any order,
dies at any failpoint, fails before or after a write, works on a stale reading, reads a page twice or in another order, or is taken
over. At rest, `World.check` must hold.
"""

from __future__ import annotations

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from connectors.base import Changes
from connectors.memory import STORES, MemoryConnector, Store
from federation import failpoints
from federation.errors import LeaseLost, Transient
from federation.ledger.links import LEASE
from federation.runtime import open_federation
from tests.federations import CITY, REGIONS, Clock
from tests.property.profiles import machine_settings
from tests.property.world import COMMUNITIES, DATASET, Nodes, World, declare, memory_systems

CODES = [line.split(",")[0] for line in REGIONS.strip().splitlines()[1:]]
KEYS = st.sampled_from(["A", "B", "C", "D", "E", "F"])
PLACES = st.sampled_from(COMMUNITIES)
REGION = st.sampled_from(CODES)
LOWER = st.sampled_from([code for code in CODES if code != CITY])
PLACES_TO_DIE = st.sampled_from(
    [name for name in failpoints.NAMES if not name.startswith(("stage.", "correction.", "notify."))]
)
_TEMPLATES: dict[str, Path] = {}


class Crash(BaseException):
    """The process dies."""


class MemoryNodes(Nodes):
    """Every node in memory. A migrated, empty ledger is copied for each example: migrating one takes longer than the example."""

    def __init__(self, policy: str, capture: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fedsync_"))
        declare(self.folder, policy, memory_systems(str(self.folder), capture))
        if "ledger" not in _TEMPLATES:
            template = Path(tempfile.mkdtemp(prefix="fedsync_ledger_"))
            declare(template, policy, memory_systems(str(template), capture))
            open_federation(template).close()
            _TEMPLATES["ledger"] = template / "state"
        shutil.copytree(_TEMPLATES["ledger"], self.folder / "state")
        self.clock = Clock()
        self.federation = open_federation(self.folder, clock=self.clock)

    def store(self, region: str) -> Store:
        return STORES.setdefault(f"{self.folder}/{DATASET}/{region}", Store())

    def read(self, region: str, key: str) -> dict[str, Any] | None:
        return self.store(region).rows.get(key)

    def write(self, region: str, key: str, values: dict[str, Any]) -> None:
        self.store(region).put(key, {"item_id": key, **values})

    def remove(self, region: str, key: str) -> None:
        self.store(region).drop(key)

    def close(self) -> None:
        self.federation.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in [name for name in STORES if name.startswith(str(self.folder))]:
            del STORES[name]


class FourLevels(RuleBasedStateMachine):
    """See the module."""

    nodes: MemoryNodes
    world: World

    def __init__(self) -> None:
        super().__init__()
        self.stale: tuple[str, Any] | None = None

    @initialize(
        policy=st.sampled_from(["revert", "hold"]),
        capture=st.sampled_from(["snapshot", "cursor", "log"]),
        keys=st.lists(st.tuples(KEYS, PLACES), max_size=4, unique_by=lambda pair: pair[0]),
    )
    def begin(self, policy: str, capture: str, keys: list[tuple[str, str]]) -> None:
        self.nodes = MemoryNodes(policy, capture)
        self.world = World(self.nodes, policy)
        for key, place in keys:
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

    @rule(lower=LOWER)
    def read_a_page_twice_and_in_another_order(self, lower: str) -> None:
        original = MemoryConnector.changes

        def shuffled(connector: MemoryConnector, since: str | None, *, sweep: bool = True) -> Changes:
            earlier = None if since is None else str(max(0, int(since) - 3))
            found = original(connector, earlier, sweep=sweep)
            rows = found.rows.take(pa.array(range(found.rows.num_rows - 1, -1, -1), pa.int64()))
            return Changes(rows, found.rejects, found.deleted, found.present, found.cursor, found.outside)

        MemoryConnector.changes = shuffled  # type: ignore[method-assign]
        try:
            self.sync(lower)
        finally:
            MemoryConnector.changes = original  # type: ignore[method-assign]

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


TestFourLevels = FourLevels.TestCase
TestFourLevels.settings = machine_settings(examples=8, steps=12)
