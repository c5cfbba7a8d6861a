"""Writing one batch's rows: stage them in a temporary table of the target's own types, update what exists, insert what does not.

Never a bare upsert: an INSERT of some columns would fail on the NOT NULL columns that it does not name, even for rows that exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
    func,
    insert,
    literal,
    select,
    text,
)

from connectors.base import Node
from connectors.sql_database import Columns, Database
from federation.errors import Conflict, Permanent

FAST_ROWS = 1_000
"""From here on, it pays to find out whether the table is empty."""


def unlogged(connection: Connection) -> AbstractContextManager[bool]:
    """What a load runs in where no change table notes it."""
    return nullcontext(False)


@dataclass(frozen=True)
class Target:
    """Where a node's rows are written. `stamp`: the system's own column of last change, which our writes must move too.

    `unique`: the database itself keeps the key unique. `checked`: what is there was compared with what was read, so a key that turns
    up while we insert it is somebody else's. `generated`: columns that the database fills in, and nobody may write. `loading`: what a load
    into the empty table runs in; tells whether a change table notes it as one line (`sql_log_table.ChangeTable.loading`).
    """

    node: Node
    table: Table
    stamp: Column[Any] | None
    unique: bool
    checked: bool = False
    generated: frozenset[str] = frozenset()
    loading: Callable[[Connection], AbstractContextManager[bool]] = unlogged

    def columns(self, rows: pa.Table) -> Columns:
        """The columns that these rows name and that may be written, key first."""
        keys = self.node.dataset.key
        others = [name for name in rows.column_names if self.node.column(name) not in self.generated]
        names = [*keys, *(name for name in others if name not in keys)]
        return {name: self.table.c[self.node.column(name)] for name in names}


def upsert(database: Database, connection: Connection, target: Target, rows: pa.Table) -> int:
    """Write rows by key, touching only the columns they name. How many rows were inserted or updated, as a change table counts them."""
    columns = target.columns(rows)
    keys = target.node.dataset.key
    if (
        database.fast_into_empty
        and target.unique  # a view has no key, and takes no bulk load
        and target.stamp is None
        and rows.num_rows >= FAST_ROWS
        and is_empty(connection, target)
    ):
        with target.loading(connection) as one_line:
            database.fill(connection, target.table, columns, rows, target.node.timezone, keys)
        return 1 if one_line else int(rows.num_rows)
    stage = _staged(database, connection, target, columns, rows.sort_by([(name, "ascending") for name in keys]))
    known = _update(database, connection, target, stage, columns)
    touched = known if _others(target, columns) else 0
    if known < rows.num_rows or not target.unique:
        touched += _insert(database, connection, target, stage, columns, rows.num_rows - known)
        if database.strays and target.unique:
            _refuse_strays(database, connection, target, stage)
    database.unstage(connection, stage.name)
    return touched


def remove(database: Database, connection: Connection, target: Target, keys: pa.Table) -> int:
    """Delete rows by key. How many there were."""
    columns = target.columns(keys)
    stage = _staged(database, connection, target, columns, keys)
    gone = connection.execute(database.removal(target.table, stage, _same(database, target, stage))).rowcount
    database.unstage(connection, stage.name)
    return int(gone)


@contextmanager
def staged_keys(database: Database, connection: Connection, target: Target, keys: pa.Table) -> Iterator[Any]:
    """The target's rows with these keys, as a FROM clause, while they stand in a temporary table."""
    stage = _staged(database, connection, target, target.columns(keys), keys)
    yield stage.join(target.table, _same(database, target, stage))
    database.unstage(connection, stage.name)


def is_empty(connection: Connection, target: Target) -> bool:
    """Whether the target has no row."""
    found = connection.execute(select(literal(1)).select_from(target.table).limit(1)).first()
    return found is None


def _staged(database: Database, connection: Connection, target: Target, columns: Columns, rows: pa.Table) -> Table:
    like = select(*columns.values()).where(text("1 = 0"))
    name = database.stage(connection, str(like.compile(dialect=connection.dialect)))
    stage = Table(name, MetaData(), *(Column(column.name, column.type) for column in columns.values()))
    database.load(
        connection, stage, {name: stage.c[column.name] for name, column in columns.items()}, rows, target.node.timezone
    )
    return stage


def _same(database: Database, target: Target, stage: Table, table: Any = None) -> Any:
    """The condition that a row of the table (or of an alias of it) has the key of a staged one."""
    specs = target.node.dataset.fields
    pairs = []
    for name in target.node.dataset.key:
        column = (target.table if table is None else table).c[target.node.column(name)]
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
    return database.update(connection, target.table, stage, same, values)


def _insert(
    database: Database, connection: Connection, target: Target, stage: Table, columns: Columns, count: int
) -> int:
    """Insert the `count` rows that do not exist, in the order of the key: it halves the work of the index. How many."""
    names = [column.name for column in columns.values()]
    picked: list[Any] = [stage.c[name] for name in names]
    if target.stamp is not None:
        names.append(target.stamp.name)
        picked.append(database.now(target.stamp, target.node.timezone))
    keys = [target.node.column(name) for name in target.node.dataset.key]
    fresh = _absent(database, target, stage, picked).order_by(*(stage.c[name] for name in keys))
    others = [name for name in names if name not in keys]
    if not target.unique:
        statement = insert(target.table)
    elif target.checked:
        statement = database.insert_new(target.table, keys, others)
    else:
        statement = database.insert_or_update(target.table, keys, others)
    written = statement.from_select(names, fresh, include_defaults=False).execution_options(preserve_rowcount=True)
    done = connection.execute(written).rowcount
    if target.unique and target.checked and 0 <= done < count:
        raise Conflict(
            f"{count - done} record(s) appeared while they were being written; nothing was written",
            f"写入期间出现了 {count - done} 条同键记录；未写入任何内容",
            todo="将重新读取并合并 / they are read and merged again",
            dataset=target.node.dataset.name,
            region=str(target.node.region),
            system=target.node.system,
            table=target.table.name,
        )
    return int(done)


def _absent(database: Database, target: Target, stage: Table, picked: list[Any]) -> Select[Any]:
    """Of the staged rows, those whose key is not in the table. As a join: MariaDB remembers the answer of a subquery for all
    keys that a collation takes for equal."""
    known = (
        target.table.alias()
    )  # MariaDB could not tell the table's columns from those of the one that is inserted into
    joined = stage.outerjoin(known, _same(database, target, stage, known))
    key = known.c[target.node.column(target.node.dataset.key[0])]
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
