"""Delimited files: encodings, line ends, half-written files, and what a spreadsheet program does to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from connectors import sheet_desk
from connectors.base import no_returns
from connectors.workbook import WorkbookConnector
from federation.errors import Conflict, SchemaMismatch, Transient, Unreadable
from tests.contract import desk
from tests.unit.test_workbook import returned
from tests.unit.workbook_sample import HERE, WHOLE, age, connector, node, put, rejects, stored

OWN = "类型,独居,走访时间,人数,租金,面积"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "居民.csv"


def by_hand(path: Path, *lines: str, encoding: str = "utf-8", newline: str = "\n", **options: str) -> WorkbookConnector:
    path.write_bytes("".join(line + newline for line in lines).encode(encoding))
    return WorkbookConnector(node(path, **options))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_encoding_and_line_ends_found_are_kept(path: Path, encoding: str, newline: str) -> None:
    book = by_hand(path, f"居民编号,属地,电话,备注,{OWN}", f"R1,{HERE},138,㐀𠀀", encoding=encoding, newline=newline)
    put(book, {"rid": "R1", "name": "李四"})
    assert stored(book)["R1"]["name"] == "李四"
    text = path.read_bytes().decode(encoding)
    assert text.startswith("居民编号,属地") and "㐀𠀀" in text
    assert text.count(newline) == text.count("\n") == 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_every_type_reads_back_as_it_was_written(path: Path, encoding: str) -> None:
    book = connector(path, encoding=encoding)
    put(book, WHOLE, {**WHOLE, "rid": "R2", "name": '带"引号",\n换行'})
    assert stored(book) == {"R1": WHOLE, "R2": {**WHOLE, "rid": "R2", "name": '带"引号",\n换行'}}
    path.read_bytes().decode(encoding)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_lone_return_inside_a_text_survives(path: Path, newline: str) -> None:
    book = by_hand(path, f"居民编号,属地,姓名,电话,{OWN}", newline=newline)
    put(book, {"rid": "R1", "region": HERE, "name": "a\rb"})
    assert stored(book)["R1"]["name"] == "a\rb"


def test_a_new_file_is_marked_so_that_a_spreadsheet_program_opens_it_rightly(path: Path) -> None:
    connector(path)
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")


def test_bytes_of_another_encoding_are_unreadable_at_a_line(path: Path) -> None:
    path.write_bytes(f"rid,region,phone\nR1,{HERE},1\nR2,{HERE},".encode() + "张三".encode("gb18030") + b"\n")
    age(path)
    book = WorkbookConnector(node(path, encoding="utf-8"))
    with pytest.raises(Unreadable, match="第 3 行") as caught:
        book.changes(None)
    assert caught.value.where["file"] == path and caught.value.where["line"] == 3


def test_utf_16_says_how_to_save(path: Path) -> None:
    path.write_bytes("居民编号\t属地\n".encode("utf-16"))
    with pytest.raises(Unreadable, match="CSV UTF-8"):
        WorkbookConnector(node(path)).changes(None)


@pytest.mark.parametrize("cut", ["居民编号,属地", '居民编号,属地,电话\nR1,"甲'])
def test_a_half_written_file_is_waited_for(path: Path, cut: str) -> None:
    path.write_text(cut, "utf-8")
    with pytest.raises(Transient):
        WorkbookConnector(node(path)).changes(None)
    age(path)
    with pytest.raises((Unreadable, SchemaMismatch)):
        WorkbookConnector(node(path)).changes(None)


def test_a_last_line_without_an_end_is_read_once_nobody_writes(path: Path) -> None:
    path.write_text(f"居民编号,属地,电话,{OWN}\nR1,{HERE},138", "utf-8")
    age(path)
    assert list(stored(WorkbookConnector(node(path)))) == ["R1"]


def test_rejects_name_the_line_even_below_a_cell_with_line_breaks(path: Path) -> None:
    book = by_hand(
        path, f"居民编号,属地,姓名,电话,{OWN}", f'R1,{HERE},"一\n二\n三",138', "", f"R2,{HERE},乙,139,户籍,也许"
    )
    assert [(r["rid"], r["locator"], r["field"]) for r in rejects(book)] == [("R2", "第 6 行", "alone")]
    put(book, {"rid": "R2", "name": "丙"}, delete=("R1",))
    assert path.read_text("utf-8").splitlines()[2].startswith(f"R2,{HERE},丙,139")


def test_a_long_number_in_scientific_notation_is_rejected_not_believed(path: Path) -> None:
    book = by_hand(
        path, f"居民编号,属地,证件号,电话,{OWN}", f"R1,{HERE},1.10101E+17,138", f"R2,{HERE},110101199001011234,138"
    )
    assert list(stored(book)) == ["R2"]
    assert [(r["rid"], r["rule"]) for r in rejects(book)] == [("R1", "sheet:rounded")]


def test_notes_around_a_header_are_no_part_of_it_and_stay(path: Path) -> None:
    book = by_hand(path, f'居民编号*,属地,"电话\n(必填)",姓名（选填）,{OWN}', f"R1,{HERE},138,张三")
    put(book, {"rid": "R1", "name": "李四"})
    assert (stored(book)["R1"]["phone"], stored(book)["R1"]["name"]) == ("138", "李四")
    assert path.read_text("utf-8").startswith('居民编号*,属地,"电话\n(必填)",姓名（选填）,')


def test_tabs_separate_too_and_stay(path: Path) -> None:
    book = by_hand(path, f"居民编号,属地,电话,{OWN}".replace(",", "\t"), f"R1\t{HERE}\t138")
    put(book, {"rid": "R1", "phone": "139"})
    assert f"R1\t{HERE}\t139" in path.read_text("utf-8")


def test_what_a_person_saved_meanwhile_is_a_conflict(path: Path) -> None:
    book = connector(path)
    put(book, WHOLE)
    cursor = book.changes(None).cursor
    path.write_bytes(path.read_bytes().replace(b"13800000000", b"13900000000"))
    with pytest.raises(Conflict):
        put(book, {"rid": "R1", "name": "李四"}, cursor=cursor)
    assert stored(book)["R1"]["phone"] == "13900000000"


def test_returns_stand_beside_the_file_and_go_when_settled(path: Path) -> None:
    book = connector(path)
    token = book.probe().token
    book.show_returns(returned(book))
    beside = path.with_name("居民.退回待改.csv")
    assert beside.read_text("utf-8-sig").splitlines() == [
        "居民编号,位置,字段,现值,改为,原因,Reason",
        "R1,数据!第 2 行,电话,'=1,,号码有误,bad",
    ]
    assert book.probe().token == token
    book.show_returns(no_returns(book.node))
    assert not beside.exists()


def test_files_of_peoples_own_with_the_names_of_returns_and_receipts_are_never_touched(path: Path) -> None:
    book = connector(path)
    theirs = [path.with_name(f"居民.{title}.csv") for title in ("退回待改", "回执")]
    for own in theirs:
        own.write_text("上月小结\n", "utf-8")
    book.show_returns(no_returns(book.node))
    book.show_receipts(desk.receipts(desk.receipt("a1")))
    with pytest.raises(SchemaMismatch, match="改名") as caught:
        book.show_returns(returned(book))
    assert caught.value.where["file"] == theirs[0]
    assert [own.read_text("utf-8") for own in theirs] == ["上月小结\n"] * 2


# --- mending on the file of returns


def mend(path: Path, value: str, encoding: str = "utf-8-sig") -> Path:
    """As a person would: open 居民.退回待改.csv, write the right value into 改为, save."""
    beside = path.with_name("居民.退回待改.csv")
    header, line = beside.read_text("utf-8-sig").splitlines()
    cells = line.split(",")
    cells[header.split(",").index("改为")] = value
    beside.write_text("\n".join([header, ",".join(cells)]) + "\n", encoding)
    return beside


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gb18030"])
def test_a_value_mended_on_the_file_of_returns_is_read_wakes_the_sweep_and_lands_in_the_data(
    path: Path, encoding: str
) -> None:
    book = connector(path)
    put(book, {**WHOLE, "phone": "=1"}, {**WHOLE, "rid": "R2", "phone": "=1"})
    book.show_returns(returned(book))
    before, token = book.changes(None), book.probe().token
    mend(path, "13900000000", encoding)
    after = book.changes(None)
    assert stored(book)["R1"]["phone"] == "13900000000" and stored(book)["R2"]["phone"] == "=1"
    assert after.cursor != before.cursor and book.probe().token != token
    book.show_returns(no_returns(book.node))
    assert not path.with_name("居民.退回待改.csv").exists()
    assert "R1" in path.read_text("utf-8-sig") and stored(book)["R1"]["phone"] == "13900000000"


def test_a_value_that_was_also_changed_in_the_data_stays_as_it_stands_there(path: Path) -> None:
    book = connector(path)
    put(book, {**WHOLE, "phone": "=1"})
    book.show_returns(returned(book))
    mend(path, "13900000000")
    path.write_text(path.read_text("utf-8-sig").replace("'=1", "13811111111"), "utf-8-sig")
    assert stored(book)["R1"]["phone"] == "13811111111"


def test_a_mending_that_a_program_rounded_is_not_taken(path: Path) -> None:
    book = connector(path)
    put(book, {**WHOLE, "phone": "=1"})
    book.show_returns(returned(book))
    mend(path, "1.39E+10")
    assert stored(book)["R1"]["phone"] == "=1"
    book.show_returns(returned(book))
    assert ",," in path.with_name("居民.退回待改.csv").read_text("utf-8-sig")


# --- ruling on the file of corrections


@pytest.fixture
def shown(path: Path) -> WorkbookConnector:
    """Two corrections are shown beside the file; people ruled on none."""
    book = connector(path)
    book.show_corrections(proposed(book, "a1", "b2"))
    return book


def proposed(of: WorkbookConnector, *names: str, **values: Any) -> pa.Table:
    return desk.corrections(of.node.dataset, *(desk.line(name, "", rid=f"R{name}", **values) for name in names))


def beside(path: Path) -> Path:
    return path.with_name("居民.校核.csv")


def told(of: WorkbookConnector) -> dict[str, tuple[str, str | None]]:
    return {line["correction_id"]: (line["ruling"], line["reason"]) for line in of.rulings().to_pylist()}


def test_corrections_stand_beside_the_file_with_room_to_rule_and_nothing_that_runs(
    path: Path, shown: WorkbookConnector
) -> None:
    shown.show_corrections(proposed(shown, "a1", current='=HYPERLINK("http://x")', proposed="110101199001011234"))
    header, line = beside(path).read_text("utf-8-sig").splitlines()
    assert header == ("编号,居民编号,类型,字段,现值,建议值,提出单位,提出时间,处理期限,状态,说明,裁定,裁定理由")
    assert line == (
        f'{desk.name("a1")},Ra1,修改,备注,"\'=HYPERLINK(""http://x"")",110101199001011234,110101001001 多福巷社区,'
        "2026-03-03 01:30:05,2026-03-16,待裁定,,,"
    )
    assert beside(path).read_bytes().startswith(b"\xef\xbb\xbf")
    assert sorted(found.name for found in path.parent.iterdir()) == ["居民.csv", "居民.校核.csv"]
    shown.show_corrections(proposed(shown))
    assert not beside(path).exists()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gb18030"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_ruling_survives_a_program_that_saves_in_its_own_way(
    path: Path, shown: WorkbookConnector, encoding: str, delimiter: str
) -> None:
    header, one, other = (line.split(",") for line in beside(path).read_text("utf-8-sig").splitlines())
    one[-2:], one[7] = ["采纳", "=已核对"], "2026/3/3 1:30"
    swapped = [["我的备注", *[""] * len(header)], [*header, "备注"], [*other, "看过"], one]
    beside(path).write_text("\n".join(delimiter.join(line) for line in swapped) + "\n", encoding)
    wanted = {desk.name("a1"): ("accept", "=已核对")}
    assert told(shown) == wanted
    shown.show_corrections(proposed(shown, "a1", "b2"))
    text = beside(path).read_text("utf-8-sig")
    assert text.startswith("编号") and "2026-03-03 01:30:05" in text and "采纳,'=已核对" in text
    assert told(shown) == wanted


def test_what_people_wrote_since_the_corrections_were_read_is_not_overwritten(
    path: Path, shown: WorkbookConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = sheet_desk.renewed

    def slow(*given: Any) -> Any:
        decided = read(*given)
        beside(path).write_text(beside(path).read_text("utf-8-sig").replace("待裁定,,,", "待裁定,,采纳,"), "utf-8-sig")
        return decided

    monkeypatch.setattr(sheet_desk, "renewed", slow)
    for names in (["a1"], []):
        with pytest.raises(Conflict):
            shown.show_corrections(proposed(shown, *names))
        assert "待裁定,,采纳," in beside(path).read_text("utf-8-sig")
        beside(path).write_text(beside(path).read_text("utf-8-sig").replace("采纳", ""), "utf-8-sig")


@pytest.mark.parametrize("lock", ["~$居民.校核.csv", ".~lock.居民.校核.csv#"])
def test_corrections_are_not_written_while_somebody_has_them_open(
    path: Path, shown: WorkbookConnector, lock: str
) -> None:
    before = beside(path).read_bytes()
    path.with_name(lock).touch()
    for names in (["a1"], []):
        with pytest.raises(Transient, match="关闭") as caught:
            shown.show_corrections(proposed(shown, *names))
        assert caught.value.where["file"] == beside(path)
    assert beside(path).read_bytes() == before and told(shown) == {}


def test_a_copied_correction_that_is_ruled_on_both_ways_is_not_ruled_on(path: Path, shown: WorkbookConnector) -> None:
    header, one, _ = beside(path).read_text("utf-8-sig").splitlines()
    beside(path).write_text("\n".join([header, f"{one[:-1]}采纳,", f"{one[:-1]}驳回,"]) + "\n", "utf-8-sig")
    assert told(shown) == {}
    shown.show_corrections(proposed(shown, "a1"))
    assert beside(path).read_text("utf-8-sig").splitlines() == [header, one]


def test_a_file_of_peoples_own_with_the_name_of_the_corrections_is_never_touched(path: Path) -> None:
    book = connector(path)
    beside(path).write_text("上月校核小结\n", "utf-8")
    book.show_corrections(proposed(book))
    for act in (lambda: book.show_corrections(proposed(book, "a1")), book.rulings):
        with pytest.raises(SchemaMismatch, match="改名") as caught:
            act()
        assert caught.value.where["file"] == beside(path)
    assert beside(path).read_text("utf-8") == "上月校核小结\n"
