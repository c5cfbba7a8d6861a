"""Contested keys (争议): two children claim one key. Held for their common parent; never a silent overwrite."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from federation.errors import FedsyncError
from federation.ledger.schema import contest as table
from federation.ledger.store import Ledger, rows
from federation.secrets import Keyring

STANDING = ("open", "awarded", "refused")


@dataclass(frozen=True)
class Claim:
    """What a link run noticed: its lower end (`challenger`) claims a key of which `parent` holds `incumbent`'s record."""

    dataset: str
    key: str
    link_id: str
    parent: str
    incumbent: str
    challenger: str
    held: dict[str, Any]
    claimed: dict[str, Any]


@dataclass(frozen=True)
class Contest:
    """One row of the ledger's `contest` table; the records stay sealed until asked for."""

    contest_id: str
    dataset: str
    key: str
    link_id: str
    parent: str
    incumbent: str
    challenger: str
    payload: bytes
    state: str
    raised: datetime
    last_seen: datetime
    ruled: datetime | None
    ruled_by: str | None
    ruling: bytes | None


@dataclass(frozen=True)
class Opened:
    """What a contest sealed: the record that the parent holds, the one that is claimed, and the ruling's reason."""

    held: dict[str, Any]
    claimed: dict[str, Any]
    reason: str | None


class Contests:
    """Contested keys, from noticed to ruled on or ended by themselves."""

    def __init__(self, ledger: Ledger, keyring: Keyring) -> None:
        self.ledger = ledger
        self._keyring = keyring

    def record(
        self, connection: Connection, link_id: str, claims: Iterable[Claim], seen: Collection[str], state: str
    ) -> None:
        """Enter the claims of a run as `open` or, if a rule decides, `refused`; end those that it looked at (`seen`) and
        found gone."""
        now = self.ledger.clock()
        standing = {
            c.key: c for c in self._select(connection, (table.c.link_id == link_id) & table.c.state.in_(STANDING))
        }
        noticed = set()
        for claim in claims:
            noticed.add(claim.key)
            old = standing.get(claim.key)
            if old is not None and old.incumbent == claim.incumbent:
                self._set(connection, old.contest_id, last_seen=now)
                continue
            identity = self._keyring.identify(claim.link_id, claim.key, claim.incumbent, now.isoformat())
            if old is not None:
                self._set(connection, old.contest_id, state="ended", last_seen=now)
            body = json.dumps({"held": claim.held, "claimed": claim.claimed}, ensure_ascii=False, default=str)
            named = {
                name: getattr(claim, name)
                for name in ("dataset", "key", "link_id", "parent", "incumbent", "challenger")
            }
            sealed = self._keyring.encrypt(body.encode(), identity)
            connection.execute(
                insert(table).values(
                    **named, contest_id=identity, payload=sealed, state=state, raised=now, last_seen=now
                )
            )
        for key, contest in standing.items():
            if key not in noticed and key in seen:
                self._set(connection, contest.contest_id, state="ended", last_seen=now)

    def rule(self, contest: Contest, winner: str, actor: str, reason: str) -> str:
        """Award the key to one of the two; returns the new state. The next run of the challenger's link carries it out."""
        if winner not in (contest.incumbent, contest.challenger):
            raise FedsyncError(
                f"{winner} does not claim this key",
                f"{winner} 不是争议方",
                todo=f"取值 / one of: {contest.incumbent}, {contest.challenger}",
                dataset=contest.dataset,
                key=contest.key,
            )
        if contest.state == "ended":
            raise FedsyncError(
                "this contest is over",
                "该争议已结束",
                todo="fedsync contest list",
                dataset=contest.dataset,
                key=contest.key,
            )
        state = "awarded" if winner == contest.challenger else "refused"
        with self.ledger.transaction() as connection:
            self._set(
                connection,
                contest.contest_id,
                state=state,
                ruled=self.ledger.clock(),
                ruled_by=actor,
                ruling=self._keyring.encrypt(reason.encode(), contest.contest_id),
            )
            self.ledger.audit(connection, actor, f"contest.{state}", contest.contest_id)
        return state

    def awarded(self, link_id: str) -> list[str]:
        """Keys awarded to a link's lower end that are still held by another child's record."""
        return [c.key for c in self._all((table.c.link_id == link_id) & (table.c.state == "awarded"))]

    def of_link(self, link_id: str) -> list[Contest]:
        """Contests of a link that have not ended."""
        return self._all((table.c.link_id == link_id) & table.c.state.in_(STANDING))

    def standing(self, dataset: str | None = None) -> list[Contest]:
        """Contests that have not ended, oldest first."""
        condition = table.c.state.in_(STANDING)
        return self._all(condition & (table.c.dataset == dataset) if dataset else condition)

    def about(self, dataset: str, key: str) -> list[Contest]:
        """Everything about one key, oldest first."""
        return self._all((table.c.dataset == dataset) & (table.c.key == key))

    def find(self, prefix: str) -> Contest:
        """The contest whose id begins with `prefix`. Raises FedsyncError if there is none, or more than one."""
        found = self._all(table.c.contest_id.startswith(prefix, autoescape=True))
        if len(found) != 1:
            how = "no contest" if not found else "more than one contest"
            raise FedsyncError(
                f"{how} begins with {prefix!r}", "争议编号不存在或不唯一", todo="fedsync contest list", key=prefix
            )
        return found[0]

    def open(self, contest: Contest) -> Opened:
        """Unseal a contest."""
        held = json.loads(self._keyring.decrypt(contest.payload, contest.contest_id))
        reason = contest.ruling and self._keyring.decrypt(contest.ruling, contest.contest_id).decode()
        return Opened(held["held"], held["claimed"], reason or None)

    def _all(self, condition: Any) -> list[Contest]:
        with self.ledger.transaction() as connection:
            return self._select(connection, condition)

    def _select(self, connection: Connection, condition: Any) -> list[Contest]:
        found = rows(connection, select(table).where(condition).order_by(table.c.raised, table.c.contest_id))
        return [Contest(**row) for row in found]

    def _set(self, connection: Connection, contest_id: str, **values: object) -> None:
        connection.execute(update(table).where(table.c.contest_id == contest_id).values(**values))
