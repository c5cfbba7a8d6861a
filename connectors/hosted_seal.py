"""The seal on hosted records: AES-256-GCM, with the newest of several keys; what older ones sealed stays readable.

A sealed text is `<key>:<base64>`: which key, then nonce and ciphertext. What is sealed is bound to its place, so that it can be moved
to no other record. A text that begins with `{` was written before records were sealed; it is read as it is, and sealed by `rekey`.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from federation.errors import AccessDenied, Unreadable

_NONCE = 12


class Seal:
    """`keys`: of 32 bytes each, newest first."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ciphers = {hashlib.sha256(key).hexdigest()[:8]: AESGCM(key) for key in reversed(keys)}
        self._newest = hashlib.sha256(keys[0]).hexdigest()[:8]

    def close(self, text: str, place: str) -> str:
        """Seal a text for a place, with the newest key."""
        nonce = secrets.token_bytes(_NONCE)
        sealed = nonce + self._ciphers[self._newest].encrypt(nonce, text.encode(), place.encode())
        return f"{self._newest}:{base64.b64encode(sealed).decode()}"

    def open(self, sealed: str, place: str) -> str:
        """The inverse of `close`. Raises AccessDenied if its key is not at hand, Unreadable if it was altered or moved."""
        if sealed.startswith("{"):
            return sealed
        name, _, text = sealed.partition(":")
        if name not in self._ciphers:
            raise AccessDenied(
                "a hosted record is sealed with a key that is not at hand",
                "托管记录以另一密钥加密",
                todo="将更换前的密钥列入 FEDSYNC_SECRET_PREVIOUS（或声明的 previous_secrets） / "
                "list the former secret in FEDSYNC_SECRET_PREVIOUS (or under `previous_secrets`)",
            )
        try:
            content = base64.b64decode(text, validate=True)
            return self._ciphers[name].decrypt(content[:_NONCE], content[_NONCE:], place.encode()).decode()
        except (InvalidTag, ValueError) as cause:
            raise Unreadable(
                "a hosted record was altered outside the engine",
                "托管记录被引擎以外的程序改动",
                todo="由备份恢复，或移除该记录 / restore it from a backup, or remove it: fedsync hosted remove",
            ) from cause

    def is_newest(self, sealed: str) -> bool:
        """Whether the newest key sealed it."""
        return sealed.startswith(f"{self._newest}:")
