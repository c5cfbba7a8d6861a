"""How a client proves to an API who it is, as declared in YAML. Secrets are references there (`{env: NAME}`), and shown nowhere."""

from __future__ import annotations

import re
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, SecretStr, model_validator
from pydantic import Field as Option

from connectors.base import OptionPart

WORDS = frozenset(("key_id", "method", "host", "path", "query", "timestamp", "nonce", "body_digest", "content_type"))
"""What a signed text and the headers of a signature may mention (`HmacOptions`)."""


def _sendable(secret: SecretStr) -> SecretStr:
    """A line break at the end of a secret is the usual slip; a header cannot hold it, and an error about it would show the secret."""
    if not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", secret.get_secret_value()):
        raise ValueError("is empty, or holds a line break, a blank at an end, or a character that is not ASCII")
    return secret


Secret = Annotated[SecretStr, AfterValidator(_sendable)]


class BearerOptions(OptionPart):
    """`Authorization: Bearer <token>` (RFC 6750)."""

    kind: Literal["bearer"]
    token: Secret


class ApiKeyOptions(OptionPart):
    """A key in a `header`, or in a `parameter` of each address."""

    kind: Literal["api_key"]
    api_key: Secret
    header: str | None = None
    parameter: str | None = None

    @model_validator(mode="after")
    def _placed(self) -> ApiKeyOptions:
        if (self.header is None) == (self.parameter is None):
            raise ValueError("name either the `header` or the `parameter` that carries the key")
        return self


class BasicOptions(OptionPart):
    """User name and password (RFC 7617), in UTF-8."""

    kind: Literal["basic"]
    username: str
    password: SecretStr

    @model_validator(mode="after")
    def _splits(self) -> BasicOptions:
        if ":" in self.username:
            raise ValueError("username must not hold a colon")
        return self


class OAuth2Options(OptionPart):
    """Client credentials (RFC 6749, section 4.4): a token is asked for at `url` and used until `leeway_seconds` before it expires.

    `url`: whole, or a path behind `base_url`. `client`: where the client's own credentials go, into the header (`basic`) or the
    form (`body`). `parameters`: more of the form, such as `audience`.
    """

    kind: Literal["oauth2"]
    url: str
    client_id: str
    client_secret: Secret
    client: Literal["basic", "body"] = "basic"
    scope: str | None = None
    parameters: dict[str, str] = Option(default_factory=dict)
    leeway_seconds: float = Option(default=60, ge=0)


class LoginOptions(OptionPart):
    """A platform's own way to give out tokens: `body` is posted to `url` as JSON, and the answer holds the token.

    `field`, `lifetime_field`: dotted paths of the token and of its lifetime in seconds; without a lifetime it is used until it is
    refused. `header`, `prefix`: how it is then sent.
    """

    kind: Literal["login"]
    url: str
    body: dict[str, Any]
    field: str
    lifetime_field: str | None = None
    header: str = "Authorization"
    prefix: str = "Bearer "
    leeway_seconds: float = Option(default=60, ge=0)


class HmacOptions(OptionPart):
    """A signature of each request by a shared secret (RFC 2104).

    `text`: what is signed. `headers`: what is sent. Both are templates of `{key_id}`, `{method}` (upper case), `{host}` (with the port
    if it is not the usual one), `{path}` (as sent), `{query}` (name=value, percent-encoded by RFC 3986, sorted, joined by &),
    `{timestamp}`, `{nonce}` (32 hex digits), `{body_digest}` (of no bytes if there is no body) and `{content_type}`; a header may
    mention `{signature}` as well. `times`: how the timestamp is written. `encoding`: of the signature and the digest. `algorithm`: of
    both; sm3 (GB/T 32905) if Python's OpenSSL has it.
    """

    kind: Literal["hmac"]
    secret: Secret
    key_id: str = ""
    algorithm: Literal["sha256", "sha1", "sm3"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    times: Literal["seconds", "milliseconds", "iso"] = "seconds"
    text: str
    headers: dict[str, str]

    @model_validator(mode="after")
    def _meant(self) -> HmacOptions:
        signed, sent = _words(self.text), {word for text in self.headers.values() for word in _words(text)}
        if unknown := (signed - WORDS) | (sent - WORDS - {"signature"}):
            raise ValueError(f"unknown word {', '.join(sorted(unknown))}; one of: {', '.join(sorted(WORDS))}")
        if "signature" not in sent:
            raise ValueError("no header carries the {signature}")
        if lost := (signed & {"timestamp", "nonce"}) - sent:
            raise ValueError(f"{', '.join(sorted(lost))} is signed but not sent: nobody could check the signature")
        return self


def _words(template: str) -> set[str]:
    try:
        return {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    except ValueError as fault:
        raise ValueError(f"the template {template!r} cannot be read: {fault}") from None


AuthOptions = Annotated[
    BearerOptions | ApiKeyOptions | BasicOptions | OAuth2Options | LoginOptions | HmacOptions,
    Option(discriminator="kind"),
]
