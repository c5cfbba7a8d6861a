"""What is particular about PostgreSQL: COPY both ways, so that a million rows pass without a Python object for each value."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from sqlalchemy import (
    CHAR,
    URL,
    BigInteger,
    Column,
    Connection,
    Date,
    Engine,
    Enum,
    Insert,
    Integer,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    case,
    cast,
    event,
    func,
    literal,
    literal_column,
    or_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP, insert

from connectors.sql_capture import Overlap, Watermark
from connectors.sql_database import Columns, Database, single
from connectors.sql_postgres_buckets import PostgresBuckets
from connectors.sql_postgres_driver import ImpatientConnection, drain
from connectors.sql_values import (
    as_text,
    is_exact,
    is_natural,
    is_text,
    is_zoned,
    joined,
    naive_local,
    read_type,
    untidy,
)
from federation.contract import FieldSpec

CHUNK = 32 * 1024 * 1024
"""Bytes of CSV that are parsed at once, while the next ones come in."""
BLOCK = 4 * 1024 * 1024
"""Bytes of it that one thread parses at once."""
ROWS_AT_ONCE = 50_000
_MARK = b"\xef\xbb\xbf"
_CREATING = 0x66656473
"""The advisory lock under which tables are created."""


class Postgres(Database):
    """PostgreSQL (and what descends from it) through psycopg 3."""

    fast_into_empty = True
    buckets = PostgresBuckets()

    def _engine(self, url: URL) -> Engine:
        patience = self.patience
        arguments: dict[str, Any] = {
            "prepare_threshold": None,
            "connect_timeout": patience.connecting,
            "tcp_user_timeout": round(patience.timeout * 1000),
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
        }
        engine = self._pooled(url, **{name: value for name, value in arguments.items() if name not in url.query})
        _know_descendants(engine.dialect)

        @event.listens_for(engine, "do_connect")
        def _impatient(_dialect: Any, _record: Any, given: Any, named: Any) -> Any:
            connection = ImpatientConnection.connect(*given, **named)
            connection.timeout = patience.timeout
            return connection

        @event.listens_for(engine, "connect")
        def _settings(driver: Any, _record: Any) -> None:
            """COPY writes moments and encodings as the session says; these must not depend on the server's settings."""
            driver.execute("SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET client_encoding = 'UTF8'")
            # compiling a statement costs 50 ms and more, and the guess that it pays is wild for tables that nobody analysed yet
            settings = {"jit": "off", "idle_in_transaction_session_timeout": _milliseconds(patience.abandoned)}
            if patience.statement_timeout is not None:
                settings["statement_timeout"] = _milliseconds(patience.statement_timeout)
            for name, value in settings.items():
                # by way of pg_settings: what descends from PostgreSQL may not know it
                known = "SELECT set_config(name, %s, false) FROM pg_settings WHERE name = %s"
                driver.execute(known, (value, name))
            driver.commit()

        return engine

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Read-only by a statement: as an option of the connection, later transactions would be read-write by force, on a server
        that is read-only by default as well."""
        with (
            self.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection,
            connection.begin(),
        ):
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            yield connection

    @contextmanager
    def creating(self) -> Iterator[Connection]:
        """CREATE TABLE IF NOT EXISTS of two sessions at once fails in one of them."""
        with self.writing() as connection:
            connection.execute(select(func.pg_advisory_xact_lock(_CREATING)))
            yield connection

    def read(
        self, connection: Connection, statement: Any, columns: Columns, specs: Mapping[str, FieldSpec]
    ) -> pa.Table:
        compiled = statement.compile(dialect=connection.dialect, compile_kwargs={"render_postcompile": True})
        kinds = {name: read_type(specs[name], column.type) for name, column in columns.items()}
        with _cursor(connection) as cursor, ThreadPoolExecutor(1) as parser:
            parts: list[Future[pa.Table]] = []
            held, rows, more = io.BytesIO(), 0, True
            asked = f"COPY ({compiled}) TO STDOUT (FORMAT csv)"
            given = {name: _quoted(value) for name, value in compiled.params.items()}
            with cursor.copy(asked if given else single(asked), given or None) as copy:
                while more:
                    arrived, more = drain(copy, held.write)
                    rows += arrived
                    if held.tell() >= CHUNK:
                        parts.append(parser.submit(_parsed, held, rows, kinds))
                        held, rows = io.BytesIO(), 0
            if rows or not parts:
                parts.append(parser.submit(_parsed, held, rows, kinds))
        return joined([part.result() for part in parts])

    def load(self, connection: Connection, table: Table, columns: Columns, rows: pa.Table, timezone: str) -> None:
        self._copy(connection, table, columns, rows.num_rows, rows.slice, timezone)

    def fill(
        self, connection: Connection, table: Table, columns: Columns, rows: pa.Table, timezone: str, keys: Sequence[str]
    ) -> None:
        """Put in order piece by piece, while the server takes the last one."""
        places = pc.sort_indices(rows, [(name, "ascending") for name in keys])
        whole = rows.combine_chunks()  # picking from many chunks is slow; one is not copied

        def part(start: int, count: int) -> pa.Table:
            return whole.take(places.slice(start, count))

        self._copy(connection, table, columns, rows.num_rows, part, timezone)

    def _copy(
        self,
        connection: Connection,
        table: Table,
        columns: Columns,
        count: int,
        part: Callable[[int, int], pa.Table],
        timezone: str,
    ) -> None:
        """Load so many rows. `part`: the rows from a place on, at most so many."""
        quote = connection.dialect.identifier_preparer
        listed = ", ".join(quote.quote(column.name) for column in columns.values())
        into = single(f"{quote.format_table(table)} ({listed})")
        options = pa_csv.WriteOptions(include_header=False, quoting_style="all_valid")

        def encoded(start: int) -> memoryview:
            rows = part(start, ROWS_AT_ONCE)
            suited = {name: _suited(rows.column(name), column, timezone) for name, column in columns.items()}
            written = io.BytesIO()
            pa_csv.write_csv(pa.table(suited), written, options)
            return written.getbuffer()

        with (
            _cursor(connection) as cursor,
            cursor.copy(f"COPY {into} FROM STDIN (FORMAT csv)") as copy,
            ThreadPoolExecutor(1) as writer,
        ):
            ahead = writer.submit(encoded, 0)
            for start in range(0, count, ROWS_AT_ONCE):
                ready, ahead = ahead.result(), writer.submit(encoded, start + ROWS_AT_ONCE)
                copy.write(ready)

    def plain(self, column: Column[Any], spec: FieldSpec | None = None, timezone: str = "UTC") -> Any:
        """A date kept as a moment is the date on the people's calendar, not in UTC."""
        if spec is not None and spec.type == "date" and is_zoned(column.type):
            return func.timezone(timezone, column)
        return column

    def key_condition(self, column: Column[Any], spec: FieldSpec, values: Sequence[Any]) -> Any:
        if is_natural(spec, column.type):
            return column.in_(_askable(values, column.type))
        return cast(column, String).in_(values) if spec.type in ("string", "enum") else None

    def holding(self, column: Column[Any], spec: FieldSpec, values: pa.Array) -> Any:
        """Text is compared as the column does it, so that an index may serve; of what is untidy, the collation must know nothing."""
        if is_exact(spec, column.type):
            return column.in_(_askable(values.to_pylist(), column.type))
        if spec.type not in ("string", "enum") or not _tells_text(column.type, spec):
            return None
        text = cast(column, Text)
        same = column if is_text(column.type) and not isinstance(column.type, Enum) else text
        pattern = untidy(spec, lambda character: f"\\u{ord(character):04x}")
        return or_(
            same.in_(values.to_pylist()), text.collate("C").op("~", is_comparison=True)(literal(pattern, Text()))
        )

    def insert_or_update(self, table: Table, keys: Sequence[str], others: Sequence[str]) -> Insert:
        new = insert(table)
        if not others:
            return new.on_conflict_do_nothing(index_elements=list(keys))
        return new.on_conflict_do_update(index_elements=list(keys), set_={name: new.excluded[name] for name in others})

    def insert_new(self, table: Table, keys: Sequence[str], others: Sequence[str]) -> Insert:
        return insert(table).on_conflict_do_nothing(index_elements=list(keys))

    def now(self, column: Column[Any], timezone: str) -> Any:
        return func.clock_timestamp() if is_zoned(column.type) else func.timezone(timezone, func.clock_timestamp())

    def checksum(self, connection: Connection, table: Table, condition: Any) -> str | None:
        name = single(connection.dialect.identifier_preparer.format_table(table))
        total: Any = literal_column(f"sum(hashtextextended(({name}.*)::text, 0))")
        statement = select(func.coalesce(total, 0)).select_from(table)
        return str(connection.execute(statement if condition is None else statement.where(condition)).scalar_one())

    def horizon(self) -> str | None:
        """The start of the oldest open transaction; roles without the right to see others' see their own only."""
        oldest = text(
            "SELECT CAST(least(now(), min(xact_start)) AS text) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        with self.engine.connect() as connection:
            return str(connection.execute(oldest).scalar_one())

    def newest(self, connection: Connection, column: Column[Any], timezone: str, horizon: str | None) -> Watermark:
        if isinstance(column.type, (Integer, BigInteger, Numeric)):
            return super().newest(connection, column, timezone, horizon)
        limit: Any = cast(literal(horizon, String), TIMESTAMP(timezone=True)) if horizon else func.now()
        now: Any = func.now()
        if not is_zoned(column.type):
            limit, now = func.timezone(timezone, limit), func.timezone(timezone, now)
        greatest = func.max(case((column <= now, column)))
        found = connection.execute(
            select(cast(case((greatest.is_not(None), func.least(greatest, cast(limit, column.type)))), String))
        ).scalar_one()
        return Watermark(found)

    def changed_since(self, column: Column[Any], watermark: Watermark, overlap: Overlap) -> Any:
        at = watermark.at
        if not isinstance(at, str) or isinstance(column.type, (Integer, Numeric)):
            return super().changed_since(column, watermark, overlap)
        start: Any = cast(literal(at, String), column.type)
        if not isinstance(column.type, Date):
            start = start - func.make_interval(0, 0, 0, 0, 0, 0, overlap.seconds)
        return or_(column.is_(None), column >= start)


def _tells_text(kind: Any, spec: FieldSpec) -> bool:
    """Whether a column's text in a statement is what is read of it. CHAR(n) loses its blanks there."""
    return isinstance(kind, Integer) or (is_text(kind) and ("trim" in spec.normalise or not isinstance(kind, CHAR)))


def _askable(values: Sequence[Any], kind: Any) -> list[Any]:
    """Values to compare with a column. A statement casts all numbers of a list to what the first one needs, so those for a decimal are
    decimals; what a column of whole numbers has no room for nobody holds, and to ask for it is an error there."""
    if isinstance(kind, Numeric):
        return [Decimal(value) if type(value) is int else value for value in values]
    if isinstance(kind, Integer):
        limit = 2 ** (15 if isinstance(kind, SmallInteger) else 63 if isinstance(kind, BigInteger) else 31)
        return [value for value in values if type(value) is not int or -limit <= value < limit]
    return list(values)


def _know_descendants(dialect: Any) -> None:
    """KingbaseES, openGauss and others give a version under a name of their own, which SQLAlchemy refuses: ask for its number."""
    known = dialect._get_server_version_info

    def version(connection: Connection) -> tuple[int, ...]:
        try:
            found: tuple[int, ...] = known(connection)
        except AssertionError:
            number = int(connection.exec_driver_sql("SHOW server_version_num").scalar_one())
            found = (
                (number // 10_000, number % 10_000) if number >= 100_000 else (number // 10_000, number // 100 % 100)
            )
        return found

    dialect._get_server_version_info = version


def _suited(values: pa.ChunkedArray, column: Column[Any], timezone: str) -> pa.ChunkedArray:
    """What COPY reads as the same value into this column."""
    if pa.types.is_timestamp(values.type):
        if is_zoned(column.type):
            return values
        return as_text(values, timezone) if isinstance(column.type, String) else naive_local(values, timezone)
    if pa.types.is_boolean(values.type) and isinstance(column.type, (Integer, Numeric, String)):
        return as_text(values, timezone)
    return values


def _parsed(written: io.BytesIO, rows: int, kinds: Mapping[str, pa.DataType]) -> pa.Table:
    """So many rows of CSV as Arrow. Values that Arrow has no room for (infinity, the year 20000) make it all text, for `conform` to judge."""
    text = written.getvalue()
    if not text:
        return pa.table({name: pa.array([], kind) for name, kind in kinds.items()})
    # to watch for lines within values costs as much again as parsing
    broken = text.count(b"\n") > rows or b"\r" in text
    if text.startswith(_MARK):  # a text that begins with U+FEFF: Arrow takes the first one for a mark of UTF-8
        text = _MARK + text

    def parse(types: Mapping[str, pa.DataType], block: int) -> pa.Table:
        return pa_csv.read_csv(
            pa.BufferReader(text),
            read_options=pa_csv.ReadOptions(column_names=list(kinds), block_size=block),
            # the null of a single column is an empty line
            parse_options=pa_csv.ParseOptions(newlines_in_values=broken, ignore_empty_lines=False),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict(types),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                null_values=[""],
                true_values=["t"],
                false_values=["f"],
            ),
        )

    whole = len(text) + 1
    try:
        return parse(kinds, whole if broken else BLOCK)
    except pa.ArrowInvalid:  # or a row is longer than a block
        return parse(dict.fromkeys(kinds, pa.string()), whole)


def _quoted(value: Any) -> Any:
    """COPY takes no bound parameters: they are written into the statement, where the cast of -9223372036854775808::BIGINT would
    come before its minus."""
    return str(value) if type(value) is int and value < 0 else value


def _cursor(connection: Connection) -> Any:
    """The driver's own cursor, in SQLAlchemy's transaction."""
    driver: Any = connection.connection.driver_connection
    return driver.cursor()


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms"
