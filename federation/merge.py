"""The three-way merge of a link: pure, vectorised, Arrow in, Arrow out.

`merge` looks at each key that either end or the baseline knows and decides, per field group, whose value is true on this hop.
It does no I/O and reads no clock; DuckDB does the joins and spills to disk if it must. docs/semantics.md explains the rules and
links each line of the decision table to its test; the rules themselves are in `federation.merge_sql`.

What an end says of a key is its *state*: `have` (a row, with fingerprints), `gone` (no row), `left` (upper end only: the row
is another child's). A key that an end says nothing of is as the baseline has it, or, if the end was read whole, gone.

An end speaks for itself or relays. It is *entitled* to the existence or absence of a row if its level originates or retires
records, or if a link beyond it agreed on it. A group is *in doubt* at an end that relays it (the authority lies beyond) while it
holds something else than the link beyond it agreed on: somebody edited it there who does not own it. What is in doubt goes
nowhere: it waits until the link beyond has restored it or carried it to its authority.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from federation.contract import Group, LinkContract
from federation.merge_sql import CONVERGED, DOWN, UP, decision_sql
from federation.vector import query, where


def side_schema(groups: Sequence[Group]) -> pa.Schema:
    """The columns of `Side.rows`."""
    return pa.schema(
        [
            ("key", pa.string()),
            ("state", pa.string()),
            ("version", pa.int64()),
            *((f"fp_{group.name}", pa.binary()) for group in groups),
            *((f"doubt_{group.name}", pa.bool_()) for group in groups),
            ("entitled", pa.bool_()),
            ("beyond", pa.bool_()),
            ("passed_on", pa.bool_()),
            ("moved", pa.bool_()),
            ("arrived", pa.bool_()),
        ]
    )


@dataclass(frozen=True)
class Side:
    """What one end of a link was found to hold.

    `rows` (`side_schema`): key; state (`have`, `gone`, `left`); `version` (null if the contract has none); per group
    `fp_<g>` and `doubt_<g>`; `entitled`: to the existence (`have`) or absence (`gone`) of the row; `beyond`: a link beyond
    this end knows the row; `passed_on`: gone because a link beyond removed it; `moved`: gone because its jurisdiction moved; `arrived`: it was away, or deleted, and came back.
    Keys unique. `complete`: the end was read whole, so a key without a row is gone. `frozen`: keys to leave alone.
    """

    rows: pa.Table
    complete: bool
    frozen: pa.Array


@dataclass(frozen=True)
class Rulings:
    """What people ruled, as far as a merge must know it.

    `refused`: key, group, fp: proposals that were turned down and still stand where they were made (policy `hold`); they are
    put back. `awarded`: contested keys that were awarded to this link's lower end.
    """

    refused: pa.Table
    awarded: pa.Array


NO_RULINGS = Rulings(
    pa.schema([("key", pa.string()), ("group", pa.string()), ("fp", pa.binary())]).empty_table(),
    pa.array([], pa.string()),
)


@dataclass(frozen=True)
class Plan:
    """The decisions of one merge.

    `decisions`: one line for each key to which anything happens: `key`, `action`, `correction` ("", `create`, `delete`) with
    `raised_by` ("", `upper`, `lower`), and per group `move_<g>`, `raise_<g>` ("", `upper`, `lower`: whose value is proposed as
    a correction), `lost_<g>` ("", `upper`, `lower`: whose value gave way and is kept in the log), `carry_<g>` ("", `lower`:
    whose value is carried to the record's new place), `upper_<g>`, `lower_<g>`, `base_<g>` (fingerprints), `upper_here`,
    `lower_here` (whether the end has a row).
    `waiting`: key, side: what is in doubt. `needs_upper`, `needs_lower`: keys whose row must be fetched from that end before the
    plan can be carried out; fold the rows in and merge again.
    """

    groups: tuple[Group, ...]
    decisions: pa.Table
    waiting: pa.Table
    needs_upper: pa.Array
    needs_lower: pa.Array

    def where(self, condition: str) -> pa.Table:
        """The decisions that satisfy a SQL condition."""
        if not self.decisions.num_rows:
            return self.decisions
        return query(f"SELECT * FROM decisions WHERE {condition}", decisions=self.decisions)

    def moving(self, direction: str) -> pa.Table:
        """Rows that `direction` (`down` or `up`) delivers: key, seed (all fields), and one bool per group."""
        if not self.decisions.num_rows:
            names = [group.name for group in self.groups]
            return pa.schema(
                [("key", pa.string()), ("seed", pa.bool_()), *((n, pa.bool_()) for n in names)]
            ).empty_table()
        code = DOWN if direction == "down" else UP
        flags = ", ".join(
            f"action = 'seed_{direction}' OR move_{group.name} = {code} AS {group.name}" for group in self.groups
        )
        moves = " OR ".join(f"move_{group.name} = {code}" for group in self.groups)
        return query(
            f"SELECT key, action = 'seed_{direction}' AS seed, {flags} FROM decisions"
            f" WHERE action = 'seed_{direction}' OR {moves}",
            decisions=self.decisions,
        )

    def expecting(self, direction: str) -> pa.Table:
        """What `direction` was decided on at its far end, as `connectors.base.Expected.prints`."""
        names = [group.name for group in self.groups]
        end, code = ("lower", DOWN) if direction == "down" else ("upper", UP)
        removed = "action IN ('delete_down', 'retract')" if direction == "down" else "action = 'delete_up'"
        whole = f"{removed} OR action = 'seed_{direction}'"
        if not self.decisions.num_rows:
            fields = [("key", pa.string()), ("here", pa.bool_()), *((f"fp_{name}", pa.binary()) for name in names)]
            return pa.schema(fields).empty_table()
        fps = ", ".join(
            f"CASE WHEN {end}_here AND ({whole} OR move_{name} = {code}) THEN {end}_{name} END AS fp_{name}"
            for name in names
        )
        moves = " OR ".join(f"move_{name} = {code}" for name in names)
        return query(
            f"SELECT key, CASE WHEN NOT ({removed}) THEN {end}_here END AS here, {fps} FROM decisions WHERE {whole} OR {moves}",
            decisions=self.decisions,
        )

    def removing(self, direction: str) -> pa.Array:
        """Keys of rows that `direction` deletes at its far end."""
        return self.acting("delete_down", "retract") if direction == "down" else self.acting("delete_up")

    def acting(self, *actions: str) -> pa.Array:
        """Keys with one of these actions."""
        picked = self.decisions.filter(pc.is_in(self.decisions.column("action"), pa.array(actions)))
        return picked.column("key").combine_chunks()


@dataclass(frozen=True)
class Advance:
    """How the baseline moves on: `upserts` (key + fp_<group>) and `removed` (keys)."""

    upserts: pa.Table
    removed: pa.Array


def merge(baseline: pa.Table, upper: Side, lower: Side, contract: LinkContract, rulings: Rulings = NO_RULINGS) -> Plan:
    """Decide what has to happen on a link. `baseline`: key + fp_<group> (null: this group was never agreed on)."""
    frozen = pa.table({"key": pa.concat_arrays([upper.frozen, lower.frozen])})
    awarded = pa.table({"key": rulings.awarded})
    given = {"b": baseline, "u": upper.rows, "l": lower.rows, "frozen": frozen, "refused": rulings.refused}
    found = query(decision_sql(contract, upper.complete, lower.complete), **given, awarded=awarded)
    needs_upper = found.filter(found.column("needs_upper")).column("key").combine_chunks()
    needs_lower = found.filter(found.column("needs_lower")).column("key").combine_chunks()
    waiting = pa.concat_tables([_waiting(found, side) for side in ("upper", "lower")])
    decided = where(found, found.column("decided"))
    aside = ["decided", "needs_upper", "needs_lower", "wait_upper", "wait_lower"]
    return Plan(contract.groups, decided.drop_columns(aside), waiting, needs_upper, needs_lower)


def _waiting(found: pa.Table, side: str) -> pa.Table:
    keys = found.filter(found.column(f"wait_{side}")).column("key").combine_chunks()
    return pa.table({"key": keys, "side": pa.array([side] * len(keys), pa.string())})


def advance(plan: Plan, blocked_down: pa.Array, blocked_up: pa.Array) -> Advance:
    """The baseline after the plan was carried out, except for the keys that a gate blocked in a direction."""
    if not plan.decisions.num_rows:
        kept = plan.decisions.select(["key", *(f"base_{group.name}" for group in plan.groups)])
        return Advance(
            kept.rename_columns(["key", *(f"fp_{group.name}" for group in plan.groups)]), pa.array([], pa.string())
        )
    fps = ", ".join(f"{_settled_sql(group)} AS fp_{group.name}" for group in plan.groups)
    blocked = {"bd": pa.table({"key": blocked_down}), "bu": pa.table({"key": blocked_up})}
    settled = query(
        f"""
            WITH d AS (SELECT *, key IN (SELECT key FROM bd) AS down_blocked, key IN (SELECT key FROM bu) AS up_blocked
                       FROM decisions)
            SELECT key, action IN ('delete_down', 'delete_up', 'forget') OR (action = 'retract' AND NOT up_blocked) AS gone,
                   {fps}
            FROM d
            WHERE NOT (action = 'seed_down' AND down_blocked) AND NOT (action = 'seed_up' AND up_blocked)
              AND action NOT IN ('hold_upper', 'hold_lower', 'contest')
            """,
        decisions=plan.decisions,
        **blocked,
    )
    gone = settled.column("gone")
    kept = where(settled, pc.invert(gone)).drop_columns(["gone"])
    return Advance(kept, settled.filter(gone).column("key").combine_chunks())


def _settled_sql(group: Group) -> str:
    name = group.name
    return f"""CASE
        WHEN action = 'seed_down' THEN upper_{name}
        WHEN action = 'seed_up' THEN lower_{name}
        WHEN move_{name} = {CONVERGED} THEN upper_{name}
        WHEN move_{name} = {DOWN} AND NOT down_blocked THEN upper_{name}
        WHEN move_{name} = {UP} AND NOT up_blocked THEN lower_{name}
        ELSE base_{name} END"""
