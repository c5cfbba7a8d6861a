from __future__ import annotations

from pathlib import Path

import pytest

from federation.errors import DeclarationError
from federation.regions import RegionTree
from tests.unit.declarations import REGIONS, changed

STREET, COMMUNITY = "110101001000,东华门街道,street,110101000000", "110101001002,银闸社区,community,110101001000"


def read(folder: Path, text: str, encoding: str = "utf-8") -> RegionTree:
    path = folder / "regions.csv"
    path.write_text(text, encoding=encoding)
    return RegionTree.read(path)


def refused(folder: Path, text: str, encoding: str = "utf-8") -> list[DeclarationError]:
    with pytest.raises(DeclarationError) as caught:
        read(folder, text, encoding)
    problems = [problem for problem in caught.value.problems if isinstance(problem, DeclarationError)] or [caught.value]
    for problem in problems:
        assert problem.zh and problem.todo
        assert problem.where["file"] == folder / "regions.csv"
    return problems


def test_the_tree_knows_who_lies_where(tmp_path: Path) -> None:
    tree = read(tmp_path, REGIONS)
    assert [region.code for region in tree.below("110000000000", "community")] == ["110101001001", "110101001002"]
    district = tree.ancestor("110101001002", "district")
    assert district is not None and district.name == "东城区"
    assert tree.ancestor("110101000000", "street") is None
    assert tree.routes("street") == dict.fromkeys(("110101001000", "110101001001", "110101001002"), "110101001000")


def test_a_table_saved_by_a_spreadsheet_program_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    assert len(read(tmp_path, REGIONS, "utf-8-sig")) == 6


@pytest.mark.parametrize(
    ("old", "new", "line", "region", "says"),
    [
        (STREET, STREET.replace("street", "town"), 5, "110101001000", "unknown level 'town'"),
        (COMMUNITY, COMMUNITY.replace("110101001000", "110101009000"), 7, "110101001002", "orphan region"),
        (COMMUNITY, COMMUNITY.replace("110101001000", ""), 7, "110101001002", "orphan region"),
        (COMMUNITY, COMMUNITY.replace("110101001000", "110101000000"), 7, "110101001002", "must be a street"),
        (COMMUNITY, COMMUNITY.replace("110101001002", "110101001001"), 7, "110101001001", "stands twice (first on line 6)"),
        (COMMUNITY, COMMUNITY.replace("110101001002", "1101010010"), 7, "1101010010", "is not 12 digits"),
        (COMMUNITY, COMMUNITY.replace("银闸社区", ""), 7, "110101001002", "has no name"),
        (COMMUNITY, "110101001002,银闸社区", 7, "110101001002", "unknown level"),
        ("北京市,city,", "北京市,city,110101000000", 2, "110000000000", "a city has no parent"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named(tmp_path: Path, old: str, new: str, line: int, region: str, says: str) -> None:
    problems = refused(tmp_path, changed(REGIONS, old, new))
    assert len(problems) == 1
    assert (problems[0].where["line"], problems[0].where["region"]) == (line, region)
    assert says in problems[0].en


def test_line_numbers_are_those_that_an_editor_shows_even_after_blank_lines(tmp_path: Path) -> None:
    text = changed(REGIONS, STREET, "\n\n" + STREET.replace("street", "town"))
    assert [problem.where["line"] for problem in refused(tmp_path, text)] == [7]


def test_all_bad_rows_are_told_at_once(tmp_path: Path) -> None:
    text = changed(changed(REGIONS, "110102000000,", "1101,"), COMMUNITY, COMMUNITY.replace("银闸社区", ""))
    assert [problem.where["line"] for problem in refused(tmp_path, text)] == [4, 7]


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    problem = refused(tmp_path, REGIONS.replace("parent", "上级"))[0]
    assert problem.where["line"] == 1 and "parent" in problem.en


def test_an_empty_table_is_an_error(tmp_path: Path) -> None:
    assert "is empty" in refused(tmp_path, "code,name,level,parent\n")[0].en


def test_a_table_in_another_encoding_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    problem = refused(tmp_path, REGIONS, "gb18030")[0]
    assert isinstance(problem.__cause__, UnicodeDecodeError)


def test_a_missing_table_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError) as caught:
        RegionTree.read(tmp_path / "none.csv")
    assert caught.value.where["file"] == tmp_path / "none.csv"


def test_asking_for_an_unknown_region_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match="110109000000"):
        read(tmp_path, REGIONS)["110109000000"]
