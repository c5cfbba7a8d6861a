"""What a run must remember about single records: faults for the quarantine, proposals for the corrections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from federation.config import Link
from federation.contract import Dataset
from federation.delivery import Judged
from federation.ledger.corrections import Proposal
from federation.ledger.quarantine import Fault
from federation.merge import Plan
from federation.reading import KEY, Reading, only
from federation.regions import Region
from federation.sides import End


def faults_of(link: Link, down: Judged, up: Judged, ends: tuple[End, End]) -> list[Fault]:
    """The records that the gate stopped, in both directions, and those that are not this link's to carry."""
    faults = []
    for direction, judged, end, origin in (("down", down, ends[0], link.upper), ("up", up, ends[1], link.lower)):
        rows = _by_key(only(end.rows, judged.blocked))
        for failure in judged.failures.to_pylist():
            faults.append(_fault(link.id, link.contract.dataset, direction, origin, failure, rows[failure["key"]]))
    for row in ends[1].out_of_scope.to_pylist():
        faults.append(_out_of_scope(link, row))
    return faults


def node_faults(region: Region, dataset: Dataset, reading: Reading) -> list[Fault]:
    """The rows of one node that could not be read."""
    return [
        _fault(
            f"{dataset.name}/{region.code}",
            dataset,
            "read",
            region,
            {**row, "key": row[KEY] or row["locator"] or "?"},
            {"value": row["value"], "locator": row["locator"]},
        )
        for row in reading.rejects.to_pylist()
    ]


def _fault(
    link_id: str, dataset: Dataset, direction: str, origin: Region, failure: dict[str, Any], payload: dict[str, Any]
) -> Fault:
    values = {name: value for name, value in payload.items() if name != KEY}
    return Fault(
        link_id,
        dataset.name,
        direction,
        origin.code,
        failure["key"],
        failure["field"],
        failure["rule"],
        failure["reason_zh"],
        failure["reason_en"],
        values,
    )


def _out_of_scope(link: Link, row: dict[str, Any]) -> Fault:
    dataset = link.contract.dataset
    name = dataset.jurisdiction
    label = dataset.fields[name].label
    failure = {
        "key": row[KEY],
        "field": name,
        "rule": "scope:outside",
        "reason_zh": f"“{label}”为“{row[name]}”，不在{link.lower.name}辖区内",
        "reason_en": f"{name} is {row[name]!r}, which is not within {link.lower.name}",
    }
    return _fault(link.id, dataset, "up", link.lower, failure, row)


def proposals_of(link: Link, plan: Plan, ends: tuple[End, End]) -> Iterator[Proposal]:
    """The corrections that a plan raises, with the proposed and the current values of the fields that differ."""
    raised = " OR ".join(["correction <> ''", *(f"raise_{g.name} <> '' OR lost_{g.name} <> ''" for g in plan.groups)])
    concerned = plan.where(raised)
    if not concerned.num_rows:
        return
    keys = concerned.column("key").combine_chunks()
    held = {"upper": _by_key(only(ends[0].rows, keys)), "lower": _by_key(only(ends[1].rows, keys))}
    for row in concerned.to_pylist():
        if row["correction"]:
            yield _proposal(link, row["key"], row["correction"], row["raised_by"], link.contract.fields, held)
        for group in plan.groups:
            for word, kind in (("raise", "edit"), ("lost", "lost")):
                side = row[f"{word}_{group.name}"]
                if side:
                    yield _proposal(link, row["key"], kind, side, group.fields, held)


def _proposal(
    link: Link, key: str, kind: str, side: str, fields: tuple[str, ...], held: dict[str, dict[str, dict[str, Any]]]
) -> Proposal:
    other = "upper" if side == "lower" else "lower"
    proposed, current = held[side].get(key, {}), held[other].get(key, {})
    differing = [name for name in fields if proposed.get(name) != current.get(name)]
    region = link.upper if side == "upper" else link.lower
    return Proposal(
        link.id,
        link.contract.dataset.name,
        key,
        kind,
        region.code,
        {name: proposed.get(name) for name in differing},
        {name: current.get(name) for name in differing},
    )


def _by_key(rows: pa.Table) -> dict[str, dict[str, Any]]:
    return {row[KEY]: row for row in rows.to_pylist()}
