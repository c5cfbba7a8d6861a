"""Lineage (血缘): what flows from which table to which, column by column, as the contract says. Pure.

A place is named as OpenLineage does (https://openlineage.io/docs/spec/naming): a namespace for the system, without credentials,
and a name for the table, sheet or endpoint in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote, urlsplit

from federation.config import Binding, Config, Link
from federation.config_nodes import HOSTED
from federation.contract import SHARED
from federation.outcome import Outcome
from federation.regions import LEVELS

MOST = 20_000
"""Column pairs that one event names at most: about 5 MB. What comes beyond is left out, link by link, and counted."""
_SCHEMES = {
    "postgresql": "postgres",
    "kingbase": "postgres",
    "kingbase8": "postgres",
    "kingbasees": "postgres",
    "mariadb": "mysql",
    "dameng": "dm",
}
"""Names of a scheme that OpenLineage calls otherwise; KingbaseES speaks PostgreSQL's protocol, under a port of its own."""
_PORTS = {
    "postgresql": 5432,
    "kingbase": 54321,
    "kingbase8": 54321,
    "kingbasees": 54321,
    "mysql": 3306,
    "mariadb": 3306,
    "mssql": 1433,
    "oracle": 1521,
    "dm": 5236,
    "dameng": 5236,
}
Resolve = Callable[[Any], Any]


@dataclass(frozen=True)
class Place:
    """Where a node keeps a dataset."""

    namespace: str
    name: str


@dataclass(frozen=True)
class Column:
    """A field as a node keeps it: the system's own name, the contract's type and label."""

    name: str
    type: str
    label: str


@dataclass(frozen=True)
class End:
    """One end of a link. `columns`: of the fields that its level may hold."""

    place: Place
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Flow:
    """What flows one way on a link. `columns`: (source's column, target's column, whether its values are translated by a code table).

    `rows`: read at the source; `written`: written or deleted at the target.
    """

    source: End
    target: End
    columns: tuple[tuple[str, str, bool], ...]
    rows: int
    written: int


def flows(config: Config, link: Link, outcome: Outcome, resolve: Resolve) -> tuple[Flow, ...]:
    """The two flows of a link: down, what a level at or above its upper end owns; up, what a level at or below its lower end owns;
    what is shared flows both ways. `resolve`: replaces references to secrets in options."""
    dataset = link.contract.dataset
    upper, lower = (config.binding(dataset.name, region.code) for region in (link.upper, link.lower))
    ends = {side: End(place_of(config, one, resolve), _columns(one)) for side, one in (("up", upper), ("low", lower))}
    names: dict[str, list[str]] = {"down": [], "up": []}
    for name in link.contract.fields:
        authority = dataset.fields[name].authority
        above = authority == SHARED or LEVELS.index(authority) <= LEVELS.index(link.contract.upper)
        below = authority == SHARED or not above
        names["down"] += [name] if above or name in dataset.key else []
        names["up"] += [name] if below or name in dataset.key else []
    read = {side: int(account.get("read", 0)) for side, account in outcome.accounts.items()}

    def flow(source: Binding, target: Binding, way: str) -> tuple[tuple[str, str, bool], ...]:
        return tuple(
            (source.columns.get(n, n), target.columns.get(n, n), n in source.codes or n in target.codes)
            for n in names[way]
        )

    below_rows = outcome.descended + outcome.removed_below
    above_rows = outcome.ascended + outcome.removed_above
    return (
        Flow(ends["up"], ends["low"], flow(upper, lower, "down"), read.get("upper", 0), below_rows),
        Flow(ends["low"], ends["up"], flow(lower, upper, "up"), read.get("lower", 0), above_rows),
    )


def within(found: Iterable[tuple[Flow, ...]], most: int = MOST) -> tuple[list[Flow], int]:
    """The flows of as many links as `most` column pairs allow, and how many links are left out."""
    kept: list[Flow] = []
    size, left_out = 0, 0
    for pair in found:
        size += sum(len(flow.columns) for flow in pair)
        if size > most:
            left_out += 1
        else:
            kept += pair
    return kept, left_out


def _columns(binding: Binding) -> tuple[Column, ...]:
    fields = binding.dataset.fields
    return tuple(
        Column(binding.columns.get(name, name), fields[name].type, fields[name].label)
        for name in binding.dataset.fields_at(binding.region.level)
    )


def place_of(config: Config, binding: Binding, resolve: Resolve) -> Place:
    """Where a node keeps its dataset. What a connector does not tell is named after the declaration."""
    kind, given = binding.spec.connector, binding.options
    own = f"fedsync://{config.spec.name}"
    if kind == HOSTED:
        return Place(own, f"hosted/{binding.dataset.name}/{binding.region.code}")
    if kind == "sql":
        return _table(str(resolve(given.get("url", ""))), given, binding.dataset.name)
    if kind in ("rest", "webdav"):
        base = urlsplit(str(resolve(given.get("base_url") or given.get("url", ""))))
        path = f"{base.path.rstrip('/')}/{str(given.get('path', '')).lstrip('/')}" if kind == "rest" else base.path
        return Place(f"{base.scheme}://{_host(base.hostname, base.port)}", path.strip("/") or "/")
    if kind in ("workbook", "parquet"):
        return _file(str(resolve(given.get("path", ""))), str(given.get("sheet", "")))
    return Place(own, f"{binding.system}/{binding.dataset.name}/{binding.region.code}")


def _table(url: str, given: Mapping[str, Any], dataset: str) -> Place:
    split = urlsplit(url)
    dialect = split.scheme.partition("+")[0]
    table = str(given.get("table") or dataset)
    if dialect == "sqlite":
        return Place("file", f"{split.path.removeprefix('/')}#{table}")
    scheme = _SCHEMES.get(dialect, dialect)
    database = unquote(split.path.strip("/"))
    schema = given.get("schema_name") or ("public" if scheme == "postgres" else None)
    name = ".".join(part for part in (database, schema, table) if part)
    return Place(f"{scheme}://{_host(split.hostname, split.port or _PORTS.get(dialect))}", name)


def _file(path: str, sheet: str) -> Place:
    split = urlsplit(path)
    suffix = f"#{sheet}" if sheet else ""
    if len(split.scheme) > 1:  # one letter is a drive
        return Place(f"{split.scheme}://{_host(split.hostname, split.port)}", f"{split.path.lstrip('/')}{suffix}")
    return Place("file", f"{PurePath(path)}{suffix}")


def _host(name: str | None, port: int | None) -> str:
    return f"{name or ''}:{port}" if port else (name or "")
