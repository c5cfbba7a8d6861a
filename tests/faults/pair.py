"""Two systems that one link keeps equal: a street's, behind a proxy that breaks its connections, and a community's SQLite file.

The street decides on `name`, the community on `phone`; both create records, the street retires them. `put`, `drop` and `rows` act as
the systems' own people do, past the proxy.
"""

from __future__ import annotations

import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import yaml
from sqlalchemy import make_url

from connectors import breaker
from examples.beijing.street_platform import StreetPlatform
from federation.errors import FedsyncError
from federation.federation import Federation
from federation.runtime import open_federation
from tests.faults.proxy import Proxy
from tests.federations import written
from tests.servers import mysql_connection, mysql_database, mysql_url, postgres_schema, postgres_url

STREET, COMMUNITY = "110101001000", "110101001001"
REGIONS = f"""code,name,level,parent
110000000000,北京市,city,
110101000000,东城区,district,110000000000
{STREET},东华门街道,street,110101000000
{COMMUNITY},多福巷社区,community,{STREET}
"""
PEOPLE = """
name: people
label: 人员
levels: [street, community]
key: [id]
jurisdiction: area
originates: [street, community]
retires: [street]
max_change: 1.0
fields:
  id: {label: 编号, authority: street}
  area: {label: 社区代码, authority: street}
  name: {label: 姓名, authority: street}
  phone: {label: 手机号, authority: community}
"""
NAMES = ("id", "area", "name", "phone")
SECONDS = 1
"""After so long a silence the systems here are given up."""
TOKEN = "FEDSYNC_TEST_STREET_TOKEN"
Row = dict[str, str | None]


class Street(ABC):
    """The system behind the proxy. `place`: where it really listens. `atomic`: a batch arrives whole or not at all."""

    place: tuple[str, int]
    atomic: ClassVar[bool] = True
    commits: ClassVar[bytes] = b"COMMIT"
    """What the client says when it makes its writes last."""

    @abstractmethod
    def declared(self, port: int) -> dict[str, Any]:
        """The system as declared, reached through this port."""

    @abstractmethod
    def put(self, rows: list[Row]) -> None: ...

    @abstractmethod
    def drop(self, key: str) -> None: ...

    @abstractmethod
    def rows(self) -> list[Row]: ...

    def locked(self) -> AbstractContextManager[None]:
        """Somebody of the street's people locks the table."""
        raise NotImplementedError


class Postgres(Street):
    def __init__(self, schema: str) -> None:
        self.schema = schema
        url = make_url(postgres_url())
        self.url, self.place = url, (url.host or "127.0.0.1", url.port or 5432)
        self.people = psycopg.connect(postgres_url(), autocommit=True)
        self.people.execute(
            f"CREATE TABLE {schema}.people (id text PRIMARY KEY, area text NOT NULL, name text, phone text)"
        )

    def declared(self, port: int) -> dict[str, Any]:
        url = self.url.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
        return {
            "connector": "sql",
            "options": {"url": url, "schema_name": self.schema, "table": "people"},
        }

    def put(self, rows: list[Row]) -> None:
        with self.people.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO {self.schema}.people VALUES (%(id)s, %(area)s, %(name)s, %(phone)s) "
                "ON CONFLICT (id) DO UPDATE SET name = excluded.name, phone = excluded.phone",
                rows,
            )

    def drop(self, key: str) -> None:
        self.people.execute(f"DELETE FROM {self.schema}.people WHERE id = %s", (key,))

    def rows(self) -> list[Row]:
        found = self.people.execute(f"SELECT id, area, name, phone FROM {self.schema}.people").fetchall()
        return [dict(zip(NAMES, row)) for row in found]

    @contextmanager
    def locked(self) -> Iterator[None]:
        with self.people.transaction():
            self.people.execute(f"LOCK TABLE {self.schema}.people IN ACCESS EXCLUSIVE MODE")
            yield


class Maria(Street):
    def __init__(self, database: str) -> None:
        self.url = make_url(mysql_url()).set(database=database)
        self.place = (self.url.host or "127.0.0.1", self.url.port or 3306)
        self.people = mysql_connection(self.url.render_as_string(hide_password=False))
        self._run(
            "CREATE TABLE people (id varchar(40) PRIMARY KEY, area varchar(12) NOT NULL, name text, phone text) "
            "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
        )

    def declared(self, port: int) -> dict[str, Any]:
        url = self.url.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
        return {"connector": "sql", "options": {"url": url, "table": "people"}}

    def put(self, rows: list[Row]) -> None:
        for row in rows:
            self._run(
                "INSERT INTO people VALUES (%(id)s, %(area)s, %(name)s, %(phone)s) "
                "ON DUPLICATE KEY UPDATE name = VALUES(name), phone = VALUES(phone)",
                row,
            )

    def drop(self, key: str) -> None:
        self._run("DELETE FROM people WHERE id = %s", (key,))

    def rows(self) -> list[Row]:
        return [dict(zip(NAMES, row)) for row in self._run("SELECT id, area, name, phone FROM people")]

    @contextmanager
    def locked(self) -> Iterator[None]:
        self._run("LOCK TABLES people WRITE")
        try:
            yield
        finally:
            self._run("UNLOCK TABLES")

    def _run(self, statement: str, given: Any = None) -> list[Any]:
        with self.people.cursor() as cursor:
            cursor.execute(statement, given)
            return list(cursor.fetchall())


class Rest(Street):
    atomic = False
    commits = b"PATCH "

    def __init__(self, platform: StreetPlatform) -> None:
        self.platform = platform
        self.place = ("127.0.0.1", int(platform.url.rsplit(":", 1)[1]))

    def declared(self, port: int) -> dict[str, Any]:
        options = {
            "base_url": f"http://127.0.0.1:{port}",
            "token": {"env": TOKEN},
            "path": "/api/people",
            "records": "records",
            "omits_nulls": True,
            "paging": {"kind": "offset", "parameter": "offset", "size_parameter": "limit", "size": 100, "total": "count"},
            "state": {"path": "/api/people/-/state", "field": "version"},
            "upsert": {"method": "PATCH"},
            "delete": {"method": "DELETE"},
            "requests_per_second": None,
        }  # fmt: skip
        return {"connector": "rest", "options": options}

    def put(self, rows: list[Row]) -> None:
        for row in rows:
            self.platform.records.put("people", str(row["id"]), dict(row), merge=True)

    def drop(self, key: str) -> None:
        self.platform.records.delete("people", key)

    def rows(self) -> list[Row]:
        found, _ = self.platform.records.page("people", offset=0, limit=10**6)
        return [{name: body.get(name) for name in NAMES} for _, body, _ in found]


class Pair:
    """The link at work. `wanted`: what both ends must hold once everything is quiet, by key."""

    def __init__(self, folder: Path, street: Street, proxy: Proxy, options: dict[str, Any]) -> None:
        self.street = street
        self.proxy = proxy
        self.ledger = folder / "community.db"
        self.wanted: dict[str, Row] = {}
        self.shared: set[str] = set()
        platform = street.declared(proxy.port)
        platform["options"].update(options)
        declared = {
            "name": "pair",
            "datasets": "datasets/*.yaml",
            "systems": {
                "platform": platform,
                "ledger": {"connector": "sql", "options": {"url": f"sqlite:///{self.ledger}", "create": True}},
            },
            "nodes": [
                {"system": "platform", "level": "street", "datasets": {"people": {}}},
                {"system": "ledger", "level": "community", "datasets": {"people": {}}},
            ],
        }
        files = {"regions.csv": REGIONS, "datasets/people.yaml": PEOPLE, "federation.yaml": yaml.safe_dump(declared)}
        written(folder, files)
        self.federation: Federation = open_federation(folder)

    def sync(self) -> FedsyncError | None:
        """One run of the link; its error, if it had one."""
        found = self.federation.sync_parent("people", STREET).errors
        return next(iter(found.values()), None)

    def begin(self, count: int = 300) -> None:
        """Let the street have records, and settle."""
        self.above([person(number) for number in range(count)])
        assert self.sync() is None
        self.assert_equal()

    def above(self, rows: list[Row]) -> None:
        """The street's people write whole records."""
        self.street.put(rows)
        self.wanted.update({str(row["id"]): row for row in rows})

    def below(self, rows: list[Row]) -> None:
        """The community's people write: new records, or the phone of one that they have."""
        with sqlite3.connect(self.ledger) as connection:
            for row in rows:
                known = connection.execute("UPDATE people SET phone = :phone WHERE id = :id", row).rowcount
                if not known:
                    connection.execute(
                        "INSERT INTO people (id, area, name, phone) VALUES (:id, :area, :name, :phone)", row
                    )
                self.wanted[str(row["id"])] = {**row, "name": self.wanted.get(str(row["id"]), row)["name"]}
        connection.close()

    def edit(self, mark: str, count: int = 12) -> None:
        """Something of everything: names above, phones below, new records at both ends, one deleted above.

        Edited is only what both ends had when they were last equal: nobody edits a record that has not come to him.
        """
        known = sorted(self.shared & self.wanted.keys())
        self.above([{**self.wanted[key], "name": f"{mark}上"} for key in known[:count]])
        self.below([{**self.wanted[key], "phone": f"{mark}下"} for key in known[count : 2 * count]])
        self.above([person(f"{mark}a{number}") for number in range(count)])
        self.below([person(f"{mark}b{number}", phone=f"{mark}下") for number in range(count)])
        self.street.drop(known[-1])
        del self.wanted[known[-1]]

    def arrived(self, mark: str) -> int:
        """How many rows of the street carry what the community's people wrote."""
        return sum(row["phone"] == f"{mark}下" for row in self.street.rows())

    def heal(self) -> None:
        """The network is sound again, and nobody waits any longer before he tries."""
        self.proxy.calm()
        breaker.forget()

    def assert_equal(self) -> None:
        """Both ends hold exactly what is wanted: nothing lost, nothing twice; and there is nothing left to do."""
        with sqlite3.connect(self.ledger) as connection:
            below = [dict(zip(NAMES, row)) for row in connection.execute("SELECT id, area, name, phone FROM people")]
        connection.close()
        for rows in (self.street.rows(), below):
            assert len(rows) == len({row["id"] for row in rows}), "a record stands twice"
            assert {row["id"]: row for row in rows} == self.wanted
        assert self.federation.services.corrections.active("people") == [], "a delivery was taken for somebody's edit"
        assert self.federation.services.quarantine.open_items(dataset="people") == []
        self.shared = set(self.wanted)

    def assert_settled(self) -> None:
        """One run brings everything home; a second, over all keys, finds nothing to do."""
        assert (error := self.sync()) is None, str(error)
        self.assert_equal()
        again = self.federation.sync_parent("people", STREET, force_full=True)
        assert not again.errors and again.moved == 0


def person(number: object, phone: str | None = None) -> Row:
    return {
        "id": f"P{number:04}" if isinstance(number, int) else f"P{number}",
        "area": COMMUNITY,
        "name": f"居民{number}" + "甲乙丙丁" * 12,
        "phone": phone,
    }


@contextmanager
def paired(kind: str, folder: Path, **options: Any) -> Iterator[Pair]:
    """A link to a street's `postgres`, `mariadb` or `rest`, declared with these options."""
    with street_of(kind, folder) as street, Proxy(*street.place) as proxy:
        pair = Pair(folder, street, proxy, {"timeout": [SECONDS, SECONDS] if kind == "rest" else SECONDS, **options})
        try:
            yield pair
        finally:
            pair.federation.close()


@contextmanager
def street_of(kind: str, folder: Path) -> Iterator[Street]:
    if kind == "postgres":
        with postgres_schema() as schema:
            found = Postgres(schema)
            with found.people:
                yield found
    elif kind == "mariadb":
        with mysql_database() as database:
            maria = Maria(database)
            try:
                yield maria
            finally:
                maria.people.close()
    else:
        os.environ[TOKEN] = "token"
        with StreetPlatform(folder, "token", datasets=("people",)) as platform:
            assert isinstance(platform, StreetPlatform)
            yield Rest(platform)
