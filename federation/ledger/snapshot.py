"""Copying tables out of a database while others write to it, and putting such a copy back; the same for SQLite and PostgreSQL.

A table becomes one Parquet file of plain types, so that a copy of one kind of database can be put into another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import (
    BigInteger,
    Boolean,
    Connection,
    Date,
    Engine,
    Integer,
    LargeBinary,
    Table,
    TypeDecorator,
    create_engine,
    event,
    insert,
    inspect,
    select,
    text,
)

from federation.storage import Storage

AT_ONCE = 5_000
"""Rows that are held at a time."""


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """One moment of a database, read without keeping anybody from writing."""
    if engine.dialect.name != "sqlite":
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            yield connection
        return
    reader = create_engine(engine.url, connect_args={"timeout": 60})

    @event.listens_for(reader, "connect")
    def _configure(driver: Any, _record: Any) -> None:
        driver.isolation_level = None

    @event.listens_for(reader, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")  # a reader of the write-ahead log: sees one moment, and blocks nobody

    try:
        with reader.connect() as connection:
            yield connection
    finally:
        reader.dispose()


def dump(connection: Connection, table: Table, target: Storage) -> int:
    """Write a table to `<name>.parquet`; its number of rows, 0 where the database has no such table."""
    schema, count = _schema(table), 0
    there = inspect(connection).has_table(table.name)
    with target.open(f"{table.name}.parquet", "wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as out:
        if there:
            found = connection.execute(select(table).execution_options(yield_per=AT_ONCE)).mappings()
            for part in found.partitions(AT_ONCE):
                out.write_table(pa.Table.from_pylist([dict(row) for row in part], schema))
                count += len(part)
    return count


def put_back(connection: Connection, table: Table, source: Storage) -> int:
    """Replace a table's rows by those of `dump`, in the caller's transaction; their number."""
    connection.execute(table.delete())
    count = 0
    with source.open(f"{table.name}.parquet", "rb") as file:
        for batch in pq.ParquetFile(file).iter_batches(AT_ONCE):
            if batch.num_rows:
                connection.execute(insert(table), batch.to_pylist())
                count += batch.num_rows
    _count_on(connection, table)
    return count


def _count_on(connection: Connection, table: Table) -> None:
    """Numbers that the database gives out go on behind those that were put back."""
    column = table.autoincrement_column
    if connection.dialect.name != "postgresql" or column is None or column.autoincrement is not True:
        return
    connection.execute(
        text(
            f"SELECT setval(pg_get_serial_sequence('{table.name}', '{column.name}'),"
            f" (SELECT coalesce(max({column.name}), 0) + 1 FROM {table.name}), false)"
        )
    )


def _schema(table: Table) -> pa.Schema:
    return pa.schema([(column.name, _kind(column.type)) for column in table.columns])


def _kind(kind: Any) -> pa.DataType:
    if isinstance(kind, TypeDecorator):
        return pa.timestamp("us", tz="UTC")
    for known, arrow in (
        (Boolean, pa.bool_()),
        ((Integer, BigInteger), pa.int64()),
        (Date, pa.date32()),
        (LargeBinary, pa.binary()),
    ):
        if isinstance(kind, known):
            return arrow
    return pa.string()


def tables_of(metadata: Any) -> Sequence[Table]:
    """All tables, those that others refer to first."""
    found: Sequence[Table] = metadata.sorted_tables
    return found
