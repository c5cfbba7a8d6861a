"""The rules of the merge, as SQL over the baseline `b`, both ends `u` and `l`, and what people ruled.

Row decisions (B: in the baseline, U/L: the upper/lower end has it; "entitled" and "in doubt": see `federation.merge`):

    B U L
    0 1 0      new above: entitled → seed down; else ruled above → wait; else held as a correction
    0 0 1      new below: entitled → seed up; else ruled above → held as a correction; else wait
    0 1 1      both have it already: resolve each group without a base
    0 left 1   another child has the key: contested → awarded, or later under `latest` → seed up; else held
    1 1 1      resolve each group
    1 0 1      gone above: entitled → delete below; known beyond → wait; else a correction, and the row is seeded back up
    1 1 0      gone below: entitled → delete above; else a correction, and the row is seeded back down
    1 0 0      gone at both ends: forget
    1 left 1   now another child's: the row is retracted below; edits made there before are carried to its new place
    1 left 0   forget

Group decisions (both have the row): equal → converged. Descending: the upper value goes down; if the lower end changed it, that
is a correction as well. Ascending: the mirror image, but for a record that came back to this branch, whose value above is newer.
Shared: the end that changed it; if both did, the later version, ties to the lower end. In doubt → nothing, wait. The first
delivery of a record (seed) carries every visible field, the receiver's own included; it waits while any of them is in doubt.
"""

from __future__ import annotations

from collections.abc import Sequence

from federation.contract import Group, LinkContract

NONE, CONVERGED, DOWN, UP = 0, 1, 2, 3
"""What happens to one group of one key (`move_<group>`)."""


def decision_sql(contract: LinkContract, upper_complete: bool, lower_complete: bool) -> str:
    """One row per key to which something happens, or that waits, or whose row must be fetched first.

    The steps are materialised: else each expression is unfolded into every later one that mentions it, and planning the query
    takes longer than running it.
    """
    groups = contract.groups
    # of a key that neither end speaks of there is something to say only if an end was read whole: it is gone
    known = "FULL" if upper_complete or lower_complete else "LEFT"
    moves = ", ".join(_group_sql(contract, group) for group in groups)
    quiet = " AND ".join(f"move_{g.name} = {NONE} AND raise_{g.name} = ''" for g in groups)
    down = " OR ".join(f"move_{g.name} = {DOWN}" for g in groups)
    up = " OR ".join(f"move_{g.name} = {UP}" for g in groups)
    told = " OR ".join(f"raise_{g.name} <> '' OR lost_{g.name} <> '' OR carry_{g.name} <> ''" for g in groups)
    return f"""
    WITH joined AS MATERIALIZED (
        SELECT key, b.key IS NOT NULL AS known,
            {_state("u", upper_complete)} AS us, {_state("l", lower_complete)} AS ls,
            coalesce(u.state IN ('have', 'left'), false) AS u_read, coalesce(l.state = 'have', false) AS l_read,
            u.version AS u_version, l.version AS l_version,
            coalesce(u.entitled, false) AS u_entitled, coalesce(l.entitled, false) AS l_entitled,
            coalesce(u.beyond, false) AS u_beyond, coalesce(u.moved, false) AS moved, coalesce(u.arrived, false) AS arrived,
            key IN (SELECT key FROM awarded) AS awarded,
            {", ".join(_joined(contract, group) for group in groups)}
        FROM u FULL JOIN l USING (key) {known} JOIN b USING (key)
        {_refusals(contract)}
        WHERE key NOT IN (SELECT key FROM frozen)
    ),
    stated AS MATERIALIZED (SELECT * REPLACE ({", ".join(_known(group) for group in groups)}) FROM joined),
    acted AS MATERIALIZED (SELECT *, {_row_sql(contract)} FROM stated),
    moved_on AS MATERIALIZED (SELECT *, {moves} FROM acted)
    SELECT key, action, moved, arrived,
        CASE WHEN action IN ('hold_upper', 'hold_lower') THEN 'create'
             WHEN (action = 'seed_down' OR action = 'seed_up' AND us = 'gone') AND known THEN 'delete' ELSE '' END AS correction,
        CASE WHEN action = 'hold_upper' OR (action = 'seed_up' AND us = 'gone' AND known) THEN 'upper'
             WHEN action = 'hold_lower' OR (action = 'seed_down' AND known) THEN 'lower' ELSE '' END AS raised_by,
        {_columns("move", groups)}, {_columns("raise", groups)}, {_columns("lost", groups)}, {_columns("carry", groups)},
        {_columns("upper", groups)}, {_columns("lower", groups)}, {_columns("base", groups)},
        us IN ('have', 'left') AS upper_here, ls = 'have' AS lower_here,
        action NOT IN ('nothing', 'wait_upper', 'wait_lower') AND NOT (action = 'resolve' AND {quiet}) AS decided,
        NOT u_read AND us <> 'gone' AND (us = 'unknown' OR action IN ('seed_down', 'hold_upper') OR {down} OR {told}) AS needs_upper,
        NOT l_read AND ls <> 'gone' AND (ls = 'unknown' OR action IN ('seed_up', 'hold_lower') OR {up} OR {told}) AS needs_lower,
        action = 'wait_upper' OR action = 'resolve' AND ({_any_doubt("ud", contract.relayed("upper"))}) AS wait_upper,
        action = 'wait_lower' OR action = 'resolve' AND ({_any_doubt("ld", contract.relayed("lower"))}) AS wait_lower
    FROM moved_on
    WHERE decided OR needs_upper OR needs_lower OR wait_upper OR wait_lower
    """


def _state(end: str, complete: bool) -> str:
    silent = f"CASE WHEN {complete} THEN 'gone' WHEN b.key IS NOT NULL THEN 'have' ELSE 'unknown' END"
    return f"coalesce({end}.state, {silent})"


def _joined(contract: LinkContract, group: Group) -> str:
    g = group.name
    refused = f" refused_{g}," if contract.dataset.on_correction == "hold" else ""
    return (
        f"{refused}"
        f"b.fp_{g} AS base_{g}, u.fp_{g} AS upper_{g}, l.fp_{g} AS lower_{g},"
        f" coalesce(u.doubt_{g}, false) AS ud_{g}, coalesce(l.doubt_{g}, false) AS ld_{g}"
    )


def _known(group: Group) -> str:
    """An end that was not read is as the baseline has it."""
    g = group.name
    return (
        f"CASE WHEN u_read THEN upper_{g} ELSE base_{g} END AS upper_{g},"
        f" CASE WHEN l_read THEN lower_{g} ELSE base_{g} END AS lower_{g}"
    )


def _refusals(contract: LinkContract) -> str:
    """Per group, the fingerprint of a proposal that was turned down (policy `hold` only)."""
    if contract.dataset.on_correction != "hold":
        return ""
    return " ".join(
        f"LEFT JOIN (SELECT key, any_value(fp) AS refused_{g.name} FROM refused WHERE \"group\" = '{g.name}' GROUP BY key)"
        f" USING (key)"
        for g in contract.groups
    )


def _columns(prefix: str, groups: Sequence[Group]) -> str:
    return ", ".join(f"{prefix}_{group.name}" for group in groups)


def _any_doubt(prefix: str, groups: Sequence[Group]) -> str:
    return " OR ".join(f"{prefix}_{group.name}" for group in groups) or "false"


def _row_sql(contract: LinkContract) -> str:
    created_above = "wait_upper" if contract.ruled_above("originates", contract.upper) else "hold_upper"
    created_below = "hold_lower" if contract.ruled_above("originates", contract.lower) else "wait_lower"
    seed_down = f"CASE WHEN {_any_doubt('ud', contract.relayed('upper'))} THEN 'wait_upper' ELSE 'seed_down' END"
    seed_up = f"CASE WHEN {_any_doubt('ld', contract.relayed('lower'))} THEN 'wait_lower' ELSE 'seed_up' END"
    later = "l_version > coalesce(u_version, -1)" if contract.dataset.on_contest == "latest" else "false"
    return f"""CASE
        WHEN NOT known AND us IN ('gone', 'left') AND ls IN ('gone', 'unknown') THEN 'nothing'
        WHEN NOT known AND us = 'left' AND NOT l_entitled THEN '{created_below}'
        WHEN NOT known AND us = 'left' THEN CASE WHEN awarded OR {later} THEN {seed_up} ELSE 'contest' END
        WHEN NOT known AND us = 'have' AND ls = 'have' THEN 'resolve'
        WHEN NOT known AND us = 'unknown' THEN 'resolve'
        WHEN NOT known AND us = 'have' THEN CASE WHEN u_entitled THEN {seed_down} ELSE '{created_above}' END
        WHEN NOT known THEN CASE WHEN l_entitled THEN {seed_up} ELSE '{created_below}' END
        WHEN us = 'left' AND ls = 'have' THEN 'retract'
        WHEN us IN ('gone', 'left') AND ls = 'gone' THEN 'forget'
        WHEN us = 'gone' AND u_entitled THEN 'delete_down'
        WHEN us = 'gone' AND u_beyond THEN 'wait_upper'
        WHEN us = 'gone' THEN {seed_up}
        WHEN ls = 'gone' AND l_entitled THEN 'delete_up'
        WHEN ls = 'gone' THEN {seed_down}
        ELSE 'resolve' END AS action"""


def _group_sql(contract: LinkContract, group: Group) -> str:
    """`move_`, `raise_`, `lost_` and `carry_` of one group."""
    g = group.name
    differs = f"upper_{g} IS DISTINCT FROM lower_{g}"
    upper_changed = f"(base_{g} IS NULL OR upper_{g} <> base_{g})"
    lower_changed = f"(base_{g} IS NULL OR lower_{g} <> base_{g})"
    below = f"base_{g} IS NOT NULL AND lower_{g} <> base_{g} AND NOT ld_{g}"
    above = f"base_{g} IS NOT NULL AND upper_{g} <> base_{g} AND NOT ud_{g}"
    converged = f"CASE WHEN base_{g} IS DISTINCT FROM upper_{g} THEN {CONVERGED} ELSE {NONE} END"
    lower_wins = f"(NOT {upper_changed} OR ({lower_changed} AND coalesce(l_version, -1) >= coalesce(u_version, -1)))"
    retracted, raised = str(NONE), "''"
    lost, carry = [f"WHEN action = 'delete_up' AND {above} THEN 'upper'"], []
    if group.direction == "shared":
        doubt = "false"
        move = f"CASE WHEN {lower_wins} THEN {UP} ELSE {DOWN} END"
        retracted = f"CASE WHEN {below} AND {lower_wins} THEN {UP} ELSE {NONE} END"
        both = f"{differs} AND {upper_changed} AND {lower_changed}"
        lost.append(
            f"WHEN action = 'resolve' AND {both} THEN CASE WHEN {lower_wins} THEN 'upper' ELSE 'lower' END"
            f" WHEN action = 'retract' AND {below} AND {upper_changed} THEN CASE WHEN {lower_wins} THEN 'upper' ELSE 'lower' END"
        )
    elif group.direction == "descending":
        doubt = f"ud_{g}"
        move = _owned(contract, group, DOWN, upper_changed, "lower")
        raised = _raised(contract, group, "lower", lower_changed)
    else:
        doubt = f"ld_{g}"
        move = f"CASE WHEN arrived THEN {DOWN} ELSE {_owned(contract, group, UP, lower_changed, 'upper')} END"
        doubt = f"({doubt} AND NOT arrived)"
        raised = f"CASE WHEN arrived THEN '' ELSE {_raised(contract, group, 'upper', upper_changed)} END"
        carry.append(
            f"WHEN (action = 'retract' OR action = 'resolve' AND arrived AND {differs}) AND {below} THEN 'lower'"
        )
    if group.direction != "descending":
        carry.append(f"WHEN action = 'delete_down' AND moved AND {below} THEN 'lower'")
        lost.append(f"WHEN action = 'delete_down' AND NOT moved AND {below} THEN 'lower'")
    lost.append(f"WHEN action = 'seed_up' AND us = 'left' AND {differs} THEN 'upper'")
    carried = f"CASE {' '.join(carry)} ELSE '' END" if carry else "''"
    return f"""CASE WHEN action = 'resolve' THEN CASE WHEN {doubt} THEN {NONE} WHEN {differs} THEN {move} ELSE {converged} END
             WHEN action = 'retract' THEN {retracted} ELSE {NONE} END AS move_{g},
        CASE WHEN action = 'resolve' AND {differs} AND NOT {doubt} THEN {raised} ELSE '' END AS raise_{g},
        CASE {" ".join(lost)} ELSE '' END AS lost_{g}, {carried} AS carry_{g}"""


def _owned(contract: LinkContract, group: Group, true: int, owner_changed: str, proposer: str) -> str:
    """Where an owned group goes that differs: from its owner, unless a proposal stands until it is ruled on."""
    if contract.dataset.on_correction != "hold":
        return str(true)
    refused = f"{proposer}_{group.name} IS NOT DISTINCT FROM refused_{group.name}"
    return f"CASE WHEN {owner_changed} OR {refused} THEN {true} ELSE {NONE} END"


def _raised(contract: LinkContract, group: Group, proposer: str, proposer_changed: str) -> str:
    refused = (
        f" AND {proposer}_{group.name} IS DISTINCT FROM refused_{group.name}"
        if contract.dataset.on_correction == "hold"
        else ""
    )
    return f"CASE WHEN base_{group.name} IS NOT NULL AND {proposer_changed}{refused} THEN '{proposer}' ELSE '' END"
