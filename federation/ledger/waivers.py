"""Waivers (豁免): a person lets one version of one record pass one rule until a date, and answers for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import delete, select

from federation.contract import Dataset
from federation.ledger.quarantine import Item, Quarantine
from federation.ledger.schema import waiver as table
from federation.ledger.store import Ledger, rows
from federation.secrets import Keyring


@dataclass(frozen=True)
class Waiver:
    """One row of the ledger's `waiver` table. `until`: the last day, in the federation's time zone; the reason stays sealed."""

    waiver_id: str
    item_id: str
    link_id: str
    dataset: str
    direction: str
    key: str
    rule: str
    waived_by: str
    reason: bytes
    until: date
    at: datetime


class Waivers:
    """All waivers, the lapsed ones included: a record that passed under one is judged again after it."""

    def __init__(self, ledger: Ledger, keyring: Keyring) -> None:
        self.ledger = ledger
        self._keyring = keyring

    def version(self, dataset: Dataset, rule: str, needs: tuple[str, ...], record: Mapping[str, Any]) -> str:
        """Names one version of a record for one rule, alike on every hop: by its key, the fields that the rule needs, and all that
        every level sees."""
        common = {name for name in dataset.fields if set(dataset.visible(name)) == set(dataset.levels)}
        values = {name: record.get(name) for name in sorted({*common, *needs})}
        text = json.dumps(values, ensure_ascii=False, sort_keys=True, default=str)
        return self._keyring.identify("waiver", dataset.name, rule, text)

    def waive(
        self, quarantine: Quarantine, item: Item, version: str, *, by: str, reason: str, until: date, actor: str
    ) -> None:
        """Enter a waiver, replacing one for the same version, and ask the link's next run to read the record again.

        `by`: who answers for it. `actor`: who entered it; both are in the audit trail.
        """
        sealed = self._keyring.encrypt(reason.encode(), version)
        about = {name: getattr(item, name) for name in ("item_id", "link_id", "dataset", "direction", "key", "rule")}
        with self.ledger.transaction() as connection:
            connection.execute(delete(table).where(table.c.waiver_id == version))
            connection.execute(
                table.insert().values(
                    **about, waiver_id=version, waived_by=by, reason=sealed, until=until, at=self.ledger.clock()
                )
            )
            quarantine.ask_again(connection, item)
            detail = json.dumps({"by": by, "until": until.isoformat()}, ensure_ascii=False)
            self.ledger.audit(connection, actor, "quarantine.waive", item.item_id, detail)

    def of_dataset(self, dataset: str) -> list[Waiver]:
        """Every waiver of a dataset's records."""
        with self.ledger.transaction() as connection:
            return [Waiver(**row) for row in rows(connection, select(table).where(table.c.dataset == dataset))]

    def of_item(self, item_id: str) -> list[Waiver]:
        """The waivers that were given to one quarantined record."""
        with self.ledger.transaction() as connection:
            return [Waiver(**row) for row in rows(connection, select(table).where(table.c.item_id == item_id))]

    def reason(self, waiver: Waiver) -> str:
        """Why it was given; for people's eyes only."""
        return self._keyring.decrypt(waiver.reason, waiver.waiver_id).decode()
