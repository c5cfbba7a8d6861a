"""Another parent, a pause, one more community: on tables of a live PostgreSQL, in which the people of each node write for themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from federation.federation import Federation
from federation.pausing import pause_of
from federation.runtime import open_federation
from tests.federations import (
    CITY,
    E11,
    E12,
    EAST,
    EAST_1,
    EAST_2,
    REGIONS,
    RESIDENT,
    SUITE,
    VISIT,
    WEST,
    WEST_1,
    written,
)
from tests.servers import postgres_schema, postgres_url

TOP = """
name: postgres
systems:
  tables: {{connector: sql, options: {{url: "{url}", schema_name: "{schema}", table: "r_{{region}}", create: true, capture: log}}}}
nodes:
  - {{system: tables, level: city, datasets: {{resident: {{}}}}}}
  - {{system: tables, level: district, datasets: {{resident: {{}}}}}}
  - {{system: tables, level: street, datasets: {{resident: {{}}}}}}
  - {{system: tables, level: community, datasets: {{resident: {{}}}}}}
"""
NEW = "110101001003"


class Tables:
    """A federation whose nodes are tables of one schema. `people` works as the system's own people do."""

    def __init__(self, folder: Path, schema: str, people: psycopg.Connection[Any]) -> None:
        self.folder, self.schema, self.people = folder, schema, people
        files = {
            "federation.yaml": TOP.format(url=postgres_url(), schema=schema),
            "regions.csv": REGIONS,
            "datasets/resident.yaml": RESIDENT,
            "datasets/visit.yaml": VISIT,
            "expectations/resident.json": SUITE,
        }
        written(folder, files)
        self.federation: Federation = open_federation(folder)

    def run(self, statement: str, region: str, *given: Any) -> list[tuple[Any, ...]]:
        table = sql.Identifier(self.schema, f"r_{region}")
        found = self.people.execute(sql.SQL(statement).format(table), given)  # type: ignore[arg-type]
        return list(found.fetchall()) if found.description else []

    def enter(self, key: str, community: str) -> None:
        columns = "resident_id, name, id_number, community_code, phone, care_level"
        row = (key, "王伟", "1", community, "13800000000", "无")
        self.run(f"INSERT INTO {{}} ({columns}) VALUES (%s, %s, %s, %s, %s, %s)", CITY, *row)

    def set(self, region: str, key: str, column: str, value: str) -> None:
        self.run(f"UPDATE {{}} SET {column} = %s WHERE resident_id = %s", region, value, key)

    def get(self, region: str, key: str, column: str = "resident_id") -> Any:
        found = self.run(f"SELECT {column} FROM {{}} WHERE resident_id = %s", region, key)
        return found[0][0] if found else None

    def holders(self, key: str) -> set[str]:
        return {region.code for region in self.federation.config.tree if self.get(region.code, key) is not None}

    def sync(self, **options: Any) -> Any:
        result = self.federation.cascade("resident", **options)
        assert not result.errors, {link: str(error) for link, error in result.errors.items()}
        return result

    def regions(self, old: str, new: str) -> None:
        path = self.folder / "regions.csv"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
        self.federation.close()
        self.federation = open_federation(self.folder)


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Tables]:
    with postgres_schema() as schema, psycopg.connect(postgres_url(), autocommit=True) as people:
        made = Tables(tmp_path, schema, people)
        with made.federation.node("resident", CITY) as city:
            city.prepare()
        for number in range(30):
            made.enter(f"A{number}", E12)
        made.enter("B0", E11)
        made.sync()
        yield made
        made.federation.close()


@pytest.mark.parametrize(("parent", "path"), [(EAST_2, {CITY, EAST, EAST_2, E12}), (WEST_1, {CITY, WEST, WEST_1, E12})])
def test_a_community_under_another_street_keeps_its_rows_untouched_and_loses_no_edit(
    tables: Tables, parent: str, path: set[str]
) -> None:
    tables.set(E12, "A1", "phone", "13911111111")
    tables.federation.sync_parent("resident", EAST_1)
    tables.set(E12, "A2", "phone", "13922222222")
    tables.set(CITY, "A3", "name", "李娜")
    tables.run("DELETE FROM {} WHERE resident_id = %s", CITY, "A4")
    before = dict(tables.run("SELECT resident_id, xmin::text FROM {}", E12))
    tables.regions(f"{E12},银闸社区,community,{EAST_1}", f"{E12},银闸社区,community,{parent}")
    tables.sync()
    after = dict(tables.run("SELECT resident_id, xmin::text FROM {}", E12))
    assert {key for key in before if after.get(key) != before[key]} == {"A3", "A4"}
    assert {tables.get(region, "A1", "phone") for region in path} == {"13911111111"}
    assert {tables.get(region, "A2", "phone") for region in path} == {"13922222222"}
    assert {tables.get(region, "A3", "name") for region in path} == {"李娜"}
    assert tables.holders("A4") == set()
    assert tables.holders("A0") == path
    assert tables.holders("B0") == {CITY, EAST, EAST_1, E11}
    assert tables.sync(force_full=True).moved == 0
    assert tables.federation.services.corrections.active() == []


def test_one_more_community_is_seeded_by_the_next_sync(tables: Tables) -> None:
    tables.enter("N1", NEW)
    tables.sync()
    tables.regions(f"{E12},", f"{NEW},新怡社区,community,{EAST_1}\n{E12},")
    assert tables.federation.sweep("resident").parents["street"] == [EAST_1]
    tables.sync()
    assert tables.holders("N1") == {CITY, EAST, EAST_1, NEW}
    assert tables.sync(force_full=True).moved == 0


def test_a_paused_region_catches_up_from_its_change_tables(tables: Tables) -> None:
    services = tables.federation.services
    pause_of(services, "region", EAST_1, "检修", None, "test")
    full = services.links.all("resident")[f"resident/{E12}"].last_full
    tables.set(CITY, "A1", "name", "李娜")
    tables.set(E12, "A2", "phone", "13922222222")
    tables.run("DELETE FROM {} WHERE resident_id = %s", CITY, "A4")
    tables.sync()
    assert tables.get(E12, "A1", "name") == "王伟"
    services.pauses.resume("region", EAST_1, "test")
    tables.sync()
    assert tables.get(E12, "A1", "name") == "李娜"
    assert tables.get(CITY, "A2", "phone") == "13922222222"
    assert tables.holders("A4") == set()
    assert services.links.all("resident")[f"resident/{E12}"].last_full == full
