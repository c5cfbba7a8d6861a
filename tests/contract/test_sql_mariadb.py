"""MariaDB keeps the contract, with native types and with text columns, in snapshot and in cursor capture."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import pytest

from connectors.base import Batch, Connector, no_keys
from connectors.sql import SqlConnector
from federation.errors import Permanent
from tests.contract import desk
from tests.contract.dataset import COMPOSITE, make_node, row, table
from tests.contract.suite import ConnectorContract, Row
from tests.servers import mysql_connection, mysql_database, mysql_url

COLUMNS = {"name": "full name", "note": "order", "visits": 'a"quote%'}
NATIVE = {
    "string": "mediumtext",
    "enum": "enum('无', '一般', '重点')",
    "json": "json",
    "int": "int",
    "float": "double",
    "decimal": "decimal(20,2)",
    "bool": "boolean",
    "date": "date",
    "timestamp": "datetime(6) COMMENT 'UTC'",
}
LOCAL = "Asia/Shanghai"


class MariadbTable(ConnectorContract):
    """The people's side: their own program, writing to their own table."""

    options: ClassVar[dict[str, Any]] = {}
    types: ClassVar[dict[str, str]] = NATIVE
    changed: ClassVar[str] = "timestamp"
    collation: ClassVar[str] = "utf8mb4_nopad_bin"

    def start(self) -> None:
        self.closing = ExitStack()
        self.schema = self.closing.enter_context(mysql_database())
        self.people = self.closing.enter_context(mysql_connection(mysql_url()))
        self._create()

    def stop(self) -> None:
        self.closing.close()

    def _create(self) -> None:
        fields = self.dataset.fields
        columns = [f"{self._name(name)} {'mediumtext' if self.loose else self._type(name)}" for name in fields]
        columns.append(f"changed {self.changed} NULL")
        if not self.loose:
            columns.append("must_be_set varchar(9) NOT NULL DEFAULT 'x'")
            columns.append(f"PRIMARY KEY ({', '.join(map(self._name, self.dataset.key))})")
        self._run(f"CREATE TABLE {self._table()} ({', '.join(columns)}) COLLATE {self.collation}")

    def _type(self, name: str) -> str:
        kind = self.dataset.fields[name].type
        if name in self.dataset.key and kind == "string":
            return "varchar(60)"
        return "bigint" if name == "visits" else self.types[kind]

    def connector(self) -> Connector:
        columns = {} if self.dataset is COMPOSITE else COLUMNS
        options = {"url": mysql_url(), "schema_name": self.schema, "table": "select", "returns": True}
        return SqlConnector(make_node(self.dataset, {**options, **self.options}, columns=columns))

    def people_write(self, rows: list[Row]) -> None:
        same = " AND ".join(f"{self._name(key)} <=> %s" for key in self.dataset.key)
        self.people.begin()
        for values in rows:
            names = [*map(self._name, values), "changed"]
            given = [*(self._plain(value) for value in values.values()), self._now()]
            keys = [self._plain(values[key]) for key in self.dataset.key]
            if self._run(f"SELECT 1 FROM {self._table()} WHERE {same}", keys):
                pairs = ", ".join(f"{name} = %s" for name in names)
                self._run(f"UPDATE {self._table()} SET {pairs} WHERE {same}", [*given, *keys])
            else:
                marks = ", ".join(["%s"] * len(names))
                self._run(f"INSERT INTO {self._table()} ({', '.join(names)}) VALUES ({marks})", given)
        self.people.commit()

    def people_delete(self, key: Row) -> None:
        same = " AND ".join(f"{self._name(name)} = %s" for name in key)
        self._run(f"DELETE FROM {self._table()} WHERE {same}", [self._plain(value) for value in key.values()])

    def stored(self) -> list[Row]:
        found = self._run(f"SELECT {', '.join(map(self._name, self.dataset.fields))} FROM {self._table()}")
        return [dict(zip(self.dataset.fields, map(self._told, values))) for values in found]

    def people_see_returns(self) -> list[Row]:
        names = (*self.dataset.key, "reason_zh", "reason_en")
        found = self._run(f"SELECT {', '.join(names)} FROM `{self.schema}`.`select_returns`")
        return [desk.return_seen(self.dataset, dict(zip(names, values))) for values in found]

    @property
    def keeps_moments(self) -> bool:
        return not self.loose and (self.types["timestamp"] == NATIVE["timestamp"])

    def _told(self, value: Any) -> Any:
        return value.replace(tzinfo=UTC) if isinstance(value, datetime) and self.keeps_moments else value

    def _plain(self, value: Any) -> Any:
        if isinstance(value, datetime) and not self.keeps_moments:
            value = value.astimezone(ZoneInfo(LOCAL)).replace(tzinfo=None)
        return None if value is None else str(value) if self.loose else value

    def _now(self) -> Any:
        now = datetime.now(UTC).replace(microsecond=0)
        if self.changed == "bigint":
            return int(now.timestamp())
        return now if self.changed == "timestamp" else now.astimezone(ZoneInfo(LOCAL)).replace(tzinfo=None)

    def _name(self, name: str) -> str:
        column = name if self.dataset is COMPOSITE else COLUMNS.get(name, name)
        return "`" + column.replace("`", "``").replace("%", "%%") + "`"

    def _table(self) -> str:
        return f"`{self.schema}`.`select`"

    def _run(self, statement: str, values: list[Any] | None = None) -> Any:
        with self.people.cursor() as cursor:
            cursor.execute(statement, values or [])
            return cursor.fetchall()


class TestMariadb(MariadbTable):
    loose = False


class TestMariadbWithTextColumns(MariadbTable):
    """Everything is text and there is no primary key: everything is possible, nothing may break."""


class TestMariadbWithLocalTimes(MariadbTable):
    """A table as most are: compared without case, times on the people's clock, a flag as a bit."""

    loose = False
    collation: ClassVar[str] = "utf8mb4_general_ci"
    types: ClassVar[dict[str, str]] = {
        **NATIVE,
        "timestamp": "datetime(3)",
        "date": "datetime",
        "bool": "bit(1)",
        "json": "longtext",
    }

    def _told(self, value: Any) -> Any:
        return bool(value[0]) if isinstance(value, bytes) else super()._told(value)

    def test_keys_that_the_table_cannot_tell_apart_are_refused_and_nothing_is_written(self) -> None:
        self.people_write([row("r1", note="一")])
        before = self.held()
        with pytest.raises(Permanent, match="collation"):
            self.write(table(self.dataset, [row("R1", note="二"), row("R2", note="三")]))
        assert self.held() == before
        with pytest.raises(Permanent, match="collation"):
            self.write(table(self.dataset, [row("é", note="二"), row("e", note="三")]))
        assert self.held() == before

    def test_a_key_in_another_case_finds_nothing_and_deletes_nothing(self) -> None:
        self.people_write([row("r1", note="一")])
        self.write(deletes=[{"record_id": "R1"}])
        assert set(self.held()) == {"r1"}
        assert self.connector().fetch(self.keys("R1")).deleted.num_rows == 1

    def test_a_row_that_another_index_takes_for_a_known_one_does_not_change_that_one(self) -> None:
        self._run(f"ALTER TABLE {self._table()} ADD UNIQUE (`full name`(50))")
        self.people_write([row("R1", name="王", note="一")])
        before = self.held()
        with pytest.raises(Permanent, match="unique"):
            self.write(table(self.dataset, [row("R2", name="王", note="二")]))
        assert self.held() == before


class TestMariadbWithCursor(MariadbTable):
    loose = False
    options: ClassVar[dict[str, Any]] = {"capture": "cursor", "cursor_column": "changed"}

    def test_a_row_of_a_transaction_that_was_slow_is_not_lost(self) -> None:
        """It was stamped before the newest row that the read saw, and no overlap covers it."""
        self.options = {**self.options, "overlap_seconds": 0}  # type: ignore[misc]
        with mysql_connection(mysql_url()) as slow, slow.cursor() as cursor:
            slow.begin()
            cursor.execute(
                f"INSERT INTO {self._table()} (record_id, community_code, changed) VALUES ('LATE', '1', NOW())"
            )
            cursor.execute("SELECT SLEEP(1.1)")
            self.people_write([row("R1")])
            first = self.connector().changes(None)
            assert set(self.rows(first)) == {"R1"}
            slow.commit()
        assert "LATE" in self.rows(self.connector().changes(first.cursor))


class TestMariadbWithCursorInLocalTime(MariadbTable):
    loose = False
    changed: ClassVar[str] = "datetime"
    options: ClassVar[dict[str, Any]] = {"capture": "cursor", "cursor_column": "changed", "overlap_seconds": 1}


class TestMariadbWithCursorOfNumbers(MariadbTable):
    loose = False
    changed: ClassVar[str] = "bigint"
    options: ClassVar[dict[str, Any]] = {"capture": "cursor", "cursor_column": "changed"}


class TestMariadbWithCursorAndTextColumns(MariadbTable):
    options: ClassVar[dict[str, Any]] = {"capture": "cursor", "cursor_column": "changed"}


class TestMariadbWithLog(MariadbTable):
    loose = False
    options: ClassVar[dict[str, Any]] = {"capture": "log"}


class TestMariadbWithLogInLocalTimeAndWithoutCase(TestMariadbWithLocalTimes):
    options: ClassVar[dict[str, Any]] = {"capture": "log"}

    def test_a_key_that_changed_its_case_is_a_deletion_and_a_new_row(self) -> None:
        self.people_write([row("r1", note="一")])
        cursor = self.connector().changes(None).cursor
        self._run(f"UPDATE {self._table()} SET record_id = 'R1'")
        found = self.connector().changes(cursor, sweep=False)
        assert set(self.rows(found)) == {"R1"}
        assert found.deleted.column("record_id").to_pylist() == ["r1"]


class TestMariadbWithLogAndTextColumns(MariadbTable):
    options: ClassVar[dict[str, Any]] = {"capture": "log"}


def test_a_table_that_prepare_made_keeps_moments_and_tells_keys_apart_by_case_accent_and_trailing_blank() -> None:
    with mysql_database() as schema:
        options = {"url": mysql_url(), "schema_name": schema, "create": True}
        connector = SqlConnector(make_node(COMPOSITE, options))
        connector.prepare()
        keys = ["a", "A", "á", "ａ", "ss", "ß", "🙂", "🙃"]
        rows = [{"record_id": key, "visit_no": 1, "note": key} for key in keys]
        connector.apply(Batch((table(COMPOSITE, rows),), no_keys(connector.node)))
        read = connector.changes(None).rows
        assert dict(zip(read.column("record_id").to_pylist(), read.column("note").to_pylist())) == {k: k for k in keys}
