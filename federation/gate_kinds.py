"""The expectation types that Great Expectations 1.24 knows, and which of them a gate and a quality report can use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from federation.errors import DeclarationError

Domain = Literal["column", "pair", "list", "table"]


@dataclass(frozen=True)
class Kind:
    """What an expectation type takes beside its domain, `mostly` and `row_condition`."""

    domain: Domain
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


ROW_KINDS: dict[str, Kind] = {
    "expect_column_values_to_not_be_null": Kind("column"),
    "expect_column_values_to_be_null": Kind("column"),
    "expect_column_values_to_be_in_set": Kind("column", ("value_set",)),
    "expect_column_values_to_not_be_in_set": Kind("column", ("value_set",)),
    "expect_column_values_to_be_between": Kind("column", (), ("min_value", "max_value", "strict_min", "strict_max")),
    "expect_column_values_to_be_unique": Kind("column"),
    "expect_column_values_to_match_regex": Kind("column", ("regex",)),
    "expect_column_values_to_not_match_regex": Kind("column", ("regex",)),
    "expect_column_values_to_match_regex_list": Kind("column", ("regex_list",), ("match_on",)),
    "expect_column_values_to_not_match_regex_list": Kind("column", ("regex_list",)),
    "expect_column_value_lengths_to_equal": Kind("column", ("value",)),
    "expect_column_value_lengths_to_be_between": Kind(
        "column", (), ("min_value", "max_value", "strict_min", "strict_max")
    ),
    "expect_column_values_to_match_strftime_format": Kind("column", ("strftime_format",)),
    "expect_column_values_to_be_dateutil_parseable": Kind("column"),
    "expect_column_values_to_be_json_parseable": Kind("column"),
    "expect_column_values_to_match_json_schema": Kind("column", ("json_schema",)),
    "expect_column_value_z_scores_to_be_less_than": Kind("column", ("threshold", "double_sided")),
    "expect_column_values_to_not_be_outliers": Kind("column", (), ("method", "multiplier")),
    "expect_column_pair_values_a_to_be_greater_than_b": Kind("pair", (), ("or_equal", "ignore_row_if")),
    "expect_column_pair_values_to_be_equal": Kind("pair", (), ("ignore_row_if",)),
    "expect_column_pair_values_to_be_in_set": Kind("pair", ("value_pairs_set",), ("ignore_row_if",)),
    "expect_compound_columns_to_be_unique": Kind("list", (), ("ignore_row_if",)),
    "expect_select_column_values_to_be_unique_within_record": Kind("list", (), ("ignore_row_if",)),
    "expect_multicolumn_sum_to_equal": Kind("list", ("sum_total",), ("ignore_row_if",)),
    "expect_multicolumn_values_to_be_equal": Kind("list", (), ("ignore_row_if",)),
}
"""The expectation types of Great Expectations 1.24 whose verdict is about a row and which its pandas engine can evaluate."""

_ORDERED = {"expect_column_values_to_be_increasing", "expect_column_values_to_be_decreasing"}
_TYPED = {
    "expect_column_values_to_be_of_type",
    "expect_column_values_to_be_in_type_list",
    "expect_column_type_to_be",
}
_SQL_ONLY = "like_pattern"
_RANGE = ("min_value", "max_value", "strict_min", "strict_max")

REPORT_KINDS: dict[str, Kind] = {
    "expect_column_to_exist": Kind("column", (), ("column_index",)),
    "expect_column_distinct_values_to_be_in_set": Kind("column", ("value_set",)),
    "expect_column_distinct_values_to_contain_set": Kind("column", ("value_set",)),
    "expect_column_distinct_values_to_equal_set": Kind("column", ("value_set",)),
    "expect_column_most_common_value_to_be_in_set": Kind("column", ("value_set",), ("ties_okay",)),
    "expect_column_kl_divergence_to_be_less_than": Kind("column", ("partition_object", "threshold")),
    "expect_column_quantile_values_to_be_between": Kind("column", ("quantile_ranges",), ("allow_relative_error",)),
    "expect_column_unique_value_count_to_be_between": Kind("column", (), _RANGE),
    "expect_column_proportion_of_non_null_values_to_be_between": Kind("column", (), _RANGE),
    "expect_column_proportion_of_unique_values_to_be_between": Kind("column", (), _RANGE),
    "expect_column_max_to_be_between": Kind("column", (), _RANGE),
    "expect_column_min_to_be_between": Kind("column", (), _RANGE),
    "expect_column_mean_to_be_between": Kind("column", (), _RANGE),
    "expect_column_median_to_be_between": Kind("column", (), _RANGE),
    "expect_column_stdev_to_be_between": Kind("column", (), _RANGE),
    "expect_column_sum_to_be_between": Kind("column", (), _RANGE),
    "expect_table_column_count_to_be_between": Kind("table", (), ("min_value", "max_value")),
    "expect_table_column_count_to_equal": Kind("table", ("value",)),
    "expect_table_columns_to_match_ordered_list": Kind("table", ("column_list",)),
    "expect_table_columns_to_match_set": Kind("table", ("column_set",), ("exact_match",)),
    "expect_table_row_count_to_be_between": Kind("table", (), _RANGE),
    "expect_table_row_count_to_equal": Kind("table", ("value",)),
}
"""The expectation types whose verdict is about a whole table and which the pandas engine can evaluate."""

_DATABASE_KINDS = {
    "unexpected_rows_expectation",
    "expect_query_results_to_match_comparison",
    "expect_table_row_count_to_equal_other_table",
}
_TABLE_KINDS = {*REPORT_KINDS, *_DATABASE_KINDS}


def kind_of(name: str) -> Kind:
    """Look an expectation type up. Raises DeclarationError that says why it has no place in a gate."""
    if name in ROW_KINDS:
        return ROW_KINDS[name]
    if name in _TABLE_KINDS:
        raise DeclarationError(
            "judges a whole table; a gate judges single records while they move",
            "这是整表规则，质量门只逐条检查流动中的记录",
            todo="移到质量报告的规则集 / move it to the suite of the quality report",
        )
    if name in _ORDERED:
        raise DeclarationError(
            "compares neighbouring records; moving records have no order", "流动中的记录没有先后次序"
        )
    if name in _TYPED:
        raise DeclarationError(
            "types are fixed by the contract, before the gate",
            "类型已由数据契约保证",
            todo="删去这条规则 / delete the rule",
        )
    if _SQL_ONLY in name:
        raise DeclarationError(
            "Great Expectations evaluates LIKE patterns in a database only",
            "LIKE 规则只能在数据库中计算",
            todo="改用 regex / use a regex expectation",
        )
    raise DeclarationError(
        f"unknown expectation type {name}",
        f"未知的规则类型 {name}",
        todo=f"取值 / one of: {', '.join(sorted(ROW_KINDS))}",
    )


def report_kind_of(name: str) -> Kind:
    """Look an expectation type of a quality report's own suite up. Raises DeclarationError that says why it has no place there."""
    if name in REPORT_KINDS:
        return REPORT_KINDS[name]
    if name in ROW_KINDS:
        raise DeclarationError(
            "judges single records, so the gate and the report both use it from the dataset's suite",
            "这是逐条规则，质量门与质量报告都从数据集的规则集读取",
            todo="移到数据集的规则集 / move it to the suite of the dataset",
        )
    if name in _DATABASE_KINDS:
        raise DeclarationError(
            "Great Expectations evaluates it in a database only, and nodes are not all databases",
            "此类规则只能在数据库中计算，而节点不都是数据库",
            todo="删去这条规则 / delete the rule",
        )
    if name in _TYPED:
        kind_of(name)
    raise DeclarationError(
        f"unknown expectation type {name}",
        f"未知的规则类型 {name}",
        todo=f"取值 / one of: {', '.join(sorted(REPORT_KINDS))}",
    )
