"""A dataset's contract (数据契约): its typed fields, key, jurisdiction, authority and visibility.

Pure declaration, light enough to be parsed together with a DAG file: no Arrow, no driver.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator
from pydantic import Field as Option

from federation.regions import LEVELS
from federation.yamlfile import Fault, Faults

Level = Literal["city", "district", "street", "community"]
Authority = Literal["city", "district", "street", "community", "shared"]
FieldType = Literal["string", "int", "float", "decimal", "bool", "date", "timestamp", "enum", "json"]
Sensitivity = Literal["public", "internal", "personal", "sensitive"]
Normalisation = Literal["trim", "halfwidth", "upper", "lower", "collapse", "digits"]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
SHARED = "shared"
REJECT_COLUMNS = ("locator", "field", "value", "rule", "reason_zh", "reason_en")
"""Names that stand beside the key columns in a table of rejects, so no key field may have them."""


class Declared(BaseModel):
    """Base of everything that is read from YAML: frozen, and an unknown word is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FieldSpec(Declared):
    """One field of a dataset.

    `authority`: the level that alone may originate its value, or `shared` (last writer by the dataset's `version` field).
    `visible`: the levels whose nodes may hold it; it never travels further. Default: all levels of the dataset.
    """

    type: FieldType = "string"
    label: str = Option(description="中文名称, shown to people / Chinese label")
    label_en: str = ""
    authority: Authority = Option(description="一数一源: the level that owns the value, or `shared`")
    visible: tuple[Level, ...] = ()
    sensitivity: Sensitivity = "internal"
    normalise: tuple[Normalisation, ...] = ("trim",)
    values: tuple[str, ...] = Option(default=(), description="the allowed values of an enum")
    scale: int = Option(default=2, ge=0, le=18, description="digits after the point of a decimal")
    hint: str = Option(default="", description="input hint for the people who fill it in")


class Dataset(Declared):
    """What is shared: one dataset's contract.

    Promises after validation: the key and jurisdiction fields exist and are visible on every level; a field is visible on a
    contiguous run of the dataset's levels that includes its authority; a shared field implies a `version` field, and is not
    the jurisdiction.
    """

    name: Name
    label: str
    label_en: str = ""
    levels: tuple[Level, ...] = Option(min_length=2)
    key: tuple[Name, ...] = Option(min_length=1)
    jurisdiction: Name
    version: Name | None = None
    originates: tuple[Level, ...] = Option(min_length=1, description="levels that may create records")
    retires: tuple[Level, ...] = Option(
        default=(), description="levels that may delete records; default: those that originate"
    )
    fields: dict[Name, FieldSpec]
    suite: str | None = Option(default=None, description="Great Expectations suite, a file under the suites folder")
    schedule: str = Option(default="*/10 * * * *", description="cron of the sweep that looks for changes")
    reconcile: str | None = Option(
        default="30 3 * * *", description="cron of the comparison of both ends of each link; null: by hand only"
    )
    priority: int = Option(
        default=1,
        ge=1,
        le=100,
        description="of two tasks that wait for a worker, that of the higher dataset goes first",
    )
    freshness: int = Option(default=24 * 60, gt=0, description="minutes within which the data must reach every node")
    full_every: int = Option(default=24 * 60, ge=0, description="minutes after which a link compares all keys again")
    on_correction: Literal["revert", "hold"] = Option(
        default="revert",
        description="what becomes of a proposed value until it is ruled on: put back, or left standing",
    )
    correction_days: int = Option(
        default=10, ge=1, description="working days within which a correction is to be ruled on"
    )
    on_contest: Literal["latest", "review"] = Option(
        default="review",
        description="two children claim one key: the later `version` wins, or a person at their parent rules",
    )
    max_loss: float = Option(
        default=0.5, gt=0, le=1, description="a side that loses a larger share of its rows at once stops the link"
    )
    max_change: float = Option(
        default=0.8, gt=0, le=1, description="a side that changes a larger share of its rows at once stops the link"
    )
    quarantine_days: int | None = Option(
        default=None,
        ge=1,
        description="days after which the content of a quarantined record is emptied; default: the federation's",
    )
    clock_tolerance: int = Option(default=60, ge=1, description="minutes that a clock may be off before the link stops")

    @model_validator(mode="after")
    def _consistent(self) -> Dataset:
        faults = [*self._level_faults(), *self._role_faults(), *self._field_faults(), *self._shared_faults()]
        if faults:
            raise Faults(faults)
        return self

    def _level_faults(self) -> Iterator[Fault]:
        if list(self.levels) != sorted(set(self.levels), key=LEVELS.index):
            order = ", ".join(LEVELS)
            yield ("levels",), f"list each level once, from the top down ({order})", f"自上而下，每级一次（{order}）"
        for word in ("originates", "retires"):
            for level in getattr(self, word):
                if level not in self.levels:
                    yield (word,), f"{level} is not among the dataset's levels", f"{level} 不在本数据集的层级中"

    def _role_faults(self) -> Iterator[Fault]:
        """Faults of the fields that have a role: key, jurisdiction, version."""
        if len(set(self.key)) != len(self.key):
            yield ("key",), "a field stands twice in the key", "主键字段重复"
        roles = (("key", self.key), ("jurisdiction", (self.jurisdiction,)), ("version", (self.version,)))
        for word, names in roles:
            for name in names:
                if name is None:
                    continue
                if name not in self.fields:
                    yield (word,), f"there is no field {name}", f"没有字段 {name}"
                    continue
                kind = self.fields[name].type
                if word != "version" and set(self.visible(name)) < set(self.levels):
                    yield (
                        ("fields", name, "visible"),
                        f"a {word} field must be visible on every level",
                        "须在每一级可见",
                    )
                if word == "key" and (kind in ("float", "json") or name in REJECT_COLUMNS):
                    yield ("fields", name), "cannot be a key: choose another type or name", "不能作主键，请换类型或名称"
                if word == "jurisdiction" and kind != "string":
                    yield ("fields", name, "type"), "a jurisdiction is a string: a region code", "属地字段须为 string"
                if word == "version" and kind not in ("timestamp", "int"):
                    yield ("version",), "must be a timestamp or an int", "须为 timestamp 或 int"

    def _field_faults(self) -> Iterator[Fault]:
        for name, spec in self.fields.items():
            here = ("fields", name)
            stray = [level for level in spec.visible if level not in self.levels]
            shown = [level for level in self.levels if level in self.visible(name)]
            positions = [self.levels.index(level) for level in shown]
            levels = ", ".join(self.levels)
            if stray or not shown or positions != list(range(positions[0], positions[-1] + 1)):
                yield (
                    (*here, "visible"),
                    f"must be neighbouring levels of the dataset ({levels})",
                    f"须为本数据集的相邻层级（{levels}）",
                )
            if spec.authority != SHARED and spec.authority not in shown:
                yield (
                    (*here, "authority"),
                    f"{spec.authority} must be one of the levels where the field is visible",
                    f"{spec.authority} 须是该字段可见的层级之一",
                )
            if spec.type == "enum" and not spec.values:
                yield (*here, "values"), "an enum lists its allowed values", "枚举须列出允许的取值"
            if spec.type != "enum" and spec.values:
                yield (*here, "values"), "only an enum lists values", "只有枚举才列出取值"

    def _shared_faults(self) -> Iterator[Fault]:
        if self.on_contest == "latest" and self.version is None:
            yield ("on_contest",), "`latest` needs the dataset's `version` field", "latest 需要数据集声明 version"
        for name, spec in self.fields.items():
            here = ("fields", name, "authority")
            if spec.authority == SHARED and name == self.jurisdiction:
                yield (
                    here,
                    "a jurisdiction cannot be shared: one level places a record",
                    "属地字段不能共享，须由一级确定",
                )
            elif spec.authority == SHARED and self.version is None:
                yield here, "a shared field needs the dataset's `version` field", "共享字段需要数据集声明 version"
            elif spec.authority == SHARED and self.version in self.fields:
                assert self.version is not None
                if not set(self.visible(name)) <= set(self.visible(self.version)):
                    yield (
                        here,
                        f"{self.version} must be visible wherever a shared field is",
                        f"{self.version} 须随其可见",
                    )

    def visible(self, name: str) -> tuple[str, ...]:
        """The levels where a field may be held."""
        return self.fields[name].visible or self.levels

    def fields_at(self, level: str) -> tuple[str, ...]:
        """The fields that a node of `level` may hold, in the contract's order."""
        return tuple(name for name in self.fields if level in self.visible(name))

    @cached_property
    def hops(self) -> tuple[tuple[str, str], ...]:
        """Neighbouring levels, top down: (upper, lower)."""
        return tuple(zip(self.levels, self.levels[1:]))

    def may_create(self, level: str) -> bool:
        """Whether nodes of this level may create records."""
        return level in self.originates

    def may_retire(self, level: str) -> bool:
        """Whether nodes of this level may delete records."""
        return level in (self.retires or self.originates)

    def upper_of(self, level: str) -> str | None:
        """The dataset's level above `level`, None at the top."""
        position = self.levels.index(level)
        return self.levels[position - 1] if position else None

    def lower_of(self, level: str) -> str | None:
        """The dataset's level below `level`, None at the bottom."""
        position = self.levels.index(level)
        return self.levels[position + 1] if position + 1 < len(self.levels) else None


@dataclass(frozen=True)
class Group:
    """The fields of one authority that are visible on the same levels: on each hop, all of them travel or none.

    `direction` says whose value is true on this link. `authority`: a level, or `shared`.
    """

    name: str
    direction: Literal["descending", "ascending", "shared"]
    fields: tuple[str, ...]
    authority: str


@dataclass(frozen=True)
class LinkContract:
    """A dataset as one hop sees it: what `merge` needs to know, derived from the contract and nothing else."""

    dataset: Dataset
    upper: str
    lower: str

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The fields that travel on this hop: visible at both ends."""
        below = set(self.dataset.fields_at(self.lower))
        return tuple(name for name in self.dataset.fields_at(self.upper) if name in below)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The travelling fields by authority and visibility, key fields aside; at least the jurisdiction's group exists.

        A group has the same name and the same fields on every hop that carries it, so that what two links agreed on can be
        compared: a node passes on only what the link towards the authority agreed on.
        """
        found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for name in self.fields:
            if name not in self.dataset.key:
                place = (self.dataset.fields[name].authority, self.dataset.visible(name))
                found.setdefault(place, []).append(name)
        order = [*LEVELS, SHARED]
        return tuple(
            Group(self._name(authority, visible), self._direction(authority), tuple(names), authority)
            for (authority, visible), names in sorted(
                found.items(), key=lambda item: (order.index(item[0][0]), -len(item[0][1]), item[0][1])
            )
        )

    def _name(self, authority: str, visible: tuple[str, ...]) -> str:
        if set(visible) == set(self.dataset.levels):
            return authority
        shown = [level for level in LEVELS if level in visible]
        return f"{authority}_{shown[0]}_{shown[-1]}"

    def _direction(self, authority: str) -> Literal["descending", "ascending", "shared"]:
        if authority == SHARED:
            return "shared"
        return "descending" if LEVELS.index(authority) <= LEVELS.index(self.upper) else "ascending"

    def relayed(self, side: Literal["upper", "lower"]) -> tuple[Group, ...]:
        """The groups whose true value reaches this end from beyond it: the end passes it on, but does not own it."""
        if side == "upper":
            return tuple(g for g in self.groups if g.direction == "descending" and g.authority != self.upper)
        return tuple(g for g in self.groups if g.direction == "ascending" and g.authority != self.lower)

    def ruled_above(self, word: Literal["originates", "retires"], level: str) -> bool:
        """Whether a level above this one may create (or delete) records: then a deed of this level is ruled on up there."""
        levels = self.dataset.originates if word == "originates" else self.dataset.retires or self.dataset.originates
        return any(LEVELS.index(entitled) < LEVELS.index(level) for entitled in levels)

    def group_of(self, name: str) -> Group | None:
        """The group that carries a field; None for a key field or one that does not travel here."""
        return next((group for group in self.groups if name in group.fields), None)
