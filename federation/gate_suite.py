"""Reading a suite: Great Expectations' own JSON plus three conventions, validated as a whole without importing it.

Each expectation's `meta.reason` holds the reason for people (`{"zh": …, "en": …}`, see `gate_reason`); `meta.check` may add a
check that Great Expectations has no kind for (see `gate_check`). The suite's `meta` may hold `max_failing_share` (share of the moving records failing critically above which the link is held; default 1.0: never) and
`min_records` (it only counts when at least so many move; default 20).

A gate judges records one by one as they move, so only expectations with a verdict per row belong here; those about a whole
table are refused, with the place where they do belong.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from federation.contract import Dataset
from federation.errors import DeclarationError, FedsyncError
from federation.gate_check import Check, parse_check
from federation.gate_condition import Condition, parse_condition
from federation.gate_kinds import Domain, Kind, kind_of
from federation.gate_reason import Reason, parse_reason

SEVERITIES = ("critical", "warning", "info")
_SUITE_WORDS = {"name", "id", "expectations", "meta", "notes"}
_RULE_WORDS = {"type", "kwargs", "meta", "severity", "id", "notes", "description", "rendered_content"}
_EVERY_KIND = {"mostly", "row_condition", "condition_parser"}
_DOMAIN_WORDS: dict[Domain, tuple[str, ...]] = {
    "column": ("column",),
    "pair": ("column_A", "column_B"),
    "list": ("column_list",),
    "table": (),
}
_IGNORE = {
    "pair": ("both_values_are_missing", "either_value_is_missing", "neither"),
    "list": ("all_values_are_missing", "any_value_is_missing", "never"),
}


@dataclass(frozen=True)
class Rule:
    """One expectation. `columns`: the fields it judges, the first being the one that is reported, none if it judges the whole
    table; `condition`: on which rows."""

    name: str
    kind: str
    domain: Domain
    columns: tuple[str, ...]
    kwargs: dict[str, Any]
    mostly: float
    severity: str
    condition: Condition | None
    zh: Reason
    en: Reason
    check: Check | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """Every field that must be there to evaluate it."""
        further = self.check.columns if self.check else ()
        return (*self.columns, *further, *(self.condition.columns if self.condition else ()))


@dataclass(frozen=True)
class Suite:
    """A suite as read. `identity`: sha256 (hex) of its parsed content, whatever its layout."""

    path: Path
    rules: tuple[Rule, ...]
    identity: str
    max_failing_share: float
    min_records: int

    @cached_property
    def by_name(self) -> dict[str, Rule]:
        """The rules by their names."""
        return {rule.name: rule for rule in self.rules}


def read_suite(
    path: Path,
    dataset: Dataset,
    datasets: Mapping[str, Dataset] | None = None,
    kinds: Callable[[str], Kind] = kind_of,
) -> Suite:
    """Read and validate. Raises DeclarationError with one problem per fault, each naming the file and the rule.

    `datasets`: all of the federation, so that references to them are checked as well. `kinds`: looks an expectation type up, or says
    why it has no place here.
    """
    data = _json(path)
    problems: list[DeclarationError] = []

    def attempt(step: Callable[[], Any], **where: object) -> Any:
        try:
            return step()
        except DeclarationError as error:
            problems.append(error)
            error.at(file=path, dataset=dataset.name, **where)
            return None

    attempt(lambda: _check_suite(data))
    meta = data.get("meta") or {} if isinstance(data, dict) else {}
    share = attempt(lambda: _share(meta))
    records = attempt(lambda: _records(meta))
    listed = data.get("expectations") if isinstance(data, dict) else None
    rules: dict[str, Rule] = {}
    for position, item in enumerate(listed if isinstance(listed, list) else []):
        rule = attempt(lambda item=item: _rule(item, dataset, datasets, kinds), rule=_name(item, position))  # type: ignore[misc]
        if rule is not None and rule.name in rules:
            twice = _fault(
                "two rules have the same name",
                "两条规则同名",
                "给其中一条加上 id（UUID）/ give one of them an `id`, a UUID",
            )
            problems.append(twice)
            twice.at(file=path, dataset=dataset.name, rule=rule.name)
        elif rule is not None:
            rules[rule.name] = rule
    if problems:
        raise faulty(path, dataset, problems)
    content = json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return Suite(path, tuple(rules.values()), hashlib.sha256(content.encode()).hexdigest(), share, records)


def faulty(path: Path, dataset: Dataset, problems: Sequence[FedsyncError]) -> DeclarationError:
    """The error that lists every problem of a suite."""
    return DeclarationError(
        f"{len(problems)} problem(s) in the suite",
        f"质量规则文件有 {len(problems)} 处问题",
        problems=tuple(problems),
        file=path,
        dataset=dataset.name,
    )


def _fault(en: str, zh: str, todo: str = "", *, field: object = None) -> DeclarationError:
    return DeclarationError(en, zh, todo=todo, field=field)


def _json(path: Path) -> Any:
    def refuse(word: str) -> None:
        raise DeclarationError(f"{word} is not JSON", f"{word} 不是 JSON 数值", file=path)

    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=refuse)
    except (OSError, UnicodeDecodeError) as cause:
        raise DeclarationError(
            f"the suite cannot be read: {cause}",
            "无法读取质量规则文件",
            todo="检查路径与 UTF-8 编码 / check the path and save it as UTF-8",
            file=path,
        ) from cause
    except json.JSONDecodeError as cause:
        raise DeclarationError(
            f"the suite is not JSON: {cause.msg}",
            "质量规则文件不是有效的 JSON",
            todo="检查此行附近的逗号与引号 / check commas and quotes near this line",
            file=path,
            line=cause.lineno,
        ) from cause
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError as cause:
        raise DeclarationError(
            "the suite holds half a character, such as \\ud83d alone",
            "质量规则文件含有残缺的字符，如单独的 \\ud83d",
            todo="写完整的字符 / write the whole character",
            file=path,
        ) from cause
    return data


def _check_suite(data: Any) -> None:
    if not isinstance(data, dict) or not isinstance(data.get("expectations"), list) or not data.get("name"):
        raise _fault(
            "is not a suite: it needs `name` and a list `expectations`",
            "不是质量规则文件：需要 name 与 expectations 列表",
            "按 Great Expectations 的 JSON 书写 / write it as Great Expectations does",
        )
    unknown = sorted(set(data) - _SUITE_WORDS)
    if unknown:
        raise _unknown_words(unknown, _SUITE_WORDS)
    if not isinstance(data.get("meta") or {}, dict):
        raise _fault("meta is not an object", "meta 不是对象")


def _unknown_words(unknown: list[str], known: set[str]) -> DeclarationError:
    return _fault(
        f"unknown word {', '.join(unknown)}",
        f"未知的词 {', '.join(unknown)}",
        f"取值 / one of: {', '.join(sorted(known))}",
    )


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _share(meta: Any) -> float:
    share = meta.get("max_failing_share", 1.0) if isinstance(meta, dict) else 1.0
    if not _number(share) or not 0 <= share <= 1:
        raise _fault(
            f"max_failing_share must be a number from 0 to 1, it is {share!r}",
            "max_failing_share 应为 0 到 1 之间的数",
        )
    return float(share)


def _records(meta: Any) -> int:
    records = meta.get("min_records", 20) if isinstance(meta, dict) else 20
    if not isinstance(records, int) or isinstance(records, bool) or records < 1:
        raise _fault(
            f"min_records must be a whole number of at least 1, it is {records!r}", "min_records 应为不小于 1 的整数"
        )
    return records


def _name(item: Any, position: int) -> str:
    """`type(column, …)`, then its check as `[kind]` and its id as `#id`: how a rule is named in errors and rejects."""
    if not isinstance(item, dict) or not isinstance(item.get("type"), str):
        return f"#{position + 1}"
    kwargs = item.get("kwargs")
    columns = ", ".join(str(name) for name in _columns(kwargs)) if isinstance(kwargs, dict) else ""
    meta = item.get("meta")
    check = meta.get("check") if isinstance(meta, dict) else None
    kind = f"[{check['kind']}]" if isinstance(check, dict) and isinstance(check.get("kind"), str) else ""
    return f"{item['type']}({columns}){kind}" + (f"#{item['id']}" if item.get("id") else "")


def _columns(kwargs: dict[str, Any]) -> Iterator[Any]:
    for word in ("column", "column_A", "column_B"):
        if word in kwargs:
            yield kwargs[word]
    listed = kwargs.get("column_list")
    if isinstance(listed, list):
        yield from listed


def _rule(item: Any, dataset: Dataset, datasets: Mapping[str, Dataset] | None, kinds: Callable[[str], Kind]) -> Rule:
    if not isinstance(item, dict) or not isinstance(item.get("type"), str):
        raise _fault("an expectation needs a `type`", "规则需要 type")
    unknown = sorted(set(item) - _RULE_WORDS)
    if unknown:
        raise _unknown_words(unknown, _RULE_WORDS)
    if item.get("id") is not None and not _is_uuid(item["id"]):
        raise _fault(
            f"the id {item['id']!r} is not a UUID, so Great Expectations will not load the suite",
            f"id {item['id']!r} 不是 UUID，Great Expectations 无法加载",
            f"删去 id，或写 / delete it, or write: {uuid.uuid5(uuid.NAMESPACE_OID, str(item['id']))}",
        )
    kind, kwargs = kinds(item["type"]), item.get("kwargs")
    if not isinstance(kwargs, dict):
        raise _fault("kwargs is not an object", "kwargs 不是对象")
    columns = _checked_columns(kind, kwargs, dataset)
    _check_kwargs(kind, kwargs)
    severity = item.get("severity", "critical")
    if severity not in SEVERITIES:
        raise _fault(
            f"unknown severity {severity!r}", f"未知的严重程度 {severity!r}", f"取值 / one of: {', '.join(SEVERITIES)}"
        )
    condition = parse_condition(kwargs.get("row_condition"), kwargs.get("condition_parser"), dataset)
    if condition is not None and item["type"] == "expect_column_pair_values_to_be_in_set":
        raise _fault(
            "Great Expectations 1.24 ignores the row_condition of this type",
            "Great Expectations 1.24 会忽略此类规则的 row_condition",
            "去掉 row_condition / delete the row_condition",
        )
    meta = item.get("meta")
    asked = meta.get("check") if isinstance(meta, dict) else None
    check = parse_check(asked, item["type"], columns[0], dataset, datasets) if columns else None
    if asked is not None and check is None:
        raise _fault(
            "a rule on the whole table takes no check",
            "整表规则不能带 check",
            "删去 meta.check / delete `meta.check`",
        )
    further = check.columns if check else ()
    shown = (*columns, *further, *(condition.columns if condition else ()))
    zh, en = (_reason(item, language, empty, shown) for language, empty in (("zh", "空"), ("en", "empty")))
    return Rule(
        _name(item, 0),
        item["type"],
        kind.domain,
        columns,
        kwargs,
        float(kwargs.get("mostly", 1)),
        severity,
        condition,
        zh,
        en,
        check,
    )


def _is_uuid(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(uuid.UUID(value))
    except ValueError:
        return False


def _checked_columns(kind: Kind, kwargs: dict[str, Any], dataset: Dataset) -> tuple[str, ...]:
    for word in _DOMAIN_WORDS[kind.domain]:
        if word not in kwargs:
            raise _fault(f"{word} is missing", f"缺少 {word}", f"补上 {word} / add it")
    columns = tuple(_columns({word: kwargs[word] for word in _DOMAIN_WORDS[kind.domain]}))
    if kind.domain == "list" and len(columns) < 2:
        raise _fault("column_list needs at least two columns", "column_list 至少两列")
    for name in columns:
        if not isinstance(name, str) or name not in dataset.fields:
            raise _fault(
                f"there is no field {name}",
                f"数据集没有字段 {name}",
                f"取值 / one of: {', '.join(dataset.fields)}",
                field=name,
            )
    return columns


def _check_kwargs(kind: Kind, kwargs: dict[str, Any]) -> None:
    known = {*_DOMAIN_WORDS[kind.domain], *kind.required, *kind.optional, *_EVERY_KIND}
    unknown = sorted(set(kwargs) - known)
    if unknown:
        raise _unknown_words(unknown, known)
    for word in kind.required:
        if kwargs.get(word) is None:
            raise _fault(f"{word} is missing", f"缺少 {word}", f"补上 {word} / add it")
    for word, value in kwargs.items():
        if isinstance(value, dict) and "$PARAMETER" in value:
            raise _fault(f"{word} is a suite parameter; a gate has none", f"{word} 使用了运行参数，质量门没有运行参数")
    mostly = kwargs.get("mostly", 1)
    if not _number(mostly) or not 0 <= mostly <= 1:
        raise _fault(f"mostly must be a number from 0 to 1, it is {mostly!r}", "mostly 应为 0 到 1 之间的数")
    ignore = kwargs.get("ignore_row_if")
    if "ignore_row_if" in kwargs and ignore not in _IGNORE[kind.domain]:
        raise _fault(
            f"unknown ignore_row_if {ignore!r}",
            f"未知的 ignore_row_if {ignore!r}",
            f"取值 / one of: {', '.join(_IGNORE[kind.domain])}",
        )


def _reason(item: dict[str, Any], language: str, empty: str, columns: tuple[str, ...]) -> Reason:
    meta = item.get("meta")
    reasons = meta.get("reason") if isinstance(meta, dict) else None
    text = reasons.get(language) if isinstance(reasons, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise _fault(
            f"meta.reason.{language} is missing",
            f"缺少 meta.reason.{language}",
            '写明双语原因 / write {"reason": {"zh": "…{value}…", "en": "…"}}',
        )
    try:
        return parse_reason(text, columns, empty)
    except ValueError as cause:
        raise _fault(
            f"meta.reason.{language}: {cause}",
            f"meta.reason.{language} 无法使用",
            "占位符为 {value} 或本规则的字段名 / use {value} or a field of this rule",
        ) from cause
