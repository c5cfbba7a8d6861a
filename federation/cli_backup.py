"""`fedsync backup`, `restore`, `health`: what keeps an installation safe, and says whether it is well."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from federation.cli_common import HERE, FileOption, JsonOption, out, reporting, table
from federation.errors import FedsyncError

if TYPE_CHECKING:
    from federation.backup import Backup

PlaceArgument = Annotated[str, typer.Argument(help="文件夹或 fsspec 地址 / a folder, or any fsspec location")]
ForceOption = Annotated[
    bool, typer.Option("--force", help="即使有进程正在同步 / even while somebody syncs: it will settle nothing")
]


def backup(target: PlaceArgument, file: FileOption = HERE, as_json: JsonOption = False) -> None:
    """备份台账、基线与托管数据，可在同步进行时执行；密钥另行保存 / Back up ledger, baselines and hosted records, also while syncs run. Not the secret: keep that elsewhere."""
    from federation.runtime import open_backups
    from federation.storage import Storage

    with reporting(as_json):
        made = open_backups(file, getpass.getuser()).take(Storage(_absolute(target)))
    _tell(made, as_json)


def restore(
    source: Annotated[
        str | None, typer.Argument(help="备份所在 / where the backup lies; 与 --in-place 二选一 / or --in-place")
    ] = None,
    hosted: Annotated[
        bool,
        typer.Option("--hosted", help="同时恢复托管数据（其库已丢失时）/ hosted records as well, where they were lost"),
    ] = False,
    in_place: Annotated[
        bool,
        typer.Option(
            "--in-place", help="台账已用数据库自带工具恢复 / the ledger was put back by its database's own tools"
        ),
    ] = False,
    force: ForceOption = False,
    file: FileOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """恢复备份；之后各链路全量比对一次 / Put a backup back; afterwards each link compares everything once."""
    from federation.runtime import open_backups
    from federation.storage import Storage

    with reporting(as_json):
        if (source is None) != in_place or (in_place and hosted):
            raise typer.BadParameter("SOURCE 或 --in-place / either SOURCE or --in-place")
        backups = open_backups(file, getpass.getuser())
        if source is None:
            backups.note_restored(force=force)
            typer.echo(json.dumps({"ok": True}) if as_json else "✓")
            return
        made = backups.restore(Storage(_absolute(source)), hosted=hosted, force=force)
    _tell(made, as_json)


def health(file: FileOption = HERE, as_json: JsonOption = False) -> None:
    """健康检查：声明、台账、存储 / Is the declaration valid, does the ledger answer, is the storage writable? Asks no node."""
    from federation.health import examine

    findings = examine(file)
    if as_json:
        found = [
            {"part": f.part, "ok": f.error is None, "error": str(f.error) if f.error else None, "seconds": f.seconds}
            for f in findings
        ]
        typer.echo(json.dumps({"ok": all(f.error is None for f in findings), "parts": found}, ensure_ascii=False))
    else:
        for finding in findings:
            typer.echo(f"{'✓' if finding.error is None else '✗'} {finding.part} {finding.error or ''}".rstrip())
    if any(finding.error for finding in findings):
        raise typer.Exit(1)


def _absolute(place: str) -> str:
    if not place.strip():
        raise FedsyncError("no folder was given", "未填写文件夹", todo="fedsync backup FOLDER")
    return place if "://" in place else str(Path(place).absolute())


def _tell(made: Backup, as_json: bool) -> None:
    if as_json:
        about = {"ok": True, "taken": made.taken, "rows": made.rows, "hosted": made.hosted, "files": len(made.files)}
        typer.echo(json.dumps(about, ensure_ascii=False))
        return
    lines = [[name, count] for name, count in (*made.rows.items(), *made.hosted.items())]
    out.print(
        table(f"备份 / backup {made.taken}", ["表 table", "行 rows"], [*lines, ["基线文件 files", len(made.files)]])
    )
