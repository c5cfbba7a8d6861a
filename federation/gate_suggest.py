"""A first suite (建议规则集) from what a node holds, for a human to edit.

No value of a record gets into it: bounds are rounded outwards past the outermost value, shapes name classes of characters, and
values are listed only of fields that are neither personal nor sensitive and where each occurs several times.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from math import floor, log10
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from federation import gate_codes
from federation.contract import Dataset, FieldSpec
from federation.errors import FedsyncError
from federation.gate_reason import flat
from federation.regions import LEVEL_ZH, LEVELS, RegionTree

_FEW, _OFTEN, _ENOUGH = 12, 5, 20
"""A list of values: at most so many, each at least so often. Uniqueness means something from so many values on."""
_LENGTHS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000)
_MOBILE = "^1[3-9][0-9]{9}$"
_PHONE = "^(1[3-9][0-9]{9}|(0[0-9]{2,3}-?)?[2-9][0-9]{6,7})$"
_ID_NUMBER, _CREDIT = "^[1-9][0-9]{16}[0-9X]$", "^[0-9A-HJ-NP-RTUW-Y]{18}$"
_CODE = "^[0-9A-Za-z_-]{1,40}$"
_NULL = "expect_column_values_to_not_be_null"
_REGEX = "expect_column_values_to_match_regex"

Rule = dict[str, Any]


@dataclass(frozen=True)
class _Column:
    """One field with the values that are there."""

    name: str
    spec: FieldSpec
    values: pa.Array
    rows: int
    key: bool

    @property
    def zh(self) -> str:
        return _plain(self.spec.label)

    @property
    def en(self) -> str:
        return _plain(self.spec.label_en or self.name)

    def rule(self, kind: str, zh: str, en: str, severity: str, check: Rule | None = None, **kwargs: Any) -> Rule:
        meta: Rule = {"reason": {"zh": f"{self.zh}{zh}", "en": f"{self.en} {en}"}}
        if check is not None:
            meta["check"] = check
        return {"type": kind, "kwargs": {"column": self.name, **kwargs}, "severity": severity, "meta": meta}

    def all(self, regex: str) -> bool:
        return bool(pc.all(pc.match_substring_regex(self.values, regex)).as_py())


def suggest(dataset: Dataset, rows: pa.Table, tree: RegionTree, now: datetime) -> Rule:
    """A suite that holds for `rows` (typed, any subset of the contract's fields). Raises FedsyncError if there are none.

    `now`: with a time zone; what lies after it is no mistake here.
    """
    if not rows.num_rows:
        raise FedsyncError(
            "there is no record to learn from",
            "没有可供参考的记录",
            todo="换一个有数据的节点 / name a node that has records",
        )
    rules: list[Rule] = []
    for name in rows.column_names:
        values = flat(rows.column(name)).drop_null()
        column = _Column(name, dataset.fields[name], values, rows.num_rows, name in dataset.key)
        rules += _rules(column, tree, now)
    return {"name": dataset.name, "meta": {"max_failing_share": 0.5, "min_records": 20}, "expectations": rules}


def _rules(column: _Column, tree: RegionTree, now: datetime) -> Iterator[Rule]:
    if len(column.values) == column.rows and not column.key:
        yield column.rule(_NULL, "不能为空，请补填", "must not be empty", "warning")
    if not len(column.values):
        return
    kind = column.spec.type
    if kind == "string":
        yield from _of_text(column, tree)
    elif kind in ("int", "float", "decimal"):
        yield from _of_numbers(column)
    elif kind in ("date", "timestamp"):
        yield _of_times(column, now)


def _of_text(column: _Column, tree: RegionTree) -> Iterator[Rule]:
    known = _known(column, tree)
    if known is not None:
        yield known
    elif (listed := _listed(column)) is not None:
        yield listed
    elif (shape := _shape(column)) is not None:
        yield shape
    else:
        longest = pc.max(pc.utf8_length(column.values)).as_py()
        limit = next((length for length in _LENGTHS if length > longest), None)
        if limit is not None:
            yield column.rule(
                "expect_column_value_lengths_to_be_between",
                f"最多 {limit} 个字，请精简",
                f"must be at most {limit} characters",
                "warning",
                max_value=limit,
            )
    telephone = known is not None and known["kwargs"]["regex"] in (_MOBILE, _PHONE)
    if not column.key and not telephone and _distinct(column) and column.all(_CODE):
        yield column.rule(
            "expect_column_values_to_be_unique",
            "“{value}”与另一条记录重复，请核对",
            "{value!r} stands in another record as well",
            "warning",
        )


def _distinct(column: _Column) -> bool:
    count = len(column.values)
    return count >= _ENOUGH and pc.count_distinct(column.values).as_py() == count


def _known(column: _Column, tree: RegionTree) -> Rule | None:
    """A shape that everybody knows, if all values have it."""

    def rule(zh: str, en: str, regex: str, check: Rule | None = None) -> Rule:
        return column.rule(_REGEX, f"{zh}，现为“{{value}}”", f"{en}, it is {{value!r}}", "critical", check, regex=regex)

    values = column.values
    if column.all(_ID_NUMBER) and pc.all(gate_codes.id_numbers(values)).as_py():
        zh = "应为 18 位身份证号，末位校验码相符"
        return rule(
            zh, "must be an id number of 18 characters with its check character", _ID_NUMBER, {"kind": "id_number"}
        )
    if column.all(_CREDIT) and pc.all(gate_codes.credit_codes(values)).as_py():
        zh = "应为 18 位统一社会信用代码，末位校验码相符"
        return rule(zh, "must be a unified social credit code", _CREDIT, {"kind": "social_credit_code"})
    if column.all(_MOBILE):
        return rule("应为 11 位手机号，以 1 开头", "must be a mobile number of 11 digits", _MOBILE)
    if column.all(_PHONE):
        return rule(
            "应为 11 位手机号，或区号加固定电话", "must be a mobile number, or a landline with its area code", _PHONE
        )
    codes = set(values.unique().to_pylist())
    if codes <= set(tree.regions):
        levels = {tree[code].level for code in codes}
        level = next(iter(levels)) if len(levels) == 1 else None
        check = {"kind": "region", **({"level": level} if level else {})}
        zh, en = ("区划", "region") if level is None else (LEVEL_ZH[level], LEVELS[LEVELS.index(level)])
        return rule(f"应为区划表中的 12 位{zh}代码", f"must be the 12-digit code of a {en}", "^[0-9]{12}$", check)
    return None


def _listed(column: _Column) -> Rule | None:
    """The values themselves, where they are few, frequent and nobody's own."""
    if column.spec.sensitivity not in ("public", "internal") or column.key:
        return None
    counts = pc.value_counts(column.values)
    if len(counts) > _FEW or pc.min(counts.field("counts")).as_py() < _OFTEN:
        return None
    values = sorted(counts.field("values").to_pylist())
    shown = _plain("、".join(values))
    return column.rule(
        "expect_column_values_to_be_in_set",
        f"应为 {shown} 之一，现为“{{value}}”",
        f"must be one of {shown}, it is {{value!r}}",
        "critical",
        value_set=values,
    )


def _shape(column: _Column) -> Rule | None:
    """Classes of characters, if all values are codes of one build: `^[A-Z][0-9]{10}$`."""
    if not column.all(_CODE):
        return None
    built = pc.replace_substring_regex(column.values, "[0-9]", "0")
    built = pc.replace_substring_regex(pc.replace_substring_regex(built, "[A-Z]", "A"), "[a-z]", "a")
    if pc.count_distinct(built).as_py() != 1:
        return None
    classes = {"0": "[0-9]", "A": "[A-Z]", "a": "[a-z]"}
    runs = [(run.group(0)[0], len(run.group(0))) for run in re.finditer(r"(.)\1*", built[0].as_py())]
    regex = "".join(classes.get(letter, letter) + (f"{{{count}}}" if count > 1 else "") for letter, count in runs)
    words = {"0": ("位数字", "digits"), "A": ("位大写字母", "capitals"), "a": ("位小写字母", "small letters")}
    zh = "、".join(f"{n} {words[c][0]}" if c in words else f"“{c * n}”" for c, n in runs)
    en = ", ".join(f"{n} {words[c][1]}" if c in words else repr(c * n) for c, n in runs)
    return column.rule(
        _REGEX, f"应依次为 {zh}，现为“{{value}}”", f"must be {en}, it is {{value!r}}", "critical", regex=f"^{regex}$"
    )


def _of_numbers(column: _Column) -> Iterator[Rule]:
    limits = pc.min_max(column.values).as_py()
    low, high = -_beyond(-limits["min"]), _beyond(limits["max"])
    if limits["min"] >= 0:
        low = 0
    if not -(2**53) <= low <= high <= 2**53:
        return
    yield column.rule(
        "expect_column_values_to_be_between",
        f"应在 {low} 至 {high} 之间，现为 {{value}}",
        f"must lie between {low} and {high}, it is {{value}}",
        "warning",
        min_value=low,
        max_value=high,
    )


def _beyond(value: Any) -> int:
    """The next number of one digit and zeros that is greater."""
    number = float(value)
    if abs(number) < 1:
        return 1 if number >= 0 else 0
    step: int = 10 ** floor(log10(abs(number)))
    return (floor(number / step) + 1) * step


def _of_times(column: _Column, now: datetime) -> Rule:
    """From the decade before the first to today, or beyond the decade of the last."""
    limits = pc.min_max(column.values).as_py()
    first, last = limits["min"], limits["max"]
    low = f"{max(first.year // 10 * 10 - 10, 1):04}-01-01"
    time = column.spec.type == "timestamp"
    written = f"{low}T00:00:00+08:00" if time else low
    if last <= (now if time else now.date()):
        return column.rule(
            "expect_column_values_to_be_between",
            f"应在 {low} 之后，且不能晚于今天，现为 {{value}}，请核对年份",
            f"must not lie before {low} or in the future, it is {{value}}",
            "warning",
            {"kind": "not_future"},
            min_value=written,
        )
    decade = last.year // 10 * 10 + 20
    if decade > 9999:  # for ever, as 9999-12-31 says
        return column.rule(
            "expect_column_values_to_be_between",
            f"应在 {low} 之后，现为 {{value}}，请核对年份",
            f"must not lie before {low}, it is {{value}}",
            "warning",
            min_value=written,
        )
    high = f"{decade:04}-01-01"
    return column.rule(
        "expect_column_values_to_be_between",
        f"应在 {low} 至 {high} 之间，现为 {{value}}，请核对年份",
        f"must lie between {low} and {high}, it is {{value}}",
        "warning",
        min_value=written,
        max_value=f"{high}T00:00:00+08:00" if time else high,
    )


def _plain(text: str) -> str:
    """Text whose braces stand for themselves in a reason."""
    return text.replace("{", "{{").replace("}", "}}")
