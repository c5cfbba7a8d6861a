"""A small federation whose residents have values worth hiding, some of them wrong, for the tests of the quality report."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from tests.federations import CITY, E11, E12, W11, Small

RESIDENT = """
name: resident
label: 居民
levels: [city, district, street, community]
key: [resident_id]
jurisdiction: community_code
originates: [city]
suite: resident.json
fields:
  resident_id: {label: 居民编号, authority: city}
  name: {label: 姓名, authority: city, sensitivity: personal}
  id_number: {label: 身份证号, authority: city, visible: [city, district], sensitivity: sensitive}
  birth_date: {label: 出生日期, type: date, authority: city, sensitivity: personal}
  address: {label: 住址, authority: city, sensitivity: personal}
  income: {label: 收入, type: float, authority: city, sensitivity: sensitive}
  community_code: {label: 社区代码, authority: city}
  phone: {label: 手机号, authority: community, normalise: [trim, halfwidth], sensitivity: personal}
  phone_2: {label: 备用手机号, authority: community, sensitivity: personal}
  care_level: {label: 关爱等级, type: enum, values: [无, 一般, 重点], authority: community}
"""
PERSONAL = ("resident_id", "name", "id_number", "birth_date", "address", "income", "phone", "phone_2")
"""The fields of which no value may show: all but codes."""
NAMES = [
    "欧阳晓晨",
    "司徒秉烛",
    "诸葛听雨",
    "慕容怀瑾",
    "上官若溪",
    "东方既白",
    "端木知秋",
    "公孙望舒",
    "长孙无忌讳",
    "令狐照雪",
]


def rule(kind: str, severity: str = "critical", reason: str = "请核对“{value}”", **kwargs: Any) -> dict[str, Any]:
    """One expectation of a gate's suite."""
    return {
        "type": kind,
        "severity": severity,
        "kwargs": kwargs,
        "meta": {"reason": {"zh": reason, "en": "please look at {value!r}" if "{" in reason else "please look"}},
    }


def suite(*rules: dict[str, Any]) -> str:
    """A suite's file."""
    return json.dumps({"name": "suite", "expectations": list(rules)}, ensure_ascii=False)


GATE = suite(
    rule("expect_column_values_to_not_be_null", "warning", column="address"),
    rule(
        "expect_column_values_to_match_regex",
        column="phone",
        regex="^1[3-9][0-9]{9}$",
        reason="手机号应为 11 位，现为“{value}”",
    ),
    rule("expect_column_values_to_match_regex", column="id_number", regex="^[0-9]{17}[0-9X]$"),
    rule("expect_column_values_to_be_between", column="birth_date", min_value="1900-01-01", max_value="2026-01-01"),
    rule("expect_column_values_to_be_in_set", column="name", value_set=NAMES),
    rule("expect_column_values_to_not_be_in_set", "info", column="address", value_set=['文津街 7 号 <乙>&"丙"楼']),
    rule("expect_column_values_to_be_unique", "warning", column="id_number"),
    rule("expect_column_values_to_be_between", "info", column="income", max_value=9000),
    rule(
        "expect_column_pair_values_to_be_equal",
        "info",
        column_A="phone",
        column_B="phone_2",
        ignore_row_if="either_value_is_missing",
    ),
    rule("expect_compound_columns_to_be_unique", "info", column_list=["name", "birth_date"]),
    rule("expect_column_value_z_scores_to_be_less_than", "info", column="income", threshold=3, double_sided=True),
)
WHOLE = "整表规则"
REPORT = suite(
    rule("expect_table_row_count_to_be_between", "warning", reason=WHOLE, min_value=2),
    rule("expect_column_max_to_be_between", reason=WHOLE, column="birth_date", max_value="2000-01-01"),
    rule("expect_column_min_to_be_between", reason=WHOLE, column="birth_date", min_value="1961-01-01"),
    rule("expect_column_distinct_values_to_be_in_set", reason=WHOLE, column="name", value_set=NAMES[:3]),
    rule("expect_column_most_common_value_to_be_in_set", reason=WHOLE, column="address", value_set=[]),
    rule("expect_column_sum_to_be_between", reason=WHOLE, column="income", max_value=1),
)
FILES = {
    "datasets/resident.yaml": RESIDENT,
    "expectations/resident.json": GATE,
    "expectations/resident.report.json": REPORT,
}


def person(number: int) -> dict[str, Any]:
    """A resident; every third has something wrong."""
    wrong = number % 3 == 0
    return {
        "resident_id": f"KEY-{number:04d}-Q",
        "name": NAMES[number % 10] if not wrong else f"{NAMES[number % 10]}·乙",
        "id_number": f"11010119{60 + number}0{1 + number % 9}2{number % 10}77{number % 10}5" + ("?" if wrong else ""),
        "birth_date": date(1960 + number, 1 + number % 9, 20 + number % 8),
        "address": f'文津街 {number} 号 <乙>&"丙"楼' if number % 5 else None,
        "income": 8000.25 + 77 * number,
        "phone": f"138{55500000 + number * 131}" if not wrong else f"8{number}55-坏号",
        "phone_2": f"139{44400000 + number * 17}",
        "care_level": "无",
    }


def filled(folder: Path, people: int = 24, **changes: str) -> Small:
    """The federation, with residents at the city and, unsynced, at three communities: what is wrong is there to be found."""
    small = Small(folder, changes={**FILES, **changes})
    for number in range(people):
        row, community = person(number), (E11, E12, W11)[number % 3]
        for region in (CITY, community):
            held = {name: value for name, value in row.items() if region == CITY or name != "id_number"}
            small.put(
                region,
                row["resident_id"],
                community_code=community,
                **{k: v for k, v in held.items() if k != "resident_id"},
            )
    return small


def values_of(small: Small) -> set[str]:
    """Every value of the input that nobody may see, as text."""
    rows = [row for region in small.federation.config.tree for row in small.store(region.code).rows.values()]
    return {str(row[name]) for row in rows for name in PERSONAL if row.get(name) is not None}


def found_in(folder: Path, values: set[str]) -> set[str]:
    """Which of these values a folder's files hold in any form: as they are, escaped for HTML, JSON or Python, or in an address."""
    text = "\n".join(path.read_bytes().decode("utf-8") for path in sorted(folder.rglob("*")) if path.is_file())
    return {value for value in values if any(form in text for form in _forms(value))}


def _forms(value: str) -> Iterator[str]:
    yield value
    yield from (
        html.escape(value),
        html.escape(value, quote=False),
        quote(value),
        quote_plus(value),
        quote(value, safe=""),
    )
    yield from (
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
        ascii(value)[1:-1],
    )
    yield from ("".join(f"&#{ord(letter)};" for letter in value), "".join(f"&#x{ord(letter):x};" for letter in value))
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        day = date.fromisoformat(value)
        yield from (
            repr(day),
            f"{day:%Y%m%d}",
            f"{day:%Y/%m/%d}",
            f"{day:%d.%m.%Y}",
            f"{day.year}年{day.month}月{day.day}日",
        )
