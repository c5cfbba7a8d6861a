"""The quality report (质量报告): Great Expectations over each node's whole table, on a schedule.

A gate sees what moves; the report sees what is there, so it also finds what was wrong before a rule was written. It reads a node as
a full read does, within its jurisdiction, runs the dataset's suite and the report's own (`quality_suite`), keeps the counts in the
ledger, and `quality_pages` draws them. It never holds, returns or changes a record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from connectors.base import Changes
from federation.contract import Dataset
from federation.errors import FedsyncError
from federation.federation import Federation
from federation.gate_reason import flat
from federation.gate_suite import Rule
from federation.ledger.quality import Finding, QualityLog
from federation.quality_expectations import Judged, judge, with_check
from federation.quality_suite import read_report
from federation.regions import RegionTree
from federation.services import Services

READABLE = "record_is_readable"
INSIDE = "record_lies_in_jurisdiction"
BUILT_IN = {
    READABLE: ("可读 readable", "critical", "记录能按数据契约读出", "the record can be read as the contract types it"),
    INSIDE: ("属地 jurisdiction", "critical", "记录属于本区划", "the record lies in the node's jurisdiction"),
}
"""What is counted at every node, suite or not: rule → a short name, its severity, and what it asks in Chinese and English."""


@dataclass(frozen=True)
class NodeQuality:
    """One node's report. `judged`: its rules as Great Expectations left them, values included, so they go nowhere but into `cleaned`.

    `errors`: that the node could not be read, or rules that could not be evaluated.
    """

    dataset: str
    region: str
    checked_at: datetime
    rows: int
    findings: tuple[Finding, ...]
    judged: tuple[Judged, ...] = field(repr=False)
    errors: tuple[FedsyncError, ...]

    @property
    def failing(self) -> int:
        """How many rules fail for at least one record."""
        return sum(found.failing > 0 for found in self.findings)


def regions_of(federation: Federation, dataset: str, within: Sequence[str] = ()) -> list[str]:
    """The nodes of a dataset, from the top down; `within`: only these regions and those inside them."""
    tree = federation.config.tree
    wanted = [tree[code] for code in within]
    nodes = [binding.region for binding in federation.config.bindings(federation.config.dataset(dataset).name)]
    return [
        node.code
        for node in nodes
        if not wanted or any(tree.ancestor(node.code, region.level) == region for region in wanted)
    ]


def rules_of(federation: Federation, dataset: Dataset) -> tuple[Rule, ...]:
    """All rules that a dataset is reported by: the gate's, then the report's own."""
    gate = federation.services.gates[dataset.name]
    report = read_report(federation.config, dataset)
    return (*(gate.suite.rules if gate else ()), *(report.rules if report else ()))


def examine(federation: Federation, dataset: str, regions: Sequence[str]) -> Iterator[NodeQuality]:
    """Examine nodes one after the other, enter what was found in the ledger, and forget what is older than it is kept.

    A node that does not answer, or a rule that cannot be evaluated, is told in `errors` and stops no other.
    """
    contract = federation.config.dataset(dataset)
    rules = rules_of(federation, contract)
    log = QualityLog(federation.services.ledger)
    for region in regions:
        found = _node(federation, contract, region, rules)
        if found.findings:
            log.record(dataset, region, found.findings, found.checked_at)
        yield found
    log.prune(dataset, timedelta(days=federation.config.spec.quality.keep_days))


def _node(federation: Federation, dataset: Dataset, region: str, rules: Sequence[Rule]) -> NodeQuality:
    at = federation.services.ledger.clock()
    place = str(federation.config.tree[region])
    try:
        with federation.node(dataset.name, region) as connector:
            changes = connector.changes(None)
        there = set(changes.rows.column_names)
        judged = judge(changes.rows, [rule for rule in rules if there.issuperset(rule.needs)])
        judged = _checked(judged, changes.rows, federation.services, dataset.name, region)
    except FedsyncError as error:
        return NodeQuality(dataset.name, region, at, 0, (), (), (error.at(dataset=dataset.name, region=place),))
    findings = (*_built_in(changes), *(one.finding for one in judged if one.finding is not None))
    faults = tuple(one.fault.at(dataset=dataset.name, region=place) for one in judged if one.fault is not None)
    return NodeQuality(dataset.name, region, at, changes.rows.num_rows, findings, tuple(judged), faults)


@dataclass(frozen=True)
class _Whole:
    """What checks may ask about a node's whole table (`gate_check.Around`)."""

    services: Services
    region: str
    rows: pa.Table

    @property
    def now(self) -> datetime:
        return self.services.now()

    @property
    def tree(self) -> RegionTree:
        return self.services.config.tree

    def exist(self, dataset: str, keys: pa.Array) -> pa.Array:
        return self.services.exist(dataset, self.region, keys)

    def held(self, name: str, values: pa.Array) -> pa.Array:
        held = flat(self.rows.column(name))
        return held.filter(pc.is_in(held, value_set=values))


def _checked(judged: Sequence[Judged], rows: pa.Table, services: Services, dataset: str, region: str) -> list[Judged]:
    """With what the gate's checks say, which Great Expectations knows nothing of."""
    gate = services.gates[dataset]
    around = _Whole(services, region, rows)
    found = []
    for one in judged:
        if gate is not None and one.rule.check is not None and one.result is not None:
            one = with_check(one, len(gate.compiled[one.rule.name].failing(rows, around)))
        found.append(one)
    return found


def _built_in(changes: Changes) -> tuple[Finding, Finding]:
    outside = 0 if changes.outside is None else changes.outside.num_rows
    inside, unreadable = changes.rows.num_rows, changes.rejects.num_rows
    return (
        Finding(READABLE, "critical", inside + outside + unreadable, unreadable),
        Finding(INSIDE, "critical", inside + outside, outside),
    )
