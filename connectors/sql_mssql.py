"""What is particular about SQL Server: text that is not Unicode unless told so, keys compared without case, moments with an offset.

Needs SQL Server 2017 or later. A `DATETIMEOFFSET` keeps moments; `DATETIME` and `DATETIME2` keep local time, as people's programs write
it. Tables that `prepare` creates hold text as NVARCHAR, keys compared byte by byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from sqlalchemy import Column, Connection, LargeBinary, Numeric, and_, case, cast, func, inspect, select
from sqlalchemy import types as sql
from sqlalchemy.dialects.mssql import DATETIME2, DATETIMEOFFSET, NVARCHAR
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import TypeEngine

from connectors.sql_capture import Watermark
from connectors.sql_database import STAGE, Columns, Database
from connectors.sql_values import as_moments, column_type, is_text, is_zoned
from federation.contract import FieldSpec

KEY_LENGTH = 190
_BINARY = "Latin1_General_100_BIN2"


@compiles(sql.Text, "mssql")
def _unicode_text(kind: sql.Text, compiler: Any, **words: Any) -> str:
    """TEXT holds no Chinese, can be neither compared nor trimmed, and is out of use since 2005."""
    return "NVARCHAR(max)"


@compiles(sql.LargeBinary, "mssql")
def _bytes(kind: sql.LargeBinary, compiler: Any, **words: Any) -> str:
    return "VARBINARY(max)"


class SqlServer(Database):
    """SQL Server through pymssql (or pyodbc)."""

    def kinds(self, connection: Connection, table: str, schema: str | None) -> dict[str, TypeEngine[Any]]:
        return {found["name"]: _kind(found["type"]) for found in inspect(connection).get_columns(table, schema)}

    def column(self, name: str, spec: FieldSpec, *, key: bool) -> Column[Any]:
        kind = column_type(spec, key=key)
        if key and is_text(kind):
            kind = NVARCHAR(KEY_LENGTH, collation=_BINARY)
        elif spec.type == "timestamp":
            kind = DATETIMEOFFSET()  # type: ignore[no-untyped-call]
        elif spec.type == "date":
            kind = sql.DATE()
        return Column(name, kind, primary_key=key, autoincrement=False)

    def read(
        self, connection: Connection, statement: Any, columns: Columns, specs: Mapping[str, FieldSpec]
    ) -> pa.Table:
        """`plain` selects moments as UTC readings; here they become moments again."""
        return as_moments(super().read(connection, statement, columns, specs), columns)

    def plain(self, column: Column[Any], spec: FieldSpec | None = None, timezone: str = "UTC") -> Any:
        """Drivers differ in what they make of an offset, so moments are asked for in UTC."""
        reading = DATETIME2()  # type: ignore[no-untyped-call]
        return cast(func.switchoffset(column, "+00:00"), reading) if is_zoned(column.type) else column

    def same(self, left: Any, right: Any, spec: FieldSpec, column: Column[Any]) -> Any:
        """The index finds what the column's collation takes for equal; of that, what is."""
        if not is_text(column.type):
            return left == right
        return and_(left == right, cast(left, LargeBinary) == cast(right, LargeBinary))

    def stage(self, connection: Connection, like: str) -> str:
        """As a union: else the new table would fill in an identity column itself."""
        connection.exec_driver_sql(f"SELECT * INTO #{STAGE} FROM ({like} UNION ALL {like}) AS nothing")
        return f"#{STAGE}"

    def now(self, column: Column[Any], timezone: str) -> Any:
        return func.sysdatetimeoffset() if is_zoned(column.type) else super().now(column, timezone)

    def newest(self, connection: Connection, column: Column[Any], timezone: str, horizon: str | None) -> Watermark:
        if isinstance(column.type, (sql.Integer, Numeric)):
            return super().newest(connection, column, timezone, horizon)
        past = case((column <= self.now(column, timezone), self.plain(column)))
        found = connection.execute(select(func.max(past))).scalar_one()
        return Watermark(None if found is None else found.isoformat())


def _kind(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    if not isinstance(kind, DATETIMEOFFSET):
        return kind
    return DATETIMEOFFSET(precision=kind.precision, timezone=True)  # type: ignore[no-untyped-call]
