"""The expectation types that Great Expectations 1.24 knows, and which of them a gate can use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from federation.errors import DeclarationError

Domain = Literal["column", "pair", "list"]


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
_TYPED = {"expect_column_values_to_be_of_type", "expect_column_values_to_be_in_type_list"}
_SQL_ONLY = "like_pattern"
_TABLE_KINDS = {
    "unexpected_rows_expectation",
    "expect_query_results_to_match_comparison",
    "expect_column_to_exist",
    "expect_column_type_to_be",
    "expect_column_distinct_values_to_be_in_set",
    "expect_column_distinct_values_to_contain_set",
    "expect_column_distinct_values_to_equal_set",
    "expect_column_kl_divergence_to_be_less_than",
    "expect_column_most_common_value_to_be_in_set",
    "expect_column_pair_cramers_phi_value_to_be_less_than",
    "expect_column_quantile_values_to_be_between",
    "expect_column_unique_value_count_to_be_between",
    *(
        f"expect_column_{word}_to_be_between"
        for word in (
            "max",
            "mean",
            "median",
            "min",
            "stdev",
            "sum",
            "proportion_of_non_null_values",
            "proportion_of_unique_values",
        )
    ),
    *(
        f"expect_table_{word}"
        for word in (
            "column_count_to_be_between",
            "column_count_to_equal",
            "columns_to_match_ordered_list",
            "columns_to_match_set",
            "row_count_to_be_between",
            "row_count_to_equal",
            "row_count_to_equal_other_table",
        )
    ),
}


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
