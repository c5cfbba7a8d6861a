"""Accounting: everything that a run read has exactly one fate, and the numbers add up or the run fails."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.compute as pc

from federation.errors import AccountingError
from federation.merge import Plan
from federation.sides import End
from federation.vector import query


@dataclass(frozen=True)
class Account:
    """What became of everything read at one end: rows, deletions, unreadable rows.

    `delivered`: at least one group (or the deletion) went to the other end. `unchanged`: nothing to do. `quarantined`: a gate
    or the reader set it aside. `held`: waits for a ruling, or for a link beyond. `out_of_scope`: not this link's to carry.
    """

    read: int
    delivered: int
    unchanged: int
    quarantined: int
    held: int
    out_of_scope: int

    def check(self, side: str) -> Account:
        """Raise AccountingError unless read = delivered + unchanged + quarantined + held + out of scope."""
        total = self.delivered + self.unchanged + self.quarantined + self.held + self.out_of_scope
        if total != self.read:
            raise AccountingError(
                f"{side}: read {self.read}, accounted for {total}: {asdict(self)}",
                "本次运行的数目对不上",
                todo="这是引擎缺陷，请报告 / this is a defect of the engine, please report it",
            )
        return self


def account(side: str, end: End, plan: Plan, agreed: pa.Array, blocked_down: pa.Array, blocked_up: pa.Array) -> Account:
    """The account of one end (`upper` or `lower`) after the gate has judged."""
    events = _events(end, agreed)
    fates = (
        _fates(side, end, plan, agreed, blocked_down, blocked_up)
        if plan.decisions.num_rows or plan.waiting.num_rows
        else {"unchanged": events}
    )
    set_aside, waiting = len(end.side.frozen.unique()), len(end.waiting.unique())
    return Account(
        read=events + set_aside,
        delivered=fates.get("delivered", 0),
        unchanged=fates.get("unchanged", 0),
        quarantined=fates.get("quarantined", 0) + set_aside - end.out_of_scope.num_rows - waiting,
        held=fates.get("held", 0) + waiting,
        out_of_scope=end.out_of_scope.num_rows,
    ).check(side)


def _events(end: End, agreed: pa.Array) -> int:
    rows = end.side.rows
    told = pc.or_(pc.not_equal(rows.column("state"), "gone"), pc.is_in(rows.column("key"), agreed))
    return int(pc.sum(pc.cast(told, pa.int64())).as_py() or 0)


def _fates(
    side: str, end: End, plan: Plan, agreed: pa.Array, blocked_down: pa.Array, blocked_up: pa.Array
) -> dict[str, int]:
    """How many events of one end met which fate."""
    code, seed, removals = (
        ("2", "seed_down", "'delete_down', 'retract'") if side == "upper" else ("3", "seed_up", "'delete_up'")
    )
    moves = " OR ".join(f"move_{group.name} = {code}" for group in plan.groups)
    raises = " OR ".join(
        f"'{side}' IN (raise_{group.name}, lost_{group.name}, carry_{group.name})" for group in plan.groups
    )
    blocked = "key IN (SELECT key FROM bd)" if side == "upper" else "key IN (SELECT key FROM bu)"
    found = query(
        f"""
            WITH events AS (SELECT key FROM side WHERE state <> 'gone' OR key IN (SELECT key FROM agreed)),
            fated AS (
                SELECT e.key,
                    coalesce(action = '{seed}' OR {moves}, false) AS sends, coalesce(action IN ({removals}), false) AS removes,
                    coalesce(raised_by = '{side}' OR action = 'contest' OR {raises}, false)
                        OR e.key IN (SELECT key FROM waiting WHERE side = '{side}') AS proposes
                FROM events e LEFT JOIN decisions d USING (key)
            )
            SELECT CASE WHEN sends AND {blocked} THEN 'quarantined'
                        WHEN removes AND key IN (SELECT key FROM bu) THEN 'held'
                        WHEN sends OR removes THEN 'delivered'
                        WHEN proposes THEN 'held'
                        ELSE 'unchanged' END AS fate, count(*) AS n
            FROM fated GROUP BY fate
            """,
        side=end.side.rows,
        decisions=plan.decisions,
        waiting=plan.waiting,
        agreed=pa.table({"key": agreed}),
        bd=pa.table({"key": blocked_down}),
        bu=pa.table({"key": blocked_up}),
    )
    return {row["fate"]: row["n"] for row in found.to_pylist()}
