"""The quality report's own suite of a dataset: rules on a whole table, in `<dataset>.report.json` beside the gates' suites.

It is a Great Expectations suite with the reasons of a gate's (`gate_suite`), read without importing Great Expectations. Nobody is
returned anything by such a rule, so its reason names no value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime
from typing import Any

from federation.config import Config
from federation.contract import Dataset
from federation.errors import DeclarationError
from federation.gate_kinds import report_kind_of
from federation.gate_suite import Rule, Suite, faulty, read_suite

ENDING = ".report.json"
_NUMBERS = ("int", "float", "decimal")
_ARITHMETIC = tuple(f"expect_column_{word}_to_be_between" for word in ("mean", "median", "stdev", "sum"))
_NUMERIC = (*_ARITHMETIC, "expect_column_quantile_values_to_be_between")
_OF_VALUES = ("expect_column_max_to_be_between", "expect_column_min_to_be_between")
"""Their bounds are values of the field: a date has bounds written as dates."""
_UNCONDITIONAL = "expect_column_to_exist"


def read_report(config: Config, dataset: Dataset) -> Suite | None:
    """The report's own suite of a dataset; None if there is none. Raises DeclarationError with one problem per fault."""
    path = config.suites / f"{dataset.name}{ENDING}"
    if not path.is_file():
        return None
    suite = read_suite(path, dataset, kinds=report_kind_of)
    problems = []
    for rule in suite.rules:
        for problem in _faults(rule, dataset):
            problem.at(file=path, dataset=dataset.name, rule=rule.name)
            problems.append(problem)
    if problems:
        raise faulty(path, dataset, problems)
    return suite


def check_reports(config: Config) -> Iterator[DeclarationError]:
    """Every fault of every report's suite, and of each that belongs to no dataset."""
    for dataset in config.datasets.values():
        try:
            read_report(config, dataset)
        except DeclarationError as error:
            yield from (problem for problem in error.problems or (error,) if isinstance(problem, DeclarationError))
    for path in sorted(config.suites.glob(f"*{ENDING}")):
        name = path.name.removesuffix(ENDING)
        if name not in config.datasets:
            yield DeclarationError(
                f"there is no dataset {name}",
                f"没有数据集 {name}",
                todo=f"改文件名 / rename the file: {', '.join(config.datasets)}",
                file=path,
            )


def _faults(rule: Rule, dataset: Dataset) -> Iterator[DeclarationError]:
    kwargs = rule.kwargs
    if "mostly" in kwargs:
        yield DeclarationError(
            "mostly is for rules on single records", "整表规则没有 mostly", todo="删去 mostly / delete `mostly`"
        )
    if rule.condition is not None and (rule.domain == "table" or rule.kind == _UNCONDITIONAL):
        yield DeclarationError(
            "this type takes no row_condition", "此类规则没有 row_condition", todo="删去 / delete `row_condition`"
        )
    if any(not isinstance(part, str) for reason in (rule.zh, rule.en) for part in reason.parts):
        yield DeclarationError(
            "the reason of a rule on a whole table has no value to show",
            "整表规则的原因不能引用字段值",
            todo="去掉花括号 / delete the placeholder",
        )
    if rule.kind in _NUMERIC and dataset.fields[rule.columns[0]].type not in _NUMBERS:
        yield DeclarationError(
            f"{rule.columns[0]} is not a number",
            f"字段 {rule.columns[0]} 不是数值",
            todo="换一个字段 / use another field",
        )
    if rule.kind in _OF_VALUES and dataset.fields[rule.columns[0]].type not in (*_NUMBERS, *_BOUNDS):
        yield DeclarationError(
            f"{rule.columns[0]} is neither a number nor a date",
            f"字段 {rule.columns[0]} 既不是数值也不是日期",
            todo="换一个字段 / use another field",
        )
    yield from _argument_faults(rule, dataset)


def _argument_faults(rule: Rule, dataset: Dataset) -> Iterator[DeclarationError]:
    kwargs = rule.kwargs
    if rule.kind.endswith("_to_be_between") and "quantile" not in rule.kind:
        bounds = [kwargs[word] for word in ("min_value", "max_value") if kwargs.get(word) is not None]
        if not bounds:
            yield _wrong("min_value and max_value are both missing", "min_value 与 max_value 至少写一个")
        kind = dataset.fields[rule.columns[0]].type if rule.kind in _OF_VALUES else "int"
        fits, en, zh = _BOUNDS.get(kind, _BOUNDS["int"])
        if not all(fits(bound) for bound in bounds):
            yield _wrong(f"min_value and max_value must be {en}", f"min_value 与 max_value 应为{zh}")
    if "value" in kwargs and not (_is_number(kwargs["value"]) and float(kwargs["value"]).is_integer()):
        yield _wrong("value must be a whole number", "value 应为整数")
    for word in ("value_set", "column_set", "column_list"):
        if word in kwargs and not isinstance(kwargs[word], list):
            yield _wrong(f"{word} must be a list", f"{word} 应为列表")
    for word in ("quantile_ranges", "partition_object"):
        if word in kwargs and not _parallel(kwargs[word]):
            yield _wrong(f"{word} must hold two lists of equal length", f"{word} 应含两个等长的列表")


def _parallel(value: Any) -> bool:
    """Whether it is `{quantiles: […], value_ranges: […]}` or `{values: […], weights: […]}`."""
    words = ({"quantiles", "value_ranges"}, {"values", "weights"})
    if not isinstance(value, dict) or set(value) not in words:
        return False
    lists = list(value.values())
    return all(isinstance(one, list) for one in lists) and len(lists[0]) == len(lists[1])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_date(value: Any) -> bool:
    try:
        return isinstance(value, str) and date.fromisoformat(value) is not None
    except ValueError:
        return False


def _is_time(value: Any) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


_BOUNDS: dict[str, tuple[Callable[[Any], bool], str, str]] = {
    "int": (_is_number, "numbers", "数字"),
    "date": (_is_date, "dates such as 2026-01-01", "日期，如 2026-01-01"),
    "timestamp": (_is_time, "times such as 2026-01-01T00:00:00+08:00", "时间，如 2026-01-01T00:00:00+08:00"),
}
"""What a bound must be, by type of field."""


def _wrong(en: str, zh: str) -> DeclarationError:
    return DeclarationError(en, zh)
