"""Any database keeps the contract: the suite against the one that FEDSYNC_TEST_SQL_URL names, in a table that the engine creates.

    FEDSYNC_TEST_SQL_URL='oracle://user:…@host/?service_name=…' pytest tests/contract/test_sql_live.py
    FEDSYNC_TEST_SQL_URL='dm://user:…@host:5236/' pytest tests/contract/test_sql_live.py
    FEDSYNC_TEST_SQL_URL='kingbase://user:…@host:54321/db' pytest tests/contract/test_sql_live.py

The account must be allowed to create and drop tables in its own schema. Nothing else in the database is touched.
"""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar

import pytest
from sqlalchemy import DateTime, MetaData, Table, and_, create_engine, delete, func, insert, make_url, select, update

from connectors.base import Connector
from connectors.sql import SqlConnector
from connectors.sql_dameng import Moment, import_dialect
from connectors.sql_database import _driven
from tests.contract.dataset import make_node
from tests.contract.suite import ConnectorContract, Row

URL = os.environ.get("FEDSYNC_TEST_SQL_URL", "")
pytestmark = pytest.mark.skipif(not URL, reason="no live database: set FEDSYNC_TEST_SQL_URL to try one")


class LiveTable(ConnectorContract):
    """The people's side: SQLAlchemy's own types, over a connection of their own."""

    loose = False
    options: ClassVar[dict[str, Any]] = {}

    def start(self) -> None:
        self.name = f"fedsync_live_{uuid.uuid4().hex[:8]}"
        url = _driven(make_url(URL))
        if url.get_backend_name() == "dm":
            import_dialect()
        self.people = create_engine(url)
        self.found: Table | None = None

    def stop(self) -> None:
        if self.found is not None:
            self.found.drop(self.people, checkfirst=True)
        self.people.dispose()

    def connector(self) -> Connector:
        return SqlConnector(make_node(self.dataset, {"url": URL, "table": self.name, "create": True, **self.options}))

    @property
    def table(self) -> Table:
        if self.found is None:
            told = [("column_reflect", self.kind)]
            self.found = Table(self.name, MetaData(), autoload_with=self.people, listeners=told)
        return self.found

    def kind(self, _inspector: Any, _table: Table, column: Any) -> None:
        """Dameng's driver drops the zone of a moment, so nobody writes or reads one as it is."""
        if self.people.dialect.name == "dm" and getattr(column["type"], "timezone", False):
            column["type"] = Moment()

    def people_write(self, rows: list[Row]) -> None:
        with self.people.begin() as connection:
            for values in rows:
                given = {name: self.given(name, value) for name, value in values.items()}
                if "changed" in self.table.c:
                    given["changed"] = self.given("changed", datetime.now(UTC))
                if not connection.execute(update(self.table).where(self.same(values)).values(given)).rowcount:
                    connection.execute(insert(self.table).values(given))

    def people_delete(self, key: Row) -> None:
        with self.people.begin() as connection:
            connection.execute(delete(self.table).where(self.same(key)))

    def stored(self) -> list[Row]:
        columns = [
            func.sys_extract_utc(column, type_=DateTime()) if isinstance(column.type, Moment) else column
            for column in (self.table.c[name] for name in self.dataset.fields)
        ]
        with self.people.connect() as connection:
            found = connection.execute(select(*columns)).fetchall()
        return [{name: self.told(name, value) for name, value in zip(self.dataset.fields, line)} for line in found]

    def same(self, values: Row) -> Any:
        return and_(*(self.table.c[name] == values[name] for name in self.dataset.key))

    def given(self, name: str, value: Any) -> Any:
        """What this database's own programs would write: a moment without a zone is UTC in the tables of the engine."""
        kind = self.table.c[name].type
        if isinstance(value, datetime) and isinstance(kind, DateTime):
            return value if kind.timezone else value.replace(tzinfo=None)
        if isinstance(value, (datetime, Decimal)) or (hasattr(value, "isoformat") and not hasattr(kind, "timezone")):
            return value if kind.python_type is not str else str(value)
        return value

    def told(self, name: str, value: Any) -> Any:
        if (
            isinstance(value, datetime)
            and self.dataset.fields.get(name)
            and self.dataset.fields[name].type == "timestamp"
        ):
            return value if value.tzinfo else value.replace(tzinfo=UTC)
        return value


class TestLive(LiveTable):
    pass


class TestLiveWithCursor(LiveTable):
    options: ClassVar[dict[str, Any]] = {"capture": "cursor", "cursor_column": "changed"}
