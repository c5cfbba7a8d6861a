"""Checks (`meta.check`): what Great Expectations has no kind for, added to a rule of one of its own kinds.

A suite stays Great Expectations' own JSON: its loader keeps `meta` as it is, and judges what the rule's kind says (the shape of an
id number). The gate judges that and the check (its check digit): a row fails if either does. A check is always evaluated here, on
whole columns, never in Great Expectations, so it needs a rule that compiles.

What a check must know beyond the rows (today, the region tree, other records) it asks of `Around`, which the link run passes in:
the gate itself has no clock and reads no system.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from federation import gate_codes
from federation.contract import Dataset
from federation.errors import DeclarationError
from federation.gate_reason import flat
from federation.regions import LEVELS, RegionTree

_REGEX = "expect_column_values_to_match_regex"
_NOT_NULL = "expect_column_values_to_not_be_null"
_LENGTH = "expect_column_value_lengths_to_be_between"
_UNIQUE = "expect_column_values_to_be_unique"
_BETWEEN = "expect_column_values_to_be_between"


class Around(Protocol):
    """What surrounds moving records, for one direction of one link.

    `now`: the moment of the run, in the federation's time zone. `region`: the code of the link's lower region.
    """

    @property
    def now(self) -> datetime: ...

    @property
    def tree(self) -> RegionTree: ...

    @property
    def region(self) -> str: ...

    def exist(self, dataset: str, keys: pa.Array) -> pa.Array:
        """Of these keys (as text), those that the node where the records come from holds in another dataset."""
        ...

    def held(self, name: str, values: pa.Array) -> pa.Array:
        """Of these values of a field, each as often as there are records with it among all that the node where they go to will hold
        afterwards, the moving ones included."""
        ...


@dataclass(frozen=True)
class Check:
    """A check as declared. `columns`: further fields that it reads. `options`: its own words."""

    kind: str
    column: str
    columns: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def asks(self) -> bool:
        """Whether it must know more than the rows."""
        return self.kind in _ASKING

    @property
    def text(self) -> str:
        """As a person writes it down: `exists dataset=resident`."""
        return " ".join([self.kind, *(f"{word}={value}" for word, value in self.options.items())])

    def passes(self, rows: pa.Table, dataset: Dataset, around: Around | None) -> pa.Array:
        """Per row, whether the value passes; what it says of a null does not count."""
        if self.kind in _PLAIN:
            return _PLAIN[self.kind](self, rows)
        assert around is not None, "the gate refuses to judge without"
        return _ASKING[self.kind](self, rows, dataset, around)


@dataclass(frozen=True)
class _Shape:
    """What a check goes with: kinds of rules, types of fields; and its words: required, optional."""

    rules: tuple[str, ...]
    types: tuple[str, ...]
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


_TEXT_RULES = (_REGEX, _LENGTH, _NOT_NULL)
SHAPES: dict[str, _Shape] = {
    "id_number": _Shape((_REGEX,), ("string",)),
    "id_number_birth_date": _Shape((_REGEX,), ("string",), ("birth_date",)),
    "social_credit_code": _Shape((_REGEX,), ("string",)),
    "region": _Shape((_REGEX,), ("string",), (), ("level",)),
    "jurisdiction": _Shape((_REGEX,), ("string",)),
    "not_future": _Shape((_BETWEEN, _NOT_NULL), ("date", "timestamp")),
    "exists": _Shape(_TEXT_RULES, ("string", "int"), ("dataset",)),
    "unique_at_node": _Shape((_UNIQUE,), ("string", "int", "date", "timestamp", "enum")),
}


def parse_check(
    value: Any, kind: str, column: str, dataset: Dataset, datasets: Mapping[str, Dataset] | None
) -> Check | None:
    """Read a rule's `meta.check`; None if it has none. Raises DeclarationError if it cannot be meant.

    `datasets`: all of the federation, for references; None: references are taken as they are.
    """
    if value is None:
        return None
    if not isinstance(value, dict) or value.get("kind") not in list(SHAPES):
        raise _fault(
            "meta.check needs a `kind` that is known",
            "meta.check 的 kind 不存在",
            f"取值 / one of: {', '.join(SHAPES)}",
        )
    name, shape = str(value["kind"]), SHAPES[value["kind"]]
    options = {word: item for word, item in value.items() if word != "kind"}
    known = {*shape.required, *shape.optional}
    if set(options) - known or not set(shape.required) <= set(options):
        raise _fault(
            f"the check {name} takes {', '.join(sorted(known)) or 'no further word'}",
            f"检查 {name} 的参数不对",
            f"需要 / it needs: {', '.join(shape.required) or '–'}",
        )
    if kind not in shape.rules:
        raise _fault(
            f"the check {name} does not go with {kind}",
            f"检查 {name} 不能用于 {kind}",
            f"取值 / one of: {', '.join(shape.rules)}",
        )
    spec = dataset.fields[column]
    if spec.type not in shape.types:
        raise _fault(
            f"the check {name} is for {' or '.join(shape.types)}; the field is a {spec.type}",
            f"检查 {name} 不适用于类型 {spec.type}",
            "换一个字段或检查 / choose another field or check",
        )
    return Check(name, column, _further(name, options, dataset, datasets), options)


def _further(
    name: str, options: Mapping[str, Any], dataset: Dataset, datasets: Mapping[str, Dataset] | None
) -> tuple[str, ...]:
    """Check a check's own words; returns the further fields that it reads."""
    if name == "region" and options.get("level", LEVELS[0]) not in LEVELS:
        raise _fault("unknown level", "未知层级", f"取值 / one of: {', '.join(LEVELS)}")
    if name == "id_number_birth_date":
        other = options["birth_date"]
        spec = dataset.fields.get(other) if isinstance(other, str) else None
        if spec is None or spec.type != "date":
            raise _fault(
                f"{other!r} is not a date field", f"{other!r} 不是日期字段", "填写日期字段名 / name a date field"
            )
        return (other,)
    if name == "exists" and datasets is not None:
        _check_reference(str(options["dataset"]), dataset, datasets)
    return ()


def _check_reference(name: str, dataset: Dataset, datasets: Mapping[str, Dataset]) -> None:
    other = datasets.get(name)
    if other is None:
        raise _fault(f"there is no dataset {name}", f"没有数据集 {name}", f"取值 / one of: {', '.join(datasets)}")
    if len(other.key) != 1:
        raise _fault(
            f"the key of {name} has several fields",
            f"{name} 的主键由多个字段组成",
            "只能引用单字段主键 / refer to a single key field",
        )
    if not set(dataset.levels) <= set(other.levels):
        raise _fault(
            f"{name} is not kept on every level of {dataset.name}",
            f"{name} 并非在 {dataset.name} 的每一级都有",
            "删去这条规则 / delete the rule",
        )


def _fault(en: str, zh: str, todo: str) -> DeclarationError:
    return DeclarationError(en, zh, todo=todo)


def _same_birth_date(check: Check, rows: pa.Table) -> pa.Array:
    """A number without a birth date is another rule's business, and so is a record without one."""
    told = gate_codes.birth_dates(rows.column(check.column))
    return flat(pc.fill_null(pc.equal(told, flat(rows.column(check.columns[0]))), True))


def _region(check: Check, rows: pa.Table, dataset: Dataset, around: Around) -> pa.Array:
    level = check.options.get("level")
    known = [region.code for region in around.tree if level is None or region.level == level]
    return flat(pc.is_in(rows.column(check.column), value_set=pa.array(known, pa.string())))


def _jurisdiction(check: Check, rows: pa.Table, dataset: Dataset, around: Around) -> pa.Array:
    level = around.tree[around.region].level
    inside = [code for code, at in around.tree.routes(level).items() if at == around.region]
    return flat(pc.is_in(rows.column(check.column), value_set=pa.array(inside, pa.string())))


def _not_future(check: Check, rows: pa.Table, dataset: Dataset, around: Around) -> pa.Array:
    values = flat(rows.column(check.column))
    limit = around.now if pa.types.is_timestamp(values.type) else around.now.date()
    return pc.less_equal(values, pa.scalar(limit, values.type))


def _exists(check: Check, rows: pa.Table, dataset: Dataset, around: Around) -> pa.Array:
    texts = flat(pc.cast(rows.column(check.column), pa.string()))
    wanted = texts.unique().drop_null()
    found = around.exist(str(check.options["dataset"]), wanted) if len(wanted) else wanted
    return pc.is_in(texts, value_set=found)


def _unique_at_node(check: Check, rows: pa.Table, dataset: Dataset, around: Around) -> pa.Array:
    """Each record counts once, the moving ones included: a value that is there twice is another's as well."""
    values = flat(rows.column(check.column))
    wanted = values.unique().drop_null()
    counts = pc.value_counts(around.held(check.column, wanted) if len(wanted) else wanted)
    return pc.invert(pc.is_in(values, value_set=counts.field("values").filter(pc.greater(counts.field("counts"), 1))))


_PLAIN: dict[str, Callable[[Check, pa.Table], pa.Array]] = {
    "id_number": lambda check, rows: gate_codes.id_numbers(rows.column(check.column)),
    "id_number_birth_date": _same_birth_date,
    "social_credit_code": lambda check, rows: gate_codes.credit_codes(rows.column(check.column)),
}
_ASKING: dict[str, Callable[[Check, pa.Table, Dataset, Around], pa.Array]] = {
    "region": _region,
    "jurisdiction": _jurisdiction,
    "not_future": _not_future,
    "exists": _exists,
    "unique_at_node": _unique_at_node,
}
