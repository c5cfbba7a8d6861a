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
from tests.federations import E11, Small

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
