"""From a driver's error to ours: which may be tried again, which need a person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.exc import DBAPIError, InterfaceError, NoSuchTableError, OperationalError, SQLAlchemyError

from connectors.base import Node
from federation.errors import AccessDenied, ConnectorError, FedsyncError, Permanent, SchemaMismatch, Transient

_DENIED = (
    "password authentication failed",
    "access denied",
    "permission denied",
    "no password supplied",
    "not authorized",
    "readonly database",
    "read-only",
    "role",
    "authentication",
)
_SCHEMA = ("no such table", "no such column", "does not exist", "unknown column", "undefined", "has no column")
_TRANSIENT = (
    "locked",
    "busy",
    "timeout",
    "timed out",
    "deadlock",
    "could not connect",
    "connection refused",
    "connection failed",
    "server closed",
    "terminat",
    "reset",
    "unable to open",
    "too many connections",
    "lost connection",
    "could not serialize",
    "name resolution",
    "could not translate host",
    "closed unexpectedly",
    "starting up",
    "shutting down",
)


@contextmanager
def driver_errors(node: Node, table: str) -> Iterator[None]:
    """Wrap every error of SQLAlchemy or its driver; ours pass."""
    try:
        yield
    except FedsyncError:
        raise
    except (SQLAlchemyError, OSError) as cause:
        raise _translated(cause, node, table) from cause


def _translated(cause: Exception, node: Node, table: str) -> ConnectorError:
    where: dict[str, Any] = {"dataset": node.dataset.name, "region": str(node.region), "system": node.system, "table": table}
    original = getattr(cause, "orig", None) or cause
    said = str(original).strip().splitlines()[0] if str(original).strip() else type(original).__name__
    text = said.lower()
    state = str(getattr(original, "sqlstate", "") or "")
    if state.startswith("28") or state == "42501" or (_says(text, _DENIED) and not _says(text, ("does not exist",))):
        return AccessDenied(
            f"the database refused: {said}",
            "数据库拒绝访问",
            todo="检查账号、口令与授权 / check user, password and grants",
            **where,
        )
    if (
        isinstance(cause, NoSuchTableError)
        or state in ("42P01", "42703", "3F000")
        or (not state and _says(text, _SCHEMA))
    ):
        return SchemaMismatch(
            f"the database lacks what the contract needs: {said}",
            "数据库缺少约定的表或列",
            todo="检查 table 与 columns / check `table` and `columns`",
            **where,
        )
    if (
        isinstance(cause, OSError)
        or state[:2] in ("08", "40", "53", "55", "57")
        or (isinstance(cause, (OperationalError, InterfaceError)) and _says(text, _TRANSIENT))
        or _disconnected(cause)
    ):
        return Transient(
            f"the database does not answer: {said}",
            "数据库暂时无响应",
            todo="稍后自动重试；若持续，检查网络与服务 / retried by itself; if it lasts, check network and server",
            **where,
        )
    return Permanent(
        f"the database reports: {said}", "数据库报错", todo="按数据库的提示处理 / do as the database says", **where
    )


def _says(text: str, words: tuple[str, ...]) -> bool:
    return any(word in text for word in words)


def _disconnected(cause: Exception) -> bool:
    return isinstance(cause, DBAPIError) and cause.connection_invalidated
