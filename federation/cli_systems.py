"""`fedsync system …`: the systems themselves, past any link."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from federation.cli_common import HERE, FileOption, JsonOption, error_as_json, out, reporting, table, tell
from federation.cli_probe import probe
from federation.errors import DeclarationError, FedsyncError

if TYPE_CHECKING:
    from federation.config import Binding, Config

system_app = typer.Typer(help="业务系统 / systems", no_args_is_help=True)
system_app.command("probe")(probe)


@system_app.command("pools")
def system_pools(file: FileOption = HERE) -> None:
    """输出 Airflow 资源池，限制同时访问一个系统的任务数 / Print the pools that keep too many tasks from one system at a time.

    `fedsync system pools > pools.json && airflow pools import pools.json`
    """
    from federation.config import load
    from federation.pools import dumped

    with reporting(False):
        typer.echo(dumped(load(file)))


@system_app.command("prepare")
def system_prepare(
    regions: Annotated[
        list[str] | None,
        typer.Argument(help="区划代码，缺省为全部 / codes of regions; default: all", metavar="REGION"),
    ] = None,
    file: FileOption = HERE,
    dataset: Annotated[str | None, typer.Option(help="只处理此数据集 / only this dataset")] = None,
    as_json: JsonOption = False,
) -> None:
    """在各节点建立同步所需的表、文件、列与触发器 / Make what a sync needs at the nodes: tables, files, columns, triggers.

    首次同步也会这样做；已有的不改动 / The first sync does the same; what stands is left alone.
    """
    from federation.runtime import open_federation

    nodes: list[dict[str, Any]] = []
    errors: list[FedsyncError] = []
    with reporting(as_json):
        federation = open_federation(file)
        for binding in _chosen(federation.config, regions or [], dataset):
            place = {"dataset": binding.dataset.name, "region": binding.region.code, "system": binding.system}
            try:
                with federation.node(binding.dataset.name, binding.region.code) as connector:
                    made = connector.prepare()
            except FedsyncError as error:
                errors.append(error)
            else:
                nodes.append({**place, "made": list(made)})
    if as_json:
        told = {"ok": not errors, "nodes": nodes, "errors": [error_as_json(failed) for failed in errors]}
        typer.echo(json.dumps(told, ensure_ascii=False))
    else:
        for node in nodes:
            where = f"{node['dataset']} {federation.config.tree[node['region']]} {node['system']}"
            what = "；".join(node["made"]) or "已具备 already there"
            out.print(f"[green]✓[/green] {escape(where)}: {escape(what)}", soft_wrap=True, highlight=False)
        for failed in errors:
            tell(failed)
    if errors:
        raise typer.Exit(1)


@system_app.command("unprepare")
def system_unprepare(
    system: Annotated[str, typer.Argument(help="systems 中的名称 / its name under `systems`")],
    file: FileOption = HERE,
    region: Annotated[str | None, typer.Option(help="只处理此区划的节点 / only this region's node")] = None,
    dataset: Annotated[str | None, typer.Option(help="只处理此数据集 / only this dataset")] = None,
    as_json: JsonOption = False,
) -> None:
    """移除 prepare 在系统数据上建立的触发器、函数与变更表 / Remove what `prepare` put onto a system's data: triggers, function, change table.

    下一次同步若仍声明 capture: log，会重新建立 / A sync that still finds `capture: log` declared makes them anew.
    """
    from federation.runtime import open_federation

    done: list[Binding] = []
    errors: list[FedsyncError] = []
    with reporting(as_json):
        federation = open_federation(file)
        for binding in _bindings(federation.config, system, region, dataset):
            try:
                with federation.node(binding.dataset.name, binding.region.code) as connector:
                    connector.unprepare()
            except FedsyncError as error:
                errors.append(error)
            else:
                done.append(binding)
    names = [{"dataset": binding.dataset.name, "region": binding.region.code} for binding in done]
    if as_json:
        told = {"ok": not errors, "unprepared": names, "errors": [error_as_json(failed) for failed in errors]}
        typer.echo(json.dumps(told, ensure_ascii=False))
    else:
        heads = ["数据集 dataset", "区划 region"]
        out.print(table(system, heads, [[binding.dataset.name, str(binding.region)] for binding in done]))
        for failed in errors:
            tell(failed)
    if errors:
        raise typer.Exit(1)


def _chosen(config: Config, regions: list[str], dataset: str | None) -> list[Binding]:
    """The nodes of these regions, of all if none is named. Raises DeclarationError if there is none."""
    for code in regions:
        config.tree[code]
    found = config.bindings(None if dataset is None else config.dataset(dataset).name)
    chosen = [binding for binding in found if not regions or binding.region.code in regions]
    if not chosen:
        raise DeclarationError(
            "there is no such node",
            "没有这样的节点",
            todo="检查 nodes / look at `nodes`",
            region=", ".join(regions),
            file=config.file.path,
        )
    return chosen


def _bindings(config: Config, system: str, region: str | None, dataset: str | None) -> list[Binding]:
    """The nodes of a system. Raises DeclarationError if there is none."""
    if region is not None:
        config.tree[region]
    name = None if dataset is None else config.dataset(dataset).name
    found = [
        binding
        for binding in config.bindings(name)
        if binding.system == system and region in (None, binding.region.code)
    ]
    if not found:
        raise DeclarationError(
            f"no such node in the system {system}",
            f"业务系统 {system} 没有相应节点",
            todo=f"取值 / one of: {', '.join(config.spec.systems)}",
            file=config.file.path,
        )
    return found
