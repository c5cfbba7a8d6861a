"""A WebDAV server that refuses, is silent, or tells too little: each answer under each method is one of our errors."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import requests

from connectors.base import Batch, no_keys
from connectors.nodes import build
from connectors.webdav import WebdavConnector
from federation.errors import (
    AccessDenied,
    Conflict,
    ConnectorError,
    DeclarationError,
    Permanent,
    SchemaMismatch,
    Transient,
    Unreadable,
)
from tests.contract.dataset import REGION, SAMPLE, make_node, row, table
from tests.contract.test_webdav import PASSWORD, USER, webdav_server

FIELDS = ("record_id", "community_code", "note", "visits")
Answer = tuple[int, dict[str, str], bytes]
LINE = json.dumps({"record_id": "R1", "community_code": REGION.code, "note": "一", "visits": 1, "mine": "留"}) + "\n"
FOUND: Answer = (200, {"ETag": '"1"'}, LINE.encode())


def connector(**options: Any) -> WebdavConnector:
    given = {"url": "http://dav.invalid/a/台账.jsonl", "user": USER, "password": PASSWORD, **options}
    return WebdavConnector(make_node(SAMPLE, given, fields=FIELDS))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, dict[str, str]]]]:
    """Let the server answer by method; returns the requests that it was sent. An exception is raised."""

    def arrange(**by_method: Answer | Exception) -> list[tuple[str, dict[str, str]]]:
        asked: list[tuple[str, dict[str, str]]] = []

        def request(_: Any, method: str, url: str, **given: Any) -> requests.Response:
            asked.append((method, dict(given.get("headers") or {})))
            answer = by_method[method]
            if isinstance(answer, Exception):
                raise answer
            made = requests.Response()
            made.status_code, made._content = answer[0], answer[2]
            made.headers.update(answer[1])
            return made

        monkeypatch.setattr(requests.Session, "request", request)
        return asked

    return arrange


def write(one: WebdavConnector, cursor: str | None = None) -> None:
    one.apply(Batch((table(SAMPLE, [{"record_id": "R1", "note": "改"}]),), no_keys(one.node), cursor))


CALLS: dict[str, Callable[[WebdavConnector], object]] = {
    "probe": lambda one: one.probe(),
    "prepare": lambda one: one.prepare(),
    "changes": lambda one: one.changes(None),
    "fetch": lambda one: one.fetch(table(SAMPLE, [{"record_id": "R1"}])),
    "holding": lambda one: one.holding("note", pa.array(["一"])),
    "apply": write,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (requests.ConnectionError("gone"), Transient),
        (requests.ReadTimeout("slow"), Transient),
        ((401, {}, b""), AccessDenied),
        ((403, {}, b""), AccessDenied),
        ((423, {}, b""), Transient),
        ((503, {"Retry-After": "7"}, b""), Transient),
        ((400, {}, b""), Permanent),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value)[:12],
)
def test_whatever_goes_wrong_under_a_method_is_an_error_of_ours_that_names_the_file(
    answers: Any, call: str, answer: Answer | Exception, kind: type[ConnectorError]
) -> None:
    answers(GET=answer, HEAD=answer, PUT=answer)
    with pytest.raises(kind) as caught:
        CALLS[call](connector())
    assert type(caught.value) is kind
    assert caught.value.where["file"] == "http://dav.invalid/a/台账.jsonl" and caught.value.zh
    if isinstance(answer, Exception):
        assert caught.value.__cause__ is answer
    if isinstance(answer, tuple) and answer[0] == 503:
        assert caught.value.retry_after == 7.0  # type: ignore[attr-defined]


def test_no_error_quotes_the_credentials(answers: Any) -> None:
    answers(GET=requests.ConnectionError(f"http://{USER}:{PASSWORD}@dav"))
    with pytest.raises(Transient) as caught:
        connector().probe()
    assert PASSWORD not in str(caught.value)


def test_a_missing_file_is_never_an_empty_one(answers: Any) -> None:
    answers(GET=(404, {}, b""))
    for name in ("probe", "changes", "apply"):
        with pytest.raises(SchemaMismatch, match="missing"):
            CALLS[name](connector())


def test_a_missing_folder_is_told_as_such(answers: Any) -> None:
    answers(HEAD=(404, {}, b""), PUT=(409, {}, b""))
    with pytest.raises(SchemaMismatch, match="folder is missing"):
        connector().prepare()


def test_who_creates_the_file_second_leaves_it_alone(answers: Any) -> None:
    asked = answers(HEAD=(404, {}, b""), PUT=(412, {}, b""))
    assert connector().prepare() == ()
    assert asked == [("HEAD", {}), ("PUT", {"If-None-Match": "*"})]


def test_a_file_that_was_saved_between_reading_and_putting_is_a_conflict(answers: Any) -> None:
    asked = answers(GET=FOUND, PUT=(412, {}, b""))
    with pytest.raises(Conflict):
        write(connector())
    assert asked[-1] == ("PUT", {"If-Match": '"1"'})


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_without_a_strong_etag_nothing_is_written(answers: Any, etag: str | None) -> None:
    asked = answers(GET=(200, {} if etag is None else {"ETag": etag}, LINE.encode()))
    one = connector()
    assert one.changes(None).rows.num_rows == 1, "reading goes on"
    with pytest.raises(Permanent, match="ETag"):
        write(one)
    assert {method for method, _ in asked} == {"GET"}


def test_a_batch_that_changes_nothing_puts_nothing(answers: Any) -> None:
    asked = answers(GET=FOUND)
    one = connector()
    one.apply(Batch((table(SAMPLE, [row("R1", note="一", visits=1)]),), no_keys(one.node)))
    assert [method for method, _ in asked] == ["GET"]


@pytest.mark.parametrize(
    ("content", "line"),
    [(b"{", 1), (LINE.encode() + b'{"record_id": "R2"', 2), (b"[1]\n", 1), ("备注".encode("gb18030"), 1)],
    ids=["cut", "second line cut", "no object", "another encoding"],
)
def test_a_line_that_is_no_record_is_an_error_that_names_it(answers: Any, content: bytes, line: int) -> None:
    answers(GET=(200, {"ETag": '"1"'}, content))
    with pytest.raises(Unreadable) as caught:
        connector().changes(None)
    assert caught.value.where["line"] == line


def test_a_field_that_no_record_has_a_member_for_is_missing(answers: Any) -> None:
    answers(GET=(200, {"ETag": '"1"'}, json.dumps({"record_id": "R1", "community_code": REGION.code}).encode()))
    assert connector().changes(None).missing == {"note", "visits"}


def test_two_saves_of_one_second_are_told_apart_though_the_servers_etag_does_not(tmp_path: Path) -> None:
    """WsgiDAV makes its ETag from inode, second and size."""
    root, url = webdav_server()
    path = root / f"{tmp_path.name}.jsonl"
    path.write_text(LINE, encoding="utf-8")
    one = connector(url=f"{url}/{path.name}")
    stat = path.stat()
    before = one.changes(None).cursor
    with path.open("r+", encoding="utf-8") as file:
        file.write(LINE.replace('"visits": 1', '"visits": 2'))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert one.probe().token != before
    with pytest.raises(Conflict):
        write(one, before)


def test_members_that_are_no_fields_and_the_order_of_the_lines_stay(tmp_path: Path) -> None:
    root, url = webdav_server()
    path = root / f"{tmp_path.name}.jsonl"
    path.write_text(LINE.replace("R1", "R2") + "\n" + LINE, encoding="utf-8")
    write(connector(url=f"{url}/{path.name}"))
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(found["record_id"], found["note"], found["mine"]) for found in records] == [
        ("R2", "一", "留"),
        ("R1", "改", "留"),
    ]


def test_a_wrong_password_is_refused_by_a_real_server() -> None:
    _, url = webdav_server()
    with pytest.raises(AccessDenied):
        connector(url=f"{url}/x.jsonl", password="wrong").probe()


@pytest.mark.parametrize(
    "options",
    [{"url": "ftp://h/x"}, {"url": "http://h/folder/"}, {"url": "http://h/x", "token": "t", "user": "u"}, {}],
    ids=["scheme", "folder", "two ways to log in", "no url"],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError):
        build(make_node(SAMPLE, options), "webdav")
