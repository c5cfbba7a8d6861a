"""What is particular about Oracle: no UPDATE from another table, no text of any length that can be compared, moments that lose their zone.

Needs Oracle 18c or later (private temporary tables). `''` is NULL there, as blank text is in the contract. A `TIMESTAMP WITH TIME ZONE`
keeps moments; `DATE` and `TIMESTAMP` keep local time, as people's programs write it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from sqlalchemy import URL, Column, Connection, Engine, Numeric, String, Table, Text, case, cast, event, func, select
from sqlalchemy import types as sql
from sqlalchemy.dialects.oracle import NUMBER, TIMESTAMP

from connectors.sql_capture import Watermark
from connectors.sql_database import STAGE, Columns, Database
from connectors.sql_values import as_moments, column_type, is_text, is_zoned
from federation.contract import FieldSpec

KEY_LENGTH = 190
_COMPARED = 4000
_numbers = itertools.count(1)


class Oracle(Database):
    """Oracle through python-oracledb."""

    def _engine(self, url: URL) -> Engine:
        engine = self._pooled(url)

        @event.listens_for(engine, "connect")
        def _settings(driver: Any, _record: Any) -> None:
            """The driver binds a moment without its zone; the session's must be the one that it was written in."""
            with driver.cursor() as cursor:
                cursor.execute("ALTER SESSION SET TIME_ZONE = 'UTC'")

        return engine

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with super().reading() as connection:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            yield connection

    def column(self, name: str, spec: FieldSpec, *, key: bool) -> Column[Any]:
        kind = column_type(spec, key=key)
        if key and is_text(kind):
            kind = String(KEY_LENGTH)
        elif spec.type == "bool":
            kind = NUMBER(1)  # type: ignore[no-untyped-call]
        elif spec.type == "timestamp":
            kind = TIMESTAMP(timezone=True)
        return Column(name, kind, primary_key=key, autoincrement=False)

    def read(
        self, connection: Connection, statement: Any, columns: Columns, specs: Mapping[str, FieldSpec]
    ) -> pa.Table:
        """`plain` selects moments as UTC readings; here they become moments again."""
        return as_moments(super().read(connection, statement, columns, specs), columns)

    def plain(self, column: Column[Any], spec: FieldSpec | None = None, timezone: str = "UTC") -> Any:
        """The driver drops the zone of a moment, so it is asked for in UTC."""
        return func.sys_extract_utc(column, type_=sql.TIMESTAMP()) if is_zoned(column.type) else column

    def text(self, expression: Any) -> Any:
        """A CLOB can be neither compared nor trimmed; what is compared is shorter."""
        return cast(expression, String(_COMPARED))

    def key_condition(self, column: Column[Any], spec: FieldSpec, values: Sequence[Any]) -> Any:
        return None if isinstance(column.type, Text) else super().key_condition(column, spec, values)

    def same(self, left: Any, right: Any, spec: FieldSpec, column: Column[Any]) -> Any:
        return self.text(left) == self.text(right) if isinstance(column.type, Text) else left == right

    def stage(self, connection: Connection, like: str) -> str:
        """Gone with its rows at the end of the transaction, which creating it does not end."""
        name = f"ora$ptt_{STAGE}_{next(_numbers)}"
        connection.exec_driver_sql(f"CREATE PRIVATE TEMPORARY TABLE {name} ON COMMIT DROP DEFINITION AS {like}")
        return name

    def unstage(self, connection: Connection, name: str) -> None:
        return

    def update(self, connection: Connection, table: Table, stage: Table, same: Any, values: Mapping[Any, Any]) -> int:
        return int(connection.exec_driver_sql(merge(connection.dialect, table, stage, same, values)).rowcount)

    def newest(self, connection: Connection, column: Column[Any], timezone: str, horizon: str | None) -> Watermark:
        if isinstance(column.type, (sql.Integer, Numeric)):
            return super().newest(connection, column, timezone, horizon)
        past = case((column <= self.now(column, timezone), self.plain(column)))
        found = connection.execute(select(func.max(past))).scalar_one()
        return Watermark(None if found is None else found.isoformat())


def merge(dialect: Any, table: Table, stage: Table, same: Any, values: Mapping[Any, Any]) -> str:
    """MERGE INTO table USING stage ON (same) WHEN MATCHED THEN UPDATE SET …"""

    def told(part: Any) -> str:
        return str(part.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))

    quote = dialect.identifier_preparer
    pairs = ", ".join(f"{told(column)} = {told(value)}" for column, value in values.items())
    into, using = quote.format_table(table), quote.format_table(stage)
    return f"MERGE INTO {into} USING {using} ON ({told(same)}) WHEN MATCHED THEN UPDATE SET {pairs}"
