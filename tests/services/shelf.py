"""What the sample services keep: documents by key, each with its version and its time of change. Safe for threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

Document = dict[str, Any]


@dataclass(frozen=True)
class Held:
    """One document as it is now."""

    key: str
    body: Document
    version: int
    changed: datetime


class Shelf:
    """Times of change never repeat and never go back."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._held: dict[str, Held] = {}
        self._clock = datetime(2020, 1, 1, tzinfo=UTC)
        self._version = 0

    def get(self, key: str) -> Held | None:
        """One document."""
        with self._lock:
            return self._held.get(key)

    def put(self, key: str, body: Document) -> Held:
        """Write what `body` holds; objects in it are merged, everything else is replaced."""
        with self._lock:
            known = self._held.get(key)
            self._tick()
            held = Held(key, merged(known.body if known else {}, body), self._version, self._clock)
            self._held[key] = held
            return held

    def drop(self, key: str) -> bool:
        """Delete one document. False if there was none."""
        with self._lock:
            self._tick()
            return self._held.pop(key, None) is not None

    def age(self, by: timedelta) -> None:
        """Let everything have been written so much earlier."""
        with self._lock:
            self._held = {key: replace(held, changed=held.changed - by) for key, held in self._held.items()}

    def listed(self, since: datetime | None = None, where: Callable[[Document], bool] = lambda _: True) -> list[Held]:
        """The documents changed at `since` or later, by key."""
        with self._lock:
            found = [held for held in self._held.values() if since is None or held.changed >= since]
        return sorted((held for held in found if where(held.body)), key=lambda held: held.key)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else reads or writes meanwhile: to look and then write."""
        with self._lock:
            yield

    def _tick(self) -> None:
        self._version += 1
        self._clock = max(self._clock + timedelta(microseconds=1), datetime.now(UTC))


def merged(old: Document, new: Document) -> Document:
    """`old` with what `new` holds, one level of objects merged."""
    whole = dict(old)
    for name, value in new.items():
        below = whole.get(name)
        whole[name] = {**below, **value} if isinstance(below, dict) and isinstance(value, dict) else value
    return whole
