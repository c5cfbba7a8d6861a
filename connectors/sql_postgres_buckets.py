"""What PostgreSQL says of text and hashes (see `connectors.sql_buckets`)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Connection, Date, Double, Integer, Numeric, SmallInteger
from sqlalchemy import types as sql

from connectors.sql_buckets import BucketTexts
from connectors.sql_clock import moment_case
from connectors.sql_values import is_text, is_zoned
from federation.contract import FieldSpec

_SETTINGS = {"work_mem": "64MB", "enable_sort": "off", "parallel_tuple_cost": "0"}
"""The planner takes each row for a bucket of its own, and would sort them all in one process: grouping by hash, in as many processes as
the server allows, takes a fraction of the time."""


class PostgresBuckets(BucketTexts):
    """See `BucketTexts`."""

    end = "chr(65535)"

    def ready(self, connection: Connection) -> bool:
        names = ", ".join(f"('{name}', '{value}')" for name, value in _SETTINGS.items())
        connection.exec_driver_sql(
            f"SELECT set_config(g.name, g.setting, true) FROM (VALUES {names}) AS g(name, setting)"
            " JOIN pg_settings s ON s.name = g.name"
        )
        found = connection.exec_driver_sql("SELECT current_setting('server_encoding')").scalar_one()
        return str(found).upper() in ("UTF8", "UTF-8")

    def text(self, name: str, kind: Any, spec: FieldSpec, timezone: str) -> str | None:
        if spec.type in ("string", "enum", "json"):
            return self._string(name, kind, spec)
        if spec.type == "int" and isinstance(kind, (Integer, BigInteger, SmallInteger)):
            return name
        if spec.type == "float" and isinstance(kind, Double):
            # the sum leaves a single zero
            return f"('x' || encode(float8send({name} + 0), 'hex'))::bit(64)::bigint"
        if spec.type == "decimal" and isinstance(kind, Numeric) and not isinstance(kind, sql.Float):
            return self._decimal(name, kind.scale, spec.scale)
        if spec.type == "bool" and isinstance(kind, (Boolean, Integer)):
            return f"{name}::integer"
        if spec.type == "date" and isinstance(kind, Date):
            return name
        if spec.type == "timestamp" and isinstance(kind, sql.DateTime):
            return self._timestamp(name, is_zoned(kind), timezone)
        return None

    def _string(self, name: str, kind: Any, spec: FieldSpec) -> str | None:
        trims = spec.type != "json" and "trim" in spec.normalise
        if not is_text(kind) or (isinstance(kind, sql.CHAR) and not trims):
            return None  # CHAR(n) as text has lost its blanks, as it is read it has not
        return f"{name}::text"  # trimming would take longer than all the rest, and hardly anything has blanks about it

    def _decimal(self, name: str, scale: int | None, wanted: int) -> str:
        if scale == wanted:
            return name
        exact = f"round({name}, {wanted})"
        return (
            exact
            if scale is not None and scale < wanted
            else f"CASE WHEN {name} = {exact} THEN {exact} ELSE {name} END"
        )

    def _timestamp(self, name: str, zoned: bool, timezone: str) -> str | None:
        def moment(ahead: int) -> str:
            seconds = f"extract(epoch FROM date_trunc('milliseconds', {name}))"
            return f"CASE WHEN isfinite({name}) THEN (({seconds} - {ahead}) * 1000)::bigint::text ELSE {name}::text END"

        if zoned:
            return moment(0)
        return moment_case(name, timezone, _literal, moment, f"'{timezone} ' || {name}::text")

    def joined(self, parts: Sequence[str]) -> str:
        return f"concat({', '.join(parts)})"

    def bucket(self, text: str, digits: int) -> str:
        return f"left(md5({text}), {digits})"

    def hashed(self, text: str) -> str:
        return f"('x' || md5({text}))::bit(64)::bigint"

    def unclean(self, place: str) -> str:
        return f"{place} !~ '^[0-9]{{12}}$'"


def _literal(reading: datetime) -> str:
    return f"timestamp '{reading:%Y-%m-%d %H:%M:%S}'"
