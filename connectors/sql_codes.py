"""The error codes of Oracle, SQL Server and Dameng: which may be tried again, which need a person. Their drivers tell no SQLSTATE."""

from __future__ import annotations

import re

from federation.errors import AccessDenied, Conflict, ConnectorError, SchemaMismatch, Transient

_IN_WORDS = {
    "oracledb": re.compile(r"\b(?:ORA|DPY)-([0-9]{4,5})\b"),
    "dmPython": re.compile(r"\[CODE:-([0-9]{2,5})\]"),
}
_KINDS: dict[str, dict[type[ConnectorError], frozenset[int]]] = {
    "oracledb": {
        AccessDenied: frozenset({1017, 1031, 1045, 28000, 28001, 1435, 16000, 1456}),
        SchemaMismatch: frozenset({942, 904, 12514, 4043}),
        Transient: frozenset(
            {54, 60, 1012, 1033, 1034, 1089, 3113, 3114, 3135, 8177, 12170, 12541, 12545, 30006, 4011, 6005}
        ),
        Conflict: frozenset({1}),
    },
    "pymssql": {
        AccessDenied: frozenset({229, 230, 262, 18452, 18456, 18470, 3906, 916}),
        SchemaMismatch: frozenset({207, 208, 2812, 4060}),
        Transient: frozenset({1205, 1222, 3960, 20002, 20003, 20004, 20006, 20009, 40197, 40501, 40613, 701, 9002}),
        Conflict: frozenset({2627, 2601}),
    },
    "dmPython": {
        AccessDenied: frozenset({2501, *range(5501, 5600), 6506}),
        SchemaMismatch: frozenset({2103, 2104, 2105, 2106, 2111}),
        Transient: frozenset({*range(6001, 6021), 6403, 6407, 70019, 70025, 70028}),
        Conflict: frozenset({6602, 6610, 6611, 6612}),
    },
}
"""By driver: no right or read-only, no such table or column, busy or away, a key that another writer just inserted. Dameng's are those that its
drivers and its users' reports name, without the minus sign; what is not among them is Permanent."""


def coded_kind(error: BaseException) -> type[ConnectorError] | None:
    """Which of our errors a driver's error is; None if it is of another driver, or says nothing known."""
    driver = next(
        (kind.__module__.split(".")[0] for kind in type(error).__mro__ if kind.__module__.split(".")[0] in _KINDS), None
    )
    if driver is None:
        return None
    number = _number(error, driver)
    if number is None and driver == "dmPython" and "password" in str(error):
        return AccessDenied  # refused by the driver itself, which has no codes
    return next((kind for kind, numbers in _KINDS[driver].items() if number in numbers), None)


def _number(error: BaseException, driver: str) -> int | None:
    if driver in _IN_WORDS:
        found = _IN_WORDS[driver].search(str(error))
        return int(found[1]) if found else None
    first = error.args[0] if error.args else None
    first = first[0] if isinstance(first, tuple) and first else first
    return first if isinstance(first, int) else None
