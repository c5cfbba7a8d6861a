"""Proving to an API who we are: one object for each declared kind, which changes a request that is otherwise ready to be sent.

`requests` calls it last, with the final address and body, so that all of a request can be signed; each attempt is signed anew.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import requests
from requests.auth import AuthBase

from connectors.rest_auth_options import (
    ApiKeyOptions,
    AuthOptions,
    BasicOptions,
    BearerOptions,
    HmacOptions,
    LoginOptions,
    OAuth2Options,
)
from connectors.rest_token import Issued, Tokens, basic, tokens_of
from federation.errors import Permanent

AskOf = Callable[[OAuth2Options | LoginOptions], Issued]
_SHORTEST = 4
"""Shorter texts are no secrets; taking them out would leave nothing of an error to read."""


class Proof(AuthBase):
    """Base: proves nothing. Without an object of ours, requests would take whatever ~/.netrc holds for the host.

    `hides`: texts that must stand in no error. `advice`: what to do once it is refused.
    """

    hides: tuple[str, ...] = ()
    advice = "核对 auth / check `auth`"

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request

    def renewed(self) -> bool:
        """Whether trying again may help now that the system refused the proof."""
        return False


class Header(Proof):
    """The same header each time."""

    advice = "更换令牌或申请权限 / renew the token or ask for the right"

    def __init__(self, name: str, value: str, *hides: str) -> None:
        self._name, self._value = name, value
        self.hides = (value, *hides)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers[self._name] = self._value
        return request


class _NoQueries(logging.Filter):
    """urllib3 logs each address when asked for details."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            addresses = (isinstance(arg, str) and "?" in arg for arg in record.args)
            record.args = tuple(
                str(arg).split("?")[0] if cut else arg for arg, cut in zip(record.args, addresses, strict=True)
            )
        return True


_NO_QUERIES = _NoQueries()


class Parameter(Proof):
    """A parameter of each address. One of that name in an address that the API itself gave is replaced."""

    advice = Header.advice

    def __init__(self, name: str, value: str) -> None:
        self._name, self._value = name, value
        self.hides = (value,)
        logging.getLogger("urllib3.connectionpool").addFilter(_NO_QUERIES)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        parts = urlsplit(str(request.url))
        others = [step for step in parts.query.split("&") if step and step.split("=")[0] != quote(self._name, safe="")]
        query = "&".join([*others, urlencode({self._name: self._value})])
        request.url = urlunsplit(parts._replace(query=query))
        return request


class Renewable(Proof):
    """A token that the system gives out for a while."""

    advice = "核对客户端凭据与权限 / check the client's credentials and rights"

    def __init__(self, tokens: Tokens, ask: Callable[[], Issued], header: str, prefix: str) -> None:
        self._tokens, self._ask, self._header, self._prefix = tokens, ask, header, prefix
        self._sent: str | None = None

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        self._sent = self._tokens.current(self._ask)
        self.hides = (self._sent,)
        request.headers[self._header] = self._prefix + self._sent
        return request

    def renewed(self) -> bool:
        if self._sent is None:
            return False
        self._tokens.refused(self._sent)
        self._sent = None
        return True


class Signature(Proof):
    """See `HmacOptions`. `now`, `nonce`: for tests."""

    advice = "核对 key_id、secret、text 与双方时钟 / check `key_id`, `secret`, `text` and both clocks"

    def __init__(
        self,
        options: HmacOptions,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        nonce: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        try:
            hashlib.new(options.algorithm)
        except ValueError as cause:
            raise Permanent(
                f"Python's OpenSSL on this machine has no {options.algorithm}",
                f"本机 Python 的 OpenSSL 不支持 {options.algorithm}",
                todo="换用含该算法的 OpenSSL / run a Python whose OpenSSL has it",
            ) from cause
        self._options, self._now, self._nonce = options, now, nonce
        self._secret = options.secret.get_secret_value()
        self.hides = (self._secret,)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        words = self._words(request)
        signed = self._options.text.format_map(words).encode()
        made = hmac.new(self._secret.encode(), signed, self._options.algorithm).digest()
        words["signature"] = self._written(made)
        for name, template in self._options.headers.items():
            request.headers[name] = template.format_map(words)
        return request

    def _words(self, request: requests.PreparedRequest) -> dict[str, str]:
        parts = urlsplit(str(request.url))
        body = request.body or b""
        content = body.encode() if isinstance(body, str) else bytes(body)  # type: ignore[arg-type]
        return {
            "key_id": self._options.key_id,
            "method": str(request.method),
            "host": parts.netloc,
            "path": parts.path,
            "query": sorted_query(parts.query),
            "timestamp": self._timestamp(),
            "nonce": self._nonce(),
            "body_digest": self._written(hashlib.new(self._options.algorithm, content).digest()),
            "content_type": str(request.headers.get("Content-Type", "")),
        }

    def _timestamp(self) -> str:
        now = self._now()
        if self._options.times == "iso":
            return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return str(int(now.timestamp() * (1000 if self._options.times == "milliseconds" else 1)))

    def _written(self, digest: bytes) -> str:
        return digest.hex() if self._options.encoding == "hex" else base64.b64encode(digest).decode()


def sorted_query(query: str) -> str:
    """The parameters sorted by name and value, percent-encoded by RFC 3986, joined by &."""
    pairs = parse_qsl(query, keep_blank_values=True)
    return "&".join(
        "=".join(pair) for pair in sorted((quote(name, safe=""), quote(value, safe="")) for name, value in pairs)
    )


def proof_of(auth: AuthOptions | None, base_url: str, ask: AskOf) -> Proof:
    """The proof that is declared. `ask`: how to have a token given out, for the kinds that need it."""
    match auth:
        case BearerOptions():
            token = auth.token.get_secret_value()
            return Header("Authorization", f"Bearer {token}", token)
        case ApiKeyOptions(header=str(name)):
            return Header(name, auth.api_key.get_secret_value())
        case ApiKeyOptions(parameter=str(name)):
            return Parameter(name, auth.api_key.get_secret_value())
        case BasicOptions():
            password = auth.password.get_secret_value()
            return Header("Authorization", basic(auth.username, password), password)
        case OAuth2Options():
            return Renewable(tokens_of(auth, base_url), partial(ask, auth), "Authorization", "Bearer ")
        case LoginOptions():
            return Renewable(tokens_of(auth, base_url), partial(ask, auth), auth.header, auth.prefix)
        case HmacOptions():
            return Signature(auth)
    return Proof()


def hide(error: BaseException, hides: tuple[str, ...]) -> None:
    """Take these texts, as they are and as they stand in an address, out of an error and of all that it came from.

    The errors of HTTP libraries quote the address of the request; tracebacks, causes included, end up in logs.
    """
    known = [text for text in hides if len(text) >= _SHORTEST]
    forms = {form for text in known for form in (text, quote(text), quote(text, safe=""), urlencode({"": text})[1:])}
    ordered = sorted(forms, key=len, reverse=True)
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.args = tuple(_without(arg, ordered) for arg in one.args)
        todo += [one.__cause__, one.__context__, *(arg for arg in one.args if isinstance(arg, BaseException))]


def _without(text: object, hides: list[str]) -> object:
    if isinstance(text, str):
        for hidden in hides:
            text = text.replace(hidden, "***")
    return text
