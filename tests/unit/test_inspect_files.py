"""Inspecting drop folders, workbooks and APIs: what people, and other systems, have done to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pytest

from connectors.base import Capabilities, Node
from connectors.findings import Finding, of_error, strategy
from connectors.parquet import ParquetConnector
from connectors.rest import RestConnector
from connectors.workbook import WorkbookConnector
from federation.errors import AccessDenied, Permanent, SchemaMismatch
from tests.parquet_drop import drop
from tests.scripted_http import Request, Say, scripted
from tests.unit.rest_sample import PEOPLE, REGION, node, person


def troubles(found: list[Finding]) -> list[tuple[str, str, str]]:
    return [(one.area, one.state, one.en) for one in found if one.state != "ok"]


def test_whatever_is_wrong_comes_with_its_place_and_what_to_do() -> None:
    found = of_error(Permanent("it is gone", "不见了", file="/a/b.xlsx", region="1101"))
    assert (found.area, found.en) == ("reach", "it is gone [file=/a/b.xlsx]") and found.todo
    bare = Capabilities("cursor", present=False, conditional=False, checks=False, writes=False)
    every = [*strategy(bare, PEOPLE), *strategy(replace(bare, writes=True), PEOPLE)]
    assert [one.en for one in every if one.state != "ok" and not one.todo] == []


# --- drop folders


def dropped(folder: Path, **options: Any) -> ParquetConnector:
    return ParquetConnector(Node(PEOPLE, REGION, "drops", {"path": str(folder), **options}, tuple(PEOPLE.fields)))


def columns(*names: str) -> pa.Table:
    return pa.table({name: pa.array([], pa.string()) for name in names})


def test_a_sound_drop_folder_has_nothing_against_it(tmp_path: Path) -> None:
    drop(tmp_path, "dt=2026-01-31", "full", [columns(*PEOPLE.fields)])
    found = list(dropped(tmp_path).inspect())
    assert troubles(found) == []
    assert {one.area for one in found} == {"reach", "credentials", "rights", "schema", "capture", "strategy"}


def test_a_drop_folder_that_holds_nothing_to_read_is_no_sound_one(tmp_path: Path) -> None:
    drop(tmp_path, "day=2026-01-31", "full", [columns(*PEOPLE.fields)])
    ((area, state, en),) = troubles(list(dropped(tmp_path).inspect()))
    assert (area, state) == ("schema", "warn") and "day=2026-01-31" in en


def test_a_partition_without_its_manifest_is_told(tmp_path: Path) -> None:
    drop(tmp_path, "dt=2026-01-31", "full", [columns(*PEOPLE.fields)], manifest=False)
    ((area, state, en),) = troubles(list(dropped(tmp_path).inspect()))
    assert (area, state) == ("schema", "warn") and "dt=2026-01-31" in en and "_manifest.json" in en


def test_a_column_that_a_full_partition_lacks_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    lost, *kept = reversed(PEOPLE.fields)
    drop(tmp_path, "dt=2026-01-31", "full", [columns(*kept)])
    ((area, state, en),) = troubles(list(dropped(tmp_path).inspect()))
    assert (area, state) == ("schema", "fail") and lost in en and kept[0] in en


def test_a_drop_folder_that_is_only_read_needs_no_right_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(tmp_path, "dt=2026-01-31", "full", [columns(*PEOPLE.fields)])
    monkeypatch.setattr("connectors.parquet_inspect.may", lambda path, mode: False)
    assert ("rights", "fail") in [one[:2] for one in troubles(list(dropped(tmp_path).inspect()))]
    assert "rights" not in [one[0] for one in troubles(list(dropped(tmp_path, read_only=True).inspect()))]


# --- workbooks


def workbook(path: Path) -> WorkbookConnector:
    made = WorkbookConnector(Node(PEOPLE, REGION, "ledger", {"path": str(path)}, tuple(PEOPLE.fields)))
    if not path.exists():
        made.prepare()
    return made


def edit(path: Path, change: Callable[[Any], None]) -> None:
    book = openpyxl.load_workbook(path)
    change(book["数据"])
    book.save(path)


def test_a_sound_workbook_has_nothing_against_it_and_stays_as_it_is(tmp_path: Path) -> None:
    made = workbook(tmp_path / "a.xlsx")
    before = (tmp_path / "a.xlsx").read_bytes()
    assert troubles(list(made.inspect())) == []
    assert (tmp_path / "a.xlsx").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_missing_file_is_raised_as_a_probe_would(tmp_path: Path) -> None:
    made = workbook(tmp_path / "a.xlsx")
    (tmp_path / "a.xlsx").unlink()
    with pytest.raises(SchemaMismatch):
        made.inspect()
    assert list(tmp_path.iterdir()) == []


def test_a_renamed_column_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    made = workbook(tmp_path / "a.xlsx")

    def rename(sheet: Any) -> None:
        for row in sheet.iter_rows():
            for cell in row:
                if cell.value == "手机号":
                    cell.value = "联系方式"

    edit(tmp_path / "a.xlsx", rename)
    ((area, state, en),) = troubles(list(made.inspect()))
    assert (area, state) == ("schema", "fail") and "手机号" in en


def test_a_renamed_key_is_raised_as_a_read_would(tmp_path: Path) -> None:
    made = workbook(tmp_path / "a.xlsx")

    def rename(sheet: Any) -> None:
        for row in sheet.iter_rows():
            for cell in row:
                if cell.value == "编号":
                    cell.value = "序号"

    edit(tmp_path / "a.xlsx", rename)
    with pytest.raises(SchemaMismatch):
        made.inspect()


def test_a_workbook_that_somebody_has_open_can_be_read_but_not_written_now(tmp_path: Path) -> None:
    made = workbook(tmp_path / "a.xlsx")
    (tmp_path / "~$a.xlsx").write_bytes(b"")
    ((area, state, en),) = troubles(list(made.inspect()))
    assert (area, state) == ("rights", "warn") and "open" in en


def test_rows_that_would_be_set_aside_are_counted_by_their_fault(tmp_path: Path) -> None:
    made = workbook(tmp_path / "a.xlsx")
    first = openpyxl.load_workbook(tmp_path / "a.xlsx")["数据"].max_row + 1

    def fill(sheet: Any) -> None:
        for number, key in enumerate(("A", "A", "B")):
            sheet.cell(first + number, 1, key)
            sheet.cell(first + number, 2, "110101001001")

    edit(tmp_path / "a.xlsx", fill)
    ((area, state, en),) = troubles(list(made.inspect()))
    assert (area, state) == ("schema", "fail") and "2 row(s)" in en and "key:duplicate" in en


# --- APIs


def api(answer: Callable[[Request], Any], **options: Any) -> tuple[list[Finding], list[Request]]:
    with scripted(answer) as server:
        made = RestConnector(
            node(server.url, **{"upsert": {"method": "PATCH"}, "delete": {"method": "DELETE"}, **options})
        )
        try:
            return list(made.inspect()), server.asked
        finally:
            made.close()


def sound(request: Request) -> Say:
    if request.method == "OPTIONS":
        return Say(204, headers={"Allow": "GET, PATCH, DELETE"}, body=b"")
    if request.path == "/state":
        return Say(body={"version": 7})
    return Say(body=[person("P1", phone="13800000000"), person("P2", phone="1")])


STATE = {"state": {"path": "/state", "field": "version"}}


def test_a_sound_api_is_only_asked_never_written_to() -> None:
    found, asked = api(sound, **STATE)
    assert [one for one in troubles(found) if one[0] != "strategy"] == []
    assert {request.method for request in asked} == {"GET", "OPTIONS"}
    assert "/people/P1" in {request.path for request in asked if request.method == "OPTIONS"}


def test_a_method_that_the_api_does_not_allow_is_told() -> None:
    def answer(request: Request) -> Say:
        return Say(204, headers={"Allow": "GET, PATCH"}, body=b"") if request.method == "OPTIONS" else sound(request)

    found, _ = api(answer, **STATE)
    assert [one[2].split(":")[0] for one in troubles(found) if one[1] == "fail"] == ["no right to DELETE /people/{key}"]


@pytest.mark.parametrize("status", [404, 405, 501, 500])
def test_an_api_that_does_not_know_the_question_has_not_said_no(status: int) -> None:
    found, _ = api(lambda request: Say(status) if request.method == "OPTIONS" else sound(request), **STATE)
    rights = [one for one in troubles(found) if one[0] == "rights"]
    assert [one[1] for one in rights] == ["warn"] and "cannot be told" in rights[0][2]


def test_a_wrong_token_is_raised_as_a_probe_would() -> None:
    with pytest.raises(AccessDenied):
        api(lambda request: Say(401))


def test_missing_columns_bad_values_and_a_missing_state_are_told() -> None:
    def answer(request: Request) -> Say:
        if request.method == "OPTIONS":
            return sound(request)
        if request.path == "/state":
            return Say(body={"revision": 7})
        return Say(
            body=[
                {"id": "P1", "area": "110101001001", "fullname": "王伟", "phone": "1"},
                {"id": "P1", "area": "110101001001"},
            ]
        )

    found, _ = api(answer, **STATE)
    fails = {(area, en.split(" (")[0]) for area, state, en in troubles(found) if state == "fail"}
    assert ("schema", "lacks the column name") in fails
    assert ("capture", "the answer has no version") in fails
    assert any(area == "schema" and "key:duplicate" in en for area, _, en in troubles(found))


def test_an_answer_without_a_list_of_records_is_told() -> None:
    found, _ = api(
        lambda request: sound(request) if request.method == "OPTIONS" else Say(body={"data": {}, "version": 1}),
        **STATE,
        records="data.items",
    )
    assert any(area == "schema" and "data.items" in en for area, _, en in troubles(found))


@pytest.mark.parametrize(("minutes", "state"), [(0, "ok"), (10, "warn"), (-200, "fail")])
def test_the_servers_clock_is_compared_with_ours(minutes: int, state: str) -> None:
    def answer(request: Request) -> Say:
        said = sound(request)
        moment = datetime.now(UTC) + timedelta(minutes=minutes)
        return Say(said.status, said.body, said.headers, date=format_datetime(moment, usegmt=True))

    found, _ = api(answer, **STATE)
    assert [one.state for one in found if one.area == "clock"] == [state]


def test_a_node_that_others_write_to_needs_a_way_to_be_written_to() -> None:
    found, _ = api(sound, upsert=None, delete=None, **STATE)
    assert [one[2] for one in troubles(found) if one[:2] == ("rights", "fail")] == [
        "`upsert` is not declared, and records come here from elsewhere"
    ]
