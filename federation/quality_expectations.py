"""A node's whole table, judged by Great Expectations itself: the dataset's rules and those of the report, in one run.

The messages of its exceptions may quote a record, so only their class is told. What it answers holds values, and is for
`quality_docs` to clean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from federation.errors import GateError
from federation.gate_expectations import batches, frame, has_values, quiet, raised_by
from federation.gate_kinds import REPORT_KINDS
from federation.gate_suite import Rule
from federation.ledger.quality import Finding

_WITHOUT_VALUES = (
    "expect_column_to_exist",
    "expect_column_unique_value_count_to_be_between",
    "expect_column_proportion_of_non_null_values_to_be_between",
)
"""Whole-table rules that have something to say of a field without any value."""
FORM: dict[str, Any] = {"result_format": "BASIC", "partial_unexpected_count": 0}
"""How much Great Expectations is asked to tell: the counts. It tells more than that all the same."""


@dataclass(frozen=True)
class Judged:
    """One rule at one node: GE's own result (None if there was nothing to judge), and what it comes to; or why it failed to."""

    rule: Rule
    result: Any
    finding: Finding | None
    fault: GateError | None


def judge(rows: pa.Table, rules: Sequence[Rule]) -> list[Judged]:
    """Run rules on a whole table. A rule that cannot be evaluated is a fault of its own and never passes for bad data."""
    asked = [rule for rule in rules if _can_be_judged(rule, rows)]
    results = _validate(rows, asked) if asked else {}
    return [_judged(rule, results.get(rule.name)) for rule in rules]


def with_check(judged: Judged, failing: int) -> Judged:
    """A rule whose check (`gate_check`), which Great Expectations does not know, was counted as well: so many records fail in all."""
    found, told = judged.finding, judged.result
    if found is None or told is None:
        return judged
    known = told.result
    known["unexpected_count"] = failing
    known["unexpected_percent"] = 100 * failing / known["element_count"] if known.get("element_count") else None
    told.success = told.success and not failing
    return replace(judged, finding=replace(found, failing=failing))


def _can_be_judged(rule: Rule, rows: pa.Table) -> bool:
    if rule.domain == "table":
        return True
    return bool(rows.num_rows) if rule.kind in _WITHOUT_VALUES else has_values(rule, rows)


def _validate(rows: pa.Table, rules: Sequence[Rule]) -> dict[str, Any]:
    """Rule name → Great Expectations' result."""
    with quiet():
        definition = batches()
        from great_expectations.core.expectation_suite import ExpectationSuite

        try:
            listed = [
                {"type": rule.kind, "kwargs": dict(rule.kwargs), "meta": {"rule": index}}
                for index, rule in enumerate(rules)
            ]
            suite = ExpectationSuite(name="quality", expectations=listed)
            batch = definition.get_batch(batch_parameters={"dataframe": frame(rows)})
            found = batch.validate(suite, result_format=FORM).results
        except Exception as cause:  # whatever it raises may quote a record
            raise _fault(type(cause).__name__, ", ".join(rule.name for rule in rules)) from None
    return {rules[result.expectation_config.meta["rule"]].name: result for result in found}


def _judged(rule: Rule, result: Any) -> Judged:
    if result is None:
        return Judged(rule, None, Finding(rule.name, rule.severity, 0, 0), None)
    raised = raised_by(result)
    if raised is not None:
        return Judged(rule, result, None, _fault(raised, rule.name))
    if rule.kind in REPORT_KINDS:
        return Judged(rule, result, Finding(rule.name, rule.severity, 1, int(not result.success)), None)
    evaluated = int(result.result["element_count"]) - int(result.result.get("missing_count") or 0)
    failing = int(result.result["unexpected_count"])
    return Judged(rule, result, Finding(rule.name, rule.severity, evaluated, failing), None)


def _fault(error: str, rule: str) -> GateError:
    return GateError(
        f"Great Expectations could not evaluate the rule ({error})",
        f"Great Expectations 无法计算此规则（{error}）",
        todo="检查规则的参数与字段类型 / check the rule's arguments against the field's type",
        rule=rule,
    )
