"""Corrections (校核): values proposed by a node that is not their authority, kept until ruled on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select, update

from federation.ledger.schema import correction as table
from federation.ledger.store import Ledger
from federation.secrets import Keyring


@dataclass(frozen=True)
class Proposal:
    """`kind`: edit, create, delete, or lost (the older of two edits of a shared field). `proposed`, `current`: field → value."""

    link_id: str
    dataset: str
    key: str
    kind: str
    raised_by: str
    proposed: dict[str, Any]
    current: dict[str, Any]


class Corrections:
    """Proposals, from raised to ended."""

    def __init__(self, ledger: Ledger, keyring: Keyring) -> None:
        self.ledger = ledger
        self._keyring = keyring

    def record(self, connection: Connection, proposals: Iterable[Proposal]) -> None:
        """Enter proposals inside the settling transaction; one that stands already is only seen again."""
        now = self.ledger.clock()
        for proposal in proposals:
            identity = self._identity(proposal)
            if connection.execute(
                update(table).where(table.c.correction_id == identity).values(last_seen=now)
            ).rowcount:
                continue
            body = json.dumps(
                {"proposed": proposal.proposed, "current": proposal.current}, ensure_ascii=False, default=str
            )
            connection.execute(
                table.insert().values(
                    correction_id=identity,
                    link_id=proposal.link_id,
                    dataset=proposal.dataset,
                    key=proposal.key,
                    kind=proposal.kind,
                    raised_by=proposal.raised_by,
                    fields=json.dumps(sorted(proposal.proposed)),
                    payload=self._keyring.encrypt(body.encode(), identity),
                    state="raised",
                    raised=now,
                    last_seen=now,
                )
            )

    def _identity(self, proposal: Proposal) -> str:
        """Stable for the same proposal, so that raising it again changes nothing."""
        proposed = json.dumps(proposal.proposed, ensure_ascii=False, sort_keys=True, default=str)
        return self._keyring.identify(proposal.link_id, proposal.key, proposal.kind, proposal.raised_by, proposed)

    def counts(self) -> dict[str, int]:
        """Standing proposals by link."""
        statement = select(table.c.link_id, func.count()).where(table.c.state == "raised").group_by(table.c.link_id)
        with self.ledger.transaction() as connection:
            return {link_id: int(number) for link_id, number in connection.execute(statement)}
