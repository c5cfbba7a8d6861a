"""The whole of Beijing (1 city, 16 districts, 349 streets, 7 535 communities) × four datasets in one federation, on one machine.

Run: `python -m benchmarks.scale [residents per community] [--datasets n] [--airflow DISTRICT]`. Systems: see `benchmarks.scale_world`.

Prints, for each of the first n datasets (default 1; each costs a first load of 7 900 links):
- what Airflow does again and again: parsing the DAG file (seconds, peak memory of a fresh process; budgets 1 s and 300 MB) and its DAGs;
- the first load of all links, in one process, and what one link of it costs;
- a sweep with nothing changed (budget 60 s a dataset), and one link without news (budget 50 ms);
- 1 % of the residents edited at the city, until each community holds its own.

The first load and the change run in one process, one link after the other: workers divide this by their number. With `--airflow`, one district alone goes through a real Airflow (LocalExecutor) on this machine:
what scheduling costs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import scale_world as world
from examples.beijing.airflow_local import running
from federation.federation import Federation
from federation.runtime import open_federation

PARSE = """
import json, resource, sys, time
started = time.perf_counter()
import airflow.sdk
from fedsync_airflow.factory import build_dags
from federation.config import load
began = time.perf_counter()
dags = list(build_dags(load(sys.argv[1])))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([began - started, time.perf_counter() - began, peak, len(dags)]))
"""


def parsed(folder: Path) -> list[float]:
    """Of a fresh process: seconds of Airflow's own imports, seconds from the declaration to DAGs, MB, number of DAGs."""
    root = Path(__file__).resolve().parents[1]
    path = os.pathsep.join(str(root / name) for name in ("", "dags", "plugins"))
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "PYTHONPATH": path, "AIRFLOW_HOME": home, "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            [sys.executable, "-c", PARSE, str(folder)], env=environment, check=True, capture_output=True, text=True
        )
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def line(name: str, text: str) -> None:
    """One finding."""
    print(f"{name:44} {text}", flush=True)


class Measured:
    """One dataset of an opened federation."""

    def __init__(self, federation: Federation, folder: Path, dataset: str) -> None:
        self.federation, self.folder, self.dataset = federation, folder, dataset

    def all(self) -> None:
        """First load, sweep, a quiet link, a change, and a sweep again."""
        self.cascade("first load")
        self.sweep()
        self.quiet()
        changed = world.edit(self.folder, self.dataset, 1)
        self.cascade(f"{changed} rows edited at the city")
        self.sweep()

    def cascade(self, what: str) -> None:
        """Until nothing moves."""
        started, used = time.perf_counter(), time.process_time()
        result = self.federation.cascade(self.dataset)
        wall, processor = time.perf_counter() - started, time.process_time() - used
        if result.errors:
            raise SystemExit(f"{len(result.errors)} links failed, the first: {next(iter(result.errors.items()))}")
        runs, rows = len(result.outcomes), sum(outcome.descended for outcome in result.outcomes)
        line(
            f"{self.dataset}: {what}",
            f"{wall:.1f} s ({processor:.1f} s of processor), {rows} rows down, {runs} link runs, {wall / runs * 1000:.0f} ms each",
        )

    def sweep(self) -> None:
        """With no news anywhere."""
        links, started = len(list(self.federation.config.all_links(self.dataset))), time.perf_counter()
        news = self.federation.sweep(self.dataset)
        if any(news.parents.values()) or news.unreachable:
            raise SystemExit(f"a sweep finds news where there is none: {news}")
        line(
            f"{self.dataset}: sweep, nothing changed (60 s)", f"{time.perf_counter() - started:.1f} s for {links} links"
        )

    def quiet(self) -> None:
        """The links of one street, without news."""
        street = next(iter(self.federation.config.tree.at("street")))
        started = time.perf_counter()
        runs = len(self.federation.sync_parent(self.dataset, street.code).outcomes)
        line(f"{self.dataset}: a link without news (50 ms)", f"{(time.perf_counter() - started) / runs * 1000:.1f} ms")


def through_airflow(folder: Path, dataset: str) -> None:
    """One district of the city under a real Airflow on this machine: a sweep with nothing changed, then 1 % edited at the city."""
    federation = open_federation(folder)
    try:
        if federation.cascade(dataset).errors or any(federation.sweep(dataset).parents.values()):
            raise SystemExit("the district did not come to rest")
    finally:
        federation.close()
    with running(folder / "airflow", folder / "federation.yaml") as airflow:
        airflow.wait_ready(len(world.DATASETS) * 6 + 5)

        def swept(what: str) -> None:
            before = {run["dag_run_id"] for run in airflow.runs()}
            started = time.perf_counter()
            airflow.trigger(f"{dataset}__sweep")
            runs = [run for run in airflow.wait_quiet(timeout=1800.0) if run["dag_run_id"] not in before]
            if {run["state"] for run in runs} != {"success"}:
                raise SystemExit(f"{what}: not all runs succeeded")
            line(f"{dataset}: {what}", f"{time.perf_counter() - started - 6:.0f} s, {len(runs)} DAG runs")

        swept("sweep through Airflow, nothing changed")
        changed = world.edit(folder, dataset, 1)
        swept(f"{changed} rows edited, sweep to communities")


def main() -> None:
    """Build the world, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("residents", type=int, nargs="?", default=20)
    parser.add_argument("--datasets", type=int, default=1, choices=range(1, len(world.DATASETS) + 1))
    parser.add_argument("--airflow", metavar="DISTRICT", help="only this district (12 digits), through a real Airflow")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.airflow:
            world.declare(Path(folder), given.residents, district=given.airflow)
            through_airflow(Path(folder), next(iter(world.DATASETS)))
            return
        world.declare(Path(folder), given.residents)
        imports, seconds, memory, dags = min(parsed(Path(folder)) for _ in range(3))
        line("Airflow's own imports", f"{imports:.2f} s")
        line("declaration → DAGs (1 s, 300 MB)", f"{seconds:.2f} s, {memory:.0f} MB at most, {dags:.0f} DAGs")
        federation = open_federation(folder)
        try:
            for dataset in list(world.DATASETS)[: given.datasets]:
                Measured(federation, Path(folder), dataset).all()
        finally:
            federation.close()
    line("peak memory of the process", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
