"""The arguments of a rule that is left to Great Expectations, held against the types of its fields.

Great Expectations looks at them when it evaluates the rule: then the link stops, though no record is at fault. So what it could
never evaluate, or what no value could ever pass, is refused with the declaration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from federation.contract import FieldSpec
from federation.errors import DeclarationError
from federation.gate_condition import TEXT

_FLOATS = ("int", "float")
_NUMBERS = ("int", "float", "decimal", "bool")
Kwargs = dict[str, Any]


def check_arguments(kind: str, kwargs: Kwargs, specs: Sequence[FieldSpec]) -> None:
    """Raises DeclarationError if the rule cannot be meant for these fields."""
    if kind in _TYPES:
        _of_types(specs, *_TYPES[kind])
    if kind in _CHECKS:
        _CHECKS[kind](kwargs, specs)


def _of_types(specs: Sequence[FieldSpec], *types: str) -> None:
    for spec in specs:
        if spec.type not in types:
            raise DeclarationError(
                f"is for {' or '.join(types)}; the field is a {spec.type}",
                f"此规则只适用于 {'、'.join(types)}，字段类型为 {spec.type}",
                todo="换一个字段，或改用适合该类型的规则 / use another field, or a rule for that type",
            )


def _number(kwargs: Kwargs, *words: str) -> None:
    for word in words:
        value = kwargs.get(word)
        if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool)):
            raise DeclarationError(f"{word} must be a number, it is {value!r}", f"{word} 应为数字")


def _format(kwargs: Kwargs, specs: Sequence[FieldSpec]) -> None:
    written = kwargs["strftime_format"]
    try:
        datetime.strptime(datetime(2026, 1, 31).strftime(written), written)
    except (TypeError, ValueError) as cause:
        raise DeclarationError(
            f"strftime_format {written!r} cannot be read by: {cause}",
            f"strftime_format {written!r} 无法使用",
            todo="例如 / such as: %Y-%m-%d",
        ) from cause


def _schema(kwargs: Kwargs, specs: Sequence[FieldSpec]) -> None:
    """A text that is no JSON makes Great Expectations give up on all records: only a field of JSON holds none."""
    from jsonschema import SchemaError  # type: ignore[import-untyped]  # heavy, and seldom needed
    from jsonschema.validators import validator_for  # type: ignore[import-untyped]

    schema = kwargs["json_schema"]
    try:
        if not isinstance(schema, dict):
            raise SchemaError("it is no object")
        validator_for(schema).check_schema(schema)
    except SchemaError as cause:
        raise DeclarationError(
            f"json_schema is no JSON Schema: {cause.message}", "json_schema 不是有效的 JSON Schema"
        ) from cause


def _scores(kwargs: Kwargs, specs: Sequence[FieldSpec]) -> None:
    _number(kwargs, "threshold")
    if not isinstance(kwargs["double_sided"], bool):
        raise DeclarationError("double_sided must be true or false", "double_sided 应为 true 或 false")


def _outliers(kwargs: Kwargs, specs: Sequence[FieldSpec]) -> None:
    _number(kwargs, "multiplier")
    if kwargs.get("method", "iqr") not in ("iqr", "std"):
        raise DeclarationError("method must be iqr or std", "method 应为 iqr 或 std")


def _sum(kwargs: Kwargs, specs: Sequence[FieldSpec]) -> None:
    _number(kwargs, "sum_total")
    if {spec.type for spec in specs} != {"decimal"}:
        _of_types(specs, *_FLOATS)


def _greater(kwargs: Kwargs, specs: Sequence[FieldSpec]) -> None:
    kinds = {"text" if s.type in TEXT else "number" if s.type in _NUMBERS else s.type for s in specs}
    if len(kinds) > 1:
        types = " / ".join(spec.type for spec in specs)
        raise DeclarationError(
            f"compares fields of types that have no order: {types}", f"字段类型无法比较大小：{types}"
        )


def _pairs(kwargs: Kwargs, specs: Sequence[FieldSpec]) -> None:
    pairs = kwargs["value_pairs_set"]
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise DeclarationError(
            "value_pairs_set must be a list of pairs",
            "value_pairs_set 应为值对的列表",
            todo='如 / such as: [["男", "1"], ["女", "2"]]',
        )


def _in_set(kwargs: Kwargs, specs: Sequence[FieldSpec]) -> None:
    kind, values = specs[0].type, kwargs["value_set"]
    if kind in ("date", "timestamp"):
        raise DeclarationError(
            f"no {kind} equals what JSON can list", f"JSON 列不出 {kind} 类型的值", todo="改用 between / use between"
        )
    if any(isinstance(value, bool) is not (kind == "bool") or not isinstance(value, (int, float)) for value in values):
        raise DeclarationError(f"value_set does not fit the field's type {kind}", f"value_set 与字段类型 {kind} 不符")


_TYPES: dict[str, tuple[str, ...]] = {
    "expect_column_values_to_match_strftime_format": TEXT,
    "expect_column_values_to_be_dateutil_parseable": TEXT,
    "expect_column_values_to_be_json_parseable": TEXT,
    "expect_column_values_to_match_json_schema": ("json",),
    "expect_column_value_z_scores_to_be_less_than": _FLOATS,
    "expect_column_values_to_not_be_outliers": _FLOATS,
}
_CHECKS: dict[str, Callable[[Kwargs, Sequence[FieldSpec]], None]] = {
    "expect_column_values_to_match_strftime_format": _format,
    "expect_column_values_to_match_json_schema": _schema,
    "expect_column_value_z_scores_to_be_less_than": _scores,
    "expect_column_values_to_not_be_outliers": _outliers,
    "expect_multicolumn_sum_to_equal": _sum,
    "expect_column_pair_values_a_to_be_greater_than_b": _greater,
    "expect_column_pair_values_to_be_in_set": _pairs,
    "expect_column_values_to_be_in_set": _in_set,
    "expect_column_values_to_not_be_in_set": _in_set,
}
