"""The compiled gate and Great Expectations give the same verdict on the same rows."""

from __future__ import annotations

import json
import tempfile
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from federation import canonical
from federation.contract import Dataset
from federation.gate import Gate
from federation.gate_expectations import failing_rows

DATASET = Dataset.model_validate(
    {
        "name": "sample",
        "label": "样例",
        "levels": ["city", "district"],
        "key": ["k"],
        "jurisdiction": "r",
        "originates": ["city"],
        "fields": {
            name: {
                "label": name,
                "authority": "city",
                "type": kind,
                **({"values": ["男", "女"]} if kind == "enum" else {}),
            }
            for name, kind in {
                "k": "int",
                "r": "string",
                "s": "string",
                "t": "string",
                "e": "enum",
                "i": "int",
                "j": "int",
                "f": "float",
                "g": "float",
                "m": "decimal",
                "d": "date",
                "c": "date",
                "w": "timestamp",
                "v": "timestamp",
                "b": "bool",
            }.items()
        },
    }
)

# few distinct values, so that rules meet the interesting ones often: full-width and other Unicode digits, final newlines,
# separators that only Python calls white space, letters outside the BMP, ends of the exact range of a float
TEXTS = [
    "",
    "a",
    "ab",
    "a\n",
    "1",
    "12",
    "１２",
    "1\n",
    "٣",
    "é",
    "é",
    "张三",
    "张\n三",
    "𠮷",
    "a b",
    "a\x1cb",
    "a\u00a0b",
    "_",
    "K",
    "\n",
    "\x00",
    "[a]",
    "a-b",
    "12a",
    "ſ",
]
INTS = [0, 1, -1, 2, 3, 7, 100, 2**53 - 1, -(2**53)]
WIDE_INTS = [*INTS, 2**53 + 1, 2**63 - 1, -(2**63)]
FLOATS = [0.0, 0.1, -0.5, 1.0, 2.0, 2.5, 1e300, -1e-300, 100.0]
DECIMALS = [Decimal(text) for text in ("0.00", "0.10", "0.11", "-1.25", "100.00", "7.00", "9999999999999999.99")]
DATES = [date(1600, 1, 1), date(1969, 12, 31), date(2020, 2, 29), date(2021, 1, 1), date(9999, 12, 31)]
TIMES = [
    datetime(1969, 12, 31, 23, 59, 59, 999000, UTC),
    datetime(2020, 2, 29, 16, tzinfo=UTC),
    datetime(2021, 1, 1, tzinfo=UTC),
    datetime(9999, 1, 1, tzinfo=UTC),
]
REGEXES = [
    r"^\d+$", r"\d", r"\D", r"^\w*$", r"\W", r"\s", r"\S", r"^[^\s]+$", r"[^\d_]", r"a$", r"^$", r"^a|b$", r"(a|1)$", r"(a$|1)", r"a$\n", r"^.*$",
    r"^.{2}$", r"\ba\b", r"(?i)k", r"(?i)^S", r"(?s)a.b", r"(?m)^三$", r"\Aa", r"[[a]", r"a{2,3}|1", r"(?:a.?)+$", r"[一-龥]", r"^[一-龥]{2,4}$", r"[^一-龥]", r"^(?=a)", r"(?<!a)b", r"(.)\1", r"é",
    r"\u5f20", "\x1c", r"a*?b", r"^[1-9]\d{0,2}$", r"[\w-]+", r"\[a\]", r"$", r"x?", r"[^a]", r"^[a-zA-Z]",
]  # fmt: skip

TABLE = st.integers(0, 9).flatmap(
    lambda n: st.fixed_dictionaries(
        {
            name: st.one_of(
                st.lists(st.one_of(st.none(), st.sampled_from(values)), min_size=n, max_size=n),
                st.lists(st.sampled_from(values), min_size=n, max_size=n),
                st.just([None] * n),
            )
            for name, values in {
                "s": TEXTS,
                "t": TEXTS,
                "e": ["男", "女"],
                "i": INTS,
                "j": WIDE_INTS,
                "f": FLOATS,
                "g": FLOATS,
                "m": DECIMALS,
                "d": DATES,
                "c": DATES,
                "w": TIMES,
                "v": TIMES,
                "b": [True, False],
            }.items()
        }
    )
)
ALL = [name for name in DATASET.fields if name not in ("k", "r")]
TEXT_FIELDS = ["s", "t", "e"]


def _column(kind: str, fields: list[str], **more: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(kind), "kwargs": st.fixed_dictionaries({"column": st.sampled_from(fields), **more})})  # fmt: skip


BOUNDS: dict[str, list[Any]] = {
    "i": [-1, 0, 1.5, 3, 100],
    "j": [-1e19, -(2**53), 0.5, 2**53, 1e19],
    "f": [-0.5, 0, 0.1, 1, 2.5, 1e300],
    "m": [-1.25, 0, 0.1, 0.11, 7, 100, 1e60],
    "d": ["1600-01-01", "2020-02-29", "2021-01-01", "9999-12-31"],
    "w": ["2020-02-29T16:00:00Z", "2020-03-01T00:00:00+08:00", "2021-01-01T08:00:00+08:00"],
}
"""Ascending, per field."""


def _within(name: str, low: Any, high: Any, **strict: bool) -> dict[str, Any]:
    kwargs = {"column": name, "min_value": low, "max_value": high, **strict}
    kwargs = {word: value for word, value in kwargs.items() if value is not None}
    return {"type": "expect_column_values_to_be_between", "kwargs": kwargs}


@st.composite
def _between(draw: st.DrawFn) -> dict[str, Any]:
    name = draw(st.sampled_from(list(BOUNDS)))
    ends = sorted(draw(st.lists(st.integers(0, len(BOUNDS[name]) - 1), min_size=2, max_size=2)))
    low, high = (BOUNDS[name][end] for end in ends)
    which = draw(st.sampled_from(["both", "min", "max"]))
    strict = draw(st.fixed_dictionaries({}, optional={"strict_min": st.booleans(), "strict_max": st.booleans()}))
    return _within(name, low if which != "max" else None, high if which != "min" else None, **strict)


@st.composite
def _lengths(draw: st.DrawFn) -> dict[str, Any]:
    low, high = sorted(draw(st.lists(st.integers(0, 4), min_size=2, max_size=2)))
    kwargs = {"column": draw(st.sampled_from(TEXT_FIELDS)), "min_value": low, "max_value": high}
    kwargs.pop(draw(st.sampled_from(["column_", "min_value", "max_value"])), None)
    kwargs |= draw(st.fixed_dictionaries({}, optional={"strict_min": st.booleans(), "strict_max": st.booleans()}))
    return {"type": "expect_column_value_lengths_to_be_between", "kwargs": kwargs}


@st.composite
def _pair(draw: st.DrawFn) -> dict[str, Any]:
    first, second = draw(st.sampled_from([("s", "t"), ("e", "s"), ("i", "j"), ("f", "g"), ("d", "c"), ("w", "v"), ("i", "i")]))  # fmt: skip
    kwargs: dict[str, Any] = {"column_A": first, "column_B": second}
    ignore = draw(st.sampled_from(["both_values_are_missing", "either_value_is_missing", "neither", None]))
    if ignore:
        kwargs["ignore_row_if"] = ignore
    if draw(st.booleans()):
        return {"type": "expect_column_pair_values_to_be_equal", "kwargs": kwargs}
    if draw(st.booleans()):
        kwargs["or_equal"] = draw(st.booleans())
    return {"type": "expect_column_pair_values_a_to_be_greater_than_b", "kwargs": kwargs}


COMPOUND = st.fixed_dictionaries(
    {
        "type": st.just("expect_compound_columns_to_be_unique"),
        "kwargs": st.fixed_dictionaries(
            {"column_list": st.lists(st.sampled_from(ALL), min_size=2, max_size=3, unique=True)},
            optional={"ignore_row_if": st.sampled_from(["all_values_are_missing", "any_value_is_missing", "never"])},
        ),
    }
)
SETS = st.one_of(
    *(
        _column(kind, fields, value_set=st.lists(st.sampled_from(values), max_size=4))
        for kind in ("expect_column_values_to_be_in_set", "expect_column_values_to_not_be_in_set")
        for fields, values in ((TEXT_FIELDS, [*TEXTS, "男"]), (["i", "j"], WIDE_INTS), (["f"], [*FLOATS, 1, 2]))
    )
)
REGEX = st.sampled_from(REGEXES)
RULE = st.one_of(
    _column("expect_column_values_to_not_be_null", ALL),
    _column("expect_column_values_to_be_null", ALL),
    _column("expect_column_values_to_be_unique", ALL),
    SETS,
    _column("expect_column_values_to_match_regex", TEXT_FIELDS, regex=REGEX),
    _column("expect_column_values_to_match_regex", TEXT_FIELDS, regex=REGEX),
    _column("expect_column_values_to_not_match_regex", TEXT_FIELDS, regex=REGEX),
    _column(
        "expect_column_values_to_match_regex_list",
        TEXT_FIELDS,
        regex_list=st.lists(REGEX, min_size=1, max_size=3),
        match_on=st.sampled_from(["any", "all"]),
    ),
    _column(
        "expect_column_values_to_not_match_regex_list", TEXT_FIELDS, regex_list=st.lists(REGEX, min_size=1, max_size=3)
    ),
    _column("expect_column_value_lengths_to_equal", TEXT_FIELDS, value=st.integers(0, 4)),
    _between(),
    _lengths(),
    _pair(),
    COMPOUND,
)
CONDITION = st.one_of(
    st.builds(
        lambda name, operator, value: {
            "row_condition": {"type": "comparison", "column": {"name": name}, "operator": operator, "parameter": value}
        },
        st.sampled_from(TEXT_FIELDS),
        st.sampled_from(["==", "!="]),
        st.sampled_from(["a", "男", "张三", "12"]),
    ),
    st.builds(
        lambda operator, values: {
            "row_condition": {"type": "comparison", "column": {"name": "s"}, "operator": operator, "parameter": values}
        },
        st.sampled_from(["IN", "NOT_IN"]),
        st.lists(st.sampled_from(["a", "男", "张三", "12"]), min_size=1, max_size=3),
    ),
    st.builds(
        lambda name, is_null: {"row_condition": {"type": "nullity", "column": {"name": name}, "is_null": is_null}},
        st.sampled_from(["s", "i", "f", "d", "b"]),
        st.booleans(),
    ),
    st.just(
        {
            "row_condition": {
                "type": "and",
                "conditions": [
                    {"type": "comparison", "column": {"name": "e"}, "operator": "==", "parameter": "男"},
                    {"type": "nullity", "column": {"name": "s"}, "is_null": False},
                ],
            }
        }
    ),
    st.just(
        {
            "row_condition": {
                "type": "or",
                "conditions": [
                    {"type": "comparison", "column": {"name": "e"}, "operator": "!=", "parameter": "男"},
                    {"type": "nullity", "column": {"name": "s"}, "is_null": True},
                ],
            }
        }
    ),
    st.just({"row_condition": "e == '女'", "condition_parser": "pandas"}),
    st.just({"row_condition": "e != '女' and s == 'a'", "condition_parser": "pandas"}),
)


@st.composite
def rule(draw: st.DrawFn) -> dict[str, Any]:
    made = draw(RULE)
    kwargs = dict(made["kwargs"])
    if draw(st.integers(0, 2)) == 0:
        kwargs["mostly"] = draw(st.sampled_from([0, 0.3, 0.5, 2 / 3, 0.8, 1]))
    if draw(st.integers(0, 3)) == 0:
        kwargs |= draw(CONDITION)
    return {**made, "kwargs": kwargs}


def suite(rules: list[dict[str, Any]]) -> Gate:
    reason = {"reason": {"zh": "应合规，现为“{value}”", "en": "must be fit, it is {value!r}"}}
    expectations = [{**made, "id": str(uuid.UUID(int=index)), "meta": reason} for index, made in enumerate(rules)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "suite.json"
        path.write_text(json.dumps({"name": "sample", "expectations": expectations}), encoding="utf-8")
        return Gate.load(path, DATASET)


def table(columns: dict[str, list[Any]]) -> pa.Table:
    count = len(columns["s"])
    return pa.table(
        {"k": list(range(count)), "r": ["110101000000"] * count, **columns},
        schema=canonical.schema(DATASET, list(DATASET.fields)),
    )


def by_rule(gate: Gate, rows: pa.Table) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {one.name: [] for one in gate.suite.rules}
    for line in gate.check(rows).failures.select(["rule", "row"]).to_pylist():
        found[line["rule"]].append(line["row"])
    return found


@settings(
    max_examples=80,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
@given(columns=TABLE, rules=st.lists(rule(), min_size=6, max_size=14))
def test_a_compiled_rule_fails_exactly_the_rows_that_great_expectations_names(
    columns: dict[str, list[Any]], rules: list[dict[str, Any]]
) -> None:
    gate, rows = suite(rules), table(columns)
    assert {plan.runs for plan in gate.explain()} == {"compiled"}

    theirs = failing_rows(rows, gate.suite.rules, gate.suite.path)

    assert by_rule(gate, rows) == {name: found.to_pylist() for name, found in theirs.items()}


@pytest.mark.parametrize("regex", REGEXES)
def test_every_pattern_finds_what_great_expectations_finds(regex: str) -> None:
    gate = suite(
        [
            {"type": kind, "kwargs": {"column": "s", "regex": regex}}
            for kind in ("expect_column_values_to_match_regex", "expect_column_values_to_not_match_regex")
        ]
    )
    count = len(TEXTS) + 1
    rows = table({name: [*TEXTS, None] if name == "s" else [None] * count for name in ALL})

    theirs = failing_rows(rows, gate.suite.rules, gate.suite.path)

    assert by_rule(gate, rows) == {name: found.to_pylist() for name, found in theirs.items()}


@pytest.mark.parametrize("name", BOUNDS)
def test_every_bound_lets_pass_what_great_expectations_lets_pass(name: str) -> None:
    bounds = BOUNDS[name]
    ends = [(low, high) for n, low in enumerate(bounds) for high in bounds[n:]]
    ends += [(low, None) for low in bounds] + [(None, high) for high in bounds]
    flags = [(False, False), (True, False), (False, True), (True, True)]
    gate = suite([_within(name, *pair, strict_min=low, strict_max=high) for pair in ends for low, high in flags])
    values = {"i": INTS, "j": WIDE_INTS, "f": FLOATS, "m": DECIMALS, "d": DATES, "w": TIMES}[name]
    rows = table({field: [*values, None] if field == name else [None] * (len(values) + 1) for field in ALL})

    theirs = failing_rows(rows, gate.suite.rules, gate.suite.path)

    assert by_rule(gate, rows) == {rule: found.to_pylist() for rule, found in theirs.items()}
