"""`fedsync pause` and `fedsync resume`: leave a link, a region with all below it, or a system alone for a while."""

from __future__ import annotations

import getpass
import json
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

from federation.cli_common import HERE, FileOption, JsonOption, out, reporting, table

FORMATS = ["%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"]
What = Annotated[str, typer.Argument(metavar="KIND", help="link | region | system；或 / or KIND/NAME")]
Name = Annotated[
    str | None,
    typer.Argument(help="链路编号、区划代码或系统名 / link id, region code or system name", show_default=False),
]


def pause(
    what: Annotated[
        str, typer.Argument(metavar="KIND", help="link | region | system；或 / or KIND/NAME；list: 列出 list them")
    ],
    name: Name = None,
    reason: Annotated[str, typer.Option("--reason", "-r", help="原因 / why")] = "",
    until: Annotated[
        datetime | None,
        typer.Option(formats=FORMATS, help="截止（只写日期则含当日）/ its end; a date alone: the end of that day"),
    ] = None,
    file: FileOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """暂停链路、区划（含其下级）或业务系统 / Pause a link, a region with all below it, or a system; nothing else waits for it."""
    from federation.pausing import pause_of
    from federation.runtime import open_federation

    if what == "list" and name is None:
        _list(file, as_json)
        return
    kind, subject = _subject(what, name)
    if not reason.strip():
        raise typer.BadParameter("不能为空 / must not be empty", param_hint="--reason")
    with reporting(as_json):
        made = pause_of(open_federation(file).services, kind, subject, reason.strip(), until, getpass.getuser())
    typer.echo(json.dumps({"ok": True, **asdict(made)}, ensure_ascii=False, default=str) if as_json else f"✓ {made}")


def resume(what: What, name: Name = None, file: FileOption = HERE, as_json: JsonOption = False) -> None:
    """恢复；积压的变化随下次运行补齐 / Resume; what waited is caught up with by the next run, without a full reload."""
    from federation.pausing import subject_of
    from federation.runtime import open_federation

    kind, subject = _subject(what, name)
    with reporting(as_json):
        federation = open_federation(file)
        federation.services.pauses.resume(*subject_of(federation.config, kind, subject), getpass.getuser())
    typer.echo(json.dumps({"ok": True, "kind": kind, "subject": subject}) if as_json else f"✓ {kind} {subject}")


def _subject(what: str, name: str | None) -> tuple[str, str]:
    if name is not None:
        return what, name
    kind, slash, subject = what.partition("/")
    if not slash:
        raise typer.BadParameter(
            "写出类别与名称 / name the kind and the thing: link resident/110101001001", param_hint="KIND NAME"
        )
    return kind, subject


def _list(file: FileOption, as_json: bool) -> None:
    from federation.runtime import open_federation

    with reporting(as_json):
        found = open_federation(file).services.pauses.standing()
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], ensure_ascii=False, default=str))
        return
    heads = ["类别 kind", "对象 subject", "原因 reason", "由 by", "自 since", "至 until"]
    lines = [
        [
            p.kind,
            p.subject,
            p.reason,
            p.paused_by,
            f"{p.at:%Y-%m-%d %H:%M}",
            f"{p.until:%Y-%m-%d %H:%M}" if p.until else "–",
        ]
        for p in found
    ]
    out.print(table("暂停 / pauses", heads, lines))
