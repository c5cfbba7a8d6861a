"""Digests of buckets worked out inside the database, by `federation.canonical_buckets`' rules: no record leaves it.

What a kind of database knows of text and hashes is a `BucketTexts`. A column whose text cannot be told exactly there makes the whole table
be read instead: two values that the contract tells apart must never become one text.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from sqlalchemy import Column, Connection, Table, Text, literal_column, select

from connectors.base import Node
from connectors.sql_database import Database, single
from federation.canonical import typed
from federation.canonical_buckets import DIGESTS, Buckets, among, folded, hashes_schema
from federation.contract import FieldSpec

MOST_LISTED = 5000
"""Buckets up to which a statement lists them; beyond, all places of a bucket are read."""
_ZONE = re.compile(r"[A-Za-z0-9_+/-]+")
_WRAP = 2**64


class BucketTexts(ABC):
    """What one kind of database says in SQL. Names come quoted; salts, digits and zones need no quoting."""

    end: str
    """The character U+FFFF."""

    @abstractmethod
    def ready(self, connection: Connection) -> bool:
        """Whether its texts are UTF-8, so that hashes are what they are elsewhere. May set up the transaction for the work."""

    @abstractmethod
    def text(self, name: str, kind: Any, spec: FieldSpec, timezone: str) -> str | None:
        """A column's canonical text, or one that becomes the same canonical value as the column; null or empty for null.

        None if that cannot be told exactly. Never two values that the contract tells apart as one.
        """

    def place(self, text: str) -> str:
        """The text by which rows are put together as one place; empty for null."""
        return f"coalesce({text}, '')"

    @abstractmethod
    def joined(self, parts: Sequence[str]) -> str:
        """All parts as one text; null counts as empty."""

    @abstractmethod
    def bucket(self, text: str, digits: int) -> str:
        """The first hex digits of a text's MD5, in small letters."""

    @abstractmethod
    def hashed(self, text: str) -> str:
        """The first 64 bits of a text's MD5 as a number, of either sign; null for null."""

    @abstractmethod
    def unclean(self, place: str) -> str:
        """Whether a text is not made of twelve ASCII digits."""


class Statements:
    """The statements for one table. `columns`: field → column."""

    def __init__(
        self, texts: BucketTexts, database: Database, node: Node, columns: Mapping[str, Column[Any]], asked: Buckets
    ) -> None:
        self._database, self._node, self._columns, self._asked, self._texts = database, node, columns, asked, texts
        self._quote = database.engine.dialect.identifier_preparer
        key = [self._text(name) for name in node.dataset.key]
        rest = [self._text(name) for name in asked.fields]
        place = self._text(node.dataset.jurisdiction)
        self.exact = place is not None and None not in key and None not in rest
        if place is None or not self.exact:
            return
        salt = f"'{asked.salt}'"
        keyed = [part for text in key if text is not None for part in (text, texts.end)]
        whole = [*keyed, *(part for text in rest if text is not None for part in (text, texts.end))]
        self.place = texts.place(place)
        self.bucket = texts.bucket(texts.joined([salt, *keyed]), asked.digits)
        self.hash = texts.hashed(texts.joined([salt, *whole]))

    def _text(self, name: str) -> str | None:
        column, node = self._columns[name], self._node
        if not _ZONE.fullmatch(node.timezone):
            return None
        quoted = single(self._quote.quote(column.name))
        return self._texts.text(quoted, column.type, node.dataset.fields[name], node.timezone)

    def digests(self, connection: Connection, table: Table) -> pa.Table | None:
        """`DIGESTS`; None if a row is too large for the database to hash."""
        of = single(self._quote.format_table(table))
        summed = (
            "SELECT place, bucket, count(*), sum(h), count(h) FROM"
            f" (SELECT {self.place} AS place, {self.bucket} AS bucket, {self.hash} AS h FROM {of}) AS hashed"
            " GROUP BY place, bucket"
        )
        found = connection.exec_driver_sql(summed.replace("%", "%%")).fetchall()
        if any(rows != hashed for _, _, rows, _, hashed in found):
            return None
        places, buckets, rows, totals, _ = zip(*found) if found else ((),) * 5
        lines = [
            self._typed(pa.array(places, pa.string()), self._node.dataset.jurisdiction),
            pa.array(buckets, pa.string()),
            pa.array(rows, pa.int64()),
            pa.array([int(total) % _WRAP for total in totals], pa.uint64()),
        ]
        return folded(pa.table(lines, schema=DIGESTS))

    def hashes(self, connection: Connection, table: Table, wanted: pa.Table) -> pa.Table:
        """`hashes_schema` of the buckets in `wanted`."""
        if not wanted.num_rows:
            return hashes_schema(self._node.dataset).empty_table()
        node, keys = self._node, {name: self._columns[name] for name in self._node.dataset.key}
        told = {"_place": self.place, "_bucket": self.bucket, "_hash": self.hash}
        columns = {**keys, **{name: Column(name, Text()) for name in told}}
        texts = {name: FieldSpec(label=name, authority="shared") for name in told}
        specs = {**node.dataset.fields, **texts}
        statement = (
            select(
                *(self._database.plain(column, specs[name], node.timezone) for name, column in keys.items()),
                *(self._database.text(literal_column(sql)).label(name) for name, sql in told.items()),
            )
            .select_from(table)
            .where(literal_column(self._among(wanted)))
        )
        raw = self._database.read(connection, statement, columns, specs)
        lines = [
            *(self._typed(raw.column(name), name) for name in keys),
            self._typed(raw.column("_place"), node.dataset.jurisdiction),
            raw.column("_bucket").cast(pa.string()),
            pa.array(
                [None if text is None else int(text) % _WRAP for text in raw.column("_hash").to_pylist()], pa.uint64()
            ),
        ]
        return among(pa.table(lines, schema=hashes_schema(node.dataset)), wanted)

    def _among(self, wanted: pa.Table) -> str:
        """The cheap question first: hardly any row lies in one of these buckets."""
        buckets = ", ".join(f"'{bucket}'" for bucket in wanted.column("bucket").unique().to_pylist())
        if wanted.num_rows > MOST_LISTED:
            return f"{self.bucket} IN ({buckets})"
        pairs = zip(wanted.column("place").to_pylist(), wanted.column("bucket").to_pylist())
        listed = ", ".join(f"'{place}{bucket}'" for place, bucket in pairs if re.fullmatch("[0-9]{12}", place or ""))
        unclean = self._texts.unclean(self.place)
        there = f"{self._texts.joined([self.place, self.bucket])} IN ({listed}) OR {unclean}" if listed else unclean
        return f"CASE WHEN {self.bucket} IN ({buckets}) THEN {there} ELSE FALSE END"

    def _typed(self, values: pa.Array | pa.ChunkedArray, name: str) -> pa.Array:
        flat = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        return typed(flat, self._node.dataset.fields[name], self._node.timezone)


def statements(
    database: Database, connection: Connection, node: Node, columns: Mapping[str, Column[Any]], asked: Buckets
) -> Statements | None:
    """The statements for a table, if this database can tell its columns' texts exactly."""
    texts = database.buckets
    if texts is None or not texts.ready(connection):
        return None
    found = Statements(texts, database, node, columns, asked)
    return found if found.exact else None
