"""From what was read at a node to what one link's merge needs to know of that end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from federation.canonical import fingerprints, regions_of
from federation.config import Link
from federation.contract import LinkContract
from federation.merge import Side
from federation.reading import KEY, Reading, only, without


@dataclass(frozen=True)
class End:
    """One end of a link, read. `side`: for the merge. `rows`: the typed rows behind it, with `_key`.

    `out_of_scope`: rows of this node that this link must not carry.
    """

    side: Side
    rows: pa.Table
    out_of_scope: pa.Table


def upper_end(
    link: Link, reading: Reading, routes: Mapping[str, str], agreed: pa.Array, below: pa.Array, secret: bytes
) -> End:
    """The upper end: of all that was read of the parent, what concerns this child.

    `agreed`: keys in the baseline; `below`: keys that the lower end speaks of. Rows routed to another child are `left` if
    this child ever had them, and nobody's business here otherwise.
    """
    dataset = link.contract.dataset
    children = regions_of(reading.rows.column(dataset.jurisdiction), routes)
    mine = pc.fill_null(pc.equal(children, link.lower.code), False)
    rows = reading.rows.filter(mine)
    strays = pa.concat_tables([reading.rows.filter(pc.invert(mine)), reading.outside])
    left = only(strays, agreed)
    known = pa.concat_arrays([agreed, below])
    frozen = pa.concat_arrays([_unique(only(reading.rejects, known)), _keyless(reading, agreed)]).unique()
    nothing = reading.outside.schema.empty_table()
    side = _side(link.contract, reading, (("have", rows), ("left", left)), known, frozen, secret, nothing)
    return End(side, rows, nothing)


def lower_end(link: Link, reading: Reading, agreed: pa.Array, above: pa.Array, secret: bytes) -> End:
    """The lower end: everything that the child holds.

    A row that its people moved to another region's code is a proposal if the jurisdiction is decided above; otherwise, and
    if it was never agreed on, it is out of scope.
    """
    contract = link.contract
    group = contract.group_of(contract.dataset.jurisdiction)
    decided_above = group is None or group.direction != "ascending"
    proposed = only(reading.outside, agreed) if decided_above else reading.outside.schema.empty_table()
    rows = pa.concat_tables([reading.rows, proposed])
    stray = without(reading.outside, proposed.column(KEY).combine_chunks())
    known = pa.concat_arrays([agreed, above])
    frozen = pa.concat_arrays([_unique(reading.rejects), _keyless(reading, agreed)]).unique()
    side = _side(contract, reading, (("have", rows),), known, frozen, secret, stray)
    return End(side, rows, stray)


def _side(
    contract: LinkContract,
    reading: Reading,
    parts: tuple[tuple[str, pa.Table], ...],
    known: pa.Array,
    frozen: pa.Array,
    secret: bytes,
    stray: pa.Table,
) -> Side:
    groups = {group.name: group.fields for group in contract.groups}
    tables = []
    for state, rows in parts:
        rows = without(rows, frozen)
        hashed = fingerprints(rows, contract.dataset, groups, secret)
        hashed = hashed.append_column("version", _version(rows, contract.dataset.version))
        tables.append(hashed.append_column("state", pa.array([state] * rows.num_rows, pa.string())))
    stated = pa.concat_tables(tables)
    held = pa.concat_arrays([frozen, stray.column(KEY).combine_chunks()])
    gone = _gone(reading, known, pa.concat_arrays([stated.column("key").combine_chunks(), held]))
    nulls = {f"fp_{name}": pa.nulls(len(gone), pa.binary()) for name in groups}
    absent = pa.table(
        {
            "key": gone,
            **nulls,
            "version": pa.nulls(len(gone), pa.int64()),
            "state": pa.array(["gone"] * len(gone), pa.string()),
        }
    )
    order = ["key", "state", "version", *(f"fp_{name}" for name in groups)]
    return Side(pa.concat_tables([stated.select(order), absent.select(order)]), reading.complete, held)


def _gone(reading: Reading, known: pa.Array, stated: pa.Array) -> pa.Array:
    """Keys that are known elsewhere and that this node does not have (any more)."""
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
