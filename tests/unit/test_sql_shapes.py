"""Tables as they are found in the field, on a live PostgreSQL and a live MariaDB: views, schemas, generated columns, read-only replicas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from connectors import sql_postgres
from connectors.base import Batch, Changes, no_keys
from connectors.sql import SqlConnector
from federation.errors import AccessDenied, ConnectorError
from tests.contract.dataset import REGION, SAMPLE, make_node, row, table
from tests.servers import mysql_connection, mysql_database, mysql_url, postgres_schema, postgres_url

FIELDS = ("record_id", "community_code", "name", "note", "visits")
COLUMNS = {"record_id": "select", "name": "姓名", "note": "order"}


@dataclass
class Place:
    """A schema of the test's own. `run`: as the system's own people do."""

    kind: str
    schema: str
    url: str
    run: Callable[[str], list[tuple[Any, ...]]]

    def quoted(self, statement: str) -> str:
        """A statement written with double quotes, as this server takes it."""
        return statement if self.kind == "postgres" else statement.replace('"', "`")

    def connector(self, name: str, **options: Any) -> SqlConnector:
        schema = options.pop("schema_name", self.schema)
        given = {"url": self.url, "table": name, "schema_name": schema, **options}
        return SqlConnector(make_node(SAMPLE, given, fields=FIELDS, columns=COLUMNS))


@pytest.fixture(params=["postgres", "mariadb"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with ExitStack() as stack:
        if request.param == "postgres":
            schema = stack.enter_context(postgres_schema())
            people = stack.enter_context(psycopg.connect(postgres_url(), autocommit=True))
            people.execute(f"SET search_path = {schema}")  # type: ignore[call-overload]

            def run(statement: str) -> list[tuple[Any, ...]]:
                found = people.execute(statement)  # type: ignore[call-overload]
                return list(found.fetchall()) if found.description else []

            url = postgres_url()
        else:
            schema = stack.enter_context(mysql_database())
            server = make_url(mysql_url()).set(database=schema)
            url = server.render_as_string(hide_password=False)
            client = stack.enter_context(mysql_connection(url))

            def run(statement: str) -> list[tuple[Any, ...]]:
                with client.cursor() as cursor:
                    cursor.execute(statement)
                    return list(cursor.fetchall())

        made = Place(request.param, schema, url, run)
        made.run(
            made.quoted(
                'CREATE TABLE 居民 ("select" varchar(40) PRIMARY KEY, community_code varchar(12), "姓名" varchar(40), '
                '"order" varchar(200), visits integer, secret varchar(20))'
            )
        )
        yield made


def people_put(place: Place, key: str, note: str = "一") -> None:
    place.run(
        place.quoted('INSERT INTO 居民 ("select", community_code, "姓名", "order", visits) VALUES ')
        + f"('{key}', '{REGION.code}', '甲', '{note}', 1)"
    )


def notes(found: Changes) -> dict[str, str]:
    return dict(zip(found.rows.column("record_id").to_pylist(), found.rows.column("note").to_pylist()))


def write(connector: SqlConnector, *rows: dict[str, Any], deletes: tuple[str, ...] = ()) -> None:
    gone = table(SAMPLE, [{"record_id": key} for key in deletes]) if deletes else no_keys(connector.node)
    connector.apply(Batch((table(SAMPLE, list(rows)),) if rows else (), gone))


def held(place: Place) -> list[tuple[Any, ...]]:
    return place.run(place.quoted('SELECT "select", "order" FROM 居民 ORDER BY 1'))


def test_columns_of_any_name_in_a_schema_of_its_own_are_read_and_written(place: Place) -> None:
    people_put(place, "R1")
    connector = place.connector("居民")
    assert notes(connector.changes(None)) == {"R1": "一"}
    write(connector, row("R1", note="改"), row("R2", note="新"))
    write(connector, deletes=("R1",))
    assert held(place) == [("R2", "新")]


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
@pytest.mark.parametrize("odd", ["行\n行", "行\r行", "\ufeff前", '"引,号"', "长" * 190])
def test_a_text_of_several_lines_is_one_value_wherever_the_rows_are_cut(
    place: Place, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    monkeypatch.setattr(sql_postgres, "CHUNK", 3_000)
    monkeypatch.setattr(sql_postgres, "BLOCK", 400)
    rows = [row(f"R{number:03}", note=odd if number % 40 == 7 else "平") for number in range(200)]
    write(place.connector("居民"), *rows)
    assert notes(place.connector("居民").changes(None)) == {told["record_id"]: told["note"] for told in rows}


def test_the_connections_own_schema_counts_where_none_is_named(place: Place) -> None:
    people_put(place, "R1")
    if place.kind == "postgres":
        joint = "&" if "?" in place.url else "?"
        place.url = f"{place.url}{joint}options=-csearch_path%3D{place.schema}"
    assert notes(place.connector("居民", schema_name=None).changes(None)) == {"R1": "一"}


def test_a_view_is_read_with_keys_deletions_and_a_token(place: Place) -> None:
    people_put(place, "R1")
    people_put(place, "R2", "二")
    place.run(
        place.quoted(
            'CREATE VIEW 对外 AS SELECT "select", community_code, concat("姓名", \'女士\') AS "姓名", "order", visits FROM 居民'
        )
    )
    connector = place.connector("对外")
    before = connector.probe().token
    found = connector.changes(None)
    assert notes(found) == {"R1": "一", "R2": "二"}
    assert set(found.rows.column("name").to_pylist()) == {"甲女士"}
    assert found.present is not None and found.present.num_rows == 2
    asked = connector.fetch(table(SAMPLE, [{"record_id": "R2"}, {"record_id": "R9"}]))
    assert notes(asked) == {"R2": "二"} and asked.deleted.num_rows == 1
    people_put(place, "R3")
    assert connector.probe().token != before


def test_an_updatable_view_is_written_through_however_many_rows(place: Place) -> None:
    place.run(place.quoted('CREATE VIEW 登记 AS SELECT "select", community_code, "姓名", "order", visits FROM 居民'))
    people_put(place, "R0")
    connector = place.connector("登记")
    write(connector, row("R0", note="改"), row("R1", note="新"), deletes=("R9",))
    assert held(place) == [("R0", "改"), ("R1", "新")]
    write(connector, deletes=("R0", "R1"))
    write(connector, *(row(f"R{number:04d}", note="批") for number in range(1500)))
    assert len(held(place)) == 1500


def test_a_view_that_cannot_be_written_says_so_and_nothing_is_lost(place: Place) -> None:
    people_put(place, "R1")
    place.run(
        place.quoted(
            'CREATE VIEW 汇总 AS SELECT "select", community_code, max("姓名") AS "姓名", max("order") AS "order", '
            'max(visits) AS visits FROM 居民 GROUP BY "select", community_code'
        )
    )
    connector = place.connector("汇总")
    assert notes(connector.changes(None)) == {"R1": "一"}
    with pytest.raises(ConnectorError) as caught:
        write(connector, row("R1", note="改"))
    assert caught.value.where["table"] == "汇总" and caught.value.zh
    assert held(place) == [("R1", "一")]


def test_a_generated_column_is_read_and_never_written(place: Place) -> None:
    place.run(
        place.quoted(
            'CREATE TABLE 台账 (id integer GENERATED ALWAYS AS IDENTITY, "select" varchar(40) PRIMARY KEY, community_code varchar(12), '
            '"order" varchar(200), visits integer, doubled integer GENERATED ALWAYS AS (visits * 2) STORED, '
            '"姓名" varchar(80) GENERATED ALWAYS AS (upper("order")) STORED)'
            if place.kind == "postgres"
            else 'CREATE TABLE 台账 (id integer AUTO_INCREMENT UNIQUE, "select" varchar(40) PRIMARY KEY, community_code varchar(12), '
            '"order" varchar(200), visits integer, doubled integer GENERATED ALWAYS AS (visits * 2) STORED, '
            '"姓名" varchar(80) GENERATED ALWAYS AS (upper("order")) VIRTUAL)'
        )
    )
    connector = place.connector("台账")
    write(connector, row("R1", name="别的", note="abc", visits=1), row("R2", name="x", note="y"))
    write(connector, row("R1", name="又一个", note="abd", visits=2))
    found = connector.changes(None).rows
    assert dict(zip(found.column("record_id").to_pylist(), found.column("name").to_pylist())) == {
        "R1": "ABD",
        "R2": "Y",
    }
    assert place.run("SELECT id, doubled FROM 台账 ORDER BY id") == [(1, 4), (2, None)]


def test_a_key_that_the_database_numbers_itself_takes_the_numbers_that_it_is_given(place: Place) -> None:
    numbered = SAMPLE.model_copy(
        update={"fields": {**SAMPLE.fields, "record_id": SAMPLE.fields["record_id"].model_copy(update={"type": "int"})}}
    )
    kind = "integer GENERATED BY DEFAULT AS IDENTITY" if place.kind == "postgres" else "integer AUTO_INCREMENT"
    place.run(f"CREATE TABLE numbered (record_id {kind} PRIMARY KEY, community_code varchar(12), note varchar(20))")
    options = {"url": place.url, "table": "numbered", "schema_name": place.schema}
    fields = ("record_id", "community_code", "note")
    connector = SqlConnector(make_node(numbered, options, fields=fields))
    for note in ("一", "二"):
        rows = table(numbered, [{"record_id": 7, "community_code": REGION.code, "note": note}])
        connector.apply(Batch((rows,), no_keys(connector.node)))
    assert place.run("SELECT record_id, note FROM numbered") == [(7, "二")]


@pytest.mark.parametrize("kind", ["numeric(20)", "integer", "bigint"])
def test_small_and_large_numbers_are_asked_for_together_whatever_the_key_has_room_for(place: Place, kind: str) -> None:
    many = 2**31 - 1 if kind == "integer" else 110101199001010015
    place.run(f"CREATE TABLE counted (record_id {kind} PRIMARY KEY, community_code varchar(12), note varchar(40))")
    for key in (7, -7, many):
        place.run(f"INSERT INTO counted VALUES ({key}, '{REGION.code}', '一')")
    own = {**SAMPLE.fields, "record_id": SAMPLE.fields["record_id"].model_copy(update={"type": "int", "normalise": ()})}
    counted = SAMPLE.model_copy(update={"fields": own})
    options = {"url": place.url, "table": "counted", "schema_name": place.schema}
    connector = SqlConnector(make_node(counted, options, fields=("record_id", "community_code", "note")))
    asked = [7, -7, many, 2**62]
    found = connector.fetch(table(counted, [{"record_id": key} for key in asked]).select(["record_id"]))
    assert sorted(found.rows.column("record_id").to_pylist()) == [-7, 7, many]
    assert found.deleted.column("record_id").to_pylist() == [2**62]


def test_a_read_only_replica_is_read_and_refuses_a_write_with_a_clear_error(place: Place) -> None:
    people_put(place, "R1")
    joint = "&" if "?" in place.url else "?"
    if place.kind == "postgres":
        place.url = f"{place.url}{joint}options=-cdefault_transaction_read_only%3Don"
    else:
        place.url = f"{place.url}{joint}init_command=SET%20SESSION%20TRANSACTION%20READ%20ONLY"
    connector = place.connector("居民")
    assert notes(connector.changes(None)) == {"R1": "一"}
    assert connector.probe().detail == "1 rows"
    with pytest.raises(AccessDenied, match=r"(?i)read.only") as caught:
        write(connector, row("R1", note="改"))
    assert "拒绝" in caught.value.zh and caught.value.todo
    assert held(place) == [("R1", "一")]


def test_a_key_alone_is_inserted_into_a_table_of_the_connections_own_schema(place: Place) -> None:
    if place.kind == "postgres":
        joint = "&" if "?" in place.url else "?"
        place.url = f"{place.url}{joint}options=-csearch_path%3D{place.schema}"
    connector = place.connector("居民", schema_name=None)
    write(connector, {"record_id": "R1"})
    write(connector, {"record_id": "R1"}, {"record_id": "R2"})
    assert held(place) == [("R1", None), ("R2", None)]
