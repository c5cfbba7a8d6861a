"""The suites that are shipped, the sample's and the library's: Great Expectations' own files, and right about what they judge."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from federation.gate import Gate
from federation.gate_check import SHAPES
from tests.surroundings import Here
from tests.unit.test_gate import SAMPLES, dataset, rows

ROOT = Path(__file__).parents[2]
LIBRARY = sorted((ROOT / "expectations/library").glob("*.json"))
SHIPPED = sorted((ROOT / "expectations").rglob("*.json"))
ANYTHING = dataset(
    "anything", "key", id_number="string", birth_date="date", gender="string", credit_code="string", org_name="string", mobile="string", landline="string", phone="string",
    phone_again="string", postcode="string", email="string", community_code="string", street_code="string", district_code="string", place_code="string", happened_on="date",
    recorded_at="timestamp", started_on="date", ended_on="date", resident_id="string", facility_id="string", visited_on="date", status="string", result="string",
    return_reason="string", reply="string", replied_by="string", finished_at="timestamp",
)  # fmt: skip
GOOD: dict[str, Any] = {
    "id_number": "119900199001010010", "birth_date": date(1990, 1, 1), "gender": "女", "credit_code": "91350100M000100Y43", "org_name": "某养老驿站", "mobile": "19900001234",
    "landline": "010-65120000", "phone": "65120000", "phone_again": "65120000", "postcode": "100006", "email": "a@example.cn", "community_code": "110101001001",
    "street_code": "110101001000", "district_code": "110101000000", "place_code": "110101001001", "happened_on": date(2026, 3, 1), "recorded_at": datetime(2026, 3, 1, tzinfo=UTC),
    "started_on": date(2026, 1, 1), "ended_on": date(2026, 1, 1), "resident_id": "R1", "facility_id": "R1", "visited_on": date(2026, 1, 1), "status": "已办结", "result": "好",
    "reply": "好", "replied_by": "王", "finished_at": datetime(2026, 3, 1, tzinfo=UTC),
}  # fmt: skip
LATER, OLD = date(2026, 3, 2), date(1026, 3, 1)
BAD: dict[str, list[dict[str, Any]]] = {
    "identity": [{"id_number": "119900199001010011"}, {"id_number": "11990019900101001x"}, {"birth_date": date(1990, 1, 2)}, {"gender": "未知"}, {"birth_date": LATER, "id_number": None}, {"birth_date": OLD, "id_number": None}],
    "organisation": [{"credit_code": "91350100M000100Y44"}, {"credit_code": "91350100M000100O43"}, {"org_name": None}],
    "contact": [{"mobile": "1990000123"}, {"landline": "1651"}, {"phone": "12"}, {"postcode": "10000"}, {"email": "a@b"}],
    "region": [{"community_code": "110101001000"}, {"street_code": "110101001999"}, {"district_code": "1101"}, {"place_code": "110102001001"}],
    "dates": [{"happened_on": LATER}, {"happened_on": OLD}, {"recorded_at": datetime(2026, 3, 1, 9, tzinfo=UTC)}, {"ended_on": date(2025, 12, 31)}],
    "references": [{"resident_id": "R2"}, {"resident_id": None}, {"facility_id": "F9"}],
    "uniqueness": [{"id_number": "held by another"}],
    "cross_field": [{"result": None}, {"status": "退回", "finished_at": None}, {"replied_by": None}, {"status": "待办"}, {"phone_again": "1"}],
}  # fmt: skip


def name_of(path: Path) -> str:
    return path.relative_to(ROOT / "expectations").with_suffix("").as_posix()


def here() -> Here:
    return Here(people=frozenset({"R1"}), values={"id_number": ["held by another"] * 2})


def test_every_theme_of_the_library_has_its_faults_here() -> None:
    assert {path.stem for path in LIBRARY} == set(BAD)


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_a_library_suite_is_compiled_throughout_passes_the_good_and_finds_each_fault(path: Path) -> None:
    gate = Gate.load(path, ANYTHING)
    assert [plan.rule for plan in gate.explain() if plan.runs != "compiled"] == []
    assert gate.check(rows(GOOD, of=ANYTHING), None, here()).failures.to_pylist() == []
    assert gate.check(rows({**GOOD, "phone": "010-65120000", "phone_again": None}, of=ANYTHING), None, here()).failures.num_rows == 0  # fmt: skip

    judged = [gate.check(rows({**GOOD, **fault}, of=ANYTHING), None, here()).failures for fault in BAD[path.stem]]

    assert [found.num_rows for found in judged] == [1] * len(judged)
    assert {line["rule"] for found in judged for line in found.to_pylist()} | {
        "expect_compound_columns_to_be_unique(resident_id, visited_on)"
    } >= {rule.name for rule in gate.suite.rules}
    for line, fault in zip((found.to_pylist()[0] for found in judged), BAD[path.stem]):
        value = fault.get(line["field"])
        assert value is None or str(value)[:10] in line["reason_zh"] + line["reason_en"], (
            "the reason tells what stands there now"
        )


def test_two_visits_on_one_day_are_marked() -> None:
    gate = Gate.load(ROOT / "expectations/library/uniqueness.json", ANYTHING)

    found = gate.check(rows(GOOD, {**GOOD, "id_number": None}, of=ANYTHING), None, here())

    assert [line["severity"] for line in found.failures.to_pylist()] == ["warning", "warning"]


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_suites_say_for_each_check_that_it_runs_here(name: str) -> None:
    gate = Gate.load(ROOT / "expectations" / f"{name}.json", SAMPLES[name], datasets=None)

    assert [rule.check.kind for rule in gate.suite.rules if rule.check] == {
        "resident": ["id_number", "id_number_birth_date", "unique_at_node", "not_future", "region"],
        "visit": ["exists", "region", "not_future"],
        "facility": ["region"],
        "work_order": ["region", "not_future"],
    }[name]


def without_what_great_expectations_adds(suite: dict[str, Any], written: dict[str, Any]) -> dict[str, Any]:
    """Without an id of its own for a rule that has none, notes and its version; with everything that a suite of ours says."""
    rules = [
        {word: told[word] for word in told if told[word] is not None and (word != "id" or "id" in rule)}
        for told, rule in zip(suite["expectations"], written["expectations"], strict=True)
    ]
    meta = {word: value for word, value in suite["meta"].items() if word != "great_expectations_version"}
    return {"name": suite["name"], "meta": meta, "expectations": rules}


def test_every_shipped_suite_round_trips_through_great_expectations_own_loader_unchanged() -> None:
    from federation.gate_expectations import batches, quiet

    batches()
    with quiet():
        from great_expectations.core.expectation_suite import ExpectationSuite, expectationSuiteSchema

        for path in SHIPPED:
            written = json.loads(path.read_text(encoding="utf-8"))
            loaded = ExpectationSuite(**expectationSuiteSchema.load(written))
            again = json.loads(json.dumps(loaded.to_json_dict(), ensure_ascii=False))
            assert without_what_great_expectations_adds(again, written) == written, name_of(path)


def test_a_suite_survives_a_store_of_great_expectations_on_disk(tmp_path: Path) -> None:
    from federation.gate_expectations import batches, quiet

    batches()
    with quiet():
        import great_expectations as gx

        context = gx.get_context(mode="file", project_root_dir=tmp_path)
        folder = tmp_path / "gx/expectations"
        for path in SHIPPED:
            written = json.loads(path.read_text(encoding="utf-8"))
            place = folder / f"{written['name'].replace('.', '/')}.json"  # as its store reads a name
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(path.read_bytes())
            context.suites.get(written["name"]).save()
            kept = json.loads(place.read_text(encoding="utf-8"))
            assert kept != written, "it was written anew"
            assert without_what_great_expectations_adds(kept, written) == written


def test_what_the_page_on_gates_shows_is_a_rule_and_its_table_names_every_check(tmp_path: Path) -> None:
    page = (ROOT / "docs/gates.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    path = tmp_path / "shown.json"
    path.write_text(json.dumps({"name": "shown", "expectations": [json.loads(shown)]}), encoding="utf-8")

    assert [rule.check.kind for rule in Gate.load(path, ANYTHING).suite.rules if rule.check] == ["id_number"]
    assert re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE) == ["kind", *SHAPES]
    assert {path.stem for path in LIBRARY} <= set(re.findall(r"`([a-z_]+)`", page))
