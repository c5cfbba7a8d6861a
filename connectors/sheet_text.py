"""Texts in cells: what a sheet can hold, and what a spreadsheet program would rather run than show."""

from __future__ import annotations

import re

_ESCAPED = re.compile("[\x00-\x08\x0b-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")
_ARMED = ("=", "+", "-", "@", "\t", "'")
_CUT = "…（全文过长，请在系统中查看）"
LONGEST = 32_767
"""Characters that fit into a cell."""


def escaped(text: str) -> str:
    """Characters that XML cannot hold, as the format writes them (`_x000B_`); texts that look so already, made literal."""
    if not _ESCAPED.search(text):
        return text
    return _ESCAPED.sub(lambda match: f"_x{ord(match[0]):04X}_", text)


def is_armed(value: object) -> bool:
    """Whether a text begins like a formula: then its cell is marked, so that it stays a text when people enter the cell."""
    return isinstance(value, str) and value.startswith(_ARMED)


def short(text: str) -> str:
    """A text that fits into a cell."""
    return text if len(text) <= LONGEST else text[: LONGEST - len(_CUT)] + _CUT
