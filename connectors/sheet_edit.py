"""Deciding what a batch makes of a sheet, and finding a record's rows in it."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from connectors.base import Batch, Node
from connectors.sheet import Edit, Grid, Header, Value, cell_values, raw_table
from federation import canonical
from federation.canonical import LOCATOR, key_column


def edit_of(node: Node, grid: Grid, header: Header, batch: Batch, mended: dict[int, dict[str, Value]]) -> Edit:
    """Decide which rows change, which are new and which go. A key that stands in several rows means all of them.

    `mended`: row number → values that people gave elsewhere (`sheet_returns`), written too where the batch does not say otherwise.
    """
    rows_of = rows_by_key(node, grid, header)
    updates: dict[int, dict[str, Value]] = {row: dict(values) for row, values in mended.items()}
    appends: list[dict[str, Value]] = []
    for rows in batch.upserts:
        columns = cell_values(rows, node)
        names = list(columns)
        for key, values in zip(key_column(rows, node.dataset).to_pylist(), zip(*columns.values())):
            row = dict(zip(names, values))
            if key not in rows_of:
                appends.append(row)
            for number in rows_of.get(key, ()):
                given = {name: value for name, value in row.items() if name not in node.dataset.key}
                updates[number] = {**updates.get(number, {}), **given}
    gone = key_column(batch.deletes, node.dataset).to_pylist()
    deletes = frozenset(number for key in gone for number in rows_of.get(key, ()))
    kept = {number: values for number, values in updates.items() if number not in deletes}
    return Edit(kept, appends, deletes, header.missing)


def rows_by_key(node: Node, grid: Grid, header: Header) -> dict[str, list[int]]:
    """Key → the numbers of the rows that hold it."""
    keys = list(node.dataset.key)
    raw, _ = raw_table(grid, header, node, keys)
    numbers = {grid.place(grid.number(index)): grid.number(index) for index in range(len(grid.rows))}
    found: dict[str, list[int]] = {}
    for key, place in keyed(node, raw):
        found.setdefault(key, []).append(numbers[place])
    return found


def keyed(node: Node, raw: pa.Table) -> Iterable[tuple[str, str]]:
    """Key and place of each row of a raw table (its key columns as text, with `LOCATOR`) whose key can be read."""
    keys = list(node.dataset.key)
    typed = canonical.conform(raw.select([*keys, LOCATOR]), node.dataset, keys, timezone=node.timezone)
    known = typed.rejects
    for name in keys:
        known = known.filter(known.column(name).is_valid())
    refused = set(typed.rejects.column("locator").to_pylist())
    places = [place for place in raw.column(LOCATOR).to_pylist() if place not in refused]
    for table, where in ((typed.rows, places), (known, known.column("locator").to_pylist())):
        yield from zip(key_column(table, node.dataset).to_pylist(), where)
