"""Canonical text: the one form of what people write, NFC (or NFKC), with a field's `normalise` steps; null where nothing is written.

Nearly all that a registry holds is plain already: ASCII and Chinese characters that no normalisation changes. So the bytes of a column
are looked at once, and only the values with any other byte, or a blank at an edge, take the long way. Both ways give the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from federation.canonical_json import NO_CHARACTERS

_BLANK = 0x20
_MEANT = {
    "upper": b"abcdefghijklmnopqrstuvwxyz",
    "lower": b"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "digits": b" -()",
    "collapse": b" ",
}
"""The plain bytes that a step may change."""


def normal_text(text: pa.Array, steps: Sequence[str]) -> pa.Array:
    """`text` (string) in its canonical form. Null for blank text, and for what holds a character that not every system can keep."""
    odd = _odd(text, tuple(steps))
    if not len(odd):
        return text
    if len(odd) > len(text) // 2:
        return _normal(text, steps)
    there = np.zeros(len(text), bool)
    there[odd] = True
    return pc.replace_with_mask(text, pa.array(there), _normal(text.take(pa.array(odd)), steps))


def _odd(text: pa.Array, steps: tuple[str, ...]) -> np.ndarray:
    """The places of the values that may have to change."""
    if not len(text):
        return np.empty(0, np.int64)
    _, where, held = text.buffers()
    offsets = np.frombuffer(where, np.int32)[text.offset : text.offset + len(text) + 1]
    start, stop = offsets[0], offsets[-1]
    data = np.frombuffer(held, np.uint8)[start:stop] if held is not None else np.empty(0, np.uint8)
    begins, ends = offsets[:-1] - start, offsets[1:] - start
    empty = begins == ends
    edged = empty if text.null_count == 0 else empty & np.asarray(text.is_valid())
    if len(data):
        edged = edged | (~empty & ((data[np.where(empty, 0, begins)] == _BLANK) | (data[ends - 1] == _BLANK)))
    strange = np.flatnonzero(~_plain(steps)[data])
    rows = np.searchsorted(begins, strange, side="right") - 1
    return np.union1d(np.flatnonzero(edged), rows)


@cache
def _plain(steps: tuple[str, ...]) -> np.ndarray:
    """Which bytes say nothing of a value that must change: printable ASCII, and U+4000 to U+9FFF in UTF-8."""
    plain = np.zeros(256, bool)
    plain[0x20:0x7F] = plain[0x80:0xC0] = plain[0xE4:0xEA] = True
    for step in steps:
        plain[list(_MEANT.get(step, b""))] = False
    return plain


def plain_ranges(steps: Sequence[str]) -> list[tuple[str, str]]:
    """First and last character of each range of plain ones: text of nothing else, without a blank at an edge, is canonical already."""
    found = np.flatnonzero(_plain(tuple(steps))[:0x80])
    runs = np.split(found, np.flatnonzero(np.diff(found) > 1) + 1)
    return [*((chr(run[0]), chr(run[-1])) for run in runs), ("\u4000", "\u9fff")]


def _normal(text: pa.Array, steps: Sequence[str]) -> pa.Array:
    form = "NFKC" if "halfwidth" in steps else "NFC"
    text = pc.utf8_normalize(text, form=form)
    for step in steps:
        if step == "trim":
            text = pc.utf8_trim_whitespace(text)
        elif step == "collapse":
            text = pc.replace_substring_regex(text, pattern=r"\s+", replacement=" ")
        elif step == "upper":
            text = pc.utf8_upper(text)
        elif step == "lower":
            text = pc.utf8_lower(text)
        elif step == "digits":
            text = pc.replace_substring_regex(text, pattern=r"[\s\-()]+", replacement="")
    # a step may bring together what composes, or bare a blank: the value must not change when it is read again
    text = pc.utf8_normalize(text, form=form)
    text = pc.utf8_trim_whitespace(text) if "trim" in steps else text
    void = pc.or_(pc.equal(pc.utf8_trim_whitespace(text), ""), pc.match_substring_regex(text, f"[{NO_CHARACTERS}]"))
    return pc.if_else(void, pa.scalar(None, pa.string()), text)
