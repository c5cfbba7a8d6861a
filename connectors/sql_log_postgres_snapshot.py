"""A position in a change table of PostgreSQL: a snapshot, as `txid_current_snapshot()` writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_WRITTEN = re.compile(r"(\d+):(\d+):([\d,]*)(?:\+(\d+))?")


@dataclass(frozen=True)
class Snapshot:
    """`text`: as written. Transactions below `xmin` have ended, from `xmax` on none has, those in `running` were at work.

    `own`: our own transaction, which wrote in this snapshot, and which the position covers as well.
    """

    text: str
    xmin: int
    xmax: int
    running: frozenset[int]
    own: int | None

    @classmethod
    def parse(cls, position: str) -> Snapshot:
        """From the text that a cursor holds."""
        found = _WRITTEN.fullmatch(position)
        assert found is not None, position
        xmin, xmax, running, own = found.groups()
        at_work = frozenset(int(xid) for xid in running.split(",") if xid)
        return cls(f"{xmin}:{xmax}:{running}", int(xmin), int(xmax), at_work, None if own is None else int(own))
