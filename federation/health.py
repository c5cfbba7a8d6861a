"""Is this installation well? Declaration, ledger and storage; no node is asked, so a sick system elsewhere restarts nothing here."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from federation.config import Config, load
from federation.errors import FedsyncError


@dataclass(frozen=True)
class Finding:
    """One part, what is wrong with it (None: nothing), and how long it took to tell, in seconds."""

    part: str
    error: FedsyncError | None
    seconds: float


def examine(path: Path | str) -> list[Finding]:
    """What was found, part by part. What depends on a part that failed is left out."""
    config: list[Config] = []
    found = [_tried("declaration", lambda: config.append(load(path)))]
    if not config:
        return found
    return [*found, _tried("ledger", lambda: _ledger(config[0])), _tried("storage", lambda: _storage(config[0]))]


def _tried(part: str, ask: Callable[[], None]) -> Finding:
    began = time.monotonic()
    error: FedsyncError | None = None
    try:
        ask()
    except FedsyncError as found:
        error = found
    return Finding(part, error, round(time.monotonic() - began, 3))


def _ledger(config: Config) -> None:
    """Opening it migrates it and resolves its secrets."""
    from federation.runtime import open_federation

    open_federation(config).close()


def _storage(config: Config) -> None:
    from federation.runtime import storage_of

    storage, path = storage_of(config), f"health/{uuid.uuid4().hex}"
    storage.write(path, b"1")
    storage.read(path)
    storage.remove(path)
