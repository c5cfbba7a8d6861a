"""Secrets: resolving references in the declaration, and the federation's own key.

Outside Airflow a `{connection: ID}` is read from the environment variable AIRFLOW_CONN_<ID>, as Airflow itself does first; the
DAG adapter passes a resolver that asks Airflow's secrets backends.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from federation.errors import AccessDenied

ConnectionUri = Callable[[str], str | None]


def from_environment(connection: str) -> str | None:
    """The URI of an Airflow connection that is declared in the environment."""
    return os.environ.get(f"AIRFLOW_CONN_{connection.upper()}")


def resolve(value: Any, connection_uri: ConnectionUri = from_environment) -> Any:
    """Replace every `{env: …}` and `{connection: …}` inside `value` by what it refers to."""
    if isinstance(value, Mapping):
        if set(value) == {"env"}:
            return _environment(str(value["env"]))
        if "connection" in value and set(value) <= {"connection", "part"}:
            return _connection(str(value["connection"]), str(value.get("part", "uri")), connection_uri)
        return {key: resolve(item, connection_uri) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve(item, connection_uri) for item in value]
    return value


def _environment(name: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise AccessDenied(
            f"the environment variable {name} is not set", f"未设置环境变量 {name}", todo=f"export {name}=…", key=name
        ) from None


def _connection(name: str, part: str, connection_uri: ConnectionUri) -> str:
    uri = connection_uri(name)
    if uri is None:
        raise AccessDenied(
            f"there is no Airflow connection {name}",
            f"没有 Airflow 连接 {name}",
            todo=f"airflow connections add {name} … 或 / or export AIRFLOW_CONN_{name.upper()}=…",
            key=name,
        )
    if part == "uri":
        return uri.replace("postgres://", "postgresql://", 1)
    split = urlsplit(uri)
    found = {"login": split.username, "password": split.password, "host": split.hostname}.get(part)
    if not found:
        raise AccessDenied(f"the connection {name} has no {part}", f"连接 {name} 没有 {part}", key=name)
    return unquote(found)


class Keyring:
    """The federation's secret: keys fingerprints and encrypts what the ledger must keep of a record (AES-256-GCM).

    `previous`: secrets that were replaced, newest first. What they encrypted stays readable. Fingerprints and ids are keyed with the
    oldest of all, so that replacing the secret does not make every record look changed.
    """

    def __init__(self, secret: bytes, previous: Sequence[bytes] = ()) -> None:
        self._secrets = (secret, *previous)
        self.fingerprint = _derived(self._secrets[-1], b"fedsync fingerprint")
        self._ciphers = [AESGCM(key) for key in self.derived(b"fedsync payload")]

    def derived(self, purpose: bytes) -> tuple[bytes, ...]:
        """Keys of 32 bytes for a purpose of its own: of the secret, then of each previous one."""
        return tuple(_derived(secret, purpose) for secret in self._secrets)

    def identify(self, *parts: str) -> str:
        """A stable id (32 hex digits) of something whose parts must not be guessed from it."""
        text = "\x1f".join(parts).encode()
        return hmac.new(self.fingerprint, text, hashlib.sha256).hexdigest()[:32]

    @classmethod
    def from_file(cls, path: Path, previous: Sequence[bytes] = ()) -> Keyring:
        """The secret in a file that only the owner can read; made on first use. Further lines hold previous secrets."""
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f"{path.name}.{os.getpid()}")
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
                out.write(secrets.token_hex(32))
            try:
                os.link(fresh, path)
            except FileExistsError:
                pass
            fresh.unlink()
        first, *others = path.read_text().strip().splitlines() or [""]
        return cls(first.encode(), [*(line.encode() for line in others), *previous])

    def encrypt(self, plain: bytes, about: str) -> bytes:
        """Encrypt; `about` binds the ciphertext to its place (a quarantine id), so that it cannot be moved to another."""
        nonce = secrets.token_bytes(12)
        return nonce + self._ciphers[0].encrypt(nonce, plain, about.encode())

    def decrypt(self, sealed: bytes, about: str) -> bytes:
        """The inverse of `encrypt`. Raises AccessDenied if none of the secrets did it, or it was tampered with."""
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(sealed[:12], sealed[12:], about.encode())
            except InvalidTag as cause:
                tried = cause
        raise AccessDenied(
            "what the ledger keeps of this record cannot be decrypted",
            "台账中该记录的内容无法解密",
            todo="将更换前的密钥列入 FEDSYNC_SECRET_PREVIOUS（或声明的 previous_secrets） / "
            "list the former secret in FEDSYNC_SECRET_PREVIOUS (or under `previous_secrets`)",
            key=about,
        ) from tried


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(secret)
