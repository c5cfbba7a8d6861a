"""`fedsync metrics`: how the federation stands, for Prometheus or for a program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from federation.cli_common import HERE, FileOption, reporting


def metrics(
    file: FileOption = HERE,
    form: Annotated[Literal["prometheus", "json"], typer.Option("--format", help="prometheus | json")] = "prometheus",
    dataset: Annotated[str | None, typer.Option(help="只看此数据集 / only this dataset")] = None,
    worst: Annotated[int, typer.Option(min=0, help="逐条给出最差的几条链路 / name so many of the worst links")] = 20,
    per_link: Annotated[
        bool, typer.Option("--per-link", help="逐条给出全部链路（序列很多）/ name every link: that is many series")
    ] = False,
    window: Annotated[int, typer.Option(min=1, help="统计最近多少分钟的运行 / minutes of runs to count")] = 60,
    output: Annotated[
        Path | None,
        typer.Option(help="写入文件，整体替换 / write to a file, replaced at once: for a textfile collector"),
    ] = None,
) -> None:
    """输出指标 / Print metrics: links, lag, reach, quarantine, corrections, recent runs."""
    from federation.metrics_text import as_json, as_prometheus, write_whole
    from federation.report import samples
    from federation.runtime import open_federation

    with reporting(form == "json"):
        found = samples(open_federation(file), dataset, None if per_link else worst, window)
        text = as_json(found) if form == "json" else as_prometheus(found)
        if output is not None:
            write_whole(output, text)
    if output is None:
        typer.echo(text, nl=form == "json")
