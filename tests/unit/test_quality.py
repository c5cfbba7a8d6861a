"""The quality report: what it finds, that it tells no value, what it keeps, and what it refuses."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

from federation import quality_docs, quality_expectations
from federation.cli import app
from federation.errors import DeclarationError, FedsyncError
from federation.gate_kinds import REPORT_KINDS
from federation.ledger.quality import Finding, QualityLog
from federation.quality import INSIDE, READABLE, NodeQuality, examine, regions_of
from federation.quality_expectations import judge
from federation.quality_pages import Site, report
from federation.quality_suite import read_report
from federation.runtime import check
from tests.federations import CITY, E11, E12, E21, EAST, W11, Small
from tests.servers import postgres_url
from tests.unit.quality_sample import FILES, GATE, RESIDENT, WHOLE, filled, found_in, rule, suite, values_of

ROOT = Path(__file__).parents[2]
run = CliRunner()
PHONE = "expect_column_values_to_match_regex(phone)"
ROWS = "expect_table_row_count_to_be_between()"


def reported(small: Small, regions: Sequence[str] | None = None) -> dict[str, NodeQuality]:
    wanted = regions_of(small.federation, "resident") if regions is None else regions
    found = {node.region: node for node in report(small.federation, "resident", wanted)}
    Site(small.federation).publish("resident")
    return found


def counts(node: NodeQuality) -> dict[str, tuple[int, int]]:
    return {found.rule: (found.evaluated, found.failing) for found in node.findings}


def site(small: Small) -> Path:
    return small.folder / "state" / "quality"


def call(small: Small, *words: str) -> tuple[int, Any]:
    result = run.invoke(app, [*words, "--file", str(small.folder), "--json"])
    return result.exit_code, json.loads(result.output)


# what it finds


def test_the_report_counts_what_is_there_as_the_gate_would_judge_it(tmp_path: Path) -> None:
    small = filled(tmp_path)
    gate = small.federation.services.gates["resident"]
    assert gate is not None
    found = reported(small, [CITY, E11])
    for region, node in found.items():
        with small.federation.node("resident", region) as connector:
            rows = connector.changes(None).rows
        failing = gate.check(rows).failures.column("rule").to_pylist()
        gated = {one.name for one in gate.suite.rules if set(one.needs) <= set(rows.column_names)}
        assert {name: count for name, (_, count) in counts(node).items() if name in gated} == {
            name: failing.count(name) for name in gated
        }
        assert not node.errors
    assert counts(found[CITY])[PHONE] == (24, 8)
    assert counts(found[E11])[PHONE] == (8, 8)


def test_the_checks_that_great_expectations_does_not_know_are_counted_as_well(tmp_path: Path) -> None:
    born = rule("expect_column_values_to_not_be_null", column="birth_date")
    born["meta"]["check"] = {"kind": "not_future"}
    place = rule("expect_column_values_to_match_regex", column="community_code", regex="^[0-9]{12}$")
    place["meta"]["check"] = {"kind": "region", "level": "community"}
    small = Small(
        tmp_path, changes={"datasets/resident.yaml": RESIDENT, "expectations/resident.json": suite(born, place)}
    )
    small.put(CITY, "R1", community_code=E11, birth_date=date(1950, 1, 1))
    small.put(CITY, "R2", community_code=E11, birth_date=date(2950, 1, 1))
    small.put(CITY, "R3", community_code=EAST, birth_date=date(1950, 1, 1))
    (node, *_) = report(small.federation, "resident", [CITY])
    found = {name.partition("(")[0]: numbers for name, numbers in counts(node).items()}
    assert not node.errors
    assert found["expect_column_values_to_not_be_null"] == (3, 1)
    assert found["expect_column_values_to_match_regex"] == (3, 1)


def test_a_rule_on_a_field_that_a_level_does_not_see_is_not_evaluated_there(tmp_path: Path) -> None:
    found = reported(filled(tmp_path), [CITY, E11])
    name = "expect_column_values_to_match_regex(id_number)"
    assert name in counts(found[CITY])
    assert name not in counts(found[E11])


def test_a_rule_on_the_whole_table_counts_as_one_and_judges_an_empty_node_too(tmp_path: Path) -> None:
    found = reported(filled(tmp_path), [E11, E21])
    assert counts(found[E11])[ROWS] == (1, 0)
    assert counts(found[E21])[ROWS] == (1, 1)
    assert counts(found[E21])[PHONE] == (0, 0)


def test_rows_that_cannot_be_read_or_lie_outside_are_counted_at_every_node(tmp_path: Path) -> None:
    small = filled(tmp_path)
    small.put(E11, "X1", community_code=E11, care_level="不知道")
    small.put(E11, "X2", community_code=W11, care_level="无")
    found = counts(reported(small, [E11])[E11])
    assert (found[READABLE], found[INSIDE]) == ((10, 1), (9, 1))


def test_a_dataset_without_a_suite_is_counted_without_great_expectations_and_has_an_index(tmp_path: Path) -> None:
    small = filled(tmp_path)
    (node, *_) = report(small.federation, "visit", [CITY])
    assert {found.rule for found in node.findings} == {READABLE, INSIDE}
    Site(small.federation).publish("visit")
    assert {path.name for path in (site(small) / "visit").iterdir()} == {"index.html"}


def test_a_node_that_does_not_answer_stops_no_other_and_keeps_its_last_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = filled(tmp_path)
    reported(small, [E11, E12])
    original = small.federation.node

    def node(dataset: str, region: str) -> Any:
        if region == E11:
            raise FedsyncError("no answer", "无响应")
        return original(dataset, region)

    monkeypatch.setattr(small.federation, "node", node)
    small.clock.now += timedelta(days=3)
    found = reported(small, [E11, E12])
    assert [error.where["region"] for error in found[E11].errors] == [str(small.federation.config.tree[E11])]
    assert counts(found[E12])[PHONE] == (8, 0)
    assert "较早的结果" in (site(small) / "resident" / "index.html").read_text(encoding="utf-8")


def test_a_rule_that_great_expectations_cannot_evaluate_is_an_error_of_its_own_and_quotes_no_value(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    condition = {"row_condition": "address.astype('float') > 1", "condition_parser": "pandas"}  # it quotes an address
    broken = rule("expect_column_values_to_be_unique", column="address", **condition)
    small = filled(tmp_path, **{"expectations/resident.json": suite(broken, *json.loads(GATE)["expectations"])})
    with caplog.at_level(logging.DEBUG):
        node = reported(small, [CITY])[CITY]
    (error,) = node.errors
    assert error.where["rule"] == "expect_column_values_to_be_unique(address)"
    assert (error.__cause__, error.__suppress_context__ or error.__context__ is None) == (None, True)
    assert counts(node)[PHONE] == (24, 8)
    assert found_in(site(small), values_of(small)) == set()
    assert not [value for value in values_of(small) if value in str(error) or value in caplog.text]


# that it tells no value


def test_no_page_holds_a_value_of_any_record_in_any_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality_expectations, "FORM", {"result_format": "COMPLETE"})  # as much as can be told
    small = filled(tmp_path)
    values = values_of(small)
    assert len(values) > 150
    reported(small)
    pages = [path for path in site(small).rglob("*") if path.is_file()]
    assert len(pages) == 2 + 1 + len(small.federation.config.tree)
    assert found_in(site(small), values) == set()


def test_the_same_search_finds_values_on_pages_that_were_not_cleaned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality_docs, "cleaned", _as_great_expectations_left_it)
    monkeypatch.setattr(quality_expectations, "FORM", {"result_format": "COMPLETE"})
    small = filled(tmp_path)
    reported(small, [CITY])
    found = found_in(site(small), values_of(small))
    for example in ("欧阳晓晨·乙", "8355-坏号", "1983-06-27", '文津街 7 号 <乙>&"丙"楼'):
        assert example in found, example


def _as_great_expectations_left_it(judged: Sequence[Any], dataset: str, node: str, at: datetime) -> Any:
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult

    results = [one.result for one in judged if one.result is not None]
    meta = {"run_id": {"run_name": node, "run_time": at.isoformat()}}
    return ExpectationSuiteValidationResult(False, results, dataset, meta=meta, statistics={})


def test_counts_and_reasons_are_what_is_left_on_a_page(tmp_path: Path) -> None:
    small = filled(tmp_path)
    reported(small)
    page = (site(small) / "resident" / f"{CITY}.html").read_text(encoding="utf-8")
    assert "手机号应为 11 位<" in page, "the clause that quotes the value is left out"
    assert "8 条不符合 records fail (≈33.33%)" in page
    index = (site(small) / "resident" / "index.html").read_text(encoding="utf-8")
    assert 'title="8 / 24">33.3%' in index


def test_the_ledger_keeps_counts_only(tmp_path: Path) -> None:
    small = filled(tmp_path)
    reported(small, [CITY])
    with small.federation.services.ledger.engine.connect() as connection:
        lines = [str(tuple(row)) for row in connection.execute(text("SELECT * FROM quality"))]
    assert len(lines) > 10
    assert not [value for value in values_of(small) for line in lines if value in line]


# pages that work anywhere


def test_the_pages_need_nothing_from_elsewhere_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    small = filled(tmp_path)
    reported(small)
    for page in site(small).rglob("*.html"):
        content = page.read_text(encoding="utf-8")
        assert not re.findall(r"https?:|<script|<img|@import|url\(", content), page
        for link in re.findall(r'(?:href|src)="([^"]*)"', content):
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            assert target.is_file(), (page, link)
            assert not anchor or f'id="{anchor}"' in target.read_text(encoding="utf-8"), (page, link)
    assert not re.findall(r"https?:|@import|url\(", (site(small) / "style.css").read_text(encoding="utf-8"))


def test_the_pages_go_to_any_fsspec_location_and_those_of_regions_that_are_no_more_are_dropped(tmp_path: Path) -> None:
    import fsspec

    top = (tmp_path / "one") / "federation.yaml"
    small = filled(tmp_path / "one")
    top.write_text(top.read_text(encoding="utf-8") + "quality: {publish: 'memory://reports'}\n", encoding="utf-8")
    result = run.invoke(app, ["quality", "run", "visit", "--file", str(small.folder)])
    assert result.exit_code == 0, result.output
    memory = fsspec.filesystem("memory")
    assert sorted(memory.find("/reports")) == ["/reports/index.html", "/reports/style.css", "/reports/visit/index.html"]
    memory.pipe_file("/reports/visit/999999999999.html", b"gone")
    run.invoke(app, ["quality", "run", "visit", "--region", E11, "--file", str(small.folder)])
    assert not memory.exists("/reports/visit/999999999999.html")
    memory.rm("/reports", recursive=True)


@pytest.mark.parametrize(
    ("place", "words"), [("nothing://reports", "quality.publish"), ("regions.csv/reports", "rights and space")]
)
def test_a_place_that_takes_no_pages_ends_with_1_and_says_where(tmp_path: Path, place: str, words: str) -> None:
    small = filled(tmp_path, 0)
    top = small.folder / "federation.yaml"
    top.write_text(top.read_text(encoding="utf-8") + f"quality: {{publish: '{place}'}}\n", encoding="utf-8")
    code, told = call(small, "quality", "run", "visit", "--region", E11)
    assert (code, words in told["errors"][0]["todo"]) == (1, True)
    assert told["errors"][0]["file"]


def test_importing_the_report_does_not_import_great_expectations() -> None:
    code = "import sys, federation.quality_pages, federation.cli_quality; print('great_expectations' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert told.stdout.strip() == "False"


# the trend


@pytest.mark.parametrize("server", ["sqlite", "postgresql"])
def test_the_trend_compares_with_the_run_before_and_with_the_last_one_of_30_days_ago(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    if server == "postgresql":
        base = postgres_url()
        engine = create_engine(base.replace("postgresql://", "postgresql+psycopg://", 1), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text("DROP DATABASE IF EXISTS fedsync_quality_test"))
            connection.execute(text("CREATE DATABASE fedsync_quality_test"))
        engine.dispose()
        monkeypatch.setenv("FEDSYNC_LEDGER", base.rsplit("/", 1)[0] + "/fedsync_quality_test")
    small = Small(tmp_path)
    log = QualityLog(small.federation.services.ledger)
    for days, failing in ((70, 50), (40, 40), (2, 10), (0, 15)):
        log.record("resident", E11, [Finding("a", "critical", 100, failing)], small.clock.now - timedelta(days=days))
    log.record("resident", E12, [Finding("a", "critical", 0, 0), Finding("b", "info", 3, 1)], small.clock.now)
    log.record("visit", E11, [Finding("a", "critical", 9, 9)], small.clock.now)
    first, *others = log.trend("resident")
    assert (first.region, first.finding.share, first.change, first.long_change) == (
        E11,
        0.15,
        pytest.approx(0.05),
        pytest.approx(-0.25),
    )
    assert [(t.region, t.finding.rule, t.finding.share, t.change, t.long_change) for t in others] == [
        (E12, "a", 0.0, None, None),
        (E12, "b", pytest.approx(1 / 3), None, None),
    ]
    assert [t.region for t in log.trend("resident", [E12])] == [E12, E12]
    assert log.prune("resident", timedelta(days=60)) == 1
    assert log.prune("resident", timedelta(days=60)) == 0
    small.federation.close()


def test_a_report_forgets_what_is_older_than_it_is_kept(tmp_path: Path) -> None:
    small = filled(tmp_path)
    list(examine(small.federation, "visit", [E11]))
    small.clock.now += timedelta(days=100)
    list(examine(small.federation, "visit", [E12]))
    assert {t.region for t in QualityLog(small.federation.services.ledger).trend("visit")} == {E12}


# the commands


def test_the_report_is_run_and_its_trend_is_told_by_hand(tmp_path: Path) -> None:
    small = filled(tmp_path)
    small.clock.now = datetime.now(UTC)
    code, told = call(small, "quality", "run", "resident", "--region", EAST)
    assert (code, told["ok"], len(told["nodes"])) == (0, True, 6)
    assert Path(told["page"]).is_file()
    for region in (E11, CITY):
        for number in range(24):
            small.drop(region, f"KEY-{number:04d}-Q")
    assert call(small, "quality", "run", "resident", "--region", E11, "--region", E12)[0] == 0
    code, lines = call(small, "quality", "trend", "resident", "--region", E11)
    (line,) = [line for line in lines if line["rule"] == PHONE]
    assert (code, line["share"], line["change"], line["change_30_days"]) == (0, 0.0, -1.0, None)
    shown = run.invoke(app, ["quality", "trend", "resident", "--file", str(small.folder)], env={"COLUMNS": "300"})
    assert "▼100.0" in shown.output
    assert "--all" in shown.output
    assert not [value for value in values_of(small) if value in shown.output]


def test_a_run_shows_the_nodes_where_something_fails_and_counts_the_others(tmp_path: Path) -> None:
    small = filled(tmp_path)
    words = ["quality", "run", "resident", "--region", E11, "--region", E12, "--file", str(small.folder)]
    result = run.invoke(app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "多福巷社区" in result.output
    small = filled(tmp_path / "right", 0, **{"expectations/resident.report.json": suite()})
    result = run.invoke(app, [*words[:-1], str(small.folder)], env={"COLUMNS": "200"})
    assert "2 节点 nodes: 2 全部通过" in result.output


def test_a_run_with_an_unreadable_node_ends_with_1_and_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = filled(tmp_path)
    monkeypatch.setattr("connectors.memory.MemoryConnector.changes", _refused)
    code, told = call(small, "quality", "run", "visit", "--region", E11)
    assert (code, told["ok"]) == (1, False)
    assert E11 in told["errors"][0]["region"]
    plain = run.invoke(app, ["quality", "run", "visit", "--region", E11, "--file", str(small.folder)])
    assert (plain.exit_code, "无响应" in plain.output) == (1, True)


def _refused(*_: object, **__: object) -> None:
    raise FedsyncError("no answer", "无响应")


def test_an_unknown_dataset_or_region_ends_with_1(tmp_path: Path) -> None:
    small = filled(tmp_path, 0)
    assert call(small, "quality", "run", "nothing")[0] == 1
    assert call(small, "quality", "trend", "resident", "--region", "999999999999")[0] == 1


# the report's own suite


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (rule("expect_column_values_to_not_be_null", reason=WHOLE, column="name"), "from the dataset's suite"),
        (rule("unexpected_rows_expectation", reason=WHOLE), "in a database only"),
        (rule("expect_column_type_to_be", reason=WHOLE, column="name"), "types are fixed"),
        (rule("expect_column_pair_cramers_phi_value_to_be_less_than", reason=WHOLE), "unknown expectation type"),
        (rule("expect_column_max_to_be_between", column="birth_date", max_value="2020-01-01"), "no value to show"),
        (rule("expect_table_row_count_to_be_between", min_value=1), "meta.reason.zh"),
        (rule("expect_column_mean_to_be_between", reason=WHOLE, column="name", max_value=1), "is not a number"),
        (rule("expect_column_max_to_be_between", reason=WHOLE, column="nobody", max_value="1"), "no field nobody"),
        (rule("expect_column_max_to_be_between", reason=WHOLE, column="birth_date", max_value=1), "must be dates"),
        (rule("expect_column_max_to_be_between", reason=WHOLE, column="birth_date"), "both missing"),
        (rule("expect_column_min_to_be_between", reason=WHOLE, column="phone", min_value="1"), "neither a number nor"),
        (rule("expect_table_row_count_to_equal", reason=WHOLE, value="many"), "whole number"),
        (rule("expect_table_row_count_to_equal", reason=WHOLE, value=1, mostly=0.9), "mostly"),
        (
            rule("expect_table_row_count_to_equal", reason=WHOLE, value=1, row_condition={"type": "nullity", "column": {"name": "name"}, "is_null": False}),
            "row_condition",
        ),
        (rule("expect_column_distinct_values_to_be_in_set", reason=WHOLE, column="name", value_set="王"), "must be a list"),
        (rule("expect_column_quantile_values_to_be_between", reason=WHOLE, column="income", quantile_ranges={}), "equal length"),
    ],
)  # fmt: skip
def test_check_names_file_and_rule_of_what_is_wrong_in_a_reports_suite(
    tmp_path: Path, wrong: dict[str, Any], words: str
) -> None:
    small = Small(tmp_path, changes=FILES)
    path = small.folder / "expectations/resident.report.json"
    path.write_text(suite(wrong), encoding="utf-8")
    _, problems = check(small.folder)
    told = [problem for problem in problems if words in problem.en]
    assert told, [str(problem) for problem in problems]
    assert (told[0].where["file"], str(told[0].where["rule"]).split("(")[0]) == (path, wrong["type"])
    with pytest.raises(DeclarationError):
        read_report(small.federation.config, small.federation.config.dataset("resident"))


def test_check_refuses_a_reports_suite_that_belongs_to_no_dataset(tmp_path: Path) -> None:
    small = Small(tmp_path, changes={"expectations/residents.report.json": suite()})
    (problem,) = check(small.folder)[1]
    assert "residents" in problem.en


def test_great_expectations_evaluates_every_kind_that_a_reports_suite_may_hold(tmp_path: Path) -> None:
    arguments: dict[str, dict[str, Any]] = {
        "value_set": {"value_set": ["1"]},
        "partition_object": {"partition_object": {"values": ["无"], "weights": [1.0]}, "threshold": 0.1},
        "quantile_ranges": {"quantile_ranges": {"quantiles": [0.5], "value_ranges": [[1, 2]]}},
        "column_list": {"column_list": ["name"]},
        "column_set": {"column_set": ["name"]},
        "value": {"value": 1},
    }
    rules = []
    for name, kind in REPORT_KINDS.items():
        given = next((arguments[word] for word in kind.required if word in arguments), {})
        if not given and "min_value" in kind.optional:
            given = {"min_value": 1}
        field = "care_level" if "kl_divergence" in name else "income"
        rules.append(rule(name, reason=WHOLE, **given, **({"column": field} if kind.domain == "column" else {})))
    small = filled(tmp_path, **{"expectations/resident.report.json": suite(*rules)})
    suite_ = read_report(small.federation.config, small.federation.config.dataset("resident"))
    assert suite_ is not None
    with small.federation.node("resident", CITY) as connector:
        rows = connector.changes(None).rows
    assert isinstance(rows, pa.Table)
    assert [str(one.fault) for one in judge(rows, suite_.rules) if one.fault] == []


def test_the_samples_report_suites_are_valid(tmp_path: Path) -> None:
    listed = sorted((ROOT / "expectations").glob("*.report.json"))
    assert listed
    sample = subprocess.run(
        [sys.executable, "-c", f"from examples.beijing.build import create; from pathlib import Path; create(Path({str(tmp_path / 's')!r}), residents=10)"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert sample.returncode == 0, sample.stderr
    assert check(tmp_path / "s")[1] == []
