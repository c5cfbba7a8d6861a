"""Corrections (校核): values proposed by a node that is not their authority, from raised to the outcome's return.

    raised      on its way, hop by hop, to the node of the field's authority (`target`)
    waiting     there; its people, or an operator, rule on it until `due`
    accepted    the authority takes the value (`applied` once it was written there)
    rejected    it does not, with a reason
    superseded  the authority's value changed meanwhile, or the record is gone: there is nothing left to rule on
    withdrawn   whoever raised it took it back, or proposes something else now
    logged      never travels: the losing value of a shared field, or of a deletion, kept for whoever asks

A ruled correction travels back to the node that raised it and is `closed` there. A correction of the kind `carry` is an edit that
was made at the authority just before the record moved to another one: it is accepted by itself if nothing changed meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, or_, select, update

from federation.errors import FedsyncError
from federation.ledger.schema import correction as table
from federation.ledger.store import Ledger, chunks, rows
from federation.secrets import Keyring

OPEN = ("raised", "waiting")
REFUSED = ("rejected", "superseded")
SHOWN = timedelta(days=30)
"""How long an outcome is shown to the people who raised the correction."""
NextHop = Callable[[str, str, str], str | None]
"""dataset, where it stands, where it wants to → the next region on the way; None when it is there."""


@dataclass(frozen=True)
class Proposal:
    """What a link run noticed. `kind`: edit, create, delete, carry, or lost. `proposed`, `current`: field → value.

    `target`: the region whose node rules. `proposed_fp`, `basis_fp`: fingerprints of `fields` as proposed, and as they were
    where the proposal was made; `group_fp`: of the whole group at the end that proposes.
    """

    link_id: str
    dataset: str
    key: str
    kind: str
    raised_by: str
    target: str
    group: str | None
    proposed: dict[str, Any]
    current: dict[str, Any]
    proposed_fp: bytes | None
    basis_fp: bytes | None
    group_fp: bytes | None


@dataclass(frozen=True)
class Correction:
    """One row of the ledger's `correction` table; values stay sealed until asked for."""

    correction_id: str
    link_id: str
    dataset: str
    key: str
    kind: str
    raised_by: str
    target: str | None
    at: str | None
    group: str | None
    fields: str
    payload: bytes
    proposed_fp: bytes | None
    basis_fp: bytes | None
    group_fp: bytes | None
    asked_fp: bytes | None
    state: str
    checked: bool | None
    applied: bool | None
    restored: bool | None
    raised: datetime
    due: date | None
    last_seen: datetime
    ruled: datetime | None
    ruled_by: str | None
    ruling: bytes | None
    closed: datetime | None
    trail: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """The fields concerned."""
        return tuple(json.loads(self.fields))

    @property
    def heading(self) -> str | None:
        """Where it is on its way to; None if it stays."""
        if self.closed is not None or self.state in ("waiting", "logged"):
            return None
        return self.target if self.state == "raised" else self.raised_by

    @property
    def way(self) -> list[tuple[str, str]]:
        """(region, time) of each node it has reached."""
        return [(region, at) for region, at in json.loads(self.trail or "[]")]


@dataclass(frozen=True)
class Opened:
    """What a correction sealed. For people's eyes only."""

    proposed: dict[str, Any]
    current: dict[str, Any]
    reason: str | None


class Corrections:
    """The life of corrections. Methods that take a connection act inside the caller's transaction."""

    def __init__(self, ledger: Ledger, keyring: Keyring) -> None:
        self.ledger = ledger
        self._keyring = keyring

    def record(self, connection: Connection, proposals: Iterable[Proposal], due: Callable[[Proposal], date]) -> int:
        """Enter proposals. One that stands already is only seen again; another one of the same node about the same field
        takes its place. Returns how many are new."""
        now, new = self.ledger.clock(), 0
        for proposal in proposals:
            standing = self._standing(connection, proposal)
            same = next((c for c in standing if c.proposed_fp == proposal.proposed_fp), None)
            if same is not None:
                self._set(connection, [same.correction_id], last_seen=now)
                continue
            for old in standing:
                self.settle(connection, old, "withdrawn", "engine", "另提新的建议 / proposed anew")
            self._enter(connection, proposal, due(proposal), now)
            new += 1
        return new

    def _standing(self, connection: Connection, proposal: Proposal) -> list[Correction]:
        """What the same node proposes already about the same thing."""
        mine: ColumnElement[bool] = (
            (table.c.dataset == proposal.dataset)
            & (table.c.key == proposal.key)
            & (table.c.raised_by == proposal.raised_by)
            & (table.c.kind == proposal.kind)
            & table.c.state.in_(("logged",) if proposal.kind == "lost" else OPEN)
            & (table.c.link_id == proposal.link_id)
        )
        if proposal.kind == "create":  # the row stands where it was typed: it is not proposed again once it was refused
            refused = table.c.state.in_(REFUSED) & table.c.restored.is_(False)
            same = (table.c.link_id == proposal.link_id) & (table.c.key == proposal.key) & (table.c.kind == "create")
            mine = mine | (same & refused & (table.c.proposed_fp == proposal.proposed_fp))
        found = [Correction(**row) for row in rows(connection, select(table).where(mine))]
        names = set(proposal.proposed)
        return [c for c in found if proposal.kind in ("create", "delete") or names & set(c.names)]

    def _enter(self, connection: Connection, proposal: Proposal, due: date, now: datetime) -> None:
        identity = self._keyring.identify(
            proposal.link_id,
            proposal.key,
            proposal.kind,
            proposal.raised_by,
            str(proposal.proposed_fp),
            now.isoformat(),
        )
        body = json.dumps({"proposed": proposal.proposed, "current": proposal.current}, ensure_ascii=False, default=str)
        lost = proposal.kind == "lost"
        there = proposal.target == proposal.raised_by
        connection.execute(
            insert(table).values(
                correction_id=identity,
                link_id=proposal.link_id,
                dataset=proposal.dataset,
                key=proposal.key,
                kind=proposal.kind,
                raised_by=proposal.raised_by,
                target=proposal.target,
                at=proposal.raised_by,
                group=proposal.group,
                fields=json.dumps(sorted(proposal.proposed)),
                payload=self._keyring.encrypt(body.encode(), identity),
                proposed_fp=proposal.proposed_fp,
                basis_fp=proposal.basis_fp,
                group_fp=proposal.group_fp,
                state="logged" if lost else "waiting" if there else "raised",
                checked=False,
                applied=False,
                restored=False,
                raised=now,
                due=due,
                last_seen=now,
                trail=json.dumps([[proposal.raised_by, now.isoformat()]]),
                closed=now if lost else None,
            )
        )

    def cross(self, connection: Connection, upper: str, lower: str, dataset: str, next_hop: NextHop) -> tuple[int, int]:
        """Let corrections and outcomes pass this link, one hop; returns how many went up and down."""
        now, counts = self.ledger.clock(), {upper: 0, lower: 0}
        standing = (table.c.dataset == dataset) & table.c.closed.is_(None) & table.c.at.in_((upper, lower))
        for row in rows(connection, select(table).where(standing)):
            correction = Correction(**row)
            goal = correction.heading
            if goal is None or correction.at is None:
                continue
            if correction.at == goal:
                self._arrive(connection, correction, goal, now)
                counts[goal] += 1
            elif next_hop(dataset, correction.at, goal) == (lower if correction.at == upper else upper):
                there = lower if correction.at == upper else upper
                trail = json.dumps([*correction.way, (there, now.isoformat())])
                self._set(connection, [correction.correction_id], at=there, trail=trail)
                if there == goal:
                    self._arrive(connection, correction, goal, now)
                counts[there] += 1
        return counts[upper], counts[lower]

    def _arrive(self, connection: Connection, correction: Correction, goal: str, now: datetime) -> None:
        if correction.state == "raised":
            self._set(connection, [correction.correction_id], state="waiting", checked=False)
        else:
            self._set(connection, [correction.correction_id], closed=now)

    def retarget(self, connection: Connection, correction: Correction, target: str) -> None:
        """The record moved: another node is the authority now."""
        moved = {"target": target, "state": "raised", "checked": False, "asked_fp": None}
        self._set(connection, [correction.correction_id], **moved)

    def settle(
        self,
        connection: Connection,
        correction: Correction,
        state: str,
        actor: str,
        reason: str,
        *,
        applied: bool = False,
    ) -> None:
        """Rule on a correction, or end it. It travels back from where it stands."""
        now = self.ledger.clock()
        home = state == "withdrawn" or correction.at == correction.raised_by
        self._set(
            connection,
            [correction.correction_id],
            state=state,
            ruled=now,
            ruled_by=actor,
            ruling=self._keyring.encrypt(reason.encode(), correction.correction_id),
            applied=applied,
            checked=True,
            closed=now if home else None,
        )
        self.ledger.audit(connection, actor, f"correction.{state}", correction.correction_id)

    def checked(self, connection: Connection, correction: Correction, asked: bytes | None = None) -> None:
        """It was compared with the authority's value, and still is a question: to replace what stands there (`asked`)."""
        self._set(connection, [correction.correction_id], checked=True, asked_fp=asked)

    def applied(self, correction: Correction) -> None:
        """An accepted proposal was written at the authority."""
        with self.ledger.transaction() as connection:
            self._set(connection, [correction.correction_id], applied=True)

    def restored(self, connection: Connection, link_id: str, keys: Collection[str]) -> None:
        """After a refusal, the proposing end holds the authority's value again: the same proposal may be made anew."""
        mine = (table.c.link_id == link_id) & table.c.state.in_(REFUSED) & table.c.restored.is_(False)
        standing = set(connection.scalars(select(table.c.key).where(mine)))
        for part in chunks(sorted(standing.intersection(keys)), 500):
            connection.execute(update(table).where(mine, table.c.key.in_(part)).values(restored=True))

    def refused(self, link_id: str) -> list[Correction]:
        """Proposals of this link that were turned down and may still stand where they were made."""
        mine = (table.c.link_id == link_id) & table.c.state.in_(REFUSED) & table.c.restored.is_(False)
        return self._select(mine & (table.c.kind == "edit"))

    def at_authority(self, dataset: str, region: str, *states: str) -> list[Correction]:
        """What stands at the authority's node in one of these states, oldest first."""
        here = (table.c.dataset == dataset) & (table.c.target == region) & table.c.state.in_(states)
        return self._select(here & or_(table.c.state != "waiting", table.c.at == region))

    def concern(self, dataset: str, regions: Collection[str]) -> bool:
        """Whether any correction stands at, is raised by, or is ruled on at one of these nodes (or was, lately)."""
        recent = or_(
            table.c.closed.is_(None), table.c.closed > self.ledger.clock() - SHOWN, table.c.restored.is_(False)
        )
        here = or_(*(column.in_(regions) for column in (table.c.at, table.c.raised_by, table.c.target)))
        statement = select(table.c.correction_id).where(
            table.c.dataset == dataset, recent, here, table.c.state != "logged"
        )
        with self.ledger.transaction() as connection:
            return connection.execute(statement.limit(1)).first() is not None

    def waiting_at(self, connection: Connection, dataset: str, region: str) -> list[Correction]:
        """What waits at the authority's node for a ruling, oldest first."""
        here = (table.c.dataset == dataset) & (table.c.target == region) & (table.c.at == region)
        statement = select(table).where(here & (table.c.state == "waiting")).order_by(table.c.raised)
        return [Correction(**row) for row in rows(connection, statement)]

    def raised_by(self, dataset: str, region: str) -> list[Correction]:
        """What a region raised and has not seen the end of for long."""
        recent = or_(table.c.closed.is_(None), table.c.closed > self.ledger.clock() - SHOWN)
        return self._select(
            (table.c.dataset == dataset) & (table.c.raised_by == region) & recent & (table.c.state != "logged")
        )

    def active(self, dataset: str | None = None, *, state: str | None = None) -> list[Correction]:
        """Whatever has not ended, oldest first; or all in one state, ended or not."""
        condition = table.c.closed.is_(None) if state is None else table.c.state == state
        return self._select(condition & (table.c.dataset == dataset) if dataset else condition)

    def about(self, dataset: str, key: str) -> list[Correction]:
        """Everything about one record, oldest first."""
        return self._select((table.c.dataset == dataset) & (table.c.key == key))

    def open_about(self, connection: Connection, dataset: str, keys: Sequence[str]) -> list[Correction]:
        """Open corrections about these records."""
        found = []
        for part in chunks(list(keys), 500):
            mine = (table.c.dataset == dataset) & table.c.key.in_(part) & table.c.state.in_(OPEN)
            found += [Correction(**row) for row in rows(connection, select(table).where(mine).order_by(table.c.raised))]
        return found

    def of_link_about(
        self, connection: Connection, link_id: str, keys: Sequence[str], since: datetime | None
    ) -> list[Correction]:
        """What a link noticed about these records and is open, or stands though it has ended: a run noticed it again `since` then
        (None: whenever that was)."""
        found = []
        stands = table.c.state.in_(OPEN) | ((table.c.last_seen >= since) if since is not None else ~table.c.restored)
        for part in chunks(list(keys), 500):
            mine = (table.c.link_id == link_id) & table.c.key.in_(part) & stands
            found += [Correction(**row) for row in rows(connection, select(table).where(mine))]
        return found

    def open_of(self, connection: Connection, dataset: str, region: str, link_id: str) -> list[Correction]:
        """Open corrections that a region raised on a link."""
        mine = (table.c.dataset == dataset) & (table.c.raised_by == region) & (table.c.link_id == link_id)
        return [Correction(**row) for row in rows(connection, select(table).where(mine & table.c.state.in_(OPEN)))]

    def find(self, prefix: str) -> Correction:
        """The correction whose id begins with `prefix`. Raises FedsyncError if there is none, or more than one."""
        found = self._select(table.c.correction_id.startswith(prefix, autoescape=True))
        if len(found) != 1:
            how = "no correction" if not found else "more than one correction"
            raise FedsyncError(
                f"{how} begins with {prefix!r}", "校核编号不存在或不唯一", todo="fedsync correction list", key=prefix
            )
        return found[0]

    def open(self, correction: Correction) -> Opened:
        """Unseal a correction."""
        held = json.loads(self._keyring.decrypt(correction.payload, correction.correction_id))
        reason = correction.ruling and self._keyring.decrypt(correction.ruling, correction.correction_id).decode()
        return Opened(held["proposed"], held["current"], reason or None)

    def counts(self) -> dict[str, int]:
        """Open corrections by the link that noticed them."""
        statement = select(table.c.link_id, func.count()).where(table.c.state.in_(OPEN)).group_by(table.c.link_id)
        with self.ledger.transaction() as connection:
            return {link_id: int(number) for link_id, number in connection.execute(statement)}

    def _select(self, condition: Any) -> list[Correction]:
        statement = select(table).where(condition).order_by(table.c.raised, table.c.correction_id)
        with self.ledger.transaction() as connection:
            return [Correction(**row) for row in rows(connection, statement)]

    def _set(self, connection: Connection, ids: Sequence[str], **values: object) -> None:
        connection.execute(update(table).where(table.c.correction_id.in_(ids)).values(**values))
