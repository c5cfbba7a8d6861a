"""`fedsync system probe`: what stands in the way of a sync at each node, and how it will go."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from federation.cli_common import HERE, FileOption, JsonOption, out, reporting

if TYPE_CHECKING:
    from connectors.findings import Finding
    from federation.config import Config
    from federation.probing import Report

MARKS = {"ok": "[green]✓[/green]", "warn": "[yellow]![/yellow]", "fail": "[red]✗[/red]"}
FEW = 3
"""Of so many nodes, all findings are shown."""


def probe(
    system: Annotated[str | None, typer.Argument(help="业务系统，缺省为全部 / a system; default: all")] = None,
    file: FileOption = HERE,
    region: Annotated[
        str | None, typer.Option(help="只检查此区划及其下级 / only this region and those inside it")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="只检查此数据集 / only this dataset")] = None,
    everything: Annotated[bool, typer.Option("--all", help="也显示正常的各项 / show what is right as well")] = False,
    as_json: JsonOption = False,
) -> None:
    """检查节点：连通、凭据、权限、结构、时钟与同步策略；不写入任何系统 / Inspect nodes: reach, credentials, rights, schema, clock, strategy; writes nothing."""
    from federation.probing import chosen, probe_nodes
    from federation.runtime import open_federation

    with reporting(as_json):
        federation = open_federation(file)
        nodes = chosen(federation.config, system, region, dataset)
        reports = []
        for report in probe_nodes(federation, nodes):
            reports.append(report)
            if not as_json:
                _show(report, federation.config, everything or len(nodes) <= FEW)
    counts = Counter(report.state for report in reports)
    if as_json:
        told = [{**asdict(report), "state": report.state} for report in reports]
        typer.echo(json.dumps({"ok": not counts["fail"], "nodes": told}, ensure_ascii=False))
    else:
        out.print(
            f"{len(reports)} 节点 nodes: {counts['ok']} 正常 ok · {counts['warn']} 注意 warn · {counts['fail']} 失败 fail"
        )
    if counts["fail"]:
        raise typer.Exit(1)


def _show(report: Report, config: Config, everything: bool) -> None:
    """One node, and what is to be said of it."""
    place = f"{report.dataset} {config.tree[report.region]} {report.system}"
    out.print(f"{MARKS[report.state]} {escape(place)}", soft_wrap=True, highlight=False)
    for found in report.findings:
        if everything or found.state != "ok":
            out.print(f"    {MARKS[found.state]} {escape(_line(found))}", soft_wrap=True, highlight=False)


def _line(found: Finding) -> str:
    from connectors.findings import AREAS

    todo = f" → {found.todo}" if found.todo else ""
    return f"{AREAS[found.area]} {found.area}: {found.zh} / {found.en}{todo}"
