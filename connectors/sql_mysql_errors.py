"""The error numbers of MySQL and MariaDB: which may be tried again, which need a person. SQLSTATE says too little there.

Their messages quote values (`Duplicate entry '…' for key`), so `said` leaves these out: a message may be seen by those who may not
see the record.
"""

from __future__ import annotations

import re

from federation.errors import AccessDenied, Conflict, ConnectorError, Permanent, SchemaMismatch, Transient

DENIED = frozenset({1044, 1045, 1142, 1143, 1227, 1370})
"""The account lacks a right."""
_REFUSED = frozenset(
    {1129, 1130, 1251, 1290, 1396, 1410, 1449, 1524, 1698, 1792, 1820, 1836, 1862, 2059, 2061, 3118, 4151}
)
"""Host, plugin, password or server say no: blocked, expired, read-only."""
_MISSING = frozenset({1049, 1051, 1054, 1146, 1109, 1356})
_DUPLICATE = frozenset({1062, 1586})
_BUSY = frozenset(
    {1020, 1040, 1041, 1053, 1135, 1203, 1205, 1206, 1213, 1226, 1317, 1412, 1479, 1637, 1969, 3024, 3572}
)
"""Too many, too slow, deadlock, lock not granted, shut down."""
_LOST = frozenset({1077, 1078, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1189, 1190, 1927, 4031})
_CLIENT = range(2000, 2100)
"""The driver's own: it could not connect, or the connection broke off."""

_VALUE = re.compile(r"(entry|value:?|near) '.*'(?= for | at |$)", re.DOTALL | re.IGNORECASE)


def number_of(error: BaseException | None) -> int | None:
    """The server's number for an error of a MySQL driver; None for any other error."""
    if error is None or not any("mysql" in kind.__module__.lower() for kind in type(error).__mro__):
        return None
    first = error.args[0] if error.args else None
    return first if isinstance(first, int) else None


def said(error: BaseException) -> str:
    """What the server said, without the values that it quotes."""
    words = str(error.args[1]) if len(error.args) > 1 else str(error)
    shown = _VALUE.sub(r"\1 …", words)
    return f"{shown} ({number_of(error)})"


def kind_of(error: BaseException, number: int) -> type[ConnectorError]:
    """Which of our errors it is."""
    if number in DENIED or number in _REFUSED:
        return AccessDenied
    if number in _MISSING:
        return SchemaMismatch
    if number in _BUSY or number in _LOST or number in _CLIENT:
        return Transient
    if number in _DUPLICATE and re.search(r"for key '([^']*[.])?PRIMARY'", str(error.args[1:])):
        return Conflict
    return Permanent
