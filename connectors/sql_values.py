"""Values between Arrow and a database column: what is written suits the column's type, what is read is left to `conform`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import types as sql

from federation.contract import FieldSpec

LOCAL_FORMAT = "%Y-%m-%d %H:%M:%S"


def column_type(spec: FieldSpec, *, key: bool, dialect: str) -> sql.TypeEngine[Any]:
    """The type of a column that `prepare` creates."""
    if dialect == "sqlite" and spec.type in ("timestamp", "decimal", "date", "json"):
        return sql.Text()
    text: sql.TypeEngine[Any] = sql.String(190) if key else sql.Text()
    return {
        "string": text,
        "enum": text,
        "json": sql.Text(),
        "int": sql.BigInteger(),
        "float": sql.Double(),
        "decimal": sql.Numeric(38, spec.scale),
        "bool": sql.Boolean(),
        "date": sql.Date(),
        "timestamp": sql.DateTime(timezone=True),
    }[spec.type]


def local_text(moment: datetime, timezone: str) -> str:
    """A moment as people of that zone write it; milliseconds only where there are any."""
    local = moment.astimezone(ZoneInfo(timezone))
    fraction = f".{local.microsecond // 1000:03d}" if local.microsecond else ""
    return local.strftime(LOCAL_FORMAT) + fraction


def writer(column: sql.TypeEngine[Any], timezone: str) -> Callable[[Any], Any]:
    """How a Python value goes into a column of this type."""
    if isinstance(column, sql.DateTime):
        if column.timezone:
            return lambda value: value
        return lambda value: (
            value.astimezone(ZoneInfo(timezone)).replace(tzinfo=None) if isinstance(value, datetime) else value
        )
    if isinstance(column, (sql.Date, sql.Numeric, sql.Float, sql.Boolean)):
        return lambda value: value
    if isinstance(column, sql.Integer):
        return lambda value: (
            int(value) if isinstance(value, (str, bool)) and str(value).lstrip("-").isdigit() else value
        )
    return lambda value: as_text(value, timezone)


def as_text(value: Any, timezone: str) -> Any:
    """The text of a value for a column of text."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return local_text(value, timezone)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, bool):
        return "1" if value else "0"
    return str(value)


def rows_for(
    table: pa.Table, columns: Sequence[tuple[str, sql.TypeEngine[Any]]], timezone: str
) -> list[dict[str, Any]]:
    """The rows of an Arrow table as parameters `c0`, `c1`, … for these columns."""
    lists = []
    for name, kind in columns:
        write = writer(kind, timezone)
        lists.append([None if value is None else write(value) for value in table.column(name).to_pylist()])
    return [{f"c{i}": value for i, value in enumerate(row)} for row in zip(*lists)]


def naive_local(values: pa.ChunkedArray, timezone: str) -> pa.ChunkedArray:
    """Moments as local wall-clock time, for a column without a zone."""
    return pc.local_timestamp(values.cast(pa.timestamp("us", timezone)))


def raw_columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> pa.Table:
    """What a driver returned, as Arrow: native types where a column has one type, else text."""
    lists = list(zip(*rows)) if rows else [()] * len(names)
    return pa.table({name: _column(list(values)) for name, values in zip(names, lists)})


def _column(values: list[Any]) -> pa.Array:
    if any(isinstance(value, (bytes, memoryview)) for value in values):
        values = [
            bytes(value).decode("utf-8", "replace") if isinstance(value, (bytes, memoryview)) else value
            for value in values
        ]
    if any(isinstance(value, Decimal) for value in values):
        values = [format(value, "f") if isinstance(value, Decimal) else value for value in values]
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if value is None else _plain(value) for value in values], pa.string())


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat() if value.tzinfo else value.isoformat(sep=" ")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
