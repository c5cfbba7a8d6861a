"""`fedsync quarantine export`: a table for people, without what records hold unless that is asked for."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from openpyxl import load_workbook
from typer.testing import CliRunner

from federation.cli import app
from federation.quarantine_export import CONTENTS, HEADS
from tests.federations import E11, WEST_1, Small

run = CliRunner()
FORMULA = '=HYPERLINK("http://evil.example","点我")'


@pytest.fixture
def small(tmp_path: Path) -> Small:
    made = Small(tmp_path)
    for key in ("R1", "=R2", "R3"):
        made.resident(key, name=f"姓名{key}", phone="13900000001")
    made.cascade()
    made.put(E11, "R1", phone=FORMULA)
    made.put(E11, "=R2", phone="12\x07")
    made.put(E11, "R3", community_code="110102001001")
    made.cascade()
    return made


def call(small: Small, *words: str) -> tuple[int, str]:
    result = run.invoke(app, ["quarantine", "export", *words, "--file", str(small.folder)])
    return result.exit_code, result.output


def from_csv(path: Path) -> list[list[str]]:
    assert path.read_bytes().startswith(b"\xef\xbb\xbf"), "or a spreadsheet takes it for GB 18030"
    with path.open(encoding="utf-8-sig", newline="") as lines:
        return list(csv.reader(lines))


def test_a_table_tells_where_which_rule_why_since_when_and_nothing_that_a_record_holds(small: Small) -> None:
    target = small.folder / "out.csv"
    code, text = call(small, str(target), "--json")
    heads, *found = from_csv(target)

    assert (code, json.loads(text)["lines"], tuple(heads)) == (0, len(found), HEADS)
    by_key = {line[heads.index("主键 key")]: dict(zip(heads, line)) for line in found}
    line = by_key["R1"]
    assert (line["数据集 dataset"], line["区划 region"], line["区划代码 region code"]) == (
        "居民 resident",
        "多福巷社区",
        E11,
    )
    assert (line["字段 field"], line["方向 direction"], line["状态 state"]) == ("手机号 phone", "上报 up", "待改 open")
    assert line["原因 reason (zh)"] == "手机号应为 11 位数字，现为“…”"
    assert line["首次发现 first seen"].startswith("2026-01-01 08:00:")
    assert by_key["'=R2"]["规则 rule"] == "expect_column_values_to_match_regex(phone)"
    written = target.read_text(encoding="utf-8")
    assert "HYPERLINK" not in written and "姓名" not in written
    assert target.stat().st_mode & 0o077 == 0


def test_contents_are_written_only_when_asked_for_and_run_no_formula(small: Small) -> None:
    target = small.folder / "out.csv"
    assert call(small, str(target), "--with-values", "--dataset", "resident")[0] == 0
    heads, *found = from_csv(target)
    rows = [dict(zip(heads, line)) for line in found]

    assert tuple(heads) == (*HEADS, *CONTENTS)
    (line,) = [row for row in rows if row["主键 key"] == "R1"]
    assert line["现值 value"] == f"'{FORMULA}"
    assert json.loads(line["记录 record"])["phone"] == FORMULA
    assert FORMULA in line["原因 reason (zh)"]
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in found for cell in row)


def test_a_workbook_holds_texts_and_no_formula(small: Small) -> None:
    target = small.folder / "out.XLSX"
    assert call(small, str(target), "--with-values", "--region", E11)[0] == 0

    sheet = load_workbook(target)["隔离"]

    cells = [cell for row in sheet.iter_rows() for cell in row if cell.value is not None]
    assert {cell.data_type for cell in cells} == {"s"}
    assert FORMULA in {cell.value for cell in cells}
    assert "12\ufffd" in {cell.value for cell in cells}, "a control character would make the file unreadable"


def test_each_export_leaves_a_line_in_the_audit_trail_that_says_whether_values_left(small: Small) -> None:
    call(small, str(small.folder / "a.csv"))
    call(small, str(small.folder / "b.csv"), "--with-values", "--state", "open")

    with small.federation.services.ledger.transaction() as connection:
        statement = "SELECT subject, detail FROM audit WHERE action = 'quarantine.export' ORDER BY audit_id"
        found = [(name, json.loads(detail)["values"]) for name, detail in connection.exec_driver_sql(statement)]
    assert found == [("a.csv", False), ("b.csv", True)]


@pytest.mark.parametrize(
    ("name", "words", "code"),
    [
        ("out.pdf", "cannot write", 1),
        ("datasets/resident.yaml", "cannot write", 1),
        ("there.csv", "exists", 1),
        ("none/out.csv", "cannot be written", 1),
    ],
)
def test_a_target_that_will_not_do_is_refused(small: Small, name: str, words: str, code: int) -> None:
    (small.folder / "there.csv").write_text("mine")

    assert call(small, str(small.folder / name))[0] == code
    assert words in " ".join(call(small, str(small.folder / name))[1].split())
    assert (small.folder / "there.csv").read_text() == "mine"


def test_an_unknown_state_is_a_matter_of_usage(small: Small) -> None:
    assert call(small, str(small.folder / "out.csv"), "--state", "lost")[0] == 2


def test_what_is_neither_declared_nor_set_aside_is_no_empty_answer(small: Small) -> None:
    for words in (("--dataset", "residents"), ("--region", "42")):
        assert call(small, str(small.folder / "out.csv"), *words)[0] == 1
        assert run.invoke(app, ["quarantine", "list", *words, "--file", str(small.folder)]).exit_code == 1
    assert not (small.folder / "out.csv").exists()
    assert call(small, str(small.folder / "out.csv"), "--region", WEST_1)[0] == 0, "there is nothing of that region"


def test_what_was_set_aside_of_a_region_or_dataset_that_is_declared_no_more_is_told_all_the_same(small: Small) -> None:
    regions = small.folder / "regions.csv"
    kept = [line for line in regions.read_text(encoding="utf-8").splitlines() if not line.startswith(E11)]
    regions.write_text("\n".join(kept) + "\n", encoding="utf-8")
    assert call(small, str(small.folder / "region.csv"), "--region", E11)[0] == 0
    heads, *found = from_csv(small.folder / "region.csv")
    assert {dict(zip(heads, line))["区划代码 region code"] for line in found} == {E11}

    (small.folder / "datasets/resident.yaml").unlink()
    top = small.folder / "federation.yaml"
    top.write_text(top.read_text(encoding="utf-8").replace("resident: {}, ", ""), encoding="utf-8")
    assert call(small, str(small.folder / "dataset.csv"), "--with-values", "--dataset", "resident")[0] == 0
    heads, *found = from_csv(small.folder / "dataset.csv")
    assert {dict(zip(heads, line))["数据集 dataset"] for line in found} == {"resident"}
    told = run.invoke(app, ["quarantine", "list", "--json", "--file", str(small.folder)])
    assert (told.exit_code, len(json.loads(told.output))) == (0, len(found))
