"""`fedsync quality …`: the quality report by hand, and its trend."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from federation.cli_common import HERE, FileOption, JsonOption, error_as_json, out, reporting, table, tell

if TYPE_CHECKING:
    from federation.config import Config
    from federation.ledger.quality import Trend
    from federation.quality import NodeQuality

quality_app = typer.Typer(help="质量报告 / the quality report: every node's whole data", no_args_is_help=True)
DatasetArgument = Annotated[str, typer.Argument(help="数据集 / a dataset")]


@quality_app.command("run")
def quality_run(
    dataset: DatasetArgument,
    file: FileOption = HERE,
    region: Annotated[
        list[str] | None,
        typer.Option(help="只检查此区划及其下级，可重复 / only this region and those inside it; repeatable"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """用 Great Expectations 检查各节点现存的全部数据，记入台账并发布页面 / Judge all that the nodes hold, keep the counts, publish the pages."""
    from federation.quality import regions_of
    from federation.quality_pages import Site, report
    from federation.runtime import open_federation

    with reporting(as_json):
        federation = open_federation(file)
        regions = regions_of(federation, dataset, region or ())
        nodes = list(report(federation, dataset, regions))
        page = Site(federation).publish(dataset)
    errors = [error for node in nodes for error in node.errors]
    if as_json:
        told = {"ok": not errors, "page": page, "nodes": [_node(node) for node in nodes]}
        typer.echo(json.dumps({**told, "errors": [error_as_json(error) for error in errors]}, ensure_ascii=False))
    else:
        _show(dataset, nodes, federation.config)
        for error in errors:
            tell(error)
        out.print(f"→ {page}", soft_wrap=True, highlight=False)
    if errors:
        raise typer.Exit(1)


def _show(dataset: str, nodes: list[NodeQuality], config: Config) -> None:
    """The nodes where something fails; the others are counted."""
    told = [node for node in nodes if node.failing or node.errors]
    rows = [
        [
            str(config.tree[node.region]),
            node.rows if node.findings else "–",
            len(node.findings),
            node.failing or "",
            len(node.errors) or "",
        ]
        for node in told
    ]
    heads = ["节点 node", "记录 records", "规则 rules", "未通过 failing", "错误 errors"]
    out.print(table(f"质量报告 / quality: {dataset}", heads, rows))
    out.print(f"{len(nodes)} 节点 nodes: {len(nodes) - len(told)} 全部通过 hold every rule", highlight=False)


def _node(node: NodeQuality) -> dict[str, Any]:
    findings = [{**_finding(found), "share": found.share} for found in node.findings]
    return {"region": node.region, "checked_at": str(node.checked_at), "records": node.rows, "findings": findings}


def _finding(found: Any) -> dict[str, Any]:
    return {"rule": found.rule, "severity": found.severity, "evaluated": found.evaluated, "failing": found.failing}


@quality_app.command("trend")
def quality_trend(
    dataset: DatasetArgument,
    file: FileOption = HERE,
    region: Annotated[
        list[str] | None,
        typer.Option(help="只看此区划及其下级，可重复 / only this region and those inside it; repeatable"),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="也显示全部通过的规则 / also rules that always held")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """各节点各规则的最近结果，及较上次、较 30 天前的变化 / The latest result per node and rule, and its change since the last run and in 30 days."""
    from federation.ledger.quality import QualityLog
    from federation.quality import regions_of
    from federation.quality_pages import percent, points
    from federation.runtime import open_federation

    with reporting(as_json):
        federation = open_federation(file)
        wanted = regions_of(federation, dataset, region or ())
        found = QualityLog(federation.services.ledger).trend(dataset, wanted if region else None)
    order = {code: number for number, code in enumerate(wanted)}
    found = sorted((one for one in found if one.region in order), key=lambda one: order[one.region])
    if as_json:
        typer.echo(json.dumps([_trend(trend) for trend in found], ensure_ascii=False))
        return
    shown = [t for t in found if everything or t.finding.failing or t.change or t.long_change]
    names = federation.config.tree
    rows = [
        [
            str(names[t.region]),
            t.finding.rule,
            t.finding.severity,
            f"{t.finding.failing}/{t.finding.evaluated}",
            percent(t.finding.share),
            points(t.change),
            points(t.long_change),
            f"{t.checked_at.astimezone():%m-%d %H:%M}",
        ]
        for t in shown
    ]
    heads = [
        "节点 node",
        "规则 rule",
        "程度 severity",
        "条数 records",
        "比例 share",
        "较上次 since last",
        "30 天 days",
        "检查 examined",
    ]
    out.print(table(f"质量趋势 / trend: {dataset}", heads, rows))
    if len(shown) < len(found):
        out.print(f"另有 {len(found) - len(shown)} 项全部通过 / others hold: --all")


def _trend(trend: Trend) -> dict[str, Any]:
    return {
        "region": trend.region,
        **_finding(trend.finding),
        "checked_at": str(trend.checked_at),
        "share": trend.finding.share,
        "change": trend.change,
        "change_30_days": trend.long_change,
    }
