"""`fedsync gate …`: which rules a dataset's gate has, and a first suite for one that has none."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from federation.cli_common import HERE, FileOption, JsonOption, out, reporting, table
from federation.errors import FedsyncError
from federation.newfile import exists_already, not_writable

if TYPE_CHECKING:
    from federation.gate import RulePlan

gate_app = typer.Typer(help="质量门与规则 / gates and their rules", no_args_is_help=True)
_SEVERITY_ZH = {"critical": "严重 critical", "warning": "提醒 warning", "info": "提示 info"}


@gate_app.command("explain")
def gate_explain(
    dataset: Annotated[str, typer.Argument(help="数据集 / its name")],
    file: FileOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """说明每条规则在哪里执行、为什么 / Say of each rule where it runs, why, and what people read."""
    from federation.config import load
    from federation.gate import Gate

    with reporting(as_json):
        config = load(file)
        contract = config.dataset(dataset)
        if contract.suite is None:
            raise FedsyncError(
                f"{dataset} has no suite: everything passes",
                f"{dataset} 没有质量规则，全部放行",
                todo="fedsync gate suggest",
                dataset=dataset,
            )
        plans = Gate.load(config.suites / contract.suite, contract, datasets=config.datasets).explain()
    if as_json:
        typer.echo(json.dumps([asdict(plan) for plan in plans], ensure_ascii=False))
        return
    heads = ["规则 rule", "字段 columns", "级别 severity", "执行 runs", "条件 condition", "原因 reason"]
    out.print(table(f"{contract.label} / {dataset}", heads, [_line(plan) for plan in plans]))


def _line(plan: RulePlan) -> list[Any]:
    where = "编译 compiled" if plan.runs == "compiled" else f"Great Expectations: {plan.why}"
    if plan.check:
        where += f"\n+ 检查 check {plan.check}"
    return [
        plan.rule.partition("(")[0].removeprefix("expect_"),
        ", ".join(plan.columns),
        _SEVERITY_ZH[plan.severity],
        where,
        plan.condition or "–",
        f"{plan.reason_zh}\n{plan.reason_en}",
    ]


@gate_app.command("suggest")
def gate_suggest(
    dataset: Annotated[str, typer.Argument(help="数据集 / its name")],
    region: Annotated[
        str, typer.Argument(help="区划代码：以该节点的数据为样本 / code of the region whose node is read")
    ],
    file: FileOption = HERE,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="写入此文件（不覆盖）/ write to this file; never overwrites")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """由节点现有数据拟一份规则集，供人修改 / Draft a suite from a node's data, for a human to edit; no personal value gets into it."""
    from federation.gate_suggest import suggest
    from federation.runtime import open_federation

    with reporting(as_json):
        federation = open_federation(file)
        contract = federation.config.dataset(dataset)
        with federation.node(dataset, region) as node:
            rows = node.changes(None).rows
        suite = suggest(contract, rows, federation.config.tree, federation.services.now())
        written = json.dumps(suite, ensure_ascii=False, indent=2) + "\n"
        if output is not None:
            _write(output, written)
    if output is None:
        typer.echo(written, nl=False)
        return
    told = {"ok": True, "file": str(output), "rules": len(suite["expectations"]), "records": rows.num_rows}
    typer.echo(
        json.dumps(told, ensure_ascii=False)
        if as_json
        else f"✓ {output}: {told['rules']} 条规则 rules ← {told['records']} 条记录 records\n  请人工核对后启用 / have a human read it before use"
    )


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as cause:
        raise exists_already(path) from cause
    except OSError as cause:
        raise not_writable(path, cause) from cause
