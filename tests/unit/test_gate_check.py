"""Checks: what Great Expectations has no kind for, judged by the gate beside the rule that carries it."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from federation import gate_codes
from federation.contract import Dataset
from federation.errors import DeclarationError, GateError, SchemaMismatch
from federation.gate import Gate
from federation.quality import examine
from tests.federations import CITY, E11, E12, E21, EAST, EAST_1, VISIT, Small
from tests.surroundings import Here
from tests.unit.test_gate import dataset, expectation, rows

PERSON = dataset("person", "pid", idno="string", born="date", seen="timestamp", place="string", org="string", friend="string", count="int")  # fmt: skip
REGEX, UNIQUE, BETWEEN = (
    "expect_column_values_to_match_regex",
    "expect_column_values_to_be_unique",
    "expect_column_values_to_be_between",
)


def checked(kind: str, column: str, check: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    rule = expectation(kind, column=column, **kwargs)
    return {**rule, "meta": {**rule["meta"], "check": check}}


def load(folder: Path, *rules: Any, datasets: dict[str, Dataset] | None = None) -> Gate:
    path = folder / "person.json"
    path.write_text(json.dumps({"name": "person", "meta": {}, "expectations": rules}), encoding="utf-8")
    return Gate.load(path, PERSON, datasets=datasets)


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(Small(tmp_path / "small").federation.config.tree, E11)


def failing(gate: Gate, records: list[dict[str, Any]], around: Here | None = None) -> list[bool]:
    return gate.check(rows(*records, of=PERSON), None, around).critical().to_pylist()  # type: ignore[no-any-return]


def id_number(first: str) -> str:
    """GB 11643 as the standard writes it: the sum of digit × 2^place, modulo 11."""
    total = sum(int(digit) * 2 ** (17 - place) for place, digit in enumerate(first))
    return first + "10X98765432"[total % 11]


def is_id_number(text: str) -> bool:
    try:
        date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    return len(text) == 18 and text.isascii() and text[:17].isdigit() and text == id_number(text[:17])


def credit_code(first: str) -> str:
    letters = "0123456789ABCDEFGHJKLMNPQRTUWXY"
    total = sum(letters.index(letter) * 3**place for place, letter in enumerate(first))
    return first + letters[-total % 31]


def test_an_id_number_needs_a_day_there_was_and_its_check_character() -> None:
    chosen = random.Random(1)
    texts = [
        id_number(f"119900{chosen.randrange(1880, 2030)}{chosen.randrange(0, 14):02}{chosen.randrange(0, 33):02}{i:03}")
        for i in range(500)
    ]
    texts += [text[:-1] + "X1"[text[-1] == "X"] for text in texts[:50]]
    texts += [
        "",
        "1",
        "11990019900101001x",
        "１1990019900101001",
        "六个汉字十八字",
        "11010519491231002X",
        "110105200002290016",
    ]

    found = gate_codes.id_numbers(pa.chunked_array([texts[:300], texts[300:], [None]])).to_pylist()

    assert found == [is_id_number(text) for text in texts] + [False]
    assert 50 < sum(found) < len(texts)


def test_a_slice_of_a_column_is_judged_as_its_own_rows() -> None:
    good = id_number("11990019900101001")

    assert gate_codes.id_numbers(pa.array(["x", good, good[:-1] + "?", good, None]).slice(1, 3)).to_pylist() == [
        True,
        False,
        True,
    ]


def test_a_credit_code_needs_its_check_character() -> None:
    chosen = random.Random(2)
    made = [credit_code("".join(chosen.choices("0123456789ABCDEFGHJKLMNPQRTUWXY", k=17))) for _ in range(200)]
    known = ["91350100M000100Y43", "911101083270508400"[:17] + "!", made[0][:-1] + ("0" if made[0][-1] != "0" else "1")]

    found = gate_codes.credit_codes(pa.array([*made, *known, made[0].lower(), None])).to_pylist()

    assert found == [True] * 200 + [True, False, False, made[0].isdigit(), False]


def test_a_row_fails_by_its_shape_or_by_its_check_and_a_null_by_neither(tmp_path: Path) -> None:
    gate = load(tmp_path, checked(REGEX, "idno", {"kind": "id_number"}, regex="^119900"))
    good, other = id_number("11990019900101001"), id_number("11010119900101001")

    assert failing(gate, [{"idno": good}, {"idno": good[:-1] + "?"}, {"idno": other}, {}]) == [False, True, True, False]


def test_a_check_speaks_only_of_the_rows_that_its_condition_picks(tmp_path: Path) -> None:
    rule = checked(
        REGEX, "idno", {"kind": "id_number"}, regex="^.", row_condition="org == 'x'", condition_parser="pandas"
    )

    assert failing(load(tmp_path, rule), [{"idno": "1", "org": "y"}, {"idno": "1", "org": "x"}]) == [False, True]


def test_a_birth_date_agrees_with_the_id_number_beside_it(tmp_path: Path) -> None:
    rule = checked(REGEX, "idno", {"kind": "id_number_birth_date", "birth_date": "born"}, regex="^.")
    rule["meta"]["reason"] = {"zh": "出生日期 {born} 与身份证号不符", "en": "{born} is not in {idno}"}
    gate, number = load(tmp_path, rule), id_number("11990019900102001")

    records = [{"idno": number, "born": date(1990, 1, 2)}, {"idno": number, "born": date(1990, 2, 1)}, {"idno": number}, {"idno": "1", "born": date(1990, 1, 2)}]  # fmt: skip
    assert failing(gate, records) == [False, True, False, False]
    assert (
        gate.check(rows(*records, of=PERSON)).failures.column("reason_zh")[0].as_py()
        == "出生日期 1990-02-01 与身份证号不符"
    )


def test_a_region_exists_in_the_tree_and_stands_on_the_level_asked_for(tmp_path: Path, here: Here) -> None:
    records = [{"place": E21}, {"place": EAST_1}, {"place": "999999999999"}, {}]

    anywhere = load(tmp_path, checked(REGEX, "place", {"kind": "region"}, regex="^[0-9]{12}$"))
    community = load(tmp_path, checked(REGEX, "place", {"kind": "region", "level": "community"}, regex="^[0-9]{12}$"))

    assert failing(anywhere, records, here) == [False, False, True, False]
    assert failing(community, records, here) == [False, True, True, False]


def test_a_region_lies_within_the_lower_end_of_the_link(tmp_path: Path, here: Here) -> None:
    gate = load(tmp_path, checked(REGEX, "place", {"kind": "jurisdiction"}, regex="^[0-9]{12}$"))
    here.region = EAST_1

    assert failing(
        gate, [{"place": E11}, {"place": EAST_1}, {"place": E21}, {"place": EAST}, {"place": CITY}], here
    ) == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_what_lies_in_the_future_is_told_by_the_moment_that_is_passed_in(tmp_path: Path, here: Here) -> None:
    day = load(tmp_path, checked(BETWEEN, "born", {"kind": "not_future"}, min_value="1900-01-01"))
    records = [{"born": date(2026, 3, 1)}, {"born": date(2026, 3, 2)}, {"born": date(1800, 1, 1)}, {}]
    assert failing(day, records, here) == [False, True, True, False]
    here.now += timedelta(days=1)
    assert failing(day, records, here) == [False, False, True, False]
    moment = load(tmp_path, checked("expect_column_values_to_not_be_null", "seen", {"kind": "not_future"}))
    assert failing(moment, [{"seen": here.now}, {"seen": here.now + timedelta(seconds=1)}, {}], here) == [
        False,
        True,
        True,
    ]


def test_a_reference_fails_where_the_other_dataset_has_no_such_record(tmp_path: Path, here: Here) -> None:
    here.people = frozenset({"R1"})
    gate = load(tmp_path, checked(REGEX, "friend", {"kind": "exists", "dataset": "resident"}, regex="^R"))

    assert failing(gate, [{"friend": "R1"}, {"friend": "R2"}, {"friend": "R1"}, {}], here) == [
        False,
        True,
        False,
        False,
    ]


def test_a_value_that_another_record_holds_at_the_node_is_not_unique(tmp_path: Path, here: Here) -> None:
    gate = load(tmp_path, checked(UNIQUE, "idno", {"kind": "unique_at_node"}))
    here.values["idno"] = ["a", "b", "b", "c", "e", "e", "f", "f"]

    records = [{"idno": "a"}, {"idno": "b"}, {"idno": "c"}, {}]
    assert failing(gate, records, here) == [False, True, False, False]


def test_a_check_that_nobody_answers_is_an_error_and_not_a_pass(tmp_path: Path) -> None:
    gate = load(tmp_path, checked(BETWEEN, "born", {"kind": "not_future"}, min_value="1900-01-01"))

    with pytest.raises(GateError) as raised:
        failing(gate, [{"born": date(2026, 1, 1)}])

    assert raised.value.where["rule"] == f"{BETWEEN}(born)[not_future]"


WRONG = {
    "an unknown check": (checked(REGEX, "idno", {"kind": "gb"}, regex="^1"), "known"),
    "a check that is no object": (checked(REGEX, "idno", "id_number", regex="^1"), "known"),  # type: ignore[arg-type]
    "a kind that is no word": (checked(REGEX, "idno", {"kind": ["id_number"]}, regex="^1"), "known"),
    "an unknown word": (checked(REGEX, "idno", {"kind": "id_number", "level": "city"}, regex="^1"), "takes"),
    "a missing word": (checked(REGEX, "friend", {"kind": "exists"}, regex="^1"), "takes"),
    "another kind of rule": (checked(UNIQUE, "idno", {"kind": "id_number"}), "does not go with"),
    "another type of field": (checked(BETWEEN, "count", {"kind": "not_future"}, min_value=1), "is for"),
    "an unknown level": (checked(REGEX, "place", {"kind": "region", "level": "village"}, regex="^1"), "level"),
    "a birth date that is none": (checked(REGEX, "idno", {"kind": "id_number_birth_date", "birth_date": "org"}, regex="^1"), "not a date"),
    "an unknown dataset": (checked(REGEX, "friend", {"kind": "exists", "dataset": "nobody"}, regex="^1"), "no dataset"),
    "a dataset with two key fields": (checked(REGEX, "friend", {"kind": "exists", "dataset": "pairs"}, regex="^1"), "several"),
    "a dataset of fewer levels": (checked(REGEX, "friend", {"kind": "exists", "dataset": "low"}, regex="^1"), "every level"),
    "a condition that is not compiled": (checked(REGEX, "idno", {"kind": "id_number"}, regex="^1", row_condition="count > 1", condition_parser="pandas"), "cannot be left"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_check_that_cannot_be_meant_is_refused_with_file_and_rule(tmp_path: Path, what: str) -> None:
    rule, words = WRONG[what]
    pairs = dataset("pairs", "a", b="string").model_copy(update={"key": ("a", "b")})
    low = dataset("low").model_copy(update={"levels": ("district", "street")})

    with pytest.raises(DeclarationError) as raised:
        load(tmp_path, rule, datasets={"person": PERSON, "pairs": pairs, "low": low})

    (problem,) = raised.value.problems
    assert words in problem.en and problem.zh and problem.where["file"] == tmp_path / "person.json"
    assert str(problem.where["rule"]).startswith(rule["type"])


# ── in a federation ──────────────────────────────────────────────────────────────────────────────────────────

WITH_RESIDENT = VISIT.replace("originates: [community]", "originates: [community]\nsuite: visit.json").replace(
    "  visited_on:", "  resident_id: {label: 居民编号, authority: community}\n  visited_on:"
)


def suite(name: str, *rules: dict[str, Any]) -> str:
    return json.dumps({"name": name, "meta": {}, "expectations": rules}, ensure_ascii=False)


def visited(folder: Path, *rules: dict[str, Any]) -> Small:
    files = {"datasets/visit.yaml": WITH_RESIDENT, "expectations/visit.json": suite("visit", *rules)}
    return Small(folder, changes=files)


def visit(small: Small, key: str, **values: Any) -> None:
    small.put(E11, key, "visit", **{"community_code": E11, "visited_on": "2026-01-01", "summary": "好", **values})


EXISTS = checked("expect_column_values_to_not_be_null", "resident_id", {"kind": "exists", "dataset": "resident"})


def test_a_visit_waits_for_its_resident_and_goes_up_once_that_has_arrived(tmp_path: Path) -> None:
    small = visited(tmp_path, EXISTS)
    visit(small, "V1", resident_id="R1")
    visit(small, "V2", resident_id="R9")
    small.cascade("visit")
    assert small.holders("V1", "visit") == {E11}
    small.put(CITY, "R1", name="张三", community_code=E11)
    small.cascade("resident")

    assert EAST_1 in small.federation.sweep("visit").parents["street"]  # though nobody touched a visit
    small.cascade("visit")

    assert small.holders("V1", "visit") == {CITY, EAST, EAST_1, E11}
    assert small.holders("V2", "visit") == {E11}
    assert [row["visit_id"] for row in small.store(E11, "visit").returns] == ["V2"]
    assert not any(small.federation.sweep("visit").parents.values())


def test_where_the_other_dataset_was_never_synced_nothing_is_there_and_later_a_missing_table_is_an_error(
    tmp_path: Path,
) -> None:
    small = visited(tmp_path, EXISTS)
    visit(small, "V1", resident_id="R1")

    def no_table(dataset: str, region: str, keys: pa.Array) -> pa.Array:
        raise SchemaMismatch("there is no table resident", "没有表 resident")

    present = small.federation.services.present
    small.federation.services = replace(small.federation.services, present=no_table)
    small.cascade("visit")
    assert small.holders("V1", "visit") == {E11}
    (report,) = examine(small.federation, "visit", [E11])
    assert not report.errors and [found.failing for found in report.findings] == [0, 0, 1]
    small.put(CITY, "R1", name="张三", community_code=E11)
    small.cascade("resident")
    (error,) = small.federation.cascade("visit").errors.values()
    assert "no table resident" in str(error)
    (report,) = examine(small.federation, "visit", [E11])
    assert ["no table resident" in str(fault) for fault in report.errors] == [True]

    small.federation.services = replace(small.federation.services, present=present)
    small.cascade("visit")
    assert small.holders("V1", "visit") == {CITY, EAST, EAST_1, E11}


def test_what_was_in_the_future_goes_up_on_its_day_without_anybody_doing_anything(tmp_path: Path) -> None:
    small = visited(tmp_path, checked(BETWEEN, "visited_on", {"kind": "not_future"}, min_value="2000-01-01"))
    visit(small, "V1", visited_on="2026-01-02")  # the clock says 2026-01-01
    small.cascade("visit")
    assert small.holders("V1", "visit") == {E11}
    assert not any(small.federation.sweep("visit").parents.values())

    small.clock.now += timedelta(hours=18)  # 2026-01-02, 02:00 in Beijing
    small.cascade("visit")

    assert small.holders("V1", "visit") == {CITY, EAST, EAST_1, E11}


@pytest.mark.parametrize("capture", ["mixed", "log", "snapshot"])
def test_a_number_that_another_record_holds_at_the_node_does_not_move(tmp_path: Path, capture: str) -> None:
    unique = checked(UNIQUE, "phone", {"kind": "unique_at_node"})
    small = Small(tmp_path, capture, changes={"expectations/resident.json": suite("resident", unique)})
    for key, place in (("R1", E11), ("R2", E12)):
        small.put(CITY, key, name=key, community_code=place)
    small.cascade()
    small.put(E11, "R1", phone="1")
    small.cascade()
    small.put(E12, "R2", phone="1")
    small.cascade()

    assert [(small.get(CITY, key) or {}).get("phone") for key in ("R1", "R2")] == ["1", None]
    small.put(E11, "R1", phone="2")
    small.cascade()
    assert [(small.get(CITY, key) or {}).get("phone") for key in ("R1", "R2")] == ["2", "1"]


def test_records_may_swap_a_unique_value_in_one_run(tmp_path: Path) -> None:
    unique = checked(UNIQUE, "phone", {"kind": "unique_at_node"})
    small = Small(tmp_path, changes={"expectations/resident.json": suite("resident", unique)})
    for key, phone in (("R1", "1"), ("R2", "2")):
        small.put(CITY, key, name=key, community_code=E11, phone=phone)
    small.cascade()
    for key, phone in (("R1", "2"), ("R2", "1")):
        small.put(E11, key, phone=phone)
    small.cascade()

    assert [(small.get(CITY, key) or {}).get("phone") for key in ("R1", "R2")] == ["2", "1"]


def test_a_reference_to_a_dataset_that_is_not_declared_fails_the_check_of_the_declaration(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match="no dataset nobody"):
        visited(tmp_path, checked(REGEX, "resident_id", {"kind": "exists", "dataset": "nobody"}, regex="^R"))
