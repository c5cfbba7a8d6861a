"""Workbooks as communities keep them: reading what people did, and writing without disturbing them."""

from __future__ import annotations

import datetime as dt
import io
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from openpyxl import Workbook, load_workbook
from openpyxl.cell.rich_text import CellRichText, TextBlock
from openpyxl.cell.text import InlineFont
from openpyxl.comments import Comment
from openpyxl.styles import PatternFill
from openpyxl.worksheet.table import Table

from connectors.base import no_returns
from connectors.workbook import WorkbookConnector
from federation.errors import Conflict, SchemaMismatch, Transient, Unreadable
from tests.unit.workbook_sample import DATASET, HERE, WHOLE, Person, age, connector, node, put, rejects, stored


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "甲社区" / "居民.xlsx"


def column(sheet: Any, title: str) -> str:
    return next(cell.column_letter for cell in sheet[1] if cell.value == title)


def returned(of: WorkbookConnector, key: str = "R1") -> pa.Table:
    line = {
        "rid": key,
        "locator": "数据!第 2 行",
        "field": "phone",
        "value": "=1",
        "rule": "r",
        "reason_zh": "号码有误",
        "reason_en": "bad",
    }
    return pa.Table.from_pylist([line], no_returns(of.node).schema)


# --- values ---------------------------------------------------------------------------------------------------------


def test_every_type_reads_back_as_it_was_written(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE, {**dict.fromkeys(WHOLE), "rid": "R2", "region": HERE})
    assert stored(book) == {"R1": WHOLE, "R2": {**dict.fromkeys(WHOLE), "rid": "R2", "region": HERE}}


@pytest.mark.parametrize(
    "values",
    [
        {"members": 9_007_199_254_740_993},
        {"members": -(2**63)},
        {"rent": Decimal("12345678901234567890.12")},
        {"rent": Decimal("-0.10")},
        {"area": 0.1 + 0.2},
        {"area": 1e300},
        {"born": dt.date(1899, 12, 31)},
        {"born": dt.date(1903, 5, 4)},
        {"seen": dt.datetime(1990, 9, 15, 16, 30, tzinfo=dt.UTC)},
        {"seen": dt.datetime(1990, 9, 15, 15, 30, tzinfo=dt.UTC)},
        {"seen": dt.datetime(1899, 3, 1, 1, 2, 3, tzinfo=dt.UTC)},
        {"seen": dt.datetime(2026, 3, 1, 15, 59, 59, 999000, tzinfo=dt.UTC)},
        {"name": "甲\x0b乙"},
        {"name": "_x000B_"},
        {"name": "_x4e2d_"},
        {"name": "一行\n二行"},
        {"name": "a\rb"},
        {"name": "#N/A"},
        {"name": "'quoted"},
    ],
)
@pytest.mark.parametrize("suffix", ["xlsx", "csv"])
def test_awkward_values_read_back_unchanged(tmp_path: Path, suffix: str, values: dict[str, Any]) -> None:
    book = connector(tmp_path / f"a.{suffix}")
    put(book, {**WHOLE, **values})
    assert stored(book) == {"R1": {**WHOLE, **values}}


@pytest.mark.parametrize(
    "text", ["=1+1", '=HYPERLINK("http://x","y")', "+861380", "-x", "@SUM(A1)", "'=x", "''x", "1.2E+17"]
)
@pytest.mark.parametrize("suffix", ["xlsx", "csv"])
def test_a_text_that_looks_like_a_formula_stays_a_text(tmp_path: Path, suffix: str, text: str) -> None:
    book = connector(tmp_path / f"a.{suffix}")
    put(book, {**WHOLE, "name": text})
    assert stored(book)["R1"]["name"] == text
    if suffix == "xlsx":
        sheet = load_workbook(book.file.where)["数据"]
        cell = sheet[f"{column(sheet, '姓名')}2"]
        assert cell.value == (f"'{text}" if text == "1.2E+17" else text)
        assert (cell.data_type, cell.quotePrefix) == ("s", cell.value[0] in "=+-@'")
    elif text[0] in "=+-@":
        assert f"'{text[0]}" in Path(book.file.where).read_text("utf-8-sig")


def test_an_id_number_is_a_text_cell_and_keeps_its_digits(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE)
    sheet = load_workbook(path)["数据"]
    cell = sheet[f"{column(sheet, '证件号')}2"]
    assert (cell.value, cell.number_format) == ("110101199001011234", "@")
    letter = column(sheet, "证件号")
    assert sheet.column_dimensions[letter].number_format == "@"


@pytest.mark.parametrize("typed", [110101199001011234, "1.10101E+17", " 1.10101199001011e+17"])
def test_a_long_number_that_the_spreadsheet_rounded_is_rejected_alone(path: Path, typed: int | str) -> None:
    book = connector(path)
    put(book, WHOLE, {**WHOLE, "rid": "R2"})
    with Person(path) as sheet:
        sheet[f"{column(sheet, '证件号')}2"] = typed
    assert list(stored(book)) == ["R2"]
    assert [(r["rid"], r["locator"], r["field"], r["rule"]) for r in rejects(book)] == [
        ("R1", "数据!第 2 行", "idno", "sheet:rounded")
    ]
    assert sorted(book.changes(None).present.column("rid").to_pylist()) == ["R1", "R2"]


@pytest.mark.parametrize("text", ["1.2E+17", "'1.2E+17", "''1.2e+17"])
def test_a_text_that_looks_like_a_rounded_number_but_is_meant_is_written_once(path: Path, text: str) -> None:
    book = connector(path)
    put(book, {**WHOLE, "name": text})
    before = path.read_bytes()
    put(book, {"rid": "R1", "name": text})
    assert stored(book)["R1"]["name"] == text and path.read_bytes() == before


def test_fifteen_digits_are_all_kept_and_a_float_may_be_large(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE)
    with Person(path) as sheet:
        sheet[f"{column(sheet, '证件号')}2"] = 110101900101123
        sheet[f"{column(sheet, '面积')}2"] = "1.1E+17"
    row = stored(book)["R1"]
    assert (row["idno"], row["area"]) == ("110101900101123", 1.1e17)


def test_numbers_and_full_width_digits_that_people_type_are_understood(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE)
    with Person(path) as sheet:
        sheet[f"{column(sheet, '电话')}2"] = 13900000000
        sheet[f"{column(sheet, '证件号')}2"] = "１１０１０１１９９００１０１１２３ｘ"
        sheet[f"{column(sheet, '出生日期')}2"] = "1990年2月3日"
        sheet[f"{column(sheet, '独居')}2"] = "否"
        sheet[f"{column(sheet, '租金')}2"] = 0.1 + 0.2
        sheet[f"{column(sheet, '走访时间')}2"] = dt.datetime(2026, 5, 1, 9, 30)
    row = stored(book)["R1"]
    assert (row["phone"], row["idno"], row["born"]) == ("13900000000", "11010119900101123X", dt.date(1990, 2, 3))
    assert (row["alone"], row["rent"]) == (False, Decimal("0.30"))
    assert row["seen"] == dt.datetime(2026, 5, 1, 1, 30, tzinfo=dt.UTC)


def test_a_formula_is_read_by_its_result_and_rejected_without_one(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE, {**WHOLE, "rid": "R2"})
    with Person(path) as sheet:
        letter = column(sheet, "人数")
        sheet[f"{letter}2"], sheet[f"{letter}3"] = "=1+4", "=1+1"
    rewrite(path, "xl/worksheets/sheet1.xml", b"<f>1+4</f><v />", b"<f>1+4</f><v>5</v>")
    assert {key: row["members"] for key, row in stored(book).items()} == {"R1": 5}
    assert [(r["rid"], r["rule"]) for r in rejects(book)] == [("R2", "sheet:formula")]
    put(book, {"rid": "R1", "name": "李四"})
    assert stored(book)["R1"]["members"] == 5, "our writing must not lose the result of a person's formula"


def test_an_error_value_is_rejected_with_its_place(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE)
    with Person(path) as sheet:
        sheet[f"{column(sheet, '姓名')}2"] = "#REF!"
    assert [(r["rid"], r["field"], r["rule"]) for r in rejects(book)] == [("R1", "name", "sheet:error")]


def test_a_text_too_long_for_a_cell_is_refused_not_cut(path: Path) -> None:
    book = connector(path)
    before = path.read_bytes()
    with pytest.raises(Exception, match="32767"):
        put(book, {**WHOLE, "name": "长" * 40_000})
    assert path.read_bytes() == before


def rewrite(path: Path, part: str, old: bytes, new: bytes) -> None:
    with zipfile.ZipFile(path) as package:
        parts = {name: package.read(name) for name in package.namelist()}
    assert old in parts[part]
    parts[part] = parts[part].replace(old, new)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in parts.items():
            package.writestr(name, content)


# --- rows and columns ----------------------------------------------------------------------------------------------


def test_a_double_key_names_both_rows(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE, {**WHOLE, "rid": "R2"})
    with Person(path) as sheet:
        sheet["A3"] = "R1 "
    assert [(r["rid"], r["locator"], r["rule"]) for r in rejects(book)] == [
        ("R1", "数据!第 2 行", "key:duplicate"),
        ("R1", "数据!第 3 行", "key:duplicate"),
    ]


def test_blank_rows_and_rows_that_hold_only_a_note_are_no_rows(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE, {**WHOLE, "rid": "R2"})
    with Person(path) as sheet:
        sheet.insert_rows(3, 2)
        sheet["B4"] = "   "
        sheet["Z9"] = "合计"
    found = book.changes(None)
    assert found.rows.num_rows == 2 and found.rejects.num_rows == 0
    put(book, {**WHOLE, "rid": "R3"})
    assert load_workbook(path)["数据"]["A10"].value == "R3", "below everything that people wrote"


def test_a_missing_key_column_is_named_with_the_headers_found(path: Path) -> None:
    book = connector(path)
    with Person(path) as sheet:
        sheet["A1"] = "编码"
    with pytest.raises(SchemaMismatch) as caught:
        book.changes(None)
    assert "居民编号" in str(caught.value) and "编码、属地、姓名" in str(caught.value)
    assert caught.value.where["file"] == path and caught.value.where["sheet"] == "数据"


def test_an_own_column_that_vanished_is_an_error_not_thousands_of_blanks(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE)
    with Person(path) as sheet:
        sheet.delete_cols(5)
    with pytest.raises(SchemaMismatch, match="电话"):
        book.changes(None)


def test_a_column_of_another_level_may_be_missing_at_first_and_is_added_at_the_end(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE)
    cursor = book.changes(None).cursor
    with Person(path) as sheet:
        sheet.delete_cols(3)
        sheet["M1"] = "备注"
    assert stored(book)["R1"]["name"] is None
    with pytest.raises(SchemaMismatch, match="姓名"):
        book.changes(cursor)
    put(book, {"rid": "R1", "name": "李四"})
    assert stored(book)["R1"] == {**WHOLE, "name": "李四"}
    sheet = load_workbook(path)["数据"]
    assert [sheet["M1"].value, sheet["N1"].value] == ["备注", "姓名"]


def test_columns_may_stand_in_any_order_under_a_title_and_by_any_of_their_names(tmp_path: Path) -> None:
    path = tmp_path / "own.xlsx"
    theirs = Workbook()
    sheet = theirs.active
    sheet.title = "花名册"
    sheet["B1"] = "甲社区居民花名册"
    sheet.merge_cells("B1:F1")
    headers = ["手机", "居民编号*", "姓 名", "region", "证件\n号", "类型", "独居", "走访时间", "人数", "租金", "面积"]
    for at, text in enumerate(headers, start=2):
        sheet.cell(3, at, text)
        sheet.cell(4, at, {"手机": "1", "居民编号*": "R1", "姓 名": "张三", "region": HERE}.get(text))
    theirs.save(path)
    book = WorkbookConnector(node(path, columns={"phone": "手机"}, sheet="花名册"))
    assert (stored(book)["R1"]["phone"], stored(book)["R1"]["name"]) == ("1", "张三")
    put(book, {"rid": "R1", "phone": "2"})
    again = load_workbook(path)["花名册"]
    assert (again["B4"].value, again["B1"].value, str(again.merged_cells)) == ("2", "甲社区居民花名册", "B1:F1")


def test_a_column_that_stands_twice_is_not_guessed(path: Path) -> None:
    book = connector(path)
    with Person(path) as sheet:
        sheet["N1"] = "姓名"
    with pytest.raises(SchemaMismatch, match="2 次"):
        book.changes(None)


NOTED = [
    "姓名\n(必填)",
    "姓名（必填）",
    "姓名*",
    "*姓名 （必填，请勿简写）",
    "【必填】姓名",
    "姓名 * [选填]",
    "姓名(必填)(格式：汉字)",
    "name (required)",
]


@pytest.mark.parametrize("header", NOTED)
def test_notes_of_how_to_fill_a_column_in_are_no_part_of_its_name_and_stay(path: Path, header: str) -> None:
    book = connector(path)
    put(book, WHOLE)
    with Person(path) as sheet:
        sheet[f"{column(sheet, '姓名')}1"], sheet["A1"] = header, "居民编号（必填）"
    cursor = book.changes(None).cursor
    assert book.changes(cursor).rows.to_pylist() == [WHOLE]
    put(book, {"rid": "R1", "name": "李四"})
    assert stored(book)["R1"]["name"] == "李四" and column(load_workbook(path)["数据"], header)


@pytest.mark.parametrize("header", ["姓名（配偶）", "姓名（配偶，必填）", "姓名（必填", "曾用姓名（必填）"])
def test_what_tells_another_column_apart_is_no_note(path: Path, header: str) -> None:
    book = connector(path)
    put(book, WHOLE)
    with Person(path) as sheet:
        sheet[f"{column(sheet, '姓名')}1"] = header
    assert book.changes(None).missing == {"name"}
    with Person(path) as sheet:
        sheet["N1"], sheet["N2"] = "姓名", "王五"
    assert stored(book)["R1"]["name"] == "王五"


@pytest.mark.parametrize("other", ["姓名（必填）", "姓名*", "【选填】姓名"])
def test_two_columns_that_both_come_out_as_one_are_not_guessed(path: Path, other: str) -> None:
    book = connector(path)
    for header in ("姓名", "姓名\n(必填)"):
        with Person(path) as sheet:
            sheet["C1"], sheet["N1"] = header, other
        with pytest.raises(SchemaMismatch, match="2 次"):
            book.changes(None)


def test_a_label_that_ends_like_a_note_is_taken_as_it_stands_first(path: Path) -> None:
    phone = DATASET.fields["phone"].model_copy(update={"label": "姓名（必填）"})
    book = connector(path, dataset=DATASET.model_copy(update={"fields": {**DATASET.fields, "phone": phone}}))
    put(book, WHOLE)
    assert stored(book) == {"R1": WHOLE}
    with Person(path) as sheet:
        sheet[f"{column(sheet, '姓名（必填）')}1"] = "姓名(必填)（11位）"
    assert stored(book) == {"R1": WHOLE}


# --- what people did stays -----------------------------------------------------------------------------------------


def test_notes_colours_sheets_and_formulas_of_people_survive_our_writing(path: Path) -> None:
    book = connector(path)
    put(book, *({**WHOLE, "rid": f"R{n}"} for n in range(1, 5)))
    with Person(path) as sheet:
        sheet["N1"], sheet["N4"], sheet["O4"] = "备注", "常回访", "=J4*2"
        sheet["A4"].fill = PatternFill("solid", start_color="FFFFFF00")
        sheet["A4"].comment = Comment("看", "我")
        sheet.row_dimensions[4].height = 40
        sheet["P4"] = CellRichText("常", TextBlock(InlineFont(b=True), "回访"))
        sheet.parent.create_sheet("我的表")["A1"] = "勿动"
    put(book, {"rid": "R3", "name": "李四"}, delete=("R1", "R2"))
    again = load_workbook(path, rich_text=True)
    sheet = again["数据"]
    assert isinstance(sheet["P2"].value, CellRichText) and sheet["P2"].value[1].font.b
    assert [sheet[f"A{n}"].value for n in range(1, 5)] == ["居民编号", "R3", "R4", None]
    assert (sheet["C2"].value, sheet["N2"].value, sheet["O2"].value) == ("李四", "常回访", "=J2*2")
    assert sheet["A2"].fill.start_color.rgb == "FFFFFF00" and sheet["A2"].comment.text == "看"
    assert sheet.row_dimensions[2].height == 40
    assert again["我的表"]["A1"].value == "勿动"


def test_a_table_grows_and_shrinks_with_its_rows(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE, {**WHOLE, "rid": "R2"})
    with Person(path) as sheet:
        sheet.add_table(Table(displayName="t", ref="A1:M3"))
    put(book, {**WHOLE, "rid": "R3"})
    assert load_workbook(path)["数据"].tables["t"].ref == "A1:M4"
    put(book, delete=("R1", "R2"))
    assert load_workbook(path)["数据"].tables["t"].ref == "A1:M2"


def test_writing_what_stands_there_already_does_not_touch_the_file(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE)
    before = path.read_bytes()
    put(book, WHOLE, delete=("R9",))
    assert path.read_bytes() == before


def test_only_the_named_columns_are_written(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE)
    put(book, {"rid": "R1", "name": None, "alone": False})
    assert stored(book)["R1"] == {**WHOLE, "name": None, "alone": False}


def test_the_file_keeps_its_mode_and_leaves_no_other_file(path: Path) -> None:
    book = connector(path)
    path.chmod(0o640)
    put(book, WHOLE)
    assert path.stat().st_mode & 0o777 == 0o640
    assert [found.name for found in path.parent.iterdir()] == [path.name]


# --- layout --------------------------------------------------------------------------------------------------------


def test_a_new_workbook_guides_people(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE)
    sheet = load_workbook(path)["数据"]
    assert sheet.freeze_panes == "A2" and sheet["A1"].font.bold and sheet.protection.sheet
    guides = {str(v.sqref): v for v in sheet.data_validations.dataValidation}
    assert guides["F2:F1048576"].formula1 == '"户籍,流动"' and guides["G2:G1048576"].formula1 == '"是,否"'
    assert guides["E2:E1048576"].prompt == "11 位手机号"
    locked = {cell.value: sheet[f"{cell.column_letter}2"].protection.locked for cell in sheet[1]}
    assert locked["姓名"] and locked["证件号"] and not locked["电话"] and not locked["走访时间"]
    assert sheet["C2"].fill.start_color.rgb == "FFEDEDED" and sheet["E2"].fill.fill_type is None
    assert not sheet.column_dimensions["C"].protection.locked, "rows below are open to a level that originates"
    assert (sheet["H2"].number_format, sheet["I2"].number_format) == ("yyyy-mm-dd", "yyyy-mm-dd hh:mm:ss.000")


def test_a_level_that_does_not_originate_finds_other_columns_locked_to_the_bottom(path: Path) -> None:
    connector(path, dataset=DATASET.model_copy(update={"originates": ("street",)}))
    sheet = load_workbook(path)["数据"]
    assert sheet.column_dimensions["C"].protection.locked and not sheet.column_dimensions["E"].protection.locked


def test_a_list_too_long_for_a_cell_rule_stands_on_a_hidden_sheet(path: Path) -> None:
    kind = DATASET.fields["kind"].model_copy(update={"values": tuple(f"类型{n}" for n in range(200))})
    connector(path, dataset=DATASET.model_copy(update={"fields": {**DATASET.fields, "kind": kind}}))
    book = load_workbook(path)
    rules = [v.formula1 for v in book["数据"].data_validations.dataValidation]
    assert (
        "'_选项'!$A$2:$A$201" in rules
        and book["_选项"].sheet_state == "hidden"
        and book["_选项"]["A201"].value == "类型199"
    )


def test_preparing_again_changes_nothing_and_never_replaces_data(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE)
    before = path.read_bytes()
    assert book.prepare() == ()
    assert path.read_bytes() == before


def test_preparing_says_what_it_made(path: Path) -> None:
    book = WorkbookConnector(node(path))
    assert book.prepare() == (f"文件 file {path}",)
    with Person(path) as sheet:
        sheet.delete_cols(sheet.max_column)
    (made,) = book.prepare()
    assert made.startswith("列 columns ") and made.endswith(str(path))


# --- files that cannot be trusted ----------------------------------------------------------------------------------


def test_a_missing_file_is_never_an_empty_node(path: Path) -> None:
    book = connector(path)
    path.unlink()
    for ask in (lambda: book.changes(None), book.probe, lambda: put(book, WHOLE)):
        with pytest.raises(SchemaMismatch, match="fedsync system prepare"):
            ask()


def test_a_missing_sheet_is_named_with_those_found(path: Path) -> None:
    book = connector(path)
    with Person(path) as sheet:
        sheet.title = "Sheet1"
    with pytest.raises(SchemaMismatch, match="Sheet1"):
        book.changes(None)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_half_written_workbook_is_waited_for_and_then_refused(path: Path, keep: float) -> None:
    book = connector(path)
    put(book, WHOLE)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(Transient):
        book.changes(None)
    age(path)
    with pytest.raises(Unreadable, match="另存为"):
        book.changes(None)
    path.with_name(f"~${path.name}").touch()
    with pytest.raises(Transient):
        book.probe()


def test_a_damaged_part_is_unreadable(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(io.BytesIO(content)) as package:
        at = package.getinfo("xl/worksheets/sheet1.xml").header_offset
    content[at + 200 : at + 220] = b"\0" * 20
    path.write_bytes(content)
    age(path)
    with pytest.raises(Unreadable):
        book.changes(None)


def test_a_workbook_with_a_password_says_so(path: Path) -> None:
    book = connector(path)
    container = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600
    path.write_bytes(container + "EncryptedPackage".encode("utf-16-le"))
    with pytest.raises(Unreadable, match="密码"):
        book.changes(None)
    path.write_bytes(container)
    with pytest.raises(Unreadable, match="旧版"):
        book.changes(None)


def test_a_zip_bomb_is_refused_unopened(path: Path) -> None:
    book = connector(path, max_mb=1)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as package:
        package.writestr("xl/media/bomb.bin", b"\0" * (3 << 20))
    with pytest.raises(Unreadable, match="max_mb"):
        book.changes(None)


@pytest.mark.parametrize("lock", ["~$居民.xlsx", ".~lock.居民.xlsx#"])
def test_an_open_workbook_is_read_but_not_written(path: Path, lock: str) -> None:
    book = connector(path)
    put(book, WHOLE)
    before = path.read_bytes()
    path.with_name(lock).touch()
    assert list(stored(book)) == ["R1"]
    with pytest.raises(Transient, match="关闭"):
        put(book, {"rid": "R1", "name": "李四"})
    with pytest.raises(Transient):
        book.show_returns(returned(book))
    assert path.read_bytes() == before
    path.with_name(lock).unlink()
    put(book, {"rid": "R1", "name": "李四"})
    assert stored(book)["R1"]["name"] == "李四"


def test_what_a_person_saved_meanwhile_is_a_conflict(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE)
    cursor = book.changes(None).cursor
    with Person(path) as sheet:
        sheet["E2"] = "139"
    with pytest.raises(Conflict):
        put(book, {"rid": "R1", "name": "李四"}, cursor=cursor)
    assert (stored(book)["R1"]["phone"], stored(book)["R1"]["name"]) == ("139", "张三")


def test_a_save_in_the_last_moment_is_a_conflict_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = connector(path)
    put(book, WHOLE)
    make = book._form.edited

    def slow(*given: Any) -> bytes | None:
        made = make(*given)
        with Person(path) as sheet:
            sheet["E2"] = "139"
        return made

    monkeypatch.setattr(book._form, "edited", slow)
    with pytest.raises(Conflict):
        put(book, {"rid": "R1", "name": "李四"}, cursor=book.changes(None).cursor)
    assert stored(book)["R1"]["phone"] == "139"


# --- returns -------------------------------------------------------------------------------------------------------


def test_returns_appear_on_their_sheet_and_clear(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE)
    book.show_returns(returned(book))
    sheet = load_workbook(path)["退回待改"]
    assert [[cell.value for cell in row] for row in sheet.rows] == [
        ["居民编号", "位置", "字段", "现值", "改为", "原因", "Reason"],
        ["R1", "数据!第 2 行", "电话", "=1", None, "号码有误", "bad"],
    ]
    assert sheet["D2"].data_type == "s"
    book.show_returns(no_returns(book.node))
    assert load_workbook(path).sheetnames == ["数据"]


def test_showing_returns_neither_wakes_the_sweep_nor_spoils_a_cursor(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE)
    token, cursor = book.probe().token, book.changes(None).cursor
    book.show_returns(returned(book))
    assert (book.probe().token, book.changes(None).cursor) == (token, cursor)
    before = path.read_bytes()
    book.show_returns(returned(book))
    assert path.read_bytes() == before, "returns that are shown already are not written again"
    put(book, {"rid": "R1", "name": "李四"}, cursor=cursor)
    assert book.probe().token != token
    assert "退回待改" in load_workbook(path).sheetnames
