"""Records in a file on a WebDAV folder (Nextcloud, 坚果云, a NAS): JSON lines, one record a line, so that any program can write it.

The file is read whole (capture `snapshot`), so deletions are seen. A write puts the whole file in place, on the condition (If-Match) that
it is still the one that was read, keeps the order of its lines and all members that are no fields, and writes nothing if nothing
changes. Servers that make their ETags from size and second cannot tell two saves of one second apart: what was read is therefore told
by a hash of the content, and only the instant between our reading and our putting rests on the server's ETag.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import pyarrow as pa
import requests
from pydantic import Field, model_validator
from requests.auth import HTTPBasicAuth

from connectors.base import Applied, Batch, Capabilities, Changes, Connector, Node, Options, Probe, changes_of, fetched
from connectors.files import sha256
from connectors.rest_json import Number
from federation.canonical import LOCATOR, key_column
from federation.errors import AccessDenied, Conflict, Permanent, SchemaMismatch, Transient, Unreadable, located

_AGAIN = (408, 423, 425, 429, 500, 502, 503, 504, 507)
"""Busy, locked by a person, out of space: it may work later."""


class WebdavOptions(Options):
    """`url`: of the file. `token`: bearer token, or `user` and `password`. `timeout`: seconds of silence to bear."""

    url: str
    token: str | None = Field(default=None, repr=False)
    user: str | None = None
    password: str | None = Field(default=None, repr=False)
    timeout: float = Field(default=30.0, gt=0)

    @model_validator(mode="after")
    def _sound(self) -> WebdavOptions:
        if urlsplit(self.url).scheme not in ("http", "https") or self.url.endswith("/"):
            raise ValueError("`url` is the http(s) address of a file")
        if self.token is not None and self.user is not None:
            raise ValueError("declare either `token` or `user` and `password`")
        return self


@dataclass(frozen=True)
class _Document:
    """The file as it was read. `etag`: as the server gave it, None if it gave none that may stand in a condition."""

    content: bytes
    etag: str | None
    records: list[dict[str, Any]]

    @cached_property
    def cursor(self) -> str:
        return sha256(self.content)


class WebdavConnector(Connector):
    """See the module. One session; the first call connects."""

    options_model = WebdavOptions

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.options = WebdavOptions.model_validate(node.options)
        self._where = {"dataset": node.dataset.name, "region": str(node.region), "system": node.system}

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities("snapshot", conditional=True, keyed_reads=False)

    def probe(self) -> Probe:
        with self._named():
            content = self._read().content
        return Probe(sha256(content), f"{len(content)} bytes")

    def prepare(self) -> tuple[str, ...]:
        with self._named():
            if self._asked("HEAD").status_code != 404:
                return ()
            made = self._asked("PUT", b"", {"If-None-Match": "*"}, accept=(412,))  # 412: somebody was faster
            return () if made.status_code == 412 else (f"文件 file {self.options.url}",)

    def changes(self, since: str | None, *, sweep: bool = True) -> Changes:
        with self._named():
            document = self._opened()
            raw = self._raw(document.records)
            found = changes_of(self.node, raw, present=True, cursor=document.cursor)
            return replace(found, missing=self._missing(document.records))

    def fetch(self, keys: pa.Table) -> Changes:
        return fetched(self.node, self.changes(None), keys)

    def apply(self, batch: Batch) -> Applied:
        with self._named():
            document = self._opened()
            if batch.cursor is not None and batch.cursor != document.cursor:
                raise self._saved_meanwhile()
            content = self._edited(document, batch)
            if content != document.content:
                self._put(document, content)
        cursor = sha256(content)
        token = cursor if batch.token == document.cursor else None
        return Applied(sum(rows.num_rows for rows in batch.upserts), batch.deletes.num_rows, cursor, token)

    def close(self) -> None:
        if "_session" in self.__dict__:
            self._session.close()
            del self.__dict__["_session"]

    # --- records

    def _raw(self, records: list[dict[str, Any]]) -> pa.Table:
        columns = {
            name: pa.array([self._text(name, record.get(self.node.column(name))) for record in records], pa.string())
            for name in self.node.fields
        }
        return pa.table({**columns, LOCATOR: pa.array([f"第 {n} 条" for n in range(1, len(records) + 1)], pa.string())})

    def _missing(self, records: list[dict[str, Any]]) -> frozenset[str]:
        """The fields beside the key that no record has a member for."""
        others = [name for name in self.node.fields if name not in self.node.dataset.key]
        lost = (name for name in others if all(self.node.column(name) not in record for record in records))
        return frozenset(lost) if records else frozenset()

    def _text(self, name: str, value: Any) -> str | None:
        """A member as it was written."""
        if value is None:
            return None
        if self.node.dataset.fields[name].type == "json" or isinstance(value, (dict, list)):
            return json.dumps(value, ensure_ascii=False)
        if isinstance(value, bool):
            return "true" if value else "false"
        return value.text if isinstance(value, Number) else str(value)

    def _member(self, name: str, value: Any) -> Any:
        """A typed value as a member."""
        if isinstance(value, datetime):
            return value.astimezone(ZoneInfo(self.node.timezone)).isoformat(timespec="milliseconds")
        if isinstance(value, date):
            return value.isoformat()
        if isinstance(value, Decimal):  # as text: a JSON number passes through a binary float in most programs
            return f"{value:f}"
        return json.loads(value) if value is not None and self.node.dataset.fields[name].type == "json" else value

    def _edited(self, document: _Document, batch: Batch) -> bytes:
        """The file after a batch. A key that stands in several records means all of them."""
        records = [dict(record) for record in document.records]
        places = self._places(document.records)
        for rows in batch.upserts:
            for key, row in zip(key_column(rows, self.node.dataset).to_pylist(), rows.to_pylist()):
                members = {self.node.column(name): self._member(name, value) for name, value in row.items()}
                if key not in places:
                    places[key] = [len(records)]
                    records.append(dict.fromkeys(map(self.node.column, self.node.fields)))
                    records[-1].update(members)
                    continue
                for name in self.node.dataset.key:
                    members.pop(self.node.column(name), None)
                for at in places[key]:
                    records[at].update(members)
        gone = {at for key in key_column(batch.deletes, self.node.dataset).to_pylist() for at in places.get(key, ())}
        kept = [record for at, record in enumerate(records) if at not in gone]
        if kept == document.records:
            return document.content
        return "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in kept).encode()

    def _places(self, records: list[dict[str, Any]]) -> dict[str, list[int]]:
        """Key → where its records stand."""
        keys = list(self.node.dataset.key)
        numbered = (
            self._raw(records).select(keys).append_column(LOCATOR, pa.array(map(str, range(len(records))), pa.string()))
        )
        typed = replace(self.node, fields=tuple(keys)).conform(numbered)
        refused = set(typed.rejects.column("locator").to_pylist())
        known = typed.rejects
        for name in keys:
            known = known.filter(known.column(name).is_valid())
        numbers = [at for at in range(len(records)) if str(at) not in refused]
        found = {key: [at] for key, at in zip(key_column(typed.rows, self.node.dataset).to_pylist(), numbers)}
        for key, place in zip(key_column(known, self.node.dataset).to_pylist(), known.column("locator").to_pylist()):
            found.setdefault(key, []).append(int(place))
        return found

    # --- the file

    def _opened(self) -> _Document:
        """The file, taken apart. Raises Unreadable with the line where it stops making sense."""
        document = self._read()
        for number, line in enumerate(document.content.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line.decode("utf-8-sig"), parse_float=Number)
            except ValueError as cause:
                raise self._not_json(number, f"{cause}") from cause
            if not isinstance(record, dict):
                raise self._not_json(number, "it is no object")
            document.records.append(record)
        return document

    def _not_json(self, line: int, why: str) -> Unreadable:
        return Unreadable(
            f"the line is no record in JSON: {why}",
            "该行不是 JSON 记录",
            todo="每行一个 JSON 对象，UTF-8 编码 / one JSON object a line, in UTF-8",
            line=line,
        )

    def _read(self) -> _Document:
        answer = self._asked("GET")
        if answer.status_code == 404:
            raise SchemaMismatch(
                "the file is missing; nothing is read as deleted",
                "文件不存在；不会视为数据被删除",
                todo="恢复该文件，或检查 url / restore the file, or check `url`",
            )
        etag = answer.headers.get("ETag")
        return _Document(answer.content, None if etag is None or etag.startswith("W/") else etag, [])

    def _put(self, document: _Document, content: bytes) -> None:
        if document.etag is None:
            raise Permanent(
                "the server gives no strong ETag, so a write could undo somebody's edit; nothing was written",
                "服务器不提供强 ETag，写入可能覆盖他人修改；未写入任何内容",
                todo="在服务器上启用 ETag，或改用其他连接器 / turn ETags on at the server, or use another connector",
            )
        if self._asked("PUT", content, {"If-Match": document.etag}, accept=(412,)).status_code == 412:
            raise self._saved_meanwhile()

    def _saved_meanwhile(self) -> Conflict:
        return Conflict(
            "somebody saved the file after it was read; nothing was written",
            "读取后文件已被他人保存；未写入任何内容",
            todo="将重新读取并合并 / it is read and merged again",
        )

    # --- HTTP

    @cached_property
    def _session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False  # neither a proxy nor a .netrc that the declaration does not name
        if self.options.token is not None:
            session.headers["Authorization"] = f"Bearer {self.options.token}"
        elif self.options.user is not None:
            session.auth = HTTPBasicAuth(self.options.user.encode(), (self.options.password or "").encode())
        return session

    def _asked(
        self,
        method: str,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        accept: tuple[int, ...] = (),
    ) -> requests.Response:
        """The answer to a request; 404 of a read is one, and so is what is in `accept`."""
        try:
            answer = self._session.request(
                method, self.options.url, data=content, headers=headers, timeout=self.options.timeout
            )
        except requests.RequestException as cause:
            raise Transient(
                f"the WebDAV server does not answer: {type(cause).__name__}",
                "WebDAV 服务器无响应",
                todo="检查 url 与网络 / check `url` and the network",
            ) from cause
        status = answer.status_code
        if status < 400 or status in accept or (status == 404 and method in ("GET", "HEAD")):
            return answer
        told = f"HTTP {status} to {method}"
        if status in (401, 403):
            raise AccessDenied(
                f"the WebDAV server refused access: {told}",
                f"WebDAV 服务器拒绝访问：HTTP {status}",
                todo="检查 token 或 user、password 及其权限 / check `token` or `user`, `password` and their rights",
            )
        if status in _AGAIN:
            wait = answer.headers.get("Retry-After", "")
            raise Transient(
                f"the WebDAV server is busy, or the file is locked: {told}",
                f"WebDAV 服务器繁忙或文件被锁定：HTTP {status}",
                retry_after=float(wait) if wait.isdigit() else None,
            )
        if status in (404, 409):
            raise SchemaMismatch(
                f"the WebDAV folder is missing: {told}",
                f"WebDAV 目录不存在：HTTP {status}",
                todo="先建好目录，或检查 url / make the folder first, or check `url`",
            )
        raise Permanent(
            f"the WebDAV server refused: {told}",
            f"WebDAV 服务器拒绝：HTTP {status}",
            todo="按服务器的说明处理 / do as the server says",
        )

    @contextmanager
    def _named(self) -> Iterator[None]:
        with located(**self._where, file=self.options.url):
            yield
