"""The reason that a person reads: a template per language, filled with the values of the failing rows, vectorised.

A template is text with `{value}` (the value of the rule's first field) or `{name}` (that of any field of the rule); `!r` puts
it in quotes. A null reads 空 / empty. `{{` and `}}` stand for braces.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

VALUE = "value"


@dataclass(frozen=True)
class Reason:
    """`parts`: literal text, or (field, quoted). `empty`: the word for null."""

    parts: tuple[str | tuple[str, bool], ...]
    empty: str

    @property
    def bare(self) -> str:
        """The text with no value in it."""
        return "".join(part if isinstance(part, str) else "…" for part in self.parts)

    @property
    def template(self) -> str:
        """The text with its placeholders."""
        return "".join(part if isinstance(part, str) else f"{{{part[0]}}}" for part in self.parts)

    def fill(self, rows: pa.Table, timezone: str) -> pa.Array:
        """One text per row."""
        if not rows.num_rows:
            return pa.array([], pa.string())
        pieces = [self._piece(part, rows, timezone) for part in self.parts]
        if not any(isinstance(piece, (pa.Array, pa.ChunkedArray)) for piece in pieces):
            return pa.array(["".join(piece.as_py() for piece in pieces)] * rows.num_rows, pa.string())
        return flat(pc.binary_join_element_wise(*pieces, pa.scalar("")))

    def _piece(self, part: str | tuple[str, bool], rows: pa.Table, timezone: str) -> pa.Scalar | pa.Array:
        if isinstance(part, str):
            return pa.scalar(part, pa.string())
        name, quoted = part
        text = as_text(rows.column(name), timezone)
        if quoted:
            coded = text.dictionary_encode()
            text = pa.array([repr(value) for value in coded.dictionary.to_pylist()], pa.string()).take(coded.indices)
        return pc.fill_null(text, self.empty)


def parse_reason(template: str, columns: Sequence[str], empty: str) -> Reason:
    """Read a template; `columns` are the rule's fields, `{value}` being the first. Raises ValueError that says what is wrong."""
    parts: list[str | tuple[str, bool]] = []
    for literal, name, form, conversion in string.Formatter().parse(template):
        if literal:
            parts.append(literal)
        if name is None:
            continue
        if name not in columns and not (name == VALUE and columns):
            raise ValueError(f"{{{name}}} is neither {{value}} nor a field of the rule ({', '.join(columns)})")
        if form or conversion not in (None, "r", "s"):
            raise ValueError(f"{{{name}}} takes no format other than !r")
        parts.append((columns[0] if name == VALUE else name, conversion == "r"))
    if not "".join(part for part in parts if isinstance(part, str)).strip():
        raise ValueError("it says nothing")
    return Reason(tuple(parts), empty)


def as_text(column: pa.ChunkedArray | pa.Array, timezone: str) -> pa.Array:
    """Values as a person would write them, times in the given zone; null stays null."""
    values = flat(column)
    if pa.types.is_timestamp(values.type):
        local = pc.cast(pc.cast(values, pa.timestamp("s", "UTC"), safe=False), pa.timestamp("s", timezone))
        return pc.strftime(local, format="%Y-%m-%d %H:%M:%S")
    if pa.types.is_boolean(values.type):
        return pc.if_else(values, pa.scalar("true"), pa.scalar("false"))
    return pc.cast(values, pa.string())


def flat(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """One contiguous array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
