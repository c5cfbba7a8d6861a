"""The three-way merge of a link: pure, vectorised, Arrow in, Arrow out.

`merge` looks at each key that either end or the baseline knows and decides, per field group, whose value is true on this hop.
It does no I/O and reads no clock; DuckDB does the joins and spills to disk if it must.

What an end says of a key is its *state*: `have` (a row, with fingerprints), `gone` (no row), `left` (upper end only: the row
is now another child's). A key that an end says nothing of is as the baseline has it, or, if the end was read whole, gone.

Row decisions (B: in the baseline, U/L: the upper/lower end has it):

    B U L
    0 1 0   created above: entitled → seed down; else held as a correction
    0 0 1   created below: entitled → seed up; else held as a correction
    0 1 1   both have it already: resolve each group without a base
    1 1 1   resolve each group
    1 0 1   deleted above: entitled → delete below; else a correction, and the row is seeded back up
    1 1 0   deleted below: entitled → delete above; else a correction, and the row is seeded back down
    1 0 0   gone at both ends: forget
    1 left 1   now another child's: own edits below ascend, the row is retracted below
    1 left 0   forget

Group decisions (both have the row): equal → converged. Descending: the upper value goes down; if the lower end changed it, that
is a correction as well. Ascending: the mirror image. Shared: the end that changed it; if both did, the later version, ties
to the lower end. The first delivery of a record (seed) carries every visible field, the receiver's own included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from federation.contract import Group, LinkContract
from federation.vector import tables

NONE, CONVERGED, DOWN, UP = 0, 1, 2, 3
"""What happens to one group of one key (`move_<group>`)."""


@dataclass(frozen=True)
class Side:
    """What one end of a link was found to hold.

    `rows`: key, state (`have`, `gone`, `left`), `version` (int64, null if the contract has none) and `fp_<group>` for each
    group; keys unique. `complete`: the end was read whole, so a key without a row is gone. `frozen`: keys whose row cannot
    be read; nothing happens to them in this run.
    """

    rows: pa.Table
    complete: bool
    frozen: pa.Array


@dataclass(frozen=True)
class Plan:
    """The decisions of one merge.

    `decisions`: one line for each key to which anything happens: `key`, `action`, `correction` ("", `create`, `delete`) with
    `raised_by` ("", `upper`, `lower`), and per group `move_<g>`, `raise_<g>` ("", `upper`, `lower`: whose value is proposed as
    a correction), `lost_<g>` ("", `upper`, `lower`: whose value of a shared group lost), `upper_<g>`, `lower_<g>`, `base_<g>`
    (fingerprints). `needs_upper`, `needs_lower`: keys whose row must be fetched from that end before the plan can be carried
    out; fold the rows in and merge again.
    """

    groups: tuple[Group, ...]
    decisions: pa.Table
    needs_upper: pa.Array
    needs_lower: pa.Array

    def where(self, condition: str) -> pa.Table:
        """The decisions that satisfy a SQL condition."""
        if not self.decisions.num_rows:
            return self.decisions
        with tables(decisions=self.decisions) as engine:
            return engine.sql(f"SELECT * FROM decisions WHERE {condition}").to_arrow_table()

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
        with tables(decisions=self.decisions) as engine:
            return engine.sql(
                f"SELECT key, action = 'seed_{direction}' AS seed, {flags} FROM decisions"
                f" WHERE action = 'seed_{direction}' OR {moves} ORDER BY key"
            ).to_arrow_table()

    def removing(self, direction: str) -> pa.Array:
        """Keys of rows that `direction` deletes at its far end."""
        actions = ["delete_down", "retract"] if direction == "down" else ["delete_up"]
        picked = self.decisions.filter(pc.is_in(self.decisions.column("action"), pa.array(actions)))
        return picked.column("key").combine_chunks()


@dataclass(frozen=True)
class Advance:
    """How the baseline moves on: `upserts` (key + fp_<group>) and `removed` (keys)."""

    upserts: pa.Table
    removed: pa.Array


def merge(baseline: pa.Table, upper: Side, lower: Side, contract: LinkContract) -> Plan:
    """Decide what has to happen on a link. `baseline`: key + fp_<group> (null: this group was never agreed on)."""
    frozen = pa.table({"key": pa.concat_arrays([upper.frozen, lower.frozen])})
    with tables(b=baseline, u=upper.rows, l=lower.rows, frozen=frozen) as engine:
        decisions = engine.sql(_decision_sql(contract, upper.complete, lower.complete)).to_arrow_table()
    needs_upper = decisions.filter(decisions.column("needs_upper")).column("key").combine_chunks()
    needs_lower = decisions.filter(decisions.column("needs_lower")).column("key").combine_chunks()
    kept = decisions.drop_columns(["needs_upper", "needs_lower"])
    return Plan(contract.groups, kept, needs_upper, needs_lower)


def advance(plan: Plan, blocked_down: pa.Array, blocked_up: pa.Array) -> Advance:
    """The baseline after the plan was carried out, except for the keys that a gate blocked in a direction."""
    if not plan.decisions.num_rows:
        kept = plan.decisions.select(["key", *(f"base_{group.name}" for group in plan.groups)])
        return Advance(
            kept.rename_columns(["key", *(f"fp_{group.name}" for group in plan.groups)]), pa.array([], pa.string())
        )
    fps = ", ".join(f"{_settled_sql(group)} AS fp_{group.name}" for group in plan.groups)
    blocked = {"bd": pa.table({"key": blocked_down}), "bu": pa.table({"key": blocked_up})}
    with tables(decisions=plan.decisions, **blocked) as engine:
        settled = engine.sql(
            f"""
            WITH d AS (SELECT *, key IN (SELECT key FROM bd) AS down_blocked, key IN (SELECT key FROM bu) AS up_blocked
                       FROM decisions)
            SELECT key, action IN ('delete_down', 'delete_up', 'forget') OR (action = 'retract' AND NOT up_blocked) AS gone,
                   {fps}
            FROM d
            WHERE NOT (action = 'seed_down' AND down_blocked) AND NOT (action = 'seed_up' AND up_blocked)
              AND action NOT IN ('hold_upper', 'hold_lower')
            """
        ).to_arrow_table()
    gone = settled.column("gone")
    return Advance(
        settled.filter(pc.invert(gone)).drop_columns(["gone"]), settled.filter(gone).column("key").combine_chunks()
    )


def _settled_sql(group: Group) -> str:
    name = group.name
    return f"""CASE
        WHEN action = 'seed_down' THEN upper_{name}
        WHEN action = 'seed_up' THEN lower_{name}
        WHEN move_{name} = {CONVERGED} THEN upper_{name}
        WHEN move_{name} = {DOWN} AND NOT down_blocked THEN upper_{name}
        WHEN move_{name} = {UP} AND NOT up_blocked THEN lower_{name}
        ELSE base_{name} END"""


def _decision_sql(contract: LinkContract, upper_complete: bool, lower_complete: bool) -> str:
    groups = contract.groups
    keys = ["SELECT key FROM u", "SELECT key FROM l"]
    if upper_complete or lower_complete:
        keys.append("SELECT key FROM b")
    fps = ", ".join(
        f"b.fp_{g.name} AS base_{g.name}, u.fp_{g.name} AS ufp_{g.name}, l.fp_{g.name} AS lfp_{g.name}" for g in groups
    )
    known = ", ".join(
        f"CASE WHEN u_read THEN ufp_{g.name} ELSE base_{g.name} END AS upper_{g.name},"
        f" CASE WHEN l_read THEN lfp_{g.name} ELSE base_{g.name} END AS lower_{g.name}"
        for g in groups
    )
    moves = ", ".join(_group_sql(contract, g) for g in groups)
    quiet = " AND ".join([f"move_{g.name} = {NONE} AND raise_{g.name} = ''" for g in groups])
    down = " OR ".join([f"move_{g.name} = {DOWN}" for g in groups])
    up = " OR ".join([f"move_{g.name} = {UP}" for g in groups])
    raised = " OR ".join([f"raise_{g.name} <> ''" for g in groups])
    return f"""
    WITH keys AS ({" UNION ".join(keys)}),
    joined AS (
        SELECT k.key, b.key IS NOT NULL AS known,
            coalesce(u.state, CASE WHEN {upper_complete} THEN 'gone' WHEN b.key IS NOT NULL THEN 'have' ELSE 'unknown' END) AS us,
            coalesce(l.state, CASE WHEN {lower_complete} THEN 'gone' WHEN b.key IS NOT NULL THEN 'have' ELSE 'unknown' END) AS ls,
            coalesce(u.state IN ('have', 'left'), false) AS u_read, coalesce(l.state = 'have', false) AS l_read,
            u.version AS u_version, l.version AS l_version, {fps}
        FROM keys k LEFT JOIN b USING (key) LEFT JOIN u USING (key) LEFT JOIN l USING (key)
        WHERE k.key NOT IN (SELECT key FROM frozen)
    ),
    stated AS (SELECT key, known, us, ls, u_read, l_read, u_version, l_version, {_columns("base", groups)}, {known} FROM joined),
    acted AS (SELECT *, {_row_sql(contract)} FROM stated),
    moved AS (SELECT *, {moves} FROM acted)
    SELECT key, action,
        CASE WHEN action IN ('hold_upper', 'hold_lower') THEN 'create'
             WHEN (action = 'seed_down' OR action = 'seed_up') AND known THEN 'delete' ELSE '' END AS correction,
        CASE WHEN action = 'hold_upper' OR (action = 'seed_up' AND known) THEN 'upper'
             WHEN action = 'hold_lower' OR (action = 'seed_down' AND known) THEN 'lower' ELSE '' END AS raised_by,
        {_columns("move", groups)}, {_columns("raise", groups)}, {_columns("lost", groups)},
        {_columns("upper", groups)}, {_columns("lower", groups)}, {_columns("base", groups)},
        NOT u_read AND us <> 'gone' AND (us = 'unknown' OR action IN ('seed_down', 'hold_upper') OR {down} OR {raised}) AS needs_upper,
        NOT l_read AND ls <> 'gone' AND (ls = 'unknown' OR action IN ('seed_up', 'hold_lower') OR {up} OR {raised}) AS needs_lower
    FROM moved
    WHERE action <> 'nothing' AND NOT (action = 'resolve' AND {quiet})
    """


def _columns(prefix: str, groups: Sequence[Group]) -> str:
    return ", ".join(f"{prefix}_{group.name}" for group in groups)


def _row_sql(contract: LinkContract) -> str:
    def either(entitled: bool, then: str, otherwise: str) -> str:
        return f"'{then if entitled else otherwise}'"

    create_down = either(contract.may_create("upper"), "seed_down", "hold_upper")
    create_up = either(contract.may_create("lower"), "seed_up", "hold_lower")
    delete_down = either(contract.may_retire("upper"), "delete_down", "seed_up")
    delete_up = either(contract.may_retire("lower"), "delete_up", "seed_down")
    jurisdiction = contract.group_of(contract.dataset.jurisdiction)
    moves_away = jurisdiction is None or jurisdiction.direction != "ascending"
    left = "'retract'" if moves_away else "'resolve'"
    return f"""CASE
        WHEN NOT known AND us IN ('gone', 'left') AND ls IN ('gone', 'unknown') THEN 'nothing'
        WHEN NOT known AND us = 'left' THEN 'hold_lower'
        WHEN NOT known AND us = 'have' AND ls = 'have' THEN 'resolve'
        WHEN NOT known AND us IN ('have', 'unknown') AND ls IN ('gone', 'unknown') THEN {create_down}
        WHEN NOT known THEN {create_up}
        WHEN us = 'left' AND ls = 'have' THEN {left}
        WHEN us IN ('gone', 'left') AND ls = 'gone' THEN 'forget'
        WHEN us = 'gone' THEN {delete_down}
        WHEN ls = 'gone' THEN {delete_up}
        ELSE 'resolve' END AS action"""


def _group_sql(contract: LinkContract, group: Group) -> str:
    """`move_`, `raise_` and `lost_` of one group."""
    g, name = group.direction, group.name
    upper_changed = f"(base_{name} IS NULL OR upper_{name} <> base_{name})"
    lower_changed = f"(base_{name} IS NULL OR lower_{name} <> base_{name})"
    resolving = "action = 'resolve'"
    differs = f"upper_{name} IS DISTINCT FROM lower_{name}"
    hold = contract.dataset.on_correction == "hold"
    if g == "shared":
        lower_wins = (
            f"(NOT {upper_changed} OR ({lower_changed} AND coalesce(l_version, -1) >= coalesce(u_version, -1)))"
        )
        move = f"CASE WHEN {lower_wins} THEN {UP} ELSE {DOWN} END"
        raised = "''"
        lost = f"CASE WHEN {resolving} AND {differs} AND {upper_changed} AND {lower_changed} THEN CASE WHEN {lower_wins} THEN 'upper' ELSE 'lower' END ELSE '' END"
    else:
        true, false = (DOWN, lower_changed) if g == "descending" else (UP, upper_changed)
        owner_changed = upper_changed if g == "descending" else lower_changed
        proposer = "lower" if g == "descending" else "upper"
        move = f"CASE WHEN {owner_changed} THEN {true} ELSE {NONE} END" if hold else str(true)
        raised = (
            f"CASE WHEN {resolving} AND {differs} AND base_{name} IS NOT NULL AND {false} THEN '{proposer}' ELSE '' END"
        )
        lost = "''"
    converged = f"CASE WHEN base_{name} IS DISTINCT FROM upper_{name} THEN {CONVERGED} ELSE {NONE} END"
    ascends = f"WHEN action = 'retract' AND lower_{name} <> base_{name} THEN {UP}" if g != "descending" else ""
    return (
        f"CASE WHEN {resolving} THEN CASE WHEN {differs} THEN {move} ELSE {converged} END {ascends} ELSE {NONE} END AS move_{name},"
        f" {raised} AS raise_{name}, {lost} AS lost_{name}"
    )
