"""The gate: what quarantines, what passes, what a person reads, and what a wrong suite says."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from federation import canonical
from federation.contract import Dataset
from federation.errors import DeclarationError, GateError
from federation.gate import Gate
from federation.gate_regex import compile_pattern
from tests.surroundings import Here

ROOT = Path(__file__).parents[2]
REASON = {"zh": "应合规，现为“{value}”", "en": "must be fit, it is {value!r}"}


def dataset(dataset_name: str = "resident", key: str = "resident_id", /, **fields: Any) -> Dataset:
    return Dataset.model_validate(
        {
            "name": dataset_name,
            "label": dataset_name,
            "levels": ["city", "district"],
            "key": [key],
            "jurisdiction": key,
            "originates": ["city"],
            "fields": {
                field: {"label": field, "authority": "city", **(spec if isinstance(spec, dict) else {"type": spec})}
                for field, spec in {key: "string", **fields}.items()
            },
        }
    )


RESIDENT = dataset(phone="string", name="string", age="int", born="date", moved="date", seen="timestamp", note="json")


def expectation(kind: str, severity: str = "critical", reason: Any = REASON, **kwargs: Any) -> dict[str, Any]:
    return {"type": kind, "kwargs": kwargs, "severity": severity, "meta": {"reason": reason}}


PHONE = expectation("expect_column_values_to_match_regex", column="phone", regex="^1[0-9]{10}$")


def write(folder: Path, *rules: Any, **meta: Any) -> Path:
    path = folder / "resident.json"
    path.write_text(json.dumps({"name": "resident", "meta": meta, "expectations": rules}), encoding="utf-8")
    return path


def gate(folder: Path, *rules: Any, **meta: Any) -> Gate:
    return Gate.load(write(folder, *rules, **meta), RESIDENT)


def rows(*records: dict[str, Any], of: Dataset = RESIDENT, fields: tuple[str, ...] = ()) -> pa.Table:
    names = list(fields or of.fields)
    listed = [{of.key[0]: f"r{index}", **record} for index, record in enumerate(records)]
    return pa.Table.from_pylist(
        [{name: record.get(name) for name in names} for record in listed], schema=canonical.schema(of, names)
    )


def problems(path: Path, of: Dataset = RESIDENT) -> list[DeclarationError]:
    with pytest.raises(DeclarationError) as raised:
        Gate.load(path, of)
    assert raised.value.where["file"] == path
    return list(raised.value.problems) or [raised.value]  # type: ignore[list-item]


def test_a_critical_rule_names_the_failing_row_its_key_its_value_and_a_reason_in_two_languages(tmp_path: Path) -> None:
    reason = {
        "zh": "手机号应为 11 位数字，以 1 开头，现为“{value}”",
        "en": "the phone number must be 11 digits, it is {value!r}",
    }
    rule = expectation("expect_column_values_to_match_regex", reason=reason, column="phone", regex="^1[0-9]{10}$")

    verdict = gate(tmp_path, rule).check(rows({"phone": "13800000000"}, {"phone": "12"}, {"phone": None}))

    assert verdict.critical().to_pylist() == [False, True, False]
    assert verdict.failures.to_pylist() == [
        {
            "resident_id": "r1",
            "locator": None,
            "field": "phone",
            "value": "12",
            "rule": "expect_column_values_to_match_regex(phone)",
            "reason_zh": "手机号应为 11 位数字，以 1 开头，现为“12”",
            "reason_en": "the phone number must be 11 digits, it is '12'",
            "severity": "critical",
            "row": 1,
        }
    ]


@pytest.mark.parametrize("severity", ["warning", "info"])
def test_a_milder_rule_marks_the_row_and_lets_it_pass(tmp_path: Path, severity: str) -> None:
    verdict = gate(tmp_path, {**PHONE, "severity": severity}).check(rows({"phone": "12"}))

    assert verdict.critical().to_pylist() == [False]
    assert verdict.failing().to_pylist() == [True]
    assert verdict.failures.column("severity").to_pylist() == [severity]


def test_a_rule_without_a_severity_is_critical_as_in_great_expectations(tmp_path: Path) -> None:
    rule = {word: value for word, value in PHONE.items() if word != "severity"}

    assert gate(tmp_path, rule).check(rows({"phone": "12"})).critical().to_pylist() == [True]


def test_a_rule_that_touches_none_of_the_moving_fields_does_not_count(tmp_path: Path) -> None:
    built, moving = gate(tmp_path, PHONE), rows({"phone": "12"})

    assert built.check(moving, {"name"}).failures.num_rows == 0
    assert built.check(moving, {"name", "phone"}).failures.num_rows == 1


def test_a_rule_whose_fields_do_not_all_travel_is_not_evaluated(tmp_path: Path) -> None:
    pair = expectation("expect_column_pair_values_a_to_be_greater_than_b", column_A="moved", column_B="born")
    record = {"moved": date(2020, 1, 1), "born": date(2021, 1, 1)}

    assert gate(tmp_path, pair).check(rows(record)).failures.num_rows == 1
    assert gate(tmp_path, pair).check(rows(record, fields=("resident_id", "moved"))).failures.num_rows == 0


def test_the_field_of_a_row_condition_counts_as_touched_and_as_needed(tmp_path: Path) -> None:
    condition = {"type": "comparison", "column": {"name": "name"}, "operator": "==", "parameter": "张三"}
    built = gate(tmp_path, expectation("expect_column_values_to_not_be_null", column="phone", row_condition=condition))
    moving = rows({"name": "李四"}, {"name": "张三"}, {"name": None})

    assert built.check(moving, {"name"}).failures.column("row").to_pylist() == [1]
    assert built.check(moving.drop_columns("name")).failures.num_rows == 0


def test_failures_stand_in_the_order_of_rows_and_then_of_rules(tmp_path: Path) -> None:
    name = expectation("expect_column_values_to_not_be_null", column="name")

    found = gate(tmp_path, PHONE, name).check(rows({"phone": "12"}, {"phone": "13"})).failures

    assert list(zip(found.column("row").to_pylist(), found.column("field").to_pylist())) == [
        (0, "phone"),
        (0, "name"),
        (1, "phone"),
        (1, "name"),
    ]


def test_a_rule_that_holds_by_its_mostly_fails_nobody(tmp_path: Path) -> None:
    moving = rows(*[{"phone": "13800000000"}] * 3, {"phone": "12"}, {"phone": None})

    for mostly, failing in ((0.75, 0), (0.76, 1)):
        rule = {**PHONE, "kwargs": {**PHONE["kwargs"], "mostly": mostly}}
        assert gate(tmp_path, rule).check(moving).failures.num_rows == failing


def test_no_rows_fail_nothing(tmp_path: Path) -> None:
    verdict = gate(tmp_path, PHONE).check(rows())

    assert verdict.critical().to_pylist() == []
    assert verdict.failures.schema.names[-2:] == ["severity", "row"]


def test_a_null_reads_as_empty_and_a_time_as_local_time(tmp_path: Path) -> None:
    rule = expectation(
        "expect_column_values_to_not_be_null",
        reason={"zh": "电话{value}，{{最近}}走访 {seen}", "en": "{phone!r} / {seen}"},
        column="phone",
        row_condition={"type": "nullity", "column": {"name": "seen"}, "is_null": False},
    )

    line = (
        gate(tmp_path, rule).check(rows({"seen": datetime(2026, 1, 31, 16, 0, 0, 5000, UTC)})).failures.to_pylist()[0]
    )

    assert (line["value"], line["reason_zh"]) == (None, "电话空，{最近}走访 2026-02-01 00:00:00")
    assert line["reason_en"] == "empty / 2026-02-01 00:00:00"


def test_python_reads_the_patterns_so_full_width_digits_are_digits(tmp_path: Path) -> None:
    rule = expectation("expect_column_values_to_match_regex", column="phone", regex=r"^\d{3}$")

    verdict = gate(tmp_path, rule).check(rows({"phone": "１２３"}, {"phone": "123\n"}, {"phone": "12三"}))

    assert verdict.critical().to_pylist() == [False, False, True]


def test_a_look_ahead_is_evaluated_though_re2_has_none(tmp_path: Path) -> None:
    rule = expectation("expect_column_values_to_match_regex", column="name", regex=r"^(?!测试)")

    assert gate(tmp_path, rule).check(rows({"name": "测试甲"}, {"name": "王五"})).critical().to_pylist() == [
        True,
        False,
    ]


def test_whole_numbers_beyond_a_float_are_compared_exactly(tmp_path: Path) -> None:
    rule = expectation("expect_column_values_to_be_between", column="age", max_value=2**53, strict_max=True)

    assert gate(tmp_path, rule).check(rows({"age": 2**53 - 1}, {"age": 2**53 + 1})).critical().to_pylist() == [
        False,
        True,
    ]


def test_a_non_boundary_finds_nothing_in_an_empty_text_as_in_python() -> None:
    assert compile_pattern(r"\B").search(pa.chunked_array([["", "ab", "a"]])).to_pylist() == [False, True, False]


def test_the_limits_of_a_link_come_from_the_suite_or_never_hold(tmp_path: Path) -> None:
    assert (gate(tmp_path).max_failing_share, gate(tmp_path).min_records) == (1.0, 20)
    limited = gate(tmp_path, max_failing_share=0.25, min_records=5)
    assert (limited.max_failing_share, limited.min_records) == (0.25, 5)


def test_identity_follows_the_content_and_not_the_layout(tmp_path: Path) -> None:
    first = gate(tmp_path, PHONE).identity
    path = write(tmp_path, PHONE)
    path.write_text(json.dumps(json.loads(path.read_text()), indent=4, sort_keys=True))

    assert Gate.load(path, RESIDENT).identity == first
    assert gate(tmp_path, {**PHONE, "severity": "warning"}).identity != first


def test_explain_says_where_each_rule_runs_and_why(tmp_path: Path) -> None:
    other = expectation("expect_column_values_to_be_json_parseable", "warning", column="note")

    plans = gate(tmp_path, PHONE, other).explain()

    assert [(plan.columns, plan.severity, plan.runs, bool(plan.why)) for plan in plans] == [
        (("phone",), "critical", "compiled", False),
        (("note",), "warning", "great_expectations", True),
    ]


WRONG = {
    "an unknown field": expectation("expect_column_values_to_be_unique", column="nobody"),
    "an unknown type": expectation("expect_column_values_to_be_nice", column="phone"),
    "a rule about a table": expectation("expect_table_row_count_to_be_between", min_value=1),
    "a rule about an aggregate": expectation("expect_column_mean_to_be_between", column="age", min_value=1),
    "a rule about order": expectation("expect_column_values_to_be_increasing", column="age"),
    "a pattern that does not compile": expectation("expect_column_values_to_match_regex", column="phone", regex="(1"),
    "a pattern on a number": expectation("expect_column_values_to_match_regex", column="age", regex="1"),
    "an unknown argument": expectation("expect_column_values_to_be_unique", column="phone", least=1),
    "a missing argument": expectation("expect_column_values_to_be_in_set", column="phone"),
    "values of another type": expectation("expect_column_values_to_be_in_set", column="age", value_set=["1"]),
    "no bound at all": expectation("expect_column_values_to_be_between", column="age"),
    "bounds the wrong way round": expectation("expect_column_values_to_be_between", column="age", min_value=2, max_value=1),
    "a bound that is no date": expectation("expect_column_values_to_be_between", column="born", min_value="2020-02-30"),
    "a time without an offset": expectation("expect_column_values_to_be_between", column="seen", min_value="2020-02-01T00:00:00"),
    "a between on text": expectation("expect_column_values_to_be_between", column="phone", min_value=1),
    "mostly above one": expectation("expect_column_values_to_be_unique", column="phone", mostly=80),
    "an unknown severity": expectation("expect_column_values_to_be_unique", "fatal", column="phone"),
    "no Chinese reason": expectation("expect_column_values_to_be_unique", reason={"en": "x"}, column="phone"),
    "no English reason": expectation("expect_column_values_to_be_unique", reason={"zh": "x"}, column="phone"),
    "a reason that reads another field": expectation("expect_column_values_to_be_unique", reason={"zh": "{name}", "en": "x"}, column="phone"),
    "a reason that reaches into a value": expectation("expect_column_values_to_be_unique", reason={"zh": "x{value.__class__}", "en": "x"}, column="phone"),
    "a condition on an unknown field": expectation("expect_column_values_to_be_unique", column="phone", row_condition="nobody == 'x'", condition_parser="pandas"),
    "a condition that cannot be parsed": expectation("expect_column_values_to_be_unique", column="phone", row_condition="name ==", condition_parser="pandas"),
    "a condition that great expectations ignores": expectation("expect_column_pair_values_to_be_in_set", column_A="phone", column_B="name", value_pairs_set=[["1", "a"]], row_condition="name == 'a'", condition_parser="pandas"),
    "an id that great expectations does not load": {**PHONE, "id": "phone"},
    "a column that is no name": expectation("expect_column_values_to_be_unique", column=["phone"]),
    "a format that no date is written in": expectation("expect_column_values_to_match_strftime_format", column="phone", strftime_format="%"),
    "a format for what is no text": expectation("expect_column_values_to_match_strftime_format", column="born", strftime_format="%Y"),
    "a schema for text that may be no json": expectation("expect_column_values_to_match_json_schema", column="phone", json_schema={"type": "object"}),
    "a schema that is none": expectation("expect_column_values_to_match_json_schema", column="note", json_schema={"type": 5}),
    "a score of text": expectation("expect_column_value_z_scores_to_be_less_than", column="phone", threshold=3, double_sided=True),
    "a threshold that is no number": expectation("expect_column_value_z_scores_to_be_less_than", column="age", threshold="x", double_sided=True),
    "an unknown way to find outliers": expectation("expect_column_values_to_not_be_outliers", column="age", method="guess"),
    "a sum of text": expectation("expect_multicolumn_sum_to_equal", column_list=["phone", "name"], sum_total=3),
    "types that have no order": expectation("expect_column_pair_values_a_to_be_greater_than_b", column_A="seen", column_B="born"),
    "pairs that are none": expectation("expect_column_pair_values_to_be_in_set", column_A="phone", column_B="name", value_pairs_set=["ab"]),
    "a list of dates": expectation("expect_column_values_to_be_in_set", column="born", value_set=["2020-01-01"]),
    "a condition that compares text with a number": expectation("expect_column_values_to_be_unique", column="phone", row_condition="name > 1", condition_parser="pandas"),
    "a condition on a date": expectation("expect_column_values_to_be_unique", column="phone", row_condition="born > '2020-01-01'", condition_parser="pandas"),
    "a condition on a time without an offset": expectation("expect_column_values_to_be_unique", column="phone", row_condition={"type": "comparison", "column": {"name": "seen"}, "operator": ">", "parameter": "2020-01-01"}),
    "a suite parameter": expectation("expect_column_values_to_be_between", column="age", min_value={"$PARAMETER": "low"}),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_rule_that_cannot_be_meant_is_refused_with_file_and_rule(tmp_path: Path, what: str) -> None:
    path = write(tmp_path, expectation("expect_column_values_to_not_be_null", column="name"), WRONG[what])

    (problem,) = problems(path)

    assert problem.where["file"] == path
    assert str(problem.where["rule"]).startswith(WRONG[what]["type"])
    assert problem.zh and problem.en


def test_all_faults_of_a_suite_are_listed_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, WRONG["an unknown field"], PHONE, WRONG["an unknown type"], PHONE, max_failing_share=2)

    assert len(problems(path)) == 4  # the second PHONE has the name of the first


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"name": "x",\n "expectations": [,]}', 2),
        ("[]", None),
        ('{"name": "x", "rules": []}', None),
        ('{"name": "\\ud83d", "expectations": []}', None),
    ],
)
def test_a_file_that_is_not_a_suite_is_refused(tmp_path: Path, text: str, line: int | None) -> None:
    path = tmp_path / "resident.json"
    path.write_text(text)

    assert problems(path)[0].where.get("line") == line


def test_a_missing_file_is_refused_and_named(tmp_path: Path) -> None:
    assert problems(tmp_path / "none.json")[0].__cause__ is not None


def test_a_rule_of_another_kind_runs_in_great_expectations_itself(tmp_path: Path) -> None:
    strftime = expectation("expect_column_values_to_match_strftime_format", column="phone", strftime_format="%Y%m")
    older = expectation("expect_column_values_to_be_unique", "warning", column="name", row_condition="age > 60", condition_parser="pandas")  # fmt: skip
    moving = rows(
        {"phone": "202601", "name": "甲", "age": 61},
        {"phone": "202613", "name": "甲", "age": 70},
        {"phone": None, "name": "甲", "age": 20},
    )

    verdict = gate(tmp_path, strftime, PHONE, older).check(moving)

    assert "great_expectations" in sys.modules
    assert [(line["row"], line["field"], line["severity"]) for line in verdict.failures.to_pylist()] == [
        (0, "phone", "critical"),
        (0, "name", "warning"),
        (1, "phone", "critical"),
        (1, "phone", "critical"),
        (1, "name", "warning"),
    ]
    assert verdict.failures.column("reason_zh")[0].as_py() == "应合规，现为“202601”"


def test_great_expectations_names_every_failing_row_and_not_only_the_first_two_hundred(tmp_path: Path) -> None:
    rule = expectation("expect_column_values_to_match_strftime_format", column="phone", strftime_format="%Y")

    verdict = gate(tmp_path, rule).check(rows(*[{"phone": "x"}] * 500))

    assert verdict.failures.num_rows == 500


def test_a_rule_without_a_value_to_judge_holds_in_great_expectations(tmp_path: Path) -> None:
    rule = expectation("expect_column_values_to_match_strftime_format", column="phone", strftime_format="%Y")

    assert gate(tmp_path, rule).check(rows({}, {})).failures.num_rows == 0


def test_a_rule_that_great_expectations_cannot_evaluate_is_an_error_and_not_bad_data(tmp_path: Path) -> None:
    broken = {
        "row_condition": "phone.astype('float') > 1",
        "condition_parser": "pandas",
    }  # its message quotes the value
    rule = expectation("expect_column_values_to_not_be_null", column="phone", **broken)

    with pytest.raises(GateError) as raised:
        gate(tmp_path, rule, PHONE).check(rows({"phone": "not json"}))

    assert "not json" not in f"{raised.value!r} {raised.value.__cause__!r}", "an error that is logged quotes no record"
    assert raised.value.where["rule"] == "expect_column_values_to_not_be_null(phone)"
    assert raised.value.where["file"] == tmp_path / "resident.json"


def test_compiled_rules_never_import_great_expectations_nor_pandas(tmp_path: Path) -> None:
    path = write(tmp_path, PHONE)
    program = f"""
import sys
from pathlib import Path
import pyarrow as pa
from federation.contract import Dataset
from federation.gate import Gate
from federation.gate_regex import compile_pattern
dataset = Dataset.model_validate_json({RESIDENT.model_dump_json()!r})
gate = Gate.load(Path({str(path)!r}), dataset)
verdict = gate.check(pa.table({{"resident_id": ["a"], "phone": ["x"]}}))
assert verdict.critical().to_pylist() == [True]
assert not {{"great_expectations", "pandas"}} & set(sys.modules)
assert pa.table({{"a": [1, 2]}}).to_pandas()["a"].sum() == 3, "who wants a frame gets it all the same"
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_the_known_kinds_and_their_arguments_are_those_of_great_expectations() -> None:
    from federation.gate_expectations import batches, quiet
    from federation.gate_kinds import ROW_KINDS

    batches()
    with quiet():
        import great_expectations.expectations.core as core
        from great_expectations.expectations.expectation import BatchExpectation

    known = {
        kind.expectation_type: kind
        for kind in vars(core).values()
        if isinstance(kind, type) and issubclass(kind, BatchExpectation)
    }
    given = {"column", "column_A", "column_B", "column_list", "mostly", "row_condition", "condition_parser"}
    for name, kind in ROW_KINDS.items():
        arguments = {
            word: field.required
            for word, field in known[name].__fields__.items()
            if word not in {*BatchExpectation.__fields__, *given, "library_metadata"}
        }
        assert set(arguments) == {*kind.required, *kind.optional}, name
        assert {word for word, required in arguments.items() if required} <= set(kind.required), name


SAMPLES = {
    "resident": dataset(
        "resident", "resident_id", name="string", id_number="string", gender={"type": "enum", "values": ["男", "女"]}, birth_date="date", address="string",
        community_code="string", phone="string", care_level={"type": "enum", "values": ["无", "一般", "重点"]}, care_note="string", updated_at="timestamp",
    ),
    "work_order": dataset(
        "work_order", "order_no", title="string", content="string", category="string", caller_phone="string", street_code="string", dispatched_at="timestamp",
        status={"type": "enum", "values": ["待办", "办理中", "已办结", "退回"]}, handler="string", result="string", return_reason="string",
    ),
    "visit": dataset(
        "visit", "visit_id", resident_id="string", community_code="string", visited_on="date", visitor="string", summary="string", reply="string", replied_by="string",
    ),
    "facility": dataset(
        "facility", "facility_id", name="string", kind="string", address="string", community_code="string", capacity="int", opened_on="date",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_the_shipped_suites_load_and_are_compiled_throughout(name: str) -> None:
    plans = Gate.load(ROOT / "expectations" / f"{name}.json", SAMPLES[name]).explain()

    assert plans
    assert [plan.rule for plan in plans if plan.runs != "compiled"] == []


GOOD: dict[str, dict[str, Any]] = {
    "resident": {"name": "张三", "id_number": "119900199001010010", "gender": "男", "birth_date": date(1990, 1, 1), "address": "幸福路 1 号", "community_code": "110101001001", "phone": None, "care_level": "无"},
    "work_order": {"title": "路灯不亮", "content": "路灯不亮", "category": "市政", "caller_phone": "13800000000", "street_code": "110101001000", "dispatched_at": datetime(2026, 1, 1, tzinfo=UTC), "status": "待办"},
    "visit": {"resident_id": "a", "community_code": "110101001001", "visited_on": date(2026, 1, 1), "visitor": "李四", "summary": "一切安好"},
    "facility": {"name": "食堂", "kind": "养老", "address": "幸福路 2 号", "community_code": "110101001001", "capacity": 0, "opened_on": None},
}  # fmt: skip
BAD = [
    ("resident", {"phone": "2380000000"}, "phone", "critical"),
    ("resident", {"phone": "１3800000000"}, "phone", "critical"),
    ("resident", {"id_number": "11990019900101001x"}, "id_number", "critical"),
    ("resident", {"id_number": "119900199001010011"}, "id_number", "critical"),
    ("resident", {"birth_date": date(1990, 1, 2)}, "id_number", "warning"),
    ("resident", {"birth_date": date(1026, 1, 1), "id_number": None}, "birth_date", "critical"),
    ("resident", {"birth_date": date(2026, 3, 2), "id_number": None}, "birth_date", "critical"),
    ("resident", {"community_code": "110101001000"}, "community_code", "critical"),
    ("resident", {"community_code": "1101010010"}, "community_code", "critical"),
    ("resident", {"care_level": "重点"}, "care_note", "warning"),
    ("work_order", {"status": "退回"}, "return_reason", "critical"),
    ("work_order", {"status": None}, "status", "critical"),
    ("visit", {"summary": "长" * 501}, "summary", "critical"),
    ("visit", {"summary": None}, "summary", "critical"),
    ("visit", {"resident_id": "b"}, "resident_id", "warning"),
    ("visit", {"visited_on": date(2026, 3, 2)}, "visited_on", "critical"),
    ("work_order", {"street_code": "110101001001"}, "street_code", "critical"),
    ("work_order", {"caller_phone": "12345"}, "caller_phone", "warning"),
    ("work_order", {"dispatched_at": datetime(2026, 3, 2, tzinfo=UTC)}, "dispatched_at", "warning"),
    ("visit", {"reply": "好"}, "replied_by", "warning"),
    ("facility", {"capacity": 100001}, "capacity", "critical"),
    ("facility", {"capacity": -1}, "capacity", "critical"),
]


@pytest.mark.parametrize("name", GOOD)
def test_a_good_record_passes_the_shipped_suite_unmarked(name: str) -> None:
    built = Gate.load(ROOT / "expectations" / f"{name}.json", SAMPLES[name])

    assert (
        built.check(rows(GOOD[name], of=SAMPLES[name]), None, Here(people=frozenset({"a"}))).failures.to_pylist() == []
    )


@pytest.mark.parametrize(("name", "change", "field", "severity"), BAD)
def test_the_shipped_suite_finds_each_fault(name: str, change: dict[str, Any], field: str, severity: str) -> None:
    built = Gate.load(ROOT / "expectations" / f"{name}.json", SAMPLES[name])

    found = built.check(
        rows({**GOOD[name], **change}, of=SAMPLES[name]), None, Here(people=frozenset({"a"}))
    ).failures.to_pylist()

    assert [(line["field"], line["severity"]) for line in found] == [(field, severity)]
