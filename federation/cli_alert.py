"""`fedsync alert …`: what people were told, telling them without Airflow, and trying a channel."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from federation.cli_common import HERE, FileOption, JsonOption, error_as_json, out, reporting, table, tell

alert_app = typer.Typer(help="告警 / alerts: what needs a person", no_args_is_help=True)


@alert_app.command("test")
def alert_test(channel: str, file: FileOption = HERE, as_json: JsonOption = False) -> None:
    """向一个通道发送测试消息 / Send a test message through a channel."""
    from federation.alerting import try_channel
    from federation.config import load

    with reporting(as_json):
        try_channel(load(file), channel)
    typer.echo(json.dumps({"ok": True, "channel": channel}) if as_json else f"✓ {channel}")


@alert_app.command("check")
def alert_check(
    file: FileOption = HERE,
    dataset: Annotated[str | None, typer.Option(help="只看此数据集 / only this dataset")] = None,
    as_json: JsonOption = False,
) -> None:
    """检查链路与校核，发送到期的告警与恢复通知 / Look at links and corrections, tell the channels what is due: without Airflow, from cron."""
    from federation.alerting import check
    from federation.runtime import open_federation

    with reporting(as_json):
        federation = open_federation(file)
        names = federation.config.named(dataset)
        rounds = {name: check(federation, name) for name in names}
    errors = [error for told in rounds.values() for error in told.errors.values()]
    counts = {
        name: {
            "standing": told.standing,
            "sent": sum(map(len, told.sent.values())),
            "swallowed": told.swallowed,
            "cleared": sum(map(len, told.cleared.values())),
        }
        for name, told in rounds.items()
    }
    if as_json:
        said = {"ok": not errors, "datasets": counts, "errors": [error_as_json(error) for error in errors]}
        typer.echo(json.dumps(said, ensure_ascii=False))
    else:
        heads = ["数据集 dataset", "现有 standing", "已发 sent", "省略 swallowed", "恢复 over"]
        out.print(table("告警 / alerts", heads, [[name, *told.values()] for name, told in counts.items()]))
        for error in errors:
            tell(error)
    if errors:
        raise typer.Exit(1)


@alert_app.command("list")
def alert_list(file: FileOption = HERE, as_json: JsonOption = False) -> None:
    """列出未恢复的告警 / List the alerts that are not over."""
    from federation.ledger.alerts import AlertLog
    from federation.runtime import open_federation

    with reporting(as_json):
        federation = open_federation(file)
        found = AlertLog(federation.services.ledger).standing()
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], ensure_ascii=False, default=str))
        return
    rows = [
        [
            one.kind,
            one.title_zh,
            one.channel,
            f"{one.raised.astimezone():%m-%d %H:%M}",
            f"{one.sent.astimezone():%m-%d %H:%M}" if one.sent else "–",
            one.swallowed,
        ]
        for one in found
    ]
    out.print(
        table(
            "告警 / alerts",
            ["类别 kind", "对象 subject", "通道 channel", "自 since", "已发 sent", "省略 swallowed"],
            rows,
        )
    )
