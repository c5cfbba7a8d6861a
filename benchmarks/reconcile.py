"""Both ends of one link compared, PostgreSQL and PostgreSQL, 1 M rows × 12 columns, 100 differences, beside what one would write by hand.

Run: `python -m benchmarks.reconcile [rows]`. Server: FEDSYNC_TEST_POSTGRES, else the local one; two schemas are made and removed.

The differences are made with triggers off, after a first sync, so that nothing but a comparison can tell of them: 40 records lost below, 30
edited below, 30 edited above. Measured (best of three, the ways in turn, seconds of wall time): `fedsync reconcile --dry-run`, which ends with
the differing keys; both sides read whole by COPY at the same time and joined in DuckDB, which ends with the same keys, and is the reference; one
md5 sum over each side by psycopg at the same time, which says only that something differs. Then the repair, once. The keys must be
the right ones, and both sides the same in the end, or the program fails.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv as pa_csv

from benchmarks import link_world as world

SERVER = os.environ.get("FEDSYNC_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/test")
MD5 = "SELECT count(*), sum(('x' || md5(({columns})::text))::bit(64)::bigint) FROM residents"
PICKED = "resident_id IN (SELECT resident_id FROM residents ORDER BY md5(resident_id || '{salt}') LIMIT {count})"
DAMAGE = {
    "district": [
        f"DELETE FROM residents WHERE {PICKED.format(salt='lost', count=40)}",
        f"UPDATE residents SET household = household + 1 WHERE {PICKED.format(salt='edited', count=30)}",
    ],
    "city": [f"UPDATE residents SET name = '改' || name WHERE {PICKED.format(salt='late', count=30)}"],
}


def damage() -> None:
    """What no trigger tells of."""
    for level, statements in DAMAGE.items():
        with world.connect(SERVER, world.SCHEMAS[level]) as connection:
            connection.execute("SET session_replication_role = replica")
            for statement in statements:
                connection.execute(statement)


def sums() -> list[Any]:
    """One md5 sum for each side."""

    def one(schema: str) -> Any:
        with world.connect(SERVER, schema) as connection:
            return connection.execute(MD5.format(columns=", ".join(world.FIELDS))).fetchone()

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, world.SCHEMAS.values()))


def whole() -> set[str]:
    """The keys that differ, by reading both sides and joining them."""

    def one(schema: str) -> pa.Table:
        held = io.BytesIO()
        with (
            world.connect(SERVER, schema) as connection,
            connection.cursor() as cursor,
            cursor.copy("COPY residents TO STDOUT (FORMAT csv)") as copy,
        ):
            for part in copy:
                held.write(part)
        held.seek(0)
        texts = pa_csv.ConvertOptions(column_types=dict.fromkeys(world.FIELDS, pa.string()), strings_can_be_null=True)
        return pa_csv.read_csv(held, pa_csv.ReadOptions(column_names=list(world.FIELDS)), convert_options=texts)

    with ThreadPoolExecutor(2) as pool:
        upper, lower = pool.map(one, world.SCHEMAS.values())
    differs = " OR ".join(f"u.{name} IS DISTINCT FROM l.{name}" for name in world.FIELDS)
    with duckdb.connect() as engine:
        engine.register("upper_end", upper)
        engine.register("lower_end", lower)
        found = engine.execute(
            f"SELECT resident_id FROM upper_end u FULL JOIN lower_end l USING (resident_id) WHERE {differs}"
        ).fetchall()
    return {key for (key,) in found}


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Wall time of one call, and what it returned."""
    started = time.perf_counter()
    done = work()
    return time.perf_counter() - started, done


def compare(folder: str, rows: int) -> None:
    """Load, damage, measure, repair."""
    from federation.reconcile import Reconciler
    from federation.runtime import open_federation

    federation = open_federation(folder)
    done = federation.sync_parent("resident", world.CITY)
    if done.errors or done.outcomes[0].descended != rows:
        raise SystemExit(f"the link did not do its work: {done}")
    damage()

    def ours(repair: bool) -> Any:
        return Reconciler(federation, repair=repair, tell_keys=True, actor="benchmark").parent("resident", world.CITY)[
            0
        ]

    ours(False)  # opens what a process opens once
    times: dict[str, list[float]] = {"ours": [], "whole": [], "md5": []}
    for _ in range(3):
        taken, told = seconds(lambda: ours(False))
        times["ours"].append(taken)
        taken, keys = seconds(whole)
        times["whole"].append(taken)
        if {one.key for one in told.left} != keys or told.error:
            raise SystemExit(f"not the same differences: {len(told.left)} and {len(keys)}, {told.error}")
        taken, (upper, lower) = seconds(sums)
        times["md5"].append(taken)
        if upper == lower:
            raise SystemExit("the sums do not tell that something differs")
    best = {name: min(found) for name, found in times.items()}
    print(f"{rows:,} rows × {len(world.FIELDS)} columns on each side, {len(keys)} differences {told.found}")
    print(f"fedsync reconcile --dry-run      {best['ours']:6.2f} s  {best['ours'] / best['whole']:5.2f}× (budget 1.5)")
    print(f"COPY both, join in DuckDB        {best['whole']:6.2f} s   1.00×")
    print(f"md5 sum of each side, no keys    {best['md5']:6.2f} s  {best['md5'] / best['whole']:5.2f}×")
    taken, told = seconds(lambda: ours(True))
    print(f"fedsync reconcile, with repair   {taken:6.2f} s  {taken / best['whole']:5.2f}×, repaired {told.repaired}")
    if told.error or whole() or len(set(sums())) != 1:
        raise SystemExit(f"both sides are not the same: {told}")


def main() -> None:
    """Make the world, compare, take it away."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    world.SCHEMAS |= {level: f"fedsync_bench_reconcile_{level}" for level in world.SCHEMAS}  # beside `benchmarks.link`
    world.make(SERVER, rows)
    try:
        world.empty_target(SERVER)
        with tempfile.TemporaryDirectory() as folder:
            world.declare(SERVER, Path(folder), "log")
            compare(folder, rows)
    finally:
        world.drop(SERVER)


if __name__ == "__main__":
    main()
