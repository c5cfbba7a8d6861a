"""The administrative tree: regions on four levels, addressed by 12-digit statistical codes.

Codes follow GB/T 2260 (first six digits) and GB/T 10114 (street), extended to the community by the National Bureau of
Statistics. The tree is read from a table; codes are never taken apart, since development zones break the prefix rule.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from federation.errors import DeclarationError

LEVELS: tuple[str, ...] = ("city", "district", "street", "community")
LEVEL_ZH = {"city": "市", "district": "区", "street": "街镇", "community": "社区"}
_CODE = re.compile(r"[0-9]{12}")
_COLUMNS = ("code", "name", "level", "parent")


@dataclass(frozen=True, slots=True)
class Region:
    """One node of the administrative tree. `parent` is the code of the region one level up, None for the city."""

    code: str
    name: str
    level: str
    parent: str | None

    def __str__(self) -> str:
        return f"{self.name}({self.code})"


@dataclass(frozen=True)
class RegionTree:
    """All regions of a federation; every region but the city hangs under one on the level above."""

    regions: dict[str, Region]
    _children: dict[str, tuple[str, ...]] = field(repr=False)
    _routes: dict[str, dict[str, str]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, regions: Iterable[Region]) -> RegionTree:
        """Index regions that are known to be valid."""
        by_code = {region.code: region for region in regions}
        below: dict[str, list[str]] = {}
        for region in by_code.values():
            if region.parent is not None:
                below.setdefault(region.parent, []).append(region.code)
        return cls(by_code, {code: tuple(sorted(codes)) for code, codes in below.items()})

    @classmethod
    def read(cls, path: Path) -> RegionTree:
        """Read a CSV with columns code, name, level, parent (UTF-8). Raises DeclarationError that lists every bad row."""
        try:
            with path.open(encoding="utf-8-sig", newline="") as lines:
                reader = csv.DictReader(lines)
                missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
                if missing:
                    raise DeclarationError(
                        f"the region table lacks the column {', '.join(missing)}",
                        f"区划表缺少列 {', '.join(missing)}",
                        todo=f"表头应为 / the header must be: {','.join(_COLUMNS)}",
                        file=path,
                        line=1,
                    )
                rows = [(reader.line_num, row) for row in reader]
        except (OSError, UnicodeDecodeError, csv.Error) as cause:
            raise DeclarationError(
                f"the region table cannot be read: {cause}",
                "无法读取区划表",
                todo="检查 regions 路径与 UTF-8 编码 / check the path under `regions` and save it as UTF-8",
                file=path,
            ) from cause
        return cls._checked(rows, path)

    @classmethod
    def _checked(cls, rows: list[tuple[int, dict[str, str]]], path: Path) -> RegionTree:
        problems: list[DeclarationError] = []

        def wrong(line: int, code: str, en: str, zh: str, todo: str) -> None:
            problems.append(DeclarationError(en, zh, todo=todo, file=path, line=line, region=code))

        found: dict[str, tuple[int, Region]] = {}
        for line, row in rows:
            code, level = (row["code"] or "").strip(), (row["level"] or "").strip()
            region = Region(code, (row["name"] or "").strip(), level, (row["parent"] or "").strip() or None)
            if not _CODE.fullmatch(code):
                wrong(
                    line,
                    code,
                    f"region code {code!r} is not 12 digits",
                    f"区划代码 {code!r} 不是 12 位数字",
                    "改为 12 位统计代码 / use the 12-digit statistical code",
                )
            elif level not in LEVELS:
                wrong(
                    line, code, f"unknown level {level!r}", f"未知层级 {level!r}", f"取值 / one of: {', '.join(LEVELS)}"
                )
            elif not region.name:
                wrong(line, code, "the region has no name", "区划缺少名称", "补上 name / add its name")
            elif code in found:
                wrong(
                    line,
                    code,
                    f"region {code} stands twice (first on line {found[code][0]})",
                    f"区划 {code} 重复（首次在第 {found[code][0]} 行）",
                    "删去一行 / delete one of the rows",
                )
            else:
                found[code] = (line, region)
        faulty = {str(problem.where.get("region")) for problem in problems}
        for line, region in found.values():
            if region.level == LEVELS[0]:
                if region.parent is not None:
                    wrong(line, region.code, "a city has no parent", "市级没有上级", "清空 parent / leave parent empty")
                continue
            above = LEVELS[LEVELS.index(region.level) - 1]
            parent = found.get(region.parent or "")
            if parent is None and region.parent in faulty:
                continue  # told already, at the parent's own row
            if parent is None:
                wrong(
                    line,
                    region.code,
                    f"orphan region: parent {region.parent!r} is not in the table",
                    f"孤儿区划：上级 {region.parent!r} 不在表中",
                    "补上上级或改正 parent / add the parent or mend `parent`",
                )
            elif parent[1].level != above:
                wrong(
                    line,
                    region.code,
                    f"the parent of a {region.level} must be a {above}, {region.parent} is a {parent[1].level}",
                    f"{LEVEL_ZH[region.level]}的上级应为{LEVEL_ZH[above]}",
                    "改正 parent 或 level / mend `parent` or `level`",
                )
        if not problems and not found:
            problems.append(
                DeclarationError(
                    "the region table is empty", "区划表为空", todo="至少一个市 / list at least one city", file=path
                )
            )
        if problems:
            raise DeclarationError(
                f"{len(problems)} problem(s) in the region table",
                f"区划表有 {len(problems)} 处问题",
                problems=tuple(problems),
                file=path,
            )
        return cls.of(region for _, region in found.values())

    def __contains__(self, code: object) -> bool:
        return code in self.regions

    def __getitem__(self, code: str) -> Region:
        try:
            return self.regions[code]
        except KeyError:
            raise DeclarationError(
                f"unknown region {code}",
                f"未知区划 {code}",
                todo="检查代码或补充区划表 / check the code or add it to the region table",
                region=code,
            ) from None

    def __iter__(self) -> Iterator[Region]:
        return iter(self.regions.values())

    def __len__(self) -> int:
        return len(self.regions)

    def name_of(self, code: str | None) -> str:
        """A region's name, for people; of one that has left the table the code, of none a dash."""
        if code is None:
            return "–"
        return self.regions[code].name if code in self.regions else code

    def at(self, level: str) -> list[Region]:
        """The regions of one level, in the order of their codes."""
        return sorted((region for region in self if region.level == level), key=lambda region: region.code)

    def ancestor(self, code: str, level: str) -> Region | None:
        """The region at `level` that `code` lies in (itself included); None if it lies above that level."""
        region: Region | None = self.regions.get(code)
        while region is not None and region.level != level:
            region = self.regions.get(region.parent) if region.parent else None
        return region

    def lies_in(self, code: str, region: str) -> bool:
        """Whether one region is another, or lies inside it. Raises DeclarationError if `region` is unknown."""
        return self.ancestor(code, self[region].level) == self[region]

    def related(self, one: str, other: str) -> bool:
        """Whether one of two regions lies in the other, or they are the same."""
        return self.lies_in(one, other) or self.lies_in(other, one)

    def below(self, code: str, level: str) -> list[Region]:
        """The regions at `level` inside `code`, in the order of their codes; levels between may be skipped."""
        frontier = [self[code]]
        while frontier and frontier[0].level != level:
            frontier = [self.regions[child] for region in frontier for child in self._children.get(region.code, ())]
        return frontier

    def routes(self, level: str) -> dict[str, str]:
        """For every region at or below `level`: the code of its region at `level`. Where a record of that jurisdiction goes.

        Worked out once per level, since each link of a city asks; not to be changed by the caller.
        """
        if level not in self._routes:
            found = {region.code: self.ancestor(region.code, level) for region in self}
            self._routes[level] = {code: target.code for code, target in found.items() if target is not None}
        return self._routes[level]
