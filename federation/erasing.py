"""Erasing (删除) one person's record from the whole federation, as the Personal Information Protection Law demands.

The record is deleted where a level may retire it, and the links carry that on as they carry any deletion, with tombstones, so that it
does not come back. What no link knows of (a stray copy, a contested one, a row that cannot be read) is deleted where it stands. What
the engine itself keeps (quarantine, corrections, contests, waivers, staged readings, hosted records) is emptied, and what people were
shown of it is shown anew without it. A node that does not answer, or is paused, leaves the erasure pending: it may be tried any number
of times, and is finished by the first attempt that finds the record nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import pyarrow as pa

from connectors.base import Batch
from federation.canonical import key_table
from federation.config import Link
from federation.errors import FedsyncError, SchemaMismatch
from federation.federation import Federation
from federation.ledger.baselines import Manifest
from federation.ledger.erasures import Erasure, Erasures
from federation.unshowing import show_anew

AT_ONCE = 8
"""Nodes that are asked at the same time."""


class Hosted(Protocol):
    """A part of a node that the engine keeps: `connectors.hosted.HostedConnector`."""

    def erase(self, keys: pa.Table) -> None:
        """Delete records, and the markers of their deletion."""


class Places(Protocol):
    """Opens what the engine hosts: `federation.runtime.Opener`."""

    def kept_of(self, dataset: str) -> Iterator[Hosted]:
        """Every part that the engine keeps, or has left, of a dataset's nodes."""


class Eraser:
    """Erases records. `actor`: who runs it, for the audit trail."""

    def __init__(self, federation: Federation, places: Places, actor: str) -> None:
        self.federation = federation
        self.services = federation.services
        self.config = federation.config
        self.erasures = Erasures(self.services.ledger, self.services.keyring)
        self._places = places
        self._actor = actor

    def erase(self, dataset: str, key: str, *, reason: str, by: str) -> Erasure:
        """Erase the record with this key (as text). Returns the erasure, `done` or `pending` with what it waits for.

        A record that was erased before and is nowhere again: that erasure. Raises FedsyncError if the key is none of the dataset's, or
        if all nodes answered and nobody ever knew the record.
        """
        contract = self.config.dataset(dataset)
        if not reason.strip() or not by.strip():
            raise FedsyncError(
                "say why, and who answers for it", "须写明原因与负责人", todo="--reason --by", dataset=dataset
            )
        if any(column.null_count for column in key_table([key], contract).columns):
            labels = "、".join(contract.fields[name].label for name in contract.key)
            raise FedsyncError(
                f"this is no key of {dataset} ({', '.join(contract.key)})",
                f"这不是 {dataset} 的主键（{labels}）",
                todo="主键由多个字段组成时写成 JSON 数组 / a key of several fields is written as a JSON list",
                dataset=dataset,
            )
        asked = self.erasures.ask(dataset, key, reason=reason.strip(), by=by.strip(), actor=self._actor)
        return self._attempt(asked)

    def finish(self) -> list[Erasure]:
        """Try every pending erasure again."""
        return [self._attempt(one) for one in self.erasures.all("pending")]

    def _attempt(self, erasure: Erasure) -> Erasure:
        dataset, key = erasure.dataset, erasure.key
        self.services.staging.discard(self.config.dataset(dataset), key)
        holders, waits = self._holders(dataset, key, [binding.region.code for binding in self.config.bindings(dataset)])
        links = self._knowing(dataset, key, holders)
        if not holders and not links and not waits and not erasure.waits_for and not self._known(dataset, key):
            self.erasures.withdraw(erasure, self._actor)
            before = [one for one in self.erasures.all("done") if one.key_fp == erasure.key_fp]
            if before:
                return before[-1]
            raise FedsyncError(
                "no node holds this record, and the ledger knows nothing of it",
                "没有任何节点持有该记录，台账中也无其痕迹",
                todo="核对主键 / look at the key",
                dataset=dataset,
            )
        shown = self.erasures.purge(dataset, key) | {name for name in erasure.waits_for if name in self.config.tree}
        waits |= self._delete(dataset, key, [code for code in holders if self._entitled(dataset, code)])
        waits |= self._carry_on(dataset, key, links)
        holders, missed = self._holders(dataset, key, holders)
        waits |= missed
        if holders and not waits:
            # What no link could act on: unreadable, contested, stray. It is deleted where it stands, and then forgotten by its links.
            waits |= self._delete(dataset, key, holders)
            waits |= self._carry_on(dataset, key, links)
            holders, missed = self._holders(dataset, key, holders)
            waits |= missed
        self.services.staging.discard(self.config.dataset(dataset), key)
        shown |= self.erasures.purge(dataset, key)  # the runs may have logged what gave way
        waits |= show_anew(self.federation, dataset, sorted(shown))
        waits |= {code: "仍持有该记录 / still holds the record" for code in holders if code not in waits}
        left = [link.id for link in self._knowing(dataset, key, holders)]
        waits |= {name: "尚未结算 / has not settled" for name in left if name not in waits}
        if waits:
            self.erasures.tried(erasure, waits)
        else:
            for part in self._places.kept_of(dataset):
                part.erase(key_table([key], self.config.dataset(dataset)))
            self.erasures.finish(erasure, self._actor)
        return self.erasures.find(erasure.erasure_id)

    def _entitled(self, dataset: str, code: str) -> bool:
        return self.config.dataset(dataset).may_retire(self.config.tree[code].level)

    def _holders(self, dataset: str, key: str, regions: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """Which of these nodes hold the record, top down; and those that could not be asked → why."""
        paused, wanted = self.services.paused(), pa.array([key], pa.string())

        def ask(code: str) -> bool | str:
            pause = paused.node(dataset, code)
            if pause is not None:
                return str(pause)
            try:
                return bool(len(self.services.present(dataset, code, wanted)))
            except SchemaMismatch as error:
                return False if self._never_synced(dataset, code) else str(error)
            except FedsyncError as error:
                return str(error)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = dict(zip(regions, pool.map(ask, regions)))
        found = [code for code, answer in answers.items() if answer is True]
        return found, {code: answer for code, answer in answers.items() if isinstance(answer, str)}

    def _never_synced(self, dataset: str, code: str) -> bool:
        """Whether a node was never prepared, so that it may lack the very table."""
        states = self.services.links.states([link.id for link in self._touching(dataset, code)])
        return all(state.last_ok is None for state in states.values())

    def _touching(self, dataset: str, code: str) -> list[Link]:
        contract = self.config.dataset(dataset)
        above = [self.config.link(dataset, code)] if contract.upper_of(self.config.tree[code].level) else []
        return [*above, *self.config.links(dataset, code)]

    def _knowing(self, dataset: str, key: str, holders: Sequence[str]) -> list[Link]:
        """The links that agreed on the record, or were about to, top down; and, while nodes hold it, those between two of them."""
        wanted, held = pa.array([key], pa.string()), set(holders)
        states = self.services.links.all(dataset)
        baselines = self.services.baselines
        found = []
        for link in self.config.all_links(dataset):
            state = states.get(link.id)
            known = state is not None and (
                state.intent is not None or baselines.pick(Manifest.parse(state.baseline), {}, wanted).num_rows > 0
            )
            if known or {link.upper.code, link.lower.code} <= held:
                found.append(link)
        return found

    def _known(self, dataset: str, key: str) -> bool:
        services = self.services
        told = (services.tombstones.about(dataset, key), services.corrections.about(dataset, key))
        aside = services.quarantine.open_items(dataset=dataset, key=key)
        return any((*told, services.contests.about(dataset, key), aside))

    def _delete(self, dataset: str, key: str, holders: Sequence[str]) -> dict[str, str]:
        """Delete the record at these nodes; where that failed, why."""
        failed: dict[str, str] = {}
        for code in holders:
            try:
                with self.federation.node(dataset, code) as connector:
                    connector.apply(Batch((), key_table([key], self.config.dataset(dataset))))
            except FedsyncError as error:
                failed[code] = str(error)
        return failed

    def _carry_on(self, dataset: str, key: str, links: Sequence[Link]) -> dict[str, str]:
        """Run the links that know the record, down and up, each reading it anew at both ends; what failed, or was skipped."""
        failed: dict[str, str] = {}
        for order in (links, links[::-1]):
            failed = {}
            for link in order:
                self.services.waiting.ask(link.id, key)
                try:
                    outcomes, errors = self.federation.sync_children(dataset, link.upper.code, [link.lower.code], None)
                except FedsyncError as error:
                    failed[link.id] = str(error)
                    continue
                failed |= {name: str(error) for name, error in errors.items()}
                failed |= {outcome.link_id: outcome.skipped for outcome in outcomes if outcome.skipped is not None}
        return failed
