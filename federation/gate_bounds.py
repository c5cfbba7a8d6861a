"""The bounds of a `between` rule, compared as Great Expectations compares them, yet in the field's own type.

Great Expectations reads a numeric bound as a float. A whole or decimal number lies above a float exactly when it lies above
the next representable number of its own scale, so each bound is rounded once, in the safe direction, and then compared exactly.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from federation.canonical import arrow_type
from federation.contract import FieldSpec
from federation.errors import DeclarationError

Passes = Callable[[Any], Any]
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:\d{2})", re.ASCII)
_WIDE = Context(prec=400)
"""Enough digits for any float, written out, at any scale."""


@dataclass(frozen=True)
class Bounds:
    """What a `between` rule declares; at least one of the two is there."""

    low: Any
    high: Any
    strict_low: bool
    strict_high: bool

    @classmethod
    def of(cls, low: Any, high: Any, strict_low: Any, strict_high: Any) -> Bounds:
        """Raises DeclarationError if there is no bound, or a flag is not true or false."""
        if low is None and high is None:
            raise _fault("min_value and max_value are both missing", "min_value 与 max_value 至少写一个")
        if not all(flag in (None, True, False) for flag in (strict_low, strict_high)):
            raise _fault("strict_min and strict_max are true or false", "strict_min 与 strict_max 应为 true 或 false")
        return cls(low, high, bool(strict_low), bool(strict_high))

    def typed(self, read: Callable[[Any], Any]) -> Bounds:
        """The same bounds, read; also checks that they leave room."""
        low, high = (None if bound is None else read(bound) for bound in (self.low, self.high))
        if low is not None and high is not None and low > high:
            raise _fault("min_value is greater than max_value", "min_value 大于 max_value")
        return Bounds(low, high, self.strict_low, self.strict_high)

    def compare(self, low: pa.Scalar | int | None, high: pa.Scalar | int | None, *, strict: bool) -> Passes:
        """Compare a column with bounds of its own type; `strict=False` if strictness is already in the bounds."""
        above = pc.greater if strict and self.strict_low else pc.greater_equal
        below = pc.less if strict and self.strict_high else pc.less_equal

        def passes(column: Any) -> Any:
            if low is None:
                return below(column, high)
            if high is None:
                return above(column, low)
            return pc.and_(above(column, low), below(column, high))

        return passes


def _fault(en: str, zh: str, todo: str = "") -> DeclarationError:
    return DeclarationError(en, zh, todo=todo)


def _read_number(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise _fault(
            f"the bound {value!r} is not a number", f"界限 {value!r} 不是数字", "数字不加引号 / do not quote numbers"
        )
    try:
        return float(value)
    except OverflowError as cause:
        raise _fault("the bound is too large", "界限过大") from cause


def _read_length(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _fault(f"the length {value!r} is not a whole number", f"长度 {value!r} 不是整数")
    return max(min(value, 2**31 - 1), -1)


def _read_time(value: Any, kind: type[date]) -> date:
    wanted, form, example = (
        (_TIME, datetime, "2026-01-31T08:00:00+08:00") if kind is datetime else (_DATE, date, "2026-01-31")
    )
    try:
        if not isinstance(value, str) or not wanted.fullmatch(value):
            raise ValueError(f"it is {value!r}")
        return form.fromisoformat(value)
    except ValueError as cause:
        raise _fault(
            f"the bound is not like {example}: {cause}", f"界限应写作 {example}", f"改为 / write: {example}"
        ) from cause


def lengths(bounds: Bounds) -> Passes:
    """For a column of lengths."""
    typed = bounds.typed(_read_length)
    return typed.compare(typed.low, typed.high, strict=True)


def times(bounds: Bounds, kind: type[date]) -> Passes:
    """For a date column (bounds like 2026-01-31) or a timestamp column (bounds with an offset, so that no zone is guessed)."""
    typed = bounds.typed(lambda value: _read_time(value, kind))
    target = pa.timestamp("us", "UTC") if kind is datetime else pa.date32()
    low, high = (None if bound is None else pa.scalar(bound, target) for bound in (typed.low, typed.high))
    return typed.compare(low, high, strict=True)


def numbers(bounds: Bounds, spec: FieldSpec) -> Passes:
    """For an int, float or decimal column."""
    typed = bounds.typed(_read_number)
    if spec.type == "float":
        return typed.compare(typed.low, typed.high, strict=True)
    scale = 0 if spec.type == "int" else spec.scale
    least, most = (-(2**63), 2**63 - 1) if spec.type == "int" else (-(10**38) + 1, 10**38 - 1)
    low = None if typed.low is None else _steps(typed.low, scale, ROUND_CEILING, typed.strict_low)
    high = None if typed.high is None else _steps(typed.high, scale, ROUND_FLOOR, typed.strict_high)
    if (low is not None and low > most) or (high is not None and high < least):
        return lambda column: pc.and_(pc.is_valid(column), False)  # no value of this type lies there
    target = arrow_type(spec)
    if low is not None:
        low = max(low, least)
    if high is not None:
        high = min(high, most)
    return typed.compare(_scalar(low, scale, target), _scalar(high, scale, target), strict=False)


def _steps(bound: float, scale: int, rounding: str, strict: bool) -> int:
    """The outermost number of this scale inside the bound, in units of its last digit."""
    exact = _WIDE.scaleb(Decimal(bound), scale)
    steps = int(exact.to_integral_value(rounding))
    if strict and exact == steps:
        steps += 1 if rounding == ROUND_CEILING else -1
    return steps


def _scalar(steps: int | None, scale: int, target: pa.DataType) -> pa.Scalar | None:
    if steps is None:
        return None
    return pa.scalar(steps if pa.types.is_integer(target) else _WIDE.scaleb(Decimal(steps), -scale), target)
