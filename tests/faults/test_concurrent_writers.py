"""People write while a link syncs: both ends are equal at the end, with log and with cursor capture, on PostgreSQL and MariaDB.

Four programs make random transactions on one table: inserts, updates, deletes, changes of the key; some wait before they commit, some
longer than a cursor's overlap, some are rolled back, some run into each other. Meanwhile the link syncs in a loop. Nothing is ever
compared as a whole after the first read, so whatever a read misses stays missing.

FEDSYNC_TRANSACTIONS says how many transactions there are per database and kind of capture (`make writers`: 20 000).
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pymysql
import pytest

from connectors.sql_log import LogCapture
from federation.federation import Federation
from federation.runtime import open_federation
from tests.federations import written
from tests.servers import mysql_connection, mysql_database, mysql_url, postgres_schema, postgres_url

TRANSACTIONS = int(os.environ.get("FEDSYNC_TRANSACTIONS") or 1_000)
WRITERS = 4
KEYS = 1_500
"""So few that the programs often want the same row."""
OVERLAP = 1
LATE = 1.6
"""Seconds. A transaction that waits so long is committed when a cursor's overlap has passed."""
CITY, EAST = "110000000000", "110101000000"
REGIONS = f"code,name,level,parent\n{CITY},北京市,city,\n{EAST},东城区,district,{CITY}\n"
RECORD = """
name: record
label: 记录
levels: [city, district]
key: [record_id]
jurisdiction: place
originates: [city]
max_loss: 1
max_change: 1
fields:
  record_id: {label: 编号, authority: city}
  place: {label: 属地, authority: city}
  note: {label: 备注, authority: city}
  amount: {label: 数量, type: int, authority: city}
"""
DECLARATION = """
name: writers
systems:
  above: {{connector: sql, options: {{url: "{url}", table: 登记 "表", schema_name: {schema}, {above}}}}}
  below: {{connector: sql, options: {{url: "sqlite:///{{home}}/below.db", table: record, create: true, {below}}}}}
nodes:
  - {{system: above, level: city, datasets: {{record: {{}}}}}}
  - {{system: below, level: district, datasets: {{record: {{}}}}}}
"""
CAPTURES = {
    "log": ("capture: log", "capture: log"),
    "cursor": (
        f"capture: cursor, cursor_column: changed, overlap_seconds: {OVERLAP}",
        "capture: snapshot",
    ),
}


class Cursor(Protocol):
    """What both drivers have in common."""

    def execute(self, statement: str, values: Any = ...) -> Any: ...

    def fetchall(self) -> Any: ...


@dataclass(frozen=True)
class Server:
    """A database with the people's table. `open`: a program's own connection. `clashed`: its errors when two programs clash."""

    url: str
    schema: str
    table: str
    open: Callable[[], Any]
    clashed: tuple[type[Exception], ...]
    now: str

    def rows(self) -> dict[str, tuple[Any, ...]]:
        with closing(self.open()) as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT record_id, place, note, amount FROM {self.table}")
            return {key: tuple(values) for key, *values in cursor.fetchall()}


@contextmanager
def postgres() -> Iterator[Server]:
    with postgres_schema() as schema:
        table = f'{schema}."登记 ""表"""'
        with psycopg.connect(postgres_url(), autocommit=True) as connection:
            connection.execute(
                f"CREATE TABLE {table} (record_id text PRIMARY KEY, place text NOT NULL, note text, amount int, "
                "changed timestamptz NOT NULL)"
            )
        clashed = (psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation)
        yield Server(
            postgres_url(), schema, table, lambda: psycopg.connect(postgres_url()), clashed, "clock_timestamp()"
        )


@contextmanager
def mariadb() -> Iterator[Server]:
    with mysql_database() as schema:
        table = f'`{schema}`.`登记 "表"`'

        def opened() -> Any:
            connection = mysql_connection(mysql_url())
            connection.autocommit(False)
            return connection

        with closing(mysql_connection(mysql_url())) as connection, connection.cursor() as cursor:
            cursor.execute(
                f"CREATE TABLE {table} (record_id varchar(40) PRIMARY KEY, place varchar(12) NOT NULL, note text, amount int, "
                "changed timestamp(6) NOT NULL DEFAULT current_timestamp(6))"
            )
        clashed = (pymysql.err.OperationalError, pymysql.err.IntegrityError)
        yield Server(mysql_url(), schema, table, opened, clashed, "NOW(6)")


SERVERS = {"postgres": postgres, "mariadb": mariadb}


@dataclass
class Programs:
    """The people's programs. `done`: how many transactions ended how; `failed`: what went wrong that should not."""

    server: Server
    transactions: int
    done: Counter[str] = field(default_factory=Counter)
    failed: list[BaseException] = field(default_factory=list)

    def start(self) -> list[threading.Thread]:
        threads = [threading.Thread(target=self._work, args=(number,), daemon=True) for number in range(WRITERS)]
        for thread in threads:
            thread.start()
        return threads

    def _work(self, number: int) -> None:
        chance = random.Random(number)
        share = self.transactions // WRITERS + (number < self.transactions % WRITERS)
        late = {chance.randrange(share) for _ in range(max(1, share // 500))}
        try:
            with closing(self.server.open()) as connection:
                for place in range(share):
                    self.done[self._transaction(connection, chance, place in late)] += 1
        except BaseException as error:
            self.failed.append(error)
            raise

    def _transaction(self, connection: Any, chance: random.Random, late: bool) -> str:
        try:
            with connection.cursor() as cursor:
                for _ in range(chance.choice((1, 1, 2, 3, 8))):
                    self._statement(cursor, chance)
                pause = LATE if late else chance.choice((0.0,) * 17 + (0.01, 0.02, 0.05))
                if pause:
                    time.sleep(pause)
            if chance.random() < 0.1:
                connection.rollback()
                return "rolled back"
            connection.commit()
        except self.server.clashed as clash:
            if isinstance(clash, pymysql.err.OperationalError) and clash.args[0] not in (1205, 1213):
                raise
            connection.rollback()
            return "clashed"
        return "late" if late else "committed"

    def _statement(self, cursor: Cursor, chance: random.Random) -> None:
        table, now = self.server.table, self.server.now
        key, other = (f"编号 {chance.randrange(KEYS)}" for _ in range(2))
        note, amount = f"备注 {chance.randrange(10**6)}", chance.randrange(10**6)
        draw = chance.random()
        if draw < 0.45:
            cursor.execute(
                f"UPDATE {table} SET note = %s, amount = %s, changed = {now} WHERE record_id = %s", (note, amount, key)
            )
        elif draw < 0.5:
            taken = f"SELECT 1 FROM (SELECT record_id FROM {table}) t WHERE t.record_id = %s"
            moved = f"UPDATE {table} SET record_id = %s, changed = {now} WHERE record_id = %s AND NOT EXISTS ({taken})"
            cursor.execute(moved, (other, key, other))
        elif draw < 0.7:
            cursor.execute(f"DELETE FROM {table} WHERE record_id = %s", (key,))
        else:
            cursor.execute(f"DELETE FROM {table} WHERE record_id = %s", (key,))
            cursor.execute(
                f"INSERT INTO {table} (record_id, place, note, amount, changed) VALUES (%s, %s, %s, %s, {now})",
                (key, EAST, note, amount),
            )


def declared(folder: Path, server: Server, capture: str) -> Federation:
    above, below = CAPTURES[capture]
    text = DECLARATION.format(url=server.url, schema=server.schema, above=above, below=below)
    text = text.replace('table: 登记 "表"', "table: '登记 \"表\"'")
    files = {"regions.csv": REGIONS, "datasets/record.yaml": RECORD, "federation.yaml": text}
    written(folder, files)
    return open_federation(folder)


def below(folder: Path) -> dict[str, tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "below.db")) as connection:
        return {
            key: tuple(rest) for key, *rest in connection.execute("SELECT record_id, place, note, amount FROM record")
        }


def sync(federation: Federation) -> int:
    """One run of the link; how many rows moved."""
    result = federation.sync_parent("record", CITY)
    assert not result.errors, {link: str(error) for link, error in result.errors.items()}
    return result.moved


@pytest.fixture
def covered(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each later read of a change table, whether it read what changed, and not everything."""
    told: list[bool] = []
    covers = LogCapture._covers

    def remembered(*given: Any) -> bool:
        told.append(covers(*given))
        return told[-1]

    monkeypatch.setattr(LogCapture, "_covers", remembered)
    return told


@pytest.mark.parametrize("capture", CAPTURES)
@pytest.mark.parametrize("kind", SERVERS)
def test_whatever_people_wrote_during_the_syncs_both_ends_are_equal_at_the_end(
    kind: str, capture: str, tmp_path: Path, covered: list[bool]
) -> None:
    with SERVERS[kind]() as server, closing(declared(tmp_path, server, capture)) as federation:
        sync(federation)
        programs = Programs(server, TRANSACTIONS)
        threads = programs.start()
        syncs = moved = 0
        while any(thread.is_alive() for thread in threads):
            moved += sync(federation)
            syncs += 1
        for thread in threads:
            thread.join()
        assert not programs.failed, programs.failed
        moved += sync(federation)
        held = server.rows()
        assert below(tmp_path) == held
        print(f"{kind}, {capture}: {dict(programs.done)}, {syncs} syncs, {moved} rows moved, {len(held)} rows left")
        assert sum(programs.done.values()) == TRANSACTIONS
        assert min(programs.done[word] for word in ("committed", "rolled back", "late")) > 0
        assert syncs > 1 and moved > len(held), "the link did sync while people wrote"
        assert all(covered) and bool(covered) == (capture == "log")
        assert sync(federation) == 0
