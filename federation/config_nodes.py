"""Checks of a declaration's nodes: which region keeps which dataset in which system, and under which names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from federation.config_codes import code_problems
from federation.contract import Dataset
from federation.errors import FedsyncError
from federation.regions import LEVEL_ZH, LEVELS, RegionTree
from federation.yamlfile import Position, YamlFile

if TYPE_CHECKING:
    from federation.config import BindingSpec, FederationSpec, NodeSpec

HOSTED = "hosted"
"""The system of a region that has none: the engine keeps its records itself."""


def node_problems(
    file: YamlFile, spec: FederationSpec, tree: RegionTree, datasets: Mapping[str, Dataset], *, complete: bool
) -> list[FedsyncError]:
    """Every fault of the declared nodes, in the order of the file. `complete`: no dataset is missing from `datasets`."""
    taken: dict[tuple[str, ...], int] = {}
    problems: list[FedsyncError] = []
    for index, node in enumerate(spec.nodes):
        here: Position = ("nodes", index)
        problems += _place_problems(file, here, node, spec, tree)
        levels = {tree[code].level for code in node.regions if code in tree} or ({node.level} if node.level else set())
        for name, bound in node.datasets.items():
            at = (*here, "datasets", name)
            dataset = datasets.get(name)
            if dataset is None and not complete:
                continue
            if dataset is None:
                known = ", ".join(datasets)
                problems.append(
                    file.error(at, f"there is no dataset {name}", f"没有数据集 {name}", f"取值 / one of: {known}")
                )
                continue
            for level in sorted(levels - set(dataset.levels), key=LEVELS.index):
                problems.append(
                    file.error(
                        at,
                        f"{name} has no level {level}",
                        f"数据集 {name} 不含{LEVEL_ZH[level]}级",
                        f"取值 / its levels: {', '.join(dataset.levels)}",
                    )
                )
            problems += _field_problems(file, at, dataset, bound)
            problems += _column_problems(file, at, dataset, bound, levels & set(dataset.levels))
            problems += code_problems(file, (*at, "codes"), dataset, bound, levels, hosted=node.system == HOSTED)
            problems += _double_problems(file, at, name, node, taken)
    return problems


def _place_problems(
    file: YamlFile, here: Position, node: NodeSpec, spec: FederationSpec, tree: RegionTree
) -> Iterator[FedsyncError]:
    if node.system != HOSTED and node.system not in spec.systems:
        yield file.error(
            (*here, "system"),
            f"there is no system {node.system}",
            f"没有业务系统 {node.system}",
            f"取值 / one of: {', '.join([*spec.systems, HOSTED])}",
        )
    if bool(node.regions) == bool(node.level):
        yield file.error(
            here, "a node names either `regions` or a `level`", "regions 与 level 二选一", "保留其一 / keep one of them"
        )
    for place, code in enumerate(node.regions):
        if code not in tree:
            yield file.error(
                (*here, "regions", place),
                f"unknown region {code}",
                f"未知区划 {code}",
                "检查代码或补充区划表 / check the code or add it to the region table",
            )
    if node.within is None:
        return
    within = (*here, "within")
    if node.within not in tree:
        yield file.error(
            within, f"unknown region {node.within}", f"未知区划 {node.within}", "检查代码 / check the code"
        )
    elif node.level is None:
        yield file.error(
            within, "`within` narrows a `level`", "within 只与 level 连用", "删去 within / delete `within`"
        )
    elif LEVELS.index(tree[node.within].level) > LEVELS.index(node.level):
        yield file.error(
            within,
            f"no {node.level} lies inside {tree[node.within]}",
            f"{tree[node.within]} 内没有{LEVEL_ZH[node.level]}级区划",
            "改为上级区划 / name a region above",
        )


def _field_problems(file: YamlFile, at: Position, dataset: Dataset, bound: BindingSpec) -> Iterator[FedsyncError]:
    named: list[tuple[Position, str]] = [(("columns", field), field) for field in bound.columns]
    named += [(("hosted", place), field) for place, field in enumerate(bound.hosted)]
    for inside, field in named:
        if field not in dataset.fields:
            yield file.error(
                (*at, *inside),
                f"{dataset.name} has no field {field}",
                f"{dataset.name} 没有字段 {field}",
                f"取值 / one of: {', '.join(dataset.fields)}",
            )
        elif inside[0] == "hosted" and field in dataset.key:
            yield file.error(
                (*at, *inside),
                f"the key field {field} cannot be hosted apart",
                f"主键 {field} 不能单独托管",
                "删去此项 / delete it",
            )
        elif inside[0] == "hosted" and field in bound.columns:
            yield file.error(
                (*at, *inside),
                f"{field} has a column and is hosted",
                f"{field} 既有列又被托管",
                "保留其一 / keep one of them",
            )


def _column_problems(
    file: YamlFile, at: Position, dataset: Dataset, bound: BindingSpec, levels: set[str]
) -> Iterator[FedsyncError]:
    """Two fields in one column would overwrite each other; a column for a field that never comes here is a slip."""
    here = [name for name in dataset.fields if levels & set(dataset.visible(name))]
    for field in bound.columns:
        if levels and field in dataset.fields and field not in here:
            yield file.error(
                (*at, "columns", field),
                f"{field} is not visible at this level ({', '.join(sorted(levels, key=LEVELS.index))})",
                f"{field} 在此层级不可见",
                "删去此项，或放宽 visible / delete it, or widen its `visible`",
            )
    first: dict[str, str] = {}
    for field in here:
        if field in bound.hosted:
            continue
        column = bound.columns.get(field, field)
        if column in first:
            place = field if field in bound.columns else first[column]
            yield file.error(
                (*at, "columns", place),
                f"{first[column]} and {field} share the column {column}",
                f"{first[column]} 与 {field} 共用列 {column}",
                "各用一列 / give each its own column",
            )
        first.setdefault(column, field)


def _double_problems(
    file: YamlFile, at: Position, name: str, node: NodeSpec, taken: dict[tuple[str, ...], int]
) -> Iterator[FedsyncError]:
    places: list[tuple[tuple[str, ...], str]] = [((name, code), f"region {code}") for code in node.regions]
    if not node.regions and node.level:
        inside = f" within {node.within}" if node.within else ""
        places.append(((name, node.level, node.within or ""), f"level {node.level}{inside}"))
    for key, place in places:
        if key in taken:
            yield file.error(
                at,
                f"{name} of {place} is already bound on line {taken[key]}",
                f"{name} 重复绑定（{place}，首次在第 {taken[key]} 行）",
                "删去一处 / delete one of them",
            )
        taken.setdefault(key, file.line(at))
