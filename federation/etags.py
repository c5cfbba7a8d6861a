"""Writes on a condition, row by row: a row is written only if it still is as it was when the write was decided on.

A system with etags tells the state of each row that it gives. What is about to be written there must have been read there, in this
very run; the etag of a later read would let an edit through that the decision knew nothing of.
"""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from connectors.base import ETAG, Batch, Connector
from federation.canonical import key_column, key_table
from federation.merge import Plan
from federation.reading import KEY, Reading, only


def unread(end: Connector, reading: Reading, plan: Plan, direction: str) -> pa.Array:
    """Keys that `direction` writes at this end though the reading does not know their state there: to be fetched, then merged again."""
    if not end.capabilities.etags:
        return pa.array([], pa.string())
    written = pa.concat_arrays([plan.moving(direction).column("key").combine_chunks(), plan.removing(direction)])
    known = _states(reading, written).column(KEY).combine_chunks()
    return written.filter(pc.invert(pc.is_in(written, known)))


def conditioned(end: Connector, reading: Reading, batch: Batch) -> Batch:
    """The batch with the etag of each row as this reading, on which it was decided, found it."""
    if not end.capabilities.etags:
        return batch
    dataset = end.node.dataset
    keys = pa.concat_arrays([key_column(rows, dataset) for rows in (*batch.upserts, batch.deletes)])
    states = _states(reading, keys)
    known = key_table(states.column(KEY), dataset).append_column(ETAG, states.column(ETAG))
    return replace(batch, etags=known)


def _states(reading: Reading, keys: pa.Array) -> pa.Table:
    """`_key`, `_etag` of those keys whose state was read; null where there was no such row."""
    told = only(reading.etags, keys)
    spoken = [table.column(KEY).combine_chunks() for table in (told, reading.rows, reading.outside, reading.rejects)]
    silent = keys.filter(pc.invert(pc.is_in(keys, pa.concat_arrays(spoken))))
    gone = pc.is_in(silent, reading.deleted)
    if reading.present is not None:
        gone = pc.or_(gone, pc.invert(pc.is_in(silent, reading.present)))
    absent = silent if reading.complete else silent.filter(gone)
    return pa.concat_tables([told, pa.table({KEY: absent, ETAG: pa.nulls(len(absent), pa.string())})])
