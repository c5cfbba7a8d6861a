"""Corrections at a node: what its people ruled, writing what was accepted, and noticing what has settled itself."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, datetime
from functools import cache
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection

from connectors.base import Batch, Connector, Expected, correction_schema, no_keys
from federation.canonical import conform, key_table
from federation.contract import Dataset
from federation.errors import FedsyncError
from federation.failpoints import reached
from federation.ledger.corrections import Correction, Corrections
from federation.proposals import prints_of
from federation.reading import KEY, Reading, only, read_keys
from federation.regions import Region, RegionTree

UNCHANGED = "原值未变，自动采纳 / the value was unchanged: taken over"
AS_PROPOSED = "现值已与建议一致 / the value is as proposed now"
CHANGED = "现值已变，建议失效 / the value changed meanwhile"
GONE = "记录已不存在 / the record is gone"
TAKEN_BACK = "提出方已恢复原值 / taken back where it was raised"
_PRINTS = pa.schema([("key", pa.string()), ("here", pa.bool_()), ("fp_fields", pa.binary())])
"""Of `connectors.base.Expected`, for one proposal."""


def due_date(raised: datetime, days: int) -> date:
    """The last of so many Chinese working days (public holidays and substitute working days considered) after a moment."""
    day: date = _calendar().get_nth_working_day(raised.date(), days)
    return day


@cache
def _calendar() -> Any:
    import holidays

    return holidays.country_holidays("CN")


class Desk:
    """The corrections of one node: comparing them with its data, and showing them to its people."""

    def __init__(
        self, corrections: Corrections, tree: RegionTree, dataset: Dataset, region: Region, secret: bytes
    ) -> None:
        self.corrections = corrections
        self.dataset = dataset
        self.region = region
        self._tree = tree
        self._secret = secret

    def work(self, connector: Connector) -> int:
        """Take up what people ruled here and write what was accepted; returns how many corrections moved on."""
        return self.take_rulings(connector) + self.carry_out(connector)

    def take_rulings(self, connector: Connector) -> int:
        """Enter the rulings that this node's people wrote beside their corrections."""
        if not connector.capabilities.corrections:
            return 0
        waiting = {c.correction_id: c for c in self._standing("waiting")}
        if not waiting:
            return 0
        taken = 0
        for line in connector.rulings().to_pylist():
            correction = waiting.get(line["correction_id"])
            if correction is not None:
                state = "accepted" if line["ruling"] == "accept" else "rejected"
                with self.corrections.ledger.transaction() as connection:
                    self.corrections.settle(connection, correction, state, str(self.region), line["reason"] or "")
                taken += 1
        return taken

    def carry_out(self, connector: Connector) -> int:
        """Write every accepted proposal at this node, which is its authority. Safe to repeat.

        What its people changed since the proposal was made is newer than what was accepted: then it is superseded instead.
        """
        accepted = [c for c in self._standing("accepted") if not c.applied]
        for correction in accepted:
            reached("correction.write.before")
            stands = self._write(connector, correction)
            reached("correction.write.after")
            if stands:
                self.corrections.applied(correction)
            else:
                with self.corrections.ledger.transaction() as connection:
                    self.corrections.settle(connection, correction, "superseded", "engine", CHANGED)
        return len(accepted)

    def check(self, connection: Connection, reading: Reading) -> int:
        """Compare waiting corrections with what was read here: some have settled themselves. Returns how many moved on."""
        waiting = self.corrections.waiting_at(connection, self.dataset.name, self.region.code)
        if not waiting:
            return 0
        rows = pa.concat_tables([reading.rows, reading.outside])
        present = set(rows.column(KEY).to_pylist())
        gone = set(reading.deleted.to_pylist())
        moved = 0
        for correction in waiting:
            here = correction.key in present
            if not here and correction.key not in gone and not reading.complete:
                continue
            names = correction.names
            mine = only(rows, pa.array([correction.key]))
            now = prints_of(mine, self.dataset, names, self._secret)
            moved += self._compare(connection, correction, here, now.get(correction.key))
        return moved

    def taken_back(
        self, connection: Connection, standing: list[Correction], rows: pa.Table, gone: Collection[str]
    ) -> int:
        """End the corrections whose proposal stands at this node no more, though nobody put it back. Returns how many."""
        hold = self.dataset.on_correction == "hold"
        ended = 0
        for correction in standing:
            back = correction.kind == "create" and correction.key in gone
            if hold and correction.kind == "edit":
                now = prints_of(only(rows, pa.array([correction.key])), self.dataset, correction.names, self._secret)
                back = now.get(correction.key) == correction.basis_fp
            if back:
                self.corrections.settle(connection, correction, "withdrawn", "engine", TAKEN_BACK)
                ended += 1
        return ended

    def _compare(self, connection: Connection, correction: Correction, here: bool, now: bytes | None) -> int:
        settle, deletes = self.corrections.settle, correction.kind == "delete"
        if (deletes and not here) or (not deletes and here and now == correction.proposed_fp):
            settle(connection, correction, "accepted", "engine", AS_PROPOSED, applied=True)
        elif (correction.kind == "create" and here) or (
            correction.kind == "edit" and here and now != correction.basis_fp
        ):
            settle(connection, correction, "superseded", "engine", CHANGED)
        elif correction.kind == "carry" and here:
            self.corrections.checked(connection, correction, asked=now)
            if now != correction.basis_fp:
                return 0
            settle(connection, correction, "accepted", "engine", UNCHANGED)
        elif correction.checked or (not here and correction.kind in ("edit", "carry")):
            return 0  # a record that is not here yet may be on its way
        else:
            self.corrections.checked(connection, correction)
            return 0
        return 1

    def shown(self) -> pa.Table:
        """What `Connector.show_corrections` takes: corrections to rule on first, then those raised here."""
        concerned = {c.correction_id: c for c in self._standing("waiting")}
        for correction in self.corrections.raised_by(self.dataset.name, self.region.code):
            concerned.setdefault(correction.correction_id, correction)
        schema = correction_schema(self.dataset)
        if not concerned:
            return schema.empty_table()
        lines = list(concerned.values())
        table = key_table([c.key for c in lines], self.dataset)
        texts = [self._line(correction) for correction in lines]
        for name in schema.names:
            if name not in table.column_names:
                table = table.append_column(name, pa.array([line[name] for line in texts], schema.field(name).type))
        return table.select(schema.names).cast(schema)

    def _line(self, correction: Correction) -> dict[str, Any]:
        opened = self.corrections.open(correction)
        state = shown_state(correction, self.corrections.ledger.clock())
        if correction.target != self.region.code and state in ("waiting", "raised"):
            state = "travelling"

        def lines(values: dict[str, Any]) -> str:
            return "\n".join("" if value is None else str(value) for _, value in sorted(values.items()))

        return {
            "correction_id": correction.correction_id,
            "kind": "edit" if correction.kind == "carry" else correction.kind,
            "field": "\n".join(self.dataset.fields[name].label for name in correction.names),
            "current": lines(opened.current),
            "proposed": lines(opened.proposed),
            "raised_by": str(self._tree.regions.get(correction.raised_by, correction.raised_by)),
            "raised": correction.raised,
            "due": correction.due,
            "state": state,
            "reason": opened.reason,
        }

    def _standing(self, *states: str) -> list[Correction]:
        return self.corrections.at_authority(self.dataset.name, self.region.code, *states)

    def _write(self, connector: Connector, correction: Correction) -> bool:
        """Write one, unless it is there already or the record is gone. False if something else stands there by now."""
        keys = key_table([correction.key], self.dataset)
        if correction.kind == "delete":
            connector.apply(Batch((), keys))
            return True
        held = read_keys(connector, [correction.key])
        rows, now = pa.concat_tables([held.rows, held.outside]), None
        if not rows.num_rows and correction.kind != "create":
            return True  # gone since it was accepted: there is nothing to write to
        if rows.num_rows:
            now = prints_of(rows, self.dataset, correction.names, self._secret).get(correction.key)
            if now == correction.proposed_fp:
                return True
            if correction.kind == "create" or now != (correction.asked_fp or correction.basis_fp):
                return False
        values = self.corrections.open(correction).proposed
        row = proposed_row(values, keys, self.dataset, connector.node.fields)
        ordered = tuple(name for name in self.dataset.fields if name in correction.names)
        print_ = {"key": correction.key, "here": now is not None, "fp_fields": now}
        prints = pa.Table.from_pylist([print_], _PRINTS)
        expected = Expected(prints, {"fields": ordered}, self._secret)
        connector.apply(Batch((row,), no_keys(connector.node), expected=expected))
        return True


def proposed_row(values: dict[str, Any], keys: pa.Table, dataset: Dataset, fields: tuple[str, ...]) -> pa.Table:
    """A sealed proposal as one typed row: the key and those proposed fields that the node holds."""
    names = [name for name in fields if name in values and name not in dataset.key]
    raw = pa.table(
        {name: pa.array([None if values[name] is None else str(values[name])], pa.string()) for name in names}
        | {name: keys.column(name) for name in dataset.key}
    )
    typed = conform(raw, dataset, [*dataset.key, *names], timezone="UTC")
    if typed.rejects.num_rows:
        raise FedsyncError(
            "the proposed value no longer fits the contract",
            "建议值已不符合数据契约",
            todo="驳回后重新提出 / reject it",
        )
    return typed.rows


def shown_state(correction: Correction, now: datetime) -> str:
    """The state as people see it: `overdue` is a waiting one whose term is over, or one that never arrived in time."""
    open_ = correction.state in ("raised", "waiting")
    return "overdue" if open_ and correction.due is not None and now.date() > correction.due else correction.state
