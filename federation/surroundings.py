"""What a gate's checks may ask while a link runs: the moment, the region tree, and the records beside those that move."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import pyarrow as pa

from connectors.base import Connector
from federation.canonical import key_column
from federation.config import Link
from federation.delivery import Delivery
from federation.gate_reason import flat
from federation.reading import KEY, Reading, without
from federation.regions import Region, RegionTree
from federation.services import Services


@dataclass(frozen=True)
class Surroundings:
    """One direction of one link run (`gate_check.Around`). `source`: where its records come from; `goal`: the node they go to.

    `reading`: what was read of the goal. Nothing is read before a check asks for it.
    """

    services: Services
    link: Link
    source: Region
    goal: Connector
    reading: Reading
    delivery: Delivery

    @property
    def now(self) -> datetime:
        return self.services.now()

    @property
    def tree(self) -> RegionTree:
        return self.services.config.tree

    @property
    def region(self) -> str:
        return self.link.lower.code

    def exist(self, dataset: str, keys: pa.Array) -> pa.Array:
        return self.services.exist(dataset, self.source.code, keys)

    def held(self, name: str) -> pa.Array:
        moving = [rows for fields, rows in self.delivery.parts if name in fields]
        leaving = [*(flat(rows.column(KEY)) for rows in moving), self.delivery.removals]
        staying = without(self._goal_rows, pa.concat_arrays(leaving))
        return pa.concat_arrays([flat(rows.column(name)).drop_null() for rows in (staying, *moving)])

    @cached_property
    def _goal_rows(self) -> pa.Table:
        """All rows that the goal holds: as read if it was read whole, else read now."""
        if self.reading.complete:
            return self.reading.rows
        rows = self.goal.changes(None, sweep=False).rows
        return rows.append_column(KEY, key_column(rows, self.goal.node.dataset))
