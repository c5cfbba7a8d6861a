"""`fedsync erase`: one person's record out of the whole federation."""

from __future__ import annotations

import getpass
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from federation.cli_common import HERE, FileOption, JsonOption, out, reporting, table

if TYPE_CHECKING:
    from federation.ledger.erasures import Erasure

STATE_ZH = {"pending": "待完成 pending", "done": "已完成 done"}


def erase(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="数据集；list 列出请求，finish 重试未完成的 / or: list, finish")
    ],
    key: Annotated[str | None, typer.Argument(help="主键 / the record's key", show_default=False)] = None,
    reason: Annotated[str, typer.Option("--reason", "-r", help="原因（加密保存）/ why; kept encrypted")] = "",
    by: Annotated[str, typer.Option("--by", help="由谁负责 / who answers for it")] = "",
    file: FileOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """删除一个人的记录：各级节点与引擎自存内容 / Erase one person's record at every node and in all that the engine keeps.

    节点不可用时保持“待完成”，下次运行继续（退出码 1）/ While a node is down it stays pending, for the next run to finish (exit code 1).
    """
    from federation.ledger.erasures import Erasures
    from federation.runtime import open_eraser, open_federation

    if key is None and dataset not in ("list", "finish"):
        raise typer.BadParameter("缺少主键 / the key is wanting", param_hint="KEY")
    with reporting(as_json):
        if key is None and dataset == "list":
            services = open_federation(file).services
            found = Erasures(services.ledger, services.keyring).all()
        elif key is None:
            found = open_eraser(file, getpass.getuser()).finish()
        else:
            found = [open_eraser(file, getpass.getuser()).erase(dataset, key, reason=reason, by=by)]
    _tell(found, as_json)
    if dataset != "list" and any(one.state == "pending" for one in found):
        raise typer.Exit(1)


def _tell(found: list[Erasure], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([as_line(one) for one in found], ensure_ascii=False, default=str))
        return
    heads = ["编号 id", "数据集", "主键指纹 key fingerprint", "负责 by", "状态 state", "请求 asked", "完成 finished"]
    lines = [
        [
            one.erasure_id[:10],
            one.dataset,
            one.key_fp[:16],
            one.asked_by,
            STATE_ZH[one.state],
            f"{one.at:%Y-%m-%d %H:%M}",
            f"{one.finished:%Y-%m-%d %H:%M}" if one.finished else "–",
        ]
        for one in found
    ]
    out.print(table("删除 / erasures", heads, lines))
    for one in found:
        for place, why in one.waits_for.items():
            out.print(
                f"[yellow]![/yellow] {one.erasure_id[:10]} {place}: {escape(why)}", soft_wrap=True, highlight=False
            )


def as_line(erasure: Erasure) -> dict[str, Any]:
    """What may be told of an erasure: neither the key nor the reason."""
    names = ("erasure_id", "dataset", "key_fp", "asked_by", "state", "at", "tried", "finished")
    return {**{name: getattr(erasure, name) for name in names}, "waits": erasure.waits_for}
