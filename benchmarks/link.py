"""One link, PostgreSQL to PostgreSQL, 1 M rows × 12 columns, with merge, gate of 8 rules, baseline and receipts, beside what others do.

Run: `python -m benchmarks.link [rows] [--peers]`. Server: FEDSYNC_TEST_POSTGRES, else the local one; two schemas are made and removed.

First load, 1 % changed (best of three, in the warm process), nothing changed (best of five, warm). Beside them, in the same run:
`psql` COPY piped into COPY, as the rows lie and sorted by key at the source; hand-written psycopg COPY, for the first load and for the
change (which it finds by a column of last change, and merges by ON CONFLICT). None of them judges, compares, remembers or returns
anything. `--peers` adds dlt and ingestr, installed into an environment of their own that is thrown away.

Per line: wall seconds; processor seconds and peak memory of the client (the server's work is in the wall time alone); wall time as a
multiple of the reference. Each result is compared with its source by a checksum, or the program fails.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import link_world as world

SERVER = os.environ.get("FEDSYNC_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/test")
SUM = "SELECT count(*), sum(hashtextextended(({columns})::text, 0)) FROM residents"
PEERS = (
    "dlt[postgres,sql_database,parquet]==1.28.2",
    "psycopg[binary]==3.3.9",
    "psycopg2-binary==2.9.12",
    "ingestr==1.1.22",
)


@dataclass(frozen=True)
class Line:
    """One measurement; memory in MB."""

    name: str
    wall: float
    processor: float
    memory: float


def measured(name: str, command: list[str], **environment: str) -> Line:
    """A program as a process of its own."""
    started = time.perf_counter()
    child = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{name} failed")
    return Line(name, time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def check(name: str) -> None:
    """Raise unless both tables hold the same."""
    sums = []
    for schema in world.SCHEMAS.values():
        with world.connect(SERVER, schema) as connection:
            sums.append(connection.execute(SUM.format(columns=", ".join(world.FIELDS))).fetchone())
    if sums[0] != sums[1]:
        raise SystemExit(f"{name}: the target is not what the source is: {sums}")


def piped(sorted_: bool) -> list[str]:
    """COPY | COPY as a shell command."""
    what = f"(SELECT * FROM {world.SCHEMAS['city']}.residents ORDER BY resident_id)" if sorted_ else f"{world.SCHEMAS['city']}.residents"  # fmt: skip
    out = f'psql "{SERVER}" -qc "COPY {what} TO STDOUT"'
    into = f'psql "{SERVER}" -qc "COPY {world.SCHEMAS["district"]}.residents FROM STDIN"'
    return ["bash", "-c", f"set -o pipefail; {out} | {into}"]


def by_hand() -> float:
    """What one would write with psycopg for a first load; seconds."""
    started = time.perf_counter()
    with (
        world.connect(SERVER, world.SCHEMAS["city"]) as source,
        world.connect(SERVER, world.SCHEMAS["district"]) as target,
    ):
        reads, writes = source.cursor(), target.cursor()
        with reads.copy("COPY residents TO STDOUT") as there, writes.copy("COPY residents FROM STDIN") as here:
            for row in there:
                here.write(row)
    return time.perf_counter() - started


def change_by_hand(step: int) -> float:
    """And for what changed: the rows themselves, staged and upserted; seconds."""
    started = time.perf_counter()
    with (
        world.connect(SERVER, world.SCHEMAS["city"]) as source,
        world.connect(SERVER, world.SCHEMAS["district"]) as target,
        target.transaction(),
    ):
        reads, writes = source.cursor(), target.cursor()
        writes.execute("CREATE TEMP TABLE fresh (LIKE residents) ON COMMIT DROP")
        changed = f"SELECT * FROM residents WHERE household = {step} AND name LIKE '新%'"
        with reads.copy(f"COPY ({changed}) TO STDOUT") as there, writes.copy("COPY fresh FROM STDIN") as here:
            for row in there:
                here.write(row)
        values = ", ".join(f"{name} = excluded.{name}" for name in world.FIELDS if name != "resident_id")
        writes.execute(
            f"INSERT INTO residents SELECT * FROM fresh ORDER BY resident_id ON CONFLICT (resident_id) DO UPDATE SET {values}"
        )
    return time.perf_counter() - started


def change(step: int, rows: int) -> None:
    """People at the city edit 1 % of the rows."""
    with world.connect(SERVER, world.SCHEMAS["city"]) as connection:
        connection.execute(world.CHANGE.format(step=step, rows=rows // 100))


def ours(rows: int) -> list[Line]:
    """The link, in a process of its own (`--link`), which says what it measured."""
    with tempfile.TemporaryDirectory() as folder:
        world.declare(SERVER, Path(folder), "log")
        command = [sys.executable, "-m", "benchmarks.link", str(rows), "--link", folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [Line(*line) for line in json.loads(done.stdout.splitlines()[-1])]


def run_link(rows: int, folder: str) -> None:
    """The measured process."""
    from federation.runtime import open_federation

    federation = open_federation(folder)

    def sync(expected: int) -> tuple[float, float]:
        wall, processor = time.perf_counter(), time.process_time()
        done = federation.sync_parent("resident", world.CITY)
        if done.errors or done.outcomes[0].descended != expected:
            raise SystemExit(f"the link did not do its work: {done}")
        return time.perf_counter() - wall, time.process_time() - processor

    def line(name: str, times: list[tuple[float, float]]) -> Line:
        return Line(name, *min(times), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

    lines = [line("first load: the link", [sync(rows)])]
    times = []
    for step in range(3):
        change(step, rows)
        times.append(sync(rows // 100))
    lines.append(line("1 % changed: the link", times))
    lines.append(line("nothing changed: the link", [sync(0) for _ in range(5)]))
    print(json.dumps([[found.name, found.wall, found.processor, found.memory] for found in lines]))


def peers(folder: Path) -> dict[str, list[str]]:
    """dlt and ingestr in an environment of their own: name → command that loads `residents` into the district's schema, merging by key."""
    environment = folder / "peers"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "pip", "install", "--quiet", "--python", environment / "bin/python", *PEERS], check=True)
    script = folder / "with_dlt.py"
    script.write_text(
        f"""
import dlt
from dlt.sources.sql_database import sql_table
url = "{world.url(SERVER, password="unused")}"
table = sql_table(url, table="residents", schema="{world.SCHEMAS["city"]}", backend="pyarrow")
table.apply_hints(primary_key="resident_id", write_disposition="merge")
place = dlt.destinations.postgres(url)
dlt.pipeline("benchmark", pipelines_dir="{folder}", destination=place, dataset_name="{world.SCHEMAS["district"]}").run(table)
""",
        encoding="utf-8",
    )
    url = world.url(SERVER)
    ingest = [str(environment / "bin/ingestr"), "ingest", "--yes", "--source-uri", url, "--dest-uri", url]
    ingest += ["--source-table", f"{world.SCHEMAS['city']}.residents", "--dest-table", f"{world.SCHEMAS['district']}.residents"]  # fmt: skip
    ingest += ["--incremental-strategy", "merge", "--primary-key", "resident_id"]
    return {"dlt": [str(environment / "bin/python"), str(script)], "ingestr": ingest}


def show(title: str, lines: list[Line], reference: Line) -> None:
    """One table."""
    print(f"\n{title:44} {'wall s':>8} {'cpu s':>7} {'MB':>6} {'× ref.':>7}")
    for line in lines:
        ratio = line.wall / reference.wall
        print(f"{line.name:44} {line.wall:8.3f} {line.processor:7.2f} {line.memory:6.0f} {ratio:7.2f}")


def timed(name: str, work: Callable[[], float]) -> Line:
    """Work in this process."""
    before = time.process_time()
    wall = work()
    return Line(name, wall, time.process_time() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Measure and print."""
    rows = next((int(word) for word in sys.argv[1:] if word.isdigit()), 1_000_000)
    if "--link" in sys.argv:
        return run_link(rows, sys.argv[-1])
    world.make(SERVER, rows)
    try:
        loads = []
        for sorted_ in (False, True):
            world.empty_target(SERVER)
            loads.append(measured(f"COPY | COPY{', sorted by key' * sorted_}", piped(sorted_)))
            check(loads[-1].name)
        world.empty_target(SERVER)
        loads.append(timed("psycopg by hand", by_hand))
        check(loads[-1].name)
        changes = []
        for step in (6, 7, 8):
            change(step, rows)
            changes.append(timed("psycopg by hand, ON CONFLICT", lambda step=step: change_by_hand(step)))
            check(changes[-1].name)
        best = min(changes, key=lambda line: line.wall)
        if "--peers" in sys.argv:
            with tempfile.TemporaryDirectory() as folder:
                for name, command in peers(Path(folder)).items():
                    with world.connect(SERVER, world.SCHEMAS["district"]) as connection:
                        connection.execute("DROP TABLE IF EXISTS residents")
                    loads.append(measured(name, command))
                    check(name)
        world.empty_target(SERVER)
        first, changed, quiet = ours(rows)
        check("the link")
        print(f"{rows:,} rows × {len(world.FIELDS)} columns")
        show("first load", [*loads, first], loads[0])
        show("1 % changed", [best, changed], best)
        show("nothing changed", [quiet], quiet)
    finally:
        world.drop(SERVER)


if __name__ == "__main__":
    main()
