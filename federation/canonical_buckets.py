"""Digests of buckets: what a node holds in short, the same for every system that holds the same facts.

A row's text is its key and the compared fields, each in a canonical text with U+FFFF behind it; no value is the empty text. That no
two rows run together follows from `federation.canonical`: no text holds U+FFFF, and none is empty. Texts by type: string, enum and JSON
as typed; int and date as written; decimal with the contract's scale; bool 0/1; timestamp milliseconds since 1970 UTC; float its 64 bits
as a signed number. A row's hash is the first 64 bits of the text's MD5, which every database knows: it stands against chance, not against
an enemy, and is salted anew for each comparison, so that rows whose hashes meet by chance do so once. A bucket is named by the first hex
digits of the MD5 of the key's part of the text. Its digest is the sum of its rows' hashes modulo 2**64: order does not count.

A system that works these out itself may take a text as it stands where the contract would tidy it up first: then two nodes differ that
agree, and whoever looks closer sees it. It must never take two values for one that the contract tells apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from federation.canonical import schema
from federation.contract import Dataset
from federation.vector import query

END = 0xFFFF
"""The character that stands behind each value."""
MOST_DIGITS = 4

DIGESTS = pa.schema([("place", pa.string()), ("bucket", pa.string()), ("rows", pa.int64()), ("total", pa.uint64())])
"""One line for each bucket that holds a row. `place`: the rows' jurisdiction (null: none). `bucket`: hex digits. `total`: see the module."""


@dataclass(frozen=True)
class Buckets:
    """How two nodes are cut and hashed, so that they can be compared.

    `fields`: what is compared beside the key. `digits` (0 to 4): hex digits that name a bucket, so there are 16**digits of them at each
    place. `salt`: hex digits, the same for both nodes, new for each comparison.
    """

    fields: tuple[str, ...]
    digits: int
    salt: str

    def __post_init__(self) -> None:
        if not 0 <= self.digits <= MOST_DIGITS or not all(char in "0123456789abcdef" for char in self.salt):
            raise ValueError("digits are 0 to 4, a salt is made of hex digits")


def hashes_schema(dataset: Dataset) -> pa.Schema:
    """Key columns (typed) + `place`, `bucket` and `hash` of single rows; `hash` null: no database could tell."""
    return pa.schema(
        [*schema(dataset, dataset.key), ("place", pa.string()), ("bucket", pa.string()), ("hash", pa.uint64())]
    )


def digests(rows: pa.Table, dataset: Dataset, asked: Buckets) -> pa.Table:
    """The digests (`DIGESTS`) of typed rows that hold the key, the jurisdiction and the compared fields."""
    return query(f"{_hashed(dataset, asked)} {_SUMMED}", given=_viewed(rows, dataset, asked)).cast(DIGESTS)


def hashes(rows: pa.Table, dataset: Dataset, asked: Buckets, wanted: pa.Table) -> pa.Table:
    """The rows (`hashes_schema`) of some buckets. `wanted`: place, bucket."""
    given = _viewed(rows, dataset, asked)
    told = query(f"{_hashed(dataset, asked)} SELECT * FROM h", given=given).cast(hashes_schema(dataset))
    return among(told, wanted)


def among(told: pa.Table, wanted: pa.Table) -> pa.Table:
    """The lines (of digests or hashes) that lie in some buckets. `wanted`: place, bucket."""
    given = {"told": told, "wanted": wanted.select(["place", "bucket"])}
    return query("SELECT told.* FROM told SEMI JOIN wanted USING (place, bucket)", **given).cast(told.schema)


def folded(digests: pa.Table) -> pa.Table:
    """Lines of the same place and bucket as one."""
    return query(f"WITH h AS (SELECT place, bucket, rows, total FROM given) {_FOLDED}", given=digests).cast(DIGESTS)


_TOTAL = "CAST(sum({}) % 18446744073709551616 AS UBIGINT) AS total"
_SUMMED = f"SELECT place, bucket, count(*) AS rows, {_TOTAL.format('hash')} FROM h GROUP BY place, bucket"
_FOLDED = (
    f"SELECT place, bucket, CAST(sum(rows) AS BIGINT) AS rows, {_TOTAL.format('total')} FROM h GROUP BY place, bucket"
)


def _hashed(dataset: Dataset, asked: Buckets) -> str:
    key = [part for name in dataset.key for part in (_text(dataset, name), f"chr({END})")]
    rest = [part for name in asked.fields for part in (_text(dataset, name), f"chr({END})")]
    keys = ", ".join(f'"{name}"' for name in dataset.key)
    hashed = f"('0x' || left(md5(concat('{asked.salt}', {', '.join([*key, *rest])})), 16))::UBIGINT"
    return (
        f'WITH h AS (SELECT {keys}, "{dataset.jurisdiction}" AS place,'
        f" left(md5(concat('{asked.salt}', {', '.join(key)})), {asked.digits}) AS bucket, {hashed} AS hash FROM given)"
    )


def _text(dataset: Dataset, name: str) -> str:
    kind = dataset.fields[name].type
    if kind == "bool":
        return f'CAST(CAST("{name}" AS INTEGER) AS VARCHAR)'
    if kind == "timestamp":
        return f'CAST(epoch_ms("{name}") AS VARCHAR)'
    return f'CAST("{name}" AS VARCHAR)'


def _viewed(rows: pa.Table, dataset: Dataset, asked: Buckets) -> pa.Table:
    """The columns that are hashed; of floats, their bits. A field that the rows have no column for is null."""
    names = dict.fromkeys((*dataset.key, dataset.jurisdiction, *asked.fields))
    columns = {name: rows.column(name) for name in names}
    for name, column in columns.items():
        if pa.types.is_floating(column.type):
            columns[name] = column.combine_chunks().view(pa.int64())
    return pa.table(columns)
