"""Tokens that a system gives out for a while: asked for once, shared by all nodes of this process, renewed before they expire."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus

import requests

from connectors.rest_auth_options import LoginOptions, OAuth2Options
from connectors.rest_json import MISSING, dig
from federation.errors import AccessDenied, ConnectorError, Permanent, SchemaMismatch

_REFUSALS = {
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
}
"""RFC 6749, section 5.2. Other words of the answer are not repeated: they may quote the credentials."""


@dataclass(frozen=True)
class Issued:
    """A token, and for how many seconds it may be used (None: until it is refused)."""

    token: str
    seconds: float | None


class Tokens:
    """The tokens of one client of one system. Safe for threads: while one asks, the others wait for its answer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._issued: Issued | None = None
        self._until: float | None = None

    def current(self, ask: Callable[[], Issued]) -> str:
        """A token that is good for now; asks for one if there is none."""
        with self._lock:
            if self._issued is None or (self._until is not None and self._clock() >= self._until):
                asked = self._clock()
                self._issued = ask()
                self._until = None if self._issued.seconds is None else asked + self._issued.seconds
            return self._issued.token

    def refused(self, token: str) -> None:
        """This token was turned down: the next one is to be another."""
        with self._lock:
            if self._issued is not None and self._issued.token == token:
                self._issued = None


_TOKENS: dict[str, Tokens] = {}
_TOKENS_LOCK = threading.Lock()


def tokens_of(auth: OAuth2Options | LoginOptions, base_url: str) -> Tokens:
    """The tokens that all nodes of this process share which are the same client of the same system."""
    revealed = json.dumps(
        [base_url, auth.model_dump()], default=lambda secret: secret.get_secret_value(), sort_keys=True
    )
    with _TOKENS_LOCK:
        return _TOKENS.setdefault(hashlib.sha256(revealed.encode()).hexdigest(), Tokens())


def basic(username: str, password: str) -> str:
    """The header of RFC 7617."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def request_of(auth: OAuth2Options | LoginOptions, url: str) -> requests.Request:
    """The request for a token."""
    headers = {"Accept": "application/json"}
    if isinstance(auth, LoginOptions):
        return requests.Request("POST", url, headers=headers, json=auth.body)
    client, secret = auth.client_id, auth.client_secret.get_secret_value()
    form = {"grant_type": "client_credentials", **({"scope": auth.scope} if auth.scope else {}), **auth.parameters}
    if auth.client == "body":
        form |= {"client_id": client, "client_secret": secret}
    else:
        # Form-encoded first, as section 2.3.1 demands: a colon in the id would else split it.
        headers["Authorization"] = basic(quote_plus(client), quote_plus(secret))
    return requests.Request("POST", url, headers=headers, data=form)


def issued(auth: OAuth2Options | LoginOptions, data: Any, place: dict[str, Any]) -> Issued:
    """The token in a good answer. Raises SchemaMismatch if there is none."""
    login = isinstance(auth, LoginOptions)
    field = auth.field if isinstance(auth, LoginOptions) else "access_token"
    lifetime = auth.lifetime_field if isinstance(auth, LoginOptions) else "expires_in"
    token = dig(data, field)
    if not isinstance(token, str) or not token:
        raise SchemaMismatch(
            f"the answer has no token at {field}",
            f"应答在 {field} 处没有令牌",
            todo="核对 auth.url 与 auth.field / check `auth.url` and `auth.field`"
            if login
            else "核对 auth.url / check `auth.url`",
            **place,
        )
    kind = "bearer" if login else str(dig(data, "token_type"))
    if not login and kind.lower() != "bearer" and dig(data, "token_type") is not MISSING:
        raise Permanent(
            f"the system gives out tokens of the type {kind[:40]!r}, not bearer tokens",
            f"系统发放的令牌类型不是 bearer（{kind[:40]}）",
            todo="该类令牌不受支持 / tokens of this type are not supported",
            **place,
        )
    try:
        seconds = None if lifetime is None else float(dig(data, lifetime))
    except (TypeError, ValueError):
        seconds = None
    # Of a token that lives shorter than the leeway, half its life is used: else each request would ask for another.
    return Issued(token, None if seconds is None else seconds - min(auth.leeway_seconds, seconds / 2))


def denied(error: ConnectorError, data: Any, place: dict[str, Any]) -> ConnectorError:
    """The error for a refused request for a token; other failures are passed on as they are."""
    refusal = dig(data, "error") if isinstance(data, dict) else None
    known = refusal if refusal in _REFUSALS else None
    if known is None and not isinstance(error, AccessDenied):
        return error
    said = f" ({known})" if known else ""
    return AccessDenied(
        f"the system gave out no token{said}",
        f"系统未发放令牌{said}",
        todo="核对 auth 的客户端凭据、scope 与 url / check the client's credentials, `scope` and `url` in `auth`",
        **place,
    )
