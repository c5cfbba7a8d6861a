"""`fedsync reconcile`: both ends of each link compared by hand, and what differs merged again."""

from __future__ import annotations

import getpass
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from federation.cli_common import HERE, FileOption, JsonOption, error_as_json, out, reporting, table, tell

if TYPE_CHECKING:
    from federation.federation import Federation
    from federation.reconcile import Comparison


def reconcile(
    dataset: Annotated[str | None, typer.Argument(help="数据集，默认全部 / a dataset; default: all")] = None,
    file: FileOption = HERE,
    region: Annotated[
        str | None,
        typer.Option(
            help="只核对此区划内的链路，及其与上级的链路 / only links inside this region, and the one above it"
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="只核对，不合并 / compare only, merge nothing")] = False,
    keys: Annotated[
        bool, typer.Option("--keys", help="列出仍不一致的主键 / name the records that are left differing")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """核对每条链路的两端，不一致的按常规合并修复 / Compare both ends of each link; merge again what differs."""
    from federation.reconcile import Reconciler
    from federation.runtime import open_federation

    with reporting(as_json):
        federation = open_federation(file)
        if region is not None:
            federation.config.tree[region]
        names = federation.config.named(dataset)
        reconciler = Reconciler(federation, repair=not dry_run, tell_keys=keys, actor=getpass.getuser())
        told = [one for name in names for one in _compared(federation, reconciler, name, region)]
    errors = [one.error for one in told if one.error is not None]
    if as_json:
        lines = [_as_json(one) for one in told]
        typer.echo(json.dumps({"ok": not errors, "dry_run": dry_run, "links": lines}, ensure_ascii=False))
    else:
        _show(federation, told, dry_run)
        for error in errors:
            tell(error)
    if errors:
        raise typer.Exit(1)


def _compared(federation: Federation, reconciler: Any, dataset: str, region: str | None) -> list[Comparison]:
    from federation.reconcile import children, parents

    return [
        one
        for parent in parents(federation, dataset, region)
        for one in reconciler.parent(dataset, parent, children(federation, dataset, parent, region))
    ]


def _show(federation: Federation, told: list[Comparison], dry_run: bool) -> None:
    """The links where something differs; the others are counted."""
    from federation.reconcile_why import REASONS

    tree = federation.config.tree
    differing = [one for one in told if one.differed]
    rows = [
        [
            one.link,
            f"{tree[one.upper].name} → {tree[one.lower].name}",
            one.rows,
            *one.found.values(),
            "–" if dry_run else one.repaired,
            "；".join(f"{REASONS[why]} {count}" for why, count in one.explained.items()) or "",
            one.unexplained or "",
        ]
        for one in differing
    ]
    heads = [
        "链路 link",
        "上级 → 下级",
        "记录 records",
        "下级缺 missing below",
        "上级缺 missing above",
        "不同 differing",
        "已修复 repaired",
        "有原因 explained",
        "待修复 to repair" if dry_run else "原因不明 unexplained",
    ]
    if rows:
        out.print(table("核对 / reconcile", heads, rows))
    for one in differing:
        for left in one.left:
            out.print(
                f"  {one.link} {left.key} {left.kind} {REASONS.get(left.why or '', '')}".rstrip(),
                soft_wrap=True,
                highlight=False,
                markup=False,
            )
    skipped = [one for one in told if one.skipped]
    failed = [one for one in told if one.error is not None and not one.differed]
    same = len(told) - len(differing) - len(skipped) - len(failed)
    out.print(
        f"{len(told)} 链路 links: {same} 一致 agree · {len(differing)} 不一致 differ · {len(failed)} 失败 failed ·"
        f" {len(skipped)} 跳过 skipped",
        highlight=False,
    )


def _as_json(one: Comparison) -> dict[str, Any]:
    told = {**asdict(one), "error": error_as_json(one.error) if one.error is not None else None}
    return {name: value for name, value in told.items() if value is not None}
