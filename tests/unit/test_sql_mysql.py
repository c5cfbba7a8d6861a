"""A MariaDB that fails or has ways of its own: what the SQL connector makes of it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pymysql
import pytest
from sqlalchemy import make_url

from connectors.base import Batch, Connector, no_keys
from connectors.sql import SqlConnector
from connectors.sql_mysql_errors import kind_of, said
from federation.canonical import key_table
from federation.errors import AccessDenied, Conflict, ConnectorError, Permanent, SchemaMismatch, Transient
from tests.contract.dataset import SAMPLE, make_node, row, table
from tests.servers import mysql_connection, mysql_database, mysql_url

FIELDS = ("record_id", "community_code", "note", "visits")
LEDGER = "(record_id varchar(40) PRIMARY KEY, community_code varchar(12), note text, visits int)"
STEPS: dict[str, Callable[[Connector], object]] = {
    "probe": lambda connector: connector.probe(),
    "changes": lambda connector: connector.changes(None),
    "fetch": lambda connector: connector.fetch(key_table(["R1"], SAMPLE)),
    "holding": lambda connector: connector.holding("note", pa.array(["一"])),
    "apply": lambda connector: connector.apply(Batch((table(SAMPLE, [row("R1", note="一")]),), no_keys(connector.node))),
}  # fmt: skip


def opened(url: str, fields: tuple[str, ...] = FIELDS, **options: Any) -> SqlConnector:
    return SqlConnector(make_node(SAMPLE, {"url": url, "table": "ledger", **options}, fields=fields))


def failing(step: str, connector: Connector) -> ConnectorError:
    """The error of one method, which must be ours, bilingual, and keep the driver's."""
    with pytest.raises(ConnectorError) as caught:
        STEPS[step](connector)
    assert caught.value.zh and caught.value.en and caught.value.todo
    assert caught.value.__cause__ is not None
    return caught.value


class People:
    """Somebody at the server's own prompt, in the test's database. `url`: of that database."""

    def __init__(self, name: str) -> None:
        self.url = make_url(mysql_url()).set(database=name).render_as_string(False)
        self.connection = mysql_connection(self.url)

    def say(self, statement: str) -> Any:
        with self.connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    def connector(self, fields: tuple[str, ...] = FIELDS, **options: Any) -> SqlConnector:
        return opened(self.url, fields, **options)


@pytest.fixture
def people() -> Iterator[People]:
    with mysql_database() as name:
        found = People(name)
        try:
            yield found
        finally:
            found.connection.close()


# --- no way in


@pytest.mark.parametrize("step", STEPS)
def test_a_server_that_cannot_be_reached_may_be_tried_again(step: str) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody answers, and nobody else can take the port
        taken.bind(("127.0.0.1", 0))
        error = failing(step, opened(f"mysql://nobody@127.0.0.1:{taken.getsockname()[1]}/nothing"))
    assert isinstance(error, Transient)


def test_a_wrong_password_is_an_error_for_a_person(people: People) -> None:
    url = make_url(people.url).set(username="fedsync_nobody", password="Geheim-1").render_as_string(False)
    error = failing("changes", opened(url))
    assert isinstance(error, AccessDenied)
    assert "Geheim-1" not in str(error)


def test_a_right_that_is_missing_is_an_error_for_a_person(people: People) -> None:
    people.say(f"CREATE TABLE ledger {LEDGER}")
    user = make_url(people.url).database or ""
    people.say(f"CREATE USER {user} IDENTIFIED BY 'x'")
    try:
        people.say(f"GRANT SELECT, CREATE TEMPORARY TABLES ON {user}.* TO {user}")
        url = make_url(people.url).set(username=user, password="x").render_as_string(False)
        reader = opened(url, capture="cursor", cursor_column="visits")
        assert reader.changes(None).rows.num_rows == 0, "without PROCESS it reads all the same"
        assert isinstance(failing("apply", reader), AccessDenied)
        reader._database.engine.dispose()
    finally:
        people.say(f"DROP USER {user}")


def test_a_database_a_table_or_a_column_that_does_not_exist_is_named(people: People) -> None:
    url = make_url(people.url).set(database="fedsync_no_such_database").render_as_string(False)
    for step in STEPS:
        error = failing(step, opened(url))
        assert isinstance(error, SchemaMismatch) and "fedsync_no_such_database" in str(error)
    with pytest.raises(SchemaMismatch, match="there is no table ledger"):
        people.connector().changes(None)
    people.say("CREATE TABLE ledger (record_id varchar(40) PRIMARY KEY, community_code text, note text)")
    with pytest.raises(SchemaMismatch, match="lacks the column visits"):
        people.connector().changes(None)


def test_a_column_dropped_while_it_is_in_use_is_a_mismatch(people: People) -> None:
    people.say(f"CREATE TABLE ledger {LEDGER}")
    connector = people.connector()
    connector.changes(None)
    people.say("ALTER TABLE ledger DROP COLUMN note")
    for step in ("changes", "fetch", "holding", "apply"):
        assert isinstance(failing(step, connector), SchemaMismatch)


# --- while at work


@pytest.mark.parametrize("step", STEPS)
def test_a_connection_that_the_server_closed_is_replaced(people: People, step: str) -> None:
    people.say(f"CREATE TABLE ledger {LEDGER}")
    connector = people.connector()
    connector.probe()
    name = make_url(people.url).database
    idle = people.say(f"SELECT id FROM information_schema.processlist WHERE db = '{name}' AND id <> CONNECTION_ID()")
    for (number,) in idle:
        people.say(f"KILL {number}")
    assert idle
    STEPS[step](connector)
    connector._database.engine.dispose()


def test_a_row_that_somebody_else_holds_may_be_tried_again_and_the_next_write_succeeds(people: People) -> None:
    people.say(f"CREATE TABLE ledger {LEDGER}")
    people.say("INSERT INTO ledger VALUES ('R1', '110101001001', '旧', 1)")
    joint = "&" if "?" in people.url else "?"
    connector = opened(f"{people.url}{joint}read_timeout=30")
    wait = "SET SESSION innodb_lock_wait_timeout = 1"
    with connector._database.engine.connect() as connection:  # the pool keeps one: this very connection writes below
        connection.exec_driver_sql(wait)
    people.connection.begin()
    people.say("SELECT * FROM ledger WHERE record_id = 'R1' FOR UPDATE")
    assert isinstance(failing("apply", connector), Transient)
    people.connection.rollback()
    STEPS["apply"](connector)
    assert people.say("SELECT note FROM ledger") == (("一",),)
    connector._database.engine.dispose()


def test_a_batch_that_fails_half_way_leaves_nothing_and_quotes_nothing(people: People) -> None:
    people.say(f"CREATE TABLE ledger {LEDGER.replace('visits int', 'visits tinyint, UNIQUE (note(40))')}")
    people.say("INSERT INTO ledger VALUES ('R0', '110101001001', '旧', 0)")
    connector = people.connector()
    tables = (table(SAMPLE, [row("R1", note="好")]), table(SAMPLE, [row("R2", note="秘密", visits=900)]))
    assert isinstance(_refused(connector, *tables), Permanent)
    assert people.say("SELECT record_id FROM ledger") == (("R0",),)
    long = table(SAMPLE, [row("R" * 41)])
    assert isinstance(_refused(connector, long), Permanent), "too long for the column, never cut"
    assert people.say("SELECT record_id FROM ledger") == (("R0",),)


def _refused(connector: Connector, *tables: Any) -> ConnectorError:
    with pytest.raises(ConnectorError) as caught:
        connector.apply(Batch(tables, no_keys(connector.node)))
    assert "秘密" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("number", "words", "kind"),
    [
        (1062, "Duplicate entry '秘密' for key 'PRIMARY'", Conflict),
        (1062, "Duplicate entry '秘密' for key 'ledger.PRIMARY'", Conflict),
        (1062, "Duplicate entry 'it''s 秘密' for key 'by_name'", Permanent),
        (1366, "Incorrect integer value: '秘\n密' for column 'visits' at row 1", Permanent),
        (1064, "You have an error in your SQL syntax near '秘密' at line 1", Permanent),
        (1213, "Deadlock found when trying to get lock; try restarting transaction", Transient),
        (1205, "Lock wait timeout exceeded; try restarting transaction", Transient),
        (2006, "MySQL server has gone away", Transient),
        (2013, "Lost connection to MySQL server during query", Transient),
        (1290, "The MariaDB server is running with the --read-only option", AccessDenied),
    ],
)
def test_each_number_has_its_kind_and_no_message_quotes_a_value(
    number: int, words: str, kind: type[ConnectorError]
) -> None:
    error = pymysql.err.OperationalError(number, words)
    assert kind_of(error, number) is kind
    assert "密" not in said(error) and str(number) in said(error)


# --- tables as they are


def test_zero_dates_are_null_moments_are_read_in_utc_and_local_times_on_the_people_s_clock(people: People) -> None:
    people.say(
        "CREATE TABLE ledger (record_id varchar(40) PRIMARY KEY, community_code text, born datetime, seen_at timestamp(3) NULL)"
    )
    people.say("SET sql_mode = ''")
    people.say(
        "INSERT INTO ledger VALUES ('R1', '1', '0000-00-00', '2026-01-31 16:05:06.789'), ('R2', '1', '2026-01-31 07:00:00', NULL)"
    )
    connector = people.connector(("record_id", "community_code", "born", "seen_at"))
    first, second = sorted(connector.changes(None).rows.to_pylist(), key=lambda found: str(found["record_id"]))
    assert (first["born"], first["seen_at"]) == (None, datetime(2026, 1, 31, 16, 5, 6, 789000, tzinfo=UTC))
    assert (second["born"], second["seen_at"]) == (date(2026, 1, 31), None)
    connector.apply(
        Batch((table(SAMPLE, [{"record_id": "R2", "seen_at": first["seen_at"]}]),), no_keys(connector.node))
    )
    assert people.say("SELECT seen_at FROM ledger WHERE record_id = 'R2'") == ((datetime(2026, 1, 31, 16, 5, 6, 789000),),)  # fmt: skip


def test_a_view_can_be_read_fetched_from_and_probed(people: People) -> None:
    people.say("CREATE TABLE base (id varchar(40) PRIMARY KEY, n text)")
    people.say("INSERT INTO base VALUES ('R1', '一'), ('R2', '二')")
    people.say(
        "CREATE VIEW ledger AS SELECT id AS record_id, '110101001001' AS community_code, n AS note, 1 AS visits FROM base"
    )
    connector = people.connector()
    assert connector.changes(None).rows.num_rows == 2
    assert connector.fetch(key_table(["R2", "R9"], SAMPLE)).rows.num_rows == 1
    before = connector.probe().token
    people.say("UPDATE base SET n = '三' WHERE id = 'R2'")
    assert connector.probe().token != before


def test_a_row_whose_other_columns_must_not_be_empty_is_still_updated(people: People) -> None:
    people.say(f"CREATE TABLE ledger {LEDGER[:-1]}, jbr text NOT NULL)")
    people.say("INSERT INTO ledger VALUES ('R1', '110101001001', '旧', 4, '老王')")
    connector = people.connector()
    connector.apply(Batch((table(SAMPLE, [{"record_id": "R1", "note": "新"}]),), no_keys(connector.node)))
    assert connector.changes(None).rows.to_pylist() == [row("R1", note="新", visits=4)]
    with pytest.raises(Permanent):
        connector.apply(Batch((table(SAMPLE, [row("R2", note="新")]),), no_keys(connector.node)))


def test_keys_that_only_a_loose_collation_takes_for_equal_are_two_rows_where_nothing_keeps_them_unique(
    people: People,
) -> None:
    people.say(
        "CREATE TABLE ledger (record_id varchar(40), community_code text, note text, visits int) COLLATE utf8mb4_general_ci"
    )
    people.say("INSERT INTO ledger VALUES ('e', '110101001001', '旧', 1)")
    rows = [row(key, note=key) for key in ("E", "e", "é")]
    connector = people.connector()
    connector.apply(Batch((table(SAMPLE, rows),), no_keys(connector.node)))
    found = people.say("SELECT record_id, note FROM ledger ORDER BY BINARY record_id")
    assert found == (("E", "E"), ("e", "e"), ("é", "é"))


def test_two_who_prepare_at_once_make_one_table(people: People) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: people.connector(create=True).prepare(), range(8)))
    assert people.connector().changes(None).rows.num_rows == 0
    people.connector()._database.engine.dispose()
