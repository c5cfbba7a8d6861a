"""`make demo`: the sample federation through a real Airflow, from nothing to a report. `make up`: leave it running.

Exit code 0 only if every check of the story held.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from examples.beijing.airflow_local import ACTIVE, ROOT, LocalAirflow, running
from examples.beijing.build import PLATFORMS, create
from examples.beijing.http_platform import Faults
from examples.beijing.people import Hotline
from examples.beijing.servers import serving
from examples.beijing.story import Check, Story, open_story
from federation.config import load
from federation.ledger.schema import run as run_table
from federation.ledger.store import rows
from federation.report import link_lines, reach_lines

DEMO = ROOT / ".demo"
DATASETS = ("resident", "visit", "facility", "work_order")
DAGS = 16
PATIENCE = 600.0
"""Seconds that one act may take before the demo gives up."""

console = Console()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m examples.beijing.demo", description=__doc__)
    parser.add_argument(
        "--stay",
        action="store_true",
        help="首次下发后保持运行 / after the first delivery, leave Airflow running (make up)",
    )
    parser.add_argument(
        "--port", type=int, default=None, help="Airflow 端口 / port (default: 8080 for --stay, else a free one)"
    )
    parser.add_argument("--residents", type=int, default=240, help="居民数 / number of residents")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    try:
        held = _run(options)
    except KeyboardInterrupt:
        console.print("\n已停止，所有进程已结束 / stopped, every process has ended")
        sys.exit(0 if options.stay else 130)
    sys.exit(0 if held else 1)


def _leave(_number: int, _frame: Any) -> None:
    raise KeyboardInterrupt


def _run(options: argparse.Namespace) -> bool:
    folder = create(DEMO / "federation", residents=options.residents)
    _calm_schedules(folder)
    console.print(
        f"[bold]样例联邦 / sample federation[/bold] {folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder}"
    )
    home = DEMO / "airflow"
    shutil.rmtree(home, ignore_errors=True)
    with (
        _systems(folder) as hotline,
        running(home, folder / "federation.yaml", options.port or (8080 if options.stay else None)) as airflow,
    ):
        with console.status("启动 Airflow（约半分钟）/ starting Airflow (about half a minute)…"):
            airflow.wait_ready(DAGS)
        errors = airflow.import_errors()
        if errors:
            console.print(f"[red]DAG import errors:[/red] {errors}")
            return False
        console.print(f"[bold]Airflow[/bold] {airflow.url}")
        story = open_story(str(folder), hotline)
        return _stay(story, airflow) if options.stay else _play(story, airflow)


def _calm_schedules(folder: Path) -> None:
    """The demo starts each sweep itself; a scheduled one in between would only slow it down."""
    for path in (folder / "datasets").glob("*.yaml"):
        config = path.read_text(encoding="utf-8")
        kept = [line for line in config.splitlines() if not line.startswith("schedule:")]
        path.write_text("\n".join(kept) + '\nschedule: "0 3 * * *"\n', encoding="utf-8")
    load(folder)


@contextmanager
def _systems(folder: Path) -> Iterator[Hotline]:
    """Both HTTP platforms, busy or broken now and then, and the environment that the declaration refers to."""
    faults = Faults(busy_every=23, broken_every=41, retry_after=0.2)
    with serving(folder / PLATFORMS, hotline_faults=faults) as platforms:
        os.environ.update(
            HOTLINE_URL=platforms.hotline.url,
            HOTLINE_TOKEN=platforms.hotline_token,
            STREET_URL=platforms.street.url,
            STREET_TOKEN=platforms.street_token,
        )
        yield Hotline(platforms.hotline.url, platforms.hotline_token)


def _play(story: Story, airflow: LocalAirflow) -> bool:
    checks: list[Check] = []
    for number, act in enumerate(story.acts(), start=1):
        console.rule(f"[bold]{number}. {act.zh} / {act.en}", align="left")
        act.play()
        _sweep(airflow, act.zh)
        for check in act.check():
            checks.append(check)
            mark = "[green]✓[/green]" if check.held else "[red]✗[/red]"
            console.print(
                f"  {mark} {check.zh} / {check.en} [dim]({check.detail})[/dim]", soft_wrap=True, highlight=False
            )
    failed = [run for run in airflow.runs() if run["state"] == "failed"]
    for run in failed:
        console.print(f"[red]✗[/red] DAG {run['dag_id']} {run.get('partition_key') or ''}: {run['state']}")
    _report(story, airflow)
    held = all(check.held for check in checks) and not failed
    verdict = (
        "[green bold]故事成立 / the story held[/green bold]"
        if held
        else "[red bold]故事不成立 / the story did not hold[/red bold]"
    )
    console.print(verdict)
    return held


def _sweep(airflow: LocalAirflow, what: str) -> None:
    """Start every dataset's sweep, and wait until the cascade that it wakes has come to rest."""
    started = time.monotonic()
    known = {run["dag_run_id"] for run in airflow.runs()}
    for dataset in DATASETS:
        airflow.trigger(f"{dataset}__sweep")
    with Live(console=console, refresh_per_second=2, transient=True) as live:

        def tick(runs: list[dict[str, Any]]) -> None:
            fresh = [run for run in runs if run["dag_run_id"] not in known]
            live.update(_progress(fresh, time.monotonic() - started))

        runs = airflow.wait_quiet(PATIENCE, tick=tick)
    count = len([run for run in runs if run["dag_run_id"] not in known])
    console.print(f"  [dim]{what}：{count} 次 DAG 运行 / DAG runs, {time.monotonic() - started:.0f} s[/dim]")


def _progress(runs: list[dict[str, Any]], seconds: float) -> Text:
    states = Counter(run["state"] for run in runs)
    active = [f"{run['dag_id']}[{run.get('partition_key') or '–'}]" for run in runs if run["state"] in ACTIVE][:4]
    done = states["success"] + states["failed"]
    return Text(f"  {seconds:4.0f} s  {done}/{len(runs)}  {'  '.join(active)}", overflow="ellipsis", no_wrap=True)


def _report(story: Story, airflow: LocalAirflow) -> None:
    federation = story.federation
    moved: dict[str, Counter[str]] = {name: Counter() for name in federation.config.datasets}
    with federation.services.ledger.transaction() as connection:
        for row in rows(connection, run_table.select()):
            counts = json.loads(row["counts"])
            total = moved[row["link_id"].split("/")[0]]
            for name in ("descended", "ascended", "removed_below", "removed_above", "quarantined"):
                total[name] += counts[name]
            total["runs"] += 1
    table = Table(title="搬运 / what moved (rows × hops)", title_justify="left")
    for head in (
        "数据集 dataset",
        "回流 descended",
        "上报 ascended",
        "收回 removed",
        "隔离 quarantined",
        "链路运行 link runs",
    ):
        table.add_column(head, justify="left" if "dataset" in head else "right")
    for name, total in moved.items():
        label = federation.config.dataset(name).label
        table.add_row(
            f"{label} {name}",
            str(total["descended"]),
            str(total["ascended"]),
            str(total["removed_below"] + total["removed_above"]),
            str(total["quarantined"]),
            str(total["runs"]),
        )
    console.print(table)
    reach = Table(title="触达率 / reach", title_justify="left")
    for head in ("数据集 dataset", "层级 level", "触达 reached", "比例 share"):
        reach.add_column(head)
    for line in reach_lines(federation):
        reach.add_row(line.dataset, line.level, f"{line.reached}/{line.nodes}", f"{line.share:.0%}")
    console.print(reach)
    waiting = [line for line in link_lines(federation) if line.state != "ok"]
    for line in waiting:
        console.print(f"[yellow]![/yellow] {line.link}: {line.state} {line.reason or ''}", highlight=False)
    console.print(f"DAG 运行 / DAG runs: {len(airflow.runs())}")


def _stay(story: Story, airflow: LocalAirflow) -> bool:
    _sweep(airflow, "首次下发 / first delivery")
    console.print(f"\n[bold]Airflow[/bold]  {airflow.url}   （无需登录 / no login）")
    console.print(f"[bold]数据 / data[/bold]  {story.federation.config.home / 'data'}")
    console.print("改动任一系统后，触发 <dataset>__sweep / change any system, then trigger <dataset>__sweep")
    console.print("Ctrl-C 结束全部进程 / ends every process")
    while airflow.process.poll() is None:
        time.sleep(1)
    console.print(f"[red]Airflow ended by itself[/red]\n{airflow.tail()}")
    return False


if __name__ == "__main__":
    main()
