"""A federation that needs no shared disk: nodes in PostgreSQL (city, districts) and SQLite (streets), ledger and hosted records in
PostgreSQL, staging and baselines in an S3-compatible store, the secret from the environment."""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import make_url

from federation.federation import Federation
from federation.runtime import open_federation
from tests.federations import CITY, EAST, EAST_1, EAST_2, REGIONS, WEST, WEST_1, written

STREETS = (EAST_1, EAST_2, WEST_1)
RESIDENT = """
name: resident
label: 居民
levels: [city, district, street]
key: [resident_id]
jurisdiction: street_code
originates: [city]
schedule: "0 0 29 2 *"
fields:
  resident_id: {label: 居民编号, authority: city}
  street_code: {label: 街道代码, authority: city}
  name: {label: 姓名, authority: city, sensitivity: personal}
  phone: {label: 手机号, authority: street}
"""
TOP = """
name: three
ledger: {env: THREE_LEDGER}
secret: {env: THREE_SECRET}
STORAGE
systems:
  registry: {connector: sql, options: {url: {env: THREE_DATABASE}, table: "resident_{region}", create: true}}
  west: {connector: sql, options: {url: {env: THREE_WEST}, table: "resident_{region}", create: true}}
  streets: {connector: sql, options: {url: "sqlite:///FOLDER/{region}.db", table: "resident_{region}", create: true}}
nodes:
  - {system: registry, regions: ["CITY", "EAST"], datasets: {resident: {}}}
  - {system: west, regions: ["WEST"], datasets: {resident: {}}}
  - {system: streets, level: street, datasets: {resident: {}}}
"""
S3 = """storage: {url: "s3://BUCKET/fedsync", options: {key: {env: THREE_S3_KEY}, secret: {env: THREE_S3_SECRET}, endpoint_url: "ENDPOINT"}}"""


class ThreeLevels:
    """The declaration, the people at its nodes, and the environment that its processes need. `west`: a role of West's own."""

    def __init__(self, folder: Path, database: str, endpoint: str | None = None, bucket: str = "") -> None:
        self.folder, self.database = folder, database
        self.west = f"fedsync_west_{uuid.uuid4().hex[:8]}"
        west = make_url(database).set(username=self.west, password="west")
        self.environment = {
            "THREE_LEDGER": database,
            "THREE_SECRET": "geheim" * 6,
            "THREE_DATABASE": database,
            "THREE_WEST": west.render_as_string(hide_password=False),
            "THREE_S3_KEY": "k",
            "THREE_S3_SECRET": "s",
        }
        storage = S3.replace("BUCKET", bucket).replace("ENDPOINT", endpoint) if endpoint else ""
        top = TOP.replace("STORAGE", storage).replace("FOLDER", str(folder / "systems"))
        for name, code in (("CITY", CITY), ("EAST", EAST), ("WEST", WEST)):
            top = top.replace(f'"{name}"', f'"{code}"')
        written(folder, {"regions.csv": REGIONS, "datasets/resident.yaml": RESIDENT, "federation.yaml": top})
        (folder / "systems").mkdir()
        self.declaration = folder / "federation.yaml"
        self.execute(f"CREATE ROLE {self.west} LOGIN PASSWORD 'west'")
        self.execute(f"GRANT ALL ON SCHEMA public TO {self.west}")

    def open(self) -> Federation:
        return open_federation(self.declaration)

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database, autocommit=True) as connection:
            done = connection.execute(statement, values)  # type: ignore[arg-type]
            return done.fetchall() if done.description else []

    def end(self) -> None:
        self.execute(f"DROP OWNED BY {self.west}")
        self.execute(f"DROP ROLE {self.west}")

    def resident(self, key: str, street: str, name: str) -> None:
        """The city enters a record."""
        self.execute(
            f"INSERT INTO resident_{CITY} (resident_id, street_code, name) VALUES (%s, %s, %s)", key, street, name
        )

    def rename(self, key: str, name: str) -> None:
        self.execute(f"UPDATE resident_{CITY} SET name = %s WHERE resident_id = %s", name, key)

    def phone(self, street: str, key: str, phone: str) -> None:
        """A street's people edit what is theirs."""
        with closing(sqlite3.connect(self.folder / "systems" / f"{street}.db")) as connection, connection:
            connection.execute(f"UPDATE resident_{street} SET phone = ? WHERE resident_id = ?", (phone, key))

    def rows(self, region: str) -> dict[str, tuple[Any, ...]]:
        """Key → street, name, phone, as the node's system holds them."""
        chosen = f"SELECT resident_id, street_code, name, phone FROM resident_{region}"
        if region in STREETS:
            with closing(sqlite3.connect(self.folder / "systems" / f"{region}.db")) as connection:
                found = connection.execute(chosen).fetchall()
        else:
            found = self.execute(chosen)
        rows = {row[0]: tuple(row[1:]) for row in found}
        assert len(rows) == len(found), "nothing is doubled"
        return rows

    def assert_equal(self, but: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        """Each node holds exactly the city's records of its area."""
        whole = self.rows(CITY)
        for region, inside in (
            (EAST, {EAST_1, EAST_2}),
            (WEST, {WEST_1}),
            *((street, {street}) for street in STREETS),
        ):
            if region not in but:
                expected = {key: row for key, row in whole.items() if row[0] in inside}
                assert self.rows(region) == expected, region
