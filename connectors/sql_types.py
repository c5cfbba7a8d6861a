"""Whether a column can hold a field's values, as they are, for ever."""

from __future__ import annotations

from typing import Any

from sqlalchemy import types as sql
from sqlalchemy.dialects import mysql

from connectors.findings import State
from federation.contract import FieldSpec

Fault = tuple[State, str, str]
_AS_TEXT: Fault = (
    "warn",
    "以文本保存，写错的值会被隔离",
    "kept as text: what cannot be read as such is set aside",
)
_CODE_LENGTH = 12
_SHORTEST = {"date": 10, "timestamp": 23, "bool": 1}
"""Characters that a value takes as text (moments with milliseconds)."""


def misfit(spec: FieldSpec, column: sql.TypeEngine[Any], backend: str, *, code: bool = False) -> Fault | None:
    """What is wrong with this type for this field, in Chinese and English; None if it suits. `code`: it holds region codes."""
    if isinstance(column, sql.NullType):
        return None
    if isinstance(column, sql.String):
        return _text(spec, column, backend, code)
    return {
        "string": _string,
        "enum": _string,
        "json": _json,
        "int": _int,
        "float": _float,
        "decimal": _decimal,
        "bool": _bool,
        "date": _date,
        "timestamp": _timestamp,
    }[spec.type](spec, column)


def _text(spec: FieldSpec, column: sql.String, backend: str, code: bool) -> Fault | None:
    if isinstance(column, sql.Enum):
        return _labels(spec, column)
    need = _SHORTEST.get(spec.type, 1)
    if spec.type == "enum":
        need = max(map(len, spec.values))
    elif code:
        need = _CODE_LENGTH
    if column.length is not None and column.length < need:
        return (
            "fail",
            f"最多 {column.length} 字，至少需要 {need} 字",
            f"takes {column.length} characters, {need} are needed",
        )
    if spec.type in ("string", "enum", "json") or backend == "sqlite":
        return None
    return _AS_TEXT


def _labels(spec: FieldSpec, column: sql.Enum) -> Fault | None:
    lacks = [value for value in spec.values if value not in column.enums]
    if spec.type != "enum":
        return "fail", "只接受固定取值", "takes set values only"
    if lacks:
        return "fail", f"缺少取值 {'、'.join(lacks)}", f"lacks the value {', '.join(lacks)}"
    return None


def _string(spec: FieldSpec, column: sql.TypeEngine[Any]) -> Fault | None:
    return "fail", "不能保存文本，前导零会丢失", "cannot hold text; leading zeros would be lost"


def _json(spec: FieldSpec, column: sql.TypeEngine[Any]) -> Fault | None:
    return None if isinstance(column, sql.JSON) else ("fail", "不能保存 JSON", "cannot hold JSON")


def _int(spec: FieldSpec, column: sql.TypeEngine[Any]) -> Fault | None:
    if isinstance(column, (sql.SmallInteger, mysql.TINYINT)):
        return "warn", "放不下较大的整数", "has no room for large numbers"
    if isinstance(column, sql.Integer):
        return None
    if isinstance(column, sql.Float):
        return "warn", "较大的整数会失准", "large numbers lose digits"
    return None if isinstance(column, sql.Numeric) else ("fail", "不能保存整数", "cannot hold whole numbers")


def _float(spec: FieldSpec, column: sql.TypeEngine[Any]) -> Fault | None:
    if isinstance(column, sql.Integer):
        return "fail", "小数部分会丢失", "fractions would be lost"
    if isinstance(column, sql.Float):
        return None
    if isinstance(column, sql.Numeric):
        return "warn", "小数会被舍入", "fractions are rounded"
    return "fail", "不能保存小数", "cannot hold numbers"


def _decimal(spec: FieldSpec, column: sql.TypeEngine[Any]) -> Fault | None:
    scale = getattr(column, "scale", None)
    if isinstance(column, sql.Float):
        return "warn", "小数会失准", "digits may be lost"
    if isinstance(column, sql.Integer):
        scale = 0
    elif not isinstance(column, sql.Numeric):
        return "fail", "不能保存小数", "cannot hold decimals"
    if scale is not None and scale < spec.scale:
        return (
            "fail",
            f"小数位 {scale}，契约为 {spec.scale}",
            f"keeps {scale} digits after the point, the contract has {spec.scale}",
        )
    return None


def _bool(spec: FieldSpec, column: sql.TypeEngine[Any]) -> Fault | None:
    fits = isinstance(column, (sql.Boolean, sql.Integer, mysql.BIT))
    return None if fits else ("fail", "不能保存是/否", "cannot hold yes or no")


def _date(spec: FieldSpec, column: sql.TypeEngine[Any]) -> Fault | None:
    return None if isinstance(column, (sql.Date, sql.DateTime)) else ("fail", "不能保存日期", "cannot hold dates")


def _timestamp(spec: FieldSpec, column: sql.TypeEngine[Any]) -> Fault | None:
    if not isinstance(column, sql.DateTime):
        return "fail", "不能保存日期时间", "cannot hold moments"
    digits = getattr(column, "fsp", None) if isinstance(column, (mysql.DATETIME, mysql.TIMESTAMP)) else None
    if isinstance(column, (mysql.DATETIME, mysql.TIMESTAMP)):
        digits = digits or 0
    else:
        digits = getattr(column, "precision", None)
    if digits is not None and digits < 3:
        return "warn", "毫秒会丢失，看似被人修改", "milliseconds are lost, which looks like an edit"
    return None
