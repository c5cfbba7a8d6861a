"""What the links beyond an end agreed on: the evidence by which an end may pass on what it does not own.

A node in the middle relays. What it holds is true on the next link only if the link towards the authority agreed on exactly that;
else somebody edited it there. The evidence is the neighbouring links' baselines, what a run of theirs was about to write when it
died (its intent), and tombstones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from federation.contract import LinkContract
from federation.ledger.baselines import Baselines, Manifest
from federation.ledger.links import LinkState
from federation.ledger.tombstones import GONE, Tombstone, as_table
from federation.vector import query

SideName = Literal["upper", "lower"]
SIDES: tuple[SideName, ...] = ("upper", "lower")
OTHER: dict[SideName, SideName] = {"upper": "lower", "lower": "upper"}


@dataclass(frozen=True)
class Evidence:
    """Of one end. `beyond`: links whose word counts for values and for existence; `siblings`: for existence only.

    `stones`: tombstones at this node that this link has yet to act on. `meanings`: group → hash of its field list.
    """

    side: SideName
    baselines: Baselines
    meanings: Mapping[str, str]
    beyond: Sequence[LinkState]
    siblings: Sequence[LinkState]
    stones: Sequence[Tombstone]

    @property
    def silent(self) -> bool:
        """Whether nothing is told of records that an end does not have."""
        return not self.stones and not any(state.intent for state in self.beyond)

    def agreed(self, keys: pa.Array, states: Sequence[LinkState]) -> pa.Table:
        """key + fp_<group>: what these links agreed on, or were about to (one key may stand there several times).

        A group that a link agreed on under another contract, or does not carry, is null: nobody can tell, so it counts as agreed.
        """
        parts = [self._none()]
        for state in states:
            parts.append(self.baselines.pick(Manifest.parse(state.baseline), self.meanings, keys))
            if state.intent:
                intent = self.baselines.read_intent(state.intent)
                none = pa.nulls(intent.num_rows, pa.binary())
                told = [intent.column(name) if name in intent.column_names else none for name in self._names()]
                parts.append(pa.table(told, names=self._names()))
        return pa.concat_tables(parts)

    def removed(self) -> pa.Table:
        """key, kind: what a neighbouring link removed from this node, settled or about to."""
        parts = [as_table([stone for stone in self.stones if stone.kind in GONE], ()).select(["key", "kind"])]
        for state in self.beyond:
            if state.intent:
                intent = self.baselines.read_intent(state.intent)
                here = f"SELECT key, kind FROM intent WHERE removed = '{OTHER[self.side]}'"
                parts.append(query(here, intent=intent))
        return pa.concat_tables(parts)

    def departed(self) -> pa.Table:
        """key, fp_<group>: records that stay here but left the child they were agreed on with."""
        return as_table([stone for stone in self.stones if stone.kind == "left"], list(self.meanings))

    def arrived(self) -> pa.Table:
        """key: records that were removed here and came back before this link acted on the removal."""
        return as_table([stone for stone in self.stones if stone.kind == "arrived"], ()).select(["key"])

    def _names(self) -> list[str]:
        return ["key", *(f"fp_{name}" for name in self.meanings)]

    def _none(self) -> pa.Table:
        return pa.schema([("key", pa.string()), *((f"fp_{name}", pa.binary()) for name in self.meanings)]).empty_table()


def vouched(stated: pa.Table, baseline: pa.Table, contract: LinkContract, evidence: Evidence) -> pa.Table:
    """`stated` (key, state, version, fp_<group>) with the columns that `merge.side_schema` adds, read from the evidence.

    And `elsewhere`: another child's link agreed on the record.
    """
    side = evidence.side
    level = contract.upper if side == "upper" else contract.lower
    relayed = [group.name for group in contract.relayed(side)]
    creates, retires = contract.dataset.may_create(level), contract.dataset.may_retire(level)
    changed = " OR ".join(["b.key IS NULL", *(f"s.fp_{g} IS DISTINCT FROM b.fp_{g}" for g in relayed)])
    asked = query(
        f"""SELECT s.key FROM s LEFT JOIN b USING (key)
            WHERE s.state = 'left' OR (s.state = 'have' AND ({changed}) AND NOT ({creates} AND {not relayed}))
               OR (s.state = 'gone' AND b.key IS NOT NULL AND NOT {retires})""",
        s=stated,
        b=baseline,
    )
    keys = asked.column("key").combine_chunks()
    agreed = evidence.agreed(keys, evidence.beyond) if len(keys) else evidence.agreed(keys, ())
    departed, removed = evidence.departed(), evidence.removed()
    siblings = evidence.agreed(keys, evidence.siblings) if len(keys) else evidence.agreed(keys, ())
    doubts = ", ".join(_doubt(group.name, group.name in relayed) for group in contract.groups)
    names = list(evidence.meanings)
    return query(
        f"""
            WITH known AS (SELECT DISTINCT key FROM agreed), seen AS (SELECT DISTINCT key FROM elsewhere),
            gone AS (SELECT key, bool_or(kind = 'moved') AS moved FROM removed GROUP BY key)
            SELECT s.*, {doubts},
                CASE WHEN s.state = 'gone' THEN {retires} OR gone.key IS NOT NULL
                     ELSE {creates} OR known.key IS NOT NULL OR seen.key IS NOT NULL END AS entitled,
                known.key IS NOT NULL OR (s.state <> 'gone' AND seen.key IS NOT NULL) AS beyond,
                s.state = 'gone' AND gone.key IS NOT NULL AS passed_on,
                coalesce(s.state = 'gone' AND gone.moved, false) AS moved,
                arrivals.key IS NOT NULL AS arrived, seen.key IS NOT NULL AS elsewhere
            FROM s LEFT JOIN b ON b.key = s.key LEFT JOIN known ON known.key = s.key LEFT JOIN seen ON seen.key = s.key
                LEFT JOIN gone ON gone.key = s.key LEFT JOIN arrivals ON arrivals.key = s.key
            """,
        s=stated,
        b=baseline,
        agreed=pa.concat_tables([agreed, departed.select(agreed.column_names)]) if names else agreed,
        elsewhere=siblings,
        removed=removed,
        arrivals=evidence.arrived(),
    )


def _doubt(group: str, relayed: bool) -> str:
    if not relayed:
        return f"false AS doubt_{group}"
    # A new record that no link beyond knows is its creator's whole: the first delivery carries all of it.
    return (
        f"s.state <> 'gone' AND (b.key IS NOT NULL OR known.key IS NOT NULL) AND s.fp_{group} IS DISTINCT FROM b.fp_{group}"
        f" AND NOT EXISTS (SELECT 1 FROM agreed a WHERE a.key = s.key AND (a.fp_{group} IS NULL OR a.fp_{group} = s.fp_{group}))"
        f" AS doubt_{group}"
    )
