"""HTTP for the REST connector: one session that proves who we are, is polite, and whose errors are ours (`rest_errors`)."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.message import Message
from functools import cached_property
from ipaddress import ip_address
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from connectors.polite import Allowance, Rate, pace_of
from connectors.rest_auth import Proof, hide, proof_of
from connectors.rest_auth_options import LoginOptions, OAuth2Options
from connectors.rest_errors import Place, Unproven, broken, http_date, refused
from connectors.rest_json import MISSING, Number, dig
from connectors.rest_options import RestOptions
from connectors.rest_token import Issued, denied, issued, request_of
from connectors.retrying import Retrier
from federation.errors import ConnectorError, Permanent, SchemaMismatch, Transient


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
        return http_date(self.headers.get("Date"))


@dataclass(frozen=True)
class Call:
    """One request. `key`: of the record that it concerns. `accept`: statuses that are answers, not errors. `read`: whether its
    answer must be JSON. `stream`: leave the answer's body unread."""

    method: str
    path: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    accept: Collection[int] = ()
    read: bool = True
    stream: bool = False


class Client:
    """Sends requests to one API; its errors name the request, and the key if there is one."""

    def __init__(self, options: RestOptions, retrier: Retrier, rate: Rate | None) -> None:
        self.options = options
        self.retrier = retrier
        self._session: requests.Session | None = None
        self.rate = rate
        self._pace = pace_of(options.base_url)
        self._allowance = Allowance(options.requests_per_run) if options.requests_per_run else None

    def get(self, path: str, parameters: Mapping[str, Any], *, key: str = "", accept: Collection[int] = ()) -> Answer:
        """Read."""
        return self.send(Call("GET", path, parameters, key=key, accept=accept))

    def reach(self, path: str, parameters: Mapping[str, Any]) -> Answer:
        """Ask, but leave the answer's body unread: is the API there, and does it let us in?"""
        return self.send(Call("GET", path, parameters, read=False, stream=True))

    def send(self, call: Call) -> Answer:
        """Send a request, again if it may work then, and once more if the system wants a fresh proof of who we are."""
        return self.retrier.call(lambda: self._proven(call))

    def resolve(self, current: str, target: str) -> str:
        """The address that an answer from `current` calls `target`."""
        return urljoin(current, target)

    def allowed(self, path: str) -> frozenset[str] | None:
        """The methods that the API says may be used there (OPTIONS); None if it does not say."""
        answer = self.send(Call("OPTIONS", path, read=False))
        told = answer.headers.get("Allow") or answer.headers.get("Access-Control-Allow-Methods")
        return None if not told else frozenset(word.strip().upper() for word in told.split(","))

    def close(self) -> None:
        """Give the connections back."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _proven(self, call: Call) -> Answer:
        try:
            return self._once(call)
        except Unproven:
            if not self._proof.renewed():
                raise
        return self._once(call)

    @cached_property
    def _proof(self) -> Proof:
        return proof_of(self.options.proof, self.options.base_url, self._token)

    def _once(self, call: Call) -> Answer:
        url = self._url(call.path)
        place: Place = {"request": f"{call.method} {urlsplit(url).path}", "key": call.key}
        if self._allowance:
            self._allowance.spend()
        if self.rate:
            self._pace.wait(self.rate)
        request = requests.Request(
            call.method, url, params=dict(call.parameters), json=call.body, headers=dict(call.headers), auth=self._proof
        )
        started = time.monotonic()
        try:
            with self._exchange(request, stream=call.stream) as response:
                data = None if call.stream else self._body(response, call.read, place)
                return self._checked(response, data, call.accept, place)
        except (requests.RequestException, OSError, ValueError) as cause:
            error = self._broken(cause, place)
            if isinstance(error, Transient):
                error.waited = time.monotonic() - started
            raise error from cause

    def _broken(self, cause: Exception, place: Place) -> ConnectorError:
        error = broken(cause, place)
        hide(cause, self._proof.hides)
        return error

    def _exchange(self, request: requests.Request, *, stream: bool = False) -> requests.Response:
        session = self._opened()
        prepared = session.prepare_request(request)
        # Given with each request: the session's own would lose against REQUESTS_CA_BUNDLE in the environment.
        verify = str(self.options.ca) if self.options.ca else True
        url = str(prepared.url)
        local = {"no_proxy": str(urlsplit(url).hostname)} if _loopback(url) else {}
        settings = session.merge_environment_settings(url, local, stream, verify, None)
        # A redirected write becomes a read, and a redirected read is mostly a page that asks to log in.
        return session.send(prepared, timeout=self.options.timeout, allow_redirects=False, **settings)

    def _token(self, auth: OAuth2Options | LoginOptions) -> Issued:
        """Have a token given out."""
        url = auth.url if "://" in auth.url else self._url(auth.url)
        place: Place = {"request": f"POST {urlsplit(url).path}"}
        request = request_of(auth, url)
        # Not the session's proof: it is what this request is made for.
        request.auth = Proof()
        try:
            with self._exchange(request) as response:
                data = self._body(response, True, place)
                enveloped = isinstance(auth, LoginOptions) and data is not None and self._tells_success(data)
                try:
                    self._checked(response, data if enveloped else None, (), place)
                except ConnectorError as error:
                    raise denied(error, _json(response), place) from error.__cause__
                return issued(auth, data, place)
        except (requests.RequestException, OSError, ValueError) as cause:
            raise broken(cause, place) from cause

    def _tells_success(self, data: Any) -> bool:
        return self.options.success is not None and dig(data, self.options.success.field) is not MISSING

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

    def _opened(self) -> requests.Session:
        if self._session is None:
            self._check_authority()
            self._session = requests.Session()
            self._session.headers.update({"Accept": "application/json", **self.options.headers})
        return self._session

    def _check_authority(self) -> None:
        """A file without a certificate fails each connection, as a network that breaks off does: told apart here."""
        if self.options.ca is None:
            return
        try:
            ssl.create_default_context(cafile=str(self.options.ca))
        except OSError as cause:
            raise Permanent(
                f"the certificate of the private authority cannot be read: {self.options.ca}",
                f"无法读取私有根证书：{self.options.ca}",
                todo="ca 须为 PEM 格式的证书文件 / `ca` must be a file of certificates in PEM",
            ) from cause

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
            status = success.status(code, status)
        answer = Answer(status, response.url, data, response.headers)
        if 200 <= status < 300 or status in accept:
            return answer
        cause = requests.HTTPError(f"{response.status_code} {response.reason}", response=response)
        raise refused(status, code, answer.headers, place, self._proof.advice) from cause


def _json(response: requests.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _loopback(url: str) -> bool:
    """Whether an address is on this very machine, where no proxy can reach it for us."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _charset(response: requests.Response) -> str | None:
    """The charset that the answer names; left alone, requests would guess Latin-1 for text/*, where JSON is UTF-8."""
    content_type = Message()
    content_type["Content-Type"] = response.headers.get("Content-Type", "")
    return content_type.get_content_charset()
