"""Hosted records read past the connector: the key that tests seal with, and what a sealed text says."""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY = bytes(range(32))


def unsealed(text: str, *place: str) -> dict[str, Any]:
    """The fields of a sealed record. `place`: dataset, region, part, key."""
    sealed = base64.b64decode(text.partition(":")[2])
    found: dict[str, Any] = json.loads(AESGCM(KEY).decrypt(sealed[:12], sealed[12:], json.dumps(place).encode()))
    return found
