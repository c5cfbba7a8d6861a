"""Cursor capture: a watermark with an overlap, so that late commits and ties are not lost.

A row may become visible after a row with a later time stamp did: its transaction was slower. Each read therefore goes back
an overlap behind the newest stamp seen; rows read twice are recognised by their fingerprint and cost nothing further.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any


@dataclass(frozen=True)
class Watermark:
    """The newest value of the cursor column that was seen. `value`: int, datetime or text, as the driver returns it."""

    value: Any

    def dump(self) -> str:
        """As an opaque cursor."""
        if isinstance(self.value, (datetime, date)):
            return json.dumps({"time": self.value.isoformat()})
        return json.dumps({"plain": self.value})

    @classmethod
    def parse(cls, text: str) -> Watermark:
        """The inverse of `dump`."""
        held = json.loads(text)
        return cls(datetime.fromisoformat(held["time"]) if "time" in held else held["plain"])

    def from_where(self, seconds: float, steps: int) -> Any:
        """The value to read from, an overlap behind the watermark; None: from the beginning."""
        if self.value is None:
            return None
        if isinstance(self.value, datetime):
            return self.value - timedelta(seconds=seconds)
        if isinstance(self.value, (int, float)) and not isinstance(self.value, bool):
            return self.value - steps
        return _text_before(str(self.value), seconds)


def _text_before(stamp: str, seconds: float) -> str | None:
    """An ISO stamp kept as text, moved back; None if it is not a stamp (then everything is read)."""
    try:
        moment = datetime.fromisoformat(stamp)
    except ValueError:
        return None
    separator = "T" if "T" in stamp else " "
    return (moment - timedelta(seconds=seconds)).replace(tzinfo=None).isoformat(sep=separator, timespec="seconds")
