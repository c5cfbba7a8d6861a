"""A PostgreSQL that gives its version as KingbaseES does keeps the contract under a `kingbase://` URL, log capture and COPY included.

It shows that the engine takes KingbaseES for what it descends from. What KingbaseES does otherwise shows only on a live one:
`tests/contract/test_sql_live.py`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, ClassVar

import psycopg
import pytest
from sqlalchemy import make_url

from connectors.sql_database import open_database
from connectors.sql_log import change_table
from connectors.sql_log_postgres import PostgresChanges
from tests.contract.dataset import SAMPLE, make_node
from tests.contract.test_sql_postgres import PostgresTable
from tests.servers import postgres_url

VERSION = "KingbaseES V008R006C007B0012 on x86_64-pc-linux-gnu, compiled by gcc"


@pytest.fixture(scope="module", autouse=True)
def database() -> Iterator[None]:
    """A database of the module's own, whose catalogue says so."""
    name = f"kingbase_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_url(), autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
    here = make_url(postgres_url()).set(database=name)
    Kingbase.direct = here.render_as_string(hide_password=False)
    Kingbase.url = here.set(drivername="kingbase", port=here.port or 5432).render_as_string(hide_password=False)
    try:
        _call_it_kingbase()
        yield
    finally:
        open_database(Kingbase.url).engine.dispose()
        with psycopg.connect(postgres_url(), autocommit=True) as server:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _call_it_kingbase() -> None:
    with psycopg.connect(Kingbase.direct, autocommit=True) as catalogue:
        try:
            catalogue.execute("SET allow_system_table_mods = on")
        except psycopg.errors.InsufficientPrivilege:
            pytest.skip("only a superuser may change what a server says of itself")
        catalogue.execute("ALTER FUNCTION pg_catalog.version() RENAME TO version_of_postgresql")
        catalogue.execute(
            f"CREATE FUNCTION pg_catalog.version() RETURNS text LANGUAGE sql STABLE AS $$ SELECT '{VERSION}'::text $$"
        )


class Kingbase(PostgresTable):
    loose = False
    direct: ClassVar[str]
    url: ClassVar[str]
    capture: ClassVar[dict[str, Any]] = {}

    def start(self) -> None:
        self.closing = ExitStack()
        self.people = self.closing.enter_context(psycopg.connect(self.direct, autocommit=True))
        self.people.execute("SET TimeZone = 'UTC'")
        self.schema = f"s_{uuid.uuid4().hex[:12]}"
        self.people.execute(f"CREATE SCHEMA {self.schema}")
        self.options = {"url": self.url, **self.capture}  # type: ignore[misc]
        self._create()


class TestKingbase(Kingbase):
    pass


class TestKingbaseWithLog(Kingbase):
    capture: ClassVar[dict[str, Any]] = {"capture": "log"}


def test_its_changes_are_caught_and_its_rows_copied_as_postgresqls() -> None:
    found = open_database(Kingbase.url)
    with found.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT version()").scalar_one() == VERSION
    assert type(change_table(make_node(SAMPLE, {}), found, "t", None, None)) is PostgresChanges
    assert type(found).load.__module__ == "connectors.sql_postgres"
