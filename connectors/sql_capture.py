"""Cursor capture: a watermark with an overlap, so that late commits and ties are not lost.

A row may become visible after a row with a later time stamp did: its transaction was slower. Each read therefore goes back
an overlap behind the watermark; rows read twice are recognised by their fingerprint and cost nothing further. Two more things
would lose rows and are kept out of the watermark: a stamp in the future (a wrong clock; everything after it would look old), and
whatever began before the oldest transaction that is still open, where the database tells (`Database.horizon`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Watermark:
    """How far a read got. `at`: a number, or the text of a moment as the database itself writes it; None: nowhere yet."""

    at: int | float | str | None

    def dump(self) -> str:
        """As an opaque cursor."""
        return json.dumps({"at": self.at})

    @classmethod
    def parse(cls, cursor: str | None) -> Watermark:
        """The inverse of `dump`; what is no cursor of ours means: from the beginning."""
        try:
            held: Any = json.loads(cursor or "null")
        except ValueError:
            return cls(None)
        return cls(held.get("at")) if isinstance(held, dict) else cls(None)


@dataclass(frozen=True)
class Overlap:
    """How far behind the watermark a read begins: `seconds` for moments, `steps` for numbers."""

    seconds: float
    steps: int
