"""Reading JSON answers: dotted paths, and numbers that lose no digit."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

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
    """The value at a dotted path, None below a null, MISSING where a name is absent. An empty path is `data` itself.

    A name that holds dots itself (`@odata.etag`) is found as it stands.
    """
    while path:
        if data is None:
            return None
        if not isinstance(data, Mapping):
            return MISSING
        if path in data:
            return data[path]
        name, _, path = path.partition(".")
        if name not in data:
            return MISSING
        data = data[name]
    return data
