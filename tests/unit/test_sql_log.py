"""Log capture on each kind of database: nothing that was committed is missed, however late, and what cannot be vouched for is read."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors import sql_log_mysql, sql_log_postgres, sql_log_sqlite, sql_write
from connectors.base import Applied, Batch, no_keys
from connectors.sql import SqlConnector
from federation.contract import Dataset
from federation.errors import SchemaMismatch
from tests.change_tables import FIELDS, KINDS, LOG, SERVERS, Place, gone, listed, notes, place, write
from tests.contract.dataset import REGION, SAMPLE, make_node, row, table


@pytest.fixture(params=KINDS)
def people(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """The place, with log capture prepared."""
    with place(request.param, tmp_path) as made:
        made.connector().prepare()
        yield made


servers = pytest.mark.parametrize("people", SERVERS, indirect=True)


def start(people: Place, **rows: str) -> str:
    """Rows that were there, and the cursor of the read that saw them."""
    for key, note in rows.items():
        people.put(key, note)
    found = people.connector().changes(None)
    assert notes(found) == rows
    assert found.cursor is not None
    return found.cursor


def load(connector: SqlConnector, token: str | None) -> tuple[Applied, dict[str, str]]:
    """Our own first load, of as many rows as make it one, decided on a read at that token; key → note of what it brought."""
    many = {f"R{number}": "一" for number in range(sql_write.FAST_ROWS)}
    rows = table(SAMPLE, [{**row(key), "note": note} for key, note in many.items()])
    return connector.apply(Batch((rows,), no_keys(connector.node), None, token)), many


# --- what changed


def test_a_read_returns_each_changed_row_once_as_it_is_now_and_the_keys_that_are_gone(people: Place) -> None:
    cursor = start(people, R1="一", R2="二", R3="三", R4="四")
    for note in ("甲", "乙", "丙"):
        people.put("R1", note)
    people.drop("R2")
    people.put("R5", "新")
    people.drop("R5")
    people.drop("R3")
    people.put("R3", "又来")
    found = people.connector().changes(cursor, sweep=False)
    assert (notes(found), gone(found), listed(found)) == ({"R1": "丙", "R3": "又来"}, {"R2", "R5"}, None)


def test_a_change_of_the_key_is_a_deletion_and_a_new_row(people: Place) -> None:
    cursor = start(people, R1="一", R2="二")
    people.say("UPDATE ledger SET record_id = 'R9' WHERE record_id = 'R1'")
    found = people.connector().changes(cursor, sweep=False)
    assert (notes(found), gone(found)) == ({"R9": "一"}, {"R1"})


def test_what_was_read_is_not_read_again(people: Place) -> None:
    cursor = start(people, R1="一")
    people.put("R1", "二")
    found = people.connector().changes(cursor, sweep=False)
    assert notes(found) == {"R1": "二"}
    assert not people.connector().changes(found.cursor, sweep=False).rows.num_rows


def test_what_was_rolled_back_is_no_news(people: Place) -> None:
    cursor = start(people, R1="一")
    token = people.connector().probe().token
    other = people.session()
    other.begin()
    people.put("R1", "二", other.say)
    people.put("R2", "新", other.say)
    other.rollback()
    assert people.connector().probe().token == token
    found = people.connector().changes(cursor, sweep=False)
    assert not found.rows.num_rows and not found.deleted.num_rows


def test_many_changes_at_once_are_read_whole(people: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one transaction numbers, more than the keys that are named one by one."""
    for module in (sql_log_mysql, sql_log_sqlite, sql_log_postgres):
        monkeypatch.setattr(module, "AT_ONCE", 70)
    monkeypatch.setattr(sql_log_postgres, "FEW_KEYS", 100)
    cursor = start(people)
    people.me.begin()
    for number in range(500):
        people.say(f"INSERT INTO ledger VALUES ('R{number}', '{REGION.code}', 'n{number}', 0)")
    people.me.commit()
    people.drop("R7")
    found = people.connector().changes(cursor, sweep=False)
    assert notes(found) == {f"R{number}": f"n{number}" for number in range(500) if number != 7}
    assert gone(found) == {"R7"}
    assert not people.connector().changes(found.cursor, sweep=False).rows.num_rows


# --- late commits


@servers
def test_a_transaction_that_commits_after_later_ones_is_in_the_next_read_and_in_no_other(people: Place) -> None:
    cursor = start(people, R1="一", R2="二", R3="三")
    slow, slower = people.session(), people.session()
    for session, key in ((slow, "R1"), (slower, "R2")):
        session.begin()
        people.put(key, "迟", session.say)
    people.put("R3", "快")
    first = people.connector().changes(cursor, sweep=False)
    assert notes(first) == {"R3": "快"}
    slow.commit()
    people.put("R4", "更快")
    second = people.connector().changes(first.cursor, sweep=False)
    assert notes(second) == {"R1": "迟", "R4": "更快"}
    slower.say("DELETE FROM ledger WHERE record_id = 'R2'")
    slower.commit()
    third = people.connector().changes(second.cursor, sweep=False)
    assert (notes(third), gone(third)) == ({}, {"R2"})
    fourth = people.connector().changes(third.cursor, sweep=False)
    assert not fourth.rows.num_rows and not fourth.deleted.num_rows


@servers
def test_a_transaction_that_commits_late_changes_the_token(people: Place) -> None:
    start(people, R1="一")
    slow = people.session()
    slow.begin()
    people.put("R1", "迟", slow.say)
    people.put("R2", "快")
    before = people.connector().probe().token
    slow.commit()
    assert people.connector().probe().token != before


@servers
def test_a_late_transaction_of_which_a_part_was_undone_shows_the_rest(people: Place) -> None:
    cursor = start(people, R1="一", R2="二")
    slow = people.session()
    slow.begin()
    people.put("R1", "留", slow.say)
    slow.say("SAVEPOINT here")
    people.put("R2", "弃", slow.say)
    slow.say("ROLLBACK TO SAVEPOINT here")
    people.put("R3", "快")
    first = people.connector().changes(cursor, sweep=False)
    assert notes(first) == {"R3": "快"}
    slow.commit()
    assert notes(people.connector().changes(first.cursor, sweep=False)) == {"R1": "留"}


@servers
def test_a_read_waits_for_no_writer_and_keeps_none_waiting(people: Place) -> None:
    cursor = start(people, R1="一", R2="二")
    slow = people.session()
    slow.begin()
    people.put("R1", "迟", slow.say)
    people.put("R2", "快")
    read: list[object] = []
    reader = threading.Thread(target=lambda: read.append(people.connector().changes(cursor, sweep=False)), daemon=True)
    reader.start()
    reader.join(10)
    assert read, "the read waits for an open transaction"
    people.put("R2", "更快", slow.say)
    slow.commit()


# --- our own writes


def test_our_own_write_is_no_news_if_nobody_else_wrote(people: Place) -> None:
    start(people, R1="一", R2="二", R3="三")
    connector = people.connector()
    token = connector.probe().token
    cursor = connector.changes(None).cursor
    applied = write(connector, token, "R2", "R8", R1="回流", R4="新")
    assert applied.token is not None and applied.token != token
    assert people.connector().probe().token == applied.token
    after = people.connector().changes(applied.cursor, sweep=False)
    assert not after.rows.num_rows and not after.deleted.num_rows
    others = people.connector().changes(cursor, sweep=False)
    assert (notes(others), gone(others)) == ({"R1": "回流", "R4": "新"}, {"R2"}), "other links see it"
    people.put("R3", "改")
    assert people.connector().probe().token != applied.token
    assert notes(people.connector().changes(applied.cursor, sweep=False)) == {"R3": "改"}


def test_our_second_write_is_no_news_either(people: Place) -> None:
    start(people, R1="一")
    connector = people.connector()
    first = write(connector, connector.probe().token, R1="二")
    second = write(people.connector(), first.token, R1="三", R2="新")
    assert second.token is not None and people.connector().probe().token == second.token
    assert not people.connector().changes(second.cursor, sweep=False).rows.num_rows


def test_if_somebody_else_wrote_in_between_our_write_does_not_hide_it(people: Place) -> None:
    start(people, R1="一", R2="二")
    connector = people.connector()
    token = connector.probe().token
    people.put("R2", "改")
    applied = write(connector, token, R1="回流")
    assert (applied.cursor, applied.token) == (None, None)


@servers
def test_somebody_who_was_still_writing_during_our_write_is_not_hidden_by_it(people: Place) -> None:
    start(people, R1="一", R2="二")
    slow = people.session()
    slow.begin()
    people.put("R2", "迟", slow.say)
    connector = people.connector()
    applied = write(connector, connector.probe().token, R1="回流")
    assert applied.token is not None
    slow.commit()
    assert people.connector().probe().token != applied.token
    assert notes(people.connector().changes(applied.cursor, sweep=False)) == {"R2": "迟"}


@pytest.mark.parametrize("people", ["postgres", "sqlite"], indirect=True)
def test_what_the_systems_own_triggers_change_in_our_write_is_news(people: Place) -> None:
    start(people, R1="一", R2="二")
    body = "UPDATE ledger SET note = NEW.note WHERE record_id = 'R2'"
    if people.kind == "postgres":
        people.say(
            f"CREATE FUNCTION copy() RETURNS trigger LANGUAGE plpgsql SET search_path = {people.schema} AS $$ BEGIN {body}; RETURN NULL; END $$"
        )
        people.say(
            "CREATE TRIGGER copy AFTER UPDATE ON ledger FOR EACH ROW WHEN (NEW.record_id <> 'R2') EXECUTE FUNCTION copy()"
        )
    else:  # a trigger of MariaDB cannot write to its own table
        people.say(f"CREATE TRIGGER copy AFTER UPDATE ON ledger WHEN NEW.record_id <> 'R2' BEGIN {body}; END")
    connector = people.connector()
    assert write(connector, connector.probe().token, R1="回流").token is None


@pytest.mark.parametrize("people", ["postgres"], indirect=True)
def test_our_load_of_an_empty_table_is_one_line_by_which_other_links_read_everything(people: Place) -> None:
    others = start(people)
    connector = people.connector()
    cursor = connector.changes(None).cursor
    applied, many = load(connector, connector.probe().token)
    assert people.lines() == 1
    assert applied.token == people.connector().probe().token, "nobody else wrote"
    assert not people.connector().changes(applied.cursor, sweep=False).rows.num_rows
    for before in (others, cursor):
        assert notes(people.connector().changes(before, sweep=False)) == many
    people.put("R1", "改")
    assert notes(people.connector().changes(applied.cursor, sweep=False)) == {"R1": "改"}


@pytest.mark.parametrize("people", ["postgres"], indirect=True)
@pytest.mark.parametrize("late", [False, True])
def test_somebody_who_wrote_while_we_loaded_an_empty_table_is_not_hidden_by_it(people: Place, late: bool) -> None:
    start(people)
    connector = people.connector()
    token = connector.probe().token
    slow = people.session()
    slow.begin()
    people.put("S1", "人", slow.say)
    if not late:
        slow.commit()
        people.drop("S1")
    applied, _ = load(connector, token)
    if not late:
        assert (applied.cursor, applied.token) == (None, None)
        return
    slow.commit()
    assert people.connector().probe().token != applied.token
    assert notes(people.connector().changes(applied.cursor, sweep=False)) == {"S1": "人"}


@pytest.mark.parametrize("people", ["postgres"], indirect=True)
def test_triggers_of_an_older_version_note_each_row_of_a_load_and_that_is_understood(people: Place) -> None:
    ((body,),) = people.say(f"SELECT pg_get_functiondef('{LOG}'::regproc)")
    people.say(body.replace("fedsync.loading", "fedsync.unknown"))
    others = start(people)
    connector = people.connector()
    applied, many = load(connector, connector.probe().token)
    assert people.lines() == len(many)
    assert applied.token == people.connector().probe().token
    assert notes(people.connector().changes(others, sweep=False)) == many


# --- when everything must be read


def test_a_cursor_of_something_else_reads_everything(people: Place) -> None:
    start(people, R1="一")
    for cursor in ("", "nonsense", '{"at": 7}', '["another life", "1", null]'):
        found = people.connector().changes(cursor, sweep=False)
        assert (notes(found), listed(found)) == ({"R1": "一"}, {"R1"})


@pytest.mark.parametrize("event", ["insert", "update", "delete"])
def test_a_trigger_that_was_dropped_is_made_anew_and_everything_is_read(people: Place, event: str) -> None:
    cursor = start(people, R1="一", R2="二")
    people.drop_trigger(event)
    people.put("R1", "改")
    people.drop("R2")
    people.put("R3", "新")
    found = people.connector().changes(cursor, sweep=False)
    assert (notes(found), listed(found)) == ({"R1": "改", "R3": "新"}, {"R1", "R3"})
    people.put("R1", "又改")
    assert notes(people.connector().changes(found.cursor, sweep=False)) == {"R1": "又改"}


@servers
def test_a_change_table_that_was_dropped_stops_nobody_and_everything_is_read(people: Place) -> None:
    cursor = start(people, R1="一", R2="二")
    people.say(f"DROP TABLE {LOG}")
    people.put("R1", "改")
    people.drop("R2")
    people.put("R3", "新")
    found = people.connector().changes(cursor, sweep=False)
    assert (notes(found), listed(found)) == ({"R1": "改", "R3": "新"}, {"R1", "R3"})
    people.drop("R3")
    assert gone(people.connector().changes(found.cursor, sweep=False)) == {"R3"}


def test_a_data_table_that_was_replaced_is_read_whole(people: Place) -> None:
    cursor = start(people, R1="一", R2="二")
    people.say(
        "CREATE TABLE other AS SELECT record_id, community_code, note, visits FROM ledger WHERE record_id = 'R1'"
    )
    people.say("DROP TABLE ledger")
    people.say("ALTER TABLE other RENAME TO ledger")
    found = people.connector().changes(cursor, sweep=False)
    assert (notes(found), listed(found)) == ({"R1": "一"}, {"R1"})


def test_a_database_restored_to_an_earlier_state_is_read_whole(people: Place, tmp_path: Path) -> None:
    people.put("R1", "一")
    if people.kind == "sqlite":
        file = tmp_path / "system.db"
        shutil.copy(file, tmp_path / "backup.db")
        people.put("R1", "丢失")
        cursor = people.connector().changes(None).cursor
        people.closing.close()
        shutil.copy(tmp_path / "backup.db", file)
    else:  # what its change table looks like then: the newest lines are gone
        people.put("R1", "丢失")
        cursor = people.connector().changes(None).cursor
        number = {"postgres": "log_xid", "mariadb": "log_seq"}[people.kind]
        people.say(f"DELETE FROM {LOG} WHERE {number} = (SELECT * FROM (SELECT max({number}) FROM {LOG}) newest)")
        if people.kind == "mariadb":
            people.say(f"UPDATE {LOG}_state SET batch = batch - 1")
    again = people.session()
    people.put("R2", "之后", again.say)
    found = people.connector().changes(cursor, sweep=False)
    assert listed(found) == {"R1", "R2"}


# --- keeping it small


def test_old_lines_are_purged_but_for_the_newest(people: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sql_log_mysql, sql_log_sqlite, sql_log_postgres):
        monkeypatch.setattr(module, "AT_ONCE", 10)
    cursor = start(people)
    for number in range(45):
        people.put("R1", f"第 {number}")
    later = people.connector().changes(cursor, sweep=False).cursor
    people.put("R2", "新")
    assert people.lines() == 46
    time.sleep(0.01)
    found = people.connector(keep_days=0).changes(later, sweep=False)
    assert (notes(found), listed(found)) == ({"R2": "新"}, None)
    assert people.lines() == 1
    assert not people.connector().changes(found.cursor, sweep=False).rows.num_rows


def test_a_cursor_from_before_the_oldest_line_reads_everything(people: Place) -> None:
    cursor = start(people, R1="一", R2="二", R3="三")
    people.drop("R2")
    people.put("R1", "改")
    later = people.connector().changes(cursor, sweep=False).cursor
    people.put("R4", "新")
    time.sleep(0.01)
    people.connector(keep_days=0).changes(later)  # purges
    found = people.connector().changes(cursor, sweep=False)
    assert listed(found) == {"R1", "R3", "R4"}
    people.put("R3", "改")
    assert notes(people.connector().changes(found.cursor, sweep=False)) == {"R3": "改"}


def test_a_reader_of_a_quiet_table_reads_on_where_it_was(people: Place) -> None:
    """However old: nothing that it has not seen was purged."""
    cursor = start(people, R1="一", R2="二")
    time.sleep(0.01)
    people.connector(keep_days=0).changes(cursor, sweep=False)
    assert people.lines() < 3
    people.put("R1", "改")
    found = people.connector(keep_days=0).changes(cursor, sweep=False)
    assert (notes(found), listed(found)) == ({"R1": "改"}, None)


def test_lines_are_kept_as_long_as_declared(people: Place) -> None:
    cursor = start(people, R1="一")
    for number in range(3):
        people.put("R1", f"第 {number}")
        people.connector().changes(cursor, sweep=False)
    people.age(8)
    people.connector(keep_days=9).changes(cursor, sweep=False)
    assert people.lines() == 4
    people.connector(keep_days=7).changes(cursor, sweep=False)
    assert people.lines() == 1


# --- making it and removing it


def test_preparing_again_changes_nothing(people: Place) -> None:
    cursor = start(people, R1="一")
    before, token = people.catalogue(), people.connector().probe().token
    people.connector().prepare()
    assert (people.catalogue(), people.connector().probe().token) == (before, token)
    assert listed(people.connector().changes(cursor, sweep=False)) is None


@pytest.mark.parametrize("kind", KINDS)
def test_unprepare_leaves_the_schema_as_it_was(kind: str, tmp_path: Path) -> None:
    with place(kind, tmp_path) as people:
        people.put("R1", "一")
        before = people.catalogue()
        people.connector().prepare()
        assert people.catalogue() != before
        people.put("R1", "二")
        people.connector(capture="snapshot").unprepare()
        assert people.catalogue() == before
        people.connector().unprepare()
        people.put("R2", "三")
        assert people.say("SELECT record_id, note FROM ledger ORDER BY 1") == [("R1", "二"), ("R2", "三")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_of_that_name_that_is_not_ours_is_left_alone(kind: str, tmp_path: Path) -> None:
    with place(kind, tmp_path) as people:
        people.say("CREATE TABLE precious (id int)")
        connector = people.connector(change_table="precious")
        for step in (connector.prepare, connector.unprepare):
            with pytest.raises(SchemaMismatch, match="precious"):
                step()
        assert people.say("SELECT count(*) FROM precious") == [(0,)]


def test_a_read_prepares_what_is_missing(people: Place) -> None:
    people.connector().unprepare()
    people.put("R1", "一")
    assert people.connector().probe().token is None
    found = people.connector().changes(None)
    people.put("R1", "二")
    assert notes(people.connector().changes(found.cursor, sweep=False)) == {"R1": "二"}


def test_a_view_is_refused_and_told_what_to_do(people: Place) -> None:
    people.say("CREATE VIEW shown AS SELECT * FROM ledger")
    with pytest.raises(SchemaMismatch, match="view") as caught:
        people.connector("shown").prepare()
    assert "snapshot" in caught.value.todo and "视图" in caught.value.zh


def test_another_key_needs_another_change_table(people: Place) -> None:
    other = Dataset.model_validate({**SAMPLE.model_dump(exclude_none=True), "name": "other", "key": ["note"]})
    options = {"url": people.url, "schema_name": people.schema, "table": "ledger", "capture": "log"}

    def opened(**more: str) -> SqlConnector:
        return SqlConnector(make_node(other, {**options, **more}, fields=FIELDS))

    with pytest.raises(SchemaMismatch, match="another key"):
        opened().prepare()
    opened(change_table="by_note").prepare()
    start(people, R1="一")
    cursor = opened(change_table="by_note").changes(None).cursor
    people.put("R1", "二")
    found = opened(change_table="by_note").changes(cursor, sweep=False)
    assert found.rows.column("note").to_pylist() == ["二"]
    assert found.deleted.column("note").to_pylist() == ["一"]


def test_names_that_need_quoting_are_quoted(tmp_path: Path, people: Place) -> None:
    quote = {"mariadb": "`"}.get(people.kind, '"')
    name, key = "人口 :x %s '登记' order", "编 号 :y %s"
    for text in (name, key):
        assert quote not in text
    table = f"{quote}{name}{quote}"
    people.say(f"CREATE TABLE {table} ({quote}{key}{quote} varchar(40) PRIMARY KEY, {quote}select{quote} varchar(12), note varchar(9), visits int)")  # fmt: skip

    def opened() -> SqlConnector:
        return people.connector(name, {"record_id": key, "community_code": "select"})

    opened().prepare()
    cursor = opened().changes(None).cursor
    people.say(f"INSERT INTO {table} VALUES ('R1', '{REGION.code}', '一', 1)")
    people.say(f"INSERT INTO {table} VALUES ('R2', '{REGION.code}', '二', 1)")
    people.say(f"DELETE FROM {table} WHERE note = '二'")
    found = opened().changes(cursor, sweep=False)
    assert (notes(found), gone(found)) == ({"R1": "一"}, {"R2"})
    opened().unprepare()
    assert not [line for line in people.catalogue() if "fedsync" in line[1] and LOG not in str(line)]


def test_very_long_names_are_cut_and_stay_apart(people: Place) -> None:
    names = [f"常住人口与流动人口基本信息登记表{number}" for number in (1, 2)]
    quote = {"mariadb": "`"}.get(people.kind, '"')
    for name in names:
        people.say(f"CREATE TABLE {quote}{name}{quote} (record_id varchar(40) PRIMARY KEY, community_code varchar(12), note varchar(9), visits int)")  # fmt: skip
        people.connector(name).prepare()
        people.connector(name).prepare()
    cursors = [people.connector(name).changes(None).cursor for name in names]
    people.say(f"INSERT INTO {quote}{names[0]}{quote} VALUES ('R1', '{REGION.code}', '一', 1)")
    read = [notes(people.connector(name).changes(cursor, sweep=False)) for name, cursor in zip(names, cursors)]
    assert read == [{"R1": "一"}, {}]
