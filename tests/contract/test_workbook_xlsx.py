"""An xlsx workbook keeps the contract, wherever it lies: people work in it with a spreadsheet program."""

from __future__ import annotations

import io
from datetime import datetime
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import pytest
from openpyxl import load_workbook

from connectors.base import Connector
from connectors.workbook import WorkbookConnector
from federation.contract import Dataset
from federation.errors import SchemaMismatch, Transient
from tests.contract import desk
from tests.contract.dataset import make_node
from tests.contract.suite import ConnectorContract, Row
from tests.stores import PLACES, Place

SHEET = "数据"
DESK = "校核"
RECEIPTS = "回执"
RETURNS = "退回待改"
TITLES = ("类型", "字段", "现值", "建议值", "提出单位", "提出时间", "处理期限", "状态", "说明", "裁定", "裁定理由")
SHOWN = (
    "kind",
    "field",
    "current",
    "proposed",
    "raised_by",
    "raised",
    "due",
    "state",
    "reason",
    "ruling",
    "ruling_reason",
)
KINDS = {"修改": "edit", "新增": "create", "删除": "delete"}
STATES = {
    "待裁定": "waiting",
    "逾期": "overdue",
    "流转中": "travelling",
    "已采纳": "accepted",
    "未采纳": "rejected",
    "已失效": "superseded",
    "已撤回": "withdrawn",
}


NAME = "台账.xlsx"


def returns_row(dataset: Dataset, line: Row) -> Row:
    """A line of the sheet, or of the file, of returns as `tests.contract.desk.return_seen` has it."""
    keys = {key: str(line[dataset.fields[key].label]) for key in dataset.key}
    return keys | {"reason_zh": line["原因"], "reason_en": line["Reason"]}


class Workbook(ConnectorContract):
    """People open the file, change it, and save it where it was."""

    kind: ClassVar[str]
    place: Place

    def start(self) -> None:
        self.place = PLACES[self.kind](self.folder)

    def connector(self) -> Connector:
        return WorkbookConnector(make_node(self.dataset, self.place.options(NAME)))

    def open(self, **words: Any) -> Any:
        return load_workbook(io.BytesIO(self.place.read(NAME)), **words)

    def save(self, book: Any) -> None:
        out = io.BytesIO()
        book.save(out)
        self.place.write(NAME, out.getvalue())

    def people_write(self, rows: list[Row]) -> None:
        book = self.open()
        sheet = book[SHEET]
        columns = self._columns(sheet)
        lines = {self._key(values): number for number, values in self._lines(sheet)}
        below = max(lines.values(), default=1)
        for values in rows:
            key = tuple(values[name] for name in self.dataset.key)
            number = lines.get(key)
            if number is None:
                number = below = below + 1
                lines[key] = number
            for name, value in values.items():
                cell = sheet.cell(number, columns[name])
                cell.value = _typed_in(value)
                if isinstance(value, str):
                    cell.data_type = "s"
        self.save(book)

    def people_delete(self, key: Row) -> None:
        book = self.open()
        sheet = book[SHEET]
        (number,) = [at for at, values in self._lines(sheet) if self._key(values) == tuple(key.values())]
        sheet.delete_rows(number)
        self.save(book)

    def stored(self) -> list[Row]:
        book = self.open(data_only=True)
        return [values for _, values in self._lines(book[SHEET])]

    def people_see_corrections(self) -> dict[str, Row]:
        book = self.open()
        if DESK not in book.sheetnames:
            return {}
        _, *lines = book[DESK].iter_rows()
        assert all(cell.value is None or cell.data_type == "s" for line in lines for cell in line), "all is text"
        names = ["correction_id", *self.dataset.key, *SHOWN]
        found = [dict(zip(names, ("" if cell.value is None else cell.value for cell in line))) for line in lines]
        return {
            line.pop("correction_id"): {**line, "kind": KINDS[line["kind"]], "state": STATES[line["state"]]}
            for line in found
        }

    def people_rule(self, correction_id: str, ruling: str, reason: str | None) -> None:
        book = self.open()
        (line,) = [cells for cells in book[DESK].iter_rows() if cells[0].value == correction_id]
        for cell, text in zip(line[-2:], (ruling, reason)):
            cell.value = text
            if text is not None:
                cell.data_type = "s"
        self.save(book)

    def people_see_returns(self) -> list[Row]:
        book = self.open()
        if RETURNS not in book.sheetnames:
            return []
        header, *lines = book[RETURNS].iter_rows(values_only=True)
        return [returns_row(self.dataset, dict(zip(header, line))) for line in lines]

    def people_see_receipts(self) -> list[Row]:
        book = self.open()
        if RECEIPTS not in book.sheetnames:
            return []
        header, *lines = book[RECEIPTS].iter_rows(values_only=True)
        assert header == ("时间", "收发", "对方", "写入行数", "删除行数", "批次")
        return [dict(zip(("at", "way", "other", "written", "deleted", "run_id"), line)) for line in lines]

    def desk_place(self) -> object:
        return self.place.read(NAME)

    def _columns(self, sheet: Any) -> dict[str, int]:
        titles = {cell.value: cell.column for cell in sheet[1]}
        return {name: titles[spec.label] for name, spec in self.dataset.fields.items()}

    def _lines(self, sheet: Any) -> list[tuple[int, Row]]:
        """Row number and values by field of each row that is not blank."""
        columns = self._columns(sheet)
        found = []
        for number, cells in enumerate(sheet.iter_rows(min_row=2, values_only=True), start=2):
            if any(cell is not None for cell in cells):
                found.append((number, {name: cells[at - 1] for name, at in columns.items()}))
        return found

    def _key(self, values: Row) -> tuple[Any, ...]:
        return tuple(values[name] for name in self.dataset.key)


class TestWorkbookOnSftp(Workbook):
    kind = "sftp"


class TestWorkbookInAnObjectStore(Workbook):
    kind = "s3"


class TestWorkbook(Workbook):
    kind = "local"

    def test_the_desk_is_a_sheet_with_a_list_to_choose_from_and_only_that_is_open(self) -> None:
        self.show(
            desk.line("a1", "R1"), desk.line("b2", "R2", state="accepted"), desk.line("c3", "R3", state="overdue")
        )
        book = self.open()
        assert book.sheetnames == [SHEET, DESK]
        sheet = book[DESK]
        assert [cell.value for cell in sheet[1]] == ["编号", "编号", *TITLES]
        assert sheet.freeze_panes == "A2" and sheet["A1"].font.bold and sheet.column_dimensions["A"].width > 32
        (choice,) = sheet.data_validations.dataValidation
        assert (choice.type, choice.formula1, str(choice.sqref)) == ("list", '"采纳,不采纳"', "L2 L4")
        assert sheet.protection.sheet and {cell.number_format for line in sheet["A2:M4"] for cell in line} == {"@"}
        opened = [cell.coordinate for line in sheet["A2:M4"] for cell in line if not cell.protection.locked]
        assert opened == ["L2", "M2", "L4", "M4"]

    def test_rulings_are_found_after_people_sorted_the_rows_and_moved_columns(self) -> None:
        self.show(desk.line("a1", "R1"), desk.line("b2", "R2"))
        self.people_rule(desk.name("b2"), "采纳", "好")
        book = self.open()
        sheet = book[DESK]
        lines = [[cell.value for cell in line] for line in sheet.iter_rows()]
        sheet.delete_rows(1, 3)
        for line in (["我的备注"], [*lines[0], "备注"], [*lines[2], "看过"], lines[1]):
            sheet.append([None, *line])
        self.save(book)
        before = self.place.read(NAME)
        assert self.told() == {desk.name("b2"): ("accept", "好")}
        self.show(desk.line("a1", "R1"), desk.line("b2", "R2"))
        assert self.place.read(NAME) == before

    def test_a_correction_that_people_copied_and_ruled_on_both_ways_is_not_ruled_on(self) -> None:
        self.show(desk.line("a1", "R1"))
        book = self.open()
        line = [cell.value for cell in book[DESK][2]]
        for ruling in ("采纳", "不采纳"):
            book[DESK].append([*line[:-2], ruling, None])
        self.save(book)
        assert self.told() == {}
        self.show(desk.line("a1", "R1"))
        assert self.told() == {}, "one row again, and none of the two words was taken for the right one"
        assert self.people_see_corrections() == {desk.name("a1"): desk.seen(self.dataset, desk.line("a1", "R1"))}

    def test_a_ruling_in_a_copied_row_stays_when_the_rows_become_one(self) -> None:
        self.show(desk.line("a1", "R1"))
        book = self.open()
        book[DESK].append([*(cell.value for cell in book[DESK][2][:-2]), "同意", "核对过"])
        self.save(book)
        self.show(desk.line("a1", "R1"))
        assert self.told() == {desk.name("a1"): ("accept", "核对过")}

    def test_a_sheet_of_peoples_own_by_that_name_is_never_touched(self) -> None:
        book = self.open()
        book.create_sheet(DESK)["A1"] = "上月校核小结"
        self.save(book)
        before = self.place.read(NAME)
        self.show()
        with pytest.raises(SchemaMismatch, match="编号"):
            self.show(desk.line("a1", "R1"))
        assert self.place.read(NAME) == before

    def test_the_desk_is_not_written_while_somebody_has_the_file_open(self) -> None:
        before = self.place.read(NAME)
        self.place.write(f"~${NAME}", b"")
        with pytest.raises(Transient):
            self.show(desk.line("a1", "R1"))
        assert self.place.read(NAME) == before and not self.told()

    def test_a_text_too_long_for_a_cell_is_cut_and_says_so(self) -> None:
        self.show(desk.line("a1", "R1", proposed="长" * 40_000))
        shown = self.people_see_corrections()[desk.name("a1")]["proposed"]
        assert len(shown) == 32_767 and "全文过长" in shown
        before = self.place.read(NAME)
        self.show(desk.line("a1", "R1", proposed="长" * 40_000))
        assert self.place.read(NAME) == before


def _typed_in(value: Any) -> Any:
    """As people type it: a moment is the wall clock's."""
    if isinstance(value, datetime):
        return value.astimezone(ZoneInfo("Asia/Shanghai")).replace(tzinfo=None)
    return value
