"""The SQL that the connector would send to databases that no test can reach, compiled by their dialects.

What is proven here is that nothing is emitted which these databases are documented not to take. That they take the rest is proven by
`tests/contract/test_sql_live.py` against a live one.
"""

from __future__ import annotations

import importlib.util
import re
from datetime import UTC, datetime
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
from connectors.sql_database import Database, Patience, _driven, _kind_of
from connectors.sql_desk import desk_table
from connectors.sql_errors import _translated
from connectors.sql_postgres import Postgres
from federation.errors import AccessDenied, Conflict, Permanent, SchemaMismatch, Transient
from tests.contract.dataset import COMPOSITE, SAMPLE, make_node, row, table, visit

URLS = {"oracle": "oracle://u@h/?service_name=x", "mssql": "mssql://u@h/x"}
VERSIONS = {"oracle": (19, 0, 0), "mssql": (15, 0)}
OPTIONS = {"capture": "cursor", "cursor_column": "changed", "table": "居民 表"}


class Told:
    """A result without rows."""

    rowcount = 0

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


BOTH = pytest.mark.parametrize("name", list(URLS))


@BOTH
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
    }
    for part in wanted[name]:
        assert part in text, text
    assert "PRIMARY KEY (record_id)" in text and "IDENTITY" not in text
    assert not re.search(r"\bTEXT\b", text)


@BOTH
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


@BOTH
def test_nothing_is_said_that_only_other_databases_understand(name: str) -> None:
    made, _, connection = connector(name)
    made._raw(connection)  # type: ignore[arg-type]
    made._token(connection)  # type: ignore[arg-type]
    for condition in made._key_conditions(connection, table(SAMPLE, [{"record_id": "R1"}]), trimmed=True):  # type: ignore[arg-type]
        made._raw(connection, condition)  # type: ignore[arg-type]
    said = "\n".join([*connection.said, *written(name, table(SAMPLE, [row("R1")]))])
    for word in (r"\bLIMIT\b", r"CREATE TEMPORARY", r"AS TEXT\)", r"AS CLOB\)", r"\bWHERE false\b", r"ILIKE"):
        assert not re.search(word, said, re.IGNORECASE), (word, said)


@BOTH
def test_keys_are_asked_for_in_portions_that_every_server_takes(name: str) -> None:
    made, _, connection = connector(name)
    keys = table(SAMPLE, [{"record_id": f"R{number}"} for number in range(1200)])
    made._raw(connection, made._key_conditions(connection, keys)[0])  # type: ignore[arg-type]
    assert connection.said[-1].count("record_id_1_") == 500
    assert len(made._key_conditions(connection, keys)) == 3  # type: ignore[arg-type]
    composite, _, connection = connector(name, COMPOSITE)
    visits = table(COMPOSITE, [visit("A", number) for number in range(600)], *COMPOSITE.key)
    assert len(composite._key_conditions(connection, visits)) == 3  # type: ignore[arg-type]


@BOTH
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


@BOTH
def test_moments_are_asked_for_in_utc_and_become_moments_again(name: str) -> None:
    made, database, connection = connector(name)
    column = made._found_table.c["seen_at"]
    shown = str(database.plain(column).compile(dialect=database.engine.dialect))
    assert (
        "sys_extract_utc(" in shown if name == "oracle" else re.search(r"CAST\(switchoffset\(.*AS DATETIME2\)", shown)
    )

    def rows(*_: Any, **__: Any) -> Any:
        told = Told()
        told.fetchall = lambda: [(datetime(2026, 1, 31, 16, 5, 6),)]  # type: ignore[method-assign]
        return told

    connection.execute = rows  # type: ignore[method-assign]
    raw = database.read(connection, None, {"seen_at": column}, SAMPLE.fields)  # type: ignore[arg-type]
    assert raw.column("seen_at").to_pylist() == [datetime(2026, 1, 31, 16, 5, 6, tzinfo=UTC)]


@BOTH
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


@BOTH
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


# --- Dameng


def test_what_dameng_would_be_told() -> None:
    """Runs once its dialect can be imported together with this SQLAlchemy; see docs/databases.md."""
    if importlib.util.find_spec("dmSQLAlchemy") is None:
        pytest.skip("dmSQLAlchemy is not installed: no release of it can be imported with SQLAlchemy 2.1")
    from dmSQLAlchemy.dmpython import DMDialect_dmPython

    text = str(CreateTable(desk_table(make_node(SAMPLE, {}), "desk", None)).compile(dialect=DMDialect_dmPython()))
    assert "correction_id" in text
