"""The `row_condition` of a rule: which rows it speaks of.

Great Expectations filters with `DataFrame.query`. Comparisons of a text field with text, null tests and their and/or give the
same rows as Arrow masks; every other condition is left to Great Expectations, together with its rule.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from federation.contract import Dataset
from federation.errors import DeclarationError

TEXT = ("string", "enum", "json")
Mask = Callable[[pa.Table], Any]
_WORDS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="
}  # fmt: skip
_SHAPE_TODO = (
    '写成 / write {"type": "comparison", "column": {"name": "…"}, "operator": "==", "parameter": "…"}, '
    'or "field == \'…\'" with "condition_parser": "pandas"'
)


@dataclass(frozen=True)
class Condition:
    """`columns`: the fields it names. `mask`: the rows it holds for (True or False, never null), None if left to GE."""

    columns: tuple[str, ...]
    mask: Mask | None


def parse_condition(value: Any, parser: Any, dataset: Dataset) -> Condition | None:
    """Read a rule's `row_condition`; None if it has none. Raises DeclarationError if it is malformed or names no field."""
    if value is None or value == "":
        return None
    if isinstance(value, dict) and value.get("type") == "pass_through":
        value, parser = value.get("pass_through_filter"), "pandas"
    if isinstance(value, str):
        if parser != "pandas":
            raise _wrong("a text condition needs condition_parser pandas", "文本条件需要 condition_parser: pandas")
        condition = _of_query(value, dataset)
    elif isinstance(value, dict):
        condition = _of_tree(value, dataset)
    else:
        raise _wrong("row_condition is neither text nor an object", "row_condition 既不是文本也不是对象")
    for name in condition.columns:
        if name not in dataset.fields:
            raise DeclarationError(
                f"row_condition names the unknown field {name}",
                f"row_condition 引用了不存在的字段 {name}",
                todo=f"取值 / one of: {', '.join(dataset.fields)}",
                field=name,
            )
    return condition


def condition_text(value: Any) -> str:
    """A valid `row_condition` as a person reads it; empty if there is none."""
    if not isinstance(value, dict):
        return value or ""
    kind = value["type"]
    if kind == "pass_through":
        return str(value["pass_through_filter"])
    if kind in ("and", "or"):
        return f" {kind} ".join(f"({condition_text(part)})" for part in value["conditions"])
    name = value["column"]["name"]
    if kind == "nullity":
        return f"{name} {'is null' if value['is_null'] else 'is not null'}"
    return f"{name} {value['operator']} {json.dumps(value.get('parameter'), ensure_ascii=False)}"


def _wrong(en: str, zh: str) -> DeclarationError:
    return DeclarationError(en, zh, todo=_SHAPE_TODO)


def _of_tree(tree: dict[str, Any], dataset: Dataset) -> Condition:
    kind = tree.get("type")
    if kind in ("and", "or"):
        parts = tree.get("conditions")
        if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
            raise _wrong(f"the condition {kind!r} needs a list of conditions", f"条件 {kind!r} 需要条件列表")
        return _joined(kind, [_of_tree(part, dataset) for part in parts])
    column = tree.get("column")
    name = column.get("name") if isinstance(column, dict) else None
    if not isinstance(name, str):
        raise _wrong("the condition names no column", "条件未指明字段")
    if kind == "nullity" and isinstance(tree.get("is_null"), bool):
        return Condition((name,), _nullity(name, tree["is_null"]))
    if kind == "comparison" and tree.get("operator") in ("==", "!=", "<", "<=", ">", ">=", "IN", "NOT_IN"):
        return _compared(name, tree["operator"], tree.get("parameter"), dataset)
    raise _wrong("the condition is not one that Great Expectations knows", "不是 Great Expectations 认识的条件")


def _of_query(text: str, dataset: Dataset) -> Condition:
    """A pandas query. Only what is plainly a comparison with text is compiled."""
    try:
        body = ast.parse(text, mode="eval").body
    except SyntaxError as cause:
        raise _wrong(f"the condition {text!r} cannot be parsed", f"无法解析条件 {text!r}") from cause
    return _of_node(body, dataset)


def _of_node(node: ast.expr, dataset: Dataset) -> Condition:
    if isinstance(node, ast.BoolOp):
        return _joined(
            "and" if isinstance(node.op, ast.And) else "or", [_of_node(part, dataset) for part in node.values]
        )
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        left, operator, right = node.left, node.ops[0], node.comparators[0]
        word = _WORDS.get(type(operator))
        if isinstance(left, ast.Name) and isinstance(right, ast.Constant) and word:
            return _compared(left.id, word, right.value, dataset)
    names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return Condition(tuple(sorted(names)), None)


def _joined(word: str, parts: list[Condition]) -> Condition:
    names = tuple(dict.fromkeys(name for part in parts for name in part.columns))
    masks = [part.mask for part in parts if part.mask is not None]
    if len(masks) < len(parts):
        return Condition(names, None)
    combine = pc.and_ if word == "and" else pc.or_

    def mask(rows: pa.Table) -> Any:
        result = masks[0](rows)
        for other in masks[1:]:
            result = combine(result, other(rows))
        return result

    return Condition(names, mask)


def _nullity(name: str, is_null: bool) -> Mask:
    return lambda rows: pc.is_null(rows.column(name)) if is_null else pc.is_valid(rows.column(name))


def _check_comparable(kind: str, operator: str, values: list[Any]) -> None:
    """Refuse what pandas cannot compare, or never finds equal: then the rule would stop its link, or speak of no row."""
    if kind in TEXT:
        fits = all(isinstance(value, str) for value in values)
    elif kind == "timestamp":
        fits = operator in ("<", "<=", ">", ">=") and all(_is_moment(value) for value in values)
    else:
        fits = kind != "date" and all(isinstance(value, (bool, int, float)) for value in values)
    if not fits:
        raise DeclarationError(
            f"the row_condition compares a {kind} with {', '.join(map(repr, values))}",
            f"row_condition 中的值与字段类型 {kind} 无法比较",
            todo="日期字段请另设文本或枚举字段 / a date cannot be compared here: use a text, a number or an enum"
            if kind == "date"
            else "按字段类型书写：文本加引号，数字不加；时间只比较先后并带时区 / write it as the field's type: text quoted, numbers not; a time with its offset, and only before or after",
        )


def _is_moment(value: Any) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _compared(name: str, operator: str, parameter: Any, dataset: Dataset) -> Condition:
    if parameter is None:
        raise _wrong("a comparison with null is never true", "与空值比较永远不成立")
    listed = operator in ("IN", "NOT_IN")
    if listed and not isinstance(parameter, list):
        raise _wrong(f"{operator} needs a list", f"{operator} 需要列表")
    values = parameter if listed else [parameter]
    spec = dataset.fields.get(name)
    if spec is not None:
        _check_comparable(spec.type, operator, values)
    plain = spec is not None and spec.type in TEXT and values and all(isinstance(value, str) for value in values)
    if not plain or operator not in ("==", "!=", "IN", "NOT_IN"):
        return Condition((name,), None)
    wanted = pa.array(values, pa.string())
    negated = operator in ("!=", "NOT_IN")

    def mask(rows: pa.Table) -> Any:
        found = pc.is_in(rows.column(name), value_set=wanted)  # False for null, as in pandas
        return pc.invert(found) if negated else found

    return Condition((name,), mask)
