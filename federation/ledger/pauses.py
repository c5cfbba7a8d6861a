"""Pauses (暂停): what an operator told the engine to leave alone for a while, a link, a region with all below it, or a system."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import delete, or_, select

from federation.errors import FedsyncError
from federation.ledger.schema import pause as table
from federation.ledger.store import Ledger, rows

Kind = Literal["link", "region", "system"]
KINDS: tuple[Kind, ...] = ("link", "region", "system")


@dataclass(frozen=True)
class Pause:
    """One row of the ledger's `pause` table. `until`: the moment at which it is over by itself; None: only when it is resumed."""

    kind: Kind
    subject: str
    reason: str
    paused_by: str
    at: datetime
    until: datetime | None

    def __str__(self) -> str:
        until = f" 至 / until {self.until.astimezone():%Y-%m-%d %H:%M}" if self.until else ""
        return f"已暂停 / paused ({self.kind} {self.subject}, {self.paused_by}{until}): {self.reason}"


class Pauses:
    """All pauses that stand. Setting and lifting one leaves a line in the audit trail."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def standing(self) -> list[Pause]:
        """What is paused now, by kind and name."""
        now = self.ledger.clock()
        statement = select(table).where(or_(table.c.until.is_(None), table.c.until > now))
        with self.ledger.transaction() as connection:
            return [Pause(**row) for row in rows(connection, statement.order_by(table.c.kind, table.c.subject))]

    def pause(self, kind: Kind, subject: str, *, reason: str, until: datetime | None, actor: str) -> Pause:
        """Pause something, or give its pause another reason and end. Raises FedsyncError if the end is not in the future."""
        now = self.ledger.clock()
        if until is not None and until <= now:
            raise FedsyncError(
                f"the pause would end at {until:%Y-%m-%d %H:%M}, which is over",
                "暂停的截止时间已过",
                todo="换一个以后的时间 / name a later moment",
                **{kind: subject},
            )
        made = Pause(kind, subject, reason, actor, now, until)
        with self.ledger.transaction() as connection:
            connection.execute(delete(table).where(table.c.until <= now))
            connection.execute(delete(table).where(table.c.kind == kind, table.c.subject == subject))
            values = {"kind": kind, "subject": subject, "reason": reason, "paused_by": actor, "at": now, "until": until}
            connection.execute(table.insert().values(**values))
            detail = json.dumps({"reason": reason, "until": until and until.isoformat()}, ensure_ascii=False)
            self.ledger.audit(connection, actor, "pause", f"{kind}/{subject}", detail)
        return made

    def resume(self, kind: Kind, subject: str, actor: str) -> None:
        """Lift a pause. Raises FedsyncError if there is none."""
        now = self.ledger.clock()
        with self.ledger.transaction() as connection:
            connection.execute(delete(table).where(table.c.until <= now))
            gone = connection.execute(delete(table).where(table.c.kind == kind, table.c.subject == subject))
            if gone.rowcount != 1:
                raise FedsyncError(
                    f"this {kind} is not paused itself",
                    "该对象本身未被暂停",
                    todo="fedsync pause list",
                    **{kind: subject},
                )
            self.ledger.audit(connection, actor, "resume", f"{kind}/{subject}")
