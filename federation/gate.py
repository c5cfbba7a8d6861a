"""The gate (质量门): a suite's rules on exactly the records about to move.

Rules of the known kinds are compiled to vectorised masks (`gate_compile`); the others run in Great Expectations itself
(`gate_expectations`). Both give the same verdict on the same rows. Deciding what becomes of a failing record is the link's
work: `critical` quarantines it, `warning` and `info` let it pass, marked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from federation import canonical
from federation.contract import Dataset
from federation.errors import DeclarationError, GateError
from federation.gate_check import Around
from federation.gate_compile import Compiled, compile_rule
from federation.gate_condition import condition_text
from federation.gate_reason import as_text
from federation.gate_suite import Rule, Suite, faulty, read_suite

CRITICAL = "critical"
_THREADED_FROM = 100_000
"""Rows from which judging two rules at once saves more than it costs."""


@dataclass(frozen=True)
class RulePlan:
    """How one rule is evaluated, for people. `why`: what keeps it from being compiled; empty if it is.

    `check`: the check beside it, which Great Expectations would not judge; `condition`: on which rows, as declared; the reasons as
    declared, with their placeholders.
    """

    rule: str
    columns: tuple[str, ...]
    severity: str
    runs: Literal["compiled", "great_expectations"]
    why: str
    check: str
    condition: str
    reason_zh: str
    reason_en: str


@dataclass(frozen=True)
class Verdict:
    """What the gate found.

    `failures`: one line per failing row and rule: the key columns, `canonical.REJECTS` (`locator` is null; `value` is that of
    `field`, the rule's first), `severity`, and `row`, the number of the row in the rows given; ordered by row, then by the
    suite's order. `rows`: how many rows were judged.
    """

    failures: pa.Table
    rows: int

    def critical(self) -> pa.Array:
        """Per row, whether a critical rule fails."""
        return self._mask(pc.equal(self.failures.column("severity"), CRITICAL))

    def failing(self) -> pa.Array:
        """Per row, whether any rule fails."""
        return self._mask(pc.is_valid(self.failures.column("row")))

    def _mask(self, lines: pa.ChunkedArray) -> pa.Array:
        mask = np.zeros(self.rows, dtype=bool)
        mask[self.failures.column("row").filter(lines).to_numpy()] = True
        return pa.array(mask)


@dataclass(frozen=True)
class Gate:
    """One dataset's suite, ready to judge. Safe to share between threads; nothing is kept between calls."""

    suite: Suite
    dataset: Dataset
    compiled: dict[str, Compiled]
    why_not: dict[str, str]
    timezone: str

    @classmethod
    def load(
        cls,
        path: Path,
        dataset: Dataset,
        *,
        timezone: str = "Asia/Shanghai",
        datasets: Mapping[str, Dataset] | None = None,
    ) -> Gate:
        """Read a suite and compile what can be. Raises DeclarationError that lists every faulty rule, with the file.

        `timezone`: in which reasons show times. `datasets`: all of the federation, to check references. Never imports Great
        Expectations.
        """
        suite = read_suite(path, dataset, datasets)
        compiled: dict[str, Compiled] = {}
        why_not: dict[str, str] = {}
        problems: list[DeclarationError] = []
        for rule in suite.rules:
            try:
                result = compile_rule(rule, dataset)
            except DeclarationError as error:
                error.at(file=path, dataset=dataset.name, rule=rule.name)
                problems.append(error)
                continue
            if isinstance(result, str):
                why_not[rule.name] = result
            else:
                compiled[rule.name] = result
        if problems:
            raise faulty(path, dataset, problems)
        return cls(suite, dataset, compiled, why_not, timezone)

    @property
    def identity(self) -> str:
        """sha256 of the suite's content; part of a checkpoint's identity, so that new rules judge every record again."""
        return self.suite.identity

    @property
    def max_failing_share(self) -> float:
        """The share of moving records failing critically above which the link is held; 1.0: never."""
        return self.suite.max_failing_share

    @property
    def min_records(self) -> int:
        """How many records must move for `max_failing_share` to count."""
        return self.suite.min_records

    @property
    def asking(self) -> dict[str, str | None]:
        """Rules whose verdict depends on more than the record → the dataset that they refer to, if any."""
        checks = {name: one.rule.check for name, one in self.compiled.items() if one.asks}
        return {name: check.options.get("dataset") for name, check in checks.items() if check is not None}

    def explain(self) -> list[RulePlan]:
        """How each rule is evaluated, in the suite's order."""
        return [
            RulePlan(
                rule.name,
                rule.columns,
                rule.severity,
                "compiled" if rule.name in self.compiled else "great_expectations",
                self.why_not.get(rule.name, ""),
                rule.check.text if rule.check else "",
                condition_text(rule.kwargs.get("row_condition")),
                rule.zh.template,
                rule.en.template,
            )
            for rule in self.suite.rules
        ]

    def check(self, rows: pa.Table, fields: Collection[str] | None = None, around: Around | None = None) -> Verdict:
        """Judge typed rows of the contract (any subset of its fields, the key included).

        Only rules whose fields are all in `rows` are evaluated, and of these only those that touch one of `fields` (None: all).
        `around`: what checks may ask. Raises GateError if a rule could not be evaluated: unjudged rows never pass.
        """
        there = set(rows.column_names)
        rules = [
            rule
            for rule in self.suite.rules
            if there.issuperset(rule.needs) and (fields is None or not set(fields).isdisjoint(rule.needs))
        ]
        if not rows.num_rows or not rules:
            return Verdict(self._failures(rows, []), rows.num_rows)
        found = self._found(rows, rules, around)
        return Verdict(self._failures(rows, [(rule, found[rule.name]) for rule in rules]), rows.num_rows)

    def _found(self, rows: pa.Table, rules: list[Rule], around: Around | None) -> dict[str, pa.Array]:
        every = [self.compiled[rule.name] for rule in rules if rule.name in self.compiled]
        compiled = [one for one in every if not one.asks]
        if rows.num_rows < _THREADED_FROM:
            found = {one.rule.name: one.failing(rows) for one in compiled}
        else:
            with ThreadPoolExecutor(2) as pool:
                masks = pool.map(lambda one: one.failing(rows), compiled)
                found = {one.rule.name: mask for one, mask in zip(compiled, masks)}
        for one in every:
            if one.asks:  # in this thread: it may read systems, which are open here
                if around is None:
                    raise self._unanswered(one.rule)
                found[one.rule.name] = one.failing(rows, around)
        others = [rule for rule in rules if rule.name not in self.compiled]
        if others:
            from federation.gate_expectations import failing_rows  # heavy: only when a rule needs it

            found |= failing_rows(rows, others, self.suite.path)
        return found

    def _unanswered(self, rule: Rule) -> GateError:
        return GateError(
            "the rule's check must know more than the rows, and nobody tells it",
            "此规则的检查需要行以外的信息",
            todo="在链路运行中判定 / judge within a link run",
            file=self.suite.path,
            dataset=self.dataset.name,
            rule=rule.name,
        )

    def _failures(self, rows: pa.Table, found: list[tuple[Rule, pa.Array]]) -> pa.Table:
        schema = canonical.reject_schema(self.dataset).append(pa.field("severity", pa.string()))
        schema = schema.append(pa.field("row", pa.int64()))
        parts = [self._lines(rows, rule, where, schema) for rule, where in found if len(where)]
        if not parts:
            return schema.empty_table()
        table = pa.concat_tables(parts)
        if len(parts) == 1:
            return table
        order = np.argsort(table.column("row").to_numpy(), kind="stable")
        return table.take(pa.array(order))

    def _lines(self, rows: pa.Table, rule: Rule, where: pa.Array, schema: pa.Schema) -> pa.Table:
        picked = rows.select(list(dict.fromkeys([*self.dataset.key, *rule.needs]))).take(where)
        count = len(where)
        columns = {name: picked.column(name) for name in self.dataset.key}
        columns |= {
            "locator": pa.nulls(count, pa.string()),
            "field": pa.repeat(pa.scalar(rule.columns[0]), count),
            "value": as_text(picked.column(rule.columns[0]), self.timezone),
            "rule": pa.repeat(pa.scalar(rule.name), count),
            "reason_zh": rule.zh.fill(picked, self.timezone),
            "reason_en": rule.en.fill(picked, self.timezone),
            "severity": pa.repeat(pa.scalar(rule.severity), count),
            "row": where,
        }
        return pa.table([columns[name] for name in schema.names], schema=schema)
