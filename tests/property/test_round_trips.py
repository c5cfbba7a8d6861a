"""The same fact has one fingerprint in PostgreSQL, MariaDB, SQLite, JSON over HTTP, xlsx and csv, and on the way through all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federation.canonical import conform, key_column, key_table
from tests.property.profiles import FUZZ
from tests.property.round_trips import DATASET, FIELDS, System, changed, prints, systems, tables

NAMES = ("postgres", "mariadb", "sqlite", "rest", "rest_merging", "xlsx", "csv_utf8", "csv_gb18030")
WANTED = os.environ.get(FUZZ)


def examples(count: int) -> settings:
    """So many examples, the same ones each time; with FEDSYNC_FUZZ_EXAMPLES, so many new ones."""
    return settings(
        max_examples=int(WANTED) if WANTED else count,
        derandomize=not WANTED,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


NATIVE = {
    "code": '甲"A\u030a',
    "serial": 7,
    "area": "110101001001",
    "name": "王\u3000e\u0301😀",
    "verbatim": " =1+1\n",
    "phone": "１３８-0000 0000",
    "whole": -(2**63),
    "measure": 0.1,
    "amount": Decimal("-12345678901234567890.00000001"),
    "flag": True,
    "day": date(1931, 2, 28),
    "moment": datetime(9999, 12, 31, 15, 59, 59, 999999, tzinfo=UTC),
    "level": "=重点",
    "extra": '{"b":[1.0,1e2,-0.0,0.1,null,true],"a":"\\u00e9"}',
    "changed": datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
}
TEXT = {
    **NATIVE,
    "serial": "７",
    "whole": "-9223372036854775808",
    "measure": "1e-1",
    "amount": "-12345678901234567890.000000010",
    "flag": "是",
    "day": "1931年2月28日",
    "moment": "9999-12-31 23:59:59.999",
    "extra": '{"a": "é", "b": [1, 100, 0, 1E-1, null, true]}',
    "changed": "1969-12-31T23:59:59.999Z",
}
FROZEN = {
    "area": "08af689669a58b6847fb71990a31e2ee",
    "name": "521898d404c9b6f7be37ad72b50030d0",
    "verbatim": "f139dcb454055d38eb8bccc59b9939d1",
    "phone": "f37a506d02e15adb128865e1ca835bb1",
    "whole": "7fd73e85d0218272e5e1d146f2fb3bc0",
    "measure": "356ae5d638eb38411c5fb721747bc1e5",
    "amount": "ecd63ba39fdc8a4f9a100ef99bce9420",
    "flag": "5a33bbe923fa4036569a8c0cfe5348dc",
    "day": "bb17428eb5060e73cb83af89509bf7db",
    "moment": "ce1697c6126be4907dbc9f9c9ca51f55",
    "level": "12dfa7a15e259458e0958af229b6c34c",
    "extra": "ca9b7555004dadf565e403fbbe8f8112",
    "changed": "a1c3afded35c4424e9fa50bbba111aca",
}
"""sha256 over the canonical texts, worked out without the engine."""


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, System]]:
    folder: Path = tmp_path_factory.mktemp("systems")
    with systems(folder) as found:
        yield found


@pytest.mark.parametrize("name", NAMES)
@examples(30)
@given(rows=tables)
def test_what_is_written_into_a_system_is_read_back_with_the_same_fingerprints(
    every: dict[str, System], name: str, rows: pa.Table
) -> None:
    assert changed(rows, every[name].through(rows)) == {}


@examples(10)
@given(rows=tables, order=st.permutations(NAMES))
def test_a_row_that_passes_through_all_systems_ends_with_the_fingerprints_that_it_began_with(
    every: dict[str, System], rows: pa.Table, order: list[str]
) -> None:
    given = rows
    for name in order:
        rows = every[name].through(rows)
        assert changed(given, rows) == {}, name


@examples(60)
@given(rows=tables)
def test_what_is_typed_already_is_not_changed_by_typing_it_again(rows: pa.Table) -> None:
    again = conform(rows, DATASET, FIELDS)
    assert not again.rejects.num_rows
    assert changed(rows, again.rows) == {}


@examples(60)
@given(rows=tables)
def test_a_key_finds_its_way_back_from_its_text(rows: pa.Table) -> None:
    assert key_table(key_column(rows, DATASET), DATASET).to_pylist() == rows.select(list(DATASET.key)).to_pylist()


def test_missing_empty_blank_and_null_are_the_same_in_every_field() -> None:
    others = [name for name in FIELDS if name not in DATASET.key]
    keys = {"code": pa.array(["A"]), "serial": pa.array([1])}
    tables = [pa.table(keys)]
    for void in (None, "", " \u3000\n"):
        tables.append(pa.table({**keys, **{name: pa.array([void], pa.string()) for name in others}}))
    found = [conform(raw, DATASET, FIELDS) for raw in tables]
    assert not any(typed.rejects.num_rows for typed in found)
    assert all(prints(typed.rows) == prints(found[0].rows) for typed in found)


def test_the_document_null_is_no_document() -> None:
    raw = pa.table({"code": ["A"], "serial": [1], "extra": [" null "]})
    assert conform(raw, DATASET, FIELDS).rows.column("extra").to_pylist() == [None]


@pytest.mark.parametrize("kind", ["native", "text"])
def test_the_fingerprints_of_one_fixed_row_never_change(kind: str) -> None:
    """Frozen: a library that changed one of these would make every ledger see changes everywhere."""
    raw = pa.table({name: [value] for name, value in (NATIVE if kind == "native" else TEXT).items()})
    found = conform(raw, DATASET, FIELDS)
    assert not found.rejects.num_rows
    assert prints(found.rows) == {'["甲\\"Å","7"]': FROZEN}
