"""Writing many records with one request: a part that was not written never counts as written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from connectors.nodes import build
from federation.contract import Dataset
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
from tests.unit.rest_sample import PEOPLE, deletes, node, patient, person, rest, upserts

SAVE = {"path": "{path}/save", "records": "data.items", "size": 3}
REMOVE = {"path": "{path}/remove", "records": "ids", "keys": "values", "size": 3}


def bulk(url: str, save: Any = None, remove: Any = None, **options: Any) -> Any:
    declared = {"upsert": {**SAVE, **(save or {})}, "delete": {**REMOVE, **(remove or {})}}
    return rest(url, bulk=declared, **options)


def sizes(server: Scripted) -> list[int]:
    return [len(request.body["data"]["items"]) for request in server.asked]


def people(count: int) -> list[dict[str, Any]]:
    return [person(f"R{number}") for number in range(count)]


def accepting(body: Any = None) -> Callable[[Request], Answer]:
    return lambda _: Say(200, body)


# The requests


def test_records_are_written_in_requests_of_the_declared_size() -> None:
    with scripted(accepting()) as server:
        applied = bulk(server.url, {"fixed": {"source.system": "fedsync"}}).apply(upserts(*people(7)))
        assert applied.written == 7 and sizes(server) == [3, 3, 1]
        first = server.asked[0]
        assert (first.method, first.path) == ("POST", "/people/save")
        assert first.body["data"]["items"][0] == {**person("R0"), "source": {"system": "fedsync"}}


def test_columns_stand_in_nested_objects_in_a_bulk_request_too() -> None:
    columns = {"id": "attributes.no", "phone": "attributes.contact.phone"}
    with scripted(accepting()) as server:
        bulk(server.url, columns=columns).apply(upserts({"id": "R1", "phone": "1"}))
        assert server.asked[0].body == {"data": {"items": [{"attributes": {"no": "R1", "contact": {"phone": "1"}}}]}}


@pytest.mark.parametrize(
    ("remove", "path", "body"),
    [
        ({}, "/people/remove", {"ids": ["R1", "R2"]}),
        ({"records": "", "keys": "records"}, "/people/remove", [{"id": "R1"}, {"id": "R2"}]),
        ({"method": "DELETE", "path": "{path}/{keys}"}, "/people/R1,R2", None),
    ],
)
def test_deletions_list_their_keys_as_declared(remove: dict[str, Any], path: str, body: Any) -> None:
    with scripted(accepting()) as server:
        assert bulk(server.url, remove=remove).apply(deletes("R1", "R2")).deleted == 2
        (asked,) = server.asked
    assert (asked.path, asked.body) == (path, body)


def test_what_has_no_bulk_request_is_written_one_by_one() -> None:
    with scripted(accepting()) as server:
        connector = rest(server.url, bulk={"upsert": SAVE})
        connector.apply(upserts(*people(2)))
        connector.apply(deletes("R1", "R2"))
        assert [(request.method, request.path) for request in server.asked] == [
            ("POST", "/people/save"),
            ("DELETE", "/people/R1"),
            ("DELETE", "/people/R2"),
        ]


def test_an_api_that_has_nothing_but_bulk_writes_is_writable() -> None:
    with scripted(accepting()) as server:
        connector = bulk(server.url, upsert=None, delete=None)
        assert connector.capabilities.writes and connector.apply(upserts(person("R1"))).written == 1


def test_a_bulk_request_sent_again_carries_the_same_key() -> None:
    turns: list[Answer] = [Say(500)]
    with scripted(lambda _: turns.pop() if turns else Say()) as server:
        bulk(server.url, retrier=patient([])).apply(upserts(*people(2)))
        first, again = (request.headers["Idempotency-Key"] for request in server.asked)
    assert first == again


# What the answer says


@pytest.mark.parametrize(
    ("failed", "answer"),
    [
        ({"records": "data.failed"}, {"data": {"failed": [{"id": "R1", "reason": "张三"}]}}),
        ({"records": "data.failed", "key": ""}, {"data": {"failed": ["R1"]}}),
        ({"records": "errors", "key": "source.id"}, {"errors": [{"source": {"id": "R1"}}]}),
        (
            {"records": "", "key": "no", "field": "status", "values": [200, 201]},
            [{"no": "R0", "status": 200}, {"no": "R2", "status": 201}, {"no": "R1", "status": 422}],
        ),
        ({"records": "", "field": "ok", "values": [True]}, [{"ok": True}, {"ok": False}, {"ok": True}]),
    ],
    ids=["entries with columns", "bare keys", "keys elsewhere", "results with keys", "results in order"],
)
def test_records_that_the_answer_calls_failed_are_an_error_that_names_them(failed: Any, answer: Any) -> None:
    with scripted(accepting(answer)) as server, pytest.raises(Permanent) as caught:
        bulk(server.url, {"failed": failed}).apply(upserts(*people(3)))
    assert caught.value.where["key"] == "R1" and "others" not in caught.value.where
    assert "张三" not in str(caught.value)


def test_failures_in_one_request_do_not_keep_the_others_from_being_sent() -> None:
    answer = {"failed": ["R0", "R1"]}
    with scripted(lambda request: Say(200, answer if len(server.asked) == 1 else {"failed": []})) as server:
        with pytest.raises(Permanent) as caught:
            bulk(server.url, {"failed": {"records": "failed", "key": ""}}).apply(upserts(*people(7)))
        assert sizes(server) == [3, 3, 1]
    assert (caught.value.where["key"], caught.value.where["others"]) == ("R0", "R1")


def test_an_answer_without_failures_is_a_success() -> None:
    failed = {"failed": {"records": "failed", "key": ""}}
    for answer in ({"failed": []}, {"failed": None}):
        with scripted(accepting(answer)) as server:
            assert bulk(server.url, failed).apply(upserts(*people(2))).written == 2


@pytest.mark.parametrize(
    ("save", "answer"),
    [
        ({"failed": {"records": "failed"}}, {}),
        ({"failed": {"records": "failed"}}, {"failed": {"R1": "?"}}),
        ({"failed": {"records": "", "field": "ok", "values": [True]}}, [{"ok": True}]),
        ({"written": "count"}, {}),
        ({"written": "count"}, {"count": "2"}),
        ({"written": "count"}, {"count": True}),
    ],
)
def test_an_answer_that_does_not_say_what_was_declared_is_no_success(save: Any, answer: Any) -> None:
    with scripted(accepting(answer)) as server, pytest.raises(SchemaMismatch, match="nobody can tell"):
        bulk(server.url, save).apply(upserts(*people(2)))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_than_was_sent_is_no_success(count: int) -> None:
    with scripted(accepting({"count": count})) as server, pytest.raises(Permanent, match=f"has written {count}"):
        bulk(server.url, {"written": "count"}).apply(upserts(*people(2)))


def test_a_number_and_the_failures_are_taken_together() -> None:
    save = {"written": "count", "failed": {"records": "failed", "key": ""}}
    with scripted(accepting({"count": 2})) as server:
        assert bulk(server.url, save).apply(upserts(*people(2))).written == 2
    with scripted(accepting({"count": 1, "failed": ["R1"]})) as server, pytest.raises(Permanent) as caught:
        bulk(server.url, save).apply(upserts(*people(2)))
    assert caught.value.where["key"] == "R1"


def test_a_deletion_of_what_was_not_there_is_no_failure_where_the_code_for_it_is_declared() -> None:
    failed = {"records": "", "key": "id", "field": "status", "values": [200, 404]}
    answer = [{"id": "R1", "status": 404}, {"id": "R2", "status": 200}]
    with scripted(accepting(answer)) as server:
        assert bulk(server.url, remove={"failed": failed}).apply(deletes("R1", "R2")).deleted == 2


# Requests that are refused


@pytest.mark.parametrize("status", [400, 409, 422])
def test_a_request_that_is_refused_for_one_record_is_halved_until_it_is_alone(status: int) -> None:
    def answer(request: Request) -> Say:
        held = [record["id"] for record in request.body["data"]["items"]]
        return Say(status if "R5" in held else 200)

    with scripted(answer) as server:
        with pytest.raises(Conflict if status == 409 else Permanent) as caught:
            bulk(server.url, {"size": 8}).apply(upserts(*people(8)))
        written = [r["id"] for request in server.asked for r in request.body["data"]["items"] if len(request.body) == 1]
        assert sizes(server) == [8, 4, 4, 2, 1, 1, 2]
    assert caught.value.where["key"] == "R5" and "others" not in caught.value.where
    assert set(written) == {f"R{number}" for number in range(8)}


def test_a_batch_that_is_refused_throughout_is_given_up() -> None:
    with scripted(lambda _: Say(400)) as server:
        with pytest.raises(Permanent, match="99 more"):
            bulk(server.url, {"size": 64}).apply(upserts(*people(300)))
        assert len(server.asked) < 300


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Say(401), AccessDenied),
        (Say(404), SchemaMismatch),
        (Say(405), SchemaMismatch),
        (Say(429), Transient),
        (Say(500), Transient),
        (Reset(), Transient),
        (Silence(), Transient),
        (Say(body=b'{"count": '), Transient),
    ],
)
def test_each_failure_of_a_bulk_write_has_its_error(answer: Answer, kind: type[FedsyncError]) -> None:
    with scripted(lambda _: answer) as server:
        for batch in (upserts(*people(2)), deletes("R1", "R2")):
            with pytest.raises(kind) as caught:
                bulk(server.url, {"written": "count"}, {"written": "count"}, timeout=[0.3, 0.3]).apply(batch)
            assert caught.value.__cause__ is not None and {"dataset", "region", "system", "request"} <= set(
                caught.value.where
            )


# Declarations


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bulk": {"upsert": {"size": 0}}}, "size"),
        ({"bulk": {"upsert": {"failed": {"records": "x", "field": "y"}}}}, "go together"),
        ({"bulk": {"upsert": SAVE}, "etag": {"header": "ETag"}}, "single ones"),
        ({"etag": {}}, "either"),
        ({"etag": {"header": "ETag"}, "item_reads": False}, "item_reads"),
    ],
)
def test_a_bulk_write_that_cannot_be_meant_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        build(node("http://host", **options), "rest")


def test_bare_keys_cannot_tell_the_columns_of_a_key_of_several() -> None:
    several = Dataset.model_validate({**PEOPLE.model_dump(), "key": ["id", "name"]})
    keys = upserts({"id": "R1", "name": "x"}, dataset=several).upserts[0]
    with scripted(accepting()) as server, pytest.raises(SchemaMismatch, match="2 columns"):
        connector = rest(server.url, dataset=several, bulk={"delete": REMOVE})
        connector.apply(type(deletes())((), keys))
