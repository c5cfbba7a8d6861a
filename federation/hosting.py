"""What the engine keeps for people without a system: seeing it, entering it, taking it out, and handing it over (托管).

Each look at records and each edit leaves a line in the audit trail, with keys and numbers but without values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from connectors.base import Connector, no_rejects
from federation.canonical import LOCATOR, conform, key_column, reject_schema
from federation.config import Binding
from federation.contract import Dataset
from federation.errors import FedsyncError, located
from federation.handover import Existing, HandedOver, HostedPart, hand_over
from federation.services import Services

_NAMED = 20
"""So many keys stand in a line of the audit trail."""


class Places(Protocol):
    """Opens what the engine hosts: `federation.runtime.Opener`."""

    def kept(self, binding: Binding) -> HostedPart | None:
        """What the engine keeps of a node: all of it, or the fields that its system lacks; None if it keeps nothing."""

    def left(self, binding: Binding) -> Sequence[HostedPart]:
        """What the engine still keeps of a node though its system keeps it by now."""

    def hosted_nodes(self) -> Iterator[HostedPart]:
        """Every part of a node that the engine keeps or has left."""

    def unguarded(self, binding: Binding) -> Connector:
        """A node's system without its level's guard."""


@dataclass(frozen=True)
class Entered:
    """What became of rows that people entered: how many were taken, and the others with the reason (`canonical.REJECTS`)."""

    taken: int
    rejects: pa.Table


class Hosting:
    """The hosted records of a federation. `actor`: who asks, for the audit trail."""

    def __init__(self, services: Services, places: Places, actor: str) -> None:
        self.services = services
        self.config = services.config
        self._places = places
        self._actor = actor

    def records(self, dataset: str, region: str) -> pa.Table:
        """All records of a node, typed; of a system that lacks fields, these with the key."""
        rows = self._kept_or_left(dataset, region).changes(None).rows
        self._audit("hosted.list", dataset, region, f"{rows.num_rows} records")
        return rows.sort_by([(name, "ascending") for name in self.config.dataset(dataset).key])

    def record(self, dataset: str, region: str, key: Sequence[str]) -> dict[str, Any]:
        """One record. Raises FedsyncError if there is none."""
        part = self._kept_or_left(dataset, region)
        found = part.fetch(self._key(dataset, region, key)).rows.to_pylist()
        if not found:
            raise _no_record(dataset, region, key)
        self._audit("hosted.show", dataset, region, ",".join(key))
        record: dict[str, Any] = found[0]
        return record

    def returned(self, dataset: str, region: str) -> list[dict[str, Any]]:
        """What was handed back to a node's people, the oldest first (`HostedConnector.returned`)."""
        lines = self._kept_or_left(dataset, region).returned()
        self._audit("hosted.returns", dataset, region, f"{len(lines)} returns")
        return lines

    def put(self, dataset: str, region: str, raw: pa.Table) -> Entered:
        """Insert or update rows of text, columns named after fields; only these are touched. What cannot be is told, the rest goes in.

        A new record of the dataset's lowest level needs no jurisdiction: it is the region's own.
        """
        binding = self.config.binding(dataset, region)
        part = self._places.kept(binding)
        if part is None:
            raise FedsyncError(
                f"{binding.region} keeps its records in its own system",
                f"{binding.region} 的数据由其业务系统保存",
                todo=f"在系统 {binding.system} 中修改 / edit them there",
                dataset=dataset,
                region=region,
            )
        self._refuse_unknown(binding, part, raw)
        self._made_ready(binding, part)
        names = [name for name in part.node.fields if name in raw.column_names]
        typed = conform(raw, binding.dataset, names, timezone=part.node.timezone)
        rows, strays = self._placed(binding, part, typed.rows.append_column(LOCATOR, _where(raw, typed.rejects)))
        taken = 0
        for table in rows:
            part.edit(table)
            taken += table.num_rows
        keys = [key for table in rows for key in key_column(table, binding.dataset).to_pylist()]
        more = " …" if len(keys) > _NAMED else ""
        self._audit("hosted.put", dataset, region, f"{taken} records: {', '.join(keys[:_NAMED])}{more}")
        return Entered(taken, pa.concat_tables([typed.rejects, strays]))

    def remove(self, dataset: str, region: str, key: Sequence[str]) -> None:
        """Delete one record. Raises FedsyncError if there is none."""
        part = self._kept_or_left(dataset, region)
        wanted = self._key(dataset, region, key)
        with located(dataset=dataset, region=region):
            present = part.changes(None, sweep=True).present
        assert present is not None
        if not present.join(wanted, wanted.column_names, join_type="left semi").num_rows:
            raise _no_record(dataset, region, key)
        part.remove(wanted)
        self._audit("hosted.remove", dataset, region, ",".join(key))

    def hand_over(self, dataset: str, region: str, existing: Existing) -> list[HandedOver]:
        """Hand over to the node's system, made ready, what the engine hosted before it was declared. Empty if nothing is left."""
        binding = self.config.binding(dataset, region)
        done = []
        with self._open(binding) as system:
            system.prepare()
            for part in self._places.left(binding):
                what = "records" if part.whole else "fields"

                def verified(handed: HandedOver, what: str = what) -> None:
                    told = f"{handed.rows} {what} to {binding.system}, {handed.written} written, digest {handed.digest}"
                    self._audit("hosted.handover", dataset, region, told)

                done.append(hand_over(part, system, existing, verified))
        return done

    def rekey(self) -> int:
        """Seal with the newest secret what older ones sealed; how many records that were."""
        count = sum(part.rekey() for part in self._places.hosted_nodes())
        with self.services.ledger.transaction() as connection:
            self.services.ledger.audit(connection, self._actor, "hosted.rekey", "", f"{count} records")
        return count

    # --- within

    @contextmanager
    def _open(self, binding: Binding) -> Iterator[Connector]:
        with ExitStack() as closing, located(dataset=binding.dataset.name, region=str(binding.region)):
            system = self._places.unguarded(binding)
            closing.callback(system.close)
            yield system

    def _kept_or_left(self, dataset: str, region: str) -> HostedPart:
        binding = self.config.binding(dataset, region)
        parts = [*self._places.left(binding)]
        kept = self._places.kept(binding)
        if kept is not None and (not parts or not parts[0].whole):
            self._made_ready(binding, kept)
            return kept
        if parts:
            return parts[0]
        raise FedsyncError(
            f"the engine hosts nothing for {binding.region}: its records are in its own system",
            f"引擎未为 {binding.region} 托管数据：其数据在自有系统中",
            todo=f"在系统 {binding.system} 中查看 / look there",
            dataset=dataset,
            region=region,
        )

    def _made_ready(self, binding: Binding, part: HostedPart) -> None:
        """Prepare a part that was never synced. One that was, and is not there any more, is lost, and must not look empty."""
        dataset, region = binding.dataset, binding.region.code
        links = [link.id for link in self.config.links(dataset.name, region)]
        links += [f"{dataset.name}/{region}"] if dataset.upper_of(binding.region.level) else []
        if all(state.last_ok is None for state in self.services.links.states(links).values()):
            part.prepare()

    def _key(self, dataset: str, region: str, key: Sequence[str]) -> pa.Table:
        contract = self.config.dataset(dataset)
        raw = pa.table({name: [value] for name, value in zip(contract.key, key)})
        typed = conform(raw, contract, contract.key, timezone=self.config.spec.timezone)
        if len(key) != len(contract.key) or not typed.rows.num_rows:
            labels = "、".join(contract.fields[name].label for name in contract.key)
            raise FedsyncError(
                f"the key of {dataset} is: {', '.join(contract.key)}",
                f"{dataset} 的主键为：{labels}",
                todo="按此顺序写出各主键值 / write its values in this order",
                dataset=dataset,
                region=region,
                key=",".join(key),
            )
        return typed.rows

    def _refuse_unknown(self, binding: Binding, part: HostedPart, raw: pa.Table) -> None:
        fields = part.node.fields
        strange = [name for name in raw.column_names if name not in fields and name != LOCATOR]
        lost = [name for name in binding.dataset.key if name not in raw.column_names]
        if not strange and not lost:
            return
        known = ", ".join(f"{name}（{binding.dataset.fields[name].label}）" for name in fields)
        raise FedsyncError(
            f"no field of this node: {', '.join(strange)}" if strange else f"the key is wanting: {', '.join(lost)}",
            f"本节点没有字段：{'、'.join(strange)}" if strange else f"缺少主键：{'、'.join(lost)}",
            todo=f"取值 / one of: {known}",
            dataset=binding.dataset.name,
            region=str(binding.region),
        )

    def _placed(self, binding: Binding, part: HostedPart, rows: pa.Table) -> tuple[list[pa.Table], pa.Table]:
        """The rows that may be written, those that need the region's own jurisdiction first; the others as rejects."""
        dataset, name = binding.dataset, binding.dataset.jurisdiction
        if not part.whole or not rows.num_rows:
            return [rows.drop_columns([LOCATOR])], no_rejects(part.node)
        held = pc.invert(pc.is_in(key_column(rows, dataset), key_column(part.fetch(rows).deleted, dataset)))
        given = (
            rows.column(name).combine_chunks() if name in rows.column_names else pa.nulls(rows.num_rows, pa.string())
        )
        lowest = dataset.lower_of(binding.region.level) is None
        own = pc.and_(pc.is_null(given), pc.invert(held))
        codes = pc.if_else(own, pa.scalar(binding.region.code), given) if lowest else given
        routes = self.config.tree.routes(binding.region.level)
        inside = [routes.get(code or "") == binding.region.code for code in codes.to_pylist()]
        untouched = name not in rows.column_names
        known = [code in self.config.tree if code is not None else untouched for code in codes.to_pylist()]
        fine = pc.or_(pc.and_(held, pa.array(known)), pa.array(inside))
        rejects = _strays(binding, rows.filter(pc.invert(fine)), codes.filter(pc.invert(fine)))
        rows = rows.drop_columns([LOCATOR])
        fresh = rows.filter(pc.and_(own, fine))
        if fresh.num_rows:
            there = fresh.drop_columns([name]) if name in fresh.column_names else fresh
            fresh = there.append_column(name, pa.array([binding.region.code] * fresh.num_rows, pa.string()))
        return [table for table in (fresh, rows.filter(pc.and_(pc.invert(own), fine))) if table.num_rows], rejects

    def _audit(self, action: str, dataset: str, region: str, detail: str) -> None:
        with self.services.ledger.transaction() as connection:
            self.services.ledger.audit(connection, self._actor, action, f"{dataset}/{region}", detail)


def _where(raw: pa.Table, rejects: pa.Table) -> pa.Array:
    """Where each row that was typed stands, in their order: those that were not are told in the rejects."""
    if LOCATOR not in raw.column_names:
        return pa.nulls(raw.num_rows - rejects.num_rows, pa.string())
    locators = raw.column(LOCATOR).combine_chunks()
    return locators.filter(pc.invert(pc.is_in(locators, rejects.column("locator").combine_chunks())))


def _strays(binding: Binding, rows: pa.Table, codes: pa.Array) -> pa.Table:
    """Rejects for records of another jurisdiction, or of none."""
    dataset: Dataset = binding.dataset
    label = dataset.fields[dataset.jurisdiction].label
    lines = []
    for row, code in zip(rows.to_pylist(), codes.to_pylist()):
        zh = f"“{label}”须为 {binding.region} 或其下级的代码，现为“{code or ''}”"
        en = f"{dataset.jurisdiction} must be the code of {binding.region} or of a region in it, it is {code!r}"
        about = {
            "field": dataset.jurisdiction,
            "value": code,
            "rule": "scope:outside",
            "reason_zh": zh,
            "reason_en": en,
        }
        lines.append({**{name: row[name] for name in dataset.key}, "locator": row[LOCATOR], **about})
    return pa.Table.from_pylist(lines, reject_schema(dataset))


def _no_record(dataset: str, region: str, key: Sequence[str]) -> FedsyncError:
    return FedsyncError(
        "there is no such record",
        "没有这条记录",
        todo=f"fedsync hosted list {dataset} {region}",
        dataset=dataset,
        region=region,
        key=",".join(key),
    )
