"""Inspecting one table: what the catalogue says about it, judged against the contract. Nothing is written, and no record is read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, MetaData, Table, func, inspect, select
from sqlalchemy import types as sql
from sqlalchemy.exc import NoSuchTableError

from connectors import findings
from connectors.base import Capabilities, Node
from connectors.files import may
from connectors.findings import Finding, State
from connectors.sql_database import Database
from connectors.sql_rights import CREATE, READ, TEMPORARY, TRIGGER, WRITE, Rights, clock_of, rights_of
from connectors.sql_types import misfit

GRANT = "由系统管理员授权 / let the system's administrator grant it"


@dataclass(frozen=True)
class Place:
    """What is inspected, as declared."""

    node: Node
    table: str
    schema: str | None
    cursor_column: str | None
    create: bool
    desk: str | None

    @property
    def columns(self) -> list[str]:
        """The columns that the node uses."""
        wanted = [self.node.column(name) for name in self.node.fields]
        return list(dict.fromkeys([*wanted, *([self.cursor_column] if self.cursor_column else [])]))


@dataclass(frozen=True)
class Facts:
    """What was found. `columns`: as SQLAlchemy's inspector tells them, None if there is no table. `unique`: the database keeps the key
    unique. `doubles`: keys that stand more than once. `skew`: seconds by which its clock is ahead. `indexed`: the cursor column is.
    """

    backend: str
    columns: Mapping[str, Any] | None
    unique: bool
    doubles: int
    rights: Rights
    skew: float | None
    indexed: bool
    desk_there: bool


def inspected(place: Place, database: Database, capabilities: Capabilities) -> list[Finding]:
    """All findings on a table. Raises the driver's errors where the database is not reached."""
    path = Path(database.engine.url.database or "")
    if database.engine.dialect.name == "sqlite" and place.create and not path.exists():
        return _to_be_made(path, capabilities, place)
    with database.reading() as connection:
        facts = gather(place, database, connection)
        version = ".".join(map(str, connection.dialect.server_version_info or ()))
    return [
        *findings.reached(f"{facts.backend} {version}".strip()),
        *_rights(place, facts, capabilities),
        *_schema(place, facts),
        *_clock(place, facts),
        *_capture(place, facts, capabilities),
        *findings.strategy(capabilities, place.node.dataset),
    ]


def change_table(detail: str, there: bool) -> Finding:
    """Of log capture: whether its change table stands."""
    if there:
        return Finding("capture", "ok", f"变更表就绪（{detail}）", f"the change table stands ({detail})")
    return Finding(
        "capture",
        "warn",
        "变更表尚未建立",
        "there is no change table yet",
        "首次同步时由 prepare 建立 / the first sync's `prepare` creates it",
    )


def _to_be_made(path: Path, capabilities: Capabilities, place: Place) -> list[Finding]:
    """The database is a file that `prepare` will create."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    able = may(folder, os.W_OK)
    return [
        *findings.reached(f"{path.name}，尚不存在，prepare 将创建 / not there yet, `prepare` creates it"),
        *findings.rights({CREATE: ("建文件", "to create the file")}, {CREATE: able}, optional=False, todo=GRANT),
        *findings.strategy(capabilities, place.node.dataset),
    ]


def gather(place: Place, database: Database, connection: Connection) -> Facts:
    """Ask the catalogue. Raises the driver's errors."""
    before = datetime.now(UTC)
    theirs = clock_of(connection)
    after = datetime.now(UTC)
    skew = None if theirs is None else (theirs - before - (after - before) / 2).total_seconds()
    rights = rights_of(connection, place.table, place.schema, place.columns)
    inspector, at = inspect(connection), (place.table, place.schema)
    columns: dict[str, Any] | None
    try:
        columns = {found["name"]: found for found in inspector.get_columns(*at)}
        kinds = database.kinds(connection, *at)
        columns = {name: {**found, "type": kinds[name]} for name, found in columns.items()}
    except NoSuchTableError:
        columns = None
    keys = [place.node.column(name) for name in place.node.dataset.key]
    unique, indexed = False, True
    if columns is not None:
        kept: list[Sequence[str | None]] = [inspector.get_pk_constraint(*at)["constrained_columns"]]
        kept += [found["column_names"] for found in inspector.get_unique_constraints(*at)]
        indexes = inspector.get_indexes(*at)
        kept += [found["column_names"] for found in indexes if _is_unique(found)]
        unique = set(keys) in [set(filter(None, names)) for names in kept]
        indexed = place.cursor_column in [names[0] for names in [*kept, *(i["column_names"] for i in indexes)] if names]
    doubles = 0
    if columns is not None and not unique and set(keys) <= set(columns) and rights.granted.get("select") is not False:
        doubles = _doubles(connection, place, keys)
    desk_there = place.desk is not None and inspector.has_table(place.desk, place.schema)
    return Facts(connection.dialect.name, columns, unique, doubles, rights, skew, indexed, desk_there)


def _is_unique(index: Mapping[str, Any]) -> bool:
    """Of all rows: not where it covers some of them only."""
    return bool(index.get("unique")) and not index.get("dialect_options", {}).get("postgresql_where")


def _doubles(connection: Connection, place: Place, keys: Sequence[str]) -> int:
    """How many keys stand more than once."""
    table = Table(place.table, MetaData(schema=place.schema), *(Column(name, sql.NullType()) for name in keys))
    twice = select(*table.c).group_by(*table.c).having(func.count() > 1).subquery()
    return int(connection.execute(select(func.count()).select_from(twice)).scalar_one())


def _rights(place: Place, facts: Facts, capabilities: Capabilities) -> Iterator[Finding]:
    node, rights = place.node, facts.rights
    optional = not findings.receives(node.dataset, node.region.level, node.fields)
    if rights.locked is not None:
        zh, en = rights.locked
        state: State = "warn" if optional else "fail"
        yield Finding(
            "rights",
            state,
            f"不能写入：{zh}",
            f"nothing can be written: {en}",
            "将 url 指向可写的服务器 / point `url` at a server that takes writes",
        )
    if rights.hidden:
        yield Finding(
            "rights",
            "warn",
            "该表启用了行级安全：看不到的行会被当作已删除",
            "row security is active on the table: rows that this account cannot see look deleted",
            "授予 BYPASSRLS 或改用可见全部行的账号 / grant BYPASSRLS, or use an account that sees every row",
        )
    read: dict[str, tuple[str, str]] = {}
    write: dict[str, tuple[str, str]] = {}
    if facts.columns is not None:
        read = dict.fromkeys(READ, ("读取记录", "to read records"))
        write = dict.fromkeys(WRITE, ("写入记录", "to write records"))
    write[TEMPORARY] = ("批量写入用的临时表", "to stage what is written")
    made: dict[str, tuple[str, str]] = {}
    if (facts.columns is None and place.create) or (place.desk and not facts.desk_there):
        made[CREATE] = ("prepare 建表", "for `prepare` to create its tables")
    if capabilities.capture == "log":
        made[CREATE] = ("建变更表", "to create the change table")
        if facts.columns is not None:
            made[TRIGGER] = ("建触发器", "to create its triggers")
    for needed, spared in ((read | made, False), (write, optional)):
        if needed:
            yield from findings.rights(needed, rights.granted, optional=spared, todo=GRANT)


def _schema(place: Place, facts: Facts) -> Iterator[Finding]:
    node, columns = place.node, facts.columns
    if columns is None:
        zh, en = f"没有表 {place.table}", f"there is no table {place.table}"
        if place.create:
            yield Finding("schema", "ok", f"{zh}，prepare 将创建", f"{en}; `prepare` creates it")
        else:
            todo = "检查 table 与 schema_name；新表可写 create: true / check `table` and `schema_name`; for a new table set `create: true`"
            yield Finding("schema", "fail", zh, en, todo)
        return
    missing = [name for name in place.columns if name not in columns]
    if missing:
        yield findings.missing_columns(missing, columns)
    troubled = list(_misfits(place, facts))
    yield from troubled
    yield from _extra(place, columns)
    if facts.doubles:
        yield Finding(
            "schema",
            "fail",
            f"主键不唯一：{facts.doubles} 个主键重复，这些记录将被隔离",
            f"the key is not unique: {facts.doubles} keys stand more than once; their records would be set aside",
            "合并重复记录并建主键 / merge the doubles and create a primary key",
        )
    elif not facts.unique and not set(node.dataset.key) & set(missing):
        yield Finding(
            "schema",
            "warn",
            "数据库不保证主键唯一",
            "the database does not keep the key unique",
            "建主键或唯一约束 / create a primary key or a unique constraint",
        )
    if not missing and not troubled:
        bounded = {name: getattr(columns[node.column(name)]["type"], "length", None) for name in node.fields}
        limits = ", ".join(f"{name} ≤ {length}" for name, length in bounded.items() if length)
        zh, en = (f"（长度上限：{limits}）", f" (longest text: {limits})") if limits else ("", "")
        yield Finding(
            "schema",
            "ok",
            f"{len(node.fields)} 个字段均有合适的列{zh}",
            f"every one of {len(node.fields)} fields has a fitting column{en}",
        )


def _misfits(place: Place, facts: Facts) -> Iterator[Finding]:
    node, columns = place.node, facts.columns or {}
    dataset = node.dataset
    for name in node.fields:
        column = columns.get(node.column(name))
        if column is None:
            continue
        fault = misfit(dataset.fields[name], column["type"], facts.backend, code=name == dataset.jurisdiction)
        if fault is not None:
            state, zh, en = fault
            yield Finding(
                "schema",
                state,
                f"列 {column['name']}（{name}，{dataset.fields[name].type}）为 {column['type']}：{zh}",
                f"the column {column['name']} ({name}, {dataset.fields[name].type}) is {column['type']}: {en}",
                "修改列类型 / change the column's type",
            )
        empty = name not in (*dataset.key, dataset.jurisdiction) and name not in node.owned
        if empty and not column["nullable"] and column.get("default") is None:
            yield Finding(
                "schema",
                "warn",
                f"列 {column['name']} 不允许为空，而上下级可能送来空值",
                f"the column {column['name']} takes no empty value, and one may come from elsewhere",
                "允许为空 / let it be null",
            )


def _extra(place: Place, columns: Mapping[str, Any]) -> Iterator[Finding]:
    node = place.node
    extra = [found for name, found in columns.items() if name not in place.columns]
    stuck = [
        found["name"]
        for found in extra
        if not found["nullable"] and found.get("default") is None and not _filled_by_itself(found)
    ]
    gets_rows = any(level != node.region.level for level in node.dataset.originates)
    if stuck and gets_rows:
        listed = ", ".join(stuck)
        yield Finding(
            "schema",
            "fail",
            f"列 {listed} 必填且无默认值，契约中没有：新记录无法插入",
            f"the column {listed} must be set, has no default and is not in the contract: new records could not be inserted",
            "为该列设默认值 / give it a default",
        )
    others = ", ".join(found["name"] for found in extra)
    if others:
        yield Finding(
            "schema", "ok", f"契约之外的列，不会触及：{others}", f"columns beyond the contract, never touched: {others}"
        )


def _filled_by_itself(column: Mapping[str, Any]) -> bool:
    return bool(column.get("computed") or column.get("identity") or column.get("autoincrement") is True)


def _clock(place: Place, facts: Facts) -> Iterator[Finding]:
    if facts.skew is not None:
        yield findings.clock(facts.skew, place.node.dataset.clock_tolerance)
    elif facts.backend == "sqlite":
        yield Finding("clock", "ok", "与本机同一时钟", "the same clock as ours")


def _capture(place: Place, facts: Facts, capabilities: Capabilities) -> Iterator[Finding]:
    name, columns = place.cursor_column, facts.columns or {}
    if capabilities.capture != "cursor" or name is None or name not in columns:
        return
    kind = columns[name]["type"]
    if not isinstance(kind, (sql.DateTime, sql.Date, sql.Integer, sql.Numeric)) and facts.backend != "sqlite":
        yield Finding(
            "capture",
            "fail",
            f"时间列 {name} 为 {kind}，既非时间也非数字",
            f"the cursor column {name} is {kind}, neither a moment nor a number",
            "改用随每次修改更新的时间列 / name a column that moves with each change",
        )
    if not facts.indexed:
        yield Finding(
            "capture",
            "warn",
            f"时间列 {name} 没有索引，每次都扫描全表",
            f"the cursor column {name} has no index: each read scans the table",
            "为该列建索引 / create an index on it",
        )
    if facts.rights.sees_others is False:
        yield Finding(
            "capture",
            "warn",
            "看不到其他账号未提交的事务：迟到的提交只靠 overlap 找回",
            "open transactions of other accounts cannot be seen: a late commit is found within the overlap only",
            "授予 pg_read_all_stats（MySQL：PROCESS），或加大 overlap_seconds / grant pg_read_all_stats (MySQL: PROCESS), or raise `overlap_seconds`",
        )
