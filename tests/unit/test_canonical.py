"""Canonical typing and fingerprints: the same fact has the same bytes whatever it was written in."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.canonical import conform, fingerprints, key_column, key_table
from federation.canonical_text import _normal, normal_text, plain_ranges
from federation.contract import Dataset


def dataset(**spec: Any) -> Dataset:
    fields = {
        "id": {"label": "编号", "authority": "city"},
        "area": {"label": "属地", "authority": "city"},
        "v": {"label": "值", "authority": "city", **spec},
    }
    return Dataset.model_validate(
        {
            "name": "d",
            "label": "数据",
            "levels": ["city", "street"],
            "key": ["id"],
            "jurisdiction": "area",
            "originates": ["city"],
            "fields": fields,
        }
    )


def typed(given_values: list[Any], /, **spec: Any) -> list[Any]:
    contract = dataset(**spec)
    raw = pa.table(
        {"id": [str(n) for n in range(len(given_values))], "area": ["1"] * len(given_values), "v": given_values}
    )
    found = conform(raw, contract, tuple(contract.fields))
    assert found.rejects.num_rows == 0, found.rejects.to_pylist()
    return found.rows.column("v").to_pylist()


@pytest.mark.parametrize(
    ("spec", "values", "expected"),
    [
        ({"type": "int"}, ["12", " １２ ", "12.0", "+12"], [12] * 4),
        ({"type": "int"}, [12.0, 13.0], [12, 13]),
        ({"type": "decimal", "scale": 2}, ["1.5", "1.50", "1.500", "１.5"], [Decimal("1.50")] * 4),
        ({"type": "float"}, ["1e3", "1000", "1000.0"], [1000.0] * 3),
        ({"type": "float"}, ["-0.0"], [0.0]),
        ({"type": "bool"}, ["是", "true", "1", "Y", "1.0"], [True] * 5),
        (
            {"type": "date"},
            ["2026-01-05", "2026/1/5", "2026年1月5日", "20260105", "2026.1.5", "2026-01-05 00:00:00"],
            [date(2026, 1, 5)] * 6,
        ),
        (
            {"type": "timestamp"},
            [
                "2026-01-05 08:00:00",
                "2026-01-05T08:00:00+08:00",
                "2026-01-05T00:00:00Z",
                "2026/1/5 08:00",
                "2026-01-05T00:00:00.0004Z",
            ],
            [datetime(2026, 1, 5, tzinfo=UTC)] * 5,
        ),
        ({"type": "string"}, ["  王 伟  ", "王 伟"], ["王 伟"] * 2),
        ({"type": "string"}, ["", "   ", None], [None] * 3),
        ({"type": "string"}, [13800000000.0], ["13800000000"]),
        ({"type": "string", "normalise": ["trim", "halfwidth", "digits"]}, ["１３８-0000 0000"], ["13800000000"]),
        ({"type": "json"}, ['{"b": 1, "a": [1, 2]}', '{"a":[1,2],"b":1}'], ['{"a":[1,2],"b":1}'] * 2),
        (
            {"type": "json"},
            ['{"a":[1,100,0]}', '{"a":[1.0,1e2,-0.0]}', '"{\\"a\\":[1,100,0]}"'],
            ['{"a":[1,100,0]}'] * 3,
        ),
        ({"type": "json"}, ["18446744073709551616", "1.8446744073709552e19"], ["1.8446744073709552e+19"] * 2),
        ({"type": "json"}, ["null", " null "], [None] * 2),
        ({"type": "string", "normalise": []}, [" a ", " \n", "\u3000"], [" a ", None, None]),
        ({"type": "string", "normalise": ["trim", "halfwidth", "digits"]}, ["A´", "(\u3000x"], ["Á", "x"]),
        ({"type": "decimal", "scale": 9}, [Decimal("1E-9"), Decimal("-0E-9")], [Decimal("1E-9"), Decimal(0)]),
        ({"type": "enum", "values": ["无", "重点"]}, ["无", " 重点 "], ["无", "重点"]),
    ],
)
def test_what_people_and_systems_write_becomes_one_value(
    spec: dict[str, Any], values: list[Any], expected: list[Any]
) -> None:
    assert typed(values, **spec) == expected


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ({"type": "int"}, "12.5"),
        ({"type": "int"}, "一二"),
        ({"type": "decimal", "scale": 2}, "1.234"),
        ({"type": "date"}, "2026-02-30"),
        ({"type": "bool"}, "也许"),
        ({"type": "enum", "values": ["无"]}, "有"),
        ({"type": "timestamp"}, "昨天"),
        ({"type": "json"}, "{"),
        ({"type": "float"}, "nan"),
        ({"type": "json"}, "[NaN]"),
        ({"type": "json"}, "[1e999]"),
        ({"type": "json"}, '"{broken"'),
        ({"type": "json"}, '["\\ud800"]'),
        ({"type": "json"}, '["\\u0000"]'),
        ({"type": "json"}, "[" * 100_000),
        ({"type": "string"}, "a\ufffeb"),
        ({"type": "date"}, "0000-01-01"),
        ({"type": "date"}, "90年2月3日"),
        ({"type": "date"}, "90-02-03"),
        ({"type": "date"}, "1990123"),
        ({"type": "timestamp"}, "90年2月3日 08:00"),
        ({"type": "timestamp"}, "90-02-03 08:00:00.5"),
        ({"type": "timestamp"}, "90-02-03 08:00:00Z"),
        ({"type": "timestamp"}, "9999-12-31T16:00:00Z"),
    ],
)
def test_a_value_of_another_type_rejects_only_its_row_and_says_why_in_two_languages(
    spec: dict[str, Any], value: str
) -> None:
    contract = dataset(**spec)
    good = {"enum": "无", "bool": "是", "json": "{}", "date": "2026-01-01", "timestamp": "2026-01-01 00:00:00"}.get(
        str(spec["type"]), "1"
    )
    found = conform(
        pa.table({"id": ["a", "b"], "area": ["1", "1"], "v": [value, good]}), contract, tuple(contract.fields)
    )
    assert found.rows.column("id").to_pylist() == ["b"]
    (reject,) = found.rejects.to_pylist()
    assert (reject["id"], reject["field"], reject["value"]) == ("a", "v", value)
    assert value in reject["reason_zh"]
    assert "v" in reject["reason_en"]


def test_rows_that_share_a_key_are_all_rejected_since_none_can_be_trusted() -> None:
    contract = dataset()
    found = conform(
        pa.table({"id": ["a", "a", "b", None], "area": ["1"] * 4, "v": ["1"] * 4}), contract, tuple(contract.fields)
    )
    assert found.rows.column("id").to_pylist() == ["b"]
    assert sorted(reject["rule"] for reject in found.rejects.to_pylist()) == [
        "key:duplicate",
        "key:duplicate",
        "key:missing",
    ]


def test_a_fingerprint_is_stable_across_versions_and_machines() -> None:
    contract = dataset(type="int")
    rows = conform(pa.table({"id": ["a"], "area": ["1"], "v": [7]}), contract, tuple(contract.fields)).rows
    (found,) = fingerprints(rows, contract, {"city": ["area", "v"]}, b"secret").to_pylist()
    text = f"{b'secret'.hex()}|a|+1:1+1:7"
    assert found == {"key": "a", "fp_city": hashlib.sha256(text.encode()).digest()[:16]}


def test_a_fingerprint_depends_on_key_secret_and_every_field_and_tells_null_from_text() -> None:
    contract = dataset()

    def print_of(key: str, area: str | None, v: str | None, secret: bytes = b"1") -> bytes:
        raw = pa.table({"id": [key], "area": pa.array([area], pa.string()), "v": pa.array([v], pa.string())})
        rows = conform(raw, contract, tuple(contract.fields)).rows
        (line,) = fingerprints(rows, contract, {"g": ["area", "v"]}, secret).to_pylist()
        found: bytes = line["fp_g"]
        return found

    same_key = [("x", "y"), ("x", None), (None, "x"), ("x", "-"), ("-", "x"), ("xy", None), ("x+1:", "y"), ("y", "x")]
    prints = [print_of("a", *values) for values in same_key]
    prints += [print_of("b", "x", "y"), print_of("a", "x", "y", b"2")]
    assert len(set(prints)) == len(prints)
    assert all(len(value) == 16 for value in prints)


def test_a_composite_key_round_trips_through_its_text() -> None:
    fields = {
        "a": {"label": "甲", "authority": "city"},
        "n": {"label": "乙", "type": "int", "authority": "city"},
        "area": {"label": "属地", "authority": "city"},
    }
    contract = Dataset.model_validate(
        {
            "name": "d",
            "label": "数据",
            "levels": ["city", "street"],
            "key": ["a", "n"],
            "jurisdiction": "area",
            "originates": ["city"],
            "fields": fields,
        }
    )
    keys = pa.table({"a": ['x","y', "z"], "n": pa.array([1, 2], pa.int64())})
    assert key_table(key_column(keys, contract), contract).to_pylist() == keys.to_pylist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.datetimes(min_value=datetime(1950, 1, 1), max_value=datetime(2100, 1, 1)), min_size=1, max_size=20))
def test_a_moment_is_the_same_as_text_and_as_a_native_value(moments: list[datetime]) -> None:
    cut = [moment.replace(microsecond=moment.microsecond // 1000 * 1000) for moment in moments]
    native = typed([moment.replace(tzinfo=UTC) for moment in moments], type="timestamp")
    text = typed([moment.isoformat(timespec="microseconds") + "Z" for moment in moments], type="timestamp")
    assert native == text == [moment.replace(tzinfo=UTC) for moment in cut]


def test_text_with_nul_is_refused_and_the_reason_can_be_kept_anywhere() -> None:
    contract = dataset()
    found = conform(pa.table({"id": ["a"], "area": ["1"], "v": ["x\x00y"]}), contract, tuple(contract.fields))
    (reject,) = found.rejects.to_pylist()
    assert (reject["rule"], reject["value"]) == ("type:string", "x\ufffdy")


def test_a_clock_reading_that_came_twice_is_the_earlier_moment_and_one_that_never_came_is_the_change_itself() -> None:
    twice, never = datetime(1986, 9, 14, 1, 30), datetime(1986, 5, 4, 2, 30)
    expected = [datetime(1986, 9, 13, 16, 30, tzinfo=UTC), datetime(1986, 5, 3, 18, 0, tzinfo=UTC)]
    assert typed([twice, never], type="timestamp") == expected
    assert typed([str(twice), str(never)], type="timestamp") == expected


def test_the_day_of_a_moment_is_the_day_on_the_people_s_calendar() -> None:
    assert typed([datetime(2026, 1, 31, 16, tzinfo=UTC)], type="date") == [date(2026, 2, 1)]


STEPS = st.lists(st.sampled_from(["trim", "halfwidth", "collapse", "upper", "lower", "digits"]), unique=True)
WRITTEN = st.text(st.one_of(st.sampled_from("王伟 aZ9-() \t\u3000\u00a0１Ａé\u0301\x00\ufffe、。\U00020000"), st.characters(codec="utf-8")), max_size=6)  # fmt: skip


@given(texts=st.lists(st.none() | WRITTEN, max_size=20), steps=STEPS, start=st.integers(0, 5))
@settings(max_examples=400, deadline=None)
def test_the_short_way_for_plain_text_gives_the_same_as_the_long_one(
    texts: list[str | None], steps: list[str], start: int
) -> None:
    plain = [
        f"多福巷{number}号" for number in range(40)
    ]  # so that the odd ones are few, and only they take the long way
    column = pa.array([*texts, *plain, *texts], pa.string()).slice(start)
    assert normal_text(column, steps).equals(_normal(column, steps))


@given(text=WRITTEN.filter(bool), steps=STEPS)
@settings(max_examples=400, deadline=None)
def test_text_of_plain_characters_without_a_blank_at_an_edge_is_canonical(text: str, steps: list[str]) -> None:
    ranges = plain_ranges(steps)
    tidy = all(any(first <= character <= last for first, last in ranges) for character in text) and text == text.strip(
        " "
    )
    assert not tidy or normal_text(pa.array([text]), steps).to_pylist() == [text]


@pytest.mark.parametrize("step", ["trim", "halfwidth", "upper", "lower", "digits", "collapse"])
def test_each_plain_character_stays_as_it_is(step: str) -> None:
    every = [chr(code) for first, last in plain_ranges([step]) for code in range(ord(first), ord(last) + 1)]
    assert len(every) > 0x6000
    between = pa.array([f"王{character}王" for character in every])
    assert normal_text(between, [step]).equals(between)
