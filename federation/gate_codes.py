"""Numbers that carry their own proof, checked on whole columns: GB 11643 (公民身份号码) and GB 32100 (统一社会信用代码)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from federation.gate_reason import flat

_WIDTH = 18
_NONE = 255
_AT_ONCE = 1 << 15
"""Rows per step: what a step touches stays in the processor's cache."""
_ID_CHECK = np.frombuffer(b"10X98765432", np.uint8)
_CREDIT_LETTERS = b"0123456789ABCDEFGHJKLMNPQRTUWXY"
_MONTH_DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] + [0] * 87)

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def _values(letters: bytes) -> npt.NDArray[np.float32]:
    """Byte → what it stands for; `_NONE` for any other. Floats, since the processor multiplies those fastest; all sums are small."""
    found = np.full(256, _NONE, np.float32)
    found[np.frombuffer(letters, np.uint8)] = np.arange(len(letters))
    return found


def _places() -> npt.NDArray[np.float32]:
    """17 digits → weighted sum, year, month, day."""
    found = np.zeros((17, 4), np.float32)
    found[:, 0] = [2 ** (17 - place) % 11 for place in range(17)]
    found[6:10, 1] = 1000, 100, 10, 1
    found[10:12, 2] = found[12:14, 3] = 10, 1
    return found


_CREDIT, _PLACES = _values(_CREDIT_LETTERS), _places()
_CREDIT_WEIGHTS = np.array([3**place % 31 for place in range(17)], np.float32)


def id_numbers(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Whether each text is an id number: 17 digits that hold a date there was, and their check character. False for null."""
    return pa.array(_of_width(column, _birth_days) != _NOTHING)


def credit_codes(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Whether each text is a unified social credit code: 17 of 31 characters (no I, O, S, V, Z) and theirs. False for null."""
    return pa.array(_of_width(column, _credit_code) != _NOTHING)


def birth_dates(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The date of birth (date32) inside each id number; null where the text is none."""
    days = _of_width(column, _birth_days)
    return pa.array(days.astype(np.int32), pa.int32(), mask=days == _NOTHING).cast(pa.date32())


_NOTHING = np.iinfo(np.int32).min
"""Stands for a text that is not what it should be."""


def _of_width(column: pa.ChunkedArray | pa.Array, judge: Callable[[Bytes], Numbers]) -> Numbers:
    """What `judge` says of the texts of 18 bytes; `_NOTHING` for all others."""
    values = flat(column)
    fits = pc.fill_null(pc.equal(pc.binary_length(values), _WIDTH), False)
    picked = values.filter(fits)
    found = np.full(len(values), _NOTHING, np.int64)
    if len(picked):
        fixed = pc.cast(pc.cast(picked, pa.binary()), pa.binary(_WIDTH))
        letters = np.frombuffer(fixed.buffers()[1], np.uint8, len(picked) * _WIDTH).reshape(-1, _WIDTH)
        steps = range(0, len(picked), _AT_ONCE)
        found[np.asarray(fits)] = np.concatenate([judge(letters[start : start + _AT_ONCE]) for start in steps])
    return found


def _birth_days(letters: Bytes) -> Numbers:
    """Days since 1970 of the date in an id number of the Gregorian years 1800 to 2199."""
    digits = letters[:, :17] - ord("0")  # what is no digit wraps around to 10 or more
    total, year, month, day = (digits.astype(np.float32) @ _PLACES).astype(np.int64).T
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    longest = _MONTH_DAYS[np.clip(month, 0, 99)] + (leap & (month == 2))
    sound = (digits.max(axis=1) < 10) & (_ID_CHECK[total % 11] == letters[:, 17])
    sound &= (year >= 1800) & (year < 2200) & (day >= 1) & (day <= longest)
    months = np.where(sound, (year - 1970) * 12 + month - 1, 0).astype("datetime64[M]")
    days = months.astype("datetime64[D]").astype(np.int64) + day - 1
    found: Numbers = np.where(sound, days, _NOTHING)
    return found


def _credit_code(letters: Bytes) -> Numbers:
    """Zero for a code."""
    values = _CREDIT[letters]
    total = (values[:, :17] @ _CREDIT_WEIGHTS).astype(np.int64)
    sound: Mask = (values.max(axis=1) < 31) & (-total % 31 == values[:, 17])
    found: Numbers = np.where(sound, 0, _NOTHING)
    return found
