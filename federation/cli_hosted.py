"""`fedsync hosted …`: the hands of people whose region has no system, and the way out once it has one."""

from __future__ import annotations

import csv
import getpass
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from federation.cli_common import HERE, FileOption, JsonOption, out, reporting, table
from federation.errors import FedsyncError, Unreadable

if TYPE_CHECKING:
    import pyarrow as pa

    from federation.contract import Dataset
    from federation.hosting import Hosting

hosted_app = typer.Typer(
    help="托管：由引擎为没有业务系统的区划保存的数据 / what the engine keeps for regions without a system",
    no_args_is_help=True,
)
DatasetArgument = Annotated[str, typer.Argument(help="数据集 / dataset")]
RegionArgument = Annotated[str, typer.Argument(help="区划代码 / region code")]
KeyArgument = Annotated[list[str], typer.Argument(help="主键值，按声明顺序 / the key's values, in their order")]


@hosted_app.command("list")
def hosted_list(
    dataset: DatasetArgument, region: RegionArgument, file: FileOption = HERE, as_json: JsonOption = False
) -> None:
    """列出托管的记录（含内容，会留痕）/ List a region's hosted records with their content; leaves a line in the audit trail."""
    with reporting(as_json):
        hosting = _open(file)
        rows = hosting.records(dataset, region)
        contract = hosting.config.dataset(dataset)
    if as_json:
        typer.echo(json.dumps(rows.to_pylist(), ensure_ascii=False, default=str))
        return
    heads = [contract.fields[name].label for name in rows.column_names]
    shown = [["" if value is None else value for value in row.values()] for row in rows.to_pylist()]
    out.print(table(f"{contract.label} {region}", heads, shown))


@hosted_app.command("show")
def hosted_show(
    dataset: DatasetArgument,
    region: RegionArgument,
    key: KeyArgument,
    file: FileOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """查看一条托管记录（会留痕）/ Show one hosted record; leaves a line in the audit trail."""
    with reporting(as_json):
        hosting = _open(file)
        record = hosting.record(dataset, region, key)
        contract = hosting.config.dataset(dataset)
    if as_json:
        typer.echo(json.dumps(record, ensure_ascii=False, default=str))
        return
    lines = [[name, contract.fields[name].label, "" if value is None else value] for name, value in record.items()]
    out.print(table(", ".join(key), ["字段 field", "名称 label", "值 value"], lines))


@hosted_app.command("returns")
def hosted_returns(
    dataset: DatasetArgument, region: RegionArgument, file: FileOption = HERE, as_json: JsonOption = False
) -> None:
    """列出退回待改的记录及原因（会留痕）/ List the records that were handed back, and why; leaves a line in the audit trail."""
    with reporting(as_json):
        hosting = _open(file)
        lines = hosting.returned(dataset, region)
        contract = hosting.config.dataset(dataset)
    if as_json:
        typer.echo(json.dumps(lines, ensure_ascii=False))
        return
    heads = [
        *(contract.fields[name].label for name in contract.key),
        "字段 field",
        "原因 reason",
        "",
        "止于 stopped at",
    ]
    shown = [
        [
            *("" if line[name] is None else line[name] for name in contract.key),
            contract.fields[line["field"]].label if line["field"] in contract.fields else "",
            line["reason_zh"],
            line["reason_en"],
            line["hop"],
        ]
        for line in lines
    ]
    out.print(table(f"退回待改 / returns {contract.label} {region}", heads, shown))


@hosted_app.command("put")
def hosted_put(
    dataset: DatasetArgument,
    region: RegionArgument,
    values: Annotated[
        list[str] | None, typer.Argument(help="字段=值，一条记录 / field=value …, one record; 空值 / empty: field=")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--csv", help="逗号分隔文件，首行为字段名或中文名 / a csv; its header: fields or labels"),
    ] = None,
    file: FileOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """录入或修改记录；只改写出的字段，不合格的说明原因 / Enter or change records: only the named fields; what is refused is told why."""
    with reporting(as_json):
        hosting = _open(file)
        contract = hosting.config.dataset(dataset)
        entered = hosting.put(dataset, region, _raw(contract, values or [], source))
    refused = entered.rejects.to_pylist()
    if as_json:
        told = {"ok": not refused, "taken": entered.taken, "refused": refused}
        typer.echo(json.dumps(told, ensure_ascii=False, default=str))
    else:
        out.print(f"[green]✓[/green] {entered.taken} 条 records")
        if refused:
            heads = ["位置 where", *(contract.fields[name].label for name in contract.key), "原因 reason", ""]
            lines = [
                [line["locator"] or "", *(line[name] for name in contract.key), line["reason_zh"], line["reason_en"]]
                for line in refused
            ]
            out.print(table("未录入 / refused", heads, lines))
    if refused:
        raise typer.Exit(1)


@hosted_app.command("remove")
def hosted_remove(
    dataset: DatasetArgument,
    region: RegionArgument,
    key: KeyArgument,
    file: FileOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """删除一条托管记录 / Delete one hosted record."""
    with reporting(as_json):
        _open(file).remove(dataset, region, key)
    typer.echo(json.dumps({"ok": True}) if as_json else f"✓ {', '.join(key)}")


@hosted_app.command("handover")
def hosted_handover(
    dataset: DatasetArgument,
    region: RegionArgument,
    existing: Annotated[
        Literal["refuse", "keep", "overwrite"],
        typer.Option(help="系统中已有且不同的值 / values that the system has already and that differ"),
    ] = "refuse",
    file: FileOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """区划启用业务系统后，把托管的数据移交给它；可重复执行 / Hand hosted data over to the system that the region has by now; may be repeated."""
    with reporting(as_json):
        done = _open(file).hand_over(dataset, region, existing)
    if as_json:
        typer.echo(json.dumps({"ok": True, "parts": [asdict(part) for part in done]}, ensure_ascii=False))
        return
    if not done:
        out.print("没有待移交的数据 / nothing is left to hand over")
    for part in done:
        out.print(
            f"[green]✓[/green] {part.rows} 条已移交并核对 handed over and verified · {part.written} 写入 written · "
            f"{part.kept} 保留系统值 kept · {part.dropped} 系统中无此记录 no record there · {part.digest}"
        )


@hosted_app.command("rekey")
def hosted_rekey(file: FileOption = HERE, as_json: JsonOption = False) -> None:
    """更换密钥后，以新密钥重新加密托管记录 / After the secret was replaced: seal hosted records with the new one."""
    with reporting(as_json):
        count = _open(file).rekey()
    typer.echo(json.dumps({"ok": True, "records": count}) if as_json else f"✓ {count}")


def _open(file: Path) -> Hosting:
    from federation.runtime import open_hosting

    return open_hosting(file, getpass.getuser())


def _raw(contract: Dataset, values: list[str], source: Path | None) -> pa.Table:
    """What was typed, as columns of text named after fields."""
    import pyarrow as pa

    if bool(values) == (source is not None):
        raise FedsyncError(
            "give either field=value pairs or --csv",
            "字段=值 与 --csv 二选一",
            todo="fedsync hosted put --help",
            dataset=contract.name,
        )
    header, lines, places = _csv(source) if source is not None else _pairs(contract, values)
    words = {spec.label: name for name, spec in contract.fields.items()} | {name: name for name in contract.fields}
    names = [words.get(word.strip(), word.strip()) for word in header]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FedsyncError(
            f"a field stands twice: {', '.join(twice)}",
            f"字段重复：{'、'.join(twice)}",
            todo="只写一次 / write it once",
        )
    columns = {name: pa.array([line[at] for line in lines], pa.string()) for at, name in enumerate(names)}
    return pa.table({**columns, "_locator": pa.array(places, pa.string())})


def _pairs(contract: Dataset, values: list[str]) -> tuple[list[str], list[list[str]], list[str | None]]:
    pairs = [value.split("=", 1) for value in values]
    wrong = [pair[0] for pair in pairs if len(pair) < 2]
    if wrong:
        raise FedsyncError(
            f"not a field=value: {wrong[0]}", f"不是 字段=值：{wrong[0]}", todo="如 / such as phone=13800000000"
        )
    return [pair[0] for pair in pairs], [[pair[1] for pair in pairs]], [None]


def _csv(source: Path) -> tuple[list[str], list[list[str]], list[str | None]]:
    """Header, rows and where each stands. UTF-8, else GB18030."""
    try:
        content = source.read_bytes()
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("gb18030")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = next(reader, [])
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        raise Unreadable(
            f"the csv cannot be read: {cause}",
            "无法读取该 csv",
            todo="检查路径、编码（UTF-8 或 GB18030）与引号 / check the path, the encoding (UTF-8 or GB18030) and the quotes",
            file=source,
        ) from cause
    for line, row in rows:
        if len(row) != len(header):
            raise Unreadable(
                f"the line has {len(row)} cells, the header {len(header)}",
                f"该行有 {len(row)} 格，表头有 {len(header)} 格",
                todo="检查逗号与引号 / check commas and quotes",
                file=source,
                line=line,
            )
    return header, [row for _, row in rows], [f"第 {line} 行" for line, _ in rows]
