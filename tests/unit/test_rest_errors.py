from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from connectors.nodes import build
from federation.errors import (
    AccessDenied,
    Conflict,
    DeclarationError,
    FedsyncError,
    Permanent,
    SchemaMismatch,
    Transient,
)
from tests.scripted_http import Answer, Request, Reset, Say, Scripted, Silence, scripted
from tests.unit.rest_sample import deletes, ids, keys, node, patient, person, rest, upserts

STATUSES: list[tuple[int, type[FedsyncError]]] = [
    (400, Permanent),
    (422, Permanent),
    (401, AccessDenied),
    (403, AccessDenied),
    (404, SchemaMismatch),
    (405, SchemaMismatch),
    (408, Transient),
    (409, Conflict),
    (412, Conflict),
    (428, SchemaMismatch),
    (302, Permanent),
    (429, Transient),
    (500, Transient),
    (502, Transient),
    (503, Transient),
    (504, Transient),
]


def always(answer: Answer) -> Any:
    return scripted(lambda _: answer)


@pytest.mark.parametrize(("status", "kind"), STATUSES)
def test_each_status_of_a_read_has_its_error_with_the_drivers_as_cause(status: int, kind: type[FedsyncError]) -> None:
    with always(Say(status, {"msg": "张三 13800000000"})) as server, pytest.raises(kind) as caught:
        rest(server.url).changes(None)
    error = caught.value
    assert error.__cause__ is not None and str(status) in str(error)
    assert next(known for known in type(error).__mro__ if known.__module__ == "federation.errors") is kind
    assert {"dataset", "region", "system", "request"} <= set(error.where)
    assert "13800000000" not in str(error), "a refusal tends to quote the record, and errors are kept"


@pytest.mark.parametrize(("status", "kind"), [pair for pair in STATUSES if pair[0] != 404])
def test_each_status_of_a_write_has_its_error_naming_the_key(status: int, kind: type[FedsyncError]) -> None:
    with always(Say(status)) as server, pytest.raises(kind) as caught:
        rest(server.url).apply(upserts(person("R1")))
    assert caught.value.where["key"] == "R1" and caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "answer",
    [
        Reset(),
        Silence(),
        Say(body=b'[{"id": "R1", "na', length=4000),
        Say(body=b'[{"id": "R1", "na'),
        Say(body=b"<html>maintenance</html>"),
        Say(body=b"[" * 200_000),
        Say(body=b"\xff\xfe\x00"),
        Say(body=b"not gzip", headers={"Content-Encoding": "gzip"}),
    ],
    ids=["reset", "timeout", "truncated", "cut JSON", "HTML", "nested without end", "not text", "not gzip"],
)
def test_a_broken_answer_is_transient(answer: Answer) -> None:
    with always(answer) as server, pytest.raises(Transient) as caught:
        rest(server.url, timeout=[0.3, 0.3]).changes(None)
    assert caught.value.__cause__ is not None


def test_a_system_that_is_not_there_is_transient() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(Transient) as caught:
            rest(f"http://127.0.0.1:{port}").probe()
    assert caught.value.__cause__ is not None


def test_a_certificate_authority_that_does_not_exist_is_permanent(tmp_path: Path) -> None:
    with pytest.raises(Permanent) as caught:
        rest("https://127.0.0.1:9", ca=str(tmp_path / "none.pem")).probe()
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    "body", [{"data": {"rows": []}}, {"data": None}, {"data": {"items": None}}, [], {"data": {"items": {}}}]
)
def test_an_answer_without_the_list_is_never_taken_for_an_empty_one(body: Any) -> None:
    with always(Say(body=body)) as server, pytest.raises(SchemaMismatch, match=r"data\.items"):
        rest(server.url, records="data.items").changes(None)


def test_a_null_list_is_empty_only_if_the_answer_also_counts_none() -> None:
    paging = {"kind": "page", "parameter": "page", "total": "total"}
    with always(Say(body={"items": None, "total": 0})) as server:
        assert rest(server.url, records="items", paging=paging).changes(None).rows.num_rows == 0
    with always(Say(body={"items": None, "total": 3})) as server, pytest.raises(SchemaMismatch):
        rest(server.url, records="items", paging=paging).changes(None)


def test_an_answer_that_counts_more_rows_than_it_gives_is_transient() -> None:
    with always(Say(body={"items": [person("R1")], "total": 2})) as server, pytest.raises(Transient, match="counts 2"):
        rest(server.url, records="items", paging={"total": "total"}).changes(None)


def test_a_renamed_column_is_not_taken_for_an_emptied_one() -> None:
    records = [{"id": "R1", "area": "a", "full_name": "x", "phone": None}]
    with always(Say(body=records)) as server:
        with pytest.raises(SchemaMismatch) as caught:
            rest(server.url).changes(None)
        assert caught.value.where["field"] == "name"
        assert rest(server.url, omits_nulls=True).changes(None).rows.column("name").to_pylist() == [None]


def test_a_code_inside_the_answer_counts_as_the_status_that_it_names() -> None:
    success = {"field": "code", "values": [0]}
    for code, kind in ((401, AccessDenied), (429, Transient), (500, Transient), (7, Permanent)):
        with always(Say(body={"code": code, "data": []})) as server, pytest.raises(kind):
            rest(server.url, success=success, records="data").changes(None)
    with always(Say(body={"code": 422})) as server, pytest.raises(Permanent):
        rest(server.url, success=success).apply(upserts(person("R1")))
    with always(Say(body={"data": []})) as server, pytest.raises(SchemaMismatch):
        rest(server.url, success=success, records="data").changes(None)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (42900, Transient),
        ("B0001", Transient),
        (40101, AccessDenied),
        ("403", AccessDenied),
        (99, Permanent),
        ([], Permanent),
    ],
)
def test_a_code_of_the_apis_own_counts_as_the_status_that_is_declared_for_it(
    code: Any, kind: type[FedsyncError]
) -> None:
    success = {"field": "code", "values": [0, "00000"], "statuses": {42900: 429, "B0001": 503, "40101": 401}}
    with always(Say(body={"code": code, "data": []}, headers={"Retry-After": "7"})) as server:
        with pytest.raises(kind) as caught:
            rest(server.url, success=success, records="data").changes(None)
        assert not isinstance(caught.value, Transient) or caught.value.retry_after == 7


def test_a_record_that_the_apis_own_code_calls_missing_is_gone() -> None:
    success = {"field": "code", "values": [0], "statuses": {40400: 404}}
    with always(Say(body={"code": 40400, "data": None})) as server:
        connector = rest(server.url, success=success, record="data")
        assert ids(connector.fetch(keys("R1")).deleted) == ["R1"]
        assert connector.apply(deletes("R1")).deleted == 1


@pytest.mark.parametrize("value", ["街道", "a\nb"])
def test_a_header_that_cannot_be_sent_is_a_wrong_declaration(value: str) -> None:
    with always(Say(body=[])) as server:
        with pytest.raises(Permanent, match="cannot be sent as declared"):
            rest(server.url, headers={"X-Bureau": value}).changes(None)
        assert server.asked == []


def test_a_wrong_token_is_denied_and_is_not_in_the_error() -> None:
    def answer(request: Request) -> Say:
        return Say(200, []) if request.headers.get("Authorization") == "Bearer right" else Say(401)

    with scripted(answer) as server:
        assert rest(server.url, token="right").changes(None).rows.num_rows == 0
        with pytest.raises(AccessDenied) as caught:
            rest(server.url, token="wr0ng").changes(None)
    assert "wr0ng" not in str(caught.value)


def test_a_netrc_of_the_machine_does_not_replace_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with always(Say(body=[])) as server:
        rest(server.url).changes(None)
        assert server.asked[0].headers["Authorization"] == "Bearer t"


def test_a_redirect_is_not_followed_since_a_write_would_become_a_read() -> None:
    with always(Say(302, headers={"Location": "/login?next=secret"})) as server:
        with pytest.raises(Permanent, match="/login"):
            rest(server.url).apply(upserts(person("R1")))
        assert len(server.asked) == 1


def test_the_token_is_never_sent_to_another_host_that_a_page_names() -> None:
    with always(Say(body=[])) as other:
        link = {"Link": f'<{other.url}/people?page=2>; rel="next"'}
        with always(Say(body=[person("R1")], headers=link)) as server, pytest.raises(Permanent, match="another host"):
            rest(server.url, paging={"kind": "link"}).changes(None)
        assert other.asked == []


def failing(first: list[Answer], then: Answer) -> Any:
    queue = list(first)
    return scripted(lambda _: queue.pop(0) if queue else then)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "3"}, 3),
        ({"Retry-After": "0.25"}, 0.25),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT"}, 30),
        ({"Retry-After": "Wed, 21 Oct 2015 07:27:00 GMT"}, 0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_the_wait_that_a_system_asks_for_is_kept_by_its_own_clock(
    status: int, headers: dict[str, str], seconds: float
) -> None:
    busy = Say(status, headers=headers, date="Wed, 21 Oct 2015 07:28:00 GMT")
    pauses: list[float] = []
    with failing([busy], Say(body=[person("R1")])) as server:
        found = rest(server.url, retrier=patient(pauses)).changes(None)
    assert ids(found.rows) == ["R1"] and pauses == [seconds]


def test_a_date_to_wait_for_is_counted_by_our_clock_if_the_server_shows_none() -> None:
    until = datetime.now(UTC) + timedelta(seconds=20)
    busy = Say(429, headers={"Retry-After": format_datetime(until, usegmt=True)}, date=None)
    with always(busy) as server, pytest.raises(Transient) as caught:
        rest(server.url).changes(None)
    assert caught.value.retry_after is not None and 10 < caught.value.retry_after <= 20


def test_one_failing_page_is_asked_for_again_and_not_the_whole_list() -> None:
    rows = [person(f"R{number:02}") for number in range(40)]
    failures = {"3", "7"}

    def answer(request: Request) -> Say:
        page = request.query["page"]
        if page in failures:
            failures.remove(page)
            return Say(500)
        start = (int(page) - 1) * 4
        return Say(body={"items": rows[start : start + 4], "total": 40})

    paging = {"kind": "page", "parameter": "page", "total": "total"}
    with scripted(answer) as server:
        found = rest(server.url, retrier=patient([]), records="items", paging=paging).changes(None)
        assert found.rows.num_rows == 40 and len(server.asked) == 12


def test_without_a_retrier_the_connector_never_retries() -> None:
    with always(Say(503)) as server:
        with pytest.raises(Transient):
            rest(server.url).changes(None)
        assert len(server.asked) == 1


def test_a_write_sent_again_carries_the_same_key_and_a_later_one_another() -> None:
    def sent(server: Scripted) -> list[str]:
        return [request.headers["Idempotency-Key"] for request in server.asked]

    with failing([Say(500)], Say(200)) as server:
        connector = rest(server.url, retrier=patient([]))
        connector.apply(upserts(person("R1")))
        connector.apply(upserts(person("R1")))
        first, again, later = sent(server)
    assert first == again, "an answer that was lost must not double the write"
    assert later != first, "a server that remembers keys would swallow A, then B, then A again"


def test_a_record_stands_in_the_request_where_the_api_wants_it_with_what_is_fixed() -> None:
    columns = {"id": "id", "phone": "attributes.contact.phone", "name": "attributes.name", "area": "attributes.area"}
    how = {"record": "data", "fixed": {"type": "people", "attributes.source": "fedsync"}}
    with scripted(lambda request: Say(404 if request.method == "PUT" else 201)) as server:
        connector = rest(
            server.url,
            columns=columns,
            upsert={"method": "PUT", **how},
            create={"method": "POST", **how, "path": "/new"},
        )
        connector.apply(upserts({"id": "R1", "name": "王", "phone": "1"}))
        first, second = server.asked
    attributes = {"name": "王", "contact": {"phone": "1"}, "source": "fedsync"}
    assert first.body == {"data": {"id": "R1", "type": "people", "attributes": attributes}} == second.body
    assert second.path == "/new"


def test_keys_stand_in_an_address_as_odata_writes_them() -> None:
    with always(Say(404)) as server:
        connector = rest(server.url, key_style="odata", item_path="{path}({key})")
        connector.fetch(keys("R1", "O'Brien/中", "."))
        assert [request.path for request in server.asked] == [
            "/people('R1')",
            "/people('O''Brien%2F%E4%B8%AD')",
            "/people('.')",
        ]


def test_a_write_sends_only_the_columns_of_the_batch() -> None:
    columns = {"id": "order_no", "phone": "caller.phone", "name": "caller.name"}
    with always(Say(200)) as server:
        rest(server.url, columns=columns).apply(upserts({"id": "R/1 中", "phone": None, "name": "王"}))
        (asked,) = server.asked
    assert asked.method == "PATCH" and asked.body == {"order_no": "R/1 中", "caller": {"phone": None, "name": "王"}}
    assert asked.path == "/people/R%2F1%20%E4%B8%AD"


@pytest.mark.parametrize("key", [".", ".."])
def test_a_key_that_would_address_the_collection_is_refused(key: str) -> None:
    with always(Say(200)) as server:
        with pytest.raises(Permanent):
            rest(server.url).apply(deletes(key))
        assert server.asked == []


@pytest.mark.parametrize("status", [404, 410])
def test_deleting_what_is_gone_counts_as_deleted(status: int) -> None:
    with always(Say(status)) as server:
        assert rest(server.url).apply(deletes("R1", "R2")).deleted == 2


def test_a_record_that_is_refused_does_not_keep_the_others_from_being_written() -> None:
    def answer(request: Request) -> Say:
        return Say(422 if request.path in ("/people/R2", "/people/R4") else 200)

    with scripted(answer) as server:
        with pytest.raises(Permanent) as caught:
            rest(server.url).apply(upserts(*(person(f"R{number}") for number in range(1, 6))))
        assert len(server.asked) == 5
    assert caught.value.where["key"] == "R2" and caught.value.where["others"] == "R4"
    assert caught.value.__cause__ is not None


def test_a_batch_that_is_refused_throughout_is_given_up() -> None:
    with always(Say(400)) as server:
        with pytest.raises(Permanent, match="99 more"):
            rest(server.url).apply(upserts(*(person(f"R{number}") for number in range(300))))
        assert len(server.asked) == 100


def test_a_record_that_an_update_does_not_find_is_created_where_that_is_declared() -> None:
    with scripted(lambda request: Say(404 if request.method == "PATCH" else 201)) as server:
        with pytest.raises(SchemaMismatch):
            rest(server.url).apply(upserts(person("R1")))
        applied = rest(server.url, create={"method": "POST"}).apply(upserts(person("R1")))
        assert applied.written == 1
        assert (server.asked[-1].method, server.asked[-1].path) == ("POST", "/people")


def test_an_api_declared_read_only_refuses_writes_without_asking() -> None:
    with always(Say(200)) as server:
        connector = rest(server.url, upsert=None, delete=None)
        assert not connector.capabilities.writes
        for batch in (upserts(person("R1")), deletes("R1")):
            with pytest.raises(Permanent):
                connector.apply(batch)
        assert server.asked == []


def test_a_record_found_by_key_and_one_that_is_gone() -> None:
    def answer(request: Request) -> Say:
        return Say(body={"data": person("R1")}) if request.path == "/people/R1" else Say(404)

    with scripted(answer) as server:
        found = rest(server.url, record="data").fetch(keys("R1", "R2"))
        with pytest.raises(SchemaMismatch):
            rest(server.url, record="datum").fetch(keys("R1"))
    assert (ids(found.rows), ids(found.deleted)) == (["R1"], ["R2"])


def test_the_probe_tells_reachability_and_the_state_where_there_is_one() -> None:
    def answer(request: Request) -> Say:
        return Say(body={"v": {"n": 7}}) if request.path == "/state" else Say(body=b"never read as JSON")

    with scripted(answer) as server:
        assert rest(server.url).probe().token is None
        assert rest(server.url, state={"path": "/state", "field": "v.n"}).probe().token == "7"
        with pytest.raises(SchemaMismatch):
            rest(server.url, state={"path": "/state", "field": "v.m"}).probe()


def test_requests_keep_to_the_rate_across_connectors_of_one_system() -> None:
    clock = datetime.now()
    with always(Say(body=[])) as server:
        for _ in range(3):
            rest(server.url, requests_per_second=20).changes(None)
            rest(server.url, requests_per_second=20).changes(None)
    assert (datetime.now() - clock).total_seconds() >= 5 / 20


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": "ftp://host"},
        {"base_url": "http://user:secret@host"},
        {"headers": {"authorization": "Bearer x"}},
        {"item_path": "/people"},
        {"paging": {"kind": "page"}},
        {"paging": {"kind": "cursor", "parameter": "c"}},
        {"times": "epoch"},
        {"changed_since": {"parameter": "p", "field": "f", "value": "ge now"}},
        {"success": {"field": "code", "values": [0], "statuses": {7: 200}}},
        {"unknown": 1},
    ],
)
def test_a_declaration_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError) as caught:
        build(node("http://host", **wrong) if "base_url" not in wrong else node(url=wrong["base_url"]), "rest")
    assert "secret" not in str(caught.value)
