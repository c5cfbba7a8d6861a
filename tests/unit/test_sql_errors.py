"""A database that fails or has ways of its own: what the SQL connector makes of it. Real databases wherever one can fail so."""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from sqlalchemy import make_url

from connectors import sql_sqlite
from connectors.base import Batch, Connector, no_keys
from connectors.sql import SqlConnector
from connectors.sql_postgres_driver import ImpatientConnection
from federation.canonical import key_table
from federation.errors import AccessDenied, ConnectorError, Permanent, SchemaMismatch, Transient, Unreadable
from tests.contract.dataset import SAMPLE, make_node, row, table
from tests.servers import postgres_schema, postgres_url

FIELDS = ("record_id", "community_code", "note", "visits")
STEPS: dict[str, Callable[[Connector], object]] = {
    "probe": lambda connector: connector.probe(),
    "prepare": lambda connector: connector.prepare(),
    "changes": lambda connector: connector.changes(None),
    "fetch": lambda connector: connector.fetch(key_table(["R1"], SAMPLE)),
    "holding": lambda connector: connector.holding("note", pa.array(["一"])),
    "apply": lambda connector: connector.apply(Batch((table(SAMPLE, [row("R1", note="一")]),), no_keys(connector.node))),
    "digest": lambda connector: connector.digest(),
}  # fmt: skip
"""Every method that talks to the database."""


def opened(url: str, columns: dict[str, str] | None = None, **options: Any) -> SqlConnector:
    return SqlConnector(make_node(SAMPLE, {"url": url, "table": "ledger", **options}, fields=FIELDS, columns=columns))


def failing(step: str, connector: Connector) -> ConnectorError:
    """The error of one method, which must be ours, bilingual, and keep the driver's."""
    with pytest.raises(ConnectorError) as caught:
        STEPS[step](connector)
    assert caught.value.zh and caught.value.en and caught.value.todo
    assert caught.value.where["dataset"] == "sample" and caught.value.where["system"] == "under_test"
    return caught.value


@pytest.fixture
def schema() -> Iterator[str]:
    with postgres_schema() as name:
        yield name


@pytest.fixture
def people(schema: str) -> Iterator[psycopg.Connection[Any]]:
    """Somebody at the database's own prompt, in the test's schema."""
    with psycopg.connect(postgres_url(), autocommit=True) as connection:
        connection.execute(f"SET search_path = {schema}")
        yield connection


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "system.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TABLE ledger (record_id TEXT PRIMARY KEY, community_code TEXT, note TEXT, visits INT)"
        )
        connection.execute("INSERT INTO ledger VALUES ('R1', '110101001001', '零', 0)")
    return path


def lite(path: Path, **options: Any) -> SqlConnector:
    return opened(f"sqlite:///{path}", **options)


def notes(connector: SqlConnector, since: str | None = None) -> dict[str, str | None]:
    rows = connector.changes(since).rows
    return dict(zip(rows.column("record_id").to_pylist(), rows.column("note").to_pylist()))


# --- no way in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
def test_a_server_that_cannot_be_reached_may_be_tried_again(step: str) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody answers, and nobody else can take the port
        taken.bind(("127.0.0.1", 0))
        url = f"postgresql://nobody@127.0.0.1:{taken.getsockname()[1]}/nothing"
        error = failing(step, opened(url, create=True))
    assert isinstance(error, Transient)
    assert error.__cause__ is not None


def test_a_user_who_does_not_exist_is_an_error_for_a_person() -> None:
    url = make_url(postgres_url()).set(username="fedsync_nobody", password="Geheim-1").render_as_string(False)
    error = failing("changes", opened(url))
    assert isinstance(error, AccessDenied)
    assert "Geheim-1" not in str(error)


@pytest.mark.parametrize(
    "said",
    [
        'connection failed: FATAL:  password authentication failed for user "reader"',
        "connection failed: 致命错误:  用户 \"reader\" Password 认证失败",
        'connection failed: FATAL:  no pg_hba.conf entry for host "10.0.0.1"',
    ],
)  # fmt: skip
def test_a_wrong_password_is_an_error_for_a_person(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """The words are the server's; the server of these tests trusts everybody, so psycopg's own error is put in."""

    def refuse(*_: Any, **__: Any) -> None:
        raise psycopg.OperationalError(said)

    monkeypatch.setattr(ImpatientConnection, "connect", refuse)
    error = failing("changes", opened("postgresql://reader:Geheim-2@127.0.0.1:5999/refusing"))
    assert isinstance(error, AccessDenied)
    assert "Geheim-2" not in str(error)


def test_a_right_that_is_missing_is_an_error_for_a_person(people: psycopg.Connection[Any], schema: str) -> None:
    role = f"{schema}_reader"
    people.execute("CREATE TABLE ledger (record_id text PRIMARY KEY, community_code text, note text, visits int)")
    people.execute(f"CREATE ROLE {role} LOGIN")
    try:
        people.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        people.execute(f"GRANT SELECT ON ledger TO {role}")
        connector = opened(make_url(postgres_url()).set(username=role).render_as_string(False), schema_name=schema)
        assert notes(connector) == {}
        assert isinstance(failing("apply", connector), AccessDenied)
        connector._database.engine.dispose()
    finally:
        people.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_database_that_does_not_exist_is_named() -> None:
    url = make_url(postgres_url()).set(database="fedsync_no_such_database").render_as_string(False)
    error = failing("probe", opened(url))
    assert isinstance(error, SchemaMismatch)
    assert "fedsync_no_such_database" in str(error)


# --- what is not there ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [step for step in STEPS if step != "prepare"])
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_missing_table_is_named(step: str, kind: str, file: Path, schema: str) -> None:
    where = {"url": f"sqlite:///{file}"} if kind == "sqlite" else {"url": postgres_url(), "schema_name": schema}
    error = failing(step, opened(**where, table="absent"))
    assert isinstance(error, SchemaMismatch)
    assert "absent" in error.zh and "absent" in error.en


def test_a_missing_column_is_named_with_those_that_exist(file: Path) -> None:
    error = failing("changes", opened(f"sqlite:///{file}", {"note": "beizhu"}))
    assert isinstance(error, SchemaMismatch)
    assert "beizhu" in error.zh and "visits" in error.en


def test_a_missing_cursor_column_is_named(file: Path) -> None:
    error = failing("changes", lite(file, capture="cursor", cursor_column="gxsj"))
    assert isinstance(error, SchemaMismatch)
    assert "gxsj" in error.zh


def test_a_column_that_vanishes_while_we_are_connected_is_a_mismatch(
    people: psycopg.Connection[Any], schema: str
) -> None:
    people.execute("CREATE TABLE ledger (record_id text PRIMARY KEY, community_code text, note text, visits int)")
    connector = opened(postgres_url(), schema_name=schema)
    connector.changes(None)
    people.execute("ALTER TABLE ledger DROP COLUMN note")
    error = failing("changes", connector)
    assert isinstance(error, SchemaMismatch)
    assert "note" in error.en and isinstance(error.__cause__, Exception)


def test_a_file_that_is_no_database_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "system.db"
    path.write_bytes(b"not a database, but long enough to look like one" * 30)
    error = failing("changes", lite(path))
    assert isinstance(error, Unreadable)


def test_a_missing_file_is_an_error_and_is_not_created(tmp_path: Path) -> None:
    assert isinstance(failing("changes", lite(tmp_path / "system.db")), SchemaMismatch)
    assert not (tmp_path / "system.db").exists()


# --- busy, broken ---------------------------------------------------------------------------------------------------


def test_a_locked_file_may_be_tried_again_and_is_not_waited_for_long(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_sqlite, "BUSY_MILLISECONDS", 200)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for step in ("changes", "apply"):
            began = time.monotonic()
            assert isinstance(failing(step, lite(file)), Transient)
            assert time.monotonic() - began < 5
        other.execute("ROLLBACK")
    assert notes(lite(file)) == {"R1": "零"}


def test_a_locked_row_of_postgresql_that_the_server_gives_up_on_may_be_tried_again(
    people: psycopg.Connection[Any], schema: str
) -> None:
    people.execute("CREATE TABLE ledger (record_id text PRIMARY KEY, community_code text, note text, visits int)")
    people.execute("INSERT INTO ledger VALUES ('R1', '110101001001', '零', 0)")
    joint = "&" if "?" in postgres_url() else "?"
    connector = opened(f"{postgres_url()}{joint}options=-clock_timeout%3D200", schema_name=schema)
    with people.transaction():
        people.execute("SELECT * FROM ledger FOR UPDATE")
        assert isinstance(failing("apply", connector), Transient)
    STEPS["apply"](connector)
    assert notes(connector) == {"R1": "一"}
    connector._database.engine.dispose()


@pytest.mark.parametrize("step", STEPS)
def test_a_driver_that_breaks_under_any_method_is_wrapped_and_kept(
    step: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = sqlite3.DatabaseError("the driver broke")

    def breaks(*_: Any, **__: Any) -> None:
        raise broken

    connector = lite(file, create=True)
    monkeypatch.setattr(connector._database.engine.dialect.loaded_dbapi, "connect", breaks)
    error = failing(step, connector)
    assert isinstance(error, Permanent)
    causes = [error.__cause__, getattr(error.__cause__, "orig", None)]
    assert broken in causes


@pytest.mark.parametrize("step", [step for step in STEPS if step != "prepare"])
def test_a_connection_that_the_server_ended_is_replaced(
    step: str, people: psycopg.Connection[Any], schema: str
) -> None:
    people.execute("CREATE TABLE ledger (record_id text PRIMARY KEY, community_code text, note text, visits int)")
    joint = "&" if "?" in postgres_url() else "?"
    connector = opened(f"{postgres_url()}{joint}application_name={schema}", schema_name=schema)
    connector.probe()
    ended = people.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", [schema]
    )
    assert ended.rowcount == 1
    STEPS[step](connector)
    connector._database.engine.dispose()


def test_a_batch_that_fails_half_way_leaves_nothing(people: psycopg.Connection[Any], schema: str) -> None:
    people.execute(
        "CREATE TABLE ledger (record_id text PRIMARY KEY, community_code text, note text, visits int CHECK (visits < 5))"
    )
    connector = opened(postgres_url(), schema_name=schema)
    tables = (table(SAMPLE, [row("R1", note="好")]), table(SAMPLE, [row("R2", note="秘密", visits=9)]))
    with pytest.raises(Permanent) as caught:
        connector.apply(Batch(tables, no_keys(connector.node)))
    assert "秘密" not in str(caught.value), "the message quotes the record"
    assert "秘密" in str(caught.value.__cause__), "the driver's error does, so there was something to leave out"
    assert notes(connector) == {}


# --- nothing is lost ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp"])
def test_a_row_that_commits_late_is_not_lost(people: psycopg.Connection[Any], schema: str, kind: str) -> None:
    """Its transaction began, and stamped it, before the newest row that the read saw, and no overlap covers it."""
    connector = _stamped(people, schema, kind, overlap_seconds=0)
    with psycopg.connect(postgres_url()) as slow:
        slow.execute(f"SET search_path = {schema}; SET TimeZone = 'Asia/Shanghai'")
        slow.execute("INSERT INTO ledger VALUES ('LATE', '110101001001', '晚', 1, now())")
        people.execute("INSERT INTO ledger VALUES ('R1', '110101001001', '早', 1, clock_timestamp())")
        first = connector.changes(None)
        assert first.rows.column("record_id").to_pylist() == ["R1"]
        slow.commit()
    assert "LATE" in notes(connector, first.cursor)


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "bigint"])
def test_a_row_with_the_same_stamp_as_the_newest_one_read_is_not_lost(
    people: psycopg.Connection[Any], schema: str, kind: str
) -> None:
    connector = _stamped(people, schema, kind, overlap_seconds=0, overlap_rows=0)
    stamp = "7" if kind == "bigint" else "'2026-01-01 08:00:00'"
    people.execute(f"INSERT INTO ledger VALUES ('R1', '110101001001', '一', 1, {stamp})")
    cursor = connector.changes(None).cursor
    people.execute(f"INSERT INTO ledger VALUES ('R2', '110101001001', '二', 1, {stamp})")
    assert "R2" in notes(connector, cursor)


def test_a_row_with_a_stamp_in_the_future_hides_no_later_row(people: psycopg.Connection[Any], schema: str) -> None:
    connector = _stamped(people, schema, "timestamptz")
    people.execute("INSERT INTO ledger VALUES ('R1', '110101001001', '一', 1, now() + interval '3 years')")
    cursor = connector.changes(None).cursor
    people.execute("INSERT INTO ledger VALUES ('R2', '110101001001', '二', 1, now())")
    assert "R2" in notes(connector, cursor)


def test_a_row_without_a_stamp_is_read_each_time(people: psycopg.Connection[Any], schema: str) -> None:
    connector = _stamped(people, schema, "timestamptz")
    people.execute("INSERT INTO ledger VALUES ('R1', '110101001001', '一', 1, now())")
    cursor = connector.changes(None).cursor
    people.execute("INSERT INTO ledger VALUES ('R2', '110101001001', '二', 1, NULL)")
    assert "R2" in notes(connector, cursor)


def _stamped(people: psycopg.Connection[Any], schema: str, kind: str, **options: Any) -> SqlConnector:
    people.execute("SET TimeZone = 'Asia/Shanghai'")
    people.execute(
        f"CREATE TABLE ledger (record_id text PRIMARY KEY, community_code text, note text, visits int, gxsj {kind})"
    )
    return opened(postgres_url(), schema_name=schema, capture="cursor", cursor_column="gxsj", **options)


# --- tables as they are ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_row_whose_other_columns_must_not_be_empty_is_still_updated(kind: str, tmp_path: Path, schema: str) -> None:
    """The system requires a column that the contract does not know: an INSERT of ours would fail, an UPDATE must not."""
    create = "CREATE TABLE {}ledger (record_id text PRIMARY KEY, community_code text, note text, visits int, jbr text NOT NULL)"
    fill = "INSERT INTO {}ledger VALUES ('R1', '110101001001', '旧', 4, '老王')"
    if kind == "sqlite":
        connector = lite(tmp_path / "system.db")
        with closing(sqlite3.connect(tmp_path / "system.db")) as made, made:
            made.execute(create.format(""))
            made.execute(fill.format(""))
    else:
        connector = opened(postgres_url(), schema_name=schema)
        with psycopg.connect(postgres_url(), autocommit=True) as server:
            server.execute(create.format(f"{schema}."))
            server.execute(fill.format(f"{schema}."))
    connector.apply(Batch((table(SAMPLE, [{"record_id": "R1", "note": "新"}]),), no_keys(connector.node)))
    assert connector.changes(None).rows.to_pylist() == [row("R1", note="新", visits=4)]
    with pytest.raises(Permanent):
        connector.apply(Batch((table(SAMPLE, [row("R2", note="新")]),), no_keys(connector.node)))


def test_a_view_can_be_read_and_fetched_from(people: psycopg.Connection[Any], schema: str) -> None:
    people.execute("CREATE TABLE base (id text PRIMARY KEY, n text)")
    people.execute("INSERT INTO base VALUES ('R1', '一'), ('R2', '二')")
    people.execute(
        "CREATE VIEW ledger AS SELECT id AS record_id, '110101001001' AS community_code, n AS note, 1 AS visits FROM base"
    )
    connector = opened(postgres_url(), schema_name=schema)
    assert notes(connector) == {"R1": "一", "R2": "二"}
    assert connector.fetch(key_table(["R2", "R9"], SAMPLE)).rows.num_rows == 1
    before = connector.probe().token
    people.execute("UPDATE base SET n = '三' WHERE id = 'R2'")
    assert connector.probe().token != before


def test_a_materialized_view_can_be_read(people: psycopg.Connection[Any], schema: str) -> None:
    people.execute(
        "CREATE MATERIALIZED VIEW ledger AS SELECT 'R1' AS record_id, '110101001001' AS community_code, '一' AS note, 1 AS visits"
    )
    assert notes(opened(postgres_url(), schema_name=schema)) == {"R1": "一"}


@pytest.mark.parametrize(
    "name", ["order", "select", "Größe", "姓 名", 'a"b', "a'b", "100%", "x:y", "a.b", "$1", "{key}"]
)
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_any_column_name_works(kind: str, name: str, tmp_path: Path, schema: str) -> None:
    url = f"sqlite:///{tmp_path / 'system.db'}" if kind == "sqlite" else postgres_url()
    place = {} if kind == "sqlite" else {"schema_name": schema}
    connector = opened(url, {"note": name}, create=True, **place)
    connector.prepare()
    for text in ("一", "100% '\"\\ :x"):
        connector.apply(Batch((table(SAMPLE, [row("R1", note=text)]),), no_keys(connector.node)))
        assert notes(connector) == {"R1": text}
    connector.apply(Batch((), key_table(["R1"], SAMPLE)))
    assert notes(connector) == {}
