"""Row rules compiled to vectorised masks, with the verdict of Great Expectations' pandas engine on the same rows.

`compile_rule` turns a rule of a known kind into a function from rows to a mask; a property test holds the two engines against
each other. What it cannot promise to judge alike it returns as a sentence that says why; such a rule runs in Great Expectations.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from federation.contract import Dataset, FieldSpec
from federation.errors import DeclarationError
from federation.gate_arguments import check_arguments
from federation.gate_bounds import Bounds, lengths, numbers, times
from federation.gate_check import Around
from federation.gate_condition import TEXT
from federation.gate_reason import flat
from federation.gate_regex import compile_pattern
from federation.gate_suite import Rule

Passes = Callable[[Any], Any]
"""One column → where its values pass; what it says of a null does not count."""

_SAME = ("string", "enum", "json", "int", "float", "date", "timestamp")


@dataclass(frozen=True)
class Judged:
    """`failing`: per row, never null. `considered`: how many rows `mostly` is a share of."""

    failing: pa.Array
    considered: int


Judge = Callable[[pa.Table], Judged]


@dataclass(frozen=True)
class Compiled:
    """A rule that can be evaluated here."""

    rule: Rule
    judge: Judge
    dataset: Dataset

    @property
    def asks(self) -> bool:
        """Whether it must know more than the rows."""
        return self.rule.check is not None and self.rule.check.asks

    def failing(self, rows: pa.Table, around: Around | None = None) -> pa.Array:
        """The numbers of the failing rows (int64, ascending). A rule that holds by its `mostly` has none."""
        condition = self.rule.condition
        if condition is None or condition.mask is None:
            return self._indices(rows, around)
        where = pc.indices_nonzero(condition.mask(rows))
        return where.cast(pa.int64()).take(self._indices(rows.take(where), around))

    def _indices(self, rows: pa.Table, around: Around | None) -> pa.Array:
        judged = self.judge(rows)
        failing = judged.failing
        if self.rule.check is not None:
            wrong = pc.invert(pc.fill_null(self.rule.check.passes(rows, self.dataset, around), False))
            failing = pc.or_(failing, flat(pc.and_(pc.is_valid(rows.column(self.rule.columns[0])), wrong)))
        found = pc.indices_nonzero(failing).cast(pa.int64())
        if not len(found) or (judged.considered - len(found)) / judged.considered >= self.rule.mostly:
            return pa.array([], pa.int64())
        return found


def compile_rule(rule: Rule, dataset: Dataset) -> Compiled | str:
    """A compiled rule, or why not. Raises DeclarationError if its arguments cannot be meant for these fields."""
    specs = [dataset.fields[name] for name in rule.columns]
    judge = _judge(rule, specs)
    if isinstance(judge, str):
        check_arguments(rule.kind, rule.kwargs, specs)
    if rule.condition is not None and rule.condition.mask is None and not isinstance(judge, str):
        judge = "its row_condition is not a comparison of a text field"
    if not isinstance(judge, str):
        return Compiled(rule, judge, dataset)
    if rule.check is not None:
        raise _fault(
            f"a rule with a check cannot be left to Great Expectations: {judge}",
            "带 check 的规则不能交给 Great Expectations 计算",
            "简化条件，或拆成两条规则 / simplify the condition, or make two rules of it",
        )
    return judge


def _judge(rule: Rule, specs: list[FieldSpec]) -> Judge | str:
    kind, column = rule.kind, rule.columns[0]
    if kind == "expect_column_values_to_not_be_null":
        return lambda rows: Judged(flat(pc.is_null(rows.column(column))), rows.num_rows)
    if kind == "expect_column_values_to_be_null":
        return lambda rows: Judged(flat(pc.is_valid(rows.column(column))), rows.num_rows)
    if kind == "expect_column_values_to_be_unique":
        return _column(column, _unique)
    if kind == "expect_compound_columns_to_be_unique":
        return _compound(rule)
    if rule.domain == "pair":
        return _pair(rule, specs)
    if kind in _BUILDERS:
        passes = _BUILDERS[kind](rule.kwargs, specs[0])
        return passes if isinstance(passes, str) else _column(column, passes)
    return "this kind is not compiled"


def _column(name: str, passes: Passes) -> Judge:
    """Great Expectations leaves nulls out of every rule about values."""

    def judge(rows: pa.Table) -> Judged:
        values = rows.column(name)
        failing = pc.and_(pc.is_valid(values), pc.invert(pc.fill_null(passes(values), False)))
        return Judged(flat(failing), len(values) - values.null_count)

    return judge


def _unique(values: pa.ChunkedArray) -> Any:
    if pa.types.is_floating(values.type):
        values = pc.add(values, 0.0)  # one zero
    counts = pc.value_counts(values)
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if not len(repeated):
        return pc.is_valid(values)
    return pc.invert(pc.is_in(values, value_set=repeated))


def _compound(rule: Rule) -> Judge:
    def judge(rows: pa.Table) -> Judged:
        code = pa.repeat(pa.scalar(0, pa.int64()), rows.num_rows)
        for name in rule.columns:
            coded = flat(rows.column(name)).dictionary_encode(null_encoding="encode")
            code = pc.add(pc.multiply(code, max(len(coded.dictionary), 1)), coded.indices.cast(pa.int64()))
            code = code.dictionary_encode().indices.cast(pa.int64())  # stays below the number of rows: never overflows
        considered = _considered(rule, rows, "all_values_are_missing")
        failing = pc.and_(considered, pc.invert(_unique(pa.chunked_array([code]))))
        return Judged(flat(failing), pc.sum(considered, min_count=0).as_py())

    return judge


def _considered(rule: Rule, rows: pa.Table, default: str) -> Any:
    """Which rows are left after `ignore_row_if`."""
    ignore = rule.kwargs.get("ignore_row_if", default)
    if ignore in ("never", "neither"):
        return pa.repeat(pa.scalar(True), rows.num_rows)
    combine = pc.or_ if ignore in ("all_values_are_missing", "both_values_are_missing") else pc.and_
    there = [pc.is_valid(rows.column(name)) for name in rule.columns]
    result = there[0]
    for other in there[1:]:
        result = combine(result, other)
    return result


def _pair(rule: Rule, specs: list[FieldSpec]) -> Judge | str:
    if rule.kind == "expect_column_pair_values_to_be_equal":
        compare = pc.equal
    elif rule.kind == "expect_column_pair_values_a_to_be_greater_than_b":
        or_equal = rule.kwargs.get("or_equal")
        if or_equal not in (None, True, False):
            raise _fault("or_equal must be true or false", "or_equal 应为 true 或 false")
        compare = pc.greater_equal if or_equal else pc.greater
    else:
        return "this kind is not compiled"
    kinds = {"string" if spec.type in TEXT else spec.type for spec in specs}
    if len(kinds) > 1 or specs[0].type not in _SAME:
        return "its fields are of different types or of a type that is compared value by value"
    first, second = rule.columns

    def judge(rows: pa.Table) -> Judged:
        considered = _considered(rule, rows, "both_values_are_missing")
        passing = pc.fill_null(compare(rows.column(first), rows.column(second)), False)
        return Judged(flat(pc.and_(considered, pc.invert(passing))), pc.sum(considered, min_count=0).as_py())

    return judge


def _fault(en: str, zh: str, todo: str = "") -> DeclarationError:
    return DeclarationError(en, zh, todo=todo)


def _only_text(spec: FieldSpec) -> None:
    if spec.type not in TEXT:
        raise _fault(
            f"is for text; the field is a {spec.type}",
            f"此规则只适用于文本，字段类型为 {spec.type}",
            "改用适合该类型的规则，如 between / use a rule for that type, such as between",
        )


def _in_set(kwargs: dict[str, Any], spec: FieldSpec) -> Passes | str:
    values = kwargs["value_set"]
    if not isinstance(values, list) or any(value is None for value in values):
        raise _fault("value_set must be a list of values", "value_set 应为取值列表", "空值不必列出 / leave null out")
    kinds: tuple[type, ...]
    if spec.type in TEXT:
        kinds = (str,)
    elif spec.type == "int":
        kinds = (int,)
    elif spec.type == "float":
        kinds = (int, float)
    else:
        return f"a set of {spec.type} values is compared value by value"
    if any(not isinstance(value, kinds) or isinstance(value, bool) for value in values):
        raise _fault(
            f"value_set does not fit the field's type {spec.type}",
            f"value_set 与字段类型 {spec.type} 不符",
            "文本加引号，数字不加 / quote text, do not quote numbers",
        )
    arrow = {"int": pa.int64(), "float": pa.float64()}.get(spec.type, pa.string())
    try:
        wanted = pa.array([float(value) for value in values] if spec.type == "float" else values, arrow)
    except (pa.ArrowInvalid, OverflowError) as cause:
        raise _fault(f"value_set holds a number that is too large: {cause}", "value_set 中的数字过大") from cause
    return lambda column: pc.is_in(column, value_set=wanted)


def _not_in_set(kwargs: dict[str, Any], spec: FieldSpec) -> Passes | str:
    inside = _in_set(kwargs, spec)
    return inside if isinstance(inside, str) else lambda column: pc.invert(inside(column))


def _patterns(texts: list[Any], spec: FieldSpec, *, each: bool, wanted: bool) -> Passes:
    """`each`: all patterns must be found, else any. `wanted`: whether finding them is good."""
    _only_text(spec)
    if not texts:
        raise _fault("regex_list is empty", "regex_list 为空")
    patterns = []
    for text in texts:
        if not isinstance(text, str):
            raise _fault(f"{text!r} is not a regular expression", f"{text!r} 不是正则表达式")
        try:
            patterns.append(compile_pattern(text))
        except (re.error, OverflowError, RecursionError) as cause:
            raise _fault(
                f"the regular expression {text!r} does not compile: {cause}",
                f"正则表达式 {text!r} 无法编译",
                "JSON 中反斜杠要写两次 / write a backslash twice in JSON",
            ) from cause
    combine = pc.and_ if each else pc.or_

    def passes(column: pa.ChunkedArray) -> Any:
        found = patterns[0].search(column)
        for pattern in patterns[1:]:
            found = combine(found, pattern.search(column))
        return found if wanted else pc.invert(found)

    return passes


def _listed(kwargs: dict[str, Any]) -> list[Any]:
    texts = kwargs["regex_list"]
    if not isinstance(texts, list):
        raise _fault("regex_list must be a list", "regex_list 应为列表")
    return texts


def _regex_list(kwargs: dict[str, Any], spec: FieldSpec) -> Passes:
    on = kwargs.get("match_on", "any")
    if on not in ("any", "all"):
        raise _fault("match_on must be any or all", "match_on 应为 any 或 all")
    return _patterns(_listed(kwargs), spec, each=on == "all", wanted=True)


def _lengths_equal(kwargs: dict[str, Any], spec: FieldSpec) -> Passes:
    _only_text(spec)
    value = kwargs["value"]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _fault("value must be a whole number from 0", "value 应为非负整数")
    return lambda column: pc.equal(pc.utf8_length(column), value)


def _lengths_between(kwargs: dict[str, Any], spec: FieldSpec) -> Passes:
    _only_text(spec)
    within = lengths(_bounds(kwargs))
    return lambda column: within(pc.utf8_length(column))


def _between(kwargs: dict[str, Any], spec: FieldSpec) -> Passes:
    bounds = _bounds(kwargs)
    if spec.type in ("int", "float", "decimal"):
        return numbers(bounds, spec)
    if spec.type in ("date", "timestamp"):
        return times(bounds, date if spec.type == "date" else datetime)
    raise _fault(
        f"between is for numbers and times; the field is a {spec.type}",
        f"between 只适用于数字与日期，字段类型为 {spec.type}",
        "文本改用 in_set 或 regex / use in_set or a regex for text",
    )


def _bounds(kwargs: dict[str, Any]) -> Bounds:
    return Bounds.of(*(kwargs.get(word) for word in ("min_value", "max_value", "strict_min", "strict_max")))


_BUILDERS: dict[str, Callable[[dict[str, Any], FieldSpec], Passes | str]] = {
    "expect_column_values_to_be_in_set": _in_set,
    "expect_column_values_to_not_be_in_set": _not_in_set,
    "expect_column_values_to_be_between": _between,
    "expect_column_values_to_match_regex": lambda kwargs, spec: _patterns(
        [kwargs["regex"]], spec, each=True, wanted=True
    ),
    "expect_column_values_to_not_match_regex": lambda kwargs, spec: _patterns(
        [kwargs["regex"]], spec, each=True, wanted=False
    ),
    "expect_column_values_to_match_regex_list": _regex_list,
    "expect_column_values_to_not_match_regex_list": lambda kwargs, spec: _patterns(
        _listed(kwargs), spec, each=False, wanted=False
    ),
    "expect_column_value_lengths_to_equal": _lengths_equal,
    "expect_column_value_lengths_to_be_between": _lengths_between,
}
