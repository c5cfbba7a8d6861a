"""What both ends of a link hold, compared: first buckets, then the rows of buckets that differ, then the records themselves. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from federation.canonical import fingerprints, key_column, regions_of
from federation.config import Link
from federation.contract import Dataset
from federation.reading import KEY, Reading
from federation.vector import query

KINDS = ("missing_below", "missing_above", "differing")
DIFFERENCES = pa.schema([("key", pa.string()), ("kind", pa.string()), ("above", pa.string()), ("below", pa.string())])
"""`kind`: one of `KINDS`. `above`, `below`: what the end has of the record: `here`, `elsewhere` (in another jurisdiction), `unreadable`
(a row that cannot be typed or trusted), `gone`."""

ROWS_PER_BUCKET = 256
"""About as many rows are looked at for one record that differs."""


def digits_for(rows: int, places: int, most: int) -> int:
    """The hex digits of a bucket's name, so that a bucket of evenly spread rows holds few."""
    digits = 0
    while digits < most and rows > ROWS_PER_BUCKET * max(1, places) * 16**digits:
        digits += 1
    return digits


def of_region(told: pa.Table, routes: Mapping[str, str], code: str) -> pa.Table:
    """Of digests or hashes, those of places that are routed to a region."""
    return told.filter(pc.fill_null(pc.equal(regions_of(told.column("place"), routes), code), False))


def differing_buckets(above: pa.Table, below: pa.Table) -> pa.Table:
    """place, bucket: where the digests of both ends differ, or only one has any."""
    return query(
        """SELECT place, bucket FROM above a FULL JOIN below b USING (place, bucket)
           WHERE a.rows IS DISTINCT FROM b.rows OR a.total IS DISTINCT FROM b.total""",
        above=above,
        below=below,
    )


def suspects(above: pa.Table, below: pa.Table, dataset: Dataset) -> pa.Array:
    """The keys (as text) whose hashes differ, or that only one end told, or told twice. Rows without a key are nobody's."""
    found = query(
        """WITH a AS (SELECT key, count(*) AS n, min(hash) AS hash FROM above GROUP BY key),
                b AS (SELECT key, count(*) AS n, min(hash) AS hash FROM below GROUP BY key)
           SELECT key FROM a FULL JOIN b USING (key)
           WHERE key IS NOT NULL AND (a.n IS DISTINCT FROM b.n OR a.hash IS DISTINCT FROM b.hash OR a.n > 1)
           ORDER BY key""",
        above=_keyed(above, dataset),
        below=_keyed(below, dataset),
    )
    return found.column("key").combine_chunks()


def _keyed(hashes: pa.Table, dataset: Dataset) -> pa.Table:
    for name in dataset.key:
        hashes = hashes.filter(pc.is_valid(hashes.column(name)))
    return pa.table({"key": key_column(hashes, dataset), "hash": hashes.column("hash")})


def differences(link: Link, upper: Reading, lower: Reading, routes: Mapping[str, str], secret: bytes) -> pa.Table:
    """`DIFFERENCES` of the records that two readings by key speak of, on the fields that travel on the link.

    A record that the upper end has for another child, and the lower end not in its jurisdiction, is no difference.
    """
    groups = {group.name: group.fields for group in link.contract.groups}
    mine = pc.fill_null(
        pc.equal(regions_of(upper.rows.column(link.contract.dataset.jurisdiction), routes), link.lower.code), False
    )
    above = _held(upper, upper.rows.filter(mine), upper.rows.filter(pc.invert(mine)), link, groups, secret)
    below = _held(lower, lower.rows, lower.rows.slice(0, 0), link, groups, secret)
    same = " AND ".join(f"a.fp_{name} IS NOT DISTINCT FROM b.fp_{name}" for name in groups)
    return query(
        f"""WITH ends AS (
                SELECT key, coalesce(a.state, 'gone') AS above, coalesce(b.state, 'gone') AS below, {same} AS same
                FROM a FULL JOIN b USING (key))
            SELECT key, CASE WHEN below = 'gone' THEN 'missing_below' WHEN above = 'gone' THEN 'missing_above'
                             ELSE 'differing' END AS kind, above, below
            FROM ends
            WHERE NOT (above = 'here' AND below = 'here' AND same) AND NOT (above IN ('gone', 'elsewhere') AND below IN ('gone', 'elsewhere'))
            ORDER BY key""",
        a=above,
        b=below,
    ).cast(DIFFERENCES)


def _held(
    reading: Reading, here: pa.Table, away: pa.Table, link: Link, groups: Mapping[str, tuple[str, ...]], secret: bytes
) -> pa.Table:
    """key, state, fp_<group> of what an end has of these records."""
    hashed = fingerprints(here, link.contract.dataset, groups, secret)
    hashed = hashed.append_column("state", pa.array(["here"] * hashed.num_rows, pa.string()))
    told = [("unreadable", reading.rejects), ("elsewhere", away), ("elsewhere", reading.outside)]
    others = pa.table(
        {
            "key": pa.concat_arrays([rows.column(KEY).combine_chunks() for _, rows in told]),
            "state": pa.array([state for state, rows in told for _ in range(rows.num_rows)], pa.string()),
        }
    )
    names = ", ".join(f"any_value(fp_{name}) AS fp_{name}" for name in groups)
    return query(
        f"""WITH told AS (SELECT * FROM hashed UNION ALL BY NAME SELECT * FROM others)
            SELECT key, max(state) AS state, {names} FROM told WHERE key IS NOT NULL GROUP BY key""",
        hashed=hashed,
        others=others,
    )
