"""From what was read at a node to what one link's merge needs to know of that end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from federation.canonical import fingerprints, regions_of
from federation.config import Link
from federation.contract import LinkContract
from federation.merge import Side, side_schema
from federation.reading import KEY, Reading, only, without
from federation.vector import query, where
from federation.vouch import Evidence, vouched


@dataclass(frozen=True)
class End:
    """One end of a link, read. `side`: for the merge. `rows`: the typed rows behind it, with `_key`.

    `out_of_scope`: rows of this node that this link must not carry. `waiting`: keys whose place is in doubt (somebody who does
    not own it changed the jurisdiction of a record that this child never had): nothing happens to them.
    """

    side: Side
    rows: pa.Table
    out_of_scope: pa.Table
    waiting: pa.Array


def upper_end(
    link: Link,
    reading: Reading,
    routes: Mapping[str, str],
    baseline: pa.Table,
    below: pa.Array,
    secret: bytes,
    evidence: Evidence,
) -> End:
    """The upper end: of all that was read of the parent, what concerns this child.

    `below`: keys that the lower end speaks of. Rows routed to another child are `left` if this child has or claims them, and
    nobody's business here otherwise. Where a record goes is told by a jurisdiction that its owner agreed on, and by no other.
    """
    contract, dataset = link.contract, link.contract.dataset
    agreed = baseline.column("key").combine_chunks()
    known = pa.concat_arrays([agreed, below])
    asked = _asked(reading, evidence, agreed, below)
    children = regions_of(reading.rows.column(dataset.jurisdiction), routes)
    mine = pc.fill_null(pc.equal(children, link.lower.code), False)
    strays = only(pa.concat_tables([reading.rows.filter(pc.invert(mine)), reading.outside]), known)
    frozen = pa.concat_arrays([_unique(only(reading.rejects, known)), _keyless(reading, agreed)]).unique()
    here, away = without(where(reading.rows, mine), frozen), without(strays, frozen)
    stated = _stated(contract, reading, (("have", here), ("left", away)), asked, frozen, secret)
    rows = _placed(vouched(stated, baseline, contract, evidence), baseline, contract)
    rows = rows.select(side_schema(contract.groups).names)
    doubtful = rows.filter(pc.equal(rows.column("state"), "doubtful")).column("key").combine_chunks()
    rows = where(rows, pc.not_equal(rows.column("state"), "doubtful"))
    side = Side(rows, reading.complete, pa.concat_arrays([frozen, doubtful]))
    whole = _together(here, away)
    return End(side, whole, reading.outside.schema.empty_table(), doubtful)


def _placed(rows: pa.Table, baseline: pa.Table, contract: LinkContract) -> pa.Table:
    """`have` and `left` as far as the jurisdiction may be believed.

    In doubt: a record that this child has stays its own, any other is nobody's yet (`doubtful`). Where the jurisdiction is
    decided below, a record is another child's only if that child's link agreed on it; else the parent's people changed it.
    """
    group = contract.group_of(contract.dataset.jurisdiction)
    if group is None:
        return rows
    ascending = group.direction == "ascending"
    doubted = pc.any(rows.column(f"doubt_{group.name}")).as_py()
    if not doubted and not (ascending and pc.any(pc.equal(rows.column("state"), "left")).as_py()):
        return rows
    return query(
        f"""SELECT r.* REPLACE (CASE
                    WHEN r.state = 'gone' THEN 'gone'
                    WHEN r.doubt_{group.name} AND b.key IS NULL THEN 'doubtful'
                    WHEN r.doubt_{group.name} THEN 'have'
                    WHEN r.state = 'left' AND {ascending} AND b.key IS NOT NULL AND NOT r.elsewhere THEN 'have'
                    ELSE r.state END AS state)
                FROM r LEFT JOIN b ON b.key = r.key""",
        r=rows,
        b=baseline,
    )


def lower_end(
    link: Link, reading: Reading, baseline: pa.Table, above: pa.Array, secret: bytes, evidence: Evidence
) -> End:
    """The lower end: everything that the child holds.

    A row that its people moved to another region's code is a proposal if the jurisdiction is decided above; otherwise, and
    if it was never agreed on, it is out of scope.
    """
    contract = link.contract
    agreed = baseline.column("key").combine_chunks()
    group = contract.group_of(contract.dataset.jurisdiction)
    decided_above = group is None or group.direction != "ascending"
    proposed = only(reading.outside, agreed) if decided_above else reading.outside.schema.empty_table()
    stray = without(reading.outside, proposed.column(KEY).combine_chunks())
    asked = _asked(reading, evidence, agreed, above)
    frozen = pa.concat_arrays([_unique(reading.rejects), _keyless(reading, agreed)]).unique()
    held = pa.concat_arrays([frozen, stray.column(KEY).combine_chunks()])
    rows = without(_together(reading.rows, proposed), frozen)
    stated = _stated(contract, reading, (("have", rows),), asked, held, secret)
    told = vouched(stated, baseline, contract, evidence).select(side_schema(contract.groups).names)
    return End(Side(told, reading.complete, held), rows, stray, pa.array([], pa.string()))


def _asked(reading: Reading, evidence: Evidence, agreed: pa.Array, other: pa.Array) -> pa.Array:
    """The keys of which it matters that this end does not have them. Of a record that only the other end speaks of, a merge knows as
    much from an end that was read whole, unless there is something to tell of it."""
    return agreed if reading.complete and evidence.silent else pa.concat_arrays([agreed, other])


def _stated(
    contract: LinkContract,
    reading: Reading,
    parts: tuple[tuple[str, pa.Table], ...],
    known: pa.Array,
    held: pa.Array,
    secret: bytes,
) -> pa.Table:
    """key, state, version, fp_<group> of everything that the end speaks of."""
    groups = {group.name: group.fields for group in contract.groups}
    stated = []
    for state, rows in parts:
        hashed = fingerprints(rows, contract.dataset, groups, secret)
        hashed = hashed.append_column("version", _version(rows, contract.dataset.version))
        stated.append(hashed.append_column("state", pa.array([state] * rows.num_rows, pa.string())))
    told = _together(*stated)
    gone = _gone(reading, known, pa.concat_arrays([told.column("key").combine_chunks(), held]))
    schema = pa.schema([field for field in side_schema(contract.groups) if field.name in told.column_names])
    absent = pa.table(
        {
            field.name: gone
            if field.name == "key"
            else pa.array(["gone"] * len(gone), pa.string())
            if field.name == "state"
            else pa.nulls(len(gone), field.type)
            for field in schema
        },
        schema=schema,
    )
    return _together(told.select(schema.names), absent)


def _together(*tables: pa.Table) -> pa.Table:
    """One table; as it is, in one piece, where the others are empty."""
    return pa.concat_tables([table for table in tables if table.num_rows] or tables[:1])


def _gone(reading: Reading, known: pa.Array, stated: pa.Array) -> pa.Array:
    """Keys that are known elsewhere and that this node does not have (any more)."""
    if not len(known):
        return known
    known = known.unique()
    told = pc.is_in(known, reading.deleted)
    if reading.present is not None:
        told = pc.or_(told, pc.invert(pc.is_in(known, reading.present)))
    elif reading.complete:
        told = pa.array([True] * len(known), pa.bool_())
    return known.filter(pc.and_(told, pc.invert(pc.is_in(known, stated))))


def _keyless(reading: Reading, agreed: pa.Array) -> pa.Array:
    """While a row without a key stands in the node, nobody can tell which missing record it is: none of them is deleted."""
    nameless = reading.rejects.column(KEY).null_count
    if not nameless or reading.present is None:
        return pa.array([], pa.string())
    return agreed.filter(pc.invert(pc.is_in(agreed, reading.present)))


def _unique(rejects: pa.Table) -> pa.Array:
    return rejects.column(KEY).combine_chunks().drop_null().unique()


def _version(rows: pa.Table, field: str | None) -> pa.Array:
    if field is None or field not in rows.column_names:
        return pa.nulls(rows.num_rows, pa.int64())
    return pc.cast(rows.column(field).combine_chunks(), pa.int64())
