"""The nodes of the state machine on real systems: a city on PostgreSQL, districts on MariaDB (on SQLite where there is none), streets
on SQLite, one of them lacking columns and one without any system, communities on workbooks and on GB18030 text.

Tables are made once for a run of the machine and emptied for each example; files are made anew.
"""

from __future__ import annotations

import csv
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from openpyxl import Workbook

from federation.config import load
from federation.contract import Dataset
from federation.runtime import open_federation, open_hosting
from tests.federations import CITY, E11, E12, E21, EAST, EAST_1, EAST_2, W11, W12, WEST, WEST_1, Clock
from tests.property.hands import (
    CompanionHands,
    CsvHands,
    Hands,
    HostedHands,
    MariadbHands,
    Row,
    Run,
    TableHands,
    XlsxHands,
    sqlite_run,
)
from tests.property.world import DATASET, Nodes, declare, ledger_template
from tests.servers import mysql_connection, mysql_database, mysql_url, postgres_schema, postgres_url

STYLES: dict[str, dict[str, Any]] = {
    "whole": {"capture": "snapshot"},
    "seconds": {"capture": "cursor", "cursor_column": "changed", "overlap_seconds": 2},
    "trigger": {"capture": "cursor", "cursor_column": "changed", "overlap_seconds": 0},
    "number": {"capture": "cursor", "cursor_column": "changed", "overlap_rows": 0},
    "log": {"capture": "log"},
}
"""How a table tells what changed: not at all; a time to the second that its program writes; an exact time, or a number, that a
trigger writes; a log that the engine's own triggers fill. Behind an exact stamp no overlap is needed, and none hides a mistake."""
CITY_FIELDS = ("item_id", "place", "title", "secret", "remark", "own", "note", "at")
FIELDS = tuple(name for name in CITY_FIELDS if name != "secret")
BOOKS, TEXTS = (E11, E21, W11), (E12, W12)
FILES = (*BOOKS, *TEXTS)
"""The communities, by what they keep their lists in."""
NAMES = {"title": "名称", "own": "full name", "remark": "order"}
"""Fields that the districts and one street keep under names of their own."""


@dataclass(frozen=True)
class Systems:
    """What one example runs on: the style of each table, and the fields that a street's system lacks."""

    city: str
    east: str
    west: str
    street: str
    office: str
    lacking: tuple[str, ...]


class Servers:
    """The tables on real servers, in a schema and a database of this run's own."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.schema = self.stack.enter_context(postgres_schema())
        self.postgres = self.stack.enter_context(psycopg.connect(postgres_url(), autocommit=True))
        self.postgres.execute(f"CREATE SEQUENCE {self.schema}.counter")
        for style in STYLES:
            for statement in postgres_table(self.schema, style):
                self.postgres.execute(statement)
        self.mysql: Any = None
        self.database = ""
        try:
            self.mysql_url = mysql_url()
        except pytest.skip.Exception:
            return
        self.database = self.stack.enter_context(mysql_database())
        self.mysql = self.stack.enter_context(mysql_connection(self.mysql_url))
        self.run_mysql(f"CREATE TABLE {self.database}.counter (n bigint)", ())
        self.run_mysql(f"INSERT INTO {self.database}.counter VALUES (0)", ())
        for region in (EAST, WEST):
            for style in STYLES:
                for statement in mysql_table(self.database, region, style):
                    self.run_mysql(statement, ())

    def run_postgres(self, statement: str, values: Sequence[Any]) -> list[Any]:
        cursor = self.postgres.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []

    def run_mysql(self, statement: str, values: Sequence[Any]) -> list[Any]:
        with self.mysql.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def clear(self) -> None:
        """Empty every table; the engine's own go."""
        for style in STYLES:
            self.postgres.execute(f"DELETE FROM {self.schema}.item_{style}")
        self.postgres.execute(f"DROP TABLE IF EXISTS {self.schema}.desk")
        if self.mysql is not None:
            for region in (EAST, WEST):
                for style in STYLES:
                    self.run_mysql(f"DELETE FROM {self.database}.item_{region}_{style}", ())
            self.run_mysql(f"DROP TABLE IF EXISTS {self.database}.desk", ())

    def uris(self) -> dict[str, str]:
        """The Airflow connections that the declaration names: a URL may hold a password."""
        return {"city": postgres_url(), **({"district": self.mysql_url} if self.mysql is not None else {})}

    def close(self) -> None:
        """Leave nothing behind."""
        self.stack.close()


def postgres_table(schema: str, style: str) -> list[str]:
    """The statements that make the city's table; one without a stamp has neither types nor a key."""
    name, texts = f"{schema}.item_{style}", [f"{field} text" for field in CITY_FIELDS]
    if style == "whole":
        return [f"CREATE TABLE {name} ({', '.join(texts)})"]
    columns = ["item_id text PRIMARY KEY", *texts[1:-1], "at bigint"]
    if style in ("seconds", "log"):
        return [f"CREATE TABLE {name} ({', '.join(columns)}, changed timestamptz)"]
    kind, value = (
        ("timestamptz", "clock_timestamp()") if style == "trigger" else ("bigint", f"nextval('{schema}.counter')")
    )
    return [
        f"CREATE TABLE {name} ({', '.join(columns)}, changed {kind})",
        f"CREATE FUNCTION {name}_stamp() RETURNS trigger LANGUAGE plpgsql AS "
        f"'BEGIN NEW.changed := {value.replace(chr(39), chr(39) * 2)}; RETURN NEW; END'",
        f"CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON {name} FOR EACH ROW EXECUTE FUNCTION {name}_stamp()",
    ]


def mysql_table(database: str, region: str, style: str) -> list[str]:
    """The statements that make a district's table."""
    name, columns = f"{database}.item_{region}_{style}", mysql_columns(CITY_FIELDS)
    listed = [f"{column} mediumtext" for column in columns.values()]
    if style == "whole":
        return [f"CREATE TABLE {name} ({', '.join(listed)}) CHARACTER SET utf8mb4"]
    listed = ["item_id varchar(60) PRIMARY KEY", *listed[1:-1], f"{columns['at']} bigint"]
    kind = {
        "seconds": "timestamp NULL",
        "log": "timestamp NULL",
        "trigger": "timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)",
        "number": "bigint",
    }[style]
    made = [f"CREATE TABLE {name} ({', '.join(listed)}, changed {kind}) COLLATE utf8mb4_nopad_bin"]
    counted = (
        f"BEGIN UPDATE {database}.counter SET n = n + 1; SET NEW.changed = (SELECT n FROM {database}.counter); END"
    )
    if style == "number":
        for moment in ("INSERT", "UPDATE"):
            trigger = f"{database}.stamp_{region}_{moment.lower()}"
            made.append(f"CREATE TRIGGER {trigger} BEFORE {moment} ON {name} FOR EACH ROW {counted}")
    return made


def mysql_columns(fields: tuple[str, ...]) -> dict[str, str]:
    """Field → quoted column."""
    return {name: f"`{NAMES.get(name, name)}`" for name in fields}


def sqlite_columns(fields: tuple[str, ...]) -> dict[str, str]:
    """Field → quoted column."""
    return {name: f'"{NAMES.get(name, name)}"' for name in fields}


def make_sqlite(path: Path, fields: tuple[str, ...], style: str) -> None:
    """A file with one table, `item`."""
    columns = list(sqlite_columns(fields).values())
    with closing(sqlite3.connect(path)) as connection, connection:
        if style == "whole":
            connection.execute(f"CREATE TABLE item ({', '.join(columns)})")
            return
        typed = [f"{column} {'INTEGER' if column == chr(34) + 'at' + chr(34) else 'TEXT'}" for column in columns]
        kind = "INTEGER" if style == "number" else "TEXT"
        connection.execute(f"CREATE TABLE item ({', '.join(typed)}, changed {kind}, PRIMARY KEY ({columns[0]})) STRICT")
        if style in ("seconds", "log"):
            return
        connection.execute("CREATE TABLE counter (n INTEGER)")
        connection.execute("INSERT INTO counter VALUES (0)")
        value = "(SELECT n FROM counter)" if style == "number" else "strftime('%Y-%m-%d %H:%M:%f', 'now', '+8 hours')"
        for moment in ("INSERT", "UPDATE"):
            connection.execute(
                f"CREATE TRIGGER stamp_{moment} AFTER {moment} ON item BEGIN UPDATE counter SET n = n + 1; "
                f"UPDATE item SET changed = {value} WHERE rowid = NEW.rowid; END"
            )


def make_workbook(path: Path, dataset: Dataset, region: str) -> None:
    """As people lay one out: a title above the headings, their own order, and a column that nobody else knows."""
    book = Workbook()
    sheet: Any = book.active
    sheet.title = XlsxHands.sheet
    sheet["A1"] = f"{region} 事项台账"
    labels = [dataset.fields[name].label for name in FIELDS]
    for place, label in enumerate([*labels[::-1], "备忘"], start=1):
        sheet.cell(3, place, label)
    book.save(path)


def make_csv(path: Path, dataset: Dataset) -> None:
    """Headings alone."""
    with path.open("w", encoding=CsvHands.encoding, newline="") as text:
        csv.writer(text).writerow([dataset.fields[name].label for name in FIELDS])


class RealNodes(Nodes):
    """See the module."""

    def __init__(self, servers: Servers, policy: str, systems: Systems) -> None:
        self.servers, self.systems = servers, systems
        servers.clear()
        self.folder = Path(tempfile.mkdtemp(prefix="fedsync_"))
        declare(self.folder, policy, self._declaration())
        shutil.copytree(ledger_template(), self.folder / "state")
        dataset = load(self.folder).dataset(DATASET)
        self.clock = Clock()
        self.uris = servers.uris()
        self.federation = open_federation(self.folder, connection_uri=self.uris.get, clock=self.clock)
        self.hosting = open_hosting(self.folder, "people", connection_uri=self.uris.get, clock=self.clock)
        self.hands: dict[str, Hands] = {
            CITY: self._city(),
            **self._districts(),
            **self._streets(dataset),
            **self._communities(dataset),
        }

    def read(self, region: str, key: str) -> Row | None:
        return self.hands[region].rows().get(key)

    def write(self, region: str, key: str, values: Row) -> None:
        self.hands[region].write(key, values)

    def remove(self, region: str, key: str) -> None:
        self.hands[region].remove(key)

    def rule(self, region: str, correction_id: str, word: str) -> bool:
        return self.hands[region].rule(correction_id, word)

    def close(self) -> None:
        self.federation.close()
        self.hosting.services.ledger.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _city(self) -> Hands:
        stamp = "date_trunc('second', now())" if self.systems.city == "seconds" else None
        name, desk = f"{self.servers.schema}.item_{self.systems.city}", f"{self.servers.schema}.desk"
        columns = {field: field for field in CITY_FIELDS}
        return TableHands(self.servers.run_postgres, name, columns, mark="%s", stamp=stamp, desk=desk)

    def _districts(self) -> dict[str, Hands]:
        styles = {EAST: self.systems.east, WEST: self.systems.west}
        if self.servers.mysql is None:
            return {region: self._sqlite(region, CITY_FIELDS, style) for region, style in styles.items()}
        return {
            region: MariadbHands(
                self.servers.run_mysql,
                f"{self.servers.database}.item_{region}_{style}",
                mysql_columns(CITY_FIELDS),
                mark="%s",
                stamp="UTC_TIMESTAMP()" if style == "seconds" else None,
                desk=f"{self.servers.database}.desk",
            )
            for region, style in styles.items()
        }

    def _streets(self, dataset: Dataset) -> dict[str, Hands]:
        own = tuple(name for name in FIELDS if name not in self.systems.lacking)
        return {
            WEST_1: self._sqlite(WEST_1, FIELDS, self.systems.street),
            EAST_1: CompanionHands(self._sqlite(EAST_1, own, self.systems.office), self._hosted(EAST_1)),
            EAST_2: self._hosted(EAST_2),
        }

    def _hosted(self, region: str) -> HostedHands:
        kept = self.federation._opener.kept(self.federation.config.binding(DATASET, region))
        return HostedHands(self.hosting, self.federation.config.dataset(DATASET), region, kept)

    def _communities(self, dataset: Dataset) -> dict[str, Hands]:
        hands: dict[str, Hands] = {}
        for region in BOOKS:
            hands[region] = XlsxHands(self.folder / f"{region}.xlsx", dataset, FIELDS)
        make_workbook(self.folder / f"{E21}.xlsx", dataset, E21)  # the engine makes the others
        make_workbook(self.folder / f"{W11}.xlsx", dataset, W11)
        for region in TEXTS:
            make_csv(self.folder / f"{region}.csv", dataset)
            hands[region] = CsvHands(self.folder / f"{region}.csv", dataset, FIELDS)
        return hands

    def _sqlite(self, region: str, fields: tuple[str, ...], style: str) -> TableHands:
        path = self.folder / f"{region}.db"
        make_sqlite(path, fields, style)
        run: Run = sqlite_run(path)
        stamp = "strftime('%Y-%m-%d %H:%M:%S', 'now', '+8 hours')" if style == "seconds" else None
        return TableHands(run, "item", sqlite_columns(fields), mark="?", stamp=stamp, desk="desk")

    def _declaration(self) -> str:
        servers, systems = self.servers, self.systems

        def node(system: str, regions: list[str], style: str | None = None, **binding: Any) -> dict[str, Any]:
            options = {**binding.pop("options", {}), **(STYLES[style] if style else {})}
            return {"system": system, "regions": regions, "datasets": {DATASET: {"options": options, **binding}}}

        def sql(url: Any, **options: Any) -> dict[str, Any]:
            return {"connector": "sql", "options": {"url": url, "corrections": "desk", **options}}

        def book(name: str, **options: Any) -> dict[str, Any]:
            return {"connector": "workbook", "options": {"path": f"{{home}}/{{region}}.{name}", **options}}

        on_mysql = servers.mysql is not None
        districts = [
            node(
                "district" if on_mysql else "file",
                [region],
                style,
                columns=NAMES,
                options={"table": f"item_{region}_{style}"} if on_mysql else {},
            )
            for region, style in ((EAST, systems.east), (WEST, systems.west))
        ]
        kept = {name: column for name, column in NAMES.items() if name not in systems.lacking}
        spec = {
            "name": "real",
            "datasets": "datasets/*.yaml",
            "systems": {
                "city": sql({"connection": "city"}, schema_name=servers.schema, table=f"item_{systems.city}"),
                "district": sql({"connection": "district"}, schema_name=servers.database),
                "file": sql("sqlite:///{home}/{region}.db"),
                "book": book("xlsx"),
                "text": book("csv", encoding="gb18030"),
            },
            "nodes": [
                node("city", [CITY], systems.city),
                *districts,
                node("file", [WEST_1], systems.street, columns=NAMES),
                node("file", [EAST_1], systems.office, columns=kept, hosted=list(systems.lacking)),
                node("book", list(BOOKS)),
                node("text", list(TEXTS)),
            ],
        }
        return yaml.safe_dump(spec, allow_unicode=True)
