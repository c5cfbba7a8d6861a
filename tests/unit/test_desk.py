"""The corrections desk where a system has ways of its own, and columns that a system has lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook

from connectors import sql_sqlite
from connectors.base import Connector, Node
from connectors.companion import CompanionConnector
from connectors.hosted import HostedConnector
from connectors.memory import STORES, MemoryConnector
from connectors.sql import SqlConnector
from connectors.workbook import WorkbookConnector, WorkbookOptions
from federation.contract import Dataset
from federation.errors import AccessDenied, Permanent, SchemaMismatch, Transient
from federation.regions import Region
from tests.contract import desk
from tests.contract.dataset import REGION, SAMPLE, make_node, row
from tests.contract.sealed import KEY
from tests.scripted_http import Request, Say, scripted
from tests.unit.rest_sample import PEOPLE, patient, person, rest

DESK = {
    "corrections": {
        "show": {"method": "POST", "path": "{path}/desk"},
        "rulings": {"path": "/desk/rulings", "records": "data.list"},
    }
}
PERSON_LINE = {**{name: value for name, value in desk.line("a1", "").items() if name != "record_id"}, "id": "R1"}
SHOWN = desk.corrections(PEOPLE, PERSON_LINE)


# --- in a database -------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A database in which people already keep their table."""
    path = tmp_path / "system.db"
    run(path, "CREATE TABLE ledger (record_id TEXT PRIMARY KEY, community_code TEXT, note TEXT, visits INTEGER)")
    return path


def run(path: Path, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement, values).fetchall()


def sql(path: Path, *, dataset: Dataset = SAMPLE, region: Region = REGION, **options: Any) -> SqlConnector:
    given = {"url": f"sqlite:///{path}", "table": "ledger", "corrections": "desk", **options}
    fields = tuple(name for name in ("record_id", "community_code", "note", "visits") if name in dataset.fields)
    return SqlConnector(make_node(dataset, given, fields=fields, region=region))


def test_the_table_of_corrections_is_created_even_where_the_data_table_is_not_ours_to_create(file: Path) -> None:
    sql(file).prepare()
    sql(file).prepare()
    assert [name for (name,) in run(file, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")] == [
        "desk",
        "ledger",
    ]


def test_without_a_table_for_them_a_database_shows_no_corrections(file: Path) -> None:
    connector = sql(file, corrections=None)
    connector.prepare()
    assert not connector.capabilities.corrections and not connector.rulings().num_rows
    with pytest.raises(NotImplementedError):
        connector.show_corrections(desk.corrections(SAMPLE))


def test_a_table_that_is_not_one_of_corrections_is_named_and_left_alone(file: Path) -> None:
    run(file, "INSERT INTO ledger VALUES ('R1', ?, '一', 1)", REGION.code)
    connector = sql(file, corrections="ledger")
    connector.prepare()
    for step in (lambda: connector.show_corrections(desk.corrections(SAMPLE)), connector.rulings):
        with pytest.raises(SchemaMismatch, match="correction_id") as caught:
            step()
        assert caught.value.where["table"] == "ledger"
    assert len(run(file, "SELECT * FROM ledger")) == 1


def test_a_table_of_corrections_that_somebody_dropped_is_a_mismatch(file: Path) -> None:
    with pytest.raises(SchemaMismatch) as caught:
        sql(file).show_corrections(desk.corrections(SAMPLE, desk.line("a1", "R1")))
    assert caught.value.where["table"] == "desk" and caught.value.__cause__ is not None


def test_nodes_that_share_a_table_of_corrections_leave_each_others_lines_alone(file: Path) -> None:
    other = Region("110101001002", "乙社区", "community", "110101001000")
    sql(file).prepare()
    sql(file).show_corrections(desk.corrections(SAMPLE, desk.line("a1", "R1"), desk.line("b2", "R2")))
    sql(file, region=other).show_corrections(desk.corrections(SAMPLE, desk.line("a1", "R1")))
    run(file, "UPDATE desk SET ruling = '采纳' WHERE region = ?", other.code)
    assert (sql(file).rulings().num_rows, sql(file, region=other).rulings().num_rows) == (0, 1)
    sql(file).show_corrections(desk.corrections(SAMPLE))
    assert run(file, "SELECT region, ruling FROM desk") == [(other.code, "采纳")]


def test_a_key_column_named_like_one_of_the_desk_is_shown_under_another_name(file: Path) -> None:
    node = make_node(SAMPLE, {"url": f"sqlite:///{file}", "corrections": "desk"}, columns={"record_id": "Kind"})
    connector = SqlConnector(node)
    connector.prepare()
    connector.show_corrections(desk.corrections(SAMPLE, desk.line("a1", "R1")))
    assert run(file, "SELECT record_Kind, kind FROM desk") == [("R1", "edit")]


def test_in_a_large_sqlite_table_only_what_is_really_written_changes_the_token(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_sqlite, "HASHED_ROWS", 1)
    for number in range(2):
        run(file, "INSERT INTO ledger VALUES (?, ?, '一', 1)", f"R{number}", REGION.code)
    lines = desk.corrections(SAMPLE, desk.line("a1", "R1"))
    connector = sql(file)
    connector.prepare()
    connector.show_corrections(lines)
    token = connector.probe().token
    assert token is not None and sql_sqlite.STAMPED in token
    connector.show_corrections(lines)
    connector.rulings()
    connector.prepare()
    assert connector.probe().token == token


# --- behind HTTP ---------------------------------------------------------------------------------------------------


def test_all_corrections_go_to_the_api_in_one_write_with_the_keys_that_it_knows() -> None:
    with scripted(lambda _: Say(204)) as server:
        rest(server.url, **DESK, times="milliseconds").show_corrections(SHOWN)
        rest(server.url, **DESK).show_corrections(SHOWN.slice(0, 0))
    first, second = server.asked
    assert (first.method, first.path, second.body) == ("POST", "/people/desk", [])
    (line,) = first.body
    assert (line["id"], line["correction_id"], line["raised"], line["due"]) == (
        "R1",
        desk.name("a1"),
        int(desk.RAISED.timestamp() * 1000),
        "2026-03-16",
    )
    assert first.headers["Authorization"] == "Bearer t" and first.headers["Idempotency-Key"]


def test_showing_and_asking_are_tried_again_with_the_same_idempotency_key() -> None:
    answers: Iterator[Say] = iter(
        [Say(503), Say(200, {}), Say(429), Say(200, {"data": {"list": [{"correction_id": "c", "ruling": "驳回"}]}})]
    )
    with scripted(lambda _: next(answers)) as server:
        connector = rest(server.url, retrier=patient([]), **DESK)
        connector.show_corrections(SHOWN)
        assert connector.rulings().to_pylist() == [{"correction_id": "c", "ruling": "reject", "reason": None}]
    once = {request.headers["Idempotency-Key"] for request in server.asked[:2]}
    assert len(once) == 1 and [request.path for request in server.asked[2:]] == ["/desk/rulings"] * 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Say(200, {"code": 0, "data": {"list": None}}), SchemaMismatch),
        (Say(200, {"code": 0, "data": {"list": ["c"]}}), SchemaMismatch),
        (Say(200, {"code": 0}), SchemaMismatch),
        (Say(200, {"code": 401}), AccessDenied),
        (Say(404), SchemaMismatch),
        (Say(422), Permanent),
        (Say(500), Transient),
    ],
)
def test_an_answer_without_rulings_is_never_taken_for_none(answer: Say, kind: type[Exception]) -> None:
    with scripted(lambda _: answer) as server, pytest.raises(kind):
        rest(server.url, **DESK, success={"field": "code", "values": [0]}).rulings()


def test_without_a_declared_desk_an_api_shows_no_corrections() -> None:
    connector = rest("http://127.0.0.1:9")
    assert not connector.capabilities.corrections and not connector.rulings().num_rows
    with pytest.raises(NotImplementedError):
        connector.show_corrections(SHOWN)


# --- in a file -----------------------------------------------------------------------------------------------------


def test_an_old_workbook_has_no_desk_and_the_engines_sheets_are_no_place_for_data(tmp_path: Path) -> None:
    assert not WorkbookConnector(make_node(SAMPLE, {"path": str(tmp_path / "a.xls")})).capabilities.corrections
    for sheet in ("校核", "退回待改"):
        with pytest.raises(ValueError, match="own sheets"):
            WorkbookOptions(path=tmp_path / "a.xlsx", sheet=sheet)


# --- columns that are gone -----------------------------------------------------------------------------------------


def memory(name: str, capture: str = "snapshot", fields: tuple[str, ...] | None = None) -> MemoryConnector:
    return MemoryConnector(make_node(SAMPLE, {"store": name, "capture": capture}, fields=fields))


@pytest.fixture
def store() -> Iterator[str]:
    yield "unit/desk"
    STORES.pop("unit/desk", None)


@pytest.mark.parametrize("capture", ["snapshot", "cursor", "log"])
def test_a_memory_store_that_lost_a_column_says_so_at_every_whole_read(store: str, capture: str) -> None:
    connector = memory(store, capture)
    connector.store.put("R1", row("R1", note="一"))
    connector.store.put("R2", row("R2"))
    cursor = connector.changes(None).cursor
    assert not connector.changes(None).missing, "a field that no row ever had is no lost column"
    connector.store.rows["R1"].pop("note")
    assert memory(store, capture).changes(None).missing == {"note"}
    assert connector.changes(None).missing == {"note"}
    if capture != "snapshot":
        assert not connector.changes(cursor).missing


def test_a_memory_store_whose_only_row_with_a_value_was_deleted_lost_no_column(store: str) -> None:
    connector = memory(store)
    connector.store.put("R1", row("R1", note="一"))
    connector.store.put("R2", row("R2"))
    connector.changes(None)
    connector.store.drop("R1")
    assert not connector.changes(None).missing


def test_an_api_that_leaves_a_column_out_of_every_record_of_a_whole_read_says_so() -> None:
    records = [{"id": "R1", "area": "a", "name": "甲", "modified": "2026-01-01T00:00:00Z"}]
    since = {"parameter": "since", "field": "modified", "overlap_seconds": 0}

    def answer(request: Request) -> Say:
        return Say(body=records)

    with scripted(answer) as server:
        connector = rest(server.url, omits_nulls=True, changed_since=since, keys={})
        found = connector.changes(None)
        assert found.missing == {"phone"}
        assert not connector.changes(found.cursor).missing, "what changed may well lack a column that others have"
        records.append(person("R2", phone="1"))
        assert not connector.changes(None).missing
        records.clear()
        assert not rest(server.url, omits_nulls=True).changes(None).missing


def test_a_workbook_that_is_read_without_a_column_says_so_until_prepare_adds_it(tmp_path: Path) -> None:
    path = tmp_path / "台账.xlsx"
    connector = WorkbookConnector(make_node(SAMPLE, {"path": str(path)}))
    connector.prepare()
    assert not connector.changes(None).missing
    book = load_workbook(path)
    (at,) = [cell.column for cell in book["数据"][1] if cell.value == "姓名"]
    book["数据"].delete_cols(at)
    book.save(path)
    assert connector.changes(None).missing == {"name"}
    connector.prepare()
    assert not connector.changes(None).missing


def test_a_companion_passes_on_what_its_system_lost_but_not_what_it_keeps_itself(store: str, tmp_path: Path) -> None:
    def part(options: dict[str, Any], *fields: str) -> Node:
        return make_node(SAMPLE, options, fields=fields)

    main = MemoryConnector(part({"store": store}, "record_id", "community_code", "name"))
    url = f"sqlite:///{tmp_path / 'hosted.db'}"
    side = HostedConnector(part({"url": url, "part": "companion", "keys": (KEY,)}, "record_id", "note"))
    both: Connector = CompanionConnector(part({}, "record_id", "community_code", "name", "note"), main, side)
    both.prepare()
    main.store.put("R1", row("R1", name="甲", note="一"))
    both.changes(None)
    for name in ("name", "note"):
        main.store.rows["R1"].pop(name)
    assert both.changes(None).missing == {"name"}
