"""`fedsync correction …` and `fedsync contest …`: what people rule on."""

from __future__ import annotations

import getpass
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from federation.cli_common import HERE, FileOption, JsonOption, out, refuse_unknown, reporting, table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from federation.federation import Federation
    from federation.ledger.contests import Contest
    from federation.ledger.corrections import Correction

correction_app = typer.Typer(
    help="校核：对权威值的更正建议 / corrections proposed to an authority", no_args_is_help=True
)
contest_app = typer.Typer(help="争议：两个下级登记同一主键 / keys that two children claim", no_args_is_help=True)

DatasetOption = Annotated[str | None, typer.Option(help="只看此数据集 / only this dataset")]
ReasonOption = Annotated[
    str, typer.Option("--reason", "-r", help="理由，随结果返回提出方 / why; goes back with the outcome")
]
SEALED = ("payload", "ruling", "proposed_fp", "basis_fp", "group_fp", "asked_fp")


@correction_app.command("list")
def correction_list(
    file: FileOption = HERE,
    dataset: DatasetOption = None,
    region: Annotated[
        str | None, typer.Option(help="待其裁定或由其提出 / to be ruled on there, or raised there")
    ] = None,
    state: Annotated[
        str | None, typer.Option(help="raised waiting overdue accepted rejected superseded withdrawn logged")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """列出校核 / List corrections that have not ended; with --state, all in that state."""
    from federation.correcting import shown_state

    with reporting(as_json):
        federation = _open(file)
        corrections, now = federation.services.corrections, federation.services.ledger.clock()
        found = corrections.active(dataset, state=None if state == "overdue" else state)
        refuse_unknown(federation.config, dataset, region, found)
        shown = [(c, shown_state(c, now)) for c in found if region is None or region in (c.target, c.raised_by)]
        if state == "overdue":
            shown = [(c, told) for c, told in shown if told == "overdue"]
    if as_json:
        typer.echo(json.dumps([{**_about(c), "state": told} for c, told in shown], ensure_ascii=False, default=str))
        return
    tree = federation.config.tree
    rows = [
        [
            c.correction_id[:10],
            c.dataset,
            c.key,
            _fields(federation, c.dataset, c.names) or c.kind,
            tree.name_of(c.raised_by),
            tree.name_of(c.target),
            tree.name_of(c.at),
            told,
            c.due or "–",
        ]
        for c, told in shown
    ]
    heads = [
        "编号 id",
        "数据集",
        "主键 key",
        "内容 what",
        "提出 raised by",
        "权威 authority",
        "现在 at",
        "状态 state",
        "期限 due",
    ]
    out.print(table("校核 / corrections", heads, rows))


def _fields(federation: Federation, dataset: str, names: Sequence[str]) -> str:
    """The labels of fields; the names themselves where they are declared no more."""
    known = federation.config.datasets.get(dataset)
    fields = known.fields if known is not None else {}
    return "、".join(fields[name].label if name in fields else name for name in names)


@correction_app.command("show")
def correction_show(correction: str, file: FileOption = HERE, as_json: JsonOption = False) -> None:
    """查看一条校核（含内容，会留痕）/ Show one correction with its values; leaves a line in the audit trail."""
    with reporting(as_json):
        federation = _open(file)
        found = federation.services.corrections.find(correction)
        opened = federation.services.corrections.open(found)
        _audit(federation, "correction.show", found.correction_id)
    about = {**_about(found), "way": found.way, "reason": opened.reason}
    if as_json:
        values = {"proposed": opened.proposed, "current": opened.current}
        typer.echo(json.dumps({**about, **values}, ensure_ascii=False, default=str))
        return
    out.print(table(found.correction_id, ["", ""], [list(line) for line in about.items()]))
    fields = federation.config.dataset(found.dataset).fields
    lines = [[fields[n].label, opened.current.get(n, "–"), opened.proposed.get(n, "–")] for n in found.names]
    out.print(table("内容 / values", ["字段 field", "现值 current", "建议 proposed"], lines))


@correction_app.command("accept")
def correction_accept(
    correction: str, reason: ReasonOption = "", file: FileOption = HERE, as_json: JsonOption = False
) -> None:
    """采纳：写入权威方系统 / Accept: the value is written at the authority, and goes from there to all levels."""
    _rule(correction, "accepted", reason, file, as_json)


@correction_app.command("reject")
def correction_reject(
    correction: str,
    reason: Annotated[str, typer.Option("--reason", "-r", help="理由（必填）/ why (required)")],
    file: FileOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """驳回：理由返回提出方 / Reject: the reason travels back to whoever raised it."""
    _rule(correction, "rejected", reason, file, as_json)


@correction_app.command("withdraw")
def correction_withdraw(
    correction: str, reason: ReasonOption = "", file: FileOption = HERE, as_json: JsonOption = False
) -> None:
    """撤回尚未裁定的校核 / Take back a correction that was not ruled on yet."""
    _rule(correction, "withdrawn", reason, file, as_json)


def _rule(correction: str, verdict: str, reason: str, file: Path, as_json: bool) -> None:
    with reporting(as_json):
        ruled = _open(file).rule(correction, verdict, reason, getpass.getuser())
    told = json.dumps({"ok": True, **_about(ruled)}, ensure_ascii=False, default=str)
    typer.echo(told if as_json else f"✓ {ruled.correction_id} → {ruled.state}")


@contest_app.command("list")
def contest_list(file: FileOption = HERE, dataset: DatasetOption = None, as_json: JsonOption = False) -> None:
    """列出未了结的争议 / List the contested keys that have not ended."""
    with reporting(as_json):
        federation = _open(file)
        contests = federation.services.contests.standing(dataset)
        refuse_unknown(federation.config, dataset, None, contests)
    if as_json:
        typer.echo(json.dumps([_about(contest) for contest in contests], ensure_ascii=False, default=str))
        return
    tree = federation.config.tree
    rows = [
        [
            c.contest_id[:10],
            c.dataset,
            c.key,
            tree.name_of(c.parent),
            str(tree.regions.get(c.incumbent, c.incumbent)),
            str(tree.regions.get(c.challenger, c.challenger)),
            c.state,
        ]
        for c in contests
    ]
    heads = ["编号 id", "数据集", "主键 key", "共同上级 parent", "现持有 incumbent", "另一方 challenger", "状态 state"]
    out.print(table("争议 / contested keys", heads, rows))


@contest_app.command("show")
def contest_show(contest: str, file: FileOption = HERE, as_json: JsonOption = False) -> None:
    """查看一项争议的两份记录（会留痕）/ Show both records of a contest; leaves a line in the audit trail."""
    with reporting(as_json):
        federation = _open(file)
        found = federation.services.contests.find(contest)
        opened = federation.services.contests.open(found)
        _audit(federation, "contest.show", found.contest_id)
    if as_json:
        told = {**_about(found), "held": opened.held, "claimed": opened.claimed, "reason": opened.reason}
        typer.echo(json.dumps(told, ensure_ascii=False, default=str))
        return
    out.print(table(found.contest_id, ["", ""], [list(line) for line in _about(found).items()]))
    names = [*opened.held, *(name for name in opened.claimed if name not in opened.held)]
    fields, tree = federation.config.dataset(found.dataset).fields, federation.config.tree
    lines = [[fields[n].label, opened.held.get(n, "–"), opened.claimed.get(n, "–")] for n in names]
    out.print(
        table("两份记录 / both records", ["字段", tree.name_of(found.incumbent), tree.name_of(found.challenger)], lines)
    )


@contest_app.command("award")
def contest_award(
    contest: str,
    winner: Annotated[str, typer.Argument(help="判归的区划代码 / the code of the region that keeps the key")],
    reason: ReasonOption = "",
    file: FileOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """判归一方；另一方的记录退回更换主键 / Award the key; the other record is returned to get a key of its own."""
    with reporting(as_json):
        contests = _open(file).services.contests
        found = contests.find(contest)
        state = contests.rule(found, winner, getpass.getuser(), reason)
    told = json.dumps({"ok": True, "contest_id": found.contest_id, "state": state})
    typer.echo(told if as_json else f"✓ {found.contest_id} → {winner}")


def _open(file: Path) -> Federation:
    from federation.runtime import open_federation

    return open_federation(file)


def _audit(federation: Federation, action: str, subject: str) -> None:
    ledger = federation.services.ledger
    with ledger.transaction() as connection:
        ledger.audit(connection, getpass.getuser(), action, subject)


def _about(item: Correction | Contest) -> dict[str, Any]:
    return {name: value for name, value in asdict(item).items() if name not in SEALED and value is not None}
