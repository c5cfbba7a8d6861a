"""A system that lacks fields keeps the contract together with its hosted companion."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

from connectors.base import Connector, Node
from connectors.companion import CompanionConnector
from connectors.hosted import HostedConnector
from connectors.memory import STORES, MemoryConnector
from connectors.sql import SqlConnector
from connectors.sql_values import local_text
from federation.canonical import key_table
from tests.contract.dataset import REGION, make_node, row, table, whole
from tests.contract.sealed import KEY, unsealed
from tests.contract.suite import ConnectorContract, Row
from tests.contract.test_memory import memory_desk, memory_returns

LACKING = ("note", "income", "insured", "seen_at")


class Companion(ConnectorContract):
    """People write the system's own columns there, and the others through the hosted table's hands (`edit`)."""

    def main(self, node: Node) -> Connector:
        """The system."""
        raise NotImplementedError

    def main_write(self, rows: list[Row]) -> None:
        raise NotImplementedError

    def main_stored(self) -> list[Row]:
        raise NotImplementedError

    def part(self, fields: tuple[str, ...], **options: Any) -> Node:
        return make_node(self.dataset, options, fields=fields)

    def side(self) -> HostedConnector:
        kept = tuple(name for name in self.dataset.fields if name in self.dataset.key or name in LACKING)
        url = f"sqlite:///{self.folder / 'hosted.db'}"
        return HostedConnector(self.part(kept, url=url, part="companion", keys=(KEY,)))

    @property
    def own(self) -> tuple[str, ...]:
        return tuple(name for name in self.dataset.fields if name not in LACKING)

    def connector(self) -> CompanionConnector:
        return CompanionConnector(make_node(self.dataset, {}), self.main(self.part(self.own)), self.side())

    def people_write(self, rows: list[Row]) -> None:
        self.main_write([{name: value for name, value in values.items() if name not in LACKING} for values in rows])
        apart = [{name: value for name, value in values.items() if name in LACKING} for values in rows]
        for names in {tuple(values) for values in apart if values}:
            keyed = [
                {**{key: values[key] for key in self.dataset.key}, **others}
                for values, others in zip(rows, apart)
                if tuple(others) == names
            ]
            assert not self.side().edit(table(self.dataset, keyed)).num_rows

    def stored(self) -> list[Row]:
        """A row that the system does not have is not a row, whatever the companion keeps."""
        with closing(sqlite3.connect(self.folder / "hosted.db")) as connection:
            kept = connection.execute("SELECT record_key, payload FROM hosted_record WHERE NOT deleted").fetchall()
        keys = key_table([key for key, _ in kept], self.dataset).to_pylist()
        place = (self.dataset.name, REGION.code, "companion")
        beside = {tuple(key.values()): unsealed(text, *place, name) for key, (name, text) in zip(keys, kept)}
        found = self.main_stored()
        return [{**values, **beside.get(tuple(values[key] for key in self.dataset.key), {})} for values in found]

    def test_a_value_for_a_field_that_the_system_lacks_is_kept_and_the_system_is_left_alone(self) -> None:
        self.people_write([whole("R1")])
        before = self.main_stored()
        self.write(table(self.dataset, [{"record_id": "R1", "note": "新"}]))
        assert self.rows(self.connector().changes(None))["R1"]["note"] == "新"
        assert self.main_stored() == before

    def test_a_companion_of_a_row_that_the_system_lost_is_no_row(self) -> None:
        self.people_write([row("R1", note="一"), row("R2", note="二")])
        self.people_delete({"record_id": "R1"})
        assert set(self.rows(self.connector().changes(None))) == {"R2"}
        assert self.connector().fetch(self.keys("R1")).deleted.num_rows == 1

    def test_a_change_in_the_companion_alone_changes_the_token_and_is_read(self) -> None:
        self.people_write([row("R1", note="一")])
        before = self.connector().probe().token
        cursor = self.connector().changes(None).cursor
        self.side().edit(table(self.dataset, [{"record_id": "R1", "note": "二"}]))
        assert self.connector().probe().token != before
        assert self.rows(self.connector().changes(cursor))["R1"]["note"] == "二"


class SqliteCompanion(Companion):
    options: ClassVar[dict[str, Any]] = {}

    def start(self) -> None:
        columns = ", ".join(f'"{name}"' for name in self.own)
        keys = ", ".join(self.dataset.key)
        self._run(f"CREATE TABLE ledger ({columns}, changed TEXT, UNIQUE ({keys}))")

    def main(self, node: Node) -> Connector:
        options = {"url": f"sqlite:///{self.folder / 'system.db'}", "table": "ledger", **self.options}
        return SqlConnector(Node(node.dataset, REGION, "office", options, node.fields))

    def main_write(self, rows: list[Row]) -> None:
        with closing(sqlite3.connect(self.folder / "system.db")) as connection, connection:
            for values in rows:
                given = {name: _plain(value) for name, value in values.items()}
                given["changed"] = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
                listed = ", ".join(f'"{name}"' for name in given)
                pairs = ", ".join(f'"{name}" = excluded."{name}"' for name in given)
                connection.execute(
                    f"INSERT INTO ledger ({listed}) VALUES ({', '.join('?' * len(given))}) "
                    f"ON CONFLICT ({', '.join(self.dataset.key)}) DO UPDATE SET {pairs}",
                    list(given.values()),
                )

    def main_stored(self) -> list[Row]:
        with closing(sqlite3.connect(self.folder / "system.db")) as connection:
            found = connection.execute(f"SELECT {', '.join(self.own)} FROM ledger ORDER BY 1").fetchall()
        return [dict(zip(self.own, values)) for values in found]

    def people_delete(self, key: Row) -> None:
        self._run(f"DELETE FROM ledger WHERE {' AND '.join(f'{name} = ?' for name in key)}", *key.values())

    def _run(self, statement: str, *values: Any) -> None:
        with closing(sqlite3.connect(self.folder / "system.db")) as connection, connection:
            connection.execute(statement, values)


class TestCompanionOfSqlite(SqliteCompanion):
    pass


class TestCompanionOfSqliteWithCursor(SqliteCompanion):
    options: ClassVar[dict[str, Any]] = {"capture": "cursor", "cursor_column": "changed"}


class TestCompanionOfAConditionalSystem(Companion):
    """The system refuses writes decided on an older read; so must both together."""

    @property
    def name(self) -> str:
        return f"companion/{self.folder}"

    def stop(self) -> None:
        STORES.pop(self.name, None)

    def main(self, node: Node) -> Connector:
        options = {"store": self.name, "capture": "log"}
        return MemoryConnector(Node(node.dataset, REGION, "office", options, node.fields))

    def main_write(self, rows: list[Row]) -> None:
        for values in rows:
            STORES[self.name].put(self._key(values), values)

    def main_stored(self) -> list[Row]:
        return [dict(values) for values in STORES[self.name].rows.values()]

    def people_delete(self, key: Row) -> None:
        STORES[self.name].drop(self._key(key))

    def people_see_corrections(self) -> dict[str, Row]:
        return memory_desk(STORES[self.name], self.dataset)

    def people_see_returns(self) -> list[Row]:
        return memory_returns(STORES[self.name], self.dataset)

    def people_rule(self, correction_id: str, ruling: str, reason: str | None) -> None:
        STORES[self.name].rulings[correction_id] = (ruling, reason)

    def _key(self, values: Row) -> str:
        parts = [values[name] for name in self.dataset.key]
        return parts[0] if len(parts) == 1 else json.dumps([str(part) for part in parts], separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return local_text(value, "Asia/Shanghai")
    return str(value) if isinstance(value, Decimal) or hasattr(value, "isoformat") else value
