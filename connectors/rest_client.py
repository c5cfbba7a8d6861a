"""HTTP for the REST connector: one session, politeness, and every failure turned into an error of ours.

What an API says in the body of a refusal is not repeated in our errors, since it tends to quote the record, and errors are
kept where no attribute value may be. It stays within reach in the `__cause__` (`requests.HTTPError.response`).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from connectors.rest_options import RestOptions
from connectors.retrying import Retrier
from federation.errors import AccessDenied, Conflict, ConnectorError, Permanent, SchemaMismatch, Transient

Place = dict[str, Any]
GONE = frozenset((404, 410))
MISSING = object()
"""What `dig` finds where nothing is; null is something."""


class Number(float):
    """A JSON number with a fraction or an exponent that remembers how it was written: a decimal loses nothing."""

    text: str

    def __new__(cls, text: str) -> Number:
        number = super().__new__(cls, text)
        exact = Decimal(text)
        # 1e999999999 is a short text and a very long number.
        number.text = format(exact, "f") if abs(exact.adjusted()) < 100 else text
        return number


def dig(data: Any, path: str) -> Any:
    """The value at a dotted path, None below a null, MISSING where a name is absent. An empty path is `data` itself."""
    for name in path.split(".") if path else ():
        if data is None:
            return None
        if not isinstance(data, Mapping) or name not in data:
            return MISSING
        data = data[name]
    return data


class Refused(Permanent):
    """The API refuses this one record or request; others may pass."""


@dataclass(frozen=True)
class Answer:
    """A successful answer, or one whose status the caller accepts. `data`: its JSON, None if it was not to be read."""

    status: int
    url: str
    data: Any
    headers: Mapping[str, str]

    @property
    def date(self) -> datetime | None:
        """The server's own clock when it answered."""
        return _http_date(self.headers.get("Date"))


class Pace:
    """At most so many requests a second, whichever threads send them."""

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self, now: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> None:
        """Return when it is this caller's turn."""
        with self._lock:
            turn = max(now(), self._next)
            self._next = turn + self._interval
        if (pause := turn - now()) > 0:
            sleep(pause)


_PACES: dict[tuple[str, float], Pace] = {}
_PACES_LOCK = threading.Lock()


def pace_of(base_url: str, per_second: float) -> Pace:
    """One pace for all nodes of this process that share a system: it is the system that must be spared."""
    with _PACES_LOCK:
        return _PACES.setdefault((base_url, per_second), Pace(per_second))


class Client:
    """Sends requests to one API; its errors name the request, and the key if there is one."""

    def __init__(self, options: RestOptions, retrier: Retrier) -> None:
        self.options = options
        self.retrier = retrier
        self._session: requests.Session | None = None
        rate = options.requests_per_second
        self._pace = pace_of(options.base_url, rate) if rate else None

    def get(self, path: str, parameters: Mapping[str, Any], *, key: str = "", accept: Collection[int] = ()) -> Answer:
        """Read. Statuses in `accept` are answers, not errors."""
        return self.retrier.call(lambda: self._send("GET", path, parameters, None, {}, key, accept, True))

    def write(self, method: str, path: str, body: Any, *, key: str, once: str, accept: Collection[int] = ()) -> Answer:
        """Write one record. `once` is the same text whenever this very write is sent again."""
        name = self.options.idempotency_header
        extra = {name: once} if name else {}
        return self.retrier.call(lambda: self._send(method, path, {}, body, extra, key, accept, False))

    def reach(self, path: str, parameters: Mapping[str, Any]) -> Answer:
        """Ask, but leave the answer's body unread: is the API there, and does it let us in?"""
        return self.retrier.call(lambda: self._send("GET", path, parameters, None, {}, "", (), False, stream=True))

    def close(self) -> None:
        """Give the connections back."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _send(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, Any],
        body: Any,
        extra: Mapping[str, str],
        key: str,
        accept: Collection[int],
        read: bool,
        *,
        stream: bool = False,
    ) -> Answer:
        url = self._url(path)
        place: Place = {"request": f"{method} {urlsplit(url).path}", "key": key}
        if self._pace:
            self._pace.wait()
        try:
            with self._opened().request(
                method,
                url,
                params=dict(parameters),
                json=body,
                headers=dict(extra),
                timeout=self.options.timeout,
                # Given with each request: the session's own would lose against REQUESTS_CA_BUNDLE in the environment.
                verify=str(self.options.ca) if self.options.ca else True,
                # A redirected write becomes a read, and a redirected read is mostly a page that asks to log in.
                allow_redirects=False,
                stream=stream,
            ) as response:
                data = None if stream else self._body(response, read, place)
                return self._checked(response, data, accept, place)
        except (requests.RequestException, OSError) as cause:
            raise _broken(cause, place) from cause

    def _url(self, path: str) -> str:
        base = self.options.base_url
        url = path if "://" in path else base + "/" + path.lstrip("/")
        if urlsplit(url)[:2] != urlsplit(base)[:2]:
            raise Permanent(
                f"the API points to another host, {urlsplit(url).netloc}; the token is not sent there",
                f"接口指向另一主机 {urlsplit(url).netloc}，不会把令牌发往该处",
                todo="核对 base_url / check `base_url`",
            )
        return url

    def resolve(self, current: str, target: str) -> str:
        """The address that an answer from `current` calls `target`."""
        return urljoin(current, target)

    def _opened(self) -> requests.Session:
        if self._session is None:
            self._session = requests.Session()
            self._session.headers.update({"Accept": "application/json", **self.options.headers})
            # An auth object of our own: without one, requests takes whatever ~/.netrc holds for the host.
            self._session.auth = _Bearer(self.options.token)
        return self._session

    def _body(self, response: requests.Response, read: bool, place: Place) -> Any:
        """The JSON of a good answer. A write's answer is read only where success is said inside it."""
        good = 200 <= response.status_code < 300
        if not good or not (read or (self.options.success and response.content)):
            return None
        try:
            charset = _charset(response)
            text: str | bytes = response.content.decode(charset) if charset else response.content
            return json.loads(text, parse_float=Number, parse_constant=lambda _: None)
        except (ValueError, LookupError, RecursionError) as cause:
            raise Transient(
                "the answer is broken: not whole, or not JSON",
                "应答不完整或不是 JSON",
                todo="若一直如此，请核对地址 / if it stays, check the address",
                **place,
            ) from cause

    def _checked(self, response: requests.Response, data: Any, accept: Collection[int], place: Place) -> Answer:
        status = response.status_code
        success = self.options.success
        code: Any = None
        if success and data is not None:
            code = dig(data, success.field)
            if code is MISSING:
                raise SchemaMismatch(
                    f"the answer has no {success.field}",
                    f"应答缺少 {success.field}",
                    todo="核对 success.field / check `success.field`",
                    **place,
                )
            if code not in success.values:
                status = code if isinstance(code, int) and 400 <= code <= 599 else -1
        answer = Answer(status, response.url, data, response.headers)
        if 200 <= status < 300 or status in accept:
            return answer
        cause = requests.HTTPError(f"{response.status_code} {response.reason}", response=response)
        raise _refused(status, code, answer, place) from cause


class _Bearer(requests.auth.AuthBase):
    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _charset(response: requests.Response) -> str | None:
    """The charset that the answer names; left alone, requests would guess Latin-1 for text/*, where JSON is UTF-8."""
    content_type = Message()
    content_type["Content-Type"] = response.headers.get("Content-Type", "")
    return content_type.get_content_charset()


def _broken(cause: Exception, place: Place) -> ConnectorError:
    """The error for a request that got no whole answer."""
    if isinstance(cause, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(cause):
        return AccessDenied(
            "the server's certificate is not trusted",
            "服务器证书不受信任",
            todo="用 ca 指定私有根证书 / name the private authority's certificate in `ca`",
            **place,
        )
    if isinstance(cause, requests.Timeout):
        return Transient("the system did not answer in time", "系统未在时限内应答", **place)
    if isinstance(
        cause,
        (
            requests.ConnectionError,
            requests.exceptions.ChunkedEncodingError,
            requests.exceptions.ContentDecodingError,
            ConnectionError,
            TimeoutError,
        ),
    ):
        return Transient("the connection failed or broke off", "连接失败或中断", **place)
    return Permanent(
        "the request cannot be sent as declared",
        "请求无法按声明发出",
        todo="核对 base_url、ca 与代理设置 / check `base_url`, `ca` and the proxy settings",
        **place,
    )


def _refused(status: int, code: Any, answer: Answer, place: Place) -> ConnectorError:
    """The error for an answer that says no."""
    said = f"{status}" if code is None or status == code else f"code {code}"
    if status in (401, 403):
        return AccessDenied(
            f"the system refused the token ({said})",
            f"系统拒绝了令牌（{said}）",
            todo="更换令牌或申请权限 / renew the token or ask for the right",
            **place,
        )
    if status in (405, 501):
        return SchemaMismatch(
            f"the endpoint does not take this method ({said})",
            f"接口不支持该方法（{said}）",
            todo="核对 upsert、create、delete 的 method / check the `method` of `upsert`, `create` and `delete`",
            **place,
        )
    if status in (408, 425, 429) or status >= 500:
        return Transient(
            f"the system is busy or failing ({said})",
            f"系统繁忙或故障（{said}）",
            retry_after=retry_after(answer),
            **place,
        )
    if status in (409, 412):
        return Conflict(f"the record changed meanwhile ({said})", f"记录已被他人修改（{said}）", **place)
    if status in GONE:
        return SchemaMismatch(
            f"there is no such endpoint ({said})",
            f"接口不存在（{said}）",
            todo="核对 path 与 item_path / check `path` and `item_path`",
            **place,
        )
    if 300 <= status < 400:
        return Permanent(
            f"the API has moved to {answer.headers.get('Location', '?').split('?')[0]} ({said})",
            f"接口已迁移（{said}）",
            todo="更新 base_url 或 path / mend `base_url` or `path`",
            **place,
        )
    return Refused(
        f"the system refused the request ({said})",
        f"系统拒绝了请求（{said}）",
        todo="查看对方系统日志，核对字段 / look at that system's log, check the columns",
        **place,
    )


def retry_after(answer: Answer) -> float | None:
    """Seconds that the server asked to wait; a date is counted from the server's own clock where it shows one."""
    value = (answer.headers.get("Retry-After") or "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        until = _http_date(value)
        return None if until is None else max(0.0, (until - (answer.date or datetime.now(UTC))).total_seconds())


def _http_date(value: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(value or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
