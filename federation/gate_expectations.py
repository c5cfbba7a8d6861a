"""The gate's fallback: rules that are not compiled run in Great Expectations itself, on its pandas engine.

Great Expectations is imported here and in `quality_expectations` alone, and only when such a rule has rows to judge: the import
costs 7–13 s and 2 300 modules.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from federation.errors import GateError
from federation.gate_suite import Rule

_CLASS = re.compile(r"^([A-Za-z_][\w.]*)(?::|$)")
_EXACT = 2**53
"""Up to here a float holds every whole number."""


@contextmanager
def quiet() -> Iterator[None]:
    """Great Expectations and what it imports warn about their own deprecations; nobody here can mend those."""
    with warnings.catch_warnings():
        for module in ("great_expectations", "marshmallow", "altair", "pandas"):
            for category in (DeprecationWarning, FutureWarning, UserWarning, RuntimeWarning):
                warnings.filterwarnings("ignore", category=category, module=rf"{module}(\..*)?$")
        for words in ("The condition_parser parameter", "Passing a string to the row_condition parameter"):
            warnings.filterwarnings("ignore", message=f"{words} is deprecated")  # it blames its caller
        yield


@lru_cache(maxsize=1)
def batches() -> Any:
    """A definition that makes batches of data frames, in a context that is nowhere stored and reports to nobody."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    with quiet():
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        source = context.data_sources.add_pandas("gate")
        return source.add_dataframe_asset("rows").add_batch_definition_whole_dataframe("rows")


def frame(rows: pa.Table) -> Any:
    """Rows as the data frame that Great Expectations judges: no value is rounded, and a null is always a missing value.

    Whole numbers with nulls become floats as long as a float holds them exactly, else Python's own; dates stay dates.
    """
    import pandas as pd

    columns: dict[str, Any] = {}
    for name, column in zip(rows.column_names, rows.columns):
        if pa.types.is_integer(column.type) and not _small(column):
            whole = [
                float("nan") if value is None else value for value in column.to_pylist()
            ]  # None cannot be compared
            columns[name] = pd.Series(whole, dtype=object)
        else:
            columns[name] = column.to_pandas(date_as_object=True)
    return pd.DataFrame(columns, index=pd.RangeIndex(rows.num_rows))


def _small(column: pa.ChunkedArray) -> bool:
    limits = pc.min_max(column).as_py()
    return limits["min"] is None or (limits["min"] >= -_EXACT and limits["max"] <= _EXACT)


def failing_rows(rows: pa.Table, rules: Sequence[Rule], file: Path) -> dict[str, pa.Array]:
    """Rule name → the numbers of its failing rows (int64, ascending), for all these rules in one run.

    A rule that holds, if only by its `mostly`, has none. Raises GateError naming the rule that could not be evaluated.
    """
    nothing = pa.array([], pa.int64())
    found = {rule.name: nothing for rule in rules}
    judged = [rule for rule in rules if has_values(rule, rows)]
    if not judged:
        return found
    with quiet():
        for result in _validate(rows, judged, file).results:
            rule = judged[result.expectation_config.meta["rule"]]
            _check(result, rule, file)
            if not result.success:
                found[rule.name] = pa.array(sorted(result.result["unexpected_index_list"]), pa.int64())
    return found


def has_values(rule: Rule, rows: pa.Table) -> bool:
    """Without a value to judge, a rule holds by Great Expectations' own definition; some kinds cannot even be evaluated then."""
    if rule.condition is not None and rule.condition.mask is not None:
        rows = rows.filter(rule.condition.mask(rows))
    if rule.domain == "column" and rule.kind != "expect_column_values_to_not_be_null":
        values: int = rows.num_rows - rows.column(rule.columns[0]).null_count
        return values > 0
    count: int = rows.num_rows
    return count > 0


def _validate(rows: pa.Table, rules: Sequence[Rule], file: Path) -> Any:
    definition = batches()
    from great_expectations.core.expectation_suite import ExpectationSuite

    try:
        suite = ExpectationSuite(
            name="gate",
            expectations=[
                {"type": rule.kind, "kwargs": dict(rule.kwargs), "meta": {"rule": index}}
                for index, rule in enumerate(rules)
            ],
        )
        needed = dict.fromkeys(name for rule in rules for name in rule.needs)
        batch = definition.get_batch(batch_parameters={"dataframe": frame(rows.select(list(needed)))})
        return batch.validate(suite, result_format={"result_format": "COMPLETE"})
    except Exception as cause:  # whatever it raises, the rows were not judged, and its words may quote them
        raise _failure(type(cause).__name__, file, ", ".join(rule.name for rule in rules)) from None


def raised_by(result: Any) -> str | None:
    """The class of the exception that Great Expectations reports instead of raising it; None if it reports none.

    Its message may quote a record.
    """
    info = result.exception_info or {}
    for report in [info] if "raised_exception" in info else info.values():
        if report.get("raised_exception"):
            lines = (report.get("exception_traceback") or "").strip().splitlines()
            named = _CLASS.match(lines[-1]) if lines else None
            return named[1] if named else "unknown error"
    return None


def _check(result: Any, rule: Rule, file: Path) -> None:
    """An exception comes as one more failing result; it must never pass for bad data."""
    raised = raised_by(result)
    if raised is not None:
        raise _failure(raised, file, rule.name)
    if not result.success and not isinstance(result.result.get("unexpected_index_list"), list):
        raise _failure("no failing rows were named", file, rule.name)


def _failure(message: str, file: Path, rule: str) -> GateError:
    return GateError(
        f"Great Expectations could not evaluate the rule ({message})",
        f"Great Expectations 无法计算此规则（{message}）",
        todo="检查规则的参数与字段类型 / check the rule's arguments against the field's type",
        file=file,
        rule=rule,
    )
