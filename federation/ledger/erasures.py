"""Erasures (删除): a person's record is to vanish from the whole federation; kept until it has, then only the key's fingerprint stays."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from sqlalchemy import ColumnElement, Connection, Table, delete, select, update

from federation.errors import FedsyncError
from federation.ledger.schema import audit, contest, correction, quarantine, run, tombstone, waiting, waiver
from federation.ledger.schema import erasure as table
from federation.ledger.schema import link as links
from federation.ledger.store import Ledger, rows
from federation.secrets import Keyring

ERASED = "（已删除 / erased）"


@dataclass(frozen=True)
class Erasure:
    """One row of the ledger's `erasure` table. `key` is empty once it is `done`. `waits`: node (region code) or link → what it waits for."""

    erasure_id: str
    dataset: str
    key: str
    key_fp: str
    asked_by: str
    reason: bytes
    state: str
    waits: str
    at: datetime
    tried: datetime | None
    finished: datetime | None

    @property
    def waits_for(self) -> dict[str, str]:
        """What it waits for."""
        return dict(json.loads(self.waits))


class Erasures:
    """Erasures asked for, and what the ledger itself must forget for one."""

    def __init__(self, ledger: Ledger, keyring: Keyring) -> None:
        self.ledger = ledger
        self._keyring = keyring

    def ask(self, dataset: str, key: str, *, reason: str, by: str, actor: str) -> Erasure:
        """Enter an erasure; one that is pending for the same record is returned as it is. `reason` is sealed."""
        fingerprint, now = self.fingerprint(dataset, key), self.ledger.clock()
        standing = [one for one in self.all("pending") if one.key_fp == fingerprint]
        if standing:
            return standing[0]
        identity = self._keyring.identify("erasure", fingerprint, now.isoformat())
        made = Erasure(
            identity,
            dataset,
            key,
            fingerprint,
            by,
            self._keyring.encrypt(reason.encode(), identity),
            "pending",
            "{}",
            now,
            None,
            None,
        )
        with self.ledger.transaction() as connection:
            connection.execute(table.insert().values(**vars(made)))
            self.ledger.audit(connection, actor, "erase.ask", fingerprint, json.dumps({"dataset": dataset, "by": by}))
        return made

    def fingerprint(self, dataset: str, key: str) -> str:
        """What stays of a key: keyed, so that nobody can guess it without the federation's secret."""
        return self._keyring.identify("erased key", dataset, key)

    def all(self, state: str | None = None) -> list[Erasure]:
        """Every erasure, or those in one state, oldest first."""
        statement = select(table).order_by(table.c.at, table.c.erasure_id)
        if state is not None:
            statement = statement.where(table.c.state == state)
        with self.ledger.transaction() as connection:
            return [Erasure(**row) for row in rows(connection, statement)]

    def find(self, erasure_id: str) -> Erasure:
        """One erasure. Raises FedsyncError if there is none with this id."""
        found = [one for one in self.all() if one.erasure_id == erasure_id]
        if not found:
            raise FedsyncError("there is no such erasure", "没有此删除请求", todo="fedsync erase list", key=erasure_id)
        return found[0]

    def tried(self, erasure: Erasure, waits: Mapping[str, str]) -> None:
        """Note what an attempt still waits for."""
        values = {"waits": json.dumps(dict(waits), ensure_ascii=False), "tried": self.ledger.clock()}
        with self.ledger.transaction() as connection:
            connection.execute(update(table).where(table.c.erasure_id == erasure.erasure_id).values(**values))

    def withdraw(self, erasure: Erasure, actor: str) -> None:
        """Drop an erasure that was asked for a key that nobody knows."""
        with self.ledger.transaction() as connection:
            connection.execute(delete(table).where(table.c.erasure_id == erasure.erasure_id))
            self.ledger.audit(connection, actor, "erase.unknown", erasure.key_fp)

    def purge(self, dataset: str, key: str) -> set[str]:
        """Forget what is sealed of a record: corrections, contests and waivers wholly; of what is in quarantine the payload, and it is
        closed. Returns the regions whose people may be shown some of it."""
        concerned: set[str] = set()
        now = self.ledger.clock()
        with self.ledger.transaction() as connection:
            for sealed, columns in (
                (correction, ("raised_by", "target", "at")),
                (contest, ("parent", "incumbent", "challenger")),
                (waiver, ()),
            ):
                mine = (sealed.c.dataset == dataset) & (sealed.c.key == key)
                for row in rows(connection, select(sealed).where(mine)):
                    concerned |= {row[name] for name in columns if row[name]}
                connection.execute(delete(sealed).where(mine))
            aside = (quarantine.c.dataset == dataset) & (quarantine.c.key == key)
            for row in rows(connection, select(quarantine.c.origin).where(aside)):
                concerned.add(row["origin"])
            still = aside & quarantine.c.state.in_(("open", "replay"))
            connection.execute(update(quarantine).where(still).values(state="released", closed=now))
            connection.execute(update(quarantine).where(aside).values(payload=b""))
        return concerned

    def _clean(
        self,
        connection: Connection,
        kept: Table,
        identity: str,
        column: str,
        mine: ColumnElement[bool],
        cleaned: Callable[[str], str],
    ) -> None:
        """Take the key out of a column of text."""
        for row in rows(connection, select(kept.c[identity], kept.c[column]).where(mine, kept.c[column].is_not(None))):
            text = cleaned(row[column])
            if text != row[column]:
                connection.execute(update(kept).where(kept.c[identity] == row[identity]).values({column: text}))

    def finish(self, erasure: Erasure, actor: str) -> None:
        """The record is gone everywhere: forget its key as well, wherever the ledger has it."""
        dataset, key, now = erasure.dataset, erasure.key, self.ledger.clock()
        with self.ledger.transaction() as connection:
            for kept in (quarantine, tombstone):
                connection.execute(delete(kept).where(kept.c.dataset == dataset, kept.c.key == key))
            mine = waiting.c.link_id.startswith(f"{dataset}/", autoescape=True)
            connection.execute(delete(waiting).where(mine, waiting.c.key == key))
            texts = ((run, "run_id", "error"), (links, "link_id", "reason_en"), (links, "link_id", "reason_zh"))
            for kept, identity, column in texts:
                mine = kept.c.link_id.startswith(f"{dataset}/", autoescape=True)
                self._clean(connection, kept, identity, column, mine, partial(_error_without, key=key))
            looked = audit.c.action.in_(("hosted.show", "hosted.put", "hosted.remove"))
            mine = looked & audit.c.subject.startswith(f"{dataset}/", autoescape=True)
            self._clean(connection, audit, "audit_id", "detail", mine, partial(_listing_without, key=_spelt(key)))
            done = {"state": "done", "key": "", "waits": "{}", "tried": now, "finished": now}
            connection.execute(update(table).where(table.c.erasure_id == erasure.erasure_id).values(**done))
            self.ledger.audit(connection, actor, "erase.done", erasure.key_fp, json.dumps({"dataset": dataset}))


def _spelt(key: str) -> str:
    """A key as people type it and the audit trail of hosted records has it: several fields with commas between."""
    try:
        parts = json.loads(key) if key.startswith("[") else None
    except ValueError:
        parts = None
    return ",".join(str(part) for part in parts) if isinstance(parts, list) else key


def _error_without(text: str, key: str) -> str:
    """An error's text without a key in the place that it names; numbers elsewhere in it are none."""
    return re.sub(r"(?<=\bkey=)[^\]]*", lambda found: without_key(found[0], key), text)


def _listing_without(text: str, key: str) -> str:
    """What an audit line lists: keys, behind how many they are."""
    counted, colon, keys = text.rpartition(": ")
    return counted + colon + without_key(keys, key)


def without_key(text: str, key: str) -> str:
    """A text in which a key no longer stands as a word of its own; another key that merely contains it stays."""
    found, start = [], 0
    while (at := text.find(key, start)) >= 0:
        end = at + len(key)
        alone = not (_inside(text[at - 1 : at]) or _inside(text[end : end + 1]))
        found.append(text[start:at] + (ERASED if alone else key))
        start = end
    return "".join([*found, text[start:]])


def _inside(letter: str) -> bool:
    return letter.isalnum() or (letter in ("-", "_") and bool(letter))
