"""The state of each link, and its lease: at most one runner settles a link, proven by a fencing token."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, select, update

from federation.config import Link
from federation.errors import FedsyncError, LeaseHeld, LeaseLost
from federation.ledger.schema import link as table
from federation.ledger.schema import run as run_table
from federation.ledger.store import Ledger, chunks, rows
from federation.outcome import Outcome
from federation.processes import alive

LEASE = timedelta(minutes=3)
"""How long a lease lasts unless it is renewed; a runner that died is taken over after that, or at once by the next process on its machine."""
RENEW_SECONDS = 40.0
"""How often a runner at work renews its lease."""
LONGEST = timedelta(hours=6)
"""How long it may do so: one that hangs for ever must not keep its link for ever."""


@dataclass(frozen=True)
class LinkState:
    """One row of the ledger's `link` table, as read."""

    link_id: str
    dataset: str
    upper: str
    lower: str
    identity: str | None
    baseline: str | None
    intent: str | None
    upper_cursor: str | None
    lower_cursor: str | None
    upper_token: str | None
    lower_token: str | None
    state: str
    reason_zh: str | None
    reason_en: str | None
    released: bool
    fence: int
    holder: str | None
    lease_until: datetime | None
    last_run: datetime | None
    last_ok: datetime | None
    last_full: datetime | None
    last_moved: datetime | None


@dataclass(frozen=True)
class Lease:
    """The right to settle one link, as long as nobody took it over. `token` fences off earlier holders."""

    link_id: str
    holder: str
    token: int


def holder_name() -> str:
    """Who asks: machine, process and a nonce."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


class Links:
    """Reading and leasing links."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def state(self, link: Link) -> LinkState:
        """The state of a link; a link that was never seen is entered as new."""
        with self.ledger.transaction() as connection:
            found = self._find(connection, link.id)
            if found is None:
                connection.execute(
                    table.insert().values(
                        link_id=link.id,
                        dataset=link.contract.dataset.name,
                        upper=link.upper.code,
                        lower=link.lower.code,
                        state="new",
                        released=False,
                        fence=0,
                    )
                )
                found = self._find(connection, link.id)
        assert found is not None
        return found

    def all(self, dataset: str | None = None) -> dict[str, LinkState]:
        """Every link that was ever seen."""
        statement = select(table) if dataset is None else select(table).where(table.c.dataset == dataset)
        with self.ledger.transaction() as connection:
            return {row["link_id"]: LinkState(**row) for row in rows(connection, statement)}

    def states(self, link_ids: Sequence[str]) -> dict[str, LinkState]:
        """The states of these links, as far as they were ever seen."""
        found = {}
        with self.ledger.transaction() as connection:
            for part in chunks(list(link_ids), 500):
                for row in rows(connection, select(table).where(table.c.link_id.in_(part))):
                    found[row["link_id"]] = LinkState(**row)
        return found

    def under(self, dataset: str, upper: str) -> list[str]:
        """The ids of the links that have settled with this parent last, or were entered under it."""
        statement = select(table.c.link_id).where(table.c.dataset == dataset, table.c.upper == upper)
        with self.ledger.transaction() as connection:
            return list(connection.scalars(statement.order_by(table.c.link_id)))

    def acquire(self, link: Link) -> tuple[Lease, LinkState]:
        """Take the lease. Raises LeaseHeld if another runner has it and has not expired or died."""
        self.state(link)
        now, holder = self.ledger.clock(), holder_name()
        with self.ledger.transaction() as connection:
            found = self._find(connection, link.id)
            assert found is not None
            if working(found, now):
                raise LeaseHeld(
                    f"{found.holder} works on this link until {found.lease_until:%H:%M:%S}",
                    "另一进程正在同步此链路",
                    todo="稍后再试 / try again later",
                    link=link.id,
                )
            token = found.fence + 1
            connection.execute(
                update(table)
                .where(table.c.link_id == link.id)
                .values(fence=token, holder=holder, lease_until=now + LEASE)
            )
        return Lease(link.id, holder, token), found

    @contextmanager
    def kept(self, lease: Lease) -> Iterator[None]:
        """Renew a lease in the background while its runner is at work, however long that takes."""
        over = threading.Event()
        thread = threading.Thread(target=self._renew, args=(lease, over), name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _renew(self, lease: Lease, over: threading.Event) -> None:
        mine = (table.c.holder == lease.holder, table.c.fence == lease.token, table.c.link_id == lease.link_id)
        last = time.monotonic() + LONGEST.total_seconds()
        while not over.wait(RENEW_SECONDS) and time.monotonic() < last:
            try:
                with self.ledger.transaction() as connection:
                    until = self.ledger.clock() + LEASE
                    if connection.execute(update(table).where(*mine).values(lease_until=until)).rowcount != 1:
                        return
            except FedsyncError:
                continue  # the ledger may answer next time; if the lease runs out meanwhile, settling tells

    def let_go(self, lease: Lease) -> None:
        """Give the lease back, if it is still ours."""
        with self.ledger.transaction() as connection:
            connection.execute(
                update(table)
                .where(table.c.link_id == lease.link_id, table.c.fence == lease.token)
                .values(holder=None, lease_until=None)
            )

    def settle(self, connection: Connection, lease: Lease, **values: object) -> None:
        """Write the link's row inside the settling transaction. Raises LeaseLost if another runner took the link over."""
        result = connection.execute(
            update(table)
            .where(table.c.link_id == lease.link_id, table.c.fence == lease.token, table.c.holder == lease.holder)
            .values(**values)
        )
        if result.rowcount != 1:
            raise LeaseLost(
                "another runner took this link over",
                "链路已被另一进程接管",
                todo="无需处理，接管者会完成 / nothing: the other runner finishes it",
                link=lease.link_id,
            )

    def record_run(
        self,
        connection: Connection,
        outcome: Outcome,
        started: datetime,
        finished: datetime,
        word: str,
        error: str | None = None,
    ) -> None:
        """Enter one run: what it did, and how it ended (`ok`, `held`, `failed`). Of one that had settled before it failed, what it did stays."""
        ended = {"finished": finished, "outcome": word, "error": error}
        known = update(run_table).where(run_table.c.run_id == outcome.run_id).values(**ended)
        if connection.execute(known).rowcount:
            return
        what = {"run_id": outcome.run_id, "link_id": outcome.link_id, "counts": json.dumps(outcome.summary())}
        connection.execute(run_table.insert().values(**what, started=started, **ended))

    def mark_failed(self, link_id: str, error: FedsyncError) -> None:
        """Note that a link could not even start, unless somebody works on it right now."""
        now = self.ledger.clock()
        with self.ledger.transaction() as connection:
            failed = update(table).where(table.c.link_id == link_id, table.c.holder.is_(None), table.c.state != "held")
            connection.execute(failed.values(state="failed", reason_zh=error.zh, reason_en=str(error), last_run=now))

    def advance_upper(
        self,
        dataset: str,
        upper: str,
        lowers: Sequence[str],
        before: Collection[str],
        cursor: str | None,
        token: str | None,
    ) -> None:
        """Move on the siblings that settled at a token in `before`, ere our own writes to their parent led to `token`."""
        mine = (table.c.dataset == dataset) & (table.c.upper == upper) & table.c.lower.in_(lowers)
        values = {"upper_token": token, **({"upper_cursor": cursor} if cursor is not None else {})}
        with self.ledger.transaction() as connection:
            connection.execute(update(table).where(mine, table.c.upper_token.in_(before)).values(**values))

    def release(self, link_id: str, actor: str) -> None:
        """Let a held link's next run pass its guards once."""
        with self.ledger.transaction() as connection:
            result = connection.execute(
                update(table).where(table.c.link_id == link_id, table.c.state == "held").values(released=True)
            )
            if result.rowcount != 1:
                raise FedsyncError("this link is not held", "该链路未被拦截", todo="fedsync status", link=link_id)
            self.ledger.audit(connection, actor, "link.release", link_id)

    def compare_all(self, connection: Connection, link_id: str) -> None:
        """Let a link's next run compare all keys, and be due."""
        connection.execute(update(table).where(table.c.link_id == link_id).values(identity=None))

    def _find(self, connection: Connection, link_id: str) -> LinkState | None:
        found = rows(connection, select(table).where(table.c.link_id == link_id))
        return LinkState(**found[0]) if found else None


def working(state: LinkState, now: datetime) -> bool:
    """Whether a runner is at work on a link, as far as can be told: its lease stands, and it is not known to have died."""
    leased = state.holder is not None and state.lease_until is not None and state.lease_until > now
    return leased and not _dead(state.holder or "")


def _dead(holder: str) -> bool:
    """Whether the holder was a process of this machine that no longer runs; of another machine, nobody can tell."""
    host, pid, _ = holder.rsplit(":", 2)
    return host == socket.gethostname() and pid.isdigit() and not alive(int(pid))
