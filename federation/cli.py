"""`fedsync`: the command of data engineers and operators. Parses, calls the engine, reports; decides nothing itself.

Exit codes: 0 done; 1 something needs a person (a link failed or is held, a problem in the declaration); 2 the command was
not understood. `--json` prints one JSON document on standard output and nothing else there.
"""

from __future__ import annotations

import getpass
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import BaseModel
from rich.markup import escape

from federation import logformat
from federation.cli_alert import alert_app
from federation.cli_backup import backup, health, restore
from federation.cli_common import HERE, FileOption, JsonOption, error_as_json, out, reporting, table, tell
from federation.cli_erase import erase
from federation.cli_gate import gate_app
from federation.cli_hosted import hosted_app
from federation.cli_metrics import metrics
from federation.cli_pause import pause, resume
from federation.cli_quality import quality_app
from federation.cli_quarantine import asked, close, export, purge, waive, waivers_of
from federation.cli_reconcile import reconcile
from federation.cli_rulings import contest_app, correction_app
from federation.cli_systems import system_app
from federation.cli_trace import trace
from federation.errors import DeclarationError

if TYPE_CHECKING:
    from federation.config import Config
    from federation.ledger.quarantine import Item

app = typer.Typer(
    name="fedsync",
    help="四级数据联邦同步引擎 / Four-level data federation sync engine. 退出码 / exit codes: 0 完成 done, 1 需要处理 needs attention, 2 用法错误 usage.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
quarantine_app = typer.Typer(help="隔离的记录 / records set aside by a gate", no_args_is_help=True)
link_app = typer.Typer(help="链路 / links", no_args_is_help=True)
example_app = typer.Typer(help="示例联邦 / the sample federation", no_args_is_help=True)
for top in (trace, metrics, backup, restore, health, pause, resume, erase, reconcile):
    app.command(top.__name__)(top)
for command in (waive, close, export, purge):
    quarantine_app.command(command.__name__)(command)
app.add_typer(alert_app, name="alert")
app.add_typer(gate_app, name="gate")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(quality_app, name="quality")
app.add_typer(correction_app, name="correction")
app.add_typer(contest_app, name="contest")
app.add_typer(hosted_app, name="hosted")
app.add_typer(link_app, name="link")
app.add_typer(system_app, name="system")
app.add_typer(example_app, name="example")


@app.callback()
def options(
    log_format: Annotated[
        Literal["text", "json"] | None,
        typer.Option(envvar="FEDSYNC_LOG_FORMAT", help="在标准错误输出运行日志 / write a log to standard error"),
    ] = None,
) -> None:
    """四级数据联邦同步引擎 / Four-level data federation sync engine. 退出码 / exit codes: 0 完成 done, 1 需要处理 needs attention, 2 用法错误 usage."""
    if log_format is not None:
        logformat.configure(log_format)


@app.command()
def check(file: FileOption = HERE, as_json: JsonOption = False) -> None:
    """校验声明 / Validate the declaration: YAML, regions, connectors' options, suites."""
    from federation.runtime import check as check_declaration

    with reporting(as_json):
        config, problems = check_declaration(file)
        if problems:
            raise DeclarationError(
                f"{len(problems)} problem(s)",
                f"有 {len(problems)} 处问题",
                problems=tuple(problems),
                file=config.file.path,
            )
    links = sum(1 for _ in config.all_links())
    if as_json:
        typer.echo(
            json.dumps(
                {"ok": True, "regions": len(config.tree), "datasets": list(config.datasets), "links": links},
                ensure_ascii=False,
            )
        )
    else:
        out.print(
            f"[green]✓[/green] {config.spec.name}: {len(config.tree)} 区划 regions · {len(config.datasets)} 数据集 datasets · {links} 链路 links"
        )


@app.command()
def schema(kind: Annotated[str, typer.Argument(help="federation | dataset")] = "federation") -> None:
    """输出 JSON Schema（供编辑器补全）/ Print the JSON Schema of the declaration, for editors."""
    from federation.config import FederationSpec
    from federation.contract import Dataset

    kinds: dict[str, type[BaseModel]] = {"federation": FederationSpec, "dataset": Dataset}
    if kind not in kinds:
        raise typer.BadParameter(f"one of: {', '.join(kinds)}")
    typer.echo(json.dumps(kinds[kind].model_json_schema(), ensure_ascii=False, indent=2))


@app.command()
def sync(
    file: FileOption = HERE,
    dataset: Annotated[str | None, typer.Option(help="只同步此数据集 / only this dataset")] = None,
    region: Annotated[
        str | None, typer.Option(help="只同步此区划内外的链路 / only links in and above this region")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="比对全部主键 / compare all keys, not only what changed")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """不经 Airflow 执行一次完整级联 / Run a cascade without Airflow, down and up, until nothing moves.

    --region 与 --full 并用：仅重新比对该区划（补数）/ --region with --full: a backfill of that region alone.
    """
    from federation import runlog
    from federation.backfill import backfill
    from federation.runtime import finish_erasures, open_federation

    with reporting(as_json):
        federation = open_federation(file)
        if region is not None:
            federation.config.tree[region]
        names = federation.config.named(dataset)
        progress = runlog.progress(logging.getLogger(logformat.NAME)) if logformat.active() else None
        results = {
            name: backfill(federation, name, region, progress=progress)
            if full and region
            else federation.cascade(name, region, force_full=full, progress=progress)
            for name in names
        }
        finish_erasures(federation, getpass.getuser())
    errors = [error for result in results.values() for error in result.errors.values()]
    skipped = {link: why for result in results.values() for link, why in result.skipped.items()}
    totals = {name: _totals(result.outcomes) for name, result in results.items()}
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "ok": not errors,
                    "datasets": totals,
                    "skipped": skipped,
                    "errors": [error_as_json(e) for e in errors],
                },
                ensure_ascii=False,
            )
        )
    else:
        out.print(
            table(
                "同步 / sync",
                ["数据集 dataset", "回流 descended", "上报 ascended", "删除 removed", "隔离 quarantined", "搁置 held"],
                [[name, *total.values()] for name, total in totals.items()],
            )
        )
        for link, why in skipped.items():
            out.print(f"[yellow]–[/yellow] {escape(link)}: {escape(why)}", soft_wrap=True, highlight=False)
        for error in errors:
            tell(error)
    if errors:
        raise typer.Exit(1)


def _totals(outcomes: list[Any]) -> dict[str, int]:
    last = {outcome.link_id: outcome for outcome in outcomes}
    return {
        "descended": sum(o.descended for o in outcomes),
        "ascended": sum(o.ascended for o in outcomes),
        "removed": sum(o.removed_below + o.removed_above for o in outcomes),
        "quarantined": sum(o.quarantined for o in last.values()),
        "held": sum(o.held for o in last.values()),
    }


@app.command()
def status(
    file: FileOption = HERE,
    dataset: Annotated[str | None, typer.Option(help="只看此数据集 / only this dataset")] = None,
    as_json: JsonOption = False,
) -> None:
    """链路状态 / Links: last run, lag, pending, quarantined; and the reach of each level."""
    from federation.report import link_lines, reach_lines
    from federation.runtime import open_federation

    with reporting(as_json):
        federation = open_federation(file)
        lines = link_lines(federation, dataset)
        reached = reach_lines(federation, dataset)
    if as_json:
        typer.echo(
            json.dumps(
                {"links": [asdict(line) for line in lines], "reach": [asdict(line) for line in reached]},
                ensure_ascii=False,
                default=str,
            )
        )
        return
    shown = [
        [
            line.link,
            line.path,
            _colour(line.state),
            line.last_run or "–",
            line.lag or "–",
            line.pending,
            line.quarantined,
            line.corrections,
        ]
        for line in lines
    ]
    out.print(
        table(
            "链路 / links",
            ["链路 link", "上级 → 下级", "状态 state", "上次 last run", "滞后 lag", "待处理 pending", "隔离", "校核"],
            shown,
        )
    )
    for line in lines:
        if line.reason:
            out.print(f"[yellow]![/yellow] {escape(line.link)}: {escape(line.reason)}", soft_wrap=True, highlight=False)
    out.print(
        table(
            "触达率 / reach",
            ["数据集 dataset", "层级 level", "触达 reached", "节点 nodes", "比例 share"],
            [[r.dataset, r.level, r.reached, r.nodes, f"{r.share:.0%}"] for r in reached],
        )
    )


def _colour(state: str) -> str:
    return f"[{ {'ok': 'green', 'held': 'yellow', 'failed': 'red', 'skipped': 'cyan'}.get(state, 'white') }]{state}[/]"


@quarantine_app.command("list")
def quarantine_list(
    file: FileOption = HERE,
    dataset: Annotated[str | None, typer.Option()] = None,
    region: Annotated[str | None, typer.Option(help="来源区划 / region of origin")] = None,
    as_json: JsonOption = False,
) -> None:
    """列出被隔离的记录及原因（原因可含填写的值，会留痕）/ List the records that are set aside and why; a reason may quote a value, so it leaves a line in the audit trail."""
    from federation.quarantined import UNDECLARED
    from federation.runtime import open_federation

    with reporting(as_json):
        federation = open_federation(file)
        items = asked(federation.services, dataset, region)
        opened = [federation.services.quarantine.open(item) for item in items]
        ways = [_way(federation.config, item) for item in items]
        if items:  # a reason quotes what a record holds
            told_of = json.dumps({"lines": len(items), "dataset": dataset, "region": region})
            with federation.services.ledger.transaction() as connection:
                federation.services.ledger.audit(
                    connection, getpass.getuser(), "quarantine.list", dataset or "*", told_of
                )
    if as_json:
        told = [
            {**_about(item), **way, "reason_zh": why.reason_zh, "reason_en": why.reason_en}
            for item, way, why in zip(items, ways, opened)
        ]
        typer.echo(json.dumps(told, ensure_ascii=False, default=str))
        return
    told_words = {
        "open": "已告知 told",
        "replay": "已告知 told",
        "closed": "待告知 not yet",
        "nowhere": "无处显示 nowhere",
    }
    rows = [
        [
            i.item_id[:10],
            i.dataset,
            way["stopped"],
            " → ".join(way["returned"]),
            told_words.get(i.shown or "", "待告知 not yet"),
            i.key,
            why.reason_zh,
            i.state if way["declared"] else f"{i.state}；{UNDECLARED}",
        ]
        for i, way, why in zip(items, ways, opened)
    ]
    heads = ["编号 id", "数据集", "止于 stopped at", "退回 returned", "告知 told", "主键 key", "原因 reason", "状态"]
    out.print(table("隔离 / quarantine", heads, rows))


def _way(config: Config, item: Item) -> dict[str, Any]:
    """Where an item was stopped, which regions its return passes on its way to where it came from, and whether any run will read it."""
    from federation.quarantined import declared
    from federation.returning import hop_of, way_back

    contract = config.datasets.get(item.dataset)
    if contract is None:
        return {"stopped": item.link_id, "returned": [], "declared": False}
    regions = [region.name for region in way_back(item, contract, config.tree)]
    return {"stopped": hop_of(item, contract, config.tree), "returned": regions, "declared": declared(config, item)}


def _about(item: Item) -> dict[str, Any]:
    return {name: value for name, value in asdict(item).items() if name != "payload" and value is not None}


@quarantine_app.command("show")
def quarantine_show(item: str, file: FileOption = HERE, as_json: JsonOption = False) -> None:
    """查看一条被隔离的记录（含内容，会留痕）/ Show one record with its content; leaves a line in the audit trail."""
    from federation.runtime import open_federation

    with reporting(as_json):
        federation = open_federation(file)
        quarantine = federation.services.quarantine
        found = quarantine.find(item)
        opened = quarantine.open(found)
        with federation.services.ledger.transaction() as connection:
            federation.services.ledger.audit(connection, getpass.getuser(), "quarantine.show", found.item_id)
        waived = waivers_of(federation, found.item_id)
    about = {**_about(found), "reason_zh": opened.reason_zh, "reason_en": opened.reason_en}
    if as_json:
        told = {**about, "record": opened.record, "waivers": waived}
        typer.echo(json.dumps(told, ensure_ascii=False, default=str))
        return
    out.print(table(found.item_id, ["", ""], [list(line) for line in about.items()]))
    out.print(table("记录 / record", ["字段 field", "值 value"], [list(line) for line in opened.record.items()]))
    for one in waived:
        out.print(table("豁免 / waiver", ["", ""], [list(line) for line in one.items()]))


@quarantine_app.command("replay")
def quarantine_replay(item: str, file: FileOption = HERE, as_json: JsonOption = False) -> None:
    """下次运行时重新读取并判定 / Read and judge the record anew at its link's next run."""
    from federation.quarantined import replay
    from federation.runtime import open_federation

    with reporting(as_json):
        found = replay(open_federation(file).services, item, getpass.getuser())
    typer.echo(
        json.dumps({"ok": True, "item_id": found.item_id}) if as_json else f"✓ {found.item_id} → {found.link_id}"
    )


@link_app.command("release")
def link_release(link: str, file: FileOption = HERE, as_json: JsonOption = False) -> None:
    """放行被拦截的链路一次 / Let a held link's next run pass its guards once."""
    from federation.runtime import open_federation

    with reporting(as_json):
        open_federation(file).services.links.release(link, getpass.getuser())
    typer.echo(json.dumps({"ok": True, "link": link}) if as_json else f"✓ {link}")


@example_app.command("create")
def example_create(
    folder: Path,
    residents: Annotated[int, typer.Option(help="居民数 / how many residents")] = 600,
    seed: int = 20261123,
) -> None:
    """生成示例联邦及其业务系统 / Create the sample federation and its systems in a folder."""
    from examples.beijing.build import create

    with reporting(False):
        made = create(folder, residents=residents, seed=seed)
    out.print(f"[green]✓[/green] {made}\n  fedsync check -f {folder}")


def main() -> None:
    """Entry point of the `fedsync` command."""
    app()


if __name__ == "__main__":
    main()
