"""Random suites, random records, all four levels: whatever the gate sets aside is in quarantine, and everything else arrives."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.federations import CITY, E11, E12, E21, EAST, EAST_1, EAST_2, W11, WEST, WEST_1, Small
from tests.property.profiles import machine_settings

PATHS = {E11: {CITY, EAST, EAST_1}, E12: {CITY, EAST, EAST_1}, E21: {CITY, EAST, EAST_2}, W11: {CITY, WEST, WEST_1}}
VALUES = {
    "name": st.sampled_from([None, "王伟", "李 娜", "x" * 60, "O'Neil", "🙂", "=1+1"]),
    "phone": st.sampled_from([None, "13800000001", "1380000000", "abc", "010-12345678"]),
    "care_level": st.sampled_from([None, "无", "一般", "重点"]),
}
COLUMNS = st.sampled_from(list(VALUES))
RULES = st.one_of(
    st.tuples(st.just("expect_column_values_to_not_be_null"), COLUMNS, st.just({})),
    st.tuples(st.just("expect_column_values_to_be_null"), COLUMNS, st.just({})),
    st.tuples(
        st.just("expect_column_values_to_match_regex"),
        COLUMNS,
        st.sampled_from([{"regex": "^1[3-9][0-9]{9}$"}, {"regex": "^[一-龥]"}, {"regex": "."}]),
    ),
    st.tuples(
        st.just("expect_column_value_lengths_to_be_between"),
        COLUMNS,
        st.sampled_from([{"max_value": 10}, {"min_value": 2}, {"min_value": 3, "max_value": 11}]),
    ),
    st.tuples(
        st.just("expect_column_values_to_be_in_set"),
        COLUMNS,
        st.sampled_from([{"value_set": ["无", "王伟"]}, {"value_set": ["13800000001", "重点", "李 娜"]}]),
    ),
)
SUITES = st.lists(st.tuples(RULES, st.sampled_from(["critical", "critical", "warning"])), max_size=4, unique_by=str)
RECORDS = st.lists(
    st.tuples(st.sampled_from(list(PATHS)), st.fixed_dictionaries(VALUES), st.none() | VALUES["phone"]), max_size=10
)


def suite(rules: list[Any]) -> str:
    """The suite as a file would have it."""
    reason = {"zh": "不合规则", "en": "breaks the rule"}
    listed = [
        {"type": kind, "kwargs": {"column": column, **more}, "severity": severity, "meta": {"reason": reason}}
        for (kind, column, more), severity in rules
    ]
    # the same rule twice has the same name; the first one stands
    once = {(rule["type"], rule["kwargs"]["column"]): rule for rule in reversed(listed)}
    return json.dumps({"name": "resident", "meta": {}, "expectations": list(once.values())})


def breaks(rule: dict[str, Any], record: dict[str, Any]) -> bool:
    """The rule's verdict, as its name says it: a value that is missing breaks no rule but the one that wants it."""
    kwargs = rule["kwargs"]
    value = record[kwargs["column"]]
    if rule["type"].endswith("to_not_be_null"):
        return value is None
    if value is None:
        return False
    if rule["type"].endswith("to_be_null"):
        return True
    if "regex" in kwargs:
        return re.search(kwargs["regex"], value) is None
    if "value_set" in kwargs:
        return value not in kwargs["value_set"]
    return not kwargs.get("min_value", 0) <= len(value) <= kwargs.get("max_value", 10**9)


@given(rules=SUITES, records=RECORDS)
@machine_settings(examples=25, steps=1)
def test_every_record_arrives_or_is_in_quarantine_whatever_the_suite(rules: list[Any], records: list[Any]) -> None:
    written = suite(rules)
    grave = [rule for rule in json.loads(written)["expectations"] if rule["severity"] == "critical"]
    with tempfile.TemporaryDirectory() as folder:
        small = Small(Path(folder), changes={"expectations/resident.json": written})
        for number, (community, record, _) in enumerate(records):
            small.resident(f"R{number}", community, **record)
        small.cascade()
        stopped = {item.key for item in small.federation.services.quarantine.open_items(dataset="resident")}
        for number, (community, record, _) in enumerate(records):
            key, bad = f"R{number}", any(breaks(rule, record) for rule in grave)
            assert (key in stopped) == bad, (key, record)
            assert small.holders(key) == ({CITY} if bad else PATHS[community] | {community}), (key, record)

        edited = {}
        for number, (community, record, phone) in enumerate(records):
            key = f"R{number}"
            if key not in stopped and phone != record["phone"]:
                edited[key] = {**record, "phone": phone}
                small.put(community, key, **{**(small.get(community, key) or {}), "phone": phone})
        small.cascade()
        waiting = {item.key for item in small.federation.services.quarantine.open_items(dataset="resident")}
        for key, record in edited.items():
            bad = any(breaks(rule, record) for rule in grave if rule["kwargs"]["column"] == "phone")
            assert (key in waiting) == bad, (key, record)
            above = small.get(CITY, key)
            assert above is not None
            assert (above["phone"] == record["phone"]) != bad, (key, record)
        assert waiting == stopped | {key for key in waiting if key in edited}
