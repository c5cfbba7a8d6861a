"""Rows found by a value inside the database are those that reading everything finds, however a column keeps and compares its values."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from sqlalchemy import select

from connectors.base import having
from connectors.sql import SqlConnector
from federation.contract import Dataset
from tests.contract.dataset import LEVELS, REGION, make_node
from tests.servers import mysql_connection, mysql_database, mysql_url, postgres_schema, postgres_url

STEPS = [["trim"], [], ["trim", "halfwidth", "upper"], ["digits"], ["collapse", "lower"]]
WORDS = ["ab", "AB", "Ab ", " ab", "\tab", "ab\u3000", "ａｂ", "a b", "a  b", "a-b", "(ab)", "é", "e\u0301", "É", "K", "\u212a", "王", "王 ", "Ⅳ", "ß", "ss", "ｶﾞ", "7", "07", "7.0", "-7", "", " ", "o'b\\%_", "１２", "12", "ſ"]  # fmt: skip
NUMBERS = ["7", "07", "7.0", " 7", "７", "-7", "+7", "7.5", "x", "9223372036854775807", "0"]
DAYS = ["2026-01-31", "2026/1/31", "20260131", "2026年1月31日", "2026-01-31 08:00:00", " 2026-01-31", "2026-01-30", "0001-01-01", "x"]  # fmt: skip


def dataset(**field: Any) -> Dataset:
    fields = {"id": {"authority": "city"}, "area": {"authority": "city"}, "x": {"authority": "city", **field}}
    return Dataset.model_validate(
        {
            "name": "thing",
            "label": "物",
            "levels": LEVELS,
            "key": ["id"],
            "jurisdiction": "area",
            "originates": ["city"],
            "fields": {name: {"label": name, **spec} for name, spec in fields.items()},
        }
    )


class Place:
    """One database. `fill`: a table with such a column and these values, as far as the column takes them."""

    def __init__(self, options: dict[str, Any], say: Any, mark: str, of: str) -> None:
        self.options, self.say, self.mark, self.of = options, say, mark, of

    def fill(self, kind: str, values: list[Any], key: str = "varchar(20) PRIMARY KEY") -> None:
        self.say(f"DROP TABLE IF EXISTS {self.of}", ())
        self.say(f"CREATE TABLE {self.of} (id {key}, area varchar(12), x {kind})", ())
        for number, value in enumerate([*values, None]):
            try:
                self.say(
                    f"INSERT INTO {self.of} VALUES ({', '.join([self.mark] * 3)})", (f"{number}", REGION.code, value)
                )
            except Exception:
                continue  # the column takes no such value

    def connector(self, of: Dataset) -> SqlConnector:
        return SqlConnector(make_node(of, {"table": "things", **self.options}))


@contextmanager
def postgres() -> Iterator[Place]:
    with (
        postgres_schema() as schema,
        psycopg.connect(postgres_url(), autocommit=True, prepare_threshold=None) as people,
    ):
        people.execute(f"SET search_path = {schema}")
        people.execute(
            "CREATE COLLATION nobody_cares (provider = icu, locale = 'und-u-ks-level1', deterministic = false)"
        )
        people.execute("CREATE TYPE word AS ENUM ('ab', 'AB', '王')")
        yield Place({"url": postgres_url(), "schema_name": schema}, people.execute, "%s", "things")


@contextmanager
def mariadb() -> Iterator[Place]:
    with mysql_database() as schema, mysql_connection(mysql_url()) as people, people.cursor() as cursor:
        people.autocommit(True)
        yield Place({"url": mysql_url(), "schema_name": schema}, cursor.execute, "%s", f"`{schema}`.things")


@contextmanager
def sqlite(folder: Path) -> Iterator[Place]:
    path = folder / "people.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as people:
        yield Place({"url": f"sqlite:///{path}"}, people.execute, "?", "things")


@pytest.fixture(scope="module", params=["postgres", "mariadb", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Place]]:
    opened = {"postgres": postgres, "mariadb": mariadb, "sqlite": lambda: sqlite(tmp_path_factory.mktemp("people"))}
    with opened[request.param]() as found:
        yield request.param, found


TEXTS = {
    "postgres": ["text", "varchar(20)", "char(20)", "text COLLATE nobody_cares", "integer", "word", "numeric", "json", "bytea"],
    "mariadb": ["text", "varchar(20) COLLATE utf8mb4_bin", "varchar(20) COLLATE utf8mb4_unicode_ci", "char(20)", "varchar(20) CHARACTER SET latin1", "varchar(20) CHARACTER SET gbk", "int(6) ZEROFILL", "enum('ab', 'AB', '王') COLLATE utf8mb4_bin", "decimal(9,1)", "varbinary(20)"],
    "sqlite": ["", "TEXT", "TEXT COLLATE NOCASE", "INTEGER", "REAL", "BLOB"],
}  # fmt: skip
OTHERS = {
    "int": {
        "postgres": ["integer", "smallint", "bigint", "numeric", "numeric(20,2)", "double precision", "text"],
        "mariadb": ["int", "tinyint", "bigint", "decimal(20,2)", "double", "varchar(30)", "int ZEROFILL", "year"],
        "sqlite": ["", "INTEGER", "TEXT", "REAL"],
    },
    "date": {
        "postgres": ["date", "timestamp", "timestamptz", "text"],
        "mariadb": ["date", "datetime", "timestamp NULL", "varchar(30)"],
        "sqlite": ["", "DATE", "TEXT", "INTEGER"],
    },
}
CASES = [
    *(("string", {"normalise": steps}, "text") for steps in STEPS),
    ("enum", {"values": ["ab", "AB", "王", "7"]}, "text"),
    *((kind, {}, kind) for kind in OTHERS),
]


@pytest.mark.parametrize(("type_", "spec", "columns"), CASES, ids=lambda case: str(case))
def test_what_the_database_finds_is_what_reading_everything_finds(
    place: tuple[str, Place], type_: str, spec: dict[str, Any], columns: str
) -> None:
    name, database = place
    values = {"int": NUMBERS, "date": DAYS}.get(type_, WORDS)
    mixed = [7, 7.0, 7.5, -7, b"ab", b"7", 20260131] if name == "sqlite" else []
    met = 0
    for kind in TEXTS[name] if columns == "text" else OTHERS[type_][name]:
        database.fill(kind, [*values, *mixed])
        connector = database.connector(dataset(type=type_, **spec))
        rows = connector.changes(None).rows
        there = rows.column("x").unique().drop_null()
        for asked in (there, *(there.slice(at, 1) for at in range(len(there)))):
            wanted, found = having(rows, "x", asked), connector.holding("x", asked)
            assert sorted(found.column("id").to_pylist()) == sorted(wanted.column("id").to_pylist()), (kind, asked)
        met += len(there)
    assert met > 10


def test_where_a_key_may_stand_twice_a_row_that_is_one_of_two_is_not_found(place: tuple[str, Place]) -> None:
    _, database = place
    database.fill("varchar(20)", ["ab", "cd", "ab"], key="varchar(20)")
    database.say(f"UPDATE {database.of} SET id = '0' WHERE x = 'cd'", ())
    found = database.connector(dataset()).holding("x", pa.array(["ab"]))
    assert found.column("id").to_pylist() == ["2"]


def test_two_indexes_serve_a_look_up_of_text_on_postgres() -> None:
    told = (Path(__file__).parents[2] / "docs/databases.md").read_text(encoding="utf-8")
    indexes = [line.strip(";") for line in told.splitlines() if line.startswith("CREATE INDEX ON residents")]
    with postgres() as database:
        database.fill("varchar(20)", ["ab", " ab"])
        for number, index in enumerate(indexes):
            database.say(
                index.replace("INDEX", f"INDEX i{number}").replace("residents", "things").replace("phone", "x"), ()
            )
        connector, of = database.connector(dataset()), dataset().fields["x"]
        with connector._reading() as connection:
            column = connector._column(connection, "x")
            asked = select(column.table).where(connector._database.holding(column, of, pa.array(["ab"])))
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            written = asked.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
            plan = str(connection.exec_driver_sql(f"EXPLAIN {written}").fetchall())
    assert "on i0" in plan and "on i1" in plan and "Filter" not in plan


def test_no_more_is_read_than_the_value_asks_for(place: tuple[str, Place], monkeypatch: pytest.MonkeyPatch) -> None:
    _, database = place
    database.fill("varchar(20)", ["ab", "cd", "王", "3"])
    monkeypatch.setattr(SqlConnector, "changes", lambda *_, **__: pytest.fail("everything was read"))
    found = database.connector(dataset()).holding("x", pa.array(["王", "ab"]))
    assert sorted(found.column("id").to_pylist()) == ["0", "2"]
    database.fill("integer", [7, 8, -1])
    found = database.connector(dataset(type="int")).holding("x", pa.array([-1, 2**62, -(2**63)]))
    assert found.column("id").to_pylist() == ["2"]
