"""Inspecting tables of real servers: what we may do there, and whether they suit the contract. Nothing is written."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from connectors.base import Node
from connectors.findings import Finding
from connectors.sql import SqlConnector
from federation.contract import Dataset
from federation.errors import AccessDenied, Transient
from tests.contract.dataset import SAMPLE, make_node
from tests.servers import mysql_connection, mysql_database, mysql_url, postgres_schema, postgres_url

GOOD = {
    "record_id": "text PRIMARY KEY",
    "community_code": "varchar(12)",
    "name": "text",
    "note": "text",
    "visits": "bigint",
    "score": "double precision",
    "income": "numeric(20,2)",
    "insured": "boolean",
    "born": "date",
    "seen_at": "timestamp(6)",
    "care": "varchar(10)",
    "extra": "json",
}


def found(connector: SqlConnector) -> list[Finding]:
    try:
        return list(connector.inspect())
    finally:
        connector.close()


def only(findings: list[Finding], area: str, *states: str) -> list[Finding]:
    return [one for one in findings if one.area == area and one.state in (states or ("warn", "fail"))]


def troubles(findings: list[Finding]) -> list[tuple[str, str]]:
    """What is not as it should be, but for what any snapshot of a database has."""
    return [(one.area, one.en) for one in findings if one.state != "ok"]


def columns(**changes: str | None) -> str:
    kept = {name: kind for name, kind in {**GOOD, **changes}.items() if kind is not None}
    return ", ".join(f'"{name}" {kind}' for name, kind in kept.items())


# --- PostgreSQL


class Postgres:
    def __init__(self, schema: str) -> None:
        self.schema = schema
        self.people = psycopg.connect(postgres_url(), autocommit=True)

    def table(self, **changes: str | None) -> None:
        self.people.execute(f"CREATE TABLE {self.schema}.sample ({columns(**changes)})")

    def connector(self, user: str | None = None, dataset: Dataset = SAMPLE, **options: Any) -> SqlConnector:
        url = make_url(postgres_url())
        url = url.set(username=user) if user else url
        given = {"url": url.render_as_string(hide_password=False), "schema_name": self.schema, **options}
        return SqlConnector(make_node(dataset, given))

    @contextmanager
    def role(self, *grants: str) -> Iterator[str]:
        """An account with these rights and no others."""
        name = f"fedsync_{uuid.uuid4().hex[:10]}"
        self.people.execute(f"CREATE ROLE {name} LOGIN")
        self.people.execute(f"GRANT USAGE ON SCHEMA {self.schema} TO {name}")
        for grant in grants:
            self.people.execute(f"{grant} TO {name}")
        try:
            yield name
        finally:
            self.people.execute(f"DROP OWNED BY {name}")
            self.people.execute(f"DROP ROLE {name}")


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    with postgres_schema() as schema:
        made = Postgres(schema)
        with made.people:
            yield made


def test_a_sound_table_has_nothing_against_it(postgres: Postgres) -> None:
    postgres.table()
    told = found(postgres.connector())
    assert troubles(told) == []
    assert {one.area for one in told} == {"reach", "credentials", "rights", "schema", "clock", "capture", "strategy"}
    assert all(one.zh and one.en for one in told)


def test_each_right_that_is_missing_is_named_with_what_it_is_for(postgres: Postgres) -> None:
    postgres.table()
    with postgres.role(f"GRANT SELECT, UPDATE ON {postgres.schema}.sample") as user:
        told = found(postgres.connector(user))
    missing = {one.en.split(":")[0] for one in only(told, "rights", "fail")}
    assert missing == {"no right to insert", "no right to delete"}
    assert all("/" in one.todo for one in only(told, "rights"))


def test_a_right_to_single_columns_is_enough_if_it_covers_ours(postgres: Postgres) -> None:
    postgres.table(secret="text")
    ours = ", ".join(f'"{name}"' for name in GOOD)
    grants = [f"GRANT SELECT ({ours}), INSERT ({ours}), UPDATE ({ours}), DELETE ON {postgres.schema}.sample"]
    with postgres.role(*grants) as user:
        assert only(found(postgres.connector(user)), "rights") == []
    with postgres.role(f"GRANT SELECT (record_id, name) ON {postgres.schema}.sample") as user:
        assert any("right to select" in one.en for one in only(found(postgres.connector(user)), "rights", "fail"))


def test_rights_to_write_are_a_drawback_only_where_nothing_is_ever_written(postgres: Postgres) -> None:
    own = SAMPLE.model_copy(
        update={
            "originates": ("community",),
            "fields": {
                name: spec.model_copy(update={"authority": "community"}) for name, spec in SAMPLE.fields.items()
            },
        }
    )
    postgres.table()
    with postgres.role(f"GRANT SELECT ON {postgres.schema}.sample") as user:
        told = found(postgres.connector(user, own))
    assert only(told, "rights", "fail") == [] and len(only(told, "rights", "warn")) == 3


def test_log_capture_needs_the_right_to_its_table_and_its_triggers(postgres: Postgres) -> None:
    postgres.table()
    grants = [f"GRANT SELECT, INSERT, UPDATE, DELETE ON {postgres.schema}.sample"]
    with postgres.role(*grants) as user:
        told = found(postgres.connector(user, capture="log"))
        assert {one.en.split(":")[0] for one in only(told, "rights", "fail")} == {
            "no right to create",
            "no right to trigger",
        }
    told = found(postgres.connector(capture="log"))
    assert only(told, "rights") == []
    assert [one.state for one in told if "no change table yet" in one.en] == ["warn"]
    made = postgres.connector(capture="log")
    made.prepare()
    assert [one for one in found(made) if one.state != "ok"] == []


def test_a_read_only_account_is_told_apart_from_one_without_rights(postgres: Postgres) -> None:
    postgres.table()
    grants = [f"GRANT ALL ON {postgres.schema}.sample"]
    with postgres.role(*grants) as user:
        postgres.people.execute(f"ALTER ROLE {user} SET default_transaction_read_only = on")
        (one,) = only(found(postgres.connector(user)), "rights", "fail")
    assert "read-only" in one.en and "只读" in one.zh


def test_rows_hidden_by_row_security_would_look_deleted(postgres: Postgres) -> None:
    postgres.table()
    postgres.people.execute(f"ALTER TABLE {postgres.schema}.sample ENABLE ROW LEVEL SECURITY")
    with postgres.role(f"GRANT ALL ON {postgres.schema}.sample") as user:
        (one,) = only(found(postgres.connector(user)), "rights", "warn")
        assert "row security" in one.en
    assert only(found(postgres.connector()), "rights") == [], "the owner sees every row"


def test_a_missing_column_is_named_with_those_that_there_are(postgres: Postgres) -> None:
    postgres.table(note=None, remark="text")
    (one,) = only(found(postgres.connector()), "schema", "fail")
    assert "lacks the column note" in one.en and "remark" in one.en and "hosted" in one.todo


def test_a_missing_table_is_a_fault_unless_prepare_creates_it(postgres: Postgres) -> None:
    (one,) = only(found(postgres.connector()), "schema", "fail")
    assert "there is no table sample" in one.en
    assert only(found(postgres.connector(create=True)), "schema") == []
    with postgres.role() as user:
        (one,) = only(found(postgres.connector(user, create=True)), "rights", "fail")
        assert "create" in one.en


def test_a_log_that_the_first_sync_makes_together_with_its_table_is_no_fault(postgres: Postgres) -> None:
    told = found(postgres.connector(create=True, capture="log"))
    assert [one.state for one in told if one.state == "fail"] == []
    assert [one.en for one in only(told, "capture", "warn")] == ["there is no change table yet"]


def test_mariadb_a_log_that_the_first_sync_makes_together_with_its_table_is_no_fault(maria: Maria) -> None:
    told = found(maria.connector(create=True, capture="log"))
    assert [one.en for one in told if one.state != "ok"] == ["there is no change table yet"]


@pytest.mark.parametrize(
    ("column", "kind", "state", "says"),
    [
        ("record_id", "integer PRIMARY KEY", "fail", "leading zeros"),
        ("visits", "text", "warn", "as text"),
        ("visits", "smallint", "warn", "no room"),
        ("visits", "date", "fail", "whole numbers"),
        ("score", "integer", "fail", "fractions"),
        ("income", "numeric(20,1)", "fail", "keeps 1 digits"),
        ("income", "integer", "fail", "keeps 0 digits"),
        ("insured", "date", "fail", "yes or no"),
        ("born", "integer", "fail", "dates"),
        ("born", "varchar(8)", "fail", "10 are needed"),
        ("seen_at", "date", "fail", "moments"),
        ("seen_at", "timestamp(0)", "warn", "milliseconds"),
        ("care", "varchar(1)", "fail", "takes 1 characters, 2 are needed"),
        ("community_code", "varchar(9)", "fail", "12 are needed"),
        ("extra", "integer", "fail", "JSON"),
    ],
)
def test_a_column_of_a_wrong_type_is_told_with_what_would_go_wrong(
    postgres: Postgres, column: str, kind: str, state: str, says: str
) -> None:
    postgres.table(**{column: kind})
    (one,) = only(found(postgres.connector()), "schema")
    assert (one.state, says in one.en) == (state, True), one.en
    assert column in one.zh and "/" in one.todo


def test_an_enumerated_type_must_know_every_value(postgres: Postgres) -> None:
    postgres.people.execute(f"CREATE TYPE {postgres.schema}.care AS ENUM ('无', '一般')")
    postgres.table(care=f"{postgres.schema}.care")
    (one,) = only(found(postgres.connector()), "schema", "fail")
    assert "lacks the value 重点" in one.en


def test_a_column_that_must_be_set_and_is_not_in_the_contract_keeps_new_records_out(postgres: Postgres) -> None:
    postgres.table(
        clerk="text NOT NULL", made="timestamptz NOT NULL DEFAULT now()", n="int GENERATED ALWAYS AS IDENTITY"
    )
    (one,) = only(found(postgres.connector()), "schema", "fail")
    assert one.en.startswith("the column clerk must be set")


def test_a_key_that_is_not_unique_is_told_and_how_often(postgres: Postgres) -> None:
    postgres.table(record_id="text")
    (one,) = only(found(postgres.connector()), "schema")
    assert one.state == "warn" and "does not keep the key unique" in one.en
    postgres.people.execute(
        f"INSERT INTO {postgres.schema}.sample (record_id) VALUES ('A'), ('A'), ('B'), ('C'), ('C')"
    )
    (one,) = only(found(postgres.connector()), "schema")
    assert one.state == "fail" and "2 keys stand more than once" in one.en
    postgres.people.execute(f"DELETE FROM {postgres.schema}.sample")
    postgres.people.execute(f"CREATE UNIQUE INDEX ON {postgres.schema}.sample (record_id) WHERE name IS NOT NULL")
    assert len(only(found(postgres.connector()), "schema")) == 1, "it does not cover every row"
    postgres.people.execute(f"CREATE UNIQUE INDEX ON {postgres.schema}.sample (record_id)")
    assert only(found(postgres.connector()), "schema") == []


def test_a_cursor_column_is_looked_at(postgres: Postgres) -> None:
    postgres.table(changed="timestamptz")
    told = found(postgres.connector(capture="cursor", cursor_column="changed", cheap_sweep=False))
    assert ["index" in one.en for one in only(told, "capture")] == [True]
    assert [one.en for one in told if "full comparison only" in one.en]
    postgres.people.execute(f"CREATE INDEX ON {postgres.schema}.sample (changed)")
    assert only(found(postgres.connector(capture="cursor", cursor_column="changed")), "capture") == []
    with postgres.role(f"GRANT ALL ON {postgres.schema}.sample") as user:
        told = found(postgres.connector(user, capture="cursor", cursor_column="changed"))
        assert ["late commit" in one.en for one in only(told, "capture")] == [True]
    (one,) = only(found(postgres.connector(capture="cursor", cursor_column="name")), "capture", "fail")
    assert "neither a moment nor a number" in one.en


def test_a_wrong_password_or_a_dead_server_is_raised_as_a_probe_would(postgres: Postgres) -> None:
    with pytest.raises(AccessDenied):
        found(postgres.connector(f"nobody_{uuid.uuid4().hex[:6]}"))
    dead = make_url(postgres_url()).set(host="127.0.0.1", port=9).render_as_string(hide_password=False)
    with pytest.raises(Transient):
        found(SqlConnector(make_node(SAMPLE, {"url": dead})))


def test_inspecting_writes_nothing_and_the_server_sees_to_it(postgres: Postgres) -> None:
    postgres.table()
    postgres.people.execute(f"INSERT INTO {postgres.schema}.sample (record_id) VALUES ('A')")
    asked = (
        "SELECT c.relname, c.reltuples, c.relfilenode, pg_relation_size(c.oid) FROM pg_class c JOIN pg_namespace n"
        " ON n.oid = c.relnamespace WHERE n.nspname = %s ORDER BY 1"
    )
    before = postgres.people.execute(asked, (postgres.schema,)).fetchall()
    found(postgres.connector(capture="log", corrections="desk", create=True))
    assert postgres.people.execute(asked, (postgres.schema,)).fetchall() == before


# --- MariaDB


@pytest.fixture
def maria() -> Iterator[Maria]:
    with mysql_database() as database:
        yield Maria(database)


class Maria:
    def __init__(self, database: str) -> None:
        self.database = database

    def run(self, statement: str) -> None:
        with mysql_connection(mysql_url()) as connection, connection.cursor() as cursor:
            cursor.execute(f"USE {self.database}")
            cursor.execute(statement)

    def table(self, **changes: str | None) -> None:
        wanted = columns(
            **{"record_id": "varchar(40) PRIMARY KEY", "seen_at": "datetime(3)", "insured": "tinyint", **changes}
        )
        self.run(f"CREATE TABLE sample ({wanted.replace(chr(34), '`')})")

    def connector(self, user: str | None = None, **options: Any) -> SqlConnector:
        url = make_url(mysql_url()).set(database=self.database)
        url = url.set(username=user, password="x") if user else url
        return SqlConnector(make_node(SAMPLE, {"url": url.render_as_string(hide_password=False), **options}))

    @contextmanager
    def user(self, *grants: str) -> Iterator[str]:
        name = f"fs_{uuid.uuid4().hex[:10]}"
        self.run(f"CREATE USER {name} IDENTIFIED BY 'x'")
        for grant in grants:
            self.run(f"{grant} TO {name}")
        try:
            yield name
        finally:
            self.run(f"DROP USER {name}")


def test_mariadb_a_sound_table_has_nothing_against_it(maria: Maria) -> None:
    maria.table()
    assert troubles(found(maria.connector())) == []


@pytest.mark.parametrize("place", ["{}.sample", "{}.*"])
def test_mariadb_rights_are_found_whether_granted_on_the_table_or_its_database(maria: Maria, place: str) -> None:
    maria.table()
    where = place.format(maria.database)
    with maria.user(f"GRANT SELECT, UPDATE ON {where}") as user:
        told = found(maria.connector(user))
    missing = {one.en.split(":")[0] for one in only(told, "rights", "fail")}
    assert missing == {"no right to insert", "no right to delete", "no right to temporary tables"}


def test_mariadb_a_right_to_single_columns_is_enough_if_it_covers_ours(maria: Maria) -> None:
    maria.table()
    ours = ", ".join(GOOD)
    grants = [
        f"GRANT SELECT ({ours}), INSERT ({ours}), UPDATE ({ours}), DELETE ON {maria.database}.sample",
        f"GRANT CREATE TEMPORARY TABLES ON {maria.database}.*",
    ]
    with maria.user(*grants) as user:
        assert only(found(maria.connector(user)), "rights") == []


def test_mariadb_types_are_judged_as_well(maria: Maria) -> None:
    maria.table(seen_at="datetime", visits="tinyint", note=None)
    told = {one.en for one in only(found(maria.connector()), "schema")}
    assert any("milliseconds" in one for one in told)
    assert any("no room" in one for one in told)
    assert any("lacks the column note" in one for one in told)


# --- SQLite


def sqlite_node(path: Path, **options: Any) -> Node:
    return make_node(SAMPLE, {"url": f"sqlite:///{path}", **options})


def test_sqlite_may_keep_anything_as_text_and_is_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    made = SqlConnector(sqlite_node(path, create=True))
    made.prepare()
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    assert troubles(found(made)) == []
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before and list(tmp_path.iterdir()) == [path]


def test_sqlite_a_file_that_prepare_creates_may_be_missing(tmp_path: Path) -> None:
    told = found(SqlConnector(sqlite_node(tmp_path / "deep/er/a.db", create=True)))
    assert troubles(told) == [] and not (tmp_path / "deep").exists()


def test_sqlite_a_file_that_we_may_not_write_is_told() -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        path = folder / "a.db"
        connection = sqlite3.connect(path)
        connection.execute(f"CREATE TABLE sample ({columns()})")
        connection.close()
        path.chmod(0o444)
        folder.chmod(0o555)
        with nobody():
            told = found(SqlConnector(sqlite_node(path)))
        folder.chmod(0o755)
    assert {one.en.split(":")[0] for one in only(told, "rights", "fail")} == {
        "no right to insert",
        "no right to update",
        "no right to delete",
    }


@contextmanager
def nobody() -> Iterator[None]:
    """Without the rights of root, whom no mode stops."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
