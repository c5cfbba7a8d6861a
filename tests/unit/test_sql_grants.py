"""docs/grants.md: an account with exactly the documented rights can do all that the connector does, and needs each of them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from connectors.base import Batch
from connectors.sql import SqlConnector
from connectors.sql_database import open_database
from federation.canonical import key_table
from federation.errors import AccessDenied
from tests.change_tables import FIELDS, Session, gone, notes
from tests.contract import desk
from tests.contract.dataset import REGION, SAMPLE, make_node, row, table
from tests.servers import mysql_connection, mysql_database, mysql_url, postgres_url

DOCUMENT = Path(__file__).parents[2] / "docs/grants.md"
CAPTURES = ("snapshot", "cursor", "log")
TABLE = (
    "resident (record_id varchar(40) PRIMARY KEY, community_code varchar(12), note varchar(99), visits int, "
    "changed timestamp(6) NOT NULL DEFAULT current_timestamp(6))"
)
SEES_OTHERS = ("pg_read_all_stats", "PROCESS")
"""Rights without which cursor capture works, but must trust its overlap."""


@cache
def documented() -> dict[str, dict[str, list[str]]]:
    """Database → kind of capture → statements."""
    found: dict[str, dict[str, list[str]]] = {}
    for part in re.split(r"^## ", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        blocks = re.findall(r"^### (\w+)\n.*?```sql\n(.*?)```", part, flags=re.MULTILINE | re.DOTALL)
        if blocks:
            word = part.split(",")[0].split("\n")[0].strip().lower()
            found[word] = {capture: block.strip().split("\n") for capture, block in blocks}
    return found


class Server:
    """A database with the table, and an account without any right. `admin`: somebody with all of them."""

    kind: str
    admin: Session
    url: str
    schema: str

    def grant(self, statements: list[str]) -> None:
        for statement in statements:
            self.admin.say(self.named(statement).removesuffix(";"))

    def named(self, statement: str) -> str:
        raise NotImplementedError

    def connector(self, capture: str) -> SqlConnector:
        options: dict[str, Any] = {
            "url": self.url,
            "schema_name": self.schema,
            "table": "resident",
            "capture": capture,
            "cursor_column": "changed",
            "overlap_seconds": 0,
        }
        return SqlConnector(make_node(SAMPLE, options, fields=FIELDS))


class Postgres(Server):
    """With a database of its own: in the servers' default one, everybody may connect and make temporary tables."""

    kind = "postgresql"

    def __init__(self) -> None:
        self.name = f"fedsync_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(postgres_url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {self.name}")
            connection.execute(f"REVOKE ALL ON DATABASE {self.name} FROM PUBLIC")
            connection.execute(f"CREATE ROLE {self.name} LOGIN PASSWORD 'test-only'")
        place = make_url(postgres_url()).set(database=self.name)
        self.connection = psycopg.connect(place.render_as_string(False), autocommit=True)
        self.admin = Session(self.connection)
        self.admin.say("CREATE SCHEMA data")
        self.admin.say(f"CREATE TABLE data.{TABLE}".replace("changed timestamp(6)", "changed timestamptz(6)"))
        self.url = place.set(username=self.name, password="test-only").render_as_string(False)
        self.schema = "data"

    def named(self, statement: str) -> str:
        return re.sub(r"\b(city|fedsync)\b", self.name, statement)

    def close(self) -> None:
        self.connection.close()
        open_database(self.url).engine.dispose()
        with psycopg.connect(postgres_url(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {self.name} WITH (FORCE)")
            connection.execute(f"DROP ROLE {self.name}")


class Mariadb(Server):
    kind = "mariadb"

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self.connection = mysql_connection(mysql_url())
        self.admin = Session(self.connection)
        self.admin.say(f"CREATE TABLE {schema}.{TABLE}")
        self.admin.say(f"CREATE USER '{schema}'@'%' IDENTIFIED BY 'test-only'")
        place = make_url(mysql_url()).set(username=schema, password="test-only", database=schema)
        self.url = place.render_as_string(False)

    def named(self, statement: str) -> str:
        return re.sub(r"\bcity\b|\bfedsync\b", self.schema, statement)

    def close(self) -> None:
        open_database(self.url).engine.dispose()
        self.admin.say(f"DROP USER '{self.schema}'@'%'")
        self.connection.close()


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.param == "postgresql":
        with closing(Postgres()) as made:
            yield made
    else:
        with mysql_database() as schema, closing(Mariadb(schema)) as made:
            yield made


def everything(server: Server, capture: str) -> None:
    """All that the engine asks of a connector."""
    table_of = f"{server.schema}.resident"
    server.admin.say(f"INSERT INTO {table_of} (record_id, community_code) VALUES ('R1', '{REGION.code}')")
    connector = server.connector(capture)
    connector.prepare()
    token, read = connector.probe().token, connector.changes(None)
    assert set(notes(read)) == {"R1"}
    rows = table(SAMPLE, [row("R1", note="回流"), row("R2", note="新")])
    applied = connector.apply(Batch((rows,), key_table(["R9"], SAMPLE), None, token))
    assert (applied.written, applied.deleted) == (2, 1)
    assert notes(connector.fetch(key_table(["R1", "R2"], SAMPLE))) == {"R1": "回流", "R2": "新"}
    server.admin.say(f"DELETE FROM {table_of} WHERE record_id = 'R2'")
    found = connector.changes(read.cursor, sweep=True)
    assert "R2" not in notes(found)
    assert gone(found) == ({"R2"} if capture == "log" else set())
    connector.unprepare()
    connector.close()


@pytest.mark.parametrize("capture", CAPTURES)
def test_the_documented_rights_are_enough(server: Server, capture: str) -> None:
    server.grant(documented()[server.kind][capture])
    everything(server, capture)


@pytest.mark.parametrize("capture", ["snapshot", "log"])
def test_each_of_the_documented_rights_is_needed(server: Server, capture: str) -> None:
    statements = documented()[server.kind][capture]
    for left_out in statements:
        server.grant([statement for statement in statements if statement != left_out])
        with pytest.raises(AccessDenied):
            everything(server, capture)
        revoked = re.sub(r"^GRANT(.*) TO ", r"REVOKE\1 FROM ", left_out)
        for statement in statements:
            if statement != left_out:
                server.grant([re.sub(r"^GRANT(.*) TO ", r"REVOKE\1 FROM ", statement)])
        assert revoked != left_out
        _clear(server)


def returning(server: Server) -> None:
    """All that the engine asks of a table of returns."""
    plain = server.connector("snapshot")
    node = make_node(SAMPLE, {**plain.node.options, "returns": True}, fields=FIELDS)
    connector = SqlConnector(node)
    connector.prepare()
    for shown in ([desk.returned("a1", "R1"), desk.returned("b2", "R2")], [desk.returned("b2", "R2")], []):
        connector.show_returns(desk.returns(SAMPLE, *shown))
        (count,) = server.admin.say(f"SELECT count(*) FROM {server.schema}.resident_returns")[0]
        assert count == len(shown)
    connector.close()


def test_a_table_of_returns_needs_the_documented_rights_and_no_more(server: Server) -> None:
    statements = documented()[server.kind]
    server.grant(statements["snapshot"])
    with pytest.raises(AccessDenied):
        returning(server)
    server.grant(statements["returns"])
    returning(server)


def _clear(server: Server) -> None:
    """As before, with what an account without enough rights left half done."""
    open_database(server.url).engine.dispose()
    if server.kind == "postgresql":
        owner = make_url(server.url).username
        server.admin.say("DROP FUNCTION IF EXISTS data.fedsync_log_resident() CASCADE")
        server.admin.say("DROP TABLE IF EXISTS data.fedsync_log_resident, data.fedsync_log_resident_state")
        server.admin.say("DELETE FROM data.resident")
        assert not server.admin.say(f"SELECT 1 FROM pg_class WHERE relowner = CAST('{owner}' AS regrole)")
        return
    for event in ("insert", "update", "delete"):
        server.admin.say(f"DROP TRIGGER IF EXISTS {server.schema}.fedsync_log_resident_{event}")
    for name in ("fedsync_log_resident", "fedsync_log_resident_state"):
        server.admin.say(f"DROP TABLE IF EXISTS {server.schema}.{name}")
    server.admin.say(f"DELETE FROM {server.schema}.resident")


def test_with_the_documented_rights_a_cursor_loses_no_late_commit(server: Server) -> None:
    """However small its overlap: it sees that somebody else is still writing."""
    statements = documented()[server.kind]["cursor"]
    assert any(word in statement for statement in statements for word in SEES_OTHERS)
    server.grant(statements)
    server.admin.say("BEGIN")
    server.admin.say(
        f"INSERT INTO {server.schema}.resident (record_id, community_code) VALUES ('LATE', '{REGION.code}')"
    )
    with closing(_another(server)) as other:
        cursor = other.cursor()
        cursor.execute("SELECT pg_sleep(1.2)" if server.kind == "postgresql" else "SELECT SLEEP(1.2)")
        cursor.execute(
            f"INSERT INTO {server.schema}.resident (record_id, community_code) VALUES ('R1', '{REGION.code}')"
        )
    first = server.connector("cursor").changes(None)
    assert set(notes(first)) == {"R1"}
    server.admin.say("COMMIT")
    assert "LATE" in notes(server.connector("cursor").changes(first.cursor))


def _another(server: Server) -> Any:
    if isinstance(server, Postgres):
        place = make_url(postgres_url()).set(database=server.name)
        return psycopg.connect(place.render_as_string(False), autocommit=True)
    return mysql_connection(mysql_url())


def test_an_account_that_may_not_set_up_log_capture_is_told_what_to_grant(server: Server) -> None:
    statements = documented()[server.kind]
    server.grant(statements["snapshot"])
    with pytest.raises(AccessDenied) as caught:
        server.connector("log").prepare()
    assert "docs/grants.md" in caught.value.todo
    grants = [f"{found};" for found in re.findall(r"GRANT [^;]*", caught.value.todo)]
    server.grant(grants)
    server.connector("log").prepare()
    assert len(grants) == len(statements["log"]) - len(statements["snapshot"])


def test_programs_without_a_right_on_the_change_table_can_write(server: Server) -> None:
    server.grant(documented()[server.kind]["log"])
    connector = server.connector("log")
    connector.prepare()
    cursor = connector.changes(None).cursor
    clerk = f"clerk_{uuid.uuid4().hex[:8]}"
    if isinstance(server, Postgres):
        server.admin.say(f"CREATE ROLE {clerk}")
        server.admin.say(f"GRANT USAGE ON SCHEMA data TO {clerk}")
        server.admin.say(f"GRANT SELECT, INSERT ON data.resident TO {clerk}")
        server.admin.say(f"SET ROLE {clerk}")
        server.admin.say(f"INSERT INTO data.resident (record_id, community_code) VALUES ('R1', '{REGION.code}')")
        server.admin.say("RESET ROLE")
        server.admin.say(f"DROP OWNED BY {clerk}")
        server.admin.say(f"DROP ROLE {clerk}")
    else:
        server.admin.say(f"CREATE USER '{clerk}'@'%' IDENTIFIED BY 'test-only'")
        server.admin.say(f"GRANT SELECT, INSERT ON {server.schema}.resident TO '{clerk}'@'%'")
        url = make_url(mysql_url()).set(username=clerk, password="test-only", database=server.schema)
        with closing(mysql_connection(url.render_as_string(False))) as connection, connection.cursor() as session:
            session.execute(
                f"INSERT INTO {server.schema}.resident (record_id, community_code) VALUES ('R1', '{REGION.code}')"
            )
        server.admin.say(f"DROP USER '{clerk}'@'%'")
    assert set(notes(connector.changes(cursor, sweep=False))) == {"R1"}
