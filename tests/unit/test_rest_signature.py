"""Signed requests."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any

import pytest
import requests

from connectors.rest_auth import Signature, sorted_query
from connectors.rest_auth_options import HmacOptions
from federation.errors import AccessDenied, Permanent
from tests.scripted_http import Say, scripted
from tests.unit.rest_sample import patient, person, rest, upserts

WORKED = HmacOptions.model_validate(
    {
        "kind": "hmac",
        "key_id": "fedsync",
        "secret": "3c469e9d6c5875d3",
        "times": "milliseconds",
        "text": "{method}\n{path}\n{query}\n{timestamp}\n{nonce}\n{body_digest}",
        "headers": {"X-Nonce": "{nonce}", "X-Timestamp": "{timestamp}", "X-Signature": "{key_id}:{signature}"},
    }
)
"""The worked example of docs/rest.md."""
WORKED_REQUEST = requests.Request(
    "POST", "https://grid.example/openapi/residents/saveBatch?tag=%E7%94%B2&a=2&a=1", json={"records": []}
)
WORKED_SIGNATURES = {
    # printf 'POST\n…' | openssl dgst -sha256 -hmac 3c469e9d6c5875d3, the body's digest made by `openssl dgst` as well
    "sha256": "f54336009edf4a8dd2b0358708127846fb636977801bdfbf7c66b0a0a32a9b30",
    "sha1": "c78d67e7ae3e2a8ca3ed0b712455accc66f4603a",
    "sm3": "2f68abf0a04f5049e5872b63e2f2e72d607de0cf6144617413850928069dcdbd",
}


def signed(options: HmacOptions, request: requests.Request = WORKED_REQUEST) -> requests.PreparedRequest:
    moment = datetime(2026, 1, 31, 8, 0, 0, 123000, tzinfo=UTC)
    return Signature(options, now=lambda: moment, nonce=lambda: "0123456789abcdef" * 2)(request.prepare())


@pytest.mark.parametrize("algorithm", WORKED_SIGNATURES)
def test_the_worked_example_has_the_signature_that_openssl_gives_it(algorithm: str) -> None:
    sent = signed(WORKED.model_copy(update={"algorithm": algorithm}))
    assert sent.headers["X-Signature"] == f"fedsync:{WORKED_SIGNATURES[algorithm]}"
    assert (sent.headers["X-Timestamp"], sent.headers["X-Nonce"]) == ("1769846400123", "0123456789abcdef" * 2)


@pytest.mark.parametrize(("times", "written"), [("seconds", "1769846400"), ("iso", "2026-01-31T08:00:00Z")])
def test_a_signature_in_base64_over_other_parts(times: str, written: str) -> None:
    options = WORKED.model_copy(
        update={
            "times": times,
            "encoding": "base64",
            "text": "{host}{path}|{timestamp}|{content_type}|{nonce}|{body_digest}",
        }
    )
    sent = signed(options, requests.Request("GET", "http://grid.example:8080/a%20b"))
    nothing = base64.b64encode(hashlib.sha256(b"").digest()).decode()
    text = f"grid.example:8080/a%20b|{written}||{'0123456789abcdef' * 2}|{nothing}"
    expected = hmac.new(b"3c469e9d6c5875d3", text.encode(), hashlib.sha256).digest()
    assert sent.headers["X-Signature"] == f"fedsync:{base64.b64encode(expected).decode()}"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ""),
        ("b=2&a=1", "a=1&b=2"),
        ("a=2&a=10&a-b=0", "a=10&a=2&a-b=0"),
        ("q=a+b&q=a%20a", "q=a%20a&q=a%20b"),
        ("name=%E7%8E%8B*~!&flag=", "flag=&name=%E7%8E%8B%2A~%21"),
    ],
)
def test_a_query_is_sorted_by_name_and_value_and_encoded_one_way(query: str, expected: str) -> None:
    assert sorted_query(query) == expected


def test_each_attempt_is_signed_anew() -> None:
    turns = [Say(503)]
    auth = WORKED.model_dump() | {"secret": "3c469e9d6c5875d3"}
    with scripted(lambda _: turns.pop() if turns else Say(body=[])) as server:
        rest(server.url, token=None, auth=auth, retrier=patient([])).changes(None)
        first, second = (request.headers["X-Nonce"] for request in server.asked)
    assert first != second, "a server that remembers nonces would refuse the second"


def test_an_algorithm_that_this_machine_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(name: str, *_: Any) -> Any:
        raise ValueError(f"unsupported hash type {name}")

    monkeypatch.setattr(hashlib, "new", lacks)
    with pytest.raises(Permanent, match="no sm3"):
        Signature(WORKED.model_copy(update={"algorithm": "sm3"}))


def test_what_a_system_that_refuses_us_wants_is_told_by_the_kind_of_proof() -> None:
    auth = WORKED.model_dump() | {"secret": "3c469e9d6c5875d3"}
    with scripted(lambda _: Say(401)) as server:
        with pytest.raises(AccessDenied) as caught:
            rest(server.url, token=None, auth=auth).apply(upserts(person("R1")))
        assert "clocks" in caught.value.todo and caught.value.where["key"] == "R1"
