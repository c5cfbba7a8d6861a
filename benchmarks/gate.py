"""The gate beside plain polars: 1 M rows × 8 rules, failing keys named. Run: python -m benchmarks.gate [rows]

Both judge the same rows by the same eight rules and end with one table of (key, rule) lines. polars returns just that; the gate
also writes field, value, severity and two reasons per line. Prints seconds (best of five, alternating) and their ratio, and the
time of a warm batch of 100 rows. The lines must be the same or the program fails.

Then one bad record among all of them, through a whole link of two PostgreSQL tables (`benchmarks.link_world`; FEDSYNC_TEST_POSTGRES, else the
local server): every other must arrive in that one run, and the one must be named, or the program fails.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from benchmarks import link_world as world
from benchmarks.link import SERVER
from federation import canonical
from federation.contract import Dataset
from federation.gate import Gate

FIELDS = {"resident_id": "string", "name": "string", "id_number": "string", "gender": "string", "birth_date": "date", "phone": "string", "capacity": "int", "care_note": "string"}  # fmt: skip
RULES: list[tuple[str, dict[str, Any]]] = [
    ("expect_column_values_to_not_be_null", {"column": "name"}),
    ("expect_column_values_to_match_regex", {"column": "id_number", "regex": "^[0-9]{17}[0-9X]$"}),
    ("expect_column_values_to_be_in_set", {"column": "gender", "value_set": ["男", "女"]}),
    (
        "expect_column_values_to_be_between",
        {"column": "birth_date", "min_value": "1900-01-01", "max_value": "2026-12-31"},
    ),
    ("expect_column_values_to_match_regex", {"column": "phone", "regex": "^1[0-9]{10}$"}),
    ("expect_column_values_to_be_between", {"column": "capacity", "min_value": 0, "max_value": 100_000}),
    ("expect_column_value_lengths_to_be_between", {"column": "care_note", "max_value": 20}),
    ("expect_column_values_to_be_unique", {"column": "id_number"}),
]


def dataset() -> Dataset:
    """The contract of the rows."""
    return Dataset.model_validate(
        {
            "name": "resident",
            "label": "居民",
            "levels": ["city", "district"],
            "key": ["resident_id"],
            "jurisdiction": "resident_id",
            "originates": ["city"],
            "fields": {name: {"label": name, "authority": "city", "type": kind} for name, kind in FIELDS.items()},
        }
    )


def rows(count: int) -> pa.Table:
    """Invented residents; about 1 % fail each rule."""
    dice = random.Random(7)
    bad = lambda: dice.random() < 0.01  # noqa: E731
    born = date(1950, 1, 1)
    columns: dict[str, list[Any]] = {
        "resident_id": [f"r{n:09d}" for n in range(count)],
        "name": [None if bad() else f"居民{n % 5000}" for n in range(count)],
        "id_number": [f"{dice.randrange(10**17):017d}{'x' if bad() else 'X'}" for _ in range(count)],
        "gender": ["未知" if bad() else dice.choice("男女") for _ in range(count)],
        "birth_date": [date(1026, 1, 1) if bad() else born + timedelta(dice.randrange(20000)) for _ in range(count)],
        "phone": [f"{'2' if bad() else '1'}{dice.randrange(10**10):010d}" for _ in range(count)],
        "capacity": [-1 if bad() else dice.randrange(100_000) for _ in range(count)],
        "care_note": ["长" * 30 if bad() else "独居老人，每周走访" for _ in range(count)],
    }
    for n in range(0, count - 1, 200):
        columns["id_number"][n] = columns["id_number"][n + 1]
    return pa.table(columns, schema=canonical.schema(dataset(), list(FIELDS)))


def with_polars(table: pa.Table) -> pl.DataFrame:
    """The same rules, as one would write them by hand."""
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    column = pl.col
    failing = [
        column("name").is_null(),
        ~column("id_number").str.contains("^[0-9]{17}[0-9X]$"),
        ~column("gender").is_in(["男", "女"]),
        ~column("birth_date").is_between(date(1900, 1, 1), date(2026, 12, 31)),
        ~column("phone").str.contains("^1[0-9]{10}$"),
        ~column("capacity").is_between(0, 100_000),
        column("care_note").str.len_chars() > 20,
        column("id_number").is_duplicated() & column("id_number").is_not_null(),
    ]
    masks = frame.lazy().select([mask.fill_null(False).alias(str(n)) for n, mask in enumerate(failing)]).collect()
    keys = frame.select(pl.col("resident_id"))
    parts = [keys.filter(masks[str(n)]).with_columns(pl.lit(name(n)).alias("rule")) for n in range(len(RULES))]
    return pl.concat(parts)


def name(index: int) -> str:
    """A rule's name in the gate's failures."""
    return f"{RULES[index][0]}({RULES[index][1]['column']})"


def gate() -> Gate:
    """The suite of the eight rules."""
    reason = {"reason": {"zh": "应合规，现为“{value}”", "en": "must be fit, it is {value!r}"}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "suite.json"
        expectations = [{"type": kind, "kwargs": kwargs, "meta": reason} for kind, kwargs in RULES]
        path.write_text(json.dumps({"name": "resident", "expectations": expectations}), encoding="utf-8")
        return Gate.load(path, dataset())


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def one_bad(count: int) -> float:
    """Sync all but one of `count` records, for the gate holds that one back; seconds."""
    from federation.runtime import open_federation

    world.make(SERVER, count)
    try:
        with world.connect(SERVER, world.SCHEMAS["city"]) as people:
            worst = "SELECT max(resident_id) FROM residents"
            people.execute(f"UPDATE residents SET phone = '139' WHERE resident_id = ({worst})")
            bad = people.execute(worst).fetchall()[0][0]
        with tempfile.TemporaryDirectory() as folder:
            world.declare(SERVER, Path(folder), "snapshot")
            federation = open_federation(folder)
            start = time.perf_counter()
            done = federation.sync_parent("resident", world.CITY)
            took = time.perf_counter() - start
            items = federation.services.quarantine.open_items(dataset="resident")
        (outcome,) = done.outcomes
        account = {word: n for word, n in outcome.accounts["upper"].items() if n}
        with world.connect(SERVER, world.SCHEMAS["district"]) as people:
            arrived = people.execute(
                "SELECT count(*), count(*) FILTER (WHERE resident_id = %s) FROM residents", [bad]
            ).fetchone()
        assert not done.errors, done.errors
        assert account == {"read": count, "delivered": count - 1, "quarantined": 1}, account
        assert arrived == (count - 1, 0), arrived
        assert [(item.key, item.field) for item in items] == [(bad, "phone")], items
        return took
    finally:
        world.drop(SERVER)


def main() -> None:
    """Compare and report."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    table, judge = rows(count), gate()
    assert {plan.runs for plan in judge.explain()} == {"compiled"}
    ours = judge.check(table).failures
    theirs = with_polars(table)
    assert sorted(zip(*(ours.column(c).to_pylist() for c in ("resident_id", "rule")))) == sorted(theirs.rows())
    times = [(seconds(lambda: with_polars(table)), seconds(lambda: judge.check(table))) for _ in range(5)]
    polars_s, gate_s = (min(column) for column in zip(*times))
    print(f"{count:,} rows × {len(RULES)} rules, {ours.num_rows:,} failures")
    print(f"polars {polars_s:.3f} s   gate {gate_s:.3f} s   ratio {gate_s / polars_s:.2f} (budget 2)")
    small = table.slice(0, 100)
    judge.check(small)
    batch = sorted(seconds(lambda: judge.check(small)) for _ in range(50))
    print(f"100 rows, warm: median {batch[25] * 1000:.1f} ms, worst {batch[-1] * 1000:.1f} ms (budget 20)")
    print(f"one bad record among {count:,}: {count - 1:,} delivered, 1 quarantined and named, {one_bad(count):.1f} s")


if __name__ == "__main__":
    main()
