"""Files that people save are noticed at once; what a sync wrote itself is not taken for an edit."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from openpyxl import load_workbook

from connectors.base import Batch, Connector, no_keys
from connectors.registry import CONNECTORS, connector_class
from federation.config import load
from federation.federation import Federation
from federation.runtime import open_federation, watched
from federation.uploads import FILE_CONNECTORS, Watcher, news_at
from tests.federations import CITY, E11, E12, EAST, EAST_1, REGIONS, RESIDENT, SUITE, written

TOP = f"""
name: small
systems:
  books: {{connector: workbook, options: {{path: "{{home}}/books/{{region}}.xlsx"}}}}
  far: {{connector: workbook, options: {{path: "s3://bucket/{{region}}.xlsx", access: {{key: {{env: NOT_SET}}, secret: {{env: NOT_SET}}}}}}}}
nodes:
  - {{system: books, regions: ["{E11}", "{E12}"], datasets: {{resident: {{}}}}}}
  - {{system: far, regions: ["110102001001"], datasets: {{resident: {{}}}}}}
"""


def aged(path: Path) -> Path:
    """A file that nobody saved lately."""
    long_ago = time.time() - 86_400
    os.utime(path, (long_ago, long_ago))
    return path


@pytest.fixture
def declared(tmp_path: Path) -> Path:
    files = {"federation.yaml": TOP, "regions.csv": REGIONS, "datasets/resident.yaml": RESIDENT}
    return written(tmp_path, {**files, "expectations/resident.json": SUITE})


@pytest.fixture
def federation(declared: Path) -> Iterator[Federation]:
    opened = open_federation(declared)
    yield opened
    opened.close()


def test_a_file_is_news_once_it_was_saved_and_has_been_at_rest_for_one_look(tmp_path: Path) -> None:
    book = tmp_path / "book.xlsx"
    book.write_text("one")
    watcher = Watcher({E11: aged(book)})
    assert watcher.look() == []
    book.write_text("two, being saved")
    assert watcher.look() == []
    book.write_text("two, and done")
    assert watcher.look() == []
    assert watcher.look() == [E11]
    assert watcher.look() == []


def test_a_file_that_appears_and_one_that_goes_are_news(tmp_path: Path) -> None:
    book = tmp_path / "book.xlsx"
    watcher = Watcher({E11: book})
    assert (watcher.look(), watcher.look()) == ([], [])
    book.write_text("one")
    assert (watcher.look(), watcher.look()) == ([], [E11])
    book.unlink()
    assert (watcher.look(), watcher.look()) == ([], [E11])


def test_what_was_saved_just_before_the_first_look_counts_as_nobody_may_have_looked_then(tmp_path: Path) -> None:
    old, new = tmp_path / "old.xlsx", tmp_path / "new.xlsx"
    old.write_text("one")
    new.write_text("one")
    watcher = Watcher({E11: aged(old), E12: new})
    assert (watcher.look(), watcher.look(), watcher.look()) == ([], [E12], [])


def test_a_file_dropped_into_a_sub_folder_of_a_drop_folder_is_news(tmp_path: Path) -> None:
    day = tmp_path / "drop" / "2026-11-25"
    day.mkdir(parents=True)
    aged(day)
    aged(tmp_path / "drop")
    watcher = Watcher({E11: tmp_path / "drop"})
    assert watcher.look() == []
    (day / "part.parquet").write_text("x")
    assert (watcher.look(), watcher.look()) == ([], [E11])


def test_another_declaration_keeps_what_is_known_of_places_that_stay(tmp_path: Path) -> None:
    stays, comes = tmp_path / "stays.xlsx", tmp_path / "comes.xlsx"
    for book in (stays, comes):
        book.write_text("one")
        aged(book)
    watcher = Watcher({E11: stays})
    watcher.look()
    stays.write_text("two")
    watcher.look()
    watcher = watcher.moved_to({E11: stays, E12: comes})
    assert watcher.look() == [E11]
    comes.write_text("two")
    assert (watcher.look(), watcher.look()) == ([], [E12])


def test_nodes_that_are_files_of_this_machine_are_watched_without_any_secret(declared: Path) -> None:
    books = declared.resolve() / "books"
    assert watched(load(declared), "resident") == {E11: books / f"{E11}.xlsx", E12: books / f"{E12}.xlsx"}


def test_the_connectors_that_may_be_watched_are_those_that_say_so() -> None:
    base = Connector.watched.__func__  # type: ignore[attr-defined]
    telling = [word for word in CONNECTORS if connector_class(word).watched.__func__ is not base]  # type: ignore[attr-defined]
    assert telling == list(FILE_CONNECTORS)


def test_only_a_file_with_something_new_is_news_and_not_what_a_sync_wrote_into_it(
    federation: Federation, declared: Path
) -> None:
    put(federation, "R1")
    federation.cascade("resident")
    book = declared / "books" / f"{E11}.xlsx"
    assert news_at(federation, "resident", [E11]) == []
    put(federation, "R2")
    for upper in (CITY, EAST, EAST_1):
        federation.sync_parent("resident", upper)
    assert len(rows(book)) == 2
    assert news_at(federation, "resident", [E11, E12]) == []
    type_phone(book, "13900000009")
    assert news_at(federation, "resident", [E11, E12]) == [E11]


def test_a_file_that_nobody_can_read_is_news_so_that_its_run_tells_why(federation: Federation, declared: Path) -> None:
    put(federation, "R1")
    federation.cascade("resident")
    (declared / "books" / f"{E11}.xlsx").write_bytes(b"half a workbook")
    assert news_at(federation, "resident", [E11]) == [E11]


def put(federation: Federation, key: str) -> None:
    """A resident appears in the city's register."""
    row = {"resident_id": key, "name": "王伟", "id_number": "1", "community_code": E11, "phone": "13800000000"}
    with federation.node("resident", CITY) as node:
        node.prepare()
        node.apply(Batch((pa.table({name: [value] for name, value in row.items()}),), no_keys(node.node)))


def rows(book: Path) -> list[tuple[object, ...]]:
    """What stands below the header."""
    sheet = load_workbook(book)["数据"]
    return [line for line in sheet.iter_rows(min_row=2, values_only=True) if any(line)]


def type_phone(book: Path, phone: str) -> None:
    """Somebody at the community corrects a phone number and saves."""
    opened = load_workbook(book)
    sheet = opened["数据"]
    column = next(cell.column for cell in sheet[1] if str(cell.value).startswith("手机号"))
    sheet.cell(2, column).value = phone
    opened.save(book)
