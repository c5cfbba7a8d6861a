"""What waivers mean for a verdict: a version of a record that one covers passes, and is judged again once it has lapsed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from federation.gate import CRITICAL, Gate, Verdict
from federation.gate_check import Around
from federation.ledger.waivers import Waiver, Waivers
from federation.reading import KEY, only

WAIVED = "waived"
"""The severity of a failure that a waiver covers: the record moves, marked."""


@dataclass(frozen=True)
class Waiving:
    """The waivers of one gate's dataset, on one day."""

    gate: Gate
    ledger: Waivers
    standing: Sequence[Waiver]
    today: date

    @cached_property
    def _valid(self) -> set[str]:
        return {waiver.waiver_id for waiver in self.standing if waiver.until >= self.today}

    def softened(self, verdict: Verdict, rows: pa.Table) -> Verdict:
        """The verdict, with `waived` for every critical failure that is covered. `rows`: those judged, with their key."""
        named = {(waiver.key, waiver.rule) for waiver in self.standing if waiver.waiver_id in self._valid}
        if not named or not verdict.failures.num_rows:
            return verdict
        keys = pc.take(rows.column(KEY).combine_chunks(), verdict.failures.column("row"))
        listed = zip(keys.to_pylist(), verdict.failures.column("rule").to_pylist())
        severities = verdict.failures.column("severity").to_pylist()
        for line, name in enumerate(listed):
            if name in named and severities[line] == CRITICAL:
                row = rows.slice(verdict.failures.column("row")[line].as_py(), 1)
                if self._version(name[1], row) in self._valid:
                    severities[line] = WAIVED
        place = verdict.failures.column_names.index("severity")
        return replace(
            verdict, failures=verdict.failures.set_column(place, "severity", pa.array(severities, pa.string()))
        )

    def lapsed(self, link_id: str, direction: str, rows: pa.Table, around: Around) -> pa.Table:
        """The failures of versions that passed under a waiver which is over: of `rows` (with their key), moving or not."""
        over = {
            (waiver.key, waiver.rule): waiver.waiver_id
            for waiver in self.standing
            if waiver.until < self.today and (waiver.link_id, waiver.direction) == (link_id, direction)
        }
        rows = only(rows, pa.array(sorted({key for key, _ in over}), pa.string()))
        failures = self.gate.check(rows.drop_columns([KEY]), None, around).failures
        keys = pc.take(rows.column(KEY).combine_chunks(), failures.column("row"))
        listed = zip(keys.to_pylist(), failures.column("rule").to_pylist(), failures.column("row").to_pylist())
        again = [
            (key, rule) in over and self._version(rule, rows.slice(row, 1)) == over[key, rule]
            for key, rule, row in listed
        ]
        return failures.append_column("key", keys).filter(pa.array(again, pa.bool_()))

    def _version(self, rule: str, row: pa.Table) -> str:
        needs = self.gate.suite.by_name[rule].needs
        return self.ledger.version(self.gate.dataset, rule, needs, row.to_pylist()[0])
