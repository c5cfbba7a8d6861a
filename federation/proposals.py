"""What a run must remember about single records: faults for the quarantine, proposals for the corrections, contested claims."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from federation.canonical import fingerprints, regions_of
from federation.config import Link
from federation.contract import SHARED, Dataset, Group
from federation.delivery import Judged
from federation.journey import authority, entitled
from federation.ledger.contests import Claim
from federation.ledger.corrections import Proposal
from federation.ledger.quarantine import Fault
from federation.merge import Plan
from federation.reading import KEY, Reading, only
from federation.regions import Region, RegionTree
from federation.sides import End

if TYPE_CHECKING:
    from federation.returning import Origins


def faults_of(
    link: Link,
    down: Judged,
    up: Judged,
    ends: tuple[End, End],
    plan: Plan,
    refused: Collection[str],
    origins: Origins,
) -> list[Fault]:
    """The records that the gate stopped, or would stop by now, in both directions; those that are not this link's; lost claims."""
    faults = []
    for direction, judged, end in (("down", down, ends[0]), ("up", up, ends[1])):
        again = judged.lapsed.filter(pc.invert(pc.is_in(judged.lapsed.column("key"), judged.blocked)))
        rows = _by_key(only(end.rows, pa.concat_arrays([judged.blocked, *again.column("key").chunks])))
        for failure in (*judged.failures.to_pylist(), *again.to_pylist()):
            row, rule = rows[failure["key"]], failure["rule"]
            origin, quoted = origins.of(direction, rule, row), origins.quoted(rule)
            faults.append(_fault(link.id, link.contract.dataset, direction, origin, failure, row, quoted))
    for row in ends[1].out_of_scope.to_pylist():
        faults.append(_out_of_scope(link, row))
    contested = [key for key in plan.acting("contest").to_pylist() if key in refused]
    for row in only(ends[1].rows, pa.array(contested, pa.string())).to_pylist():
        faults.append(_refused(link, row))
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
    link_id: str,
    dataset: Dataset,
    direction: str,
    origin: Region,
    failure: dict[str, Any],
    payload: dict[str, Any],
    fields: tuple[str, ...] = (),
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
        fields,
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


def _refused(link: Link, row: dict[str, Any]) -> Fault:
    dataset = link.contract.dataset
    failure = {
        "key": row[KEY],
        "field": dataset.key[0],
        "rule": "contest:refused",
        "reason_zh": f"“{row[KEY]}”已判归其他单位，请更换“{dataset.fields[dataset.key[0]].label}”或删除本行",
        "reason_en": f"{row[KEY]} was awarded to another region: give this record another key, or delete it",
    }
    return _fault(link.id, dataset, "up", link.lower, failure, row)


def claims_of(link: Link, tree: RegionTree, plan: Plan, ends: tuple[End, End]) -> Iterator[Claim]:
    """The contested keys of a plan: the parent holds another child's record under a key that the lower end claims."""
    keys = plan.acting("contest")
    if not len(keys):
        return
    dataset = link.contract.dataset
    above = only(ends[0].rows, keys)
    owners = dict(
        zip(
            above.column(KEY).to_pylist(),
            regions_of(above.column(dataset.jurisdiction), tree.routes(link.lower.level)).to_pylist(),
        )
    )
    held, claimed = _by_key(above), _by_key(only(ends[1].rows, keys))
    for key in keys.to_pylist():
        incumbent = owners.get(key) or str(held[key][dataset.jurisdiction])
        records = [{name: value for name, value in side[key].items() if name != KEY} for side in (held, claimed)]
        yield Claim(dataset.name, key, link.id, link.upper.code, incumbent, link.lower.code, *records)


@dataclass(frozen=True)
class Proposer:
    """Turns a plan's decisions into proposals. `destinations`: records that moved away → their new jurisdiction."""

    link: Link
    tree: RegionTree
    secret: bytes
    destinations: Mapping[str, str | None]

    def proposals(self, plan: Plan, ends: tuple[End, End]) -> list[Proposal]:
        """Everything that a plan raises, carries or lets lose."""
        words = " OR ".join(f"raise_{g.name} <> '' OR lost_{g.name} <> '' OR carry_{g.name} <> ''" for g in plan.groups)
        concerned = plan.where(f"correction <> '' OR {words}")
        if not concerned.num_rows:
            return []
        keys = concerned.column("key").combine_chunks()
        tables = {"upper": only(ends[0].rows, keys), "lower": only(ends[1].rows, keys)}
        held = {side: _by_key(rows) for side, rows in tables.items()}
        prints = _Prints(tables, self.link.contract.dataset, self.secret)
        found = []
        for row in concerned.to_pylist():
            rows = {side: held[side].get(row["key"], {}) for side in held}
            if row["correction"]:
                found.append(self._of_row(row, rows, prints))
            for group in plan.groups:
                for word, kind in (("raise", "edit"), ("lost", "lost"), ("carry", "carry")):
                    if side := row[f"{word}_{group.name}"]:
                        found.append(self._of_group(row, group, kind, side, rows, prints))
        return found

    def _of_row(self, row: dict[str, Any], rows: dict[str, dict[str, Any]], prints: _Prints) -> Proposal:
        """A creation or deletion by somebody not entitled to it."""
        dataset, side, kind = self.link.contract.dataset, row["raised_by"], row["correction"]
        region = self.link.upper if side == "upper" else self.link.lower
        level = entitled(dataset, "originates" if kind == "create" else "retires", region.level)
        known = rows[side] or rows[_other(side)]
        target = authority(self.tree, dataset, level, region.code, known.get(dataset.jurisdiction))
        fields = tuple(name for name in self.link.contract.fields if name not in dataset.key)
        proposed = {name: rows[side].get(name) for name in fields} if kind == "create" else {}
        print_ = prints.of(side, row["key"], fields) if kind == "create" else None
        return self._proposal(row["key"], kind, region, target, None, proposed, {}, print_, None, None)

    def _of_group(
        self,
        row: dict[str, Any],
        group: Group,
        kind: str,
        side: str,
        rows: dict[str, dict[str, Any]],
        prints: _Prints,
    ) -> Proposal:
        dataset, key = self.link.contract.dataset, row["key"]
        region = self.link.upper if side == "upper" else self.link.lower
        proposed, current = rows[side], rows[_other(side)]
        if kind == "carry":
            level = region.level if group.authority == SHARED else group.authority
            place = (
                current.get(dataset.jurisdiction) or self.destinations.get(key) or proposed.get(dataset.jurisdiction)
            )
            found = self.tree.ancestor(str(place), level)
            target = found.code if found else region.code
            fields = group.fields
            fps = row[f"{side}_{group.name}"], row[f"base_{group.name}"]
        else:
            place = proposed.get(dataset.jurisdiction) if side == "lower" else current.get(dataset.jurisdiction)
            target = authority(self.tree, dataset, group.authority, region.code, place)
            fields = tuple(name for name in group.fields if proposed.get(name) != current.get(name)) or group.fields
            fps = prints.of(side, key, fields), prints.of(_other(side), key, fields)
        values = {name: proposed.get(name) for name in fields}
        instead = {name: current.get(name) for name in fields}
        whole = row[f"{side}_{group.name}"]
        return self._proposal(key, kind, region, target, group.name, values, instead, fps[0], fps[1], whole)

    def _proposal(
        self,
        key: str,
        kind: str,
        region: Region,
        target: str,
        group: str | None,
        proposed: dict[str, Any],
        current: dict[str, Any],
        proposed_fp: bytes | None,
        basis_fp: bytes | None,
        group_fp: bytes | None,
    ) -> Proposal:
        dataset = self.link.contract.dataset.name
        about = (self.link.id, dataset, key, kind, region.code, target, group)
        return Proposal(*about, proposed, current, proposed_fp, basis_fp, group_fp)


class _Prints:
    """Fingerprints of chosen fields of single rows, worked out once per set of fields."""

    def __init__(self, tables: dict[str, pa.Table], dataset: Dataset, secret: bytes) -> None:
        self._tables, self._dataset, self._secret = tables, dataset, secret
        self._found: dict[tuple[str, tuple[str, ...]], dict[str, bytes]] = {}

    def of(self, side: str, key: str, fields: tuple[str, ...]) -> bytes | None:
        place = (side, fields)
        if place not in self._found:
            self._found[place] = prints_of(self._tables[side], self._dataset, fields, self._secret)
        return self._found[place].get(key)


def prints_of(rows: pa.Table, dataset: Dataset, fields: tuple[str, ...], secret: bytes) -> dict[str, bytes]:
    """Key → fingerprint of these fields, in the contract's order; nothing where the node does not hold all of them."""
    ordered = tuple(name for name in dataset.fields if name in fields)
    if not ordered or not rows.num_rows or not set(ordered) <= set(rows.column_names):
        return {}
    hashed = fingerprints(rows, dataset, {"fields": ordered}, secret)
    return dict(zip(hashed.column("key").to_pylist(), hashed.column("fp_fields").to_pylist()))


def _other(side: str) -> str:
    return "upper" if side == "lower" else "lower"


def _by_key(rows: pa.Table) -> dict[str, dict[str, Any]]:
    return {row[KEY]: row for row in rows.to_pylist()}
