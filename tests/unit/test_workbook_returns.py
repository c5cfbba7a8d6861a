"""Returned rows are mended in place on 退回待改, and receipts are shown: at the connector, and through the engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook, load_workbook

from connectors.base import no_returns
from connectors.companion import CompanionConnector
from connectors.hosted import HostedConnector
from connectors.workbook import WorkbookConnector
from federation.errors import Conflict, DeclarationError, SchemaMismatch, Transient
from federation.runtime import check
from tests.contract import desk
from tests.contract.sealed import KEY
from tests.federations import CITY, E11, EAST_1, TOP, Small
from tests.unit.test_workbook import returned
from tests.unit.workbook_sample import WHOLE, Person, connector, node, put, rejects, stored

RETURNS, RECEIPTS = "退回待改", "回执"
MEND = "E"
"""The column 改为: behind one key column, 位置, 字段, 现值."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "甲社区" / "居民.xlsx"


@pytest.fixture
def book(path: Path) -> WorkbookConnector:
    """R1's phone `=1` and R2's were handed back."""
    made = connector(path)
    put(made, {**WHOLE, "phone": "=1"}, {**WHOLE, "rid": "R2", "phone": "=1"})
    made.show_returns(returned(made))
    return made


def mend(path: Path, value: Any, row: int = 2) -> None:
    with Person(path, RETURNS) as sheet:
        sheet[f"{MEND}{row}"] = value


def cells(path: Path, title: str = "数据") -> dict[str, Any]:
    sheet = load_workbook(path)[title]
    return {row[0].value: row[4].value for row in sheet.iter_rows(min_row=2)}


# --- mending in place ----------------------------------------------------------------------------------------------


def test_only_what_people_are_to_mend_is_open_and_says_how(path: Path, book: WorkbookConnector) -> None:
    sheet = load_workbook(path)[RETURNS]
    assert [cell.value for cell in sheet[1]] == ["居民编号", "位置", "字段", "现值", "改为", "原因", "Reason"]
    assert sheet.protection.sheet and sheet.freeze_panes == "A2"
    assert [cell.coordinate for cell in sheet[2] if not cell.protection.locked] == ["E2"]
    (hint,) = sheet.data_validations.dataValidation
    assert "正确的值" in hint.prompt and str(hint.sqref) == "E2"


def test_a_mended_value_is_read_as_the_persons_edit_and_wakes_the_sweep(path: Path, book: WorkbookConnector) -> None:
    before, token = book.changes(None), book.probe().token
    mend(path, "13900000000")
    after = book.changes(None)
    assert stored(book)["R1"]["phone"] == "13900000000" and stored(book)["R2"]["phone"] == "=1"
    assert after.cursor != before.cursor and book.probe().token != token
    assert cells(path)["R1"] == "=1", "not in its cell yet"


def test_what_was_mended_goes_into_the_data_sheet_when_the_returns_are_shown_anew(
    path: Path, book: WorkbookConnector
) -> None:
    mend(path, "13900000000")
    book.show_returns(no_returns(book.node))
    assert load_workbook(path).sheetnames == ["数据"]
    assert cells(path) == {"R1": "13900000000", "R2": "=1"} and stored(book)["R1"]["phone"] == "13900000000"


@pytest.mark.parametrize("value", ["1.39E+10", 110101199001011234])
def test_a_mending_that_a_program_rounded_is_not_taken(path: Path, book: WorkbookConnector, value: Any) -> None:
    mend(path, value)
    assert stored(book)["R1"]["phone"] == "=1"
    put(book, {"rid": "R1", "name": "李四"})
    assert cells(path)["R1"] == "=1"


def test_a_return_that_is_still_open_is_shown_with_an_empty_cell_again(path: Path, book: WorkbookConnector) -> None:
    mend(path, "2")
    book.show_returns(returned(book))
    assert cells(path)["R1"] == "2" and cells(path, RETURNS) == {"R1": None}
    before = path.read_bytes()
    book.show_returns(returned(book))
    assert path.read_bytes() == before


def test_what_was_mended_goes_into_the_data_sheet_with_the_next_delivery(path: Path, book: WorkbookConnector) -> None:
    mend(path, "13900000000")
    cursor = book.changes(None).cursor
    put(book, {"rid": "R1", "name": "李四"}, {"rid": "R3", "name": "新"}, cursor=cursor)
    sheet = load_workbook(path)["数据"]
    assert (sheet["E2"].value, sheet["C2"].value, sheet["A4"].value) == ("13900000000", "李四", "R3")
    assert stored(book)["R1"]["phone"] == "13900000000"


def test_a_delivery_decided_before_the_mending_is_refused(path: Path, book: WorkbookConnector) -> None:
    cursor = book.changes(None).cursor
    mend(path, "13900000000")
    with pytest.raises(Conflict):
        put(book, {"rid": "R1", "name": "李四"}, cursor=cursor)


def test_where_both_sheets_were_edited_the_data_sheet_counts(path: Path, book: WorkbookConnector) -> None:
    mend(path, "13900000000")
    with Person(path) as sheet:
        sheet["E2"] = "13700000000"
    assert stored(book)["R1"]["phone"] == "13700000000"
    book.show_returns(no_returns(book.node))
    assert cells(path)["R1"] == "13700000000"


def test_a_value_of_any_kind_may_be_typed_and_is_stored_as_its_kind(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE)
    with Person(path) as sheet:
        sheet["J2"], sheet["H2"] = "三", "不详"
    lines = [
        {
            "rid": "R1",
            "locator": "数据!第 2 行",
            "field": field,
            "value": value,
            "rule": "r",
            "reason_zh": "误",
            "reason_en": "bad",
        }
        for field, value in (("members", "三"), ("born", "不详"))
    ]
    book.show_returns(no_returns(book.node).from_pylist(lines, no_returns(book.node).schema))
    assert [line["rid"] for line in rejects(book)] == ["R1"]
    mend(path, 3, row=2)
    mend(path, "１９９１年２月３日", row=3)
    row = stored(book)["R1"]
    assert row["members"] == 3 and str(row["born"]) == "1991-02-03" and not rejects(book)
    book.show_returns(no_returns(book.node))
    sheet = load_workbook(path)["数据"]
    assert sheet["J2"].value == 3 and sheet["H2"].is_date and stored(book)["R1"] == row


def test_a_mended_value_that_is_still_wrong_is_rejected_again(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE)
    with Person(path) as sheet:
        sheet["J2"] = "三"
    (line,) = rejects(book)
    book.show_returns(no_returns(book.node).from_pylist([line], no_returns(book.node).schema))
    mend(path, "四")
    assert [(found["rid"], found["value"]) for found in rejects(book)] == [("R1", "四")]


def test_a_row_without_a_key_and_a_double_key_are_mended_on_the_data_sheet(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE, {**WHOLE, "rid": "R2"}, {**WHOLE, "rid": "R3"})
    with Person(path) as sheet:
        sheet["A3"], sheet["A4"] = "R1", None
    found = book.changes(None).rejects
    schema = no_returns(book.node).schema
    book.show_returns(no_returns(book.node).from_pylist(found.to_pylist(), schema))
    sheet = load_workbook(path)[RETURNS]
    assert all(cell.protection.locked for row in sheet.iter_rows(min_row=2) for cell in row)


def test_a_mending_for_a_record_that_is_gone_is_forgotten(path: Path, book: WorkbookConnector) -> None:
    mend(path, "139")
    put(book, delete=("R1",))
    assert list(stored(book)) == ["R2"]
    book.show_returns(no_returns(book.node))
    assert list(stored(book)) == ["R2"]


def test_a_sheet_of_peoples_own_of_that_name_is_never_touched(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE)
    for title in (RETURNS, RECEIPTS):
        theirs = load_workbook(path)
        theirs.create_sheet(title)["A1"] = "上月小结"
        theirs.save(path)
    before = path.read_bytes()
    book.show_returns(no_returns(book.node))
    book.show_receipts(desk.receipts(desk.receipt("a1")))
    with pytest.raises(SchemaMismatch, match="改名"):
        book.show_returns(returned(book))
    assert path.read_bytes() == before


def test_receipts_wait_while_somebody_has_the_file_open(path: Path) -> None:
    book = connector(path)
    path.with_name(f"~${path.name}").touch()
    with pytest.raises(Transient):
        book.show_receipts(desk.receipts(desk.receipt("a1")))


def test_a_workbook_that_lacks_columns_shows_returns_and_receipts_all_the_same(tmp_path: Path, path: Path) -> None:
    whole = node(path)
    kept = tuple(name for name in whole.fields if name != "name")
    main = WorkbookConnector(replace(whole, fields=kept))
    side = HostedConnector(
        replace(
            whole,
            fields=("rid", "name"),
            options={"url": f"sqlite:///{tmp_path / 'h.db'}", "part": "companion", "keys": (KEY,)},
        )
    )
    both = CompanionConnector(whole, main, side)
    both.prepare()
    assert both.capabilities.receipts and both.capabilities.returns
    both.show_receipts(desk.receipts(desk.receipt("a1")))
    assert load_workbook(path)[RECEIPTS]["B2"].value == "收到"
    both.close()


def declared(folder: Path, access: str) -> Path:
    """A declaration whose community keeps its workbook on an SFTP server."""
    books = f"  books: {{connector: workbook, options: {{path: 'sftp://127.0.0.1/a.xlsx', access: {access}}}}}\n"
    top = TOP.format(prefix=folder, city="log", district="log", street="log", community="log")
    node_of = f"nodes:\n  - {{system: books, regions: ['{E11}'], datasets: {{resident: {{}}}}}}\n"
    Small(folder, changes={"federation.yaml": top.replace("nodes:\n", books + node_of)})
    return folder


def test_who_we_are_is_a_reference_and_is_checked_with_the_declaration(tmp_path: Path) -> None:
    given = {
        "{user: me, password: {env: NOT_SET_HERE}}": 0,
        "{password: {env: NOT_SET_HERE}}": 1,
        "{key: {env: NOT_SET_HERE}, secret: {env: NOT_SET_HERE}}": 1,
    }
    with pytest.raises(DeclarationError, match="明文"):
        declared(tmp_path, "{user: me, private_key: plain}")
    for access, faults in given.items():
        _, problems = check(declared(tmp_path, access))
        assert len(problems) == faults, (access, problems)


# --- through the engine --------------------------------------------------------------------------------------------


class Ledger:
    """多福巷社区 keeps its residents in a workbook; all other regions have databases."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "居民.xlsx"
        captures = {"city": "log", "district": "cursor", "street": "log", "community": "log"}
        top = TOP.format(prefix=folder, **captures)
        books = "  books: {connector: workbook, options: {path: '{home}/居民.xlsx'}}\n"
        top = top.replace(
            "nodes:\n", f"{books}nodes:\n  - {{system: books, regions: ['{E11}'], datasets: {{resident: {{}}}}}}\n"
        )
        for level in ("city", "district", "street", "community"):
            top += f"  - {{system: {level}, level: {level}, datasets: {{resident: {{}}, visit: {{}}}}}}\n"
        self.small = Small(folder, changes={"federation.yaml": top})
        for number in range(1, 4):
            self.small.resident(f"R{number}", E11)
        self.run()

    def run(self) -> None:
        self.small.clock.now += self.small.clock.now.resolution * 3_600_000_000
        self.small.cascade()

    def sheet(self, title: str) -> list[list[Any]]:
        found = load_workbook(self.path)
        return (
            [list(row) for row in found[title].iter_rows(min_row=2, values_only=True)]
            if title in found.sheetnames
            else []
        )

    def phone(self, row: int, value: str) -> None:
        with Person(self.path) as sheet:
            column = next(cell.column for cell in sheet[1] if cell.value == "手机号")
            cell = sheet.cell(row, column)
            cell.value, cell.data_type = value, "s"

    def phones(self) -> list[Any]:
        sheet = load_workbook(self.path)["数据"]
        column = next(cell.column for cell in sheet[1] if cell.value == "手机号")
        return [sheet.cell(row, column).value for row in range(2, sheet.max_row + 1)]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def test_what_was_returned_is_mended_on_its_sheet_and_reaches_the_city(ledger: Ledger) -> None:
    ledger.phone(3, "1380000")
    ledger.run()
    ((key, _, field, shown, mended, reason, _),) = ledger.sheet(RETURNS)
    assert (key, field, shown, mended) == ("R2", "手机号", "1380000", None) and "11 位" in reason
    with Person(ledger.path, RETURNS) as sheet:
        sheet["E2"] = "13922222222"
    ledger.run()
    ledger.run()
    assert ledger.small.get(CITY, "R2")["phone"] == "13922222222"  # type: ignore[index]
    assert ledger.sheet(RETURNS) == [] and ledger.phones()[1] == "13922222222"
    before = ledger.path.read_bytes()
    ledger.run()
    assert ledger.path.read_bytes() == before


def test_receipts_tell_what_came_and_went_and_quiet_runs_write_nothing(ledger: Ledger) -> None:
    ((at, way, other, written, deleted, run),) = ledger.sheet(RECEIPTS)
    assert (way, written, deleted) == ("收到", "3", "0") and "东华门" in other and EAST_1 in other
    assert at.startswith("2026-01-01 ") and len(run) == 32
    before = ledger.path.read_bytes()
    ledger.run()
    ledger.run()
    assert ledger.path.read_bytes() == before
    ledger.phone(2, "13911111111")
    ledger.run()
    assert [(line[1], line[3]) for line in ledger.sheet(RECEIPTS)] == [("送出", "1"), ("收到", "3")]


def test_a_workbook_left_open_still_hands_up_its_edits_and_shows_the_receipt_later(ledger: Ledger) -> None:
    ledger.phone(2, "13911111111")
    lock = ledger.path.with_name(f"~${ledger.path.name}")
    lock.touch()
    ledger.run()
    assert ledger.small.get(CITY, "R1")["phone"] == "13911111111"  # type: ignore[index]
    assert len(ledger.sheet(RECEIPTS)) == 1
    lock.unlink()
    ledger.run()
    assert [line[1] for line in ledger.sheet(RECEIPTS)] == ["送出", "收到"]


def test_no_more_than_fifty_receipts_are_shown(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federation.receipts.LONGEST", 2)
    monkeypatch.setattr("federation.receipts.receipts_of.__defaults__", (2,))
    for number in range(3):
        ledger.phone(2, f"1391111111{number}")
        ledger.run()
    assert [line[1] for line in ledger.sheet(RECEIPTS)] == ["送出", "送出"]


def test_a_people_made_workbook_is_taken_as_it_is(tmp_path: Path) -> None:
    book = Workbook()
    book.active.title = "数据"
    book.save(tmp_path / "居民.xlsx")
    ledger = Ledger(tmp_path)
    assert len(ledger.phones()) == 3 and len(ledger.sheet(RECEIPTS)) == 1
