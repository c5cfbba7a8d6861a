"""What a gate's checks may ask while a link runs: the moment, the region tree, and the records beside those that move."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

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

    `reading`: what was read of the goal. Nothing is read before a check asks for it; then once for all that moves, whatever part of
    it is judged.
    """

    services: Services
    link: Link
    source: Region
    goal: Connector
    reading: Reading
    delivery: Delivery
    _asked: dict[str, tuple[pa.Array, pa.Table]] = field(default_factory=dict, init=False)

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

    def held(self, name: str, values: pa.Array) -> pa.Array:
        moving = [rows for fields, rows in self.delivery.parts if name in fields]
        leaving = [*(flat(rows.column(KEY)) for rows in moving), self.delivery.removals]
        brought = [flat(rows.column(name)) for rows in moving]
        staying = without(self._there(name, pa.concat_arrays([values, *brought])), pa.concat_arrays(leaving))
        held = pa.concat_arrays([flat(staying.column(name)), *brought])
        return held.filter(pc.is_in(held, value_set=values))

    def _there(self, name: str, values: pa.Array) -> pa.Table:
        """Rows that the goal holds, those with one of these values at least: as read if it was read whole, else asked for."""
        if self.reading.complete:
            return self.reading.rows
        known, rows = self._asked.get(name, (values.slice(0, 0), None))
        if rows is None or not pc.all(pc.is_in(values, value_set=known)).as_py():
            known = values.unique()
            rows = self.goal.holding(name, known)
            rows = rows.append_column(KEY, key_column(rows, self.goal.node.dataset))
            self._asked[name] = known, rows
        return rows
