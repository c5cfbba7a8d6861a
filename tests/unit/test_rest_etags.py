"""Conditional writes on the wire: which etag is sent, and what is made of each answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from connectors.base import ETAG, Batch, Node
from connectors.companion import CompanionConnector
from connectors.hosted import HostedConnector
from connectors.rest import RestConnector
from federation.errors import Conflict, Permanent, SchemaMismatch
from tests.contract.sealed import KEY
from tests.scripted_http import Answer, Request, Say, scripted
from tests.unit.rest_sample import PEOPLE, deletes, keys, node, patient, person, rest, upserts

HEADER = {"header": "ETag"}
FIELD = {"field": "meta.@etag"}


def known(batch: Batch, **etags: str | None) -> Batch:
    """A batch that was decided on rows with these etags; None: there was no such row."""
    table = keys(*etags).append_column(ETAG, pa.array(list(etags.values()), pa.string()))
    return Batch(batch.upserts, batch.deletes, etags=table)


def conditions(request: Request) -> tuple[str | None, str | None]:
    return request.headers.get("If-Match"), request.headers.get("If-None-Match")


def test_each_write_carries_the_condition_that_its_row_was_read_under() -> None:
    with scripted(lambda _: Say(200)) as server:
        batch = Batch(upserts(person("R1"), person("R2"), person("R3")).upserts, deletes("R4", "R5").deletes)
        rest(server.url, etag=HEADER).apply(known(batch, R1='"1"', R2=None, R4='W/"4"', R5=None))
        sent = [(request.method, request.path, *conditions(request)) for request in server.asked]
    assert sent == [
        ("PATCH", "/people/R1", '"1"', None),
        ("PATCH", "/people/R2", None, "*"),
        ("PATCH", "/people/R3", None, None),
        ("DELETE", "/people/R4", 'W/"4"', None),
    ], "R5 was not there: whatever is there by now is not what was to be deleted"


def test_a_row_that_was_not_there_is_created_where_creating_is_declared() -> None:
    with scripted(lambda _: Say(201)) as server:
        connector = rest(server.url, etag=HEADER, create={"method": "POST"})
        connector.apply(known(upserts(person("R1"), person("R2")), R1=None, R2='"2"'))
        assert [(request.method, *conditions(request)) for request in server.asked] == [
            ("POST", None, "*"),
            ("PATCH", '"2"', None),
        ]


@pytest.mark.parametrize("status", [404, 409, 410, 412])
def test_a_write_that_meets_another_state_is_a_conflict_that_names_the_key(status: int) -> None:
    with scripted(lambda request: Say(status if request.path == "/people/R2" else 200)) as server:
        connector = rest(server.url, etag=HEADER, create={"method": "POST"})
        with pytest.raises(Conflict) as caught:
            connector.apply(known(upserts(person("R1"), person("R2"), person("R3")), R1='"1"', R2='"2"', R3='"3"'))
        assert [request.path for request in server.asked] == ["/people/R1", "/people/R2", "/people/R3"], (
            "nor is it made anew"
        )
    assert caught.value.where["key"] == "R2" and "others" not in caught.value.where


def test_a_deletion_that_meets_another_state_is_a_conflict_and_of_what_is_gone_a_success() -> None:
    answers: dict[str, Answer] = {"/people/R1": Say(412), "/people/R2": Say(404)}
    with scripted(lambda request: answers[request.path]) as server:
        connector = rest(server.url, etag=HEADER)
        with pytest.raises(Conflict) as caught:
            connector.apply(known(deletes("R1", "R2"), R1='"1"', R2='"2"'))
    assert caught.value.where["key"] == "R1"


def test_where_some_rows_conflict_and_others_are_refused_the_conflict_is_told_since_reading_anew_mends_it() -> None:
    answers = {"/people/R1": Say(422), "/people/R2": Say(412)}
    with scripted(lambda request: answers[request.path]) as server:
        connector = rest(server.url, etag=HEADER)
        with pytest.raises(Conflict) as caught:
            connector.apply(known(upserts(person("R1"), person("R2")), R1='"1"', R2='"2"'))
        assert caught.value.where["key"] == "R2"
        with pytest.raises(Permanent) as refused:
            connector.apply(known(upserts(person("R1")), R1='"1"'))
        assert refused.value.where["key"] == "R1"


def test_a_write_whose_answer_was_lost_is_a_conflict_and_no_second_write() -> None:
    """Sent again it meets the state that it left behind itself; the next reading finds it done."""
    turns: list[Answer] = [Say(412), Say(500)]
    with scripted(lambda _: turns.pop()) as server, pytest.raises(Conflict):
        rest(server.url, etag=HEADER, retrier=patient([])).apply(known(upserts(person("R1")), R1='"1"'))


def test_without_etags_declared_none_are_sent() -> None:
    with scripted(lambda _: Say(200)) as server:
        connector = rest(server.url)
        assert not connector.capabilities.etags
        connector.apply(known(upserts(person("R1")), R1='"1"'))
        assert conditions(server.asked[0]) == (None, None)


def test_etags_in_records_are_read_with_the_list_and_with_items() -> None:
    def shown(key: str) -> dict[str, Any]:
        return {**person(key), "meta": {"@etag": f"v-{key}"}}

    def answer(request: Request) -> Say:
        return Say(
            body=[shown("R1"), shown("R2"), {**person("R3"), "meta": {}}] if request.path == "/people" else shown("R1")
        )

    with scripted(answer) as server:
        connector = rest(server.url, etag=FIELD)
        assert connector.capabilities.etags
        listed, item = connector.changes(None).etags, connector.fetch(keys("R1")).etags
    assert listed is not None and item is not None
    assert listed.to_pylist() == [{"id": "R1", ETAG: "v-R1"}, {"id": "R2", ETAG: "v-R2"}]
    assert item.to_pylist() == [{"id": "R1", ETAG: "v-R1"}]


def test_the_etag_of_a_row_on_two_pages_is_that_of_the_page_read_last() -> None:
    def answer(request: Request) -> Say:
        page = request.query["page"]
        return Say(body=[{**person("R1"), "etag": f"v{page}"}] if page in "12" else [])

    with scripted(answer) as server:
        found = rest(server.url, etag={"field": "etag"}, paging={"kind": "page", "parameter": "page"}).changes(None)
    assert found.etags is not None and found.etags.column(ETAG).to_pylist() == ["v2"]


def test_a_key_that_stands_twice_has_no_etag() -> None:
    records = [{**person("R1"), "etag": "a"}, {**person("R1"), "etag": "b"}, {**person("R2"), "etag": "c"}]
    with scripted(lambda _: Say(body=records)) as server:
        found = rest(server.url, etag={"field": "etag"}).changes(None)
    assert found.etags is not None and found.etags.to_pylist() == [{"id": "R2", ETAG: "c"}]


@pytest.mark.parametrize("etag", [HEADER, FIELD])
def test_an_api_that_shows_no_etag_is_a_wrong_declaration(etag: dict[str, str]) -> None:
    with scripted(lambda request: Say(body=[person("R1")] if request.path == "/people" else person("R1"))) as server:
        connector = rest(server.url, etag=etag)
        with pytest.raises(SchemaMismatch, match="no etag") as caught:
            connector.fetch(keys("R1"))
        assert caught.value.where["key"] == "R1"
        if etag is FIELD:
            with pytest.raises(SchemaMismatch, match="no etag"):
                connector.changes(None)


def test_etags_pass_through_a_companion_of_the_system(tmp_path: Path) -> None:
    def answer(request: Request) -> Say:
        whole = {**person("R1"), "etag": "v1"}
        del whole["phone"]
        return Say(body=[whole] if request.path == "/people" else whole)

    whole = node("http://unused")
    with scripted(answer) as server:
        own = node(server.url, etag={"field": "etag"})
        main = RestConnector(Node(PEOPLE, own.region, own.system, own.options, ("id", "area", "name")))
        options = {"url": f"sqlite:///{tmp_path / 'hosted.db'}", "part": "companion", "keys": (KEY,)}
        side = HostedConnector(Node(PEOPLE, own.region, "hosted", options, ("id", "phone")))
        connector = CompanionConnector(whole, main, side)
        connector.prepare()
        assert connector.capabilities.etags
        found = connector.changes(None)
        assert found.etags is not None and found.etags.equals(connector.fetch(keys("R1")).etags)
        batch = upserts({"id": "R1", "name": "王", "phone": "1"})
        connector.apply(Batch(batch.upserts, batch.deletes, etags=found.etags))
        assert conditions(server.asked[-1]) == ("v1", None)
        assert connector.changes(None).rows.column("phone").to_pylist() == ["1"]
        connector.close()


def test_etags_in_headers_are_read_item_by_item_however_many_there_are() -> None:
    def answer(request: Request) -> Say:
        return Say(body=person(request.steps[-1]), headers={"ETag": '"1"'})

    with scripted(answer) as server:
        wanted = keys(*(f"R{number}" for number in range(501)))
        found = rest(server.url, etag=HEADER).fetch(wanted)
        assert found.etags is not None and found.etags.num_rows == 501 and len(server.asked) == 501
