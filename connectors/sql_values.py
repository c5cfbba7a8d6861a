"""Values between Arrow and a database column: what is written suits the column's type, what is read is left to `conform`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import types as sql

from federation.canonical import arrow_type, plain_ranges
from federation.contract import FieldSpec


def column_type(spec: FieldSpec, *, key: bool) -> sql.TypeEngine[Any]:
    """The type of a column that `prepare` creates. MySQL cannot index text without a length; 190 fits its widest charset."""
    text: Any = sql.Text().with_variant(sql.String(190), "mysql", "mariadb") if key else sql.Text()
    types: dict[str, Any] = {
        "string": text,
        "enum": text,
        "json": sql.Text(),
        "int": sql.BigInteger(),
        "float": sql.Double(),
        "decimal": sql.Numeric(38, spec.scale).with_variant(sql.Text(), "sqlite"),
        "bool": sql.Boolean(),
        "date": sql.Date().with_variant(sql.Text(), "sqlite"),
        "timestamp": sql.DateTime(timezone=True).with_variant(sql.Text(), "sqlite"),
    }
    return types[spec.type]  # type: ignore[no-any-return]


def is_natural(spec: FieldSpec, column: sql.TypeEngine[Any]) -> bool:
    """Whether equal values of the field are equal in the column, as the database compares them."""
    kinds: dict[str, tuple[type[sql.TypeEngine[Any]], ...]] = {
        "string": (sql.String,),
        "enum": (sql.String,),
        "json": (),
        "int": (sql.Integer, sql.Numeric),
        "float": (sql.Float,),
        "decimal": (sql.Numeric,),
        "bool": (sql.Boolean,),
        "date": (sql.Date,),
        "timestamp": (sql.DateTime,),
    }
    return isinstance(column, kinds[spec.type])


def is_exact(spec: FieldSpec, column: sql.TypeEngine[Any]) -> bool:
    """Whether the column keeps whole numbers, or days, of which any two are the same to the contract only if they are to the database."""
    if spec.type == "int":
        return isinstance(column, (sql.Integer, sql.Numeric)) and not isinstance(column, sql.Float)
    return spec.type == "date" and isinstance(column, sql.Date)


def untidy(spec: FieldSpec, escape: Callable[[str], str]) -> str:
    """The regular expression that finds any text which the contract may read as another. `escape`: how a character is written in it."""
    plain = "".join(f"{escape(first)}-{escape(last)}" for first, last in plain_ranges(spec.normalise))
    return f"[^{plain}]|^ | $"


def is_zoned(column: sql.TypeEngine[Any]) -> bool:
    """Whether a column keeps moments rather than wall-clock readings."""
    return isinstance(column, sql.DateTime) and bool(column.timezone)


def is_text(column: sql.TypeEngine[Any]) -> bool:
    """Whether a column keeps text."""
    return isinstance(column, sql.String)


def read_type(spec: FieldSpec, column: sql.TypeEngine[Any]) -> pa.DataType:
    """The Arrow type in which a column's text is best parsed: the contract's own if the column can only hold such values."""
    if spec.type == "date" and isinstance(column, sql.DateTime):
        return pa.timestamp("us")
    if not is_natural(spec, column) or is_text(column):
        return pa.string()
    if spec.type == "timestamp" and not is_zoned(column):
        return pa.timestamp("us")
    return arrow_type(spec)


def local_text(moment: datetime, timezone: str) -> str:
    """A moment as people of that zone write it; milliseconds only where there are any."""
    local = moment.astimezone(ZoneInfo(timezone))
    fraction = f".{local.microsecond // 1000:03d}" if local.microsecond >= 1000 else ""
    return f"{local:%Y-%m-%d %H:%M:%S}{fraction}"


def local_texts(values: pa.ChunkedArray, timezone: str) -> pa.ChunkedArray:
    """`local_text` of a column; with the offset where a clock showed that time twice and the later one is meant."""
    here = values.cast(pa.timestamp("ms", timezone), safe=False)
    read = pc.assume_timezone(pc.local_timestamp(here), timezone, ambiguous="earliest", nonexistent="earliest")
    later = pc.not_equal(read.cast(pa.int64()), here.cast(pa.int64()))
    offset = pc.if_else(later, pc.strftime(here, format="%z"), pa.scalar(""))
    written = pc.strftime(here, format="%Y-%m-%d %H:%M:%S")
    return pc.binary_join_element_wise(
        pc.replace_substring_regex(written, pattern=r"\.000$", replacement=""), offset, ""
    )


def naive_local(values: pa.ChunkedArray, timezone: str) -> pa.ChunkedArray:
    """Moments as local wall-clock time, for a column without a zone. Where a clock showed a time twice, the later one is lost."""
    return pc.local_timestamp(values.cast(pa.timestamp("us", timezone)))


def plain_decimals(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Decimals as text without an exponent (Arrow writes 1E-8)."""
    return pa.chunked_array(
        [[None if value is None else format(value, "f") for value in values.to_pylist()]], pa.string()
    )


def as_text(values: pa.ChunkedArray, timezone: str) -> pa.ChunkedArray:
    """Typed values as the text that a column of text gets; `conform` reads it back as the same value."""
    kind = values.type
    if pa.types.is_timestamp(kind):
        return local_texts(values, timezone)
    if pa.types.is_decimal(kind):
        return plain_decimals(values)
    if pa.types.is_boolean(kind):
        return values.cast(pa.int8()).cast(pa.string())
    if pa.types.is_floating(kind):
        return pa.chunked_array([[None if value is None else repr(value) for value in values.to_pylist()]], pa.string())
    return values.cast(pa.string())


def for_driver(values: pa.ChunkedArray, column: sql.TypeEngine[Any], timezone: str) -> list[Any]:
    """Python values that any driver takes for a column of this type."""
    if isinstance(column, sql.DateTime) and not column.timezone and pa.types.is_timestamp(values.type):
        return list(naive_local(values, timezone).to_pylist())
    if pa.types.is_boolean(values.type) and isinstance(column, (sql.Numeric, sql.Integer)):
        return list(values.cast(pa.int8()).to_pylist())
    if isinstance(column, (sql.DateTime, sql.Date, sql.Boolean, sql.Numeric, sql.Integer)) and not pa.types.is_string(
        values.type
    ):
        return list(values.to_pylist())
    return list(as_text(values, timezone).to_pylist())


def raw_columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> pa.Table:
    """What a driver returned, as Arrow: native types where a column has one type, else text."""
    lists = list(zip(*rows)) if rows else [()] * len(names)
    return pa.table({name: _column(list(values)) for name, values in zip(names, lists)})


def as_moments(raw: pa.Table, columns: Mapping[str, Any]) -> pa.Table:
    """A raw table whose zoned columns were read as UTC readings: these become moments."""
    for at, (name, column) in enumerate(columns.items()):
        if is_zoned(column.type) and pa.types.is_timestamp(raw.column(name).type):
            raw = raw.set_column(at, name, pc.assume_timezone(raw.column(name).cast(pa.timestamp("us")), "UTC"))
    return raw


def joined(parts: list[pa.Table]) -> pa.Table:
    """One table; where parts of a column came in different types, it is text."""
    if len({part.schema for part in parts}) > 1:
        parts = [pa.table({name: part.column(name).cast(pa.string()) for name in part.column_names}) for part in parts]
    return pa.concat_tables(parts)


def _column(values: list[Any]) -> pa.Array:
    try:
        found = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        found = None
    if found is None or pa.types.is_binary(found.type) or pa.types.is_decimal(found.type):
        return pa.array([None if value is None else _plain(value) for value in values], pa.string())
    return found


def _plain(value: Any) -> str:
    if isinstance(value, (bytes, memoryview)):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
