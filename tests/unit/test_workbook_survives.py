"""What people put into a workbook survives the engine's writing: pictures, shapes, charts, macros, notes, formulas, other sheets."""

from __future__ import annotations

import datetime as dt
import io
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openpyxl import Workbook, load_workbook
from openpyxl.chart import BarChart, Reference
from openpyxl.comments import Comment
from openpyxl.workbook.defined_name import DefinedName
from openpyxl.worksheet.datavalidation import DataValidation

from connectors.base import no_returns
from connectors.workbook import WorkbookConnector
from federation.errors import Permanent, SchemaMismatch, Transient, Unreadable
from tests.contract import desk
from tests.unit.test_workbook import returned, rewrite
from tests.unit.workbook_sample import DATASET, HERE, WHOLE, Person, age, connector, node, put, rejects, stored

SHAPE = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<xdr:wsDr xmlns:xdr="http://schemas.openxmlformats.org/drawingml/2006/spreadsheetDrawing" xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main">
<xdr:twoCellAnchor><xdr:from><xdr:col>14</xdr:col><xdr:colOff>0</xdr:colOff><xdr:row>3</xdr:row><xdr:rowOff>0</xdr:rowOff></xdr:from>
<xdr:to><xdr:col>16</xdr:col><xdr:colOff>0</xdr:colOff><xdr:row>5</xdr:row><xdr:rowOff>0</xdr:rowOff></xdr:to>
<xdr:sp macro="" textlink=""><xdr:nvSpPr><xdr:cNvPr id="2" name="箭头"/><xdr:cNvSpPr/></xdr:nvSpPr><xdr:spPr><a:prstGeom prst="rightArrow"><a:avLst/></a:prstGeom></xdr:spPr></xdr:sp>
<xdr:clientData/></xdr:twoCellAnchor></xdr:wsDr>"""
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
DRAWN = "application/vnd.openxmlformats-officedocument.drawing+xml"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "甲社区" / "居民.xlsx"


def parts(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as package:
        return {name: package.read(name) for name in package.namelist()}


def seen(path: Path) -> Any:
    """The workbook as a program shows it, one that says what it does not know."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_workbook(io.BytesIO(path.read_bytes()))


def pack(path: Path, held: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in held.items():
            package.writestr(name, content)


def draw(path: Path) -> None:
    """A shape on the data sheet, a picture, macros, an extension that no library knows."""
    held = parts(path)
    sheet = "xl/worksheets/sheet1.xml"
    drawing = f'<drawing xmlns:r="{RELATIONS}" r:id="rId77"/><extLst><ext uri="{{x}}"><x14:what xmlns:x14="urn:x14"/></ext></extLst>'
    held[sheet] = held[sheet].replace(b"</worksheet>", f"{drawing}</worksheet>".encode())
    held["xl/worksheets/_rels/sheet1.xml.rels"] = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f'<Relationship Id="rId77" Type="{RELATIONS}/drawing" Target="../drawings/drawing1.xml"/></Relationships>'
    ).encode()
    held["xl/drawings/drawing1.xml"] = SHAPE.encode()
    held["xl/media/image1.png"] = bytes(range(256)) * 20
    held["xl/vbaProject.bin"] = b"\xd0\xcf\x11\xe0 macros" * 30
    types = f'<Override PartName="/xl/drawings/drawing1.xml" ContentType="{DRAWN}"/><Default Extension="bin" ContentType="application/vnd.ms-office.vbaProject"/>'
    held["[Content_Types].xml"] = held["[Content_Types].xml"].replace(b"</Types>", f"{types}</Types>".encode())
    pack(path, held)


OURS = {
    "xl/worksheets/sheet1.xml",
    "xl/styles.xml",
    "xl/workbook.xml",
    "xl/_rels/workbook.xml.rels",
    "[Content_Types].xml",
}


def test_what_no_library_models_survives_every_writing_byte_for_byte(path: Path) -> None:
    book = connector(path)
    put(book, *({**WHOLE, "rid": f"R{n}"} for n in range(1, 9)))
    draw(path)
    before = parts(path)
    put(book, {"rid": "R2", "name": "李四"}, {"rid": "R9", "name": "新"}, delete=("R1",))
    book.show_returns(returned(book, "R3"))
    book.show_receipts(desk.receipts(desk.receipt("a1")))
    book.show_returns(no_returns(book.node))
    after = parts(path)
    kept = set(before) - OURS - {"xl/drawings/drawing1.xml"}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert b"<drawing " in after["xl/worksheets/sheet1.xml"] and b"x14:what" in after["xl/worksheets/sheet1.xml"]
    rows = re.findall(rb"<xdr:row>(\d+)<", after["xl/drawings/drawing1.xml"])
    assert rows == [b"2", b"4"], "the shape moves up with the rows that it stands beside"
    assert stored(book)["R2"]["name"] == "李四" and len(stored(book)) == 8


def test_rows_and_cells_that_do_not_change_keep_every_byte(path: Path) -> None:
    book = connector(path)
    put(book, *({**WHOLE, "rid": f"R{n}"} for n in range(1, 6)))
    rows = re.compile(rb'<row r="(\d+)".*?</row>', re.DOTALL)
    before = {row[1]: row[0] for row in rows.finditer(parts(path)["xl/worksheets/sheet1.xml"])}
    put(book, {"rid": "R3", "name": "李四"})
    after = {row[1]: row[0] for row in rows.finditer(parts(path)["xl/worksheets/sheet1.xml"])}
    assert {number for number in before if before[number] != after[number]} == {b"4"}
    cells = re.compile(rb'<c r="(\w+)".*?(?:</c>|/>)')
    changed = {c[1] for c in cells.finditer(after[b"4"])} - {c[1] for c in cells.finditer(before[b"4"])}
    assert not changed and before[b"4"].replace("张三".encode(), "李四".encode()) == after[b"4"]


def test_charts_names_rules_and_formulas_follow_the_rows_that_move(path: Path) -> None:
    book = connector(path)
    put(book, *({**WHOLE, "rid": f"R{n}", "members": n} for n in range(1, 9)))
    with Person(path) as sheet:
        whole = sheet.parent
        chart = BarChart()
        chart.add_data(Reference(sheet, min_col=10, min_row=2, max_row=9))
        other = whole.create_sheet("统计")
        other.add_chart(chart, "B2")
        other["A1"] = "=SUM(数据!J2:J9)"
        other["A2"] = "=数据!J3"
        sheet["P9"], sheet["P2"] = "=J8+$J$4", "=J5"
        sheet["N1"], sheet["N6"] = "备注", "第六行"
        sheet["N6"].comment = Comment("看这里", "我")
        sheet["N3"].comment = Comment("随行删除", "我")
        sheet["O6"].hyperlink = "https://example.org/"
        sheet.merge_cells("P6:Q6")
        whole.defined_names["人数"] = DefinedName("人数", attr_text="数据!$J$2:$J$9")
        rule = DataValidation(type="whole", operator="greaterThan", formula1="$J$9")
        rule.add("R4:R9")
        sheet.add_data_validation(rule)
    put(book, delete=("R2", "R3"))
    again = seen(path)
    sheet, other = again["数据"], again["统计"]
    assert [other["A1"].value, other["A2"].value] == ["=SUM(数据!J2:J7)", "=数据!#REF!"]
    assert [sheet["P7"].value, sheet["P2"].value] == ["=J6+#REF!", "=J3"]
    assert again.defined_names["人数"].attr_text == "数据!$J$2:$J$7"
    assert (sheet["N4"].value, sheet["N4"].comment.text) == ("第六行", "看这里")
    assert [cell.coordinate for row in sheet for cell in row if cell.comment] == ["N4"]
    assert sheet["O4"].hyperlink.target == "https://example.org/" and str(sheet.merged_cells) == "P4:Q4"
    (rule,) = [v for v in sheet.data_validations.dataValidation if v.type == "whole"]
    assert (str(rule.sqref), rule.formula1) == ("R3:R7", "$J$7")
    chart = parts(path)["xl/charts/chart1.xml"].decode()
    assert "$J$2:$J$7" in chart
    assert b"fullCalcOnLoad" in parts(path)["xl/workbook.xml"], "results are worked out anew when the file is opened"


def test_a_formula_in_a_column_of_the_contract_stays_while_its_result_is_what_is_meant(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE, {**WHOLE, "rid": "R2"})
    with Person(path) as sheet:
        sheet["J2"] = "=1+2"
    rewrite(path, "xl/worksheets/sheet1.xml", b"<f>1+2</f><v />", b"<f>1+2</f><v>3</v>")
    put(book, {"rid": "R1", "members": 3, "name": "李四"})
    assert seen(path)["数据"]["J2"].value == "=1+2" and stored(book)["R1"]["members"] == 3
    put(book, {"rid": "R1", "members": 4})
    assert seen(path)["数据"]["J2"].value == 4 and stored(book)["R1"]["members"] == 4


def test_a_shared_formula_outlives_the_row_that_held_it_for_all(path: Path) -> None:
    book = connector(path)
    put(book, *({**WHOLE, "rid": f"R{n}"} for n in range(1, 5)))
    with Person(path) as sheet:
        for row in range(2, 6):
            sheet[f"P{row}"] = f"=J{row}*2"
    xml = parts(path)["xl/worksheets/sheet1.xml"]
    xml = xml.replace(b"<f>J2*2</f>", b'<f t="shared" ref="P2:P5" si="0">J2*2</f>')
    for row in range(3, 6):
        xml = xml.replace(f"<f>J{row}*2</f>".encode(), b'<f t="shared" si="0"/>')
    pack(path, {**parts(path), "xl/worksheets/sheet1.xml": xml})
    put(book, delete=("R1",))
    sheet = seen(path)["数据"]
    assert [sheet[f"P{row}"].value for row in range(2, 5)] == ["=J2*2", "=J3*2", "=J4*2"]


def test_links_to_other_workbooks_are_never_followed_and_stay(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE)
    held = parts(path)
    held["xl/worksheets/sheet1.xml"] = re.sub(
        rb'(<c r="J2"[^>]*?)( t="n")?( ?/>|>.*?</c>)',
        rb"\1><f>[1]Sheet1!$A$1</f><v>7</v></c>",
        held["xl/worksheets/sheet1.xml"],
    )
    held["xl/externalLinks/externalLink1.xml"] = b'<externalLink xmlns="urn:x"><externalBook/></externalLink>'
    held["xl/externalLinks/_rels/externalLink1.xml.rels"] = (
        b'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="x" Target="file:///etc/passwd" TargetMode="External"/></Relationships>'
    )
    pack(path, held)
    assert stored(book)["R1"]["members"] == 7, "the last result"
    put(book, {"rid": "R1", "name": "李四"})
    after = parts(path)
    assert stored(book)["R1"]["members"] == 7 and b"[1]Sheet1!$A$1" in after["xl/worksheets/sheet1.xml"]
    assert {name: after[name] for name in held if "external" in name} == {
        name: held[name] for name in held if "external" in name
    }


def test_hidden_rows_columns_and_filtered_rows_are_data_like_any_other(path: Path) -> None:
    book = connector(path)
    put(book, *({**WHOLE, "rid": f"R{n}"} for n in range(1, 5)))
    with Person(path) as sheet:
        sheet.row_dimensions[3].hidden = True
        sheet.column_dimensions["E"].hidden = True
        sheet.auto_filter.ref = "A1:M5"
    assert list(stored(book)) == ["R1", "R2", "R3", "R4"] and stored(book)["R2"]["phone"] == WHOLE["phone"]
    put(book, {"rid": "R2", "name": "李四"}, delete=("R1",))
    sheet = seen(path)["数据"]
    assert sheet.row_dimensions[2].hidden and sheet.column_dimensions["E"].hidden
    assert sheet.auto_filter.ref == "A1:M4" and stored(book)["R2"]["name"] == "李四"


def test_a_header_in_two_rows_with_merged_titles_is_understood(tmp_path: Path) -> None:
    path = tmp_path / "own.xlsx"
    theirs = Workbook()
    sheet = theirs.active
    sheet.title = "数据"
    upper = ["居民编号", "属地", "姓名", "联系方式", None, "类型", "独居", "走访时间", "人数", "租金", "面积"]
    for at, text in enumerate(upper, start=1):
        sheet.cell(2, at, text)
    sheet["A1"], sheet["D3"], sheet["E3"], sheet["M3"] = "甲社区花名册", "电话", "座机", "备注"
    for area in ("A1:K1", "A2:A3", "B2:B3", "C2:C3", "D2:E2"):
        sheet.merge_cells(area)
    sheet["A4"], sheet["B4"], sheet["C4"], sheet["D4"], sheet["E4"] = "R1", HERE, "张三", "138", "6512"
    theirs.save(path)
    book = WorkbookConnector(node(path))
    assert {key: (row["name"], row["phone"]) for key, row in stored(book).items()} == {"R1": ("张三", "138")}
    assert not rejects(book)
    put(book, {"rid": "R1", "phone": "139"}, {"rid": "R2", "phone": "136"})
    sheet = seen(path)["数据"]
    assert (sheet["D4"].value, sheet["E4"].value, sheet["A5"].value, sheet["D5"].value) == ("139", "6512", "R2", "136")
    assert str(sheet["D2"].value) == "联系方式" and "A2:A3" in str(sheet.merged_cells)


def test_a_workbook_written_in_an_unusual_way_is_saved_anew_unless_something_would_be_lost(path: Path) -> None:
    """Some programs give every element a prefix."""
    book = connector(path)
    put(book, WHOLE)
    held = parts(path)
    xml = held["xl/worksheets/sheet1.xml"]
    prefixed = re.sub(rb"<(/?)(\w)", rb"<\1x:\2", xml).replace(b"xmlns=", b"xmlns:x=")
    pack(path, {**held, "xl/worksheets/sheet1.xml": prefixed})
    assert stored(book) == {"R1": WHOLE}
    put(book, {"rid": "R1", "name": "李四"})
    assert stored(book) == {"R1": {**WHOLE, "name": "李四"}}
    pack(path, {**held, "xl/worksheets/sheet1.xml": prefixed, "xl/media/image1.png": b"picture"})
    before = path.read_bytes()
    with pytest.raises(Permanent, match="图片") as caught:
        put(book, {"rid": "R1", "name": "王五"})
    assert "另存" in str(caught.value) and path.read_bytes() == before


def test_a_new_column_comes_with_its_list_and_hint_beside_what_people_drew(path: Path) -> None:
    without = {name: spec for name, spec in DATASET.fields.items() if name not in ("kind", "phone", "alone")}
    connector(path, dataset=DATASET.model_copy(update={"fields": without}))
    draw(path)
    kind = DATASET.fields["kind"].model_copy(update={"values": tuple(f"类型{n}" for n in range(200))})
    book = connector(path, dataset=DATASET.model_copy(update={"fields": {**DATASET.fields, "kind": kind}}))
    put(book, {**WHOLE, "kind": "类型7"})
    again = seen(path)
    sheet = again["数据"]
    assert [sheet[f"{letter}1"].value for letter in "KLM"] == ["电话", "类型", "独居"]
    guides = {str(v.sqref): v for v in sheet.data_validations.dataValidation}
    assert guides["K2:K1048576"].prompt == "11 位手机号" and guides["M2:M1048576"].formula1 == '"是,否"'
    assert guides["L2:L1048576"].formula1 == "'_选项_kind'!$A$1:$A$200" and again["_选项_kind"].sheet_state == "hidden"
    assert (
        sheet["K1"].font.b and not sheet["K2"].protection.locked and not sheet.column_dimensions["K"].protection.locked
    )
    assert "xl/vbaProject.bin" in parts(path) and stored(book)["R1"]["kind"] == "类型7"


def test_an_empty_sheet_in_a_workbook_that_people_drew_on_gets_its_header(path: Path) -> None:
    path.parent.mkdir()
    theirs = Workbook()
    theirs.active.title = "数据"
    theirs.create_sheet("我的表")["A1"] = "勿动"
    theirs.save(path)
    draw(path)
    book = connector(path)
    put(book, WHOLE)
    assert stored(book) == {"R1": WHOLE} and "xl/media/image1.png" in parts(path)
    assert seen(path)["我的表"]["A1"].value == "勿动"


def test_days_counted_from_1904_are_written_as_they_are_read(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE)
    with Person(path) as sheet:
        sheet.parent.epoch = dt.datetime(1904, 1, 1)
    assert stored(book)["R1"]["born"] == WHOLE["born"]
    put(book, {"rid": "R1", "born": dt.date(2001, 2, 3)}, {"rid": "R2", "born": dt.date(1999, 12, 31)})
    assert {key: row["born"] for key, row in stored(book).items()} == {
        "R1": dt.date(2001, 2, 3),
        "R2": dt.date(1999, 12, 31),
    }
    assert seen(path)["数据"]["H2"].value == dt.datetime(2001, 2, 3)


# --- files that cannot be trusted ----------------------------------------------------------------------------------


def test_a_note_in_the_last_corner_is_named_and_does_not_fill_the_memory(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE)
    with Person(path) as sheet:
        sheet["XFD1048576"] = "误触"
    with pytest.raises(Exception, match="XFD1048576"):
        book.changes(None)
    with Person(path) as sheet:
        sheet["XFD1048576"] = None
        sheet["C900000"].number_format = "@"
    assert list(stored(book)) == ["R1"], "a cell that is only formatted is no content"


@pytest.mark.parametrize(
    "declared",
    [
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>',
        b" " * 5000 + b'<!DOCTYPE x SYSTEM "file:///etc/passwd">',
    ],
)
def test_declared_entities_are_refused_unread(path: Path, declared: bytes) -> None:
    book = connector(path)
    held = parts(path)
    for part in ("xl/worksheets/sheet1.xml", "xl/workbook.xml", "xl/styles.xml"):
        pack(path, {**held, part: declared + held[part]})
        with pytest.raises(Transient):
            book.changes(None)


def test_a_package_of_too_many_parts_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = connector(path)
    pack(path, {**parts(path), **{f"xl/media/{n}": b"" for n in range(10_001)}})
    with pytest.raises(Permanent, match="部件"):
        book.changes(None)


def test_a_part_that_unpacks_to_more_than_it_says_is_refused(path: Path) -> None:
    book = connector(path)
    held = parts(path)
    pack(path, {**held, "xl/styles.xml": held["xl/styles.xml"] + b" " * (8 << 20)})
    small = len(held["xl/styles.xml"]).to_bytes(4, "little")
    large = (len(held["xl/styles.xml"]) + (8 << 20)).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(large, small))
    age(path)
    with pytest.raises(Unreadable):
        book.changes(None)


def test_a_missing_file_that_somebody_is_saving_is_waited_for(path: Path) -> None:
    book = connector(path)
    path.unlink()
    path.with_name(f"~${path.name}").touch()
    with pytest.raises(Transient, match="正在保存"):
        book.changes(None)
    path.with_name(f"~${path.name}").unlink()
    with pytest.raises(SchemaMismatch):
        book.changes(None)


# --- old workbooks -------------------------------------------------------------------------------------------------


def test_an_old_workbook_is_read_and_never_written() -> None:
    path = Path(__file__).parent / "data" / "居民.xls"
    before = path.read_bytes()
    book = WorkbookConnector(node(path))
    assert not book.capabilities.writes and not book.capabilities.returns
    assert stored(book) == {
        "R1": WHOLE,
        "R2": {**WHOLE, "rid": "R2", "name": "李四", "kind": "流动", "alone": False},
    }
    book.prepare()
    book.probe()
    with pytest.raises(Permanent, match="另存为"):
        put(book, {"rid": "R1", "name": "改名"})
    put(book, delete=("R9",))
    assert path.read_bytes() == before


def test_a_long_number_that_a_program_rounded_is_not_believed_in_an_old_workbook_either(tmp_path: Path) -> None:
    content = (Path(__file__).parent / "data" / "居民.xls").read_bytes()
    path = tmp_path / "居民.xls"
    path.write_bytes(content.replace(WHOLE["idno"].encode(), b"1.101011990010E+17"))
    found = WorkbookConnector(node(path)).changes(None)
    assert not found.rows.num_rows
    assert {(r["rid"], r["field"], r["rule"]) for r in found.rejects.to_pylist()} == {
        ("R1", "idno", "sheet:rounded"),
        ("R2", "idno", "sheet:rounded"),
    }


@pytest.mark.parametrize(
    ("content", "says"), [(b"PK\x03\x04", ".xlsx"), (b"<html><table>", "网页"), (b"\xd0\xcf\x11\xe0 cut", "截断")]
)
def test_a_file_that_is_no_old_workbook_says_what_it_is(path: Path, content: bytes, says: str) -> None:
    old = path.with_suffix(".xls")
    old.parent.mkdir()
    old.write_bytes(content)
    with pytest.raises((Permanent, Transient), match=says):
        WorkbookConnector(node(old)).changes(None)


# --- the same as a library that knows everything about cells -------------------------------------------------------

VALUES = st.fixed_dictionaries(
    {
        "name": st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8),
        "members": st.none() | st.integers(-(10**12), 10**12),
        "born": st.none() | st.dates(dt.date(1905, 1, 1), dt.date(2100, 1, 1)),
    }
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(VALUES, min_size=3, max_size=8),
    st.dictionaries(st.integers(0, 9), VALUES, max_size=6),
    st.sets(st.integers(0, 7), max_size=4),
)
def test_any_edit_leaves_exactly_the_rows_that_are_meant(
    tmp_path: Path, first: list[dict[str, Any]], later: dict[int, dict[str, Any]], gone: set[int]
) -> None:
    path = tmp_path / "a.xlsx"
    path.unlink(missing_ok=True)
    book = connector(path)
    blank = dict.fromkeys(WHOLE)
    put(book, *({**blank, "rid": f"R{n}", "region": HERE, **row} for n, row in enumerate(first)))
    expected = {f"R{n}": {**blank, "rid": f"R{n}", "region": HERE, **row} for n, row in enumerate(first)}
    edits = [{"rid": f"R{n}", "region": HERE, **row} for n, row in later.items() if n not in gone]
    put(book, *edits, delete=tuple(f"R{n}" for n in gone))
    for edit in edits:
        expected[edit["rid"]] = {**expected.get(edit["rid"], blank), **edit}
    for n in gone:
        expected.pop(f"R{n}", None)
    for row in expected.values():
        row["name"] = row["name"] if row["name"] and row["name"].strip() else None
    found = stored(book)
    assert {key: {n: v for n, v in row.items() if n != "name"} for key, row in found.items()} == {
        key: {n: v for n, v in row.items() if n != "name"} for key, row in expected.items()
    }
    by_openpyxl = seen(path)["数据"]
    keys = [by_openpyxl.cell(at, 1).value for at in range(2, by_openpyxl.max_row + 1)]
    assert keys == [key for key in expected if key in found], "no gap, in order"
