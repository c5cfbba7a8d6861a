"""`fedsync quarantine waive|close|export|purge`: what a person answers for, hands on, or empties."""

from __future__ import annotations

import getpass
import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from federation.cli_common import HERE, FileOption, JsonOption, out, refuse_unknown, reporting, table

if TYPE_CHECKING:
    from federation.federation import Federation
    from federation.ledger.quarantine import Item
    from federation.services import Services


def waive(
    item: str,
    by: Annotated[str, typer.Option("--by", help="由谁负责 / who answers for it")],
    reason: Annotated[str, typer.Option("--reason", "-r", help="理由（加密保存）/ why; kept encrypted")],
    until: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="截止日（含）/ the last day")],
    file: FileOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """豁免：该记录的这一版本在期限内不受此规则限制 / Let this version of the record pass this rule until a date."""
    from federation.runtime import open_federation

    _must_say(by, reason)
    with reporting(as_json):
        waived = open_federation(file).waive(
            item, by=by.strip(), reason=reason.strip(), until=until.date(), actor=getpass.getuser()
        )
    told = {"ok": True, "item_id": waived.item_id, "link": waived.link_id, "until": until.date().isoformat()}
    typer.echo(json.dumps(told) if as_json else f"✓ {waived.item_id} → {waived.link_id}  {told['until']}")


def close(
    item: str,
    by: Annotated[str, typer.Option("--by", help="由谁负责 / who answers for it")],
    reason: Annotated[
        str,
        typer.Option(
            "--reason",
            "-r",
            help="理由（明文存入审计，勿写人名）/ why; stays readable in the audit trail: name no person",
        ),
    ],
    file: FileOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """关闭链路已不在声明中的一条 / Close a record whose link is no longer declared: no run would ever end it."""
    from federation import quarantined
    from federation.runtime import open_federation

    _must_say(by, reason)
    with reporting(as_json):
        services = open_federation(file).services
        closed = quarantined.close(services, item, by=by.strip(), reason=reason.strip(), actor=getpass.getuser())
    told = {"ok": True, "item_id": closed.item_id, "link": closed.link_id, "state": closed.state}
    typer.echo(json.dumps(told) if as_json else f"✓ {closed.item_id} → {closed.state}")


def _must_say(by: str, reason: str) -> None:
    for word, text in (("--by", by), ("--reason", reason)):
        if not text.strip():
            raise typer.BadParameter("不能为空 / must not be empty", param_hint=word)


def export(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="新文件：.xlsx 或 .csv / a new file")],
    file: FileOption = HERE,
    dataset: Annotated[str | None, typer.Option(help="只导出此数据集 / only this dataset")] = None,
    region: Annotated[str | None, typer.Option(help="来源区划 / region of origin")] = None,
    state: Annotated[
        str | None, typer.Option(help="open replay released closed；默认前两者 / default: the first two")
    ] = None,
    with_values: Annotated[
        bool, typer.Option("--with-values", help="含记录内容（个人信息）/ with what the records hold: personal data")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """导出隔离清单（会留痕）/ Write the quarantine to a file; leaves a line in the audit trail."""
    from federation.quarantine_export import CONTENTS, HEADS, STATE_ZH, check_target, lines, write
    from federation.runtime import open_federation

    if state is not None and state not in STATE_ZH:
        raise typer.BadParameter(f"取值 / one of: {', '.join(STATE_ZH)}", param_hint="--state")
    with reporting(as_json):
        services = open_federation(file).services
        check_target(target)
        items = asked(services, dataset, region, state)
        detail = {"lines": len(items), "values": with_values, "dataset": dataset, "region": region}
        with services.ledger.transaction() as connection:
            services.ledger.audit(
                connection, getpass.getuser(), "quarantine.export", target.name[:200], json.dumps(detail)
            )
        heads = (*HEADS, *CONTENTS) if with_values else HEADS
        written = write(target, heads, lines(services, items, with_values=with_values))
    told = {"ok": True, "file": str(target), "lines": written}
    typer.echo(json.dumps(told, ensure_ascii=False) if as_json else f"✓ {target}: {written}")


def purge(file: FileOption = HERE, as_json: JsonOption = False) -> None:
    """清除超过保存期限的记录内容，条目保留 / Empty the content of records past their retention; their lines stay."""
    from federation.runtime import open_federation

    with reporting(as_json):
        done = open_federation(file).purge(getpass.getuser())
    if as_json:
        typer.echo(json.dumps({"ok": True, "purged": done}))
    else:
        out.print(table("清除 / purged", ["数据集 dataset", "条数 records"], [list(line) for line in done.items()]))


def asked(services: Services, dataset: str | None, region: str | None, state: str | None = None) -> list[Item]:
    """What is set aside of a dataset, from a region; None: of any. Raises DeclarationError for one that is neither declared nor there."""
    items = services.quarantine.open_items(dataset=dataset, origin=region, state=state)
    refuse_unknown(services.config, dataset, region, items)
    return items


def waivers_of(federation: Federation, item_id: str) -> list[dict[str, Any]]:
    """The waivers of one record, their reasons unsealed, for `quarantine show`."""
    waivers = federation.services.waivers
    hidden = ("reason", "waiver_id", "item_id", "link_id", "dataset", "direction", "key")
    return [
        {**{word: told for word, told in asdict(one).items() if word not in hidden}, "reason": waivers.reason(one)}
        for one in waivers.of_item(item_id)
    ]
