"""Log capture: what is particular about one kind of database, and keys that stand in other forms than the contract's."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from connectors import sql_log_mysql, sql_log_postgres
from connectors.base import Changes
from connectors.sql import SqlConnector
from connectors.sql_database import open_database
from federation.errors import SchemaMismatch, Transient
from tests.change_tables import FIELDS, KINDS, LOG, SERVERS, Place, gone, listed, notes, place, write
from tests.contract.dataset import COMPOSITE, REGION, SAMPLE, make_node
from tests.servers import postgres_url

KEYED = "community_code varchar(12), note varchar(200), visits int"


@pytest.fixture(params=KINDS)
def people(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with place(request.param, tmp_path) as made:
        yield made


postgres = pytest.mark.parametrize("people", ["postgres"], indirect=True)
mariadb = pytest.mark.parametrize("people", ["mariadb"], indirect=True)
sqlite = pytest.mark.parametrize("people", ["sqlite"], indirect=True)
servers = pytest.mark.parametrize("people", SERVERS, indirect=True)


def first(people: Place, name: str = "ledger") -> str:
    """The cursor of a first read."""
    cursor = people.connector(name).changes(None).cursor
    assert cursor is not None
    return cursor


def later(people: Place, cursor: str | None, name: str = "ledger") -> Changes:
    return people.connector(name).changes(cursor, sweep=False)


# --- keys in other forms than the contract's


def unkeyed(people: Place) -> None:
    """A table that keeps no key unique, as people sometimes have it."""
    people.say("DROP TABLE ledger")
    people.say(f"CREATE TABLE ledger (record_id varchar(40), {KEYED})")


def test_a_row_that_is_left_when_its_twin_is_deleted_is_not_gone(people: Place) -> None:
    unkeyed(people)
    for key in ("R1", "R1 ", "R2", "R3"):
        people.say(f"INSERT INTO ledger VALUES ('{key}', '{REGION.code}', '{len(key)}', 0)")
    cursor = first(people)
    people.say("DELETE FROM ledger WHERE record_id = 'R1' AND note = '2'")
    found = later(people, cursor)
    assert gone(found) == set()
    people.say("DELETE FROM ledger WHERE note = '3'")
    people.drop("R2")
    assert gone(later(people, found.cursor)) == {"R1", "R2"}


def test_of_two_rows_that_came_to_share_a_key_neither_can_be_read_and_neither_is_gone(people: Place) -> None:
    unkeyed(people)
    people.put("R1", "一")
    cursor = first(people)
    people.say(f"INSERT INTO ledger VALUES ('R1', '{REGION.code}', '二', 0)")
    found = later(people, cursor)
    assert notes(found) == {} and gone(found) == set()
    assert found.rejects.column("rule").to_pylist() == ["key:duplicate"] * 2


def test_a_row_that_lost_its_key_is_told_with_each_read_and_all_keys_with_it(people: Place) -> None:
    unkeyed(people)
    for key in ("R1", "R2", "R3"):
        people.put(key, key)
    cursor = first(people)
    people.say("UPDATE ledger SET record_id = NULL WHERE record_id = 'R1'")
    found = later(people, cursor)
    assert found.rejects.column("rule").to_pylist() == ["key:missing"]
    assert listed(found) == {"R2", "R3"}
    again = later(people, found.cursor)
    assert again.rejects.column("rule").to_pylist() == ["key:missing"]
    people.say("UPDATE ledger SET record_id = 'R1' WHERE record_id IS NULL")
    mended = later(people, again.cursor)
    assert (notes(mended), listed(mended), mended.rejects.num_rows) == ({"R1": "R1"}, None, 0)


def test_a_key_of_several_columns_is_one_key(people: Place) -> None:
    people.say("DROP TABLE ledger")
    people.say("CREATE TABLE ledger (record_id varchar(40), visit_no int, community_code varchar(12), note varchar(99), PRIMARY KEY (record_id, visit_no))")  # fmt: skip

    def opened() -> SqlConnector:
        options = {"url": people.url, "schema_name": people.schema, "table": "ledger", "capture": "log"}
        return SqlConnector(make_node(COMPOSITE, options))

    for number in range(3):
        people.say(f"INSERT INTO ledger VALUES ('A', {number}, '{REGION.code}', '一')")
    cursor = opened().changes(None).cursor
    people.say("UPDATE ledger SET visit_no = 7 WHERE visit_no = 0")
    people.say("UPDATE ledger SET note = '改' WHERE visit_no = 1")
    people.say("DELETE FROM ledger WHERE visit_no = 2")
    found = opened().changes(cursor, sweep=False)
    assert sorted(found.rows.column("visit_no").to_pylist()) == [1, 7]
    assert sorted(found.deleted.column("visit_no").to_pylist()) == [0, 2]


# --- people's programs do not notice


@servers
def test_a_key_column_that_was_widened_since_makes_no_write_fail(people: Place) -> None:
    people.say("DROP TABLE ledger")
    people.say(f"CREATE TABLE ledger (record_id varchar(4) PRIMARY KEY, {KEYED})")
    first(people)
    wider = (
        "ALTER COLUMN record_id TYPE text" if people.kind == "postgres" else "MODIFY record_id varchar(190) NOT NULL"
    )
    people.say(f"ALTER TABLE ledger {wider}")
    people.put("R" * 60, "长")
    cursor = first(people)
    people.drop("R" * 60)
    people.put("R" * 70, "更长")
    found = later(people, cursor)
    assert (notes(found), gone(found)) == ({"R" * 70: "更长"}, {"R" * 60})


@servers
def test_a_number_that_became_a_text_is_read_whole_and_then_on(people: Place) -> None:
    people.say("DROP TABLE ledger")
    people.say(f"CREATE TABLE ledger (record_id int PRIMARY KEY, {KEYED})")
    people.put("1", "一")
    cursor = first(people)
    wider = "ALTER COLUMN record_id TYPE text" if people.kind == "postgres" else "MODIFY record_id varchar(40) NOT NULL"
    time.sleep(1 if people.kind == "mariadb" else 0)  # it notes the time of an ALTER to the second
    people.say(f"ALTER TABLE ledger {wider}")
    people.put("A7", "字母")
    found = later(people, cursor)
    assert listed(found) == {"1", "A7"}
    people.drop("A7")
    people.put("B7", "又一个")
    after = later(people, found.cursor)
    assert (notes(after), gone(after)) == ({"B7": "又一个"}, {"A7"})


def test_the_number_of_a_programs_last_row_is_still_its_own(people: Place) -> None:
    serial = {
        "postgres": "bigserial PRIMARY KEY",
        "mariadb": "bigint AUTO_INCREMENT PRIMARY KEY",
        "sqlite": "INTEGER PRIMARY KEY",
    }[people.kind]
    last = {"postgres": "lastval()", "mariadb": "last_insert_id()", "sqlite": "last_insert_rowid()"}[people.kind]
    people.say("DROP TABLE ledger")
    people.say(f"CREATE TABLE ledger (id {serial}, record_id varchar(40) UNIQUE, {KEYED})")
    people.connector().prepare()
    for number in range(1, 4):
        people.say(f"INSERT INTO ledger (record_id) VALUES ('R{number}')")
        people.say(f"UPDATE ledger SET record_id = 'S{number}' WHERE record_id = 'R{number}'")
        assert people.say(f"SELECT {last}") == [(number,)]


@servers
def test_preparing_gives_up_soon_while_somebody_writes_and_may_be_tried_again(
    people: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_log_postgres, "WAIT", "200ms")
    monkeypatch.setattr(sql_log_mysql, "WAIT", 1)
    other = people.session()
    other.begin()
    people.put("R1", "一", other.say)
    with pytest.raises(Transient):
        people.connector().prepare()
    other.commit()
    people.connector().prepare()
    assert notes(people.connector().changes(None)) == {"R1": "一"}


# --- PostgreSQL


@postgres
def test_a_truncated_table_is_read_whole(people: Place) -> None:
    for key in ("R1", "R2"):
        people.put(key, "一")
    cursor, token = first(people), people.connector().probe().token
    people.me.begin()
    people.say("TRUNCATE ledger")
    people.put("R2", "二")
    people.me.commit()
    assert people.connector().probe().token != token
    found = later(people, cursor)
    assert (notes(found), listed(found)) == ({"R2": "二"}, {"R2"})


@postgres
def test_values_that_an_alter_table_changed_are_read(people: Place) -> None:
    people.put("R1", "一")
    cursor = first(people)
    people.say("ALTER TABLE ledger ALTER COLUMN note TYPE text USING note || '改'")
    assert notes(later(people, cursor)) == {"R1": "一改"}
    cursor = first(people)
    people.say("ALTER TABLE ledger DROP COLUMN note")
    people.say("ALTER TABLE ledger ADD COLUMN note text DEFAULT '新'")
    assert notes(later(people, cursor)) == {"R1": "新"}


@postgres
def test_a_partitioned_table_is_followed_in_all_its_partitions(people: Place) -> None:
    people.say("DROP TABLE ledger")
    people.say(
        f"CREATE TABLE ledger (record_id text, {KEYED}, PRIMARY KEY (record_id, visits)) PARTITION BY LIST (visits)"
    )
    for number in range(2):
        people.say(f"CREATE TABLE part_{number} PARTITION OF ledger FOR VALUES IN ({number})")
    people.put("R1", "一")
    people.put("R2", "一")
    cursor = first(people)
    people.say("UPDATE ledger SET visits = 1 WHERE record_id = 'R1'")
    people.say(f"INSERT INTO part_1 VALUES ('R3', '{REGION.code}', '直接', 1)")
    people.say("DELETE FROM part_0 WHERE record_id = 'R2'")
    found = later(people, cursor)
    assert (notes(found), gone(found), listed(found)) == ({"R1": "一", "R3": "直接"}, {"R2"}, None)
    people.say("CREATE TABLE part_2 PARTITION OF ledger FOR VALUES IN (2)")
    attached = later(people, found.cursor)
    assert listed(attached) == {"R1", "R3"}
    people.say("UPDATE ledger SET visits = 2 WHERE record_id = 'R1'")
    moved = later(people, attached.cursor)
    assert (notes(moved), gone(moved), listed(moved)) == ({"R1": "一"}, set(), None)
    people.say("TRUNCATE part_1")
    assert listed(later(people, moved.cursor)) == {"R1"}
    people.connector().unprepare()
    assert not [line for line in people.catalogue() if "fedsync_log" in str(line)]


@postgres
def test_a_partition_is_followed_though_people_write_to_the_whole(people: Place) -> None:
    people.say("DROP TABLE ledger")
    people.say(f"CREATE TABLE ledger (record_id text, {KEYED}) PARTITION BY LIST (visits)")
    people.say("CREATE TABLE part_0 PARTITION OF ledger FOR VALUES IN (0)")
    cursor = first(people, "part_0")
    people.put("R1", "一")
    assert notes(later(people, cursor, "part_0")) == {"R1": "一"}


@postgres
def test_tables_whose_rows_change_elsewhere_are_refused(people: Place) -> None:
    people.say("CREATE TABLE heir () INHERITS (ledger)")
    people.say("CREATE MATERIALIZED VIEW shown AS SELECT * FROM ledger")
    for name, said in (("ledger", "inheriting"), ("shown", "materialised")):
        with pytest.raises(SchemaMismatch, match=said):
            people.connector(name).prepare()


@postgres
def test_generated_columns_are_read_as_they_are(people: Place) -> None:
    people.say("DROP TABLE ledger")
    generated = "record_id text GENERATED ALWAYS AS ('R' || id) STORED PRIMARY KEY"
    people.say(f"CREATE TABLE ledger (id text, {generated}, {KEYED})")
    cursor = first(people)
    people.say(f"INSERT INTO ledger (id, community_code, note) VALUES ('1', '{REGION.code}', '一'), ('2', 'x', '二')")
    people.say("UPDATE ledger SET id = '3' WHERE id = '1'")
    found = later(people, cursor)
    assert (notes(found), gone(found)) == ({"R3": "一", "R2": "二"}, {"R1"})


@postgres
def test_days_as_keys_do_not_depend_on_the_writers_settings(people: Place) -> None:
    days = SAMPLE.model_copy(update={"key": ("born",)})
    people.say("CREATE TABLE holidays (born date PRIMARY KEY, record_id text, community_code text)")

    def opened() -> SqlConnector:
        options = {"url": people.url, "schema_name": people.schema, "table": "holidays", "capture": "log"}
        return SqlConnector(make_node(days, options, fields=("born", "record_id", "community_code")))

    cursor = opened().changes(None).cursor
    people.say("SET datestyle = 'SQL, DMY'")
    people.say(
        f"INSERT INTO holidays VALUES ('1931-02-03', 'R1', '{REGION.code}'), ('1931-12-03', 'R2', '{REGION.code}')"
    )
    people.say("DELETE FROM holidays WHERE record_id = 'R2'")
    found = opened().changes(cursor, sweep=False)
    assert [str(day) for day in found.rows.column("born").to_pylist()] == ["1931-02-03"]
    assert [str(day) for day in found.deleted.column("born").to_pylist()] == ["1931-12-03"]


@postgres
def test_padded_keys_cost_no_look_at_all_others(people: Place) -> None:
    people.say("DROP TABLE ledger")
    people.say(f"CREATE TABLE ledger (record_id char(10) PRIMARY KEY, {KEYED})")
    for key in ("R1", "R2"):
        people.put(key, "一")
    cursor = first(people)
    people.drop("R2")
    people.put("R1", "二")
    found = later(people, cursor)
    assert (notes(found), gone(found)) == ({"R1": "二"}, {"R2"})
    assert people.say(f"SELECT untidy FROM {LOG}_state") == [(0,)]


@postgres
def test_the_changes_of_a_big_table_are_found_by_its_index(people: Place) -> None:
    people.say(f"INSERT INTO ledger SELECT 'R' || n, '{REGION.code}', 'n', 0 FROM generate_series(1, 20000) n")
    people.say("ANALYZE ledger")
    cursor = first(people)
    people.say("UPDATE ledger SET note = 'm'")
    cursor = later(people, cursor).cursor
    people.put("R77", "改")
    people.drop("R78")
    scans = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'ledger' AND schemaname = '{}'"
    before = _settled(people, scans)
    found = later(people, cursor)
    assert (notes(found), gone(found)) == ({"R77": "改"}, {"R78"})
    assert _settled(people, scans) == before


@postgres
def test_changed_keys_are_found_whatever_they_are_written_with(people: Place) -> None:
    cursor = first(people)
    keys = ['a"b', "\\x", "{1,2}", "NULL", "王 伟", "a,b", "o''b"]
    for key in keys:
        people.say(f"INSERT INTO ledger VALUES ('{key}', '{REGION.code}', '{key}', 0)")
    expected = {key.replace("''", "'") for key in keys}
    assert notes(later(people, cursor)) == {key: key for key in expected}


def _settled(people: Place, counter: str) -> Any:
    """A counter of the server's statistics, when all that this test did is in it: sessions tell the server late, or when they end."""
    open_database(people.url).engine.dispose()
    people.say("SELECT pg_stat_force_next_flush()")
    with psycopg.connect(postgres_url(), autocommit=True) as connection:
        seen = None
        for _ in range(50):
            time.sleep(0.2)
            connection.execute("SELECT pg_stat_clear_snapshot()")
            now = connection.execute(counter.format(people.schema)).fetchone()
            if now == seen:
                break
            seen = now
    return seen


@postgres
def test_lines_are_counted_once_for_all(people: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_log_postgres, "AT_ONCE", 20)
    cursor = first(people)
    for number in range(45):
        people.put("R1", f"第 {number}")
    token = people.connector().probe().token
    assert people.connector().probe().token == token
    counted = f"SELECT count(*) FROM {LOG} WHERE log_xid < counted_below"
    assert people.say(f"SELECT counted = ({counted}), counted_below > 0 FROM {LOG}_state") == [(True, True)]
    connector = people.connector()
    found = connector.changes(cursor, sweep=False)
    applied = write(connector, token, R2="回流")
    assert applied.token == people.connector().probe().token
    people.connector(keep_days=0).changes(found.cursor, sweep=False)
    assert applied.token == people.connector().probe().token, "purging is no news"


# --- MariaDB


@mariadb
def test_a_truncated_table_that_is_empty_is_read_whole(people: Place) -> None:
    for key in ("R1", "R2"):
        people.put(key, "一")
    cursor, token = first(people), people.connector().probe().token
    people.say("TRUNCATE ledger")
    assert people.connector().probe().token != token
    assert listed(later(people, cursor)) == set()


@mariadb
@pytest.mark.parametrize("name", ["ledger", "居民 台账-甲.1"])
def test_a_table_that_was_truncated_and_filled_again_is_read_whole(people: Place, name: str) -> None:
    if name != "ledger":
        people.say(f"RENAME TABLE ledger TO `{name}`")
    for key in ("R1", "R2"):
        people.say(f"INSERT INTO `{name}` VALUES ('{key}', '{REGION.code}', '一', 0)")
    cursor, token = first(people, name), people.connector(name).probe().token
    people.say(f"TRUNCATE `{name}`")
    people.say(f"INSERT INTO `{name}` VALUES ('R2', '{REGION.code}', '二', 0)")
    assert people.connector(name).probe().token != token
    found = later(people, cursor, name)
    assert (notes(found), listed(found)) == ({"R2": "二"}, {"R2"})


@mariadb
def test_a_partition_that_was_truncated_is_read_whole(people: Place) -> None:
    people.say("ALTER TABLE ledger PARTITION BY KEY (record_id) PARTITIONS 2")
    for number in range(20):
        people.put(f"R{number}", "一")
    cursor = first(people)
    people.say("ALTER TABLE ledger TRUNCATE PARTITION p0")
    left = {key for (key,) in people.say("SELECT record_id FROM ledger")}
    found = later(people, cursor)
    assert 0 < len(left) < 20 and listed(found) == left


@mariadb
def test_ordinary_work_beside_a_table_that_is_truncated_is_no_reason_to_read_everything(people: Place) -> None:
    people.put("R1", "一")
    cursor = first(people)
    people.say("CREATE TABLE ledger_old (record_id int PRIMARY KEY)")
    people.say("TRUNCATE ledger_old")
    people.say("ANALYZE TABLE ledger")
    people.me.begin()
    for number in range(200):
        people.put(f"N{number}", "新")
    people.me.rollback()
    people.put("R1", "二")
    found = later(people, cursor)
    assert (notes(found), listed(found)) == ({"R1": "二"}, None)


@mariadb
def test_an_account_that_may_not_know_of_a_truncation_works_without(people: Place) -> None:
    user = f"u{uuid.uuid4().hex[:12]}"
    people.say(f"CREATE USER '{user}'@'%' IDENTIFIED BY 'test-only'")
    try:
        people.say(f"GRANT ALL ON {people.schema}.* TO '{user}'@'%'")
        place_of_it = make_url(people.url).set(username=user, password="test-only", database=people.schema)
        limited = replace(people, url=place_of_it.render_as_string(False))
        people.put("R1", "一")
        cursor = first(limited)
        people.put("R1", "二")
        found = later(limited, cursor)
        assert (notes(found), listed(found)) == ({"R1": "二"}, None)
        people.say("TRUNCATE ledger")
        assert listed(later(limited, found.cursor)) == set()
    finally:
        open_database(limited.url).engine.dispose()
        people.say(f"DROP USER '{user}'@'%'")


@mariadb
def test_a_table_whose_foreign_keys_cascade_is_refused(people: Place) -> None:
    people.say("CREATE TABLE street (code varchar(12) PRIMARY KEY)")
    people.say(
        "ALTER TABLE ledger ADD CONSTRAINT of_street FOREIGN KEY (community_code) REFERENCES street (code) ON DELETE CASCADE"
    )
    with pytest.raises(SchemaMismatch, match="of_street"):
        people.connector().prepare()


@mariadb
def test_a_table_without_transactions_is_refused(people: Place) -> None:
    people.say("ALTER TABLE ledger ENGINE = Aria")
    with pytest.raises(SchemaMismatch, match="Aria"):
        people.connector().prepare()


@mariadb
def test_lines_are_numbered_while_others_still_write_theirs(people: Place) -> None:
    """Those have smaller numbers of the server's own, and are numbered after their commit."""
    cursor = first(people)
    slow = people.session()
    slow.begin()
    people.put("R1", "迟", slow.say)
    people.put("R2", "快")
    found = later(people, cursor)
    slow.commit()
    assert notes(found) == {"R2": "快"}
    order = people.say(f"SELECT record_id, log_batch FROM {LOG} ORDER BY log_seq")
    assert order == [("R1", None), ("R2", 1)]
    assert notes(later(people, found.cursor)) == {"R1": "迟"}
    assert people.say(f"SELECT record_id, log_batch FROM {LOG} ORDER BY log_seq") == [("R1", 2), ("R2", 1)]


# --- SQLite


@sqlite
def test_a_row_that_another_one_replaced_is_gone(people: Place) -> None:
    people.say("DROP TABLE ledger")
    people.say(f"CREATE TABLE ledger (id INTEGER PRIMARY KEY, record_id TEXT UNIQUE, {KEYED})")
    for number in (1, 2, 3):
        people.say(f"INSERT INTO ledger VALUES ({number}, 'R{number}', '{REGION.code}', '一', 0)")
    cursor = first(people)
    people.say(f"INSERT OR REPLACE INTO ledger VALUES (1, 'R9', '{REGION.code}', '替', 0)")
    people.say("UPDATE OR REPLACE ledger SET id = 2 WHERE record_id = 'R3'")
    found = later(people, cursor)
    assert (notes(found), gone(found)) == ({"R9": "替", "R3": "一"}, {"R1", "R2"})
    people.connector().unprepare()
    assert [line[1] for line in people.catalogue()] == ["ledger"]


def test_an_option_that_is_too_long_for_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="48 bytes"):
        SqlConnector(make_node(SAMPLE, {"url": "sqlite:///x.db", "change_table": "变" * 17}, fields=FIELDS))
