"""Proving to an API who we are, and keeping the proof to ourselves."""

from __future__ import annotations

import base64
import logging
import socket
import traceback
from typing import Any

import pytest

from connectors.nodes import build
from connectors.rest_auth import hide
from connectors.rest_token import Issued, Tokens
from federation.errors import AccessDenied, DeclarationError, FedsyncError, Permanent, SchemaMismatch, Transient
from tests.scripted_http import Request, Reset, Say, Scripted, scripted
from tests.unit.rest_sample import deletes, ids, node, patient, person, rest

SECRET = "s3cret/+"


def shown(error: BaseException) -> str:
    """What a log shows of an error, but for the lines of this very file: its text and that of all it came from."""
    told = traceback.TracebackException.from_exception(error)
    told.stack.clear()
    below: list[traceback.TracebackException | None] = [told]
    while below:
        one = below.pop()
        if one is not None:
            one.stack.clear()
            below += [one.__cause__, one.__context__]
    return "".join(told.format())


# Kinds that need nobody's help


@pytest.mark.parametrize(
    ("auth", "name", "value"),
    [
        ({"kind": "bearer", "token": SECRET}, "Authorization", f"Bearer {SECRET}"),
        ({"kind": "api_key", "header": "X-Api-Key", "api_key": SECRET}, "X-Api-Key", SECRET),
        ({"kind": "basic", "username": "街道", "password": "密:码"}, "Authorization", "Basic 6KGX6YGTOuWvhjrnoIE="),
    ],
)
def test_each_request_carries_the_proof(auth: dict[str, Any], name: str, value: str) -> None:
    with scripted(lambda _: Say(body=[])) as server:
        connector = rest(server.url, token=None, auth=auth)
        connector.changes(None)
        connector.apply(deletes("R1"))
        assert [request.headers[name] for request in server.asked] == [value, value]


def test_without_credentials_none_are_sent() -> None:
    with scripted(lambda _: Say(body=[])) as server:
        rest(server.url, token=None).changes(None)
        assert "Authorization" not in server.asked[0].headers


def test_a_key_in_the_address_is_sent_with_each_page_once() -> None:
    def answer(request: Request) -> Say:
        second = "page" in request.query
        following = f"{request.target}&page=2"  # the API hands our own key back in its link
        return Say(body={"items": [person("R2" if second else "R1")], "next": None if second else following})

    auth = {"kind": "api_key", "parameter": "key", "api_key": "a b&c=d"}
    with scripted(answer) as server:
        found = rest(
            server.url, token=None, auth=auth, records="items", paging={"kind": "link", "next": "next"}
        ).changes(None)
        assert [request.target.count("key=") for request in server.asked] == [1, 1]
        assert [request.query["key"] for request in server.asked] == ["a b&c=d"] * 2
    assert ids(found.rows) == ["R1", "R2"]


@pytest.mark.parametrize("answer", [Say(401), Say(500), Say(body=b"{"), Reset()], ids=["401", "500", "broken", "reset"])
def test_a_key_in_the_address_stands_in_no_error_and_no_log(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    auth = {"kind": "api_key", "parameter": "key", "api_key": "k3y/ 1234"}
    with (
        caplog.at_level(logging.DEBUG),
        scripted(lambda _: answer) as server,
        pytest.raises(FedsyncError) as caught,
    ):
        rest(server.url, token=None, auth=auth).changes(None)
    for text in (shown(caught.value), caplog.text):
        assert "1234" not in text
    assert caplog.text, "urllib3 does log"


def test_a_key_in_the_address_of_a_next_page_stands_in_no_error() -> None:
    def answer(request: Request) -> Say:
        second = "page" in request.query
        return Say(body={} if second else {"items": [person("R1")], "next": f"{request.target}&page=2"})

    auth = {"kind": "api_key", "parameter": "key", "api_key": "k3y/ 1234"}
    with scripted(answer) as server, pytest.raises(SchemaMismatch) as caught:
        rest(server.url, token=None, auth=auth, records="items", paging={"kind": "link", "next": "next"}).changes(None)
    assert caught.value.where["request"] == "GET /people" and "1234" not in shown(caught.value)


def test_a_key_in_the_address_stands_in_no_error_about_a_system_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        auth = {"kind": "api_key", "parameter": "key", "api_key": "k3y/ 1234"}
        with pytest.raises(Transient) as caught:
            rest(url, token=None, auth=auth).probe()
    assert "key=***" in shown(caught.value) and "1234" not in shown(caught.value)


def test_what_is_hidden_is_found_in_every_form_and_in_every_cause() -> None:
    try:
        try:
            raise OSError("a?key=k3y%2F+1234")
        except OSError as cause:
            raise ValueError("b k3y/ 1234", cause) from cause
    except ValueError as error:
        hide(error, ("k3y/ 1234", "b"))
        assert "1234" not in shown(error)
        assert "b ***" in str(error), "what is too short to be a secret stays readable"


# Tokens that are given out


class Office:
    """Gives out tokens, and takes them for a while. `lifetime`: as it says; `answer`: instead of a token."""

    def __init__(self, lifetime: Any = 3600) -> None:
        self.lifetime = lifetime
        self.issued = 0
        self.good: set[str] = set()
        self.answer: Any = None
        self.asked: list[Request] = []

    def __call__(self, request: Request) -> Any:
        if request.path == "/token":
            self.asked.append(request)
            if self.answer is not None:
                return self.answer
            self.issued += 1
            self.good = {f"T{self.issued}"}
            extra = {} if self.lifetime is None else {"expires_in": self.lifetime}
            return Say(body={"access_token": f"T{self.issued}", "token_type": "bearer", **extra})
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return Say(body=[person("R1")]) if given in self.good else Say(401)


def oauth(server: Scripted, **options: Any) -> dict[str, Any]:
    auth = {"kind": "oauth2", "url": "/token", "client_id": "联邦:1", "client_secret": "s3cret&1", **options}
    return {"token": None, "auth": auth}


def test_a_token_is_asked_for_once_by_all_nodes_of_a_system_and_used_until_it_expires() -> None:
    office = Office()
    with scripted(office) as server:
        for _ in range(3):
            rest(server.url, **oauth(server)).changes(None)
    assert office.issued == 1


@pytest.mark.parametrize("client", ["basic", "body"])
def test_the_client_proves_itself_in_the_header_or_in_the_form(client: str) -> None:
    office = Office()
    with scripted(office) as server:
        rest(server.url, **oauth(server, client=client, scope="a b", parameters={"audience": "x"})).changes(None)
    (asked,) = office.asked
    form = {"grant_type": "client_credentials", "scope": "a b", "audience": "x"}
    if client == "basic":
        given = base64.b64decode(asked.headers["Authorization"].removeprefix("Basic ")).decode()
        assert given == "%E8%81%94%E9%82%A6%3A1:s3cret%261" and asked.form == form
    else:
        assert "Authorization" not in asked.headers
        assert asked.form == {**form, "client_id": "联邦:1", "client_secret": "s3cret&1"}


def test_a_token_that_is_refused_is_replaced_once_and_the_request_sent_again() -> None:
    office = Office(lifetime=None)
    with scripted(office) as server:
        connector = rest(server.url, **oauth(server))
        connector.changes(None)
        office.good.clear()
        assert ids(connector.changes(None).rows) == ["R1"] and office.issued == 2


def test_a_fresh_token_that_is_refused_too_is_an_error() -> None:
    office = Office()
    with scripted(lambda request: office(request) if request.path == "/token" else Say(401)) as server:
        with pytest.raises(AccessDenied):
            rest(server.url, **oauth(server)).changes(None)
        assert (office.issued, len(server.asked)) == (2, 4)


def test_a_code_inside_the_answer_that_stands_for_401_gets_a_fresh_token_as_well() -> None:
    office = Office()

    def answer(request: Request) -> Any:
        said = office(request)
        if request.path == "/token" or said.status == 200:
            return said if request.path == "/token" else Say(body={"code": "0", "data": said.body})
        return Say(body={"code": "A0230", "data": None})

    success = {"field": "code", "values": ["0"], "statuses": {"A0230": 401}}
    with scripted(answer) as server:
        connector = rest(server.url, records="data", success=success, **oauth(server))
        connector.changes(None)
        office.good.clear()
        assert ids(connector.changes(None).rows) == ["R1"] and office.issued == 2


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (
            Say(400, {"error": "invalid_client", "error_description": "s3cret&1 is wrong"}),
            AccessDenied,
            "invalid_client",
        ),
        (Say(401, {"error": "s3cret&1"}), AccessDenied, "no token"),
        (Say(403), AccessDenied, "no token"),
        (Say(400, {"error": "invalid_scope"}), AccessDenied, "invalid_scope"),
        (Say(400, {"message": "?"}), Permanent, "refused the request"),
        (Say(404), SchemaMismatch, "no such endpoint"),
        (Say(429, headers={"Retry-After": "7"}), Transient, "busy"),
        (Say(503), Transient, "busy"),
        (Reset(), Transient, "broke off"),
        (Say(body=b"<html>"), Transient, "not JSON"),
        (Say(body={"token": "x"}), SchemaMismatch, "no token at access_token"),
        (Say(body={"access_token": "x", "token_type": "mac"}), Permanent, "mac"),
    ],
)
def test_each_failure_to_get_a_token_has_its_error_without_the_secret(
    answer: Any, kind: type[FedsyncError], said: str
) -> None:
    office = Office()
    office.answer = answer
    with scripted(office) as server, pytest.raises(kind, match=said) as caught:
        rest(server.url, **oauth(server)).changes(None)
    error = caught.value
    assert error.where["system"] == "platform" and error.where["request"] == "POST /token"
    assert "s3cret" not in shown(error)
    if isinstance(answer, Say) and answer.headers:
        assert isinstance(error, Transient) and error.retry_after == 7


def test_a_token_office_that_is_busy_is_asked_again() -> None:
    office = Office()
    turns = [Say(503), Say(429)]

    def answer(request: Request) -> Any:
        return turns.pop() if request.path == "/token" and turns else office(request)

    with scripted(answer) as server:
        assert ids(rest(server.url, retrier=patient([]), **oauth(server)).changes(None).rows) == ["R1"]


def test_a_token_office_on_another_host_gets_the_credentials_and_the_api_does_not() -> None:
    office = Office()
    with scripted(office) as elsewhere, scripted(office) as server:
        given = oauth(server, url=f"{elsewhere.url}/token")
        rest(server.url, **given).changes(None)
        assert [request.path for request in elsewhere.asked] == ["/token"]
        assert [request.headers["Authorization"] for request in server.asked] == ["Bearer T1"]


def test_a_token_is_used_until_shortly_before_it_expires() -> None:
    now = [0.0]
    tokens = Tokens(clock=lambda: now[0])
    issued = iter(range(9))

    def ask() -> Issued:
        return Issued(f"T{next(issued)}", 100)

    assert [tokens.current(ask), tokens.current(ask)] == ["T0", "T0"]
    now[0] = 99.9
    assert tokens.current(ask) == "T0"
    now[0] = 100
    assert tokens.current(ask) == "T1"
    tokens.refused("T0")
    assert tokens.current(ask) == "T1", "somebody else has replaced it already"
    tokens.refused("T1")
    assert tokens.current(ask) == "T2"


@pytest.mark.parametrize(("lifetime", "asked"), [(3600, 1), (10, 1), ("soon", 1), (0, 3)])
def test_a_token_that_lives_shorter_than_the_leeway_is_used_for_half_its_life(lifetime: Any, asked: int) -> None:
    office = Office(lifetime)
    with scripted(office) as server:
        connector = rest(server.url, **oauth(server))
        for _ in range(3):
            connector.changes(None)
    assert office.issued == asked


def test_a_platforms_own_login_gives_out_tokens_too() -> None:
    def answer(request: Request) -> Say:
        if request.path == "/auth/login":
            good = request.body == {"appKey": "fedsync", "appSecret": "s3cret"}
            data = {"token": "T1", "expire": 7200} if good else None
            return Say(body={"code": 0 if good else 401, "msg": "", "data": data})
        return Say(body={"code": 0, "data": [person("R1")] if request.headers.get("X-Token") == "T1" else None})

    def login(secret: str) -> dict[str, Any]:
        body = {"appKey": "fedsync", "appSecret": secret}
        auth = {
            "kind": "login",
            "url": "/auth/login",
            "body": body,
            "field": "data.token",
            "lifetime_field": "data.expire",
            "header": "X-Token",
            "prefix": "",
        }
        success = {"field": "code", "values": [0]}
        return {"token": None, "auth": auth, "success": success, "records": "data"}

    with scripted(answer) as server:
        assert ids(rest(server.url, **login("s3cret")).changes(None).rows) == ["R1"]
        with pytest.raises(AccessDenied, match="no token") as caught:
            rest(server.url, **login("wr0ng")).changes(None)
    assert "wr0ng" not in shown(caught.value)


# Declarations


@pytest.mark.parametrize(
    ("auth", "said"),
    [
        ({"kind": "bearer", "token": "wr0ng-token\n"}, "line break"),
        ({"kind": "bearer", "token": "令牌wr0ng"}, "ASCII"),
        ({"kind": "bearer", "token": ""}, "empty"),
        ({"kind": "api_key", "api_key": "wr0ng"}, "either"),
        ({"kind": "api_key", "api_key": "wr0ng", "header": "X", "parameter": "x"}, "either"),
        ({"kind": "basic", "username": "a:b", "password": "wr0ng"}, "colon"),
        ({"kind": "hmac", "secret": "wr0ng", "text": "{path}", "headers": {"X": "{nonce}"}}, "signature"),
        (
            {"kind": "hmac", "secret": "wr0ng", "text": "{nonce}", "headers": {"X": "{signature}"}},
            "nonce is signed but not",
        ),
        ({"kind": "hmac", "secret": "wr0ng", "text": "{body}", "headers": {"X": "{signature}"}}, "unknown word body"),
        ({"kind": "hmac", "secret": "wr0ng", "text": "{path", "headers": {"X": "{signature}"}}, "cannot be read"),
        ({"kind": "digest", "token": "wr0ng"}, "kind"),
    ],
)
def test_a_proof_that_cannot_be_meant_is_refused_without_showing_the_secret(auth: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError, match=said) as caught:
        build(node("http://host", token=None, auth=auth), "rest")
    assert "wr0ng" not in shown(caught.value)


def test_a_bearer_token_has_a_short_form_that_excludes_the_long_one() -> None:
    with pytest.raises(DeclarationError, match="either it or"):
        build(node("http://host", auth={"kind": "bearer", "token": "t"}), "rest")
    assert "t0ken" not in repr(rest("http://host", token="t0ken").options)
