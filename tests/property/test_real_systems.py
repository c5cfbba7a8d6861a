"""The four levels on real systems: PostgreSQL, MariaDB, SQLite, workbooks and text files, with processes that are really killed.

Beside what all machines do (`tests.property.machine`), people rule at their own desks, empty fields, sort their lists and leave them
open, and a table or a file is gone for a while. The servers' clocks are theirs, the ledger's is the machine's: nothing may depend
on their agreeing.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import timedelta
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from federation import failpoints
from tests.property.hands import FileHands
from tests.property.killing import killed_while_syncing
from tests.property.machine import BEGINNINGS, KEYS, LOWER, POLICIES, REGION, Machine
from tests.property.profiles import machine_settings
from tests.property.real_nodes import FILES, STYLES, RealNodes, Servers, Systems
from tests.property.world import DATASET, World

STYLE = st.sampled_from(list(STYLES))
LACKING = st.sampled_from([("own",), ("remark", "note", "at"), ("title", "own")])
SYSTEMS = st.builds(Systems, STYLE, STYLE, STYLE, STYLE, STYLE, LACKING)
ENDINGS = ("", "，“东”", ",'", '"', "\n二", "%s", "\\N", "𠮷", "=1")
"""What some system on the way might like to make something else of."""
NAMED = st.sampled_from(["title", "secret", "remark", "own"])


class RealSystems(Machine):
    """See the module."""

    servers: ClassVar[Servers]
    nodes: RealNodes

    @initialize(policy=POLICIES, systems=SYSTEMS, keys=BEGINNINGS)
    def begin(self, policy: str, systems: Systems, keys: list[tuple[str, str]]) -> None:
        self.start(World(RealNodes(self.servers, policy, systems), policy, ENDINGS), keys)

    @rule(
        lower=LOWER,
        place=st.sampled_from([name for name in failpoints.NAMES if not name.startswith("stage.")]),
        nth=st.integers(1, 3),
    )
    def be_killed(self, lower: str, place: str, nth: int) -> None:
        """A process of its own syncs a parent with its children, and is killed there."""
        clock = self.nodes.clock
        upper = self._upper(lower)
        killed_while_syncing(self.nodes.folder, self.nodes.uris, clock.now, upper, place, nth)
        clock.now += timedelta(minutes=1)

    @rule(key=KEYS, region=REGION, name=NAMED)
    def empty_a_field(self, key: str, region: str, name: str) -> None:
        self.world.edit(key, region, name, clear=True)

    @rule(number=st.integers(0, 5), accept=st.booleans())
    def rule_at_the_desk(self, number: int, accept: bool) -> None:
        self.world.rule_at_the_desk(number, accept)

    @rule(region=st.sampled_from(FILES))
    def tidy_up(self, region: str) -> None:
        self._file(region).tidy_up()

    @rule(region=st.sampled_from(FILES))
    def sync_while_somebody_has_the_file_open(self, region: str) -> None:
        self._sync_during(self._file(region).opened(), region)

    @rule(region=REGION, lower=LOWER)
    def sync_while_a_system_is_away(self, region: str, lower: str) -> None:
        self._sync_during(self.nodes.hands[region].away(), lower)

    def _sync_during(self, fault: AbstractContextManager[None], lower: str) -> None:
        with fault:
            self.nodes.federation.sync_parent(DATASET, self._upper(lower))

    def _file(self, region: str) -> FileHands:
        hands = self.nodes.hands[region]
        assert isinstance(hands, FileHands)
        return hands

    def _upper(self, lower: str) -> str:
        return self.nodes.federation.config.link(DATASET, lower).upper.code


class TestRealSystems(RealSystems.TestCase):  # type: ignore[misc,name-defined]
    settings = machine_settings(examples=3, steps=8)

    @classmethod
    def setUpClass(cls) -> None:
        RealSystems.servers = Servers()
        cls.addClassCleanup(RealSystems.servers.close)
