"""JSON documents as one text, whichever system kept them in between."""

from __future__ import annotations

import json
from typing import Any, NoReturn

_EXACT = 2**63
"""Whole numbers up to here are kept exactly; beyond, systems disagree whether they are, and the nearest double is meant."""


NO_CHARACTERS = r"\x00\x{FFFE}\x{FFFF}"
"""As a regular expression's class (RE2): what no text may hold."""
_NO_CHARACTERS = "\x00\ufffe\uffff"


def canonical_json(text: str | None) -> str | None:
    """The text of a document with sorted keys and no spaces; null if there is none, or if it is not JSON.

    A number is its value, not its spelling: 1, 1.0 and 10e-1 are the same (a binary JSON column or a script on the way rewrites
    them), and so are 0 and -0. Of a member that stands twice the last counts. The document `null` is no document. A document
    that was put into a text (`"{\\"a\\":1}"`) is meant itself, and a broken one is none. Not JSON are NaN and infinity, numbers beyond a double, half of a
    surrogate pair, NUL, U+FFFE and U+FFFF, and what is nested too deeply to be read.
    """
    if text is None or not text.strip():
        return None
    try:
        document = _parsed(text)
        while isinstance(document, str) and looks_like_document(document):
            document = _parsed(document)
        if document is None:
            return None
        written = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        written.encode()
    except (ValueError, RecursionError):  # UnicodeEncodeError is a ValueError
        return None
    return None if _holds(document, _NO_CHARACTERS) else written


def looks_like_document(text: str) -> bool:
    """Whether a text opens like an object or a list: many systems keep those in a column of text."""
    return text.lstrip()[:1] in ("{", "[")


def _parsed(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse, parse_float=_number, parse_int=_number)


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _number(digits: str) -> int | float:
    if digits.lstrip("-").isdigit() and len(digits) < 20:
        whole = int(digits)
        if abs(whole) <= _EXACT:
            return whole
    near = float(digits)
    if near - near != 0:
        raise ValueError(f"{digits} is beyond a double")
    return int(near) if near.is_integer() and abs(near) < _EXACT else near


def _holds(document: Any, characters: str) -> bool:
    if isinstance(document, str):
        return any(character in document for character in characters)
    if isinstance(document, dict):
        return any(_holds(part, characters) for pair in document.items() for part in pair)
    return isinstance(document, list) and any(_holds(part, characters) for part in document)
