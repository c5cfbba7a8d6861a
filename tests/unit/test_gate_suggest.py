"""`fedsync gate explain` and `fedsync gate suggest`."""

from __future__ import annotations

import json
import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from examples.beijing import generator
from federation.canonical import schema
from federation.cli import app
from federation.config import load
from federation.contract import Dataset
from federation.errors import FedsyncError
from federation.gate import Gate
from federation.gate_suggest import suggest
from tests.federations import CITY, E11, SUITE, Small
from tests.surroundings import Here, beijing
from tests.unit.test_gate import dataset

run = CliRunner()
NOW = datetime(2026, 11, 20, tzinfo=UTC)
SAMPLE = Path(__file__).parents[2] / "examples/beijing"
ODD = dataset(
    "odd", "key", score="int", share="float", sum={"type": "decimal", "scale": 2}, planned="date", booked="timestamp", code="string", org="string", tag="string",
    secret={"type": "string", "sensitivity": "sensitive"}, note="string", flag="bool", place="string", empty="string", braces={"type": "string", "label": "甲{乙}"},
)  # fmt: skip


def contract(name: str) -> Dataset:
    return next(one for one in load_sample() if one.name == name)


def load_sample() -> list[Dataset]:
    from federation.yamlfile import YamlFile

    return [YamlFile(path).model(Dataset, YamlFile(path).data) for path in sorted((SAMPLE / "datasets").glob("*.yaml"))]


def odd(count: int = 60) -> pa.Table:
    dice = random.Random(3)
    rows: list[dict[str, Any]] = [
        {
            "key": f"K{i:06}",
            "score": i - 40,
            "share": dice.random() * 0.9,
            "sum": Decimal(dice.randrange(100, 99_999)) / 100,
            "planned": date(2031, 5, 1) + timedelta(days=i),
            "booked": NOW + timedelta(days=i),
            "code": f"AB-{dice.randrange(10**6):06}",
            "org": "91350100M000100Y43",
            "tag": "红{绿}"[i % 4] if i % 7 else None,
            "secret": "甲乙"[i % 2],
            "note": "长" * dice.randrange(1, 30),
            "flag": True,
            "place": dice.choice(["110101001001", "110101001000"]),
            "empty": None,
            "braces": "x" * 60,
        }
        for i in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=schema(ODD, list(ODD.fields)))


def loaded(folder: Path, suite: dict[str, Any], of: Dataset) -> Gate:
    path = folder / f"{of.name}.json"
    path.write_text(json.dumps(suite, ensure_ascii=False), encoding="utf-8")
    return Gate.load(path, of)


def samples(name: str) -> pa.Table:
    tree = beijing()
    people = generator.residents(tree, 400, 7)
    made = {
        "resident": people,
        "visit": generator.visits(tree, 200, 7, among=people),
        "facility": generator.facilities(tree, 200, 7),
        "work_order": generator.work_orders(tree, 200, 7),
    }[name]
    of = contract(name)
    return made.cast(schema(of, made.column_names))


def kinds(suite: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for rule in suite["expectations"]:
        found.setdefault(rule["kwargs"]["column"], []).append(rule["type"].removeprefix("expect_column_"))
    return found


@pytest.mark.parametrize("name", ["resident", "visit", "facility", "work_order"])
def test_a_suggested_suite_loads_is_compiled_throughout_and_holds_for_the_data_it_came_from(
    tmp_path: Path, name: str
) -> None:
    rows, of = samples(name), contract(name)

    gate = loaded(tmp_path, suggest(of, rows, beijing(), NOW), of)

    assert [plan.rule for plan in gate.explain() if plan.runs != "compiled"] == []
    assert gate.check(rows, None, Here(now=NOW)).failures.to_pylist() == []
    assert len(gate.suite.rules) >= len(rows.column_names) - 2


@pytest.mark.parametrize("name", ["resident", "visit", "work_order"])
def test_no_personal_value_is_written_into_a_suite(name: str) -> None:
    rows, of = samples(name), contract(name)
    written = json.dumps(suggest(of, rows, beijing(), NOW), ensure_ascii=False)

    personal = [field for field, spec in of.fields.items() if spec.sensitivity in ("personal", "sensitive")]
    values = {str(value) for field in personal for value in rows.column(field).to_pylist() if value is not None}

    assert {value for value in values - set(contract("resident").fields["gender"].values) if value in written} <= {"无", "一般", "重点"}  # fmt: skip
    assert len(values) > 150


def test_known_shapes_are_recognised_by_their_values() -> None:
    suite = suggest(contract("resident"), samples("resident"), beijing(), NOW)
    by_column = {rule["kwargs"]["column"]: rule for rule in suite["expectations"] if "regex" in rule["kwargs"]}

    assert by_column["id_number"]["meta"]["check"] == {"kind": "id_number"}
    assert by_column["phone"]["kwargs"]["regex"] == "^1[3-9][0-9]{9}$"
    assert by_column["community_code"]["meta"]["check"] == {"kind": "region", "level": "community"}
    assert by_column["resident_id"]["kwargs"]["regex"] == "^[A-Z][0-9]{10}$"
    assert "values_to_be_unique" in kinds(suite)["id_number"]
    assert "values_to_be_unique" not in kinds(suite)["phone"]
    assert by_column["phone"]["meta"]["reason"] == {
        "zh": "手机号应为 11 位手机号，以 1 开头，现为“{value}”",
        "en": "Mobile phone must be a mobile number of 11 digits, it is {value!r}",
    }


def test_every_type_of_field_gets_what_can_be_said_of_it(tmp_path: Path) -> None:
    rows = odd()
    suite = suggest(ODD, rows, beijing(), NOW)
    found = kinds(suite)
    rules = {(rule["kwargs"]["column"], rule["type"].removeprefix("expect_column_")): rule for rule in suite["expectations"]}  # fmt: skip

    assert loaded(tmp_path, suite, ODD).check(rows, None, Here(now=NOW)).failures.to_pylist() == []
    assert found["score"] == found["share"] == found["sum"] == ["values_to_not_be_null", "values_to_be_between"]
    assert rules["score", "values_to_be_between"]["kwargs"] == {"column": "score", "min_value": -50, "max_value": 20}
    assert rules["share", "values_to_be_between"]["kwargs"] == {"column": "share", "min_value": 0, "max_value": 1}
    assert rules["planned", "values_to_be_between"]["kwargs"]["max_value"] == "2050-01-01"
    assert rules["booked", "values_to_be_between"]["kwargs"]["min_value"] == "2010-01-01T00:00:00+08:00"
    assert rules["code", "values_to_match_regex"]["kwargs"]["regex"] == "^[A-Z]{2}-[0-9]{6}$"
    assert rules["org", "values_to_match_regex"]["meta"]["check"] == {"kind": "social_credit_code"}
    assert rules["tag", "values_to_be_in_set"]["kwargs"]["value_set"] == ["{", "}", "红", "绿"]
    assert "values_to_not_be_null" not in found["tag"]
    assert found["secret"] == ["values_to_not_be_null", "value_lengths_to_be_between"], "never its values"
    assert rules["place", "values_to_match_regex"]["meta"]["check"] == {"kind": "region"}
    assert "empty" not in found and found["flag"] == ["values_to_not_be_null"]
    assert rules["braces", "values_to_not_be_null"]["meta"]["reason"]["zh"] == "甲{{乙}}不能为空，请补填"


def test_bounds_lie_beyond_the_outermost_value_so_that_they_are_nobodys() -> None:
    rows = pa.Table.from_pylist(
        [
            {"key": "a", "score": 40, "planned": date(1920, 1, 1)},
            {"key": "b", "score": -20, "planned": date(1990, 1, 1)},
        ],
        schema=schema(ODD, ["key", "score", "planned"]),
    )
    written = {rule["kwargs"]["column"]: rule["kwargs"] for rule in suggest(ODD, rows, beijing(), NOW)["expectations"]}

    assert (written["score"]["min_value"], written["score"]["max_value"]) == (-30, 50)
    assert written["planned"]["min_value"] == "1910-01-01"


def test_a_date_that_means_for_ever_has_no_upper_bound(tmp_path: Path) -> None:
    of = dataset("ever", "key", until="date", seen="timestamp")
    ever = {"key": "K1", "until": date(9999, 12, 31), "seen": datetime(9999, 12, 30, tzinfo=UTC)}
    rows = pa.Table.from_pylist([ever, {"key": "K2", "until": date(1, 1, 1)}], schema=schema(of, list(of.fields)))
    gate = loaded(tmp_path, suggest(of, rows, beijing(), NOW), of)
    assert gate.check(rows).failures.num_rows == 0


def test_nothing_can_be_learnt_from_no_record() -> None:
    with pytest.raises(FedsyncError, match="no record"):
        suggest(ODD, odd(0), beijing(), NOW)


@pytest.fixture
def small(tmp_path: Path) -> Small:
    made = Small(tmp_path)
    made.two_residents()
    return made


def call(small: Small, *words: str) -> tuple[int, str]:
    result = run.invoke(app, [*words, "--file", str(small.folder)])
    return result.exit_code, result.output


def test_the_command_writes_a_suite_that_loads_and_never_overwrites(small: Small) -> None:
    target = small.folder / "draft.json"
    code, text = call(small, "gate", "suggest", "resident", E11, "--output", str(target))
    assert code == 0 and "draft.json" in text
    of = load(small.folder).dataset("resident")
    assert Gate.load(target, of).suite.rules
    before = target.read_bytes()
    assert call(small, "gate", "suggest", "resident", E11, "-o", str(target))[0] == 1
    assert target.read_bytes() == before
    assert call(small, "gate", "suggest", "resident", E11, "-o", str(small.folder / "none/x.json"))[0] == 1
    code, text = call(small, "gate", "suggest", "resident", CITY)
    assert (code, json.loads(text)["name"]) == (0, "resident")


def test_explain_tells_of_each_rule_where_it_runs_why_on_which_rows_and_what_people_read(small: Small) -> None:
    suite = json.loads(SUITE)
    suite["expectations"] += [
        {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "id_number", "regex": "^.", "row_condition": {"type": "and", "conditions": [{"type": "comparison", "column": {"name": "care_level"}, "operator": "IN", "parameter": ["无"]}, {"type": "nullity", "column": {"name": "name"}, "is_null": False}]}}, "meta": {"check": {"kind": "id_number"}, "reason": {"zh": "号“{value}”", "en": "it is {value}"}}},
        {"type": "expect_column_values_to_be_json_parseable", "severity": "warning", "kwargs": {"column": "name", "row_condition": "phone == '1'", "condition_parser": "pandas"}, "meta": {"reason": {"zh": "坏", "en": "bad"}}},
    ]  # fmt: skip
    (small.folder / "expectations/resident.json").write_text(json.dumps(suite, ensure_ascii=False), encoding="utf-8")

    code, text = call(small, "gate", "explain", "resident", "--json")

    assert code == 0, text
    first, second, third = json.loads(text)
    assert (first["runs"], first["why"], first["condition"]) == ("compiled", "", "")
    assert (second["check"], second["reason_zh"]) == ("id_number", "号“{id_number}”")
    assert second["condition"] == '(care_level IN ["无"]) and (name is not null)'
    assert (third["runs"], third["severity"], third["condition"]) == ("great_expectations", "warning", "phone == '1'")
    assert third["why"]
    code, text = call(small, "gate", "explain", "resident")
    assert code == 0 and "id_number" in text


def test_a_dataset_without_a_suite_is_told_so(small: Small) -> None:
    code, text = call(small, "gate", "explain", "visit")
    assert code == 1 and "fedsync gate suggest" in text
