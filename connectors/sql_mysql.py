"""What is particular about MySQL and MariaDB: moments without a zone, keys compared without case, statements that end a transaction.

A `TIMESTAMP` keeps moments. A `DATETIME` keeps local time as people's programs write it, unless its comment begins with `UTC`, as
in the tables that `prepare` creates: their texts are utf8mb4, compared byte by byte. The account needs the right CREATE TEMPORARY
TABLES; with the right PROCESS, transactions that are still open are told from those that ended, else `overlap_seconds` must
cover them. A zero date (`0000-00-00`) is no date: null.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import (
    URL,
    Column,
    Connection,
    Date,
    DateTime,
    Delete,
    Engine,
    Insert,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Table,
    and_,
    case,
    cast,
    delete,
    event,
    func,
    inspect,
    literal_column,
    or_,
    select,
    text,
    type_coerce,
)
from sqlalchemy.dialects.mysql import BIT, CHAR, DATETIME, LONGTEXT, TIMESTAMP, VARCHAR, insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import NullType, TypeEngine

from connectors.sql_capture import Watermark
from connectors.sql_database import STAGE, Columns, Database
from connectors.sql_mysql_buckets import MysqlBuckets
from connectors.sql_mysql_errors import DENIED, number_of
from connectors.sql_values import (
    column_type,
    for_driver,
    is_exact,
    is_natural,
    is_text,
    is_zoned,
    naive_local,
    raw_columns,
    untidy,
)
from federation.contract import FieldSpec

SESSION = {
    "charset": "utf8mb4",
    # never cut what does not fit; nothing that changes how statements are read
    "sql_mode": "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION",
}
MOMENTS = "UTC"
"""Begins the comment of a DATETIME column that keeps moments."""
_KEY_LENGTH = 190
_CREATING = "fedsync_creating"


class Mysql(Database):
    """MySQL 8, MariaDB 10.2 or later, through PyMySQL."""

    strays = True
    buckets = MysqlBuckets()

    def _engine(self, url: URL) -> Engine:
        patience = self.patience
        limits = {
            "connect_timeout": patience.connecting,
            "read_timeout": patience.timeout,
            "write_timeout": patience.timeout,
        }
        given = {name: value for name, value in limits.items() if name not in url.query}
        engine = self._pooled(url, **SESSION, conv=_conversions(), **given)

        @event.listens_for(engine, "connect")
        def _settings(driver: Any, _record: Any) -> None:
            """Writers of one table who lock the gaps between its keys would wait for each other in a circle."""
            with driver.cursor() as cursor:
                cursor.execute("SET time_zone = '+00:00'")
                cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
                cursor.execute(f"SET SESSION wait_timeout = {math.ceil(patience.abandoned)}")
                if patience.statement_timeout is not None:
                    cursor.execute(_break_off(driver.get_server_info(), patience.statement_timeout))

        return engine

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with super().reading() as connection:
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            yield connection

    @contextmanager
    def creating(self) -> Iterator[Connection]:
        with self.writing() as connection:
            connection.execute(select(func.get_lock(_CREATING, 30)))
            try:
                yield connection
            finally:
                connection.execute(select(func.release_lock(_CREATING)))

    def kinds(self, connection: Connection, table: str, schema: str | None) -> dict[str, TypeEngine[Any]]:
        return {found["name"]: _kind(found) for found in inspect(connection).get_columns(table, schema)}

    def column(self, name: str, spec: FieldSpec, *, key: bool) -> Column[Any]:
        if spec.type == "timestamp":
            return Column(name, DATETIME(fsp=6), primary_key=key, comment=MOMENTS)
        kind: TypeEngine[Any] = column_type(spec, key=key)
        if is_text(kind):
            binary = {"charset": "utf8mb4", "collation": self._collation()}
            kind = VARCHAR(_KEY_LENGTH, **binary) if key else LONGTEXT(**binary)
        return Column(name, kind, primary_key=key, autoincrement=False)

    def _collation(self) -> str:
        """Compares bytes, blanks at the end too where the server can."""
        dialect: Any = self.engine.dialect
        if dialect.is_mariadb:
            return "utf8mb4_nopad_bin"
        return "utf8mb4_0900_bin" if dialect.server_version_info >= (8, 0, 17) else "utf8mb4_bin"

    def read(
        self, connection: Connection, statement: Any, columns: Columns, specs: Mapping[str, FieldSpec]
    ) -> pa.Table:
        raw = raw_columns(tuple(columns), connection.execute(statement).fetchall())
        for at, (name, column) in enumerate(columns.items()):
            if isinstance(column.type, (Date, DateTime)):
                raw = raw.set_column(at, name, _times(raw.column(name), column.type))
        return raw

    def load(self, connection: Connection, table: Table, columns: Columns, rows: pa.Table, timezone: str) -> None:
        """In statements of many rows each, as the driver joins them."""
        quote = connection.dialect.identifier_preparer
        listed = ", ".join(quote.quote(column.name) for column in columns.values())
        marks = ", ".join(["%s"] * len(columns))
        values = [_suited(rows.column(name), column.type, timezone) for name, column in columns.items()]
        connection.exec_driver_sql(
            f"INSERT INTO {quote.format_table(table)} ({listed}) VALUES ({marks})", list(zip(*values))
        )

    def stage(self, connection: Connection, like: str) -> str:
        """A transaction that fails takes its rows back, but not its temporary table."""
        connection.exec_driver_sql(f"DROP TEMPORARY TABLE IF EXISTS {STAGE}")
        return super().stage(connection, like)

    def unstage(self, connection: Connection, name: str) -> None:
        """Without the word TEMPORARY it would end the transaction."""
        connection.exec_driver_sql(f"DROP TEMPORARY TABLE {name}")

    def plain(self, column: Column[Any], spec: FieldSpec | None = None, timezone: str = "UTC") -> Any:
        if isinstance(column.type, BIT):
            return type_coerce(column, Integer) + literal_column("0")
        return type_coerce(column, NullType())

    def key_condition(self, column: Column[Any], spec: FieldSpec, values: Sequence[Any]) -> Any:
        if is_natural(spec, column.type):
            return column.in_(values)
        return cast(column, String).in_(values) if spec.type in ("string", "enum") else None

    def holding(self, column: Column[Any], spec: FieldSpec, values: pa.Array) -> Any:
        """Text is compared as Unicode, byte by byte, whatever the column's charset and collation."""
        if is_exact(spec, column.type):
            return column.in_(values.to_pylist())
        if spec.type not in ("string", "enum") or not isinstance(column.type, (String, Integer)):
            return None
        told = column if is_text(column.type) else column + literal_column("0")  # without the zeros of ZEROFILL
        text = cast(told, CHAR(charset="utf8mb4")).collate("utf8mb4_bin")
        pattern = untidy(spec, lambda character: f"\\x{{{ord(character):04x}}}")
        return or_(text.in_(values.to_pylist()), text.regexp_match(pattern))

    def same(self, left: Any, right: Any, spec: FieldSpec, column: Column[Any]) -> Any:
        """The index finds what the column's collation takes for equal; of that, what is."""
        if not is_text(column.type):
            return left == right
        return and_(left == right, cast(left, LargeBinary) == cast(right, LargeBinary))

    def insert_or_update(self, table: Table, keys: Sequence[str], others: Sequence[str]) -> Insert:
        kept = {keys[0]: table.c[keys[0]]}
        return insert(table).on_duplicate_key_update({name: func.values(table.c[name]) for name in others} or kept)

    def removal(self, table: Table, stage: Table, same: Any) -> Delete:
        """As a join: a subquery would look through the staged keys once for each row of the table."""
        return delete(table).where(same)

    def now(self, column: Column[Any], timezone: str) -> Any:
        offset = timedelta() if is_zoned(column.type) else datetime.now(ZoneInfo(timezone)).utcoffset() or timedelta()
        return literal_column(f"(UTC_TIMESTAMP(6) + INTERVAL {int(offset.total_seconds())} SECOND)")

    def checksum(self, connection: Connection, table: Table, condition: Any) -> str | None:
        values = (func.coalesce(func.md5(type_coerce(column, NullType())), "-") for column in table.c)
        digits = func.conv(func.left(func.md5(func.concat_ws(",", *values)), 15), 16, 10)
        statement = select(func.coalesce(func.sum(cast(digits, Numeric(20, 0))), 0)).select_from(table)
        return str(connection.execute(statement if condition is None else statement.where(condition)).scalar_one())

    def horizon(self) -> str | None:
        """The start of the oldest open transaction in UTC, where the account may see those of others (PROCESS)."""
        age = text(
            "SELECT MAX(TIMESTAMPDIFF(SECOND, trx_started, CONVERT_TZ(UTC_TIMESTAMP(), '+00:00', 'SYSTEM'))), "
            "UTC_TIMESTAMP(6) FROM information_schema.innodb_trx"
        )
        try:
            with self.engine.connect() as connection:
                seconds, now = connection.execute(age).one()
        except DBAPIError as cause:
            if number_of(cause.orig) in DENIED:
                return None
            raise
        started = datetime.fromisoformat(now) - timedelta(seconds=0 if seconds is None else int(seconds) + 1)
        return started.isoformat(" ")

    def newest(self, connection: Connection, column: Column[Any], timezone: str, horizon: str | None) -> Watermark:
        if isinstance(column.type, (Integer, Numeric)):
            return super().newest(connection, column, timezone, horizon)
        past = case((column <= self.now(column, timezone), column))
        found = connection.execute(select(type_coerce(func.max(past), NullType()))).scalar_one()
        if found is None:
            return Watermark(None)
        newest = datetime.fromisoformat(str(found))
        if horizon is not None:
            limit = datetime.fromisoformat(horizon)
            if not is_zoned(column.type):
                utc = pa.chunked_array([[limit.replace(tzinfo=UTC)]], pa.timestamp("us", "UTC"))
                limit = naive_local(utc, timezone)[0].as_py()
            newest = min(newest, limit)
        return Watermark(newest.isoformat(" "))


def _conversions() -> dict[Any, Any]:
    """The driver's, but for days, times and decimals, which stay text: a million Python objects less, and odd ones do not raise."""
    from pymysql.constants import FIELD_TYPE
    from pymysql.converters import conversions

    texts = ("DATE", "DATETIME", "TIMESTAMP", "TIME", "DECIMAL", "NEWDECIMAL")
    kept = {getattr(FIELD_TYPE, name) for name in texts}
    return {kind: convert for kind, convert in conversions.items() if kind not in kept}


def _break_off(version: str, seconds: float) -> str:
    """MariaDB breaks off any statement, MySQL a SELECT."""
    if "MariaDB" in version:
        return f"SET SESSION max_statement_time = {seconds:g}"
    return f"SET SESSION max_execution_time = {math.ceil(seconds * 1000)}"


def _kind(found: Any) -> TypeEngine[Any]:
    kind: TypeEngine[Any] = found["type"]
    commented = str(found.get("comment") or "").startswith(MOMENTS)
    if isinstance(kind, TIMESTAMP) or (isinstance(kind, DATETIME) and commented):
        return DATETIME(timezone=True, fsp=kind.fsp)
    return kind


def _times(values: pa.ChunkedArray, kind: TypeEngine[Any]) -> pa.ChunkedArray:
    """Days and times as Arrow's; all text, for `conform` to judge, where one of them is none."""
    if not pa.types.is_string(values.type):
        return values
    values = pc.if_else(pc.starts_with(values, "0000-00-00"), pa.scalar(None, pa.string()), values)
    try:
        parsed = values.cast(pa.timestamp("us") if isinstance(kind, DateTime) else pa.date32())
    except pa.ArrowInvalid:
        return pc.binary_join_element_wise(values, "+00:00", "") if is_zoned(kind) else values
    return pc.assume_timezone(parsed, "UTC") if is_zoned(kind) else parsed


def _suited(values: pa.ChunkedArray, kind: TypeEngine[Any], timezone: str) -> list[Any]:
    if isinstance(kind, BIT) and pa.types.is_boolean(values.type):
        return list(values.to_pylist())
    return for_driver(values, kind, timezone)
