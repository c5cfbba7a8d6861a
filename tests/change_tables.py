"""People at the prompt of three kinds of databases, in a place of the test's own, for the tests of log capture."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from connectors.base import Applied, Batch, Changes, no_keys
from connectors.sql import SqlConnector
from federation.canonical import key_table
from tests.contract.dataset import REGION, SAMPLE, make_node, row, table
from tests.servers import mysql_connection, mysql_database, mysql_url, postgres_schema, postgres_url

FIELDS = ("record_id", "community_code", "note", "visits")
KINDS = ("postgres", "mariadb", "sqlite")
SERVERS = ("postgres", "mariadb")
"""Those in which several transactions write at the same time."""
LOG = "fedsync_log_ledger"
_CATALOGUES = {
    "postgres": """
        SELECT 'relation', relname, CAST(relkind AS text) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
            WHERE nspname = '{place}'
        UNION ALL SELECT 'function', proname, prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
            WHERE nspname = '{place}'
        UNION ALL SELECT 'trigger', tgname, relname FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
            JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = '{place}'
        UNION ALL SELECT 'column', relname, attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute
            JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
            WHERE nspname = '{place}' AND attnum > 0 AND relkind = 'r'
        ORDER BY 1, 2, 3""",
    "mariadb": """
        SELECT 'table', table_name, '' FROM information_schema.tables WHERE table_schema = '{place}'
        UNION ALL SELECT 'trigger', trigger_name, event_object_table FROM information_schema.triggers
            WHERE trigger_schema = '{place}'
        UNION ALL SELECT 'routine', routine_name, '' FROM information_schema.routines WHERE routine_schema = '{place}'
        UNION ALL SELECT 'column', table_name, concat(column_name, ' ', column_type) FROM information_schema.columns
            WHERE table_schema = '{place}'
        ORDER BY 1, 2, 3""",
    "sqlite": "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY 1, 2",
}


@dataclass
class Session:
    """One program's connection."""

    connection: Any

    def say(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement; its rows, if it has any."""
        cursor = self.connection.cursor()
        cursor.execute(statement)
        return [tuple(found) for found in cursor.fetchall()] if cursor.description else []

    def begin(self) -> None:
        self.say("BEGIN")

    def commit(self) -> None:
        self.say("COMMIT")

    def rollback(self) -> None:
        self.say("ROLLBACK")


@dataclass
class Place:
    """A schema, database or file with the table `ledger`. `url`, `schema`: as a declaration names them. `me`: one program."""

    kind: str
    url: str
    schema: str | None
    closing: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.me = self.session()
        self.say = self.me.say

    def session(self) -> Session:
        """Another program."""
        if self.kind == "postgres":
            connection: Any = self.closing.enter_context(psycopg.connect(postgres_url(), autocommit=True))
            connection.execute(f"SET search_path = {self.schema}")
        elif self.kind == "mariadb":
            connection = self.closing.enter_context(closing(mysql_connection(mysql_url())))
            connection.select_db(self.schema)
        else:
            path = self.url.removeprefix("sqlite:///")
            connection = self.closing.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
        return Session(connection)

    def connector(self, name: str = "ledger", columns: dict[str, str] | None = None, **options: Any) -> SqlConnector:
        """A fresh connector with log capture."""
        given = {"url": self.url, "schema_name": self.schema, "table": name, "capture": "log", **options}
        return SqlConnector(make_node(SAMPLE, given, fields=FIELDS, columns=columns))

    def put(self, key: str, note: str, say: Any = None) -> None:
        """Insert one row, or change its note."""
        run = say or self.say
        if run(f"SELECT 1 FROM ledger WHERE record_id = '{key}'"):
            run(f"UPDATE ledger SET note = '{note}' WHERE record_id = '{key}'")
        else:
            run(f"INSERT INTO ledger VALUES ('{key}', '{REGION.code}', '{note}', 0)")

    def drop(self, key: str) -> None:
        self.say(f"DELETE FROM ledger WHERE record_id = '{key}'")

    def catalogue(self) -> list[tuple[Any, ...]]:
        """Everything that the place holds, data aside."""
        return self.say(_CATALOGUES[self.kind].format(place=self.schema))

    def age(self, days: float) -> None:
        """Make every line of the change table so much older."""
        older = {
            "postgres": f"log_at - interval '{days} days'",
            "mariadb": f"log_at - INTERVAL {days} DAY",
            "sqlite": f"strftime('%Y-%m-%d %H:%M:%f', log_at, '-{days} days')",
        }
        self.say(f"UPDATE {LOG} SET log_at = {older[self.kind]}")

    def lines(self) -> int:
        """How many lines the change table has."""
        return int(self.say(f"SELECT count(*) FROM {LOG}")[0][0])

    def drop_trigger(self, event: str) -> None:
        on = " ON ledger" if self.kind == "postgres" else ""
        self.say(f"DROP TRIGGER {LOG}_{event}{on}")


@contextmanager
def place(kind: str, folder: Path) -> Iterator[Place]:
    """A fresh one."""
    with ExitStack() as stack:
        if kind == "postgres":
            made = Place(kind, postgres_url(), stack.enter_context(postgres_schema()))
        elif kind == "mariadb":
            made = Place(kind, mysql_url(), stack.enter_context(mysql_database()))
        else:
            made = Place(kind, f"sqlite:///{folder / 'system.db'}", None)
        with made.closing:
            made.say(
                "CREATE TABLE ledger (record_id varchar(40) PRIMARY KEY, community_code varchar(12), note varchar(200), "
                "visits int)"
            )
            yield made


def notes(changes: Changes) -> dict[str, str | None]:
    """Key → note of the rows that were read."""
    return dict(zip(changes.rows.column("record_id").to_pylist(), changes.rows.column("note").to_pylist()))


def gone(changes: Changes) -> set[str]:
    """The keys of which the read says that they are gone."""
    return set(changes.deleted.column("record_id").to_pylist())


def listed(changes: Changes) -> set[str] | None:
    """The keys that there are, if the read lists them: a later read does so only if it read everything."""
    return None if changes.present is None else set(changes.present.column("record_id").to_pylist())


def write(connector: SqlConnector, token: str | None, *deletes: str, **rows: str) -> Applied:
    """Our own write, decided on a read at that token. `rows`: key → note."""
    upserts = tuple(table(SAMPLE, [{**row(key), "note": note}]) for key, note in rows.items())
    keys = key_table(list(deletes), SAMPLE) if deletes else no_keys(connector.node)
    return connector.apply(Batch(upserts, keys, None, token))
