"""Canonical typing and fingerprints: the same fact has the same bytes whichever system it comes from.

`conform` turns whatever a system returned (native types, or text from sheets and JSON) into the contract's Arrow types and
sets aside, with a reason, the rows that cannot be typed. `fingerprints` hashes canonical text with sha256, keyed and cut to
128 bits, so that the ledger can hold them without holding values. Both are vectorised; neither does I/O.

Canonical text, per type: string/enum as typed, NFC; int decimal digits; float 17 significant digits; decimal with the
contract's scale; bool 0/1; date ISO 8601; timestamp microseconds since 1970 UTC, cut to milliseconds (what a spreadsheet
cell can hold); JSON with sorted keys and no spaces (`canonical_json`).

What some system cannot keep is made the same for all, or refused for all:
- blank text is null, whatever `normalise` says: a sheet cannot tell them apart. A missing column or member is null, too;
- NUL, U+FFFE and U+FFFF are refused (rule `type:string`, `type:json`): PostgreSQL has no place for the first, XML for none;
- there is one zero, and neither NaN nor infinity;
- days and moments lie in the years 1 to 9999, in UTC and on the node's clock; a moment that a clock reading without zone names
  twice (summer time ended) is the earlier one, one that it never showed is the moment when the clock was put forward.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from federation.canonical_json import canonical_json
from federation.canonical_text import normal_text
from federation.canonical_text import plain_ranges as plain_ranges
from federation.contract import Dataset, FieldSpec
from federation.together import together
from federation.vector import query

REJECTS = pa.schema(
    [
        ("locator", pa.string()),
        ("field", pa.string()),
        ("value", pa.string()),
        ("rule", pa.string()),
        ("reason_zh", pa.string()),
        ("reason_en", pa.string()),
    ]
)
"""Columns that stand beside the key columns in a table of rejected rows; `locator` says where a person finds the row."""

MANY = 100_000
"""Rows from which on columns are typed side by side."""
LOCATOR = "_locator"
"""Optional column of a raw table: where the row stands (`数据!第 7 行`), carried into the rejects."""

_DATE_FORMATS = [
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y年%m月%d日",
    "%Y%m%d",
    "%Y.%m.%d",
    "%Y-%m-%d %H:%M:%S",
    "%Y/%m/%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
]
_TIME_FORMATS = [
    "%Y-%m-%d %H:%M:%S.%g",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%Y年%m月%d日 %H:%M:%S",
    "%Y年%m月%d日 %H:%M",
    *_DATE_FORMATS[:4],
]
_WHOLE_YEAR = "^[0-9]{4}([^0-9]|[0-9]{4}([^0-9]|$))"
"""How a date begins: 90年2月3日 is no day of the year 90, and of 1990123 nobody knows which."""
_TRUE = ("true", "t", "1", "yes", "y", "是", "1.0")
_FALSE = ("false", "f", "0", "no", "n", "否", "0.0")
_WORDING = {
    "int": ("应为整数", "must be a whole number"),
    "float": ("应为数字", "must be a number"),
    "decimal": (
        "应为小数，且小数位不超过约定",
        "must be a decimal number with no more digits than the contract's scale",
    ),
    "bool": ("应为 是/否", "must be yes or no"),
    "date": ("应为日期，如 2026-01-31", "must be a date such as 2026-01-31"),
    "timestamp": ("应为日期时间，如 2026-01-31 08:00:00", "must be a date and time such as 2026-01-31 08:00:00"),
    "string": ("不能含有空字符（NUL）等非字符", "must not hold NUL, U+FFFE or U+FFFF"),
    "enum": ("不在允许的取值内", "is not one of the allowed values"),
    "json": ("应为 JSON", "must be JSON"),
}


def arrow_type(spec: FieldSpec) -> pa.DataType:
    """The one Arrow type in which a field crosses every boundary."""
    return {
        "string": pa.string(),
        "enum": pa.string(),
        "json": pa.string(),
        "int": pa.int64(),
        "float": pa.float64(),
        "decimal": pa.decimal128(38, spec.scale),
        "bool": pa.bool_(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us", "UTC"),
    }[spec.type]


def schema(dataset: Dataset, fields: Sequence[str]) -> pa.Schema:
    """The Arrow schema of these fields, in their order."""
    return pa.schema([(name, arrow_type(dataset.fields[name])) for name in fields])


def reject_schema(dataset: Dataset) -> pa.Schema:
    """Key columns (typed, null where unreadable) + `REJECTS`."""
    return pa.schema([*schema(dataset, dataset.key), *REJECTS])


@dataclass(frozen=True)
class Conformed:
    """`rows`: typed rows, keys unique and not null. `rejects`: the others, one line per row with its first fault."""

    rows: pa.Table
    rejects: pa.Table


def conform(raw: pa.Table, dataset: Dataset, fields: Sequence[str], *, timezone: str = "Asia/Shanghai") -> Conformed:
    """Type a raw table. Columns of `raw` are named after fields; a missing column is all null; others are dropped.

    Text without a zone is read as local time of `timezone`. A row with a value that cannot be typed, a null in its key, or
    a key that stands more than once goes to `rejects` (all of the rows that share the key: none of them can be trusted).
    """
    target = schema(dataset, fields)
    columns: dict[str, pa.Array] = {}
    faults: list[tuple[str, pa.Array, pa.Array, str]] = []
    found = [name for name in fields if name in raw.column_names]

    def typed_column(name: str) -> tuple[pa.Array, pa.Array]:
        source = _flat(raw.column(name))
        return source, _typed(source, dataset.fields[name], timezone)

    pairs = dict(zip(found, together(typed_column, found, 2 if raw.num_rows >= MANY else 1)))
    for name in fields:
        spec = dataset.fields[name]
        if name not in pairs:
            columns[name] = pa.nulls(raw.num_rows, target.field(name).type)
            continue
        source, typed = pairs[name]
        columns[name] = typed
        if typed.null_count > source.null_count:
            bad = pc.and_(pc.is_null(typed), _filled(source, spec))
            if pc.any(bad).as_py():
                faults.append((name, bad, source, spec.type))
    typed_table = pa.table(columns, schema=target)
    if not faults and _well_keyed(typed_table, dataset):
        return Conformed(typed_table, reject_schema(dataset).empty_table())
    fault_field, fault_value, fault_rule = _first_faults(typed_table, dataset, faults)
    rejected = pc.is_valid(fault_field)
    rows = typed_table.filter(pc.invert(rejected))
    rejects = _rejects(raw, typed_table, dataset, rejected, fault_field, fault_value, fault_rule)
    return Conformed(rows, rejects)


def _well_keyed(typed: pa.Table, dataset: Dataset) -> bool:
    """Whether every row has a key, and no two the same."""
    if any(typed.column(name).null_count for name in dataset.key):
        return False
    keys = pa.table({"key": key_column(typed, dataset)})
    return bool(query("SELECT count(DISTINCT key) AS n FROM keys", keys=keys).column("n")[0].as_py() == typed.num_rows)


def _first_faults(
    typed: pa.Table, dataset: Dataset, faults: list[tuple[str, pa.Array, pa.Array, str]]
) -> tuple[pa.Array, pa.Array, pa.Array]:
    count = typed.num_rows
    fields = pa.nulls(count, pa.string())
    values = pa.nulls(count, pa.string())
    rules = pa.nulls(count, pa.string())

    def mark(bad: pa.Array, name: str, value: pa.Array, rule: str) -> None:
        nonlocal fields, values, rules
        new = pc.and_(pc.fill_null(bad, False), pc.is_null(fields))
        values = pc.if_else(new, value, values)
        fields = pc.if_else(new, pa.scalar(name), fields)
        rules = pc.if_else(new, pa.scalar(rule), rules)

    for name, bad, source, rule in faults:
        mark(bad, name, _text(source), f"type:{rule}")
    for name in dataset.key:
        mark(pc.is_null(_flat(typed.column(name))), name, pa.nulls(count, pa.string()), "key:missing")
    if count:
        keys = key_column(typed, dataset)
        encoded = keys.dictionary_encode()
        times = pc.value_counts(keys)
        by_key = pc.take(times.field("counts"), pc.index_in(encoded.dictionary, times.field("values")))
        mark(pc.greater(pc.take(by_key, encoded.indices), 1), dataset.key[0], keys, "key:duplicate")
    return fields, values, rules


def _rejects(
    raw: pa.Table,
    typed: pa.Table,
    dataset: Dataset,
    rejected: pa.Array,
    field: pa.Array,
    value: pa.Array,
    rule: pa.Array,
) -> pa.Table:
    locator = (
        pc.cast(_flat(raw.column(LOCATOR)), pa.string())
        if LOCATOR in raw.column_names
        else pa.nulls(typed.num_rows, pa.string())
    )
    keys = typed.select(list(dataset.key))
    whole = (
        keys.append_column("locator", locator)
        .append_column("field", field)
        .append_column("value", pc.replace_substring(value, "\x00", "\ufffd"))
        .append_column("rule", rule)
    )
    picked = whole.filter(rejected)
    wording = [
        _wording(dataset, *row)
        for row in zip(*(picked.column(name).to_pylist() for name in ("field", "value", "rule")))
    ]
    picked = picked.append_column("reason_zh", pa.array([zh for zh, _ in wording], pa.string()))
    return picked.append_column("reason_en", pa.array([en for _, en in wording], pa.string())).cast(
        reject_schema(dataset)
    )


def _wording(dataset: Dataset, field: str, value: str | None, rule: str) -> tuple[str, str]:
    spec = dataset.fields[field]
    if rule == "key:missing":
        return f"“{spec.label}”不能为空", f"{field} must not be empty"
    if rule == "key:duplicate":
        return f"“{spec.label}”重复：{value}", f"{field} stands more than once: {value}"
    zh, en = _WORDING[rule.removeprefix("type:")]
    allowed = f"（{'、'.join(spec.values)}）" if spec.type == "enum" else ""
    return (
        f"“{spec.label}”{zh}{allowed}，现为“{value}”",
        f"{field} {en}{allowed and ' (' + ', '.join(spec.values) + ')'}, it is {value!r}",
    )


def typed(values: pa.Array, spec: FieldSpec, timezone: str) -> pa.Array:
    """Values, of one column of text or of a system's own type, as the field's; null where they are none."""
    return _typed(values, spec, timezone)


def _flat(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _filled(source: pa.Array, spec: FieldSpec) -> pa.Array:
    """Where a person would say that something is written."""
    if pa.types.is_null(source.type):
        return pa.array([False] * len(source), pa.bool_())
    if pa.types.is_string(source.type) or pa.types.is_large_string(source.type):
        void = ["", "null"] if spec.type == "json" else [""]
        return pc.invert(pc.is_in(pc.utf8_trim_whitespace(source), pa.array([*void, None], source.type)))
    return pc.is_valid(source)


def _text(source: pa.Array) -> pa.Array:
    """Values as a person would write them: whole floats without a fraction (a sheet stores 13800000000 as a float)."""
    if pa.types.is_null(source.type):
        return pa.nulls(len(source), pa.string())
    if pa.types.is_floating(source.type):
        whole = pc.and_(pc.equal(source, pc.floor(source)), pc.less(pc.abs(source), 2.0**63))
        digits = pc.cast(pc.cast(pc.if_else(whole, source, pa.scalar(0.0, source.type)), pa.int64()), pa.string())
        return pc.if_else(whole, digits, pc.cast(source, pa.string()))
    if pa.types.is_decimal(source.type):  # Arrow writes 1E-8
        return pa.array([None if value is None else f"{value:f}" for value in source.to_pylist()], pa.string())
    if pa.types.is_boolean(source.type):
        return pc.if_else(source, pa.scalar("true"), pa.scalar("false"))
    if pa.types.is_nested(source.type):
        return pa.array(
            [None if v is None else json.dumps(v, ensure_ascii=False, default=str) for v in source.to_pylist()],
            pa.string(),
        )
    return pc.cast(source, pa.string())


def _typed(source: pa.Array, spec: FieldSpec, timezone: str) -> pa.Array:
    target = arrow_type(spec)
    if pa.types.is_null(source.type):
        return pa.nulls(len(source), target)
    if spec.type == "timestamp" and pa.types.is_timestamp(source.type):
        moments = source if source.type.tz else _zoned(pc.cast(source, pa.timestamp("us"), safe=False), timezone)
        return _in_calendar(_milliseconds(moments), timezone)
    if spec.type == "date" and (pa.types.is_date(source.type) or pa.types.is_timestamp(source.type)):
        if pa.types.is_timestamp(source.type) and source.type.tz:
            source = pc.local_timestamp(pc.cast(source, pa.timestamp(source.type.unit, timezone)))
        return _in_calendar(pc.cast(source, target, safe=False), timezone)
    if source.type == target and spec.type in ("int", "bool", "decimal"):
        return source
    if spec.type == "float" and (pa.types.is_floating(source.type) or pa.types.is_integer(source.type)):
        return _number(pc.cast(source, target, safe=False))
    text = _text(source)
    if spec.type in ("string", "enum"):
        text = normal_text(text, spec.normalise)
        return (
            pc.if_else(pc.is_in(text, pa.array(spec.values)), text, pa.scalar(None, pa.string()))
            if spec.type == "enum"
            else text
        )
    if spec.type == "json":
        return pa.array([canonical_json(value) for value in text.to_pylist()], pa.string())
    text = pc.utf8_trim_whitespace(pc.utf8_normalize(text, form="NFKC"))
    return _number(_parsed(text, spec, timezone)) if spec.type == "float" else _parsed(text, spec, timezone)


def _number(values: pa.Array) -> pa.Array:
    """One zero, and no NaN: neither survives every system."""
    values = pc.if_else(pc.is_finite(values), values, pa.scalar(None, pa.float64()))
    return pc.if_else(pc.equal(values, 0.0), pa.scalar(0.0), values)


def _milliseconds(values: pa.Array) -> pa.Array:
    ticks = pc.cast(pc.cast(values, pa.timestamp("us", "UTC"), safe=False), pa.int64())
    cut = pc.subtract(ticks, _floor_mod(ticks, 1000))
    return pc.cast(cut, pa.timestamp("us", "UTC"))


def _floor_mod(values: pa.Array, by: int) -> pa.Array:
    rest = pc.subtract(values, pc.multiply(pc.divide(values, by), by))  # the quotient is cut towards zero
    return pc.if_else(pc.less(rest, 0), pc.add(rest, by), rest)


def _parsed(text: pa.Array, spec: FieldSpec, timezone: str) -> pa.Array:
    """Parse text with DuckDB; null where it is not of the type."""
    expression = {
        "int": r"CASE WHEN regexp_full_match(x, '[+-]?[0-9]+([.]0*)?') THEN TRY_CAST(regexp_replace(x, '[.]0*$', '') AS BIGINT) END",
        "float": "TRY_CAST(x AS DOUBLE)",
        "decimal": f"CASE WHEN regexp_full_match(x, '[+-]?[0-9]+([.][0-9]{{0,{spec.scale}}}0*)?') THEN TRY_CAST(x AS DECIMAL(38,{spec.scale})) END",
        "bool": f"CASE WHEN lower(x) IN {_TRUE} THEN true WHEN lower(x) IN {_FALSE} THEN false END",
        "date": f"CAST(try_strptime(x, {_DATE_FORMATS}) AS DATE)",
        "timestamp": f"coalesce(try_strptime(replace(x, 'T', ' '), {_TIME_FORMATS}), CASE WHEN regexp_matches(x, '[.][0-9]+$') THEN TRY_CAST(x AS TIMESTAMP) END)",
    }[spec.type]
    zone = (
        ", CASE WHEN regexp_matches(x, ':[0-9.]+ ?(Z|[+-][0-9]{2}(:?[0-9]{2})?)$') THEN TRY_CAST(x AS TIMESTAMPTZ) END AS z"
        if spec.type == "timestamp"
        else ""
    )
    if spec.type in ("date", "timestamp"):
        text = pc.if_else(pc.match_substring_regex(text, _WHOLE_YEAR), text, pa.scalar(None, pa.string()))
    parsed = query(f"SELECT {expression} AS v{zone} FROM given", given=pa.table({"x": text}))
    values = _flat(parsed.column("v"))
    if spec.type != "timestamp":
        values = pc.cast(values, arrow_type(spec))
        return _in_calendar(values, timezone) if spec.type == "date" else values
    local = _zoned(pc.cast(values, pa.timestamp("us")), timezone)
    zoned = pc.cast(_flat(parsed.column("z")), pa.timestamp("us", "UTC"))
    return _in_calendar(_milliseconds(pc.coalesce(zoned, pc.cast(local, pa.timestamp("us", "UTC")))), timezone)


def _zoned(readings: pa.Array, timezone: str) -> pa.Array:
    """Readings of a local clock as moments."""
    return pc.assume_timezone(readings, timezone, ambiguous="earliest", nonexistent="latest")


def _in_calendar(values: pa.Array, timezone: str) -> pa.Array:
    """Null for what lies outside the years 1 to 9999, in UTC or on the node's clock."""
    if _well_inside(values):
        return values
    years = [pc.year(values)]
    if pa.types.is_timestamp(values.type):
        years.append(pc.year(pc.cast(values, pa.timestamp("us", timezone))))
    for year in years:
        inside = pc.and_(pc.greater_equal(year, 1), pc.less_equal(year, 9999))
        values = pc.if_else(inside, values, pa.scalar(None, values.type))
    return values


def _well_inside(values: pa.Array) -> bool:
    """Whether all lie in the years 2 to 9998, so that no zone can move one out of the calendar."""
    span = pc.min_max(values)
    first, last = (pa.scalar(datetime(year, 1, 1, tzinfo=UTC), pa.timestamp("us", "UTC")) for year in (2, 9999))
    if pa.types.is_date(values.type):
        first, last = first.cast(values.type), last.cast(values.type)
    inside = pc.and_(pc.greater_equal(span["min"], first), pc.less(span["max"], last))
    return values.null_count == len(values) or bool(inside.as_py())


def regions_of(jurisdiction: pa.ChunkedArray | pa.Array, routes: Mapping[str, str]) -> pa.Array:
    """For each jurisdiction, the region that `RegionTree.routes` sends it to; null where it lies above, elsewhere or nowhere."""
    codes, regions = pa.array(list(routes), pa.string()), pa.array(list(routes.values()), pa.string())
    return pc.take(regions, pc.index_in(_flat(jurisdiction), codes))


def key_column(rows: pa.Table, dataset: Dataset) -> pa.Array:
    """Each row's key as one text: the value's canonical text, or a JSON array of them if the key is composite."""
    texts = [_key_text(_flat(rows.column(name))) for name in dataset.key]
    if len(texts) == 1:
        return texts[0]
    return pa.array(
        [
            json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
            for parts in zip(*(text.to_pylist() for text in texts))
        ],
        pa.string(),
    )


def _key_text(values: pa.Array) -> pa.Array:
    if pa.types.is_timestamp(values.type):
        return pc.strftime(values, format="%Y-%m-%dT%H:%M:%SZ")
    return _text(values)


def key_table(keys: pa.Array | Sequence[str | None], dataset: Dataset) -> pa.Table:
    """The inverse of `key_column`: typed key columns (null where the text is not a key)."""
    texts = _flat(keys) if isinstance(keys, (pa.Array, pa.ChunkedArray)) else pa.array(keys, pa.string())
    columns = {}
    for name, part in zip(dataset.key, _key_parts(texts, len(dataset.key))):
        spec = dataset.fields[name].model_copy(update={"normalise": ()})
        columns[name] = _typed(part, spec, "UTC")
    return pa.table(columns, schema=schema(dataset, dataset.key))


def _key_parts(texts: pa.Array, width: int) -> list[pa.Array]:
    """The texts of the key's fields, one column for each."""
    if width == 1:
        return [texts]
    parts = [_listed(text, width) for text in texts.to_pylist()]
    return [pa.array([part[i] for part in parts], pa.string()) for i in range(width)]


def _listed(text: str | None, width: int) -> list[str | None]:
    try:
        parts = json.loads(text or "")
    except ValueError:
        return [None] * width
    return parts if isinstance(parts, list) and len(parts) == width else [None] * width


def _canonical_sql(name: str, spec: FieldSpec) -> str:
    column = '"' + name + '"'
    text = {
        "float": f"printf('%.17g', {column})",
        "bool": f"CAST(CAST({column} AS INTEGER) AS VARCHAR)",
        "timestamp": f"CAST(epoch_us({column}) AS VARCHAR)",
    }.get(spec.type, f"CAST({column} AS VARCHAR)")
    return f"CASE WHEN {column} IS NULL THEN '-' ELSE concat('+', strlen({text}), ':', {text}) END"


def fingerprints(rows: pa.Table, dataset: Dataset, groups: Mapping[str, Sequence[str]], secret: bytes) -> pa.Table:
    """`key` + one `fp_<group>` (16 bytes) per group, for rows already conformed.

    The text that is hashed names the key, so two people with the same phone have different fingerprints, and is length
    prefixed, so that no two rows run together. `secret` keeps a reader of the ledger from guessing values.
    """
    if not rows.num_rows:
        return pa.schema([("key", pa.string()), *((f"fp_{group}", pa.binary()) for group in groups)]).empty_table()
    keyed = rows.append_column("_key", key_column(rows, dataset))
    salt = secret.hex()
    parts = [
        f"unhex(left(sha256(concat('{salt}|', _key, '|', {', '.join(_canonical_sql(name, dataset.fields[name]) for name in fields)})), 32)) AS \"fp_{group}\""
        for group, fields in groups.items()
    ]
    return query(f"SELECT {', '.join(['_key AS key', *parts])} FROM given", given=keyed)
