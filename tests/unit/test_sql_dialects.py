"""The SQL that the connector would send to databases that no test can reach, compiled by their dialects.

What is proven here is that nothing is emitted which these databases are documented not to take. That they take the rest is proven by
`tests/contract/test_sql_live.py` against a live one.
"""

from __future__ import annotations

import importlib.util
import re
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import oracledb
import pyarrow as pa
import pymssql
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, make_url
from sqlalchemy import types as sql
from sqlalchemy.dialects import mssql, oracle
from sqlalchemy.exc import DatabaseError
from sqlalchemy.schema import CreateTable

from connectors import sql_write
from connectors.sql import SqlConnector
from connectors.sql_capture import Overlap, Watermark
from connectors.sql_dameng import Moment, import_dialect
from connectors.sql_database import Database, Patience, _driven, _kind_of
from connectors.sql_desk import desk_table
from connectors.sql_errors import _translated
from connectors.sql_postgres import Postgres
from federation.errors import AccessDenied, Conflict, Permanent, SchemaMismatch, Transient
from tests.contract.dataset import COMPOSITE, SAMPLE, make_node, row, table, visit

URLS = {"oracle": "oracle://u@h/?service_name=x", "mssql": "mssql://u@h/x", "dm": "dm://u@h/x"}
VERSIONS = {"oracle": (19, 0, 0), "mssql": (15, 0), "dm": (8, 1)}
OPTIONS = {"capture": "cursor", "cursor_column": "changed", "table": "居民 表"}


class Told:
    """A result without rows."""

    rowcount = 0
    cursor = SimpleNamespace(description=())

    def close(self) -> None:
        return

    def scalar_one(self) -> Any:
        return None

    def first(self) -> Any:
        return None

    def fetchall(self) -> list[Any]:
        return []


class Recorder:
    """A connection that compiles what it is given and keeps it."""

    def __init__(self, dialect: Any) -> None:
        self.dialect = dialect
        self.said: list[str] = []

    def execute(self, statement: Any, *_: Any, **__: Any) -> Told:
        compiled = statement.compile(dialect=self.dialect, compile_kwargs={"render_postcompile": True})
        return self.exec_driver_sql(str(compiled))

    def exec_driver_sql(self, statement: str, *_: Any) -> Told:
        self.said.append(" ".join(statement.split()))
        return Told()


def opened(name: str) -> tuple[Database, Recorder]:
    database = _kind_of(_driven(make_url(URLS[name])), Patience())
    dialect: Any = database.engine.dialect
    dialect.server_version_info = VERSIONS[name]
    if name == "mssql":
        dialect._setup_version_attributes()
    if name == "oracle":
        dialect.supports_native_boolean = False
    return database, Recorder(dialect)


def connector(name: str, dataset: Any = SAMPLE, **columns: str) -> tuple[SqlConnector, Database, Recorder]:
    """A connector whose table, as `prepare` would create it, was looked up already."""
    database, connection = opened(name)
    made = SqlConnector(make_node(dataset, {"url": URLS[name], **OPTIONS}, columns=columns))
    made.__dict__["_database"] = database
    wanted = made._wanted_table()
    kinds = [Column(column.name, column.type) for column in wanted.columns]
    if name == "mssql":  # as they are read back
        kinds = [
            Column(c.name, mssql.DATETIMEOFFSET(timezone=True)) if c.name in ("seen_at", "changed") else c
            for c in kinds
        ]
    made._found_table = Table(wanted.name, MetaData(), *kinds)
    made._found_keyed, made._found_generated = True, frozenset()
    return made, database, connection


def written(name: str, *tables: pa.Table, deletes: pa.Table | None = None) -> list[str]:
    made, database, connection = connector(name, note="order")
    target: Any = made._target(connection)  # type: ignore[arg-type]
    for rows in tables:
        sql_write.upsert(database, connection, target, rows)  # type: ignore[arg-type]
    if deletes is not None:
        sql_write.remove(database, connection, target, deletes)  # type: ignore[arg-type]
    return connection.said


DAMENG = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("dmPython", "dmSQLAlchemy"))),
    reason="the extra `dameng` is not installed: its driver has wheels for Linux on x86-64 and ARM64 and for Windows only",
)
EACH = pytest.mark.parametrize("name", ["oracle", "mssql", pytest.param("dm", marks=DAMENG)])


@pytest.fixture(autouse=True)
def stages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Dameng's stages that were asked for; each is there already."""
    asked: list[str] = []
    there = SimpleNamespace(has_table=lambda name: asked.append(name) is None)
    monkeypatch.setattr("connectors.sql_dameng.inspect", lambda _: there)
    return asked


@EACH
def test_the_table_that_prepare_creates_has_types_that_keep_every_value(name: str) -> None:
    made, database, _ = connector(name)
    text = " ".join(str(CreateTable(made._wanted_table()).compile(dialect=database.engine.dialect)).split())
    wanted = {
        "oracle": [
            "record_id VARCHAR2(190 CHAR) NOT NULL",
            "name CLOB",
            "visits NUMBER(19)",
            "score DOUBLE PRECISION",
            "income NUMERIC(38, 2)",
            "insured NUMBER(1)",
            "born DATE",
            "seen_at TIMESTAMP WITH TIME ZONE",
        ],
        "mssql": [
            "record_id NVARCHAR(190) COLLATE Latin1_General_100_BIN2 NOT NULL",
            "name NVARCHAR(max)",
            "visits BIGINT",
            "income NUMERIC(38, 2)",
            "insured BIT",
            "born DATE",
            "seen_at DATETIMEOFFSET",
        ],
        "dm": [
            "record_id VARCHAR2(190 CHAR) NOT NULL",
            "name TEXT",
            "visits BIGINT",
            "score DOUBLE",
            "income NUMERIC(38, 2)",
            "insured SMALLINT",
            "born DATE",
            "seen_at TIMESTAMP WITH TIME ZONE",
        ],
    }
    for part in wanted[name]:
        assert part in text, text
    assert "PRIMARY KEY (record_id)" in text and "IDENTITY" not in text
    assert name == "dm" or not re.search(r"\bTEXT\b", text), "TEXT is what Dameng calls a CLOB"


@pytest.mark.parametrize("name", ["oracle", "mssql"])
def test_the_desk_has_no_type_that_loses_chinese(name: str) -> None:
    database, _ = opened(name)
    desk = desk_table(make_node(SAMPLE, {}), "desk", None)
    text = str(CreateTable(desk).compile(dialect=database.engine.dialect))
    assert not re.search(r"\bTEXT\b", text)
    assert ("NVARCHAR(max)" if name == "mssql" else "CLOB") in text


def test_oracle_is_given_one_merge_from_a_private_temporary_table() -> None:
    said = written("oracle", table(SAMPLE, [row("R1", note="甲", visits=1)]))
    staged = re.fullmatch(
        r"CREATE PRIVATE TEMPORARY TABLE (ora\$ptt_fedsync_stage_\d+) ON COMMIT DROP DEFINITION AS "
        r'SELECT .*"order".* FROM "居民 表" WHERE 1 = 0',
        said[0],
    )
    assert staged, said[0]
    assert said[1].startswith(f'INSERT INTO {staged[1]} (record_id, community_code, "order", visits) VALUES (')
    assert said[2].startswith(
        f'MERGE INTO "居民 表" USING {staged[1]} ON ("居民 表".record_id = {staged[1]}.record_id)'
    )
    assert '"居民 表"."order" = ' in said[2] and "changed = CURRENT_TIMESTAMP" in said[2]
    assert not [one for one in said if one.startswith(("UPDATE", "DROP"))]
    assert (
        said[3].startswith('INSERT INTO "居民 表"') and "LEFT OUTER JOIN" in said[3] and "IS NULL ORDER BY" in said[3]
    )


def test_oracle_stages_each_table_of_a_batch_under_a_name_of_its_own() -> None:
    said = written(
        "oracle", table(SAMPLE, [row("R1")]), table(SAMPLE, [row("R2", note="乙")]),
        deletes=table(SAMPLE, [{"record_id": "R3"}]),
    )  # fmt: skip
    names = [match[1] for one in said if (match := re.search(r"CREATE PRIVATE TEMPORARY TABLE (\S+)", one))]
    assert len(set(names)) == 3
    assert said[-1].startswith('DELETE FROM "居民 表" WHERE EXISTS (SELECT ')


def test_sql_server_stages_without_an_identity_of_its_own_and_compares_keys_byte_by_byte() -> None:
    said = written(
        "mssql", table(SAMPLE, [row("R1", note="甲", visits=1)]), deletes=table(SAMPLE, [{"record_id": "R3"}])
    )
    assert re.fullmatch(
        r"SELECT \* INTO #fedsync_stage FROM \(SELECT (.*) FROM \[居民 表\] WHERE 1 = 0 UNION ALL SELECT \1 FROM \[居民 表\] WHERE 1 = 0\) AS nothing",
        said[0],
    )
    assert said[1].startswith("INSERT INTO [#fedsync_stage] (record_id, community_code, [order], visits) VALUES (")
    assert said[2].startswith("UPDATE [居民 表] SET ") and "FROM [居民 表], [#fedsync_stage] WHERE" in said[2]
    assert "CAST([居民 表].record_id AS VARBINARY(max)) = CAST([#fedsync_stage].record_id AS VARBINARY(max))" in said[2]
    assert "changed=sysdatetimeoffset()" in said[2]
    assert said[-1] == "DROP TABLE #fedsync_stage" and said[-2].startswith("DELETE FROM [居民 表] WHERE EXISTS")


@EACH
def test_nothing_is_said_that_only_other_databases_understand(name: str) -> None:
    made, _, connection = connector(name)
    made._raw(connection)  # type: ignore[arg-type]
    made._token(connection)  # type: ignore[arg-type]
    for condition in made._key_conditions(connection, table(SAMPLE, [{"record_id": "R1"}]), trimmed=True):  # type: ignore[arg-type]
        made._raw(connection, condition)  # type: ignore[arg-type]
    said = "\n".join([*connection.said, *written(name, table(SAMPLE, [row("R1")]))])
    for word in (r"\bLIMIT\b", r"CREATE TEMPORARY", r"AS TEXT\)", r"AS CLOB\)", r"\bWHERE false\b", r"ILIKE"):
        assert not re.search(word, said, re.IGNORECASE), (word, said)


@EACH
def test_keys_are_asked_for_in_portions_that_every_server_takes(name: str) -> None:
    made, _, connection = connector(name)
    keys = table(SAMPLE, [{"record_id": f"R{number}"} for number in range(1200)])
    made._raw(connection, made._key_conditions(connection, keys)[0])  # type: ignore[arg-type]
    assert connection.said[-1].count("?" if name == "dm" else "record_id_1_") == 500
    assert len(made._key_conditions(connection, keys)) == 3  # type: ignore[arg-type]
    composite, _, connection = connector(name, COMPOSITE)
    visits = table(COMPOSITE, [visit("A", number) for number in range(600)], *COMPOSITE.key)
    assert len(composite._key_conditions(connection, visits)) == 3  # type: ignore[arg-type]


@EACH
def test_rows_with_the_same_key_as_a_changed_one_are_found_without_comparing_pairs(name: str) -> None:
    made, _, connection = connector(name, COMPOSITE)
    made._found_keyed = False
    condition = made._changed_since(connection, Watermark("2026-01-01T00:00:00"))  # type: ignore[arg-type]
    made._raw(connection, condition)  # type: ignore[arg-type]
    assert "EXISTS (SELECT " in connection.said[-1] and not re.search(r"\([^()]*, [^()]*\) IN", connection.said[-1])


def test_oracle_never_compares_a_clob() -> None:
    _, database, _ = connector("oracle")
    clob, spec = Column("note", oracle.CLOB()), SAMPLE.fields["note"]
    assert database.key_condition(clob, spec, ["x"]) is None, "it reads the table instead"
    same = str(database.same(clob, Column("other", oracle.CLOB()), spec, clob).compile(dialect=database.engine.dialect))
    assert same == "CAST(note AS VARCHAR2(4000 CHAR)) = CAST(other AS VARCHAR2(4000 CHAR))"
    trimmed = str(database.trimmed(clob).compile(dialect=database.engine.dialect))
    assert trimmed == "trim(CAST(note AS VARCHAR2(4000 CHAR)))"


@EACH
def test_moments_are_asked_for_in_utc_and_become_moments_again(name: str) -> None:
    made, database, connection = connector(name)
    column = made._found_table.c["seen_at"]
    shown = str(database.plain(column).compile(dialect=database.engine.dialect))
    assert "sys_extract_utc(" in shown if name != "mssql" else re.search(r"CAST\(switchoffset\(.*AS DATETIME2\)", shown)

    def rows(*_: Any, **__: Any) -> Any:
        told = Told()
        told.fetchall = lambda: [(datetime(2026, 1, 31, 16, 5, 6),)]  # type: ignore[method-assign]
        return told

    connection.execute = rows  # type: ignore[method-assign]
    raw = database.read(connection, None, {"seen_at": column}, SAMPLE.fields)  # type: ignore[arg-type]
    assert raw.column("seen_at").to_pylist() == [datetime(2026, 1, 31, 16, 5, 6, tzinfo=UTC)]


@EACH
def test_the_newest_change_is_asked_for_without_what_lies_in_the_future(name: str) -> None:
    made, database, connection = connector(name)
    database.newest(connection, made._found_table.c["changed"], "Asia/Shanghai", None)  # type: ignore[arg-type]
    assert re.search(r"max\(CASE WHEN .*changed.* <= (CURRENT_TIMESTAMP|sysdatetimeoffset\(\))", connection.said[-1])
    overlap = Overlap(60, 10)
    condition = database.changed_since(made._found_table.c["changed"], Watermark("2026-01-01T00:00:00"), overlap)
    text = str(condition.compile(dialect=database.engine.dialect))
    assert "IS NULL OR" in text and ">=" in text
    numbers = database.changed_since(Column("n", Integer), Watermark(100), overlap)
    assert numbers.compile(dialect=database.engine.dialect).params == {"n_1": 90}


@EACH
def test_yes_and_no_are_written_as_numbers_into_columns_of_numbers(name: str) -> None:
    from connectors.sql_values import for_driver

    values = pa.chunked_array([[True, False, None]])
    assert for_driver(values, sql.Numeric(1), "UTC") == [1, 0, None]
    assert all(type(value) is not bool for value in for_driver(values, Integer(), "UTC"))


def test_an_offset_column_of_sql_server_is_known_to_keep_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    database, connection = opened("mssql")
    columns = [{"name": "a", "type": mssql.DATETIMEOFFSET(7)}, {"name": "b", "type": mssql.DATETIME2()}]
    inspected = type("Inspected", (), {"get_columns": lambda *_: columns})
    monkeypatch.setattr("connectors.sql_mssql.inspect", lambda _: inspected())
    kinds = database.kinds(connection, "t", None)  # type: ignore[arg-type]
    assert (kinds["a"].timezone, kinds["b"].timezone) == (True, False)  # type: ignore[attr-defined]


# --- errors


def oracle_error(code: int) -> Exception:
    return oracledb.DatabaseError(f"ORA-{code:05d}: something about it\nHelp: https://docs")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (oracle_error(1017), AccessDenied),
        (oracle_error(942), SchemaMismatch),
        (oracle_error(60), Transient),
        (oracle_error(1), Conflict),
        (oracle_error(1400), Permanent),
        (oracledb.OperationalError("DPY-6005: cannot connect to database"), Transient),
        (pymssql.OperationalError((18456, b"Login failed for user 'x'")), AccessDenied),
        (pymssql.OperationalError((20009, b"Unable to connect")), Transient),
        (pymssql.ProgrammingError((208, b"Invalid object name 't'")), SchemaMismatch),
        (pymssql.OperationalError((1205, b"deadlock victim")), Transient),
        (pymssql.IntegrityError((2627, b"Violation of PRIMARY KEY constraint")), Conflict),
        (pymssql.IntegrityError((515, b"Cannot insert the value NULL")), Permanent),
    ],
    ids=str,
)
def test_a_drivers_error_is_one_of_ours(error: Exception, kind: type[Exception]) -> None:
    wrapped = DatabaseError("SELECT 1", {}, error)
    assert type(_translated(wrapped, make_node(SAMPLE, {}), "t", 0.0)) is kind


def dameng_error(code: int, words: str = "something about it") -> Exception:
    import dmPython

    error: Exception = dmPython.DatabaseError(f"[CODE:{code}]{words}")
    return error


@DAMENG
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (-2501, AccessDenied),
        (-5504, AccessDenied),
        (-6506, AccessDenied),
        (-2106, SchemaMismatch),
        (-2111, SchemaMismatch),
        (-6010, Transient),
        (-6403, Transient),
        (-70028, Transient),
        (-6602, Conflict),
        (-6609, Permanent),
        (-2007, Permanent),
    ],
)
def test_an_error_of_dameng_is_one_of_ours(code: int, kind: type[Exception]) -> None:
    wrapped = DatabaseError("SELECT 1", {}, dameng_error(code))
    assert type(_translated(wrapped, make_node(SAMPLE, {}), "t", 0.0)) is kind


@pytest.mark.parametrize(
    ("module", "extra"),
    [("oracledb", "oracle"), ("pymssql", "mssql"), ("dmPython", "dameng"), ("dmSQLAlchemy", "dameng")],
)
def test_a_driver_that_is_missing_names_its_extra(module: str, extra: str) -> None:
    missing = ModuleNotFoundError(f"No module named {module!r}", name=module)
    error = _translated(missing, make_node(SAMPLE, {}), "t", 0.0)
    assert isinstance(error, Permanent) and f'pip install "fedsync[{extra}]"' in error.todo


# --- KingbaseES, openGauss: PostgreSQL by another name


class Versions:
    """A connection that answers as a descendant of PostgreSQL does."""

    def __init__(self, version: str, number: str) -> None:
        self.answers = {"select pg_catalog.version()": version, "SHOW server_version_num": number}

    def exec_driver_sql(self, statement: str) -> Any:
        answer = self.answers[statement]
        return type("Answer", (), {"scalar": lambda _: answer, "scalar_one": lambda _: answer})()


@pytest.mark.parametrize(
    ("version", "number", "known"),
    [
        ("PostgreSQL 16.3 on x86_64", "160003", (16, 3)),
        ("KingbaseES V008R006C007B0012 on x64, compiled by gcc", "120001", (12, 1)),
        ("(openGauss 5.0.0 build a07d57c3) compiled at 2023-03-29", "90204", (9, 2)),
    ],
)
def test_a_descendant_of_postgresql_tells_its_version_by_number(version: str, number: str, known: Any) -> None:
    dialect: Any = Postgres(_driven(make_url("postgresql://u@h/x"))).engine.dialect
    assert dialect._get_server_version_info(Versions(version, number)) == known


@pytest.mark.parametrize("scheme", ["kingbase", "kingbasees", "kingbase8"])
def test_kingbase_is_postgresql_under_a_port_of_its_own(scheme: str) -> None:
    database = _kind_of(_driven(make_url(f"{scheme}://u@h/x")), Patience())
    assert isinstance(database, Postgres) and database.engine.driver == "psycopg"
    assert database.engine.url.port == 54321
    assert _driven(make_url(f"{scheme}://u@h:7000/x")).port == 7000


# --- Dameng


class Wire:
    """Stands where dmPython opens a connection: what each of them was told, by number, in order."""

    def __init__(self) -> None:
        self.said: list[tuple[int, str]] = []
        self.rows: list[Any] = []
        self.tables: set[str] = set()
        self.arguments: dict[str, Any] = {}
        self.opened = 0

    def connect(self, **arguments: Any) -> Any:
        self.arguments = arguments
        self.opened += 1
        return Line(self, self.opened)


class Line:
    """One of its connections, and the cursor of that."""

    local_code, str_case_sensitive, server_version, current_schema = 1, True, "8.1.3.62", "U"
    description = (("RECORD_ID", "STRING", 190, 190, None, None, 0),)
    lastrowid, rowcount, arraysize = None, 0, 50

    def __init__(self, wire: Wire, number: int) -> None:
        self.wire, self.number = wire, number
        self.found: list[tuple[Any, ...]] = []

    def cursor(self) -> Line:
        return Line(self.wire, self.number)

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def tell(self, words: str) -> None:
        self.wire.said.append((self.number, " ".join(words.split())))

    def execute(self, statement: str, parameters: Any = None) -> None:
        self.tell(statement)
        self.found = [("READ COMMITTED" if "V$TRX" in statement else "NORMAL",)]
        if "all_tables" in statement:
            self.found = [(parameters[0],)] if parameters[0] in self.wire.tables else []
        if created := re.match(r"CREATE GLOBAL TEMPORARY TABLE (\w+)", statement):
            self.wire.tables.add(created[1].upper())

    def executemany(self, statement: str, parameters: Any) -> None:
        self.tell(statement)
        self.wire.rows.extend(parameters)

    def fetchall(self) -> list[Any]:
        return self.found

    def fetchone(self) -> Any:
        return self.found[0] if self.found else None

    def commit(self) -> None:
        self.tell("COMMIT")

    def rollback(self) -> None:
        self.tell("ROLLBACK")

    def close(self) -> None:
        return


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Wire, Database]]:
    from sqlalchemy import inspect

    monkeypatch.setattr("connectors.sql_dameng.inspect", inspect)
    told = Wire()
    monkeypatch.setattr("dmPython.connect", told.connect)
    database = _kind_of(_driven(make_url("dm://u@h/x")), Patience(timeout=30))
    yield told, database
    database.engine.dispose()


@DAMENG
def test_dameng_is_given_one_merge_from_a_global_temporary_table(stages: list[str]) -> None:
    said = written("dm", table(SAMPLE, [row("R1", note="甲", visits=1)]), deletes=table(SAMPLE, [{"record_id": "R3"}]))
    stage = stages[0]
    assert re.fullmatch(r"fedsync_stage_[0-9a-f]{16}", stage)
    assert re.fullmatch(r'SELECT .*"order".* FROM "居民 表" WHERE 1 = 0', said[0]), "what the stage is like"
    assert said[1] == f'INSERT INTO {stage} (record_id, community_code, "order", visits) VALUES (?, ?, ?, ?)'
    assert said[2].startswith(f'MERGE INTO "居民 表" USING {stage} ON ("居民 表".record_id = {stage}.record_id) WHEN')
    assert '"居民 表"."order" = ' in said[2] and "changed = CURRENT_TIMESTAMP" in said[2]
    assert said[3].startswith('INSERT INTO "居民 表"') and "IS NULL ORDER BY" in said[3]
    assert said[4] == f"DELETE FROM {stage}"
    assert stages[1] != stage, "other columns, another stage"
    assert said[-2].startswith('DELETE FROM "居民 表" WHERE EXISTS (SELECT ') and said[-1] == f"DELETE FROM {stages[1]}"
    assert not [one for one in said if one.startswith(("UPDATE", "DROP", "CREATE"))]


@DAMENG
def test_dameng_defines_a_stage_once_and_outside_of_the_transaction_that_it_would_commit(wire: Any) -> None:
    told, database = wire
    like = "SELECT t.record_id FROM t WHERE 1 = 0"
    with database.writing() as connection:
        writer = told.opened
        connection.exec_driver_sql("UPDATE t SET a = 1")
        first = database.stage(connection, like)
        second = database.stage(connection, like)
        database.unstage(connection, second)
    assert first == second
    created = [(number, words) for number, words in told.said if words.startswith("CREATE")]
    assert [words for _, words in created] == [f"CREATE GLOBAL TEMPORARY TABLE {first} ON COMMIT DELETE ROWS AS {like}"]
    assert created[0][0] != writer
    mine = [words for number, words in told.said if number == writer]
    assert "COMMIT" not in mine[mine.index("UPDATE t SET a = 1") : mine.index(f"DELETE FROM {first}")]


@DAMENG
def test_dameng_is_sent_moments_with_their_zone_and_not_asked_for_the_keys_of_many_rows(wire: Any) -> None:
    told, database = wire
    stage = Table("s", MetaData(), Column("k", sql.String(9), primary_key=True), database.column("m", SAMPLE.fields["seen_at"], key=False), Column("l", sql.DateTime()))  # fmt: skip
    moment = datetime(2026, 1, 31, 16, 5, 6, tzinfo=UTC)
    rows = pa.table({"k": ["a", "b"], "m": pa.array([moment, None], pa.timestamp("us", "UTC")), "l": pa.array([moment] * 2, pa.timestamp("us", "UTC"))})  # fmt: skip
    with database.writing() as connection:
        database.load(connection, stage, dict(stage.c.items()), rows, "Asia/Shanghai")
    inserted = [words for _, words in told.said if words.startswith("INSERT")]
    assert inserted == ["INSERT INTO s (k, m, l) VALUES (?, ?, ?)"]
    assert told.rows == [
        ["a", "2026-01-31 16:05:06.000000 +00:00", "2026-02-01 00:05:06.000000"],
        ["b", None, "2026-02-01 00:05:06.000000"],
    ]


@DAMENG
def test_dameng_is_read_in_one_state_and_waited_for_as_long_as_declared(wire: Any) -> None:
    told, database = wire
    with database.reading() as connection:
        connection.exec_driver_sql("SELECT 1 FROM t")
    words = [words for _, words in told.said]
    serial = next(at for at, one in enumerate(words) if one.endswith("ISOLATION LEVEL SERIALIZABLE"))
    assert words.index("SELECT 1 FROM t") > serial and "COMMIT" not in words[serial : words.index("SELECT 1 FROM t")]
    assert (told.arguments["login_timeout"], told.arguments["connection_timeout"]) == (10, 30)
    assert told.arguments["autoCommit"] is False and told.arguments["schema"] == "x"


@DAMENG
def test_dameng_takes_a_moment_as_a_moment_in_a_table_that_it_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    database, connection = opened("dm")
    columns = [{"name": "a", "type": sql.TIMESTAMP(timezone=True)}, {"name": "b", "type": sql.TIMESTAMP()}]
    found = SimpleNamespace(get_columns=lambda *_: columns)
    monkeypatch.setattr("connectors.sql_database.inspect", lambda _: found)
    kinds = database.kinds(connection, "t", None)  # type: ignore[arg-type]
    assert type(kinds["a"]) is Moment and type(kinds["b"]) is sql.TIMESTAMP


@DAMENG
def test_only_the_half_of_damengs_dialect_that_cannot_be_imported_is_left_out() -> None:
    import_dialect()
    assert "dmSQLAlchemy.dmpython" in sys.modules and "dmSQLAlchemy.dmasync" not in sys.modules


@DAMENG
def test_a_dameng_that_is_not_there_is_an_error_that_passes() -> None:
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))
    options = {"url": f"dm://u:p@127.0.0.1:{closed.getsockname()[1]}/", "timeout": 1}
    with closed, pytest.raises(Transient, match="CODE:-70028"):
        SqlConnector(make_node(SAMPLE, options)).probe()
