"""Four levels under every fault: a Hypothesis state machine over a city, 2 districts, 3 streets and 5 communities in memory.

Beside what all machines do (`tests.property.machine`), a page is read twice, or in another order.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from connectors.base import Changes
from connectors.memory import STORES, MemoryConnector, Store
from federation.runtime import open_federation
from tests.federations import Clock
from tests.property.machine import BEGINNINGS, LOWER, POLICIES, Machine
from tests.property.profiles import machine_settings
from tests.property.world import DATASET, Nodes, World, declare, ledger_template, memory_systems


class MemoryNodes(Nodes):
    """Every node in memory."""

    def __init__(self, policy: str, capture: str, conditional: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fedsync_"))
        declare(self.folder, policy, memory_systems(str(self.folder), capture, conditional))
        shutil.copytree(ledger_template(), self.folder / "state")
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


class FourLevels(Machine):
    """See the module."""

    @initialize(
        policy=POLICIES,
        capture=st.sampled_from(["snapshot", "cursor", "log"]),
        conditional=st.booleans(),
        keys=BEGINNINGS,
    )
    def begin(self, policy: str, capture: str, conditional: bool, keys: list[tuple[str, str]]) -> None:
        self.start(World(MemoryNodes(policy, capture, conditional), policy), keys)

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


TestFourLevels = FourLevels.TestCase
TestFourLevels.settings = machine_settings(examples=8, steps=12)
