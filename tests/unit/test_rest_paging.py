from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

import pytest

from connectors.rest_json import MISSING, dig
from federation.contract import Dataset
from federation.errors import Permanent, SchemaMismatch, Transient
from tests.scripted_http import Request, Say, scripted
from tests.unit.rest_sample import PEOPLE, deletes, ids, keys, person, rest, upserts

START = datetime(2026, 1, 1, 8, tzinfo=UTC)


def rows(count: int) -> list[dict[str, Any]]:
    return [person(f"R{number:03}") for number in range(count)]


class Listing:
    """A list that pages in each way; `after` runs after each request, as other people's work does. `cap`: largest page."""

    def __init__(self, records: list[dict[str, Any]], cap: int = 10) -> None:
        self.records = records
        self.cap = cap
        self.after: Callable[[int], None] = lambda _: None
        self.requests = 0

    def __call__(self, request: Request) -> Say:
        query = request.query
        size = min(int(query.get("size", self.cap)), self.cap)
        start = int(query["offset"]) if "offset" in query else (int(query.get("page", "1")) - 1) * size
        start = int(query.get("after", start))
        picked = list(self.records)
        if "since" in query:
            picked = [
                row for row in picked if datetime.fromisoformat(row["at"]) >= datetime.fromisoformat(query["since"])
            ]
        shown, end = picked[start : start + size], start + size
        more = end < len(picked)
        body = {"items": shown, "total": len(picked), "next": str(end) if more else None}
        headers = {"Link": f'</people?after={end}>; rel="next", </>; rel="first"'} if more else {}
        self.requests += 1
        self.after(self.requests)
        return Say(body=body, headers=headers)


PAGING: dict[str, dict[str, Any]] = {
    "page": {"kind": "page", "parameter": "page", "size_parameter": "size", "size": 50},
    "page with total": {"kind": "page", "parameter": "page", "size_parameter": "size", "size": 50, "total": "total"},
    "offset": {"kind": "offset", "parameter": "offset", "size_parameter": "size", "size": 50},
    "offset with total": {"kind": "offset", "parameter": "offset", "size_parameter": "size", "total": "total"},
    "cursor": {"kind": "cursor", "parameter": "after", "next": "next", "total": "total"},
    "link": {"kind": "link", "total": "total"},
}


@pytest.mark.parametrize("count", [0, 1, 2, 9, 10, 11, 35])
@pytest.mark.parametrize("kind", PAGING)
def test_each_kind_of_paging_reads_every_row_though_the_server_caps_the_size(kind: str, count: int) -> None:
    with scripted(Listing(rows(count))) as server:
        found = rest(server.url, records="items", paging=PAGING[kind]).changes(None)
    assert found.rows.num_rows == count and found.rejects.num_rows == 0
    assert found.present is not None and found.present.num_rows == count


def test_an_api_without_pages_is_read_in_one_request() -> None:
    with scripted(lambda _: Say(body=rows(7))) as server:
        assert rest(server.url).changes(None).rows.num_rows == 7
        assert len(server.asked) == 1


def test_a_next_address_in_the_body_is_followed() -> None:
    def answer(request: Request) -> Say:
        second = "p" in request.query
        return Say(body={"items": [person("R2" if second else "R1")], "links": {"next": None if second else "?p=2"}})

    with scripted(answer) as server:
        found = rest(server.url, records="items", paging={"kind": "link", "next": "links.next"}).changes(None)
    assert ids(found.rows) == ["R1", "R2"]


@pytest.mark.parametrize("kind", ["page", "offset"])
def test_a_server_that_repeats_its_last_page_forever_does_not_trap_the_reader(kind: str) -> None:
    listing = rows(25)

    def answer(request: Request) -> Say:
        start = int(request.query["offset"]) if kind == "offset" else (int(request.query["page"]) - 1) * 10
        return Say(body={"items": listing[min(start, 15) :][:10]})

    with scripted(answer) as server:
        found = rest(server.url, records="items", paging=PAGING[kind]).changes(None)
        assert found.rows.num_rows == 25 and len(server.asked) < 10


def test_a_server_that_repeats_its_cursor_is_an_error() -> None:
    with scripted(lambda _: Say(body={"items": rows(1), "next": "x"})) as server, pytest.raises(Permanent):
        rest(server.url, records="items", paging=PAGING["cursor"]).changes(None)


@pytest.mark.parametrize("kind", ["page", "page with total", "offset", "offset with total"])
def test_rows_inserted_before_the_reader_lose_nothing_and_are_no_duplicates(kind: str) -> None:
    listing = Listing(rows(35))

    def insert(request: int) -> None:
        if request <= 3:
            listing.records[:0] = [person(f"A{request}{number}") for number in range(4)]

    listing.after = insert
    with scripted(listing) as server:
        found = rest(server.url, records="items", sort={"sort": "id"}, paging=PAGING[kind]).changes(None)
        assert all(request.query["sort"] == "id" for request in server.asked)
    assert {f"R{number:03}" for number in range(35)} <= set(ids(found.rows))
    assert found.rejects.num_rows == 0


@pytest.mark.parametrize("kind", ["page", "offset"])
def test_a_whole_page_inserted_at_once_is_not_taken_for_the_end(kind: str) -> None:
    listing = Listing(rows(35))
    listing.after = lambda n: listing.records.__setitem__(slice(0, 0), rows_named("A", 10)) if n == 1 else None
    with scripted(listing) as server:
        found = rest(server.url, records="items", paging=PAGING[kind]).changes(None)
    assert {f"R{number:03}" for number in range(35)} <= set(ids(found.rows))


def rows_named(prefix: str, count: int) -> list[dict[str, Any]]:
    return [person(f"{prefix}{number:03}") for number in range(count)]


@pytest.mark.parametrize("gone", [1, 3, 10])
@pytest.mark.parametrize("kind", ["offset", "offset with total"])
def test_rows_deleted_before_the_reader_let_no_other_row_slip_through(kind: str, gone: int) -> None:
    listing = Listing(rows(45))
    listing.after = lambda n: listing.records.__delitem__(slice(0, gone)) if n in (2, 4) else None
    with scripted(listing) as server:
        found = rest(server.url, records="items", paging=PAGING[kind]).changes(None)
    assert {row["id"] for row in listing.records} <= set(ids(found.rows))


def test_a_list_that_is_emptied_while_it_is_read_ends() -> None:
    listing = Listing(rows(45))
    listing.after = lambda n: listing.records.clear() if n == 2 else None
    with scripted(listing) as server:
        rest(server.url, records="items", paging=PAGING["offset"]).changes(None)
        assert len(server.asked) < 10


def test_a_total_that_shrinks_stops_a_read_by_page_number() -> None:
    listing = Listing(rows(45))
    listing.after = lambda n: listing.records.__delitem__(0) if n == 2 else None
    with scripted(listing) as server:
        connector = rest(server.url, records="items", paging=PAGING["page with total"])
        with pytest.raises(Transient, match="deleted"):
            connector.changes(None)
        assert connector.changes(None).rows.num_rows == 44


def test_of_a_row_on_two_pages_the_last_one_read_wins() -> None:
    def answer(request: Request) -> Say:
        page = request.query["page"]
        records = {"1": [person("R1", phone="old"), person("R2")], "2": [person("R1", phone="new")]}.get(page, [])
        return Say(body={"items": records})

    with scripted(answer) as server:
        found = rest(server.url, records="items", paging=PAGING["page"]).changes(None)
    assert found.rejects.num_rows == 0
    assert {row["id"]: row["phone"] for row in found.rows.to_pylist()} == {"R1": "new", "R2": None}


def test_a_key_twice_on_one_page_is_two_rows_and_neither_is_trusted() -> None:
    with scripted(lambda _: Say(body=[person("R1"), person("R1", phone="1"), person("R2")])) as server:
        found = rest(server.url).changes(None)
    assert ids(found.rows) == ["R2"] and found.rejects.num_rows == 2
    assert found.rejects.column("locator").to_pylist() == ["/people 第 1 条", "/people 第 2 条"]
    assert found.present is not None and ids(found.present) == ["R1", "R2"]


# Capture by time of change

CHANGED = {"parameter": "since", "field": "at", "overlap_seconds": 300}


def changed(key: str, minutes: float, **values: Any) -> dict[str, Any]:
    return person(key, at=(START + timedelta(minutes=minutes)).isoformat(), **values)


def delta(url: str, **options: Any) -> Any:
    given = {"records": "items", "paging": PAGING["page with total"], "changed_since": CHANGED, **options}
    return rest(url, **given)


def moment(cursor: str | None) -> datetime:
    assert cursor is not None
    return datetime.fromisoformat(cursor)


def test_the_cursor_is_the_newest_change_less_the_overlap_whatever_our_clock_says() -> None:
    listing = Listing([changed("R1", 0), changed("R2", 60)])
    with scripted(listing) as server:
        connector = delta(server.url)
        assert connector.capabilities.capture == "cursor" and not connector.capabilities.cheap_sweep
        first = connector.changes(None)
        assert moment(first.cursor) == START + timedelta(minutes=55)
        listing.records.append(changed("R3", 58))
        second = connector.changes(first.cursor, sweep=False)
        assert ids(second.rows) == ["R2", "R3"] and second.present is None, "R3 was committed late, and is not lost"
        assert second.cursor == first.cursor


def test_an_empty_answer_leaves_the_cursor_where_it_was() -> None:
    listing = Listing([changed("R1", 0)])
    with scripted(listing) as server:
        connector = delta(server.url)
        cursor = connector.changes(None).cursor
        listing.records.clear()
        found = connector.changes(cursor, sweep=False)
        assert (found.rows.num_rows, found.cursor) == (0, cursor)
        assert connector.changes(None).cursor is None


def test_the_cursor_never_goes_back() -> None:
    listing = Listing([changed("R1", 0), changed("R2", 60)])
    with scripted(listing) as server:
        connector = delta(server.url)
        cursor = connector.changes(None).cursor
        del listing.records[1]
        assert connector.changes(cursor, sweep=True).cursor == cursor


def test_a_time_of_change_in_the_future_does_not_carry_the_cursor_away() -> None:
    now = datetime.now(UTC)
    listing = Listing([changed("R1", 0), person("R2", at="2099-01-01T00:00:00+08:00")])
    with scripted(listing) as server:
        cursor = moment(delta(server.url).changes(None).cursor)
    assert abs(cursor + timedelta(seconds=300) - now) < timedelta(seconds=30)


@pytest.mark.parametrize("shows_its_clock", [True, False])
def test_a_row_that_changes_on_a_page_already_read_is_found_next_time(shows_its_clock: bool) -> None:
    """Reading takes an hour; early on R000 changes, at the end R019 does, and only R019's change is seen."""
    listing = Listing([changed(f"R{number:03}", 0) for number in range(20)])
    minutes = {"now": 0.0}

    def answer(request: Request) -> Say:
        said = listing(request)
        date = format_datetime(START + timedelta(minutes=minutes["now"]), usegmt=True) if shows_its_clock else None
        if request.query["page"] == "1" and minutes["now"] == 0:
            listing.records[0] = changed("R000", 1, phone="13800000000")
            listing.records[19] = changed("R019", 60)
            minutes["now"] = 60
        return Say(body=said.body, date=date)

    with scripted(answer) as server:
        connector = delta(server.url)
        first = connector.changes(None)
        assert first.rows.filter(first.rows.column("phone").is_valid()).num_rows == 0
        second = connector.changes(first.cursor, sweep=False)
    assert "13800000000" in second.rows.column("phone").to_pylist()


@pytest.mark.parametrize("kind", ["page with total", "offset"])
def test_inserts_while_changes_are_paged_lose_nothing_over_two_reads(kind: str) -> None:
    listing = Listing([changed(f"R{number:03}", number) for number in range(35)])

    def insert(request: int) -> None:
        if request <= 3:
            listing.records.insert(0, changed(f"A{request}", 100 + request))

    listing.after = insert
    with scripted(listing) as server:
        connector = delta(server.url, paging=PAGING[kind])
        first = connector.changes(None)
        second = connector.changes(first.cursor, sweep=False)
    assert set(ids(first.rows)) | set(ids(second.rows)) == {row["id"] for row in listing.records}


def test_a_sweep_since_a_cursor_lists_every_key() -> None:
    listing = Listing([changed("R1", 0), changed("R2", 60)])
    with scripted(listing) as server:
        connector = delta(server.url)
        found = connector.changes(connector.changes(None).cursor, sweep=True)
        assert found.present is not None and ids(found.present) == ["R1", "R2"]


@pytest.mark.parametrize("listed", [["R1", "R2"], [{"id": "R1"}, {"id": "R2"}]])
def test_a_cheap_sweep_asks_for_keys_alone(listed: list[Any]) -> None:
    listing = Listing([changed("R1", 0), changed("R2", 60)])

    def answer(request: Request) -> Say:
        return Say(body={"keys": listed, "total": 2}) if request.query.get("only") == "keys" else listing(request)

    with scripted(answer) as server:
        connector = delta(server.url, keys={"parameters": {"only": "keys"}, "records": "keys"})
        assert connector.capabilities.cheap_sweep
        found = connector.changes(connector.changes(None).cursor, sweep=True)
    assert ids(found.rows) == ["R2"] and found.present is not None and ids(found.present) == ["R1", "R2"]


def test_a_row_just_read_is_present_even_if_the_list_of_keys_lags_behind() -> None:
    listing = Listing([changed("R1", 0), changed("R2", 60)])

    def answer(request: Request) -> Say:
        return Say(body={"items": ["R1"], "total": 1}) if "only" in request.query else listing(request)

    with scripted(answer) as server:
        connector = delta(server.url, keys={"parameters": {"only": "keys"}})
        found = connector.changes(connector.changes(None).cursor, sweep=True)
    assert found.present is not None and ids(found.present) == ["R1", "R2"]


def test_records_without_their_time_of_change_are_a_wrong_declaration() -> None:
    with scripted(Listing(rows(2))) as server, pytest.raises(SchemaMismatch, match="time of change at at"):
        delta(server.url).changes(None)


@pytest.mark.parametrize(
    ("times", "written", "asked"),
    [
        ("milliseconds", 1767254400123, "1767254100123"),
        ("seconds", 1767254400, "1767254100"),
        ("%Y/%m/%d %H:%M:%S", "2026/01/01 16:00:00", "2026/01/01 15:55:00"),
        ("iso", "2026-01-01T16:00:00.5", "2026-01-01T15:55:00.500+08:00"),
        ("iso", "2026-01-01T08:00:00Z", "2026-01-01T15:55:00.000+08:00"),
    ],
)
def test_times_are_read_and_asked_for_as_the_api_writes_them(times: str, written: Any, asked: str) -> None:
    with scripted(lambda _: Say(body={"items": [person("R1", at=written)], "total": 1})) as server:
        connector = delta(server.url, times=times)
        connector.changes(connector.changes(None).cursor, sweep=False)
        assert server.asked[-1].query["since"] == asked


def test_a_filter_on_changes_may_be_an_expression() -> None:
    since = {"parameter": "$filter", "field": "at", "value": "area eq '1' and at ge {since}", "overlap_seconds": 0}
    scope = {"$filter": "area eq '1'"}
    with scripted(lambda _: Say(body={"items": [changed("R1", 0)], "total": 1})) as server:
        connector = delta(server.url, changed_since=since, parameters=scope)
        connector.changes(connector.changes(None).cursor, sweep=False)
        asked = [request.query["$filter"] for request in server.asked]
    assert asked == ["area eq '1'", "area eq '1' and at ge 2026-01-01T16:00:00.000+08:00"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a.b", 1),
        ("a.@odata.etag", 2),
        ("@odata.count", 3),
        ("a.missing", MISSING),
        ("a.b.c", MISSING),
        ("n.b", None),
        ("n", None),
        ("@odata", MISSING),
    ],
)
def test_a_name_with_dots_in_it_is_found_as_it_stands(path: str, found: Any) -> None:
    data = {"a": {"b": 1, "@odata.etag": 2}, "@odata.count": 3, "n": None}
    assert dig(data, path) is found or dig(data, path) == found


# Values

TYPED = Dataset.model_validate(
    {
        **PEOPLE.model_dump(include={"name", "label", "levels", "jurisdiction", "originates"}),
        "key": ["id", "kind"],
        "fields": {
            "id": {"label": "编号", "type": "int", "authority": "street"},
            "kind": {"label": "类别", "authority": "street"},
            "area": {"label": "社区代码", "authority": "street"},
            "amount": {"label": "金额", "type": "decimal", "scale": 4, "authority": "street"},
            "share": {"label": "占比", "type": "float", "authority": "street"},
            "done": {"label": "办结", "type": "bool", "authority": "street"},
            "on": {"label": "日期", "type": "date", "authority": "street"},
            "at": {"label": "时间", "type": "timestamp", "authority": "street"},
            "tags": {"label": "标签", "type": "json", "authority": "street"},
        },
    }
)


@pytest.mark.parametrize("times", ["iso", "milliseconds", "%Y-%m-%d %H:%M:%S.%f"])
def test_what_is_written_is_read_back_as_the_same_values(times: str) -> None:
    stored: dict[str, Any] = {}

    def answer(request: Request) -> Say:
        if request.method == "PATCH":
            stored[request.path] = request.body
            return Say(200)
        return Say(body=list(stored.values())) if request.path == "/people" else Say(body=stored[request.path])

    row = {
        "id": 7,
        "kind": "a,b/c",
        "area": "110101001001",
        "amount": Decimal("12345678901234567.1234"),
        "share": 0.1,
        "done": True,
        "on": datetime(2026, 1, 31).date(),
        "at": datetime(2026, 1, 31, 8, 0, 0, 123000, tzinfo=UTC),
        "tags": '{"n":1.5,"列":["a",null]}',
    }
    columns = {"amount": "money.amount", "tags": "more.tags", "kind": "more.kind"}
    with scripted(answer) as server:
        connector = rest(server.url, dataset=TYPED, columns=columns, times=times)
        batch = upserts(row, dataset=TYPED)
        connector.apply(batch)
        found = connector.changes(None)
        assert found.rejects.num_rows == 0 and found.rows.to_pylist() == batch.upserts[0].to_pylist()
        assert list(stored) == ["/people/7,a%2Cb%2Fc"]
        again = connector.fetch(batch.upserts[0].select(["id", "kind"]))
        assert again.rows.to_pylist() == found.rows.to_pylist() and again.deleted.num_rows == 0


def test_json_numbers_keep_every_digit_and_read_as_people_write_them() -> None:
    record = b'[{"id": 1, "kind": 12.0, "area": "a", "amount": 12345678901234567.1234, "share": 1e-3, "done": 1, "on": null, "at": null, "tags": {"b": 1, "a": 2.50}}]'
    with scripted(lambda _: Say(body=record)) as server:
        (row,) = rest(server.url, dataset=TYPED).changes(None).rows.to_pylist()
    assert (row["kind"], str(row["amount"]), row["share"], row["done"]) == ("12", "12345678901234567.1234", 0.001, True)
    assert row["tags"] == '{"a":2.5,"b":1}'


def test_a_value_that_cannot_be_typed_is_rejected_with_its_place() -> None:
    record = {
        "id": "x",
        "kind": "k",
        "area": "a",
        "amount": 1,
        "share": 1,
        "done": 1,
        "on": None,
        "at": "soon",
        "tags": None,
    }
    with scripted(lambda _: Say(body=[{**record, "id": 1}, {**record, "id": 2, "at": None}])) as server:
        found = rest(server.url, dataset=TYPED, times="milliseconds").changes(None)
    (reject,) = found.rejects.to_pylist()
    assert (reject["field"], reject["value"], reject["locator"]) == ("at", "soon", "/people 第 1 条")
    assert found.rows.num_rows == 1


def test_more_keys_than_the_list_has_pages_are_fetched_by_reading_the_list() -> None:
    with scripted(Listing(rows(30))) as server:
        wanted = keys(*(f"R{number:03}" for number in range(10, 600)))
        found = rest(server.url, records="items", paging=PAGING["offset"]).fetch(wanted)
        assert found.rows.num_rows == 20 and found.deleted.num_rows == 570 and len(server.asked) < 10


def test_a_scope_is_sent_with_every_read_of_the_list() -> None:
    with scripted(Listing(rows(15))) as server:
        connector = rest(server.url, records="items", paging=PAGING["page"], parameters={"street": "110101001000"})
        connector.probe()
        connector.changes(None)
        assert all(request.query["street"] == "110101001000" for request in server.asked)


def test_deleting_sends_the_declared_method_and_no_body() -> None:
    with scripted(lambda _: Say(200)) as server:
        rest(server.url).apply(deletes("R1"))
        assert (server.asked[0].method, server.asked[0].path, server.asked[0].body) == ("DELETE", "/people/R1", None)
