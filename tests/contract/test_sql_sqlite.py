"""SQLite keeps the contract: in a table with types and a primary key, and in one where people write what they like."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

from connectors.base import Connector
from connectors.sql import SqlConnector
from connectors.sql_values import local_text
from tests.contract import desk
from tests.contract.dataset import COMPOSITE, make_node
from tests.contract.suite import ConnectorContract, Row

DESK, RETURNS = "desk 校核", "select_returns"
COLUMNS = {"name": "full name", "note": "order", "visits": 'a"quote'}
"""Names that need quoting: a space, a reserved word, a quote."""
TYPED = {
    "string": "TEXT",
    "enum": "TEXT",
    "json": "TEXT",
    "int": "INTEGER",
    "float": "REAL",
    "decimal": "TEXT",
    "bool": "INTEGER",
    "date": "TEXT",
    "timestamp": "TEXT",
}


class SqliteTable(ConnectorContract):
    """The people's side: their own program, writing to their own table."""

    options: ClassVar[dict[str, Any]] = {}

    def start(self) -> None:
        fields = self.dataset.fields
        columns = [f"{self._quoted(name)} {self._type(spec.type)}" for name, spec in fields.items()]
        if not self.loose:
            columns.append(f"PRIMARY KEY ({', '.join(map(self._quoted, self.dataset.key))})")
        self._run(f'CREATE TABLE "select" (changed TEXT, {", ".join(columns)}){"" if self.loose else " STRICT"}', ())

    def connector(self) -> Connector:
        columns = {} if self.dataset is COMPOSITE else COLUMNS
        options = {"url": f"sqlite:///{self.path}", "table": "select", "corrections": DESK, "returns": True}
        return SqlConnector(make_node(self.dataset, {**options, **self.options}, columns=columns))

    def people_write(self, rows: list[Row]) -> None:
        now = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
        with closing(sqlite3.connect(self.path)) as connection, connection:
            for values in rows:
                named = [*(self._quoted(name) for name in values), "changed"]
                given = [*(_plain(value) for value in values.values()), now]
                same = " AND ".join(f"{self._quoted(name)} = ?" for name in self.dataset.key)
                changed = connection.execute(
                    f'UPDATE "select" SET {", ".join(f"{name} = ?" for name in named)} WHERE {same}',
                    [*given, *(values[name] for name in self.dataset.key)],
                )
                if not changed.rowcount:
                    marks = ", ".join("?" * len(named))
                    connection.execute(f'INSERT INTO "select" ({", ".join(named)}) VALUES ({marks})', given)

    def people_delete(self, key: Row) -> None:
        same = " AND ".join(f"{self._quoted(name)} = ?" for name in key)
        self._run(f'DELETE FROM "select" WHERE {same}', tuple(key.values()))

    def stored(self) -> list[Row]:
        listed = ", ".join(map(self._quoted, self.dataset.fields))
        with closing(sqlite3.connect(self.path)) as connection:
            return [
                dict(zip(self.dataset.fields, found)) for found in connection.execute(f'SELECT {listed} FROM "select"')
            ]

    def people_see_corrections(self) -> dict[str, Row]:
        with closing(sqlite3.connect(self.path)) as connection:
            connection.row_factory = sqlite3.Row
            return {
                found["correction_id"]: seen(dict(found)) for found in connection.execute(f'SELECT * FROM "{DESK}"')
            }

    def people_see_returns(self) -> list[Row]:
        with closing(sqlite3.connect(self.path)) as connection:
            connection.row_factory = sqlite3.Row
            return [desk.return_seen(self.dataset, dict(f)) for f in connection.execute(f'SELECT * FROM "{RETURNS}"')]

    def people_rule(self, correction_id: str, ruling: str, reason: str | None) -> None:
        statement = f'UPDATE "{DESK}" SET ruling = ?, ruling_reason = ? WHERE correction_id = ?'
        self._run(statement, (ruling, reason, correction_id))

    def desk_place(self) -> object:
        return Path(self.path).read_bytes()

    @property
    def path(self) -> str:
        return str(self.folder / "system.db")

    def _type(self, kind: str) -> str:
        return "" if self.loose else TYPED[kind]

    def _quoted(self, name: str) -> str:
        column = name if self.dataset is COMPOSITE else COLUMNS.get(name, name)
        return '"' + column.replace('"', '""') + '"'

    def _run(self, statement: str, values: tuple[Any, ...]) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(statement, values)


def seen(found: Row) -> Row:
    """A line of the desk's table as `tests.contract.desk.seen` has it."""
    texts = {name: "" if value is None else str(value) for name, value in found.items()}
    renamed = {"current": texts.pop("current_value"), "proposed": texts.pop("proposed_value")}
    for name in ("correction_id", "dataset", "region"):
        texts.pop(name)
    return texts | renamed


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return local_text(value, "Asia/Shanghai")
    if isinstance(value, Decimal):
        return str(value)
    return value.isoformat() if hasattr(value, "isoformat") else value


class TestSqliteWithTypes(SqliteTable):
    loose = False


class TestSqliteWithoutTypes(SqliteTable):
    """No declared types, no primary key: everything is possible, nothing may break."""


class TestSqliteWithCursor(SqliteTable):
    loose = False
    options: ClassVar[dict[str, Any]] = {"capture": "cursor", "cursor_column": "changed"}


class TestSqliteWithCursorWithoutTypes(SqliteTable):
    options: ClassVar[dict[str, Any]] = {"capture": "cursor", "cursor_column": "changed"}


class TestSqliteWithLog(SqliteTable):
    loose = False
    options: ClassVar[dict[str, Any]] = {"capture": "log"}


class TestSqliteWithLogWithoutTypes(SqliteTable):
    options: ClassVar[dict[str, Any]] = {"capture": "log"}
