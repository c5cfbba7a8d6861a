"""What every command of `fedsync` shares: its options, how it reports an error, how it draws a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from federation.errors import DeclarationError, FedsyncError

if TYPE_CHECKING:
    from federation.config import Config

out = Console()
err = Console(stderr=True)

FileOption = Annotated[
    Path,
    typer.Option(
        "--file", "-f", envvar="FEDSYNC_FEDERATION", help="联邦声明 / the declaration: federation.yaml or its folder"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="输出 JSON / print JSON")]
HERE = Path("federation.yaml")


@contextmanager
def reporting(as_json: bool) -> Iterator[None]:
    """Turn our errors into a message and exit code 1."""
    try:
        yield
    except FedsyncError as error:
        _fail(error, as_json)


def _fail(error: FedsyncError, as_json: bool) -> NoReturn:
    if as_json:
        problems = error.problems if isinstance(error, DeclarationError) and error.problems else (error,)
        typer.echo(
            json.dumps({"ok": False, "errors": [error_as_json(problem) for problem in problems]}, ensure_ascii=False)
        )
    else:
        tell(error)
    raise typer.Exit(1)


def tell(error: FedsyncError) -> None:
    """One error, for people."""
    err.print(f"[red]✗[/red] {escape(str(error))}", soft_wrap=True, highlight=False)


def error_as_json(error: FedsyncError) -> dict[str, Any]:
    """One error, for programs."""
    where = {name: str(value) for name, value in error.where.items()}
    return {"kind": type(error).__name__, "zh": error.zh, "en": error.en, "todo": error.todo, **where}


def refuse_unknown(config: Config, dataset: str | None, region: str | None, found: Sequence[object]) -> None:
    """Raise DeclarationError for a dataset or region of which nothing was found, and which is not declared: a mistyped name is no empty
    list."""
    if not found:
        config.named(dataset)
        if region is not None:
            config.tree[region]


def table(title: str, heads: list[str], rows: list[list[Any]]) -> Table:
    """A table whose cells are shown as they are: a value in brackets is no markup."""
    made = Table(title=title, title_justify="left", header_style="bold")
    for head in heads:
        made.add_column(head, overflow="fold")
    for row in rows:
        made.add_row(*(str(value) for value in row))
    return made
