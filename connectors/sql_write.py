"""Writing one batch's rows: stage them in a temporary table of the target's own types, update what exists, insert what does not.

Never a bare upsert: an INSERT of some columns would fail on the NOT NULL columns that it does not name, even for rows that exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    Select,
    Table,
    and_,
    false,
    func,
    insert,
    literal,
    select,
    text,
    update,
)

from connectors.base import Node
from connectors.sql_database import Columns, Database
from federation.errors import Permanent

_STAGE = "fedsync_stage"
FAST_ROWS = 1_000
"""From here on, it pays to find out whether the table is empty."""


@dataclass(frozen=True)
class Target:
    """Where a node's rows are written. `stamp`: the system's own column of last change, which our writes must move too.

    `unique`: the database itself keeps the key unique.
    """

    node: Node
    table: Table
    stamp: Column[Any] | None
    unique: bool

    def columns(self, rows: pa.Table) -> Columns:
        """The columns that these rows name, key first."""
        keys = self.node.dataset.key
        names = [*keys, *(name for name in rows.column_names if name not in keys)]
        return {name: self.table.c[self.node.column(name)] for name in names}


def upsert(database: Database, connection: Connection, target: Target, rows: pa.Table) -> None:
    """Write rows by key, touching only the columns they name."""
    columns = target.columns(rows)
    rows = rows.sort_by([(name, "ascending") for name in target.node.dataset.key])
    if (
        database.fast_into_empty
        and target.stamp is None
        and rows.num_rows >= FAST_ROWS
        and _is_empty(connection, target)
    ):
        database.load(connection, target.table, columns, rows, target.node.timezone)
        return
    stage = _staged(database, connection, target, columns, rows)
    known = _update(database, connection, target, stage, columns)
    if known < rows.num_rows or not target.unique:
        _insert(database, connection, target, stage, columns)
        if database.strays and target.unique:
            _refuse_strays(database, connection, target, stage)
    connection.execute(text(f"{database.unstage} {_STAGE}"))


def remove(database: Database, connection: Connection, target: Target, keys: pa.Table) -> None:
    """Delete rows by key."""
    columns = target.columns(keys)
    stage = _staged(database, connection, target, columns, keys)
    connection.execute(database.removal(target.table, stage, _same(database, target, stage)))
    connection.execute(text(f"{database.unstage} {_STAGE}"))


def _is_empty(connection: Connection, target: Target) -> bool:
    found = connection.execute(select(literal(1)).select_from(target.table).limit(1)).first()
    return found is None


def _staged(database: Database, connection: Connection, target: Target, columns: Columns, rows: pa.Table) -> Table:
    like = select(*columns.values()).where(false())
    compiled = like.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    database.stage(connection, _STAGE, str(compiled))
    stage = Table(_STAGE, MetaData(), *(Column(column.name, column.type) for column in columns.values()))
    database.load(
        connection, stage, {name: stage.c[column.name] for name, column in columns.items()}, rows, target.node.timezone
    )
    return stage


def _same(database: Database, target: Target, stage: Table) -> Any:
    specs = target.node.dataset.fields
    pairs = []
    for name in target.node.dataset.key:
        column = target.table.c[target.node.column(name)]
        pairs.append(database.same(column, stage.c[column.name], specs[name], column))
    return and_(*pairs)


def _others(target: Target, columns: Columns) -> list[Column[Any]]:
    return [column for name, column in columns.items() if name not in target.node.dataset.key]


def _update(database: Database, connection: Connection, target: Target, stage: Table, columns: Columns) -> int:
    """Update the rows that exist; how many there were."""
    values: dict[Any, Any] = {column: stage.c[column.name] for column in _others(target, columns)}
    same = _same(database, target, stage)
    if not values:
        known = select(func.count()).select_from(stage.join(target.table, same))
        return int(connection.execute(known).scalar_one())
    if target.stamp is not None:
        values[target.stamp] = database.now(target.stamp, target.node.timezone)
    return int(connection.execute(update(target.table).where(same).values(values)).rowcount)


def _insert(database: Database, connection: Connection, target: Target, stage: Table, columns: Columns) -> None:
    """Insert the rows that do not exist, in the order of the key: it halves the work of the index."""
    names = [column.name for column in columns.values()]
    picked: list[Any] = [stage.c[name] for name in names]
    if target.stamp is not None:
        names.append(target.stamp.name)
        picked.append(database.now(target.stamp, target.node.timezone))
    keys = [target.node.column(name) for name in target.node.dataset.key]
    fresh = _absent(database, target, stage, picked).order_by(*(stage.c[name] for name in keys))
    if target.unique:
        statement = database.insert_or_update(target.table, keys, [name for name in names if name not in keys])
    else:
        statement = insert(target.table)
    connection.execute(statement.from_select(names, fresh, include_defaults=False))


def _absent(database: Database, target: Target, stage: Table, picked: list[Any]) -> Select[Any]:
    """Of the staged rows, those whose key is not in the table. As a join: MariaDB remembers the answer of a subquery for all
    keys that a collation takes for equal."""
    joined = stage.outerjoin(target.table, _same(database, target, stage))
    key = target.table.c[target.node.column(target.node.dataset.key[0])]
    return select(*picked).select_from(joined).where(key.is_(None))


def _refuse_strays(database: Database, connection: Connection, target: Target, stage: Table) -> None:
    """Raise Permanent if a staged key is not in the table after all: its values went to another row."""
    keys = [stage.c[target.node.column(name)] for name in target.node.dataset.key]
    absent = _absent(database, target, stage, [database.plain(key) for key in keys])
    found = connection.execute(absent.limit(1)).first()
    if found is not None:
        raise Permanent(
            "the table takes a new key for one that it has, by its collation or another unique index; nothing was written",
            "表按其排序规则或其他唯一索引，将新主键视为已有记录；未写入任何内容",
            todo="主键列改用区分大小写的二进制排序规则，或去除冲突的唯一索引 / give the key columns a binary collation, or mend the unique index",
            dataset=target.node.dataset.name,
            region=str(target.node.region),
            system=target.node.system,
            table=target.table.name,
            key=", ".join(map(str, found)),
        )
