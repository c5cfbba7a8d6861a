"""What no cursor and no trigger tells of, on real servers: a city on PostgreSQL with a change table, a district on MariaDB with a cursor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
import yaml

from connectors.sql import SqlConnector
from federation.federation import Federation
from federation.reconcile import Comparison, Reconciler
from federation.runtime import open_federation
from tests.servers import mysql_connection, mysql_database, mysql_url, postgres_schema, postgres_url

CITY, DISTRICT = "110000000000", "110101000000"
REGIONS = f"code,name,level,parent\n{CITY},北京市,city,\n{DISTRICT},东城区,district,{CITY}\n"
FIELDS: dict[str, dict[str, Any]] = {
    "id": {"authority": "city"},
    "area": {"authority": "city"},
    "name": {"authority": "city"},
    "born": {"authority": "city", "type": "date"},
    "income": {"authority": "city", "type": "decimal"},
    "secret": {"authority": "city", "visible": ["city"]},
    "phone": {"authority": "district"},
    "visits": {"authority": "district", "type": "int"},
    "seen_at": {"authority": "district", "type": "timestamp"},
}
PEOPLE = {
    "name": "people",
    "label": "人员",
    "levels": ["city", "district"],
    "key": ["id"],
    "jurisdiction": "area",
    "originates": ["city"],
    "fields": {name: {"label": name, **spec} for name, spec in FIELDS.items()},
}
SAME = "id varchar(20) PRIMARY KEY, area varchar(12), name varchar(50), born date, income numeric(12,2), phone varchar(20), visits int"


class World:
    """Both tables, as their own people and administrators reach them."""

    def __init__(self, folder: Path, closing: ExitStack) -> None:
        self.postgres = closing.enter_context(psycopg.connect(postgres_url(), autocommit=True))
        self.mysql: pymysql.Connection[Any] = closing.enter_context(mysql_connection(mysql_url()))
        schema, database = closing.enter_context(postgres_schema()), closing.enter_context(mysql_database())
        self.tables = {"city": f"{schema}.people", "district": f"{database}.people"}
        self.run("city", f"CREATE TABLE {self.tables['city']} ({SAME}, secret text, seen_at timestamptz)")
        self.run(
            "district",
            f"CREATE TABLE {self.tables['district']} ({SAME}, seen_at datetime(6), changed datetime(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)) COLLATE utf8mb4_bin",
        )
        systems = {
            "city": {"url": postgres_url(), "schema_name": schema, "capture": "log"},
            "district": {
                "url": mysql_url(),
                "schema_name": database,
                "capture": "cursor",
                "cursor_column": "changed",
                "overlap_seconds": 0,
                "cheap_sweep": False,
            },
        }
        top = {
            "name": "pair",
            "systems": {level: {"connector": "sql", "options": told} for level, told in systems.items()},
            "nodes": [{"system": level, "level": level, "datasets": {"people": {}}} for level in systems],
        }
        files = {"federation.yaml": top, "datasets/people.yaml": PEOPLE}
        for name, told in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(yaml.safe_dump(told, allow_unicode=True), encoding="utf-8")
        (folder / "regions.csv").write_text(REGIONS, encoding="utf-8")
        self.federation: Federation = open_federation(folder)

    def run(self, level: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with (self.postgres if level == "city" else self.mysql).cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall()) if cursor.description else []

    def fill(self, rows: int) -> None:
        self.run(
            "city",
            f"INSERT INTO {self.tables['city']} SELECT 'P' || i, '{DISTRICT}', '居民' || i, date '1980-01-01' + i, i + 0.5, '138' || i, i % 7, 'geheim', timestamptz '1989-12-31 23:00+08' + i * interval '77 days' FROM generate_series(1, {rows}) i",
        )
        self.sync()

    def sync(self) -> None:
        result = self.federation.cascade("people")
        assert not result.errors, {link: str(error) for link, error in result.errors.items()}

    def reconcile(self, *, repair: bool = True) -> Comparison:
        (told,) = Reconciler(self.federation, repair=repair, tell_keys=True, actor="test").parent("people", CITY)
        assert told.error is None, str(told.error)
        return told

    def value(self, level: str, key: str, name: str) -> Any:
        found = self.run(level, f"SELECT {name} FROM {self.tables[level]} WHERE id = %s", key)
        return found[0][0] if found else None


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as closing:
        yield World(tmp_path, closing)


def test_two_kinds_of_servers_that_agree_read_no_record(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.fill(300)
    monkeypatch.setattr(SqlConnector, "changes", lambda *_, **__: pytest.fail("the table was read"))
    monkeypatch.setattr(SqlConnector, "fetch", lambda *_: pytest.fail("a record was read"))
    told = world.reconcile()
    assert (told.rows, told.differed) == (300, 0)


def test_a_change_made_with_triggers_off_is_found_and_carried(world: World) -> None:
    world.fill(300)
    world.run("city", "SET session_replication_role = replica")
    world.run("city", f"UPDATE {world.tables['city']} SET name = '改名' WHERE id IN ('P7', 'P8')")
    world.run("city", f"DELETE FROM {world.tables['city']} WHERE id = 'P9'")
    world.sync()
    assert world.value("district", "P7", "name") == "居民7", "no cursor tells of it: else this test says nothing"
    told = world.reconcile()
    assert (told.found, told.repaired) == ({"missing_below": 0, "missing_above": 1, "differing": 2}, 3)
    assert world.value("district", "P7", "name") == "改名"
    assert world.value("district", "P9", "name") is None
    assert world.reconcile().differed == 0


def test_a_commit_that_came_later_than_its_stamp_is_found_and_carried(world: World) -> None:
    world.fill(300)
    world.run(
        "district",
        f"UPDATE {world.tables['district']} SET phone = '139', changed = changed - INTERVAL 1 DAY WHERE id = 'P5'",
    )
    world.sync()
    assert world.value("city", "P5", "phone") == "1385", "no cursor tells of it: else this test says nothing"
    assert world.reconcile(repair=False).found["differing"] == 1
    assert world.reconcile().repaired == 1
    assert world.value("city", "P5", "phone") == "139"


def test_a_backup_that_was_restored_is_brought_up_to_date(world: World) -> None:
    world.fill(300)
    name = world.tables["district"]
    world.run("district", f"CREATE TABLE {name}_backup AS SELECT * FROM {name}")
    world.run("city", f"UPDATE {world.tables['city']} SET income = 1 WHERE visits = 3")
    world.run("city", f"INSERT INTO {world.tables['city']} (id, area, name) VALUES ('N1', '{DISTRICT}', '新来')")
    world.sync()
    world.run("district", f"DELETE FROM {name}")
    world.run("district", f"INSERT INTO {name} SELECT * FROM {name}_backup")
    told = world.reconcile()
    assert told.found == {"missing_below": 1, "missing_above": 0, "differing": 43}
    assert (told.repaired, told.unexplained) == (44, 0)
    assert world.value("district", "N1", "name") == "新来"
    assert world.run("district", f"SELECT count(*) FROM {name} WHERE income = 1") == [(43,)]


def test_what_the_city_alone_sees_is_no_difference(world: World) -> None:
    world.fill(30)
    world.run("city", "SET session_replication_role = replica")
    world.run("city", f"UPDATE {world.tables['city']} SET secret = 'neu'")
    assert world.reconcile().differed == 0
