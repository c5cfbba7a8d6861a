"""Checks of a declaration's code tables: each must translate every value it may meet, and back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from federation.contract import Dataset, FieldSpec
from federation.errors import FedsyncError
from federation.yamlfile import Position, YamlFile

if TYPE_CHECKING:
    from federation.config import BindingSpec


_BOOL = {"是": "是", "true": "是", "yes": "是", "否": "否", "false": "否", "no": "否"}


def code_problems(
    file: YamlFile, at: Position, dataset: Dataset, bound: BindingSpec, levels: Collection[str], *, hosted: bool
) -> Iterator[FedsyncError]:
    """Every fault of a binding's code tables (at position `at`). `levels`: of the node; `hosted`: the engine itself keeps it."""
    if hosted and bound.codes:
        yield file.error(
            at,
            "what the engine hosts needs no codes",
            "引擎托管的数据不需要代码表",
            "删去 codes / delete `codes`",
        )
    for field, table in bound.codes.items():
        here = (*at, field)
        if field not in dataset.fields:
            yield file.error(
                here,
                f"{dataset.name} has no field {field}",
                f"{dataset.name} 没有字段 {field}",
                f"取值 / one of: {', '.join(dataset.fields)}",
            )
        elif field in bound.hosted:
            yield file.error(
                here,
                f"{field} is hosted, so no system has a code for it",
                f"{field} 由引擎托管，没有系统代码",
                "删去此项 / delete it",
            )
        elif levels and not set(levels) & set(dataset.visible(field)):
            yield file.error(
                here,
                f"{field} is not visible at this level ({', '.join(sorted(levels))})",
                f"{field} 在此层级不可见",
                "删去此项，或放宽 visible / delete it, or widen its `visible`",
            )
        else:
            yield from _table_problems(file, here, field, dataset.fields[field], table)


def _table_problems(
    file: YamlFile, here: Position, field: str, spec: FieldSpec, table: Mapping[str, int | str]
) -> Iterator[FedsyncError]:
    if spec.type not in ("enum", "bool", "string"):
        yield file.error(
            here,
            f"{field} is of type {spec.type}: only enum, bool and string have codes",
            f"{field} 的类型为 {spec.type}：只有 enum、bool、string 可有代码",
            "删去此项 / delete it",
        )
        return
    yield from _value_problems(file, here, field, spec, table)
    first: dict[str, str] = {}
    for value, code in table.items():
        text = str(code).strip()
        if not text:
            yield file.error(
                (*here, value), f"the code of {value} is blank", f"“{value}”的代码为空", "写出代码 / write its code"
            )
        elif text in first:
            yield file.error(
                (*here, value),
                f"{first[text]} and {value} share the code {text}: it could not be translated back",
                f"“{first[text]}”与“{value}”共用代码 {text}，无法还原",
                "各用一个代码 / give each its own",
            )
        first.setdefault(text, value)
    if len({isinstance(code, int) for code in table.values()}) > 1:
        yield file.error(
            here,
            f"the codes of {field} are partly numbers, partly text",
            f"{field} 的代码部分为数字、部分为文本",
            "统一写法：文本加引号 / write them alike: text in quotes",
        )


def _value_problems(
    file: YamlFile, here: Position, field: str, spec: FieldSpec, table: Mapping[str, int | str]
) -> Iterator[FedsyncError]:
    """Values that the contract does not know, that stand twice or that have no code."""
    known = {"bool": _BOOL, "enum": {value: value for value in spec.values}}.get(spec.type)
    if known is None:
        if not table:
            yield file.error(here, f"{field} has no codes", f"{field} 没有代码", "删去此项 / delete it")
        return
    meant: dict[str, str] = {}
    for value in table:
        word = known.get(value.lower() if spec.type == "bool" else value)
        if word is None:
            yield file.error(
                (*here, value),
                f"{value} is no value of {field}",
                f"“{value}”不是 {field} 的取值",
                f"取值 / one of: {', '.join(known)}",
            )
        elif word in meant:
            yield file.error(
                (*here, value),
                f"{meant[word]} and {value} are the same value",
                f"“{meant[word]}”与“{value}”是同一取值",
                "删去一处 / delete one of them",
            )
        else:
            meant[word] = value
    lost = [word for word in dict.fromkeys(known.values()) if word not in meant]
    if lost:
        yield file.error(
            here,
            f"{field} has no code for: {', '.join(lost)}",
            f"{field} 缺少以下取值的代码：{'、'.join(lost)}",
            "每个取值一个代码 / give each value a code",
        )
