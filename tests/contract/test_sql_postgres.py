"""PostgreSQL keeps the contract, with native types and with text columns, and cursor capture loses no late commit."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from connectors.base import Connector
from connectors.sql import SqlConnector
from federation.errors import Conflict
from tests.contract import desk
from tests.contract.dataset import COMPOSITE, make_node, row, table
from tests.contract.suite import ConnectorContract, Row
from tests.contract.test_sql_sqlite import DESK, RETURNS, seen
from tests.servers import postgres_schema, postgres_url

COLUMNS = {"name": "full name", "note": "order", "visits": 'a"quote%'}
NATIVE = {
    "string": "text",
    "enum": "varchar(20)",
    "json": "json",
    "int": "integer",
    "float": "double precision",
    "decimal": "numeric(20,2)",
    "bool": "boolean",
    "date": "date",
    "timestamp": "timestamptz",
}


class PostgresTable(ConnectorContract):
    """The people's side: their own program, writing to their own table."""

    options: ClassVar[dict[str, Any]] = {}
    types: ClassVar[dict[str, str]] = NATIVE
    changed: ClassVar[str] = "timestamptz"

    def start(self) -> None:
        self.closing = ExitStack()
        self.schema = self.closing.enter_context(postgres_schema())
        self.people = self.closing.enter_context(psycopg.connect(postgres_url(), autocommit=True))
        self.people.execute("SET TimeZone = 'UTC'")
        self._create()

    def stop(self) -> None:
        self.closing.close()

    def _create(self) -> None:
        fields = self.dataset.fields
        columns = [
            sql.SQL("{} {}").format(self._name(name), sql.SQL("text" if self.loose else self._type(name)))
            for name in fields
        ]
        columns.append(sql.SQL(f"changed {self.changed}"))
        if not self.loose:
            keys = sql.SQL(", ").join(map(self._name, self.dataset.key))
            columns.append(sql.SQL("must_be_set text NOT NULL DEFAULT 'x'"))
            columns.append(sql.SQL("PRIMARY KEY ({})").format(keys))
        self.people.execute(sql.SQL("CREATE TABLE {} ({})").format(self._table(), sql.SQL(", ").join(columns)))

    def _type(self, name: str) -> str:
        kind = self.dataset.fields[name].type
        return "bigint" if name == "visits" else self.types[kind]

    def connector(self) -> Connector:
        columns = {} if self.dataset is COMPOSITE else COLUMNS
        options = {
            "url": postgres_url(),
            "schema_name": self.schema,
            "table": "select",
            "corrections": DESK,
            "returns": RETURNS,
            **self.options,
        }
        return SqlConnector(make_node(self.dataset, options, columns=columns))

    def people_write(self, rows: list[Row]) -> None:
        same = sql.SQL(" AND ").join(sql.SQL("{} = %s").format(self._name(key)) for key in self.dataset.key)
        with self.people.transaction():
            for values in rows:
                names = [*(self._name(name, percent="%%") for name in values), sql.Identifier("changed")]
                given = [*(self._plain(value) for value in values.values()), self._now()]
                pairs = sql.SQL(", ").join(sql.SQL("{} = %s").format(name) for name in names)
                keys = [self._plain(values[key]) for key in self.dataset.key]
                changed = self.people.execute(
                    sql.SQL("UPDATE {} SET {} WHERE {}").format(self._table(), pairs, same), [*given, *keys]
                )
                if not changed.rowcount:
                    marks = sql.SQL(", ").join(sql.Placeholder() * len(names))
                    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})")
                    self.people.execute(statement.format(self._table(), sql.SQL(", ").join(names), marks), given)

    def people_delete(self, key: Row) -> None:
        same = sql.SQL(" AND ").join(sql.SQL("{} = %s").format(self._name(name)) for name in key)
        statement = sql.SQL("DELETE FROM {} WHERE {}").format(self._table(), same)
        self.people.execute(statement, [self._plain(value) for value in key.values()])

    def stored(self) -> list[Row]:
        listed = sql.SQL(", ").join(map(self._name, self.dataset.fields))
        found = self.people.execute(sql.SQL("SELECT {} FROM {}").format(listed, self._table())).fetchall()
        return [dict(zip(self.dataset.fields, map(_told, values))) for values in found]

    def people_see_corrections(self) -> dict[str, Row]:
        statement = sql.SQL("SELECT * FROM {}").format(sql.Identifier(self.schema, DESK))
        with self.people.cursor(row_factory=dict_row) as cursor:
            return {found["correction_id"]: seen(found) for found in cursor.execute(statement)}

    def people_see_returns(self) -> list[Row]:
        statement = sql.SQL("SELECT * FROM {}").format(sql.Identifier(self.schema, RETURNS))
        with self.people.cursor(row_factory=dict_row) as cursor:
            return [desk.return_seen(self.dataset, found) for found in cursor.execute(statement)]

    def people_rule(self, correction_id: str, ruling: str, reason: str | None) -> None:
        statement = sql.SQL("UPDATE {} SET ruling = %s, ruling_reason = %s WHERE correction_id = %s")
        self.people.execute(statement.format(sql.Identifier(self.schema, DESK)), [ruling, reason, correction_id])

    def desk_place(self) -> object:
        statement = sql.SQL("SELECT correction_id, xmin::text, ctid::text FROM {} ORDER BY 1")
        return self.people.execute(statement.format(sql.Identifier(self.schema, DESK))).fetchall()

    def _plain(self, value: Any) -> Any:
        if isinstance(value, datetime) and (self.loose or self.types["timestamp"] == "timestamp"):
            value = value.astimezone(ZoneInfo("Asia/Shanghai")).replace(tzinfo=None)
        return None if value is None else str(value) if self.loose else value

    def _now(self) -> Any:
        now = datetime.now(UTC).replace(microsecond=0)
        if self.changed == "bigint":
            return int(now.timestamp())
        return now if self.changed == "timestamptz" else now.astimezone(ZoneInfo("Asia/Shanghai")).replace(tzinfo=None)

    def _name(self, name: str, *, percent: str = "%") -> sql.Identifier:
        """`percent`: how the driver wants it (doubled beside parameters)."""
        column = name if self.dataset is COMPOSITE else COLUMNS.get(name, name)
        return sql.Identifier(column.replace("%", percent))

    def _table(self) -> sql.Identifier:
        return sql.Identifier(self.schema, "select")


def _told(value: Any) -> Any:
    """The driver decodes JSON; the suite wants it as text."""
    return json.dumps(value) if isinstance(value, (dict, list)) else value


class TestPostgres(PostgresTable):
    loose = False

    def test_a_row_that_appears_while_it_is_being_written_is_not_overwritten(self) -> None:
        expected = self.expecting("R1")
        with psycopg.connect(postgres_url()) as other, ThreadPoolExecutor(1) as ours:
            names = [self._name("record_id"), self._name("note")]
            insert = sql.SQL("INSERT INTO {} ({}) VALUES ('R1', '一')").format(self._table(), sql.SQL(", ").join(names))
            other.execute(insert)
            writing = ours.submit(self.write, table(self.dataset, [row("R1", note="三")]), expected=expected)
            time.sleep(0.5)
            assert not writing.done(), "it did not wait for the other transaction"
            other.commit()
            with pytest.raises(Conflict):
                writing.result(timeout=30)
        assert self.held()["R1"]["note"] == "一"


class TestPostgresWithTextColumns(PostgresTable):
    """Everything is text and there is no primary key: everything is possible, nothing may break."""


class TestPostgresWithLocalTimes(PostgresTable):
    loose = False
    types: ClassVar[dict[str, str]] = {**NATIVE, "timestamp": "timestamp", "date": "timestamp", "json": "jsonb"}


class TestPostgresWithCursor(PostgresTable):
    loose = False
    options: ClassVar[dict[str, Any]] = {"capture": "cursor", "cursor_column": "changed"}


class TestPostgresWithCursorInLocalTime(PostgresTable):
    loose = False
    changed: ClassVar[str] = "timestamp"
    options: ClassVar[dict[str, Any]] = {"capture": "cursor", "cursor_column": "changed", "overlap_seconds": 1}


class TestPostgresWithCursorAndTextColumns(PostgresTable):
    options: ClassVar[dict[str, Any]] = {"capture": "cursor", "cursor_column": "changed"}


class TestPostgresWithLog(PostgresTable):
    loose = False
    options: ClassVar[dict[str, Any]] = {"capture": "log"}


class TestPostgresWithLogAndTextColumns(PostgresTable):
    options: ClassVar[dict[str, Any]] = {"capture": "log"}


class TestPostgresWithLogOfAPartitionedTable(PostgresTable):
    """Two partitions, by the key: a row that is written moves through neither of them alone."""

    loose = False
    options: ClassVar[dict[str, Any]] = {"capture": "log"}

    def _create(self) -> None:
        super()._create()
        whole, parted = sql.Identifier(self.schema, "select_whole"), self._table()
        self.people.execute(sql.SQL("ALTER TABLE {} RENAME TO select_whole").format(parted))
        made = sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL) PARTITION BY HASH (record_id)")
        self.people.execute(made.format(parted, whole))
        self.people.execute(sql.SQL("DROP TABLE {}").format(whole))
        for number in range(2):
            one = sql.Identifier(self.schema, f"select_{number}")
            part = sql.SQL("CREATE TABLE {} PARTITION OF {} FOR VALUES WITH (MODULUS 2, REMAINDER {})")
            self.people.execute(part.format(one, parted, number))
