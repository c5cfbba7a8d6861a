"""Workbooks as Excel, WPS and LibreOffice write them, in the ways that no library of ours would: they are read, and edited in place.

The packages are written by hand: what these programs are known to write, one peculiarity each.
"""

from __future__ import annotations

import datetime as dt
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from openpyxl.utils import get_column_letter

from connectors.base import no_returns
from connectors.workbook import WorkbookConnector
from tests.unit.test_workbook import returned
from tests.unit.workbook_sample import DATASET, HERE, node, put, rejects, stored

Parts = dict[str, str]
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
LINKS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
STRICT = "http://purl.oclc.org/ooxml"
START = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\r\n'
SHEET, TEXTS, STYLES, BOOK = (
    "xl/worksheets/sheet1.xml",
    "xl/sharedStrings.xml",
    "xl/styles.xml",
    "xl/workbook.xml",
)
TITLES = [field.label for field in DATASET.fields.values()]
PEOPLE = {"R1": "张三", "R2": "李四", "R3": "王五"}
TEXT, DAY, MOMENT, QUOTED = 1, 2, 3, 4
"""Formats of `STYLES`: text, a day, a moment, a text that begins with an apostrophe."""
BORN, SEEN = dt.date(1990, 1, 1), dt.datetime(2026, 1, 31, 8, 0, tzinfo=dt.UTC)


def parts() -> Parts:
    """A workbook of three residents as Excel writes it: shared texts, extensions to be ignored, a theme of its own."""
    texts = [*TITLES, *PEOPLE, *PEOPLE.values(), HERE, "110101199001011234", "13800000000", "户籍", "{}"]
    shared = "".join(f"<si><t>{text}</t></si>" for text in texts)
    rows = [row(1, [text_cell(texts.index(title)) for title in TITLES])]
    for number, (key, name) in enumerate(PEOPLE.items(), 2):
        known = [key, HERE, name, "110101199001011234", "13800000000", "户籍"]
        cells = [*(text_cell(texts.index(word)) for word in known), ("", ' t="b"', "<v>1</v>")]
        cells += [(f' s="{DAY}"', "", "<v>32874</v>"), (f' s="{MOMENT}"', "", "<v>46053.666666666664</v>")]
        cells += [("", "", f"<v>{n}</v>") for n in ("3", "1234.5", "71.25")]
        rows.append(row(number, [*cells, text_cell(texts.index("{}"))]))
    return {
        "[Content_Types].xml": f'{START}<Types xmlns="{PACKAGE}/content-types"><Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" '
        'ContentType="application/xml"/>'
        + "".join(
            f'<Override PartName="/{part}" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.{kind}+xml"/>'
            for part, kind in ((BOOK, "sheet.main"), (SHEET, "worksheet"), (TEXTS, "sharedStrings"), (STYLES, "styles"))
        )
        + "</Types>",
        "_rels/.rels": relations((1, "officeDocument", BOOK)),
        BOOK: f'{START}<workbook xmlns="{MAIN}" xmlns:r="{LINKS}" xmlns:mc="urn:mc" mc:Ignorable="x15" xmlns:x15="urn:x15">'
        '<fileVersion appName="xl" lastEdited="7"/><workbookPr defaultThemeVersion="166925"/><bookViews><workbookView '
        'xWindow="0" yWindow="0"/></bookViews><sheets><sheet name="数据" sheetId="1" r:id="rId1"/></sheets><calcPr '
        'calcId="191029"/></workbook>',
        "xl/_rels/workbook.xml.rels": relations(
            (1, "worksheet", "worksheets/sheet1.xml"),
            (2, "sharedStrings", "sharedStrings.xml"),
            (3, "styles", "styles.xml"),
        ),
        TEXTS: f'{START}<sst xmlns="{MAIN}" count="60" uniqueCount="{len(texts)}">{shared}</sst>',
        STYLES: f'{START}<styleSheet xmlns="{MAIN}"><numFmts count="1"><numFmt numFmtId="176" '
        'formatCode="yyyy\\-mm\\-dd\\ hh:mm:ss"/></numFmts><fonts count="1"><font><sz val="11"/><name val="宋体"/></font>'
        '</fonts><fills count="2"><fill><patternFill patternType="none"/></fill><fill><patternFill patternType="gray125"/>'
        '</fill></fills><borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders>'
        '<cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs><cellXfs count="5">'
        + "".join(
            f'<xf numFmtId="{number}" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"{more}/>'
            for number, more in ((0, ""), (49, ""), (14, ""), (176, ""), (49, ' quotePrefix="1"'))
        )
        + '</cellXfs><cellStyles count="1"><cellStyle name="常规" xfId="0" builtinId="0"/></cellStyles></styleSheet>',
        SHEET: f'{START}<worksheet xmlns="{MAIN}" xmlns:r="{LINKS}" xmlns:mc="urn:mc" mc:Ignorable="x14ac xr" '
        'xmlns:x14ac="urn:x14ac" xmlns:xr="urn:xr" xr:uid="{0}"><sheetPr/><dimension ref="A1:M4"/><sheetViews>'
        '<sheetView workbookViewId="0"/></sheetViews><sheetFormatPr defaultRowHeight="14.4" x14ac:dyDescent="0.25"/>'
        f'<sheetData>{"".join(rows)}</sheetData><pageMargins left="0.7" right="0.7" top="0.75" bottom="0.75" header="0.3" '
        'footer="0.3"/></worksheet>',
    }


def text_cell(number: int) -> tuple[str, str, str]:
    return f' s="{TEXT}"', ' t="s"', f"<v>{number}</v>"


def row(number: int, cells: list[tuple[str, str, str]]) -> str:
    inner = "".join(
        f'<c r="{get_column_letter(at)}{number}"{style}{kind}>{value}</c>'
        for at, (style, kind, value) in enumerate(cells, 1)
    )
    return f'<row r="{number}" spans="1:{len(cells)}" x14ac:dyDescent="0.25">{inner}</row>'


def relations(*links: tuple[int, str, str]) -> str:
    told = "".join(f'<Relationship Id="rId{n}" Type="{LINKS}/{kind}" Target="{at}"/>' for n, kind, at in links)
    return f'{START}<Relationships xmlns="{PACKAGE}/relationships">{told}</Relationships>'


def cell(made: Parts, place: str, content: str) -> None:
    """Put another cell into the sheet. `content`: from behind its place on."""
    made[SHEET], count = re.subn(rf'<c r="{place}".*?</c>', f'<c r="{place}"{content}', made[SHEET])
    assert count == 1


def at_end(made: Parts, xml: str) -> None:
    made[SHEET] = made[SHEET].replace("</worksheet>", f"{xml}</worksheet>")


# --- the peculiarities


def plain(made: Parts) -> None:
    """As it is."""


def rich_texts(made: Parts) -> None:
    """A text in several fonts, each with blanks to be kept."""
    runs = '<r><rPr><b/><sz val="11"/><rFont val="宋体"/></rPr><t>张</t></r><r><t xml:space="preserve">三</t></r>'
    made[TEXTS] = made[TEXTS].replace("<si><t>张三</t></si>", f"<si>{runs}</si>")


def readings(made: Parts) -> None:
    """How a text is read aloud stands in it, as East Asian editions of Excel write it."""
    spoken = '<rPh sb="0" eb="1"><t>ZHANG</t></rPh><rPh sb="1" eb="2"><t>SAN</t></rPh><phoneticPr fontId="1"/>'
    made[TEXTS] = made[TEXTS].replace("<si><t>张三</t></si>", f"<si><t>张三</t>{spoken}</si>")


def texts_in_cells(made: Parts) -> None:
    """Texts in the cells themselves, one of them in several fonts."""
    cell(made, "C2", f' s="{TEXT}" t="inlineStr"><is><r><rPr><b/></rPr><t>张</t></r><r><t>三</t></r></is></c>')
    cell(made, "C3", ' t="inlineStr"><is><t>李四</t></is></c>')


def numbers_as_text(made: Parts) -> None:
    """The green triangle: digits typed behind an apostrophe, and the warning switched off."""
    made[TEXTS] = made[TEXTS].replace("</sst>", "<si><t>3</t></si><si><t>1234.5</t></si></sst>")
    count = made[TEXTS].count("<si>")
    for place, at in (("J2", count - 2), ("K2", count - 1)):
        cell(made, place, f' s="{QUOTED}" t="s"><v>{at}</v></c>')
    at_end(made, '<ignoredErrors><ignoredError sqref="D2:E4 J2:K2" numberStoredAsText="1"/></ignoredErrors>')


def of_wps(made: Parts) -> None:
    """WPS: namespaces and extensions of its own, protection areas, a property with its build."""
    made[SHEET] = made[SHEET].replace(
        "<worksheet ", '<worksheet xmlns:etc="http://www.wps.cn/officeDocument/2017/etCustomData" ', 1
    )
    at_end(made, '<headerFooter/><extLst><ext uri="{C00C0000}"><etc:what etc:id="1"/></ext></extLst>')
    made[BOOK] = made[BOOK].replace("</workbook>", '<extLst><ext uri="{A0}"><x15:y/></ext></extLst></workbook>')
    made["docProps/custom.xml"] = (
        f'{START}<Properties xmlns="urn:custom"><property name="KSOProductBuildVer">2052-12.1.0.1</property></Properties>'
    )
    made["xl/cellimages.xml"] = (
        f'{START}<etc:cellImages xmlns:etc="http://www.wps.cn/officeDocument/2017/etCustomData"/>'
    )
    made["customXml/item1.xml"] = f'{START}<autofilters xmlns="https://web.wps.cn/et/2018/main"/>'


def formats_to_the_edge(made: Parts) -> None:
    """A whole row was coloured: each cell of it stands there to the last column, and holds nothing."""
    edge = "".join(f'<c r="{get_column_letter(at)}2" s="{TEXT}"/>' for at in range(14, 16_384))
    made[SHEET] = made[SHEET].replace("</row>", "</row>\x00", 2)
    first, second, rest = made[SHEET].split("\x00")
    second = second.removesuffix("</row>") + f'{edge}<c r="XFD2" s="{TEXT}"></c></row>'
    made[SHEET] = first + second.replace('spans="1:13"', 'spans="1:16384"') + rest


def formats_to_the_bottom(made: Parts) -> None:
    """Whole columns were coloured: the sheet says that it reaches to the last row, which stands there, empty."""
    made[SHEET] = made[SHEET].replace('ref="A1:M4"', 'ref="A1:XFD1048576"')
    far = f'<row r="5" s="{TEXT}" customFormat="1" ht="14.4"/><row r="1048576" s="{TEXT}" customFormat="1">'
    far += f'<c r="A1048576" s="{TEXT}"/><c r="XFD1048576" s="{TEXT}"></c></row>'
    made[SHEET] = made[SHEET].replace("</sheetData>", f"{far}</sheetData>")


def blanks_kept(made: Parts) -> None:
    """Texts with blanks around them, kept by `xml:space`."""
    made[TEXTS] = made[TEXTS].replace("<si><t>R2</t></si>", '<si><t xml:space="preserve"> R2 </t></si>')


def strict(made: Parts) -> None:
    """Saved as "Strict Open XML": other namespaces, days in words."""
    for name, xml in made.items():
        xml = xml.replace(MAIN, f"{STRICT}/spreadsheetml/main")
        made[name] = xml.replace(LINKS, f"{STRICT}/officeDocument/relationships")
    made[BOOK] = made[BOOK].replace("<workbook ", '<workbook conformance="strict" ', 1)
    cell(made, "H2", f' s="{DAY}" t="d"><v>1990-01-01</v></c>')
    cell(made, "I2", f' s="{MOMENT}" t="d"><v>2026-01-31T16:00:00</v></c>')


def absolute_paths(made: Parts) -> None:
    """Parts are named from the package's root."""
    links = "xl/_rels/workbook.xml.rels"
    for name in ("worksheets/sheet1.xml", "sharedStrings.xml", "styles.xml"):
        made[links] = made[links].replace(f'Target="{name}"', f'Target="/xl/{name}"')
    made["_rels/.rels"] = made["_rels/.rels"].replace(f'Target="{BOOK}"', f'Target="/{BOOK}"')


def rules_in_an_extension(made: Parts) -> None:
    """A list whose words stand on another sheet, as Excel 2010 and later keep it."""
    at_end(
        made,
        '<extLst><ext uri="{CCE6A557-97BC-4b89-ADB6-D9C93CAAB3DF}" xmlns:x14="urn:x14"><x14:dataValidations count="1" '
        'xmlns:xm="urn:xm"><x14:dataValidation type="list" allowBlank="1"><x14:formula1><xm:f>选项!$A$1:$A$2</xm:f>'
        "</x14:formula1><xm:sqref>F2:F9</xm:sqref></x14:dataValidation></x14:dataValidations></ext></extLst>",
    )


def byte_order_marks(made: Parts) -> None:
    """Every part begins with a byte order mark."""
    for name in made:
        made[name] = f"\ufeff{made[name]}"


def results_of_formulas(made: Parts) -> None:
    """LibreOffice's formulas: an attribute of its own, a text as the result, one that WPS shows a picture by beside it."""
    cell(made, "C2", ' t="str"><f aca="false">CONCATENATE("张","三")</f><v>张三</v></c>')
    cell(made, "J2", '><f aca="false">1+2</f><v>3</v></c>')
    made[SHEET] = made[SHEET].replace(
        "</row>", '<c r="N1" t="str"><f>_xlfn.DISPIMG("ID_1",1)</f><v>=DISPIMG("ID_1",1)</v></c></row>', 1
    )


QUIRKS: list[Callable[[Parts], None]] = [
    plain,
    rich_texts,
    readings,
    texts_in_cells,
    numbers_as_text,
    of_wps,
    formats_to_the_edge,
    formats_to_the_bottom,
    blanks_kept,
    strict,
    absolute_paths,
    rules_in_an_extension,
    byte_order_marks,
    results_of_formulas,
]


def packed(made: Parts, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name, xml in made.items():
            package.writestr(name, xml.encode())
    return path


def held(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as package:
        return {name: package.read(name) for name in package.namelist()}


@pytest.fixture(params=QUIRKS, ids=lambda quirk: quirk.__name__)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    made = parts()
    request.param(made)
    return packed(made, tmp_path / "居民.xlsx")


def test_what_such_a_program_wrote_is_read(path: Path) -> None:
    book = WorkbookConnector(node(path))
    found = stored(book)
    assert {key: row["name"] for key, row in found.items()} == PEOPLE
    first = found["R1"]
    assert (first["idno"], first["alone"], first["members"], first["rent"]) == ("110101199001011234", True, 3, 1234.5)
    assert (first["born"], first["seen"]) == (BORN, SEEN)
    assert rejects(book) == [] and book.prepare() == ()


def test_it_is_edited_in_place_and_nothing_else_of_it_changes(path: Path) -> None:
    book = WorkbookConnector(node(path))
    before = held(path)
    found = stored(book)
    put(book, {"rid": "R2", "name": "李四光"}, {"rid": "R9", "name": "新"})
    assert stored(book)["R1"] == found["R1"]
    assert stored(book)["R2"] == {**found["R2"], "name": "李四光"}
    assert stored(book)["R9"]["name"] == "新"
    after = held(path)
    after[BOOK] = after[BOOK].replace(b' fullCalcOnLoad="1"', b"")  # where formulas may depend on what was written
    kept = set(before) - {SHEET, STYLES}
    assert {name: after.get(name) for name in kept} == {name: before[name] for name in kept}
    rows = re.compile(rb'<row r="[124]".*?</row>', re.DOTALL)
    assert rows.findall(after[SHEET]) == rows.findall(before[SHEET])
    data = re.compile(rb"\xef\xbb\xbf|<dimension[^>]*>|<sheetData>.*</sheetData>", re.DOTALL)
    assert data.sub(b"", after[SHEET]) == data.sub(b"", before[SHEET])
    for content in (after[SHEET], after[STYLES]):
        ElementTree.fromstring(content)


def test_rows_go_and_others_move_up(path: Path) -> None:
    book = WorkbookConnector(node(path))
    found = stored(book)
    put(book, delete=("R1",))
    assert stored(book) == {key: row for key, row in found.items() if key != "R1"}
    put(book, {"rid": "R4", "name": "赵六"})
    assert {key: row["name"] for key, row in stored(book).items()} == {"R2": "李四", "R3": "王五", "R4": "赵六"}
    sheet = held(path)[SHEET].decode("utf-8-sig")
    assert [cell.get("r") for cell in ElementTree.fromstring(sheet).iter() if cell.tag.endswith("}row")][:4] == list(
        "1234"
    )
    assert "<xm:sqref>F2:F8</xm:sqref>" in sheet or "xm:sqref" not in sheet


def test_returns_are_shown_in_it_and_taken_away_again(path: Path) -> None:
    book = WorkbookConnector(node(path))
    before, found = held(path), stored(book)
    book.show_returns(returned(book))
    shown = ElementTree.fromstring(held(path)[BOOK].decode("utf-8-sig"))
    assert [sheet.get("name") for sheet in shown.iter() if sheet.tag.endswith("}sheet")] == ["数据", "退回待改"]
    links = re.findall(rb'Type="([^"]+/worksheet)"', held(path)["xl/_rels/workbook.xml.rels"])
    assert len(links) == 2 and links[0] == links[1], "a strict workbook has another word for it"
    assert stored(book) == found
    book.show_returns(no_returns(book.node))
    after = held(path)
    assert stored(book) == found and after[SHEET] == before[SHEET] and set(after) == set(before)


def test_a_list_on_another_sheet_in_an_extension_follows_the_rows_that_it_names(tmp_path: Path) -> None:
    made = parts()
    other = SHEET.replace("1", "2")
    made[other] = re.sub("<sheetData>.*</sheetData>", "<sheetData/>", made[SHEET])
    rules_in_an_extension(made)
    made[other] = made[other].replace("</worksheet>", made[SHEET][made[SHEET].index("<extLst>") :])
    made[other] = made[other].replace("选项!$A$1:$A$2", "数据!$A$2:$A$4")
    made[BOOK] = made[BOOK].replace("</sheets>", '<sheet name="统计" sheetId="2" r:id="rId9"/></sheets>')
    made["xl/_rels/workbook.xml.rels"] = relations(
        (1, "worksheet", "worksheets/sheet1.xml"), (9, "worksheet", "worksheets/sheet2.xml")
    )
    book = WorkbookConnector(node(packed(made, tmp_path / "居民.xlsx")))
    put(book, delete=("R1",))
    after = held(tmp_path / "居民.xlsx")[other].decode()
    assert "<xm:f>数据!$A$2:$A$3</xm:f>" in after and "<xm:sqref>F2:F9</xm:sqref>" in after
