"""From a driver's error to ours: which may be tried again, which need a person.

SQLSTATE decides where there is one, SQLite's result code and MySQL's number where it is theirs; a PostgreSQL that refuses a connection gives only
words, in the language of the server, so these are looked up in English and Chinese. Messages carry the driver's first line only:
the lines below it quote rows.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.exc import DBAPIError, NoSuchModuleError, NoSuchTableError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from connectors.base import Node
from connectors.sql_codes import coded_kind
from connectors.sql_mysql_errors import kind_of as mysql_kind
from connectors.sql_mysql_errors import number_of
from connectors.sql_mysql_errors import said as mysql_said
from federation.errors import AccessDenied, Conflict, ConnectorError, Permanent, SchemaMismatch, Transient, Unreadable

_REFUSED = re.compile(
    r"password|authentication|pg_hba|not permitted|permission denied|access denied|口令|密码|认证|role .*does not exist|角色.*不存在",
    re.IGNORECASE,
)
_NO_DATABASE = re.compile(r"database .*does not exist|unknown database|数据库.*不存在", re.IGNORECASE)
_SILENT = re.compile(r"timed out|timeout expired|no answer for", re.IGNORECASE)
"""What drivers say, ours included, when they gave up waiting for the server."""
_MISSING = re.compile(r"no such (table|column)|has no column", re.IGNORECASE)

_EXTRAS = {"oracledb": "oracle", "pymssql": "mssql", "dmPython": "dameng", "dmSQLAlchemy": "dameng"}
"""Which extra brings a driver that is missing."""

_DENIED_STATES = ("28", "42501", "25006")
_MISSING_STATES = ("42P01", "42703", "3F000", "3D000")
_TRANSIENT_STATES = ("08", "25P03", "40", "53", "55P03", "57")
"""Classes (two characters) or states of PostgreSQL and its descendants."""

_SQLITE: dict[int, type[ConnectorError]] = {
    sqlite3.SQLITE_BUSY: Transient,
    sqlite3.SQLITE_LOCKED: Transient,
    sqlite3.SQLITE_IOERR: Transient,
    sqlite3.SQLITE_PERM: AccessDenied,
    sqlite3.SQLITE_READONLY: AccessDenied,
    sqlite3.SQLITE_AUTH: AccessDenied,
    sqlite3.SQLITE_CORRUPT: Unreadable,
    sqlite3.SQLITE_NOTADB: Unreadable,
}

_TEXTS: dict[type[ConnectorError], tuple[str, str, str]] = {
    AccessDenied: (
        "the database refused access",
        "数据库拒绝访问",
        "检查账号、口令与授权 / check user, password and grants",
    ),
    SchemaMismatch: (
        "the database lacks what the declaration names",
        "数据库缺少声明中的库、表或列",
        "检查 url、table 与 columns / check `url`, `table` and `columns`",
    ),
    Transient: (
        "the database does not answer, or is busy",
        "数据库暂时无响应或繁忙",
        "将自动重试；若持续，检查网络与服务；仅仅是慢则调大 timeout / it is tried again; if it lasts, check network and server; if it is merely slow, raise `timeout`",
    ),
    Unreadable: (
        "the file is not a sound database",
        "文件不是完好的数据库",
        "检查 url，或由备份恢复 / check `url`, or restore the file",
    ),
    Conflict: (
        "another writer inserted the same key at the same time",
        "另一写入者同时插入了相同主键",
        "将重新读取并合并 / it is read and merged again",
    ),
    Permanent: ("the database reports an error", "数据库报错", "按数据库的提示处理 / do as the database says"),
}


@contextmanager
def driver_errors(node: Node, table: str) -> Iterator[None]:
    """Wrap every error of SQLAlchemy and of a driver (kept as `__cause__`); ours and defects of our own code pass."""
    started = time.monotonic()
    try:
        yield
    except (SQLAlchemyError, OSError, ImportError) as cause:
        raise _translated(cause, node, table, time.monotonic() - started) from cause
    except Exception as cause:
        if not _of_a_driver(cause):
            raise
        raise _translated(cause, node, table, time.monotonic() - started) from cause


def _of_a_driver(cause: Exception) -> bool:
    """PEP 249 gives each driver its own `Error`; only the name is common to all."""
    return any(kind.__name__ == "Error" and kind.__module__ != "builtins" for kind in type(cause).__mro__)


def _translated(cause: Exception, node: Node, table: str, elapsed: float) -> ConnectorError:
    original = _original(cause)
    number = number_of(original)
    words = str(original) if number is None else mysql_said(original)
    said = (words.strip().splitlines() or [type(original).__name__])[0]
    kind = _kind(cause, original, said, table)
    en, zh, todo = _TEXTS[kind]
    if isinstance(cause, (ImportError, NoSuchModuleError)):
        todo = _driver_missing(getattr(cause, "name", None))
    error = kind(
        f"{en}: {said}",
        f"{zh}：{said}",
        todo=todo,
        dataset=node.dataset.name,
        region=str(node.region),
        system=node.system,
        table=table,
    )
    if isinstance(error, Transient) and _SILENT.search(said):
        error.waited = elapsed
    return error


def _original(cause: Exception) -> BaseException:
    """The driver's own error. Dameng's dialect wraps one without a code so that it only stands behind the wrapping."""
    if isinstance(cause, DBAPIError) and cause.orig is None:
        return cause.__context__ or cause
    return getattr(cause, "orig", None) or cause


def _driver_missing(module: str | None) -> str:
    if module in _EXTRAS:
        install = f'pip install "fedsync[{_EXTRAS[module]}]"'
        return f"安装该数据库的驱动：{install} / install the database's driver: {install}"
    return "安装该数据库的驱动，或改正 url / install the database's driver, or mend `url`"


def _kind(cause: Exception, original: BaseException, said: str, table: str) -> type[ConnectorError]:
    state = getattr(original, "sqlstate", None)
    if isinstance(cause, (NoSuchTableError, FileNotFoundError)):
        return SchemaMismatch
    if isinstance(cause, PermissionError):
        return AccessDenied
    if isinstance(cause, (OSError, PoolTimeout)):
        return Transient
    number = number_of(original)
    if number:
        return mysql_kind(original, number)
    if (coded := coded_kind(original)) is not None:
        return coded
    if isinstance(original, sqlite3.Error):
        return _sqlite_kind(original, said)
    if state:
        return _state_kind(str(state), original, table)
    if isinstance(cause, DBAPIError) and cause.connection_invalidated:
        return Transient
    if {"OperationalError", "InterfaceError"} & {kind.__name__ for kind in type(original).__mro__}:
        if _NO_DATABASE.search(said):
            return SchemaMismatch
        return AccessDenied if _REFUSED.search(said) else Transient
    return Permanent


def _state_kind(state: str, original: BaseException, table: str) -> type[ConnectorError]:
    if state.startswith(_DENIED_STATES):
        return AccessDenied
    if state.startswith(_MISSING_STATES):
        return SchemaMismatch
    if state.startswith(_TRANSIENT_STATES):
        return Transient
    diagnosis: Any = getattr(original, "diag", None)
    constraint = getattr(diagnosis, "constraint_name", None) or ""
    return Conflict if state == "23505" and constraint == f"{table}_pkey" else Permanent


def _sqlite_kind(original: sqlite3.Error, said: str) -> type[ConnectorError]:
    code = getattr(original, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in _SQLITE:
        return _SQLITE[code & 0xFF]
    if _MISSING.search(said):
        return SchemaMismatch
    return Transient if "locked" in said else Permanent
