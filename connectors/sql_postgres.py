"""What is particular about PostgreSQL: COPY both ways, so that a million rows pass without a Python object for each value."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
from sqlalchemy import Column, Connection, Table, func, select, text
from sqlalchemy import types as sql
from sqlalchemy.dialects import postgresql

from connectors.sql_values import naive_local

_STAGE = "fedsync_stage"


def read(connection: Connection, statement: Any, names: Sequence[str]) -> pa.Table:
    """The result of a select as text columns: `COPY … TO STDOUT` in CSV, read by Arrow. Times come with their UTC offset."""
    compiled = statement.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})  # type: ignore[no-untyped-call]
    buffer = io.BytesIO()
    connection.execute(text("SET LOCAL TimeZone = 'UTC'"))
    connection.execute(text("SET LOCAL DateStyle = 'ISO'"))
    with (
        _cursor(connection) as cursor,
        cursor.copy(f"COPY ({compiled}) TO STDOUT (FORMAT csv)".replace("%%", "%")) as copy,
    ):
        for chunk in copy:
            buffer.write(chunk)
    if not buffer.tell():
        return pa.table({name: pa.array([], pa.string()) for name in names})
    buffer.seek(0)
    return pa_csv.read_csv(
        buffer,
        read_options=pa_csv.ReadOptions(column_names=list(names)),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types={name: pa.string() for name in names},
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        ),
    )


def upsert(
    connection: Connection,
    table: Table,
    rows: pa.Table,
    columns: Mapping[str, Column[Any]],
    keys: Sequence[str],
    stamp: Column[Any] | None,
    timezone: str,
) -> None:
    """COPY into a temporary table of the target's own types, then update what exists and insert, in key order, what does not."""
    quote = connection.dialect.identifier_preparer
    target = quote.format_table(table)
    named = {name: quote.quote(column.name) for name, column in columns.items()}
    empty = connection.execute(select(~select(text("1")).select_from(table).exists())).scalar_one()
    listed = ", ".join(named.values())
    moved = f", {quote.quote(stamp.name)}" if stamp is not None else ""
    now = ", clock_timestamp()" if stamp is not None else ""
    if empty and stamp is None:
        _copy(connection, f"{target} ({listed})", rows, columns, timezone)
        return
    connection.execute(
        text(f"CREATE TEMPORARY TABLE {_STAGE} ON COMMIT DROP AS SELECT {listed} FROM {target} WITH NO DATA")
    )
    _copy(connection, f"{_STAGE} ({listed})", rows, columns, timezone)
    same = " AND ".join(f"t.{named[name]} = s.{named[name]}" for name in keys)
    others = [named[name] for name in columns if name not in keys]
    if others:
        values = [f"{name} = s.{name}" for name in others]
        if stamp is not None:
            values.append(f"{quote.quote(stamp.name)} = clock_timestamp()")
        connection.execute(text(f"UPDATE {target} t SET {', '.join(values)} FROM {_STAGE} s WHERE {same}"))
    order = ", ".join(f"s.{named[name]}" for name in keys)
    picked = ", ".join(f"s.{name}" for name in named.values())
    connection.execute(
        text(
            f"INSERT INTO {target} ({listed}{moved}) SELECT {picked}{now} FROM {_STAGE} s WHERE NOT EXISTS (SELECT 1 FROM {target} t WHERE {same}) ORDER BY {order}"
        )
    )
    connection.execute(text(f"DROP TABLE {_STAGE}"))


def checksum(connection: Connection, table: Table) -> Any:
    """An order-free hash of all rows, computed in the database."""
    row = text(
        f"sum(hashtextextended(({connection.dialect.identifier_preparer.format_table(table)})::text, 0)::numeric)"
    )
    return connection.execute(select(func.coalesce(row, 0)).select_from(table)).scalar_one()


def _copy(connection: Connection, into: str, rows: pa.Table, columns: Mapping[str, Column[Any]], timezone: str) -> None:
    suited = rows.sort_by([(name, "ascending") for name in rows.column_names[:1]])
    for i, (name, column) in enumerate(columns.items()):
        if pa.types.is_timestamp(rows.schema.field(name).type) and not _zoned(column.type):
            suited = suited.set_column(i, name, naive_local(suited.column(name), timezone))
    buffer = io.BytesIO()
    pa_csv.write_csv(suited, buffer, pa_csv.WriteOptions(include_header=False, quoting_style="needed"))
    with _cursor(connection) as cursor, cursor.copy(f"COPY {into} FROM STDIN (FORMAT csv)") as copy:
        copy.write(buffer.getvalue())


def _zoned(kind: sql.TypeEngine[Any]) -> bool:
    return isinstance(kind, sql.DateTime) and bool(kind.timezone)


def _cursor(connection: Connection) -> Any:
    driver = connection.connection.driver_connection
    assert driver is not None
    return driver.cursor()
