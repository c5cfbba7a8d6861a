"""From a plan to what is written at each end: which rows, which columns, and which of them the gate stops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from connectors.base import Batch, Expected
from federation.canonical import key_table
from federation.contract import LinkContract
from federation.gate import Gate
from federation.gate_check import Around
from federation.merge import Plan
from federation.merge_sql import DOWN, UP
from federation.reading import KEY, only
from federation.vector import query, where
from federation.waiving import Waiving

FAILURE = pa.schema(
    [
        ("key", pa.string()),
        ("field", pa.string()),
        ("rule", pa.string()),
        ("reason_zh", pa.string()),
        ("reason_en", pa.string()),
    ]
)


@dataclass(frozen=True)
class Delivery:
    """What one direction is about to write. `parts`: tables with `_key`, the link's fields, grouped by what they carry."""

    parts: tuple[tuple[tuple[str, ...], pa.Table], ...]
    removals: pa.Array

    @property
    def written(self) -> list[str]:
        """The keys of the rows in all parts."""
        return [key for _, rows in self.parts for key in rows.column(KEY).to_pylist()]


@dataclass(frozen=True)
class Judged:
    """A delivery after the gate. `blocked`: keys that stay behind; `failures`: why (`FAILURE`, one line per key and rule).

    `lapsed`: the same of records that do not move and passed before, under a waiver that is over.
    """

    delivery: Delivery
    blocked: pa.Array
    failures: pa.Table
    warned: int
    offered: int
    lapsed: pa.Table = field(default_factory=FAILURE.empty_table)

    @property
    def failing_share(self) -> float:
        """The share of the offered rows that failed critically."""
        return len(self.blocked) / self.offered if self.offered else 0.0


def plan_delivery(plan: Plan, contract: LinkContract, direction: str, source: pa.Table) -> Delivery:
    """What `direction` (`down`, `up`) delivers; `source`: the rows of the end that it comes from."""
    moving = plan.moving(direction)
    parts = []
    for fields, keys in _by_columns(moving, contract, plan):
        rows = source if len(keys) == source.num_rows else only(source, keys)  # a plan moves nothing that was not read
        parts.append((fields, rows.select([KEY, *contract.fields])))
    return Delivery(tuple(parts), plan.removing(direction))


def _by_columns(moving: pa.Table, contract: LinkContract, plan: Plan) -> Iterator[tuple[tuple[str, ...], pa.Array]]:
    """Keys by the exact set of fields that they carry."""
    if not moving.num_rows:
        return
    names = [group.name for group in plan.groups]
    for signature in moving.group_by(["seed", *names]).aggregate([]).to_pylist():
        mask = pc.equal(moving.column("seed"), signature["seed"])
        for name in names:
            mask = pc.and_(mask, pc.equal(moving.column(name), signature[name]))
        carried = {field for group in plan.groups if signature[group.name] for field in group.fields}
        fields = tuple(name for name in contract.fields if name in carried and name not in contract.dataset.key)
        yield fields, moving.filter(mask).column("key").combine_chunks()


def delivered(plan: Plan, delivery: Delivery, direction: str) -> pa.Table:
    """Which version a delivery brings: key + fp_<group> of every row it writes; null where a group is not among what it writes."""
    schema = pa.schema([("key", pa.string()), *((f"fp_{group.name}", pa.binary()) for group in plan.groups)])
    parts = [rows.column(KEY).combine_chunks() for _, rows in delivery.parts if rows.num_rows]
    if not parts:
        return schema.empty_table()
    end, code = ("upper", DOWN) if direction == "down" else ("lower", UP)
    fps = ", ".join(
        f"CASE WHEN action = 'seed_{direction}' OR move_{g.name} = {code} THEN {end}_{g.name} END AS fp_{g.name}"
        for g in plan.groups
    )
    written = pa.table({"key": pa.concat_arrays(parts)})
    statement = f"SELECT key, {fps} FROM decisions SEMI JOIN written USING (key)"
    return query(statement, decisions=plan.decisions, written=written).cast(schema)


def judge(
    delivery: Delivery, gate: Gate | None, around: Around | None = None, waiving: Waiving | None = None
) -> Judged:
    """Let the gate judge exactly the rows that are about to move, on exactly the fields that move."""
    kept, failures, blocked, warned, offered = [], [FAILURE.empty_table()], [pa.array([], pa.string())], 0, 0
    for fields, rows in delivery.parts:
        offered += rows.num_rows
        if gate is None:
            kept.append((fields, rows))
            continue
        verdict = gate.check(rows.drop_columns([KEY]), frozenset(fields), around)
        if waiving is not None:
            verdict = waiving.softened(verdict, rows)
        critical = verdict.critical()
        stopped = rows.filter(critical)
        if verdict.failures.num_rows:
            keys = pc.take(rows.column(KEY).combine_chunks(), verdict.failures.column("row"))
            named = verdict.failures.append_column("key", keys)
            grave = named.filter(pc.equal(named.column("severity"), "critical"))
            failures.append(grave.select(FAILURE.names).cast(FAILURE))
            warned += named.num_rows - grave.num_rows
        blocked.append(stopped.column(KEY).combine_chunks())
        kept.append((fields, where(rows, pc.invert(critical))))
    return Judged(
        Delivery(tuple(kept), delivery.removals), pa.concat_arrays(blocked), pa.concat_tables(failures), warned, offered
    )


def batch_of(
    delivery: Delivery,
    contract: LinkContract,
    cursor: str | None,
    held_back: pa.Array,
    expecting: pa.Table,
    secret: bytes,
) -> Batch:
    """The batch to apply. `held_back`: keys not to be removed although the plan says so. `expecting`: `Plan.expecting`."""
    key = list(contract.dataset.key)
    upserts = tuple(rows.select([*key, *fields]) for fields, rows in delivery.parts if rows.num_rows)
    removals = delivery.removals.filter(pc.invert(pc.is_in(delivery.removals, held_back)))
    written = pa.concat_arrays([*(rows.column(KEY).combine_chunks() for _, rows in delivery.parts), removals])
    whole = expecting.num_rows == len(written)  # nothing is written that the plan says nothing of
    prints = expecting if whole else where(expecting, pc.is_in(expecting.column("key"), written))
    expected = Expected(prints, {group.name: group.fields for group in contract.groups}, secret)
    return Batch(upserts, key_table(removals, contract.dataset), cursor, expected=expected)
