"""What MySQL and MariaDB say of text and hashes (see `connectors.sql_buckets`)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Date, Integer, Numeric
from sqlalchemy import types as sql
from sqlalchemy.dialects.mysql import BIT, YEAR

from connectors.sql_buckets import BucketTexts
from connectors.sql_clock import moment_case
from connectors.sql_values import is_text, is_zoned
from federation.contract import FieldSpec

_DIGITS = 65
"""Of a DECIMAL at most."""
_BLANKS = "' '"


class MysqlBuckets(BucketTexts):
    """See `BucketTexts`. Its numbers with a floating point have no text that tells all their digits on every version: they are read."""

    end = "CONVERT(X'EFBFBF' USING utf8mb4)"

    def ready(self, connection: Connection) -> bool:
        return True  # each text is converted

    def text(self, name: str, kind: Any, spec: FieldSpec, timezone: str) -> str | None:
        if spec.type in ("string", "enum", "json"):
            return self._string(name, kind, spec)
        if spec.type == "bool" and isinstance(kind, BIT):
            return f"({name} + 0)"
        if spec.type in ("int", "bool") and isinstance(kind, Integer) and not isinstance(kind, YEAR):
            return f"({name} + 0)"  # without the zeros of ZEROFILL
        if spec.type == "decimal" and isinstance(kind, Numeric) and not isinstance(kind, sql.Float):
            return self._decimal(name, kind, spec.scale)
        if spec.type == "date" and isinstance(kind, Date):
            return f"NULLIF(CAST({name} AS CHAR), '0000-00-00')"
        if spec.type == "timestamp" and isinstance(kind, sql.DateTime):
            return self._timestamp(name, is_zoned(kind), timezone)
        return None

    def _string(self, name: str, kind: Any, spec: FieldSpec) -> str | None:
        if not is_text(kind):
            return None
        text = f"CONVERT({name} USING utf8mb4)"
        return f"TRIM(BOTH {_BLANKS} FROM {text})" if spec.type != "json" and "trim" in spec.normalise else text

    def _decimal(self, name: str, kind: Any, wanted: int) -> str | None:
        scale, precision = kind.scale or 0, kind.precision or 10
        if scale > wanted or precision - scale + wanted > _DIGITS:
            return None
        return name if scale == wanted else f"CAST({name} AS DECIMAL({_DIGITS}, {wanted}))"

    def _timestamp(self, name: str, zoned: bool, timezone: str) -> str | None:
        def moment(ahead: int) -> str:
            micros = f"TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', {name})"
            # a day that is none gives no number
            return f"COALESCE(CAST(FLOOR({micros} / 1000) - {ahead * 1000} AS CHAR), CAST({name} AS CHAR))"

        none = f"{name} IS NULL OR CAST({name} AS CHAR) LIKE '0000-00-00%'"
        told = moment(0) if zoned else moment_case(name, timezone, _literal, moment, f"CONCAT('{timezone} ', {name})")
        return None if told is None else f"CASE WHEN {none} THEN NULL ELSE {told} END"

    def place(self, text: str) -> str:
        return f"{super().place(text)} COLLATE utf8mb4_bin"

    def joined(self, parts: Sequence[str]) -> str:
        return f"CONVERT(CONCAT({', '.join(_given(part) for part in parts)}) USING utf8mb4)"

    def bucket(self, text: str, digits: int) -> str:
        return f"LEFT(MD5({text}), {digits})"

    def hashed(self, text: str) -> str:
        return f"CAST(CONV(LEFT(MD5({text}), 16), 16, 10) AS UNSIGNED)"

    def unclean(self, place: str) -> str:
        return f"{place} NOT REGEXP '^[0-9]{{12}}$'"


def _given(part: str) -> str:
    return part if part.startswith(("'", "CONVERT(X")) else f"IFNULL({part}, '')"


def _literal(reading: datetime) -> str:
    return f"'{reading:%Y-%m-%d %H:%M:%S}'"
