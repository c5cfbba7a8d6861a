"""Asking a database for rows by key: in conditions of a size that every server takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from sqlalchemy import and_, or_

from connectors.sql_database import Columns, Database
from connectors.sql_values import for_driver
from federation.contract import FieldSpec

KEYS_AT_ONCE = 500
MANY_KEYS = 20_000
"""From here on, reading the table and picking is cheaper than asking for keys, or for values."""


def key_conditions(
    database: Database,
    columns: Columns,
    specs: Mapping[str, FieldSpec],
    keys: pa.Table,
    timezone: str,
    *,
    trimmed: bool = False,
) -> list[Any]:
    """Conditions that select the rows with these keys, each row once; [None]: read everything instead. `columns`: the key's.

    `trimmed`: also rows whose keys differ by blanks at the edges.
    """
    if keys.num_rows > MANY_KEYS:
        return [None]
    values = [for_driver(keys.column(name), column.type, timezone) for name, column in columns.items()]

    def one(name: str, chosen: list[Any]) -> Any:
        if trimmed and specs[name].type in ("string", "enum"):
            return database.trimmed(columns[name]).in_(chosen)
        return database.key_condition(columns[name], specs[name], chosen)

    if any(one(name, []) is None for name in columns):
        return [None]
    step = KEYS_AT_ONCE // len(columns)  # so many parameters, whatever the key
    spans = [slice(start, start + step) for start in range(0, keys.num_rows, step)]
    if len(columns) == 1:
        (name,) = columns
        return [one(name, values[0][span]) for span in spans]
    rows = list(zip(*values))
    return [
        or_(*(and_(*(one(name, [value]) for name, value in zip(columns, row))) for row in rows[span])) for span in spans
    ]
