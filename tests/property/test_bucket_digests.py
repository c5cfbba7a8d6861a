"""Digests that a database works out itself, on real servers: the same as those of the rows that it gives out, and blind to no difference."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.base import Batch, Buckets, no_keys
from connectors.sql import SqlConnector
from federation import canonical_buckets as rules
from federation.contract import Dataset
from tests.contract.dataset import make_node
from tests.property.profiles import machine_settings
from tests.servers import mysql_connection, mysql_database, mysql_url, postgres_schema, postgres_url

PLACES = ["110101001001", "110101001002", None, "外地"]
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=8)
FIXED = st.datetimes(datetime(1992, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))
EVER = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.just(UTC))
DECIMALS = st.decimals(-(10**12), 10**12, places=2)
ENUM = ("甲", "a", "A", "ä")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXT,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(TEXT, part, max_size=3),
    max_leaves=4,
).map(lambda value: json.dumps(value, ensure_ascii=False))
TYPES: dict[str, tuple[dict[str, Any], Any]] = {
    "string": ({"type": "string"}, TEXT),
    "untrimmed": ({"type": "string", "normalise": []}, TEXT),
    "enum": ({"type": "enum", "values": ENUM}, st.sampled_from(ENUM)),
    "json": ({"type": "json"}, JSON),
    "int": ({"type": "int"}, st.integers(-(2**63), 2**63 - 1)),
    "float": ({"type": "float"}, st.floats(allow_nan=False, allow_infinity=False)),
    "decimal": ({"type": "decimal", "scale": 2}, DECIMALS),
    "bool": ({"type": "bool"}, st.booleans()),
    "date": ({"type": "date"}, st.dates(date(2, 1, 1), date(9998, 1, 1))),
    "timestamp": ({"type": "timestamp"}, EVER),
    "local": ({"type": "timestamp"}, FIXED),
}
"""Kind → the field's contract, and values of it."""
COLUMNS: dict[str, dict[str, list[str]]] = {
    "postgres": {
        "string": ["text", "varchar(40)", "char(40)"],
        "untrimmed": ["text"],
        "enum": ["varchar(9)"],
        "json": ["text"],
        "int": ["bigint"],
        "float": ["double precision"],
        "decimal": ["numeric(20,2)", "numeric(20,1)", "numeric"],
        "bool": ["boolean", "smallint"],
        "date": ["date"],
        "timestamp": ["timestamptz", "timestamptz(3)"],
        "local": ["timestamp"],
    },
    "mysql": {
        "string": ["varchar(40)", "char(40)", "mediumtext"],
        "untrimmed": ["varchar(40)"],
        "enum": ["varchar(9)", "enum('甲', 'a', 'A', 'ä') COLLATE utf8mb4_bin"],
        "json": ["mediumtext"],
        "int": ["bigint", "bigint zerofill"],
        "decimal": ["decimal(20,2)", "decimal(20,1)"],
        "bool": ["boolean", "bit(1)"],
        "date": ["date"],
        "timestamp": ["datetime(6) COMMENT 'UTC'"],
        "local": ["datetime(6)"],
    },
}
"""Which columns a database can tell the text of (see `connectors.sql_*_buckets`)."""
PUSHED = [
    (server, kind, column) for server, kinds in COLUMNS.items() for kind, found in kinds.items() for column in found
]


def dataset_of(kind: str) -> Dataset:
    text = {"label": "文本", "authority": "city"}
    fields = {"record_id": text, "place": text, "value": {**text, **TYPES[kind][0]}, "rest": text}
    about = {"label": "样例", "levels": ["city", "community"], "originates": ["city"]}
    return Dataset.model_validate(
        {"name": "sample", "key": ["record_id"], "jurisdiction": "place", "fields": fields, **about}
    )


class Servers:
    """Both servers, with a schema of the test's own in each."""

    def __init__(self, closing: ExitStack) -> None:
        self.postgres = closing.enter_context(psycopg.connect(postgres_url(), autocommit=True))
        self.mysql = closing.enter_context(mysql_connection(mysql_url()))
        self.schemas = {
            "postgres": closing.enter_context(postgres_schema()),
            "mysql": closing.enter_context(mysql_database()),
        }

    def table(self, server: str, name: str, column: str) -> None:
        text = "varchar(40)" if server == "postgres" else "varchar(40) COLLATE utf8mb4_bin"
        self.run(server, f"DROP TABLE IF EXISTS {self.schemas[server]}.{name}")
        self.run(
            server,
            f"CREATE TABLE {self.schemas[server]}.{name} (record_id {text} PRIMARY KEY, place {text}, value {column}, rest {text})",
        )

    def run(self, server: str, statement: str, *values: Any) -> None:
        if server == "postgres":
            self.postgres.execute(statement, values or None)
            return
        with self.mysql.cursor() as cursor:
            cursor.execute(statement, values or None)

    def connector(self, server: str, name: str, dataset: Dataset) -> SqlConnector:
        url = postgres_url() if server == "postgres" else mysql_url()
        return SqlConnector(make_node(dataset, {"url": url, "schema_name": self.schemas[server], "table": name}))


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with ExitStack() as closing:
        yield Servers(closing)


def no_reading(*_: Any, **__: Any) -> Any:
    raise AssertionError("it read the rows")


@pytest.mark.parametrize(("server", "kind", "column"), PUSHED)
def test_a_database_works_out_the_digest_that_its_rows_have(
    servers: Servers, server: str, kind: str, column: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = dataset_of(kind)
    servers.table(server, "digest", column)
    values = st.lists(st.tuples(st.sampled_from(PLACES), st.none() | TYPES[kind][1], st.none() | TEXT), max_size=12)

    @settings(machine_settings(15, 1), deadline=None)
    @given(values, st.integers(0, 4))
    def holds(lines: list[tuple[Any, ...]], digits: int) -> None:
        connector = servers.connector(server, "digest", dataset)
        servers.run(server, f"DELETE FROM {servers.schemas[server]}.digest")
        keys = [f"键{number:03d}" for number in range(len(lines))]
        if column.endswith("zerofill"):
            lines = [(place, None if value is None else abs(value) % 2**63, rest) for place, value, rest in lines]
        table = pa.table([pa.array(keys), *_columns(lines, connector)], schema=connector.node.schema)
        typed = connector.node.conform(table).rows  # what another node would have delivered
        _apply(connector, server, column, typed)
        asked = Buckets(("place", "value", "rest"), digits, "a0f1")
        found = connector.changes(None).rows
        wanted = rules.digests(found, dataset, asked)
        with monkeypatch.context() as patch:
            patch.setattr(SqlConnector, "changes", no_reading)
            told = connector.bucket_digests(asked)
            some = wanted.filter(pc.is_valid(wanted.column("place"))).slice(0, 3)
            single = connector.bucket_hashes(asked, some)
        assert _sorted(told) == _sorted(wanted)
        assert _sorted(single) == _sorted(rules.hashes(found, dataset, asked, some))

    holds()


def _columns(lines: list[tuple[Any, ...]], connector: SqlConnector) -> list[pa.Array]:
    columns = list(zip(*lines)) if lines else [()] * 3
    kinds = [connector.node.schema.field(name).type for name in ("place", "value", "rest")]
    return [pa.array(list(values), kind) for values, kind in zip(columns, kinds)]


def _apply(connector: SqlConnector, server: str, column: str, rows: pa.Table) -> None:
    if column.endswith(",1)"):  # its column keeps one digit less: both ends agree on what fits
        cut = pa.array([None if v is None else v.quantize(Decimal("0.1")) for v in rows.column("value").to_pylist()])
        rows = rows.set_column(2, "value", cut.cast(pa.decimal128(38, 2)))
    if rows.num_rows:
        connector.apply(Batch((rows,), no_keys(connector.node)))


def _sorted(table: pa.Table) -> list[tuple[str, ...]]:
    return sorted(tuple(map(str, row.values())) for row in table.to_pylist())


RAW: dict[str, list[Any]] = {
    "string": ["", " ", "a", " a", "a ", "A", "\u3000a", "é", "e\u0301", None, "a\t"],
    "untrimmed": ["", " ", "a", " a", "a ", "A", "é", "e\u0301", None],
    "enum": ["甲", " 甲", "a", "A", "ä", None, ""],
    "json": ["{}", "{ }", '{"a":1}', '{"a": 1.0}', "null", None, "", "[1,2]", "1", "01"],
    "int": [0, 1, -1, 10, None],
    "decimal": [Decimal("0"), Decimal("0.10"), Decimal("0.1"), Decimal("1"), None, Decimal("-0.1"), Decimal("1000")],
    "bool": [0, 1, None],
    "date": [date(1, 1, 1), date(1990, 10, 1), date(1990, 1, 10), None],
    "timestamp": [datetime(1990, 9, 15, 16), datetime(1990, 9, 15, 17), datetime(1986, 5, 3, 18), datetime(2026, 1, 1), datetime(2026, 1, 1, 0, 0, 0, 400), datetime(2026, 1, 1, 8), None, datetime(1800, 1, 1)],
    "local": [datetime(1990, 9, 15, 23, 30), datetime(1990, 9, 16, 0, 30), datetime(1990, 9, 16, 1, 30), datetime(1986, 5, 4, 1, 30), datetime(1986, 5, 4, 2, 30), datetime(1986, 5, 4, 3, 30), datetime(2026, 1, 1, 8), datetime(2026, 1, 1), None, datetime(1800, 1, 1, 8, 5, 43)],
}  # fmt: skip
"""What people's own programs write, more or less alike."""
ENDS = sorted({(server, kind, column) for server, kind, column in PUSHED if kind in RAW})
PAIRS = [
    (one, two)
    for at, one in enumerate(ENDS)
    for two in ENDS[at:]
    if {one[1], two[1]} <= {"timestamp", "local"} or (one[1] == two[1] and one != two)
]


@pytest.mark.parametrize(("one", "two"), PAIRS, ids=lambda end: "-".join(end))
def test_rows_whose_hashes_are_the_same_hold_the_same_facts_whatever_was_written(
    servers: Servers, one: tuple[str, str, str], two: tuple[str, str, str]
) -> None:
    asked = Buckets(("value",), 0, "07")
    dice = random.Random(repr((one, two)))
    ends = []
    for name, (server, kind, column) in (("one", one), ("two", two)):
        dataset = dataset_of(kind)
        servers.table(server, name, column)
        values = [value for value in RAW[kind] for _ in range(60)]
        dice.shuffle(values)
        into = f"INSERT INTO {servers.schemas[server]}.{name} VALUES (%s, %s, %s, %s)"
        for number, value in enumerate(values[:300]):
            servers.run(server, into, f"K{number:03d}", PLACES[0], _taken(value, server, column), None)
        ends.append(_hashes_and_facts(servers.connector(server, name, dataset), asked))
    agreeing = [key for key in ends[0][0] if ends[0][0][key] == ends[1][0].get(key)]
    assert agreeing, "no two rows are the same: this test tells nothing"
    assert {key: ends[0][1].get(key) for key in agreeing} == {key: ends[1][1].get(key) for key in agreeing}


def _taken(value: Any, server: str, column: str) -> Any:
    """What the column takes of it."""
    if column == "boolean" and server == "postgres":
        return None if value is None else bool(value)
    if column.endswith("zerofill"):
        return None if value is None else abs(value)
    return None if column.startswith("enum") and value not in ENUM else value


def _hashes_and_facts(connector: SqlConnector, asked: Buckets) -> tuple[dict[str, int], dict[str, Any]]:
    buckets = connector.bucket_digests(asked)
    told = connector.bucket_hashes(asked, buckets).to_pylist()
    facts = connector.changes(None).rows.to_pylist()
    return {line["record_id"]: line["hash"] for line in told}, {row["record_id"]: row["value"] for row in facts}


def test_a_clock_that_was_put_back_makes_its_readings_doubtful_and_no_others() -> None:
    from connectors.sql_clock import spans

    told = spans("Asia/Shanghai")
    assert told is not None
    assert (told[0].offset, told[0].start.year) == (8 * 3600, 1991)
    assert {span.offset for span in told} == {None, 8 * 3600, 9 * 3600}
    assert all(later.start > earlier.start for later, earlier in pairwise(told))
    assert max(late.start - early.start for late, early in pairwise(told) if early.offset is None) < timedelta(2)
    assert spans("Europe/Berlin") is None


@pytest.mark.parametrize("column", ["real", "char(9)", "timestamp", "jsonb"])
def test_what_a_database_cannot_tell_exactly_is_read(servers: Servers, column: str) -> None:
    kind = {"real": "float", "char(9)": "untrimmed", "timestamp": "date", "jsonb": "json"}[column]
    servers.table("postgres", "odd", column)
    value = {"float": 0.1, "untrimmed": "a", "date": datetime(2026, 1, 1, 9), "json": '{"b": 1, "a": 2}'}[kind]
    servers.run(
        "postgres", f"INSERT INTO {servers.schemas['postgres']}.odd VALUES ('K', %s, %s, NULL)", PLACES[0], value
    )
    connector = servers.connector("postgres", "odd", dataset_of(kind))
    asked = Buckets(("value",), 1, "07")
    assert connector.bucket_digests(asked) == rules.digests(connector.changes(None).rows, dataset_of(kind), asked)
