"""Every error that the engine raises.

    FedsyncError
    ├── DeclarationError        the YAML, the region table or a suite is wrong; names file, line and key
    ├── ConnectorError          a system did not do what was asked
    │   ├── Transient           may work if tried again (carries retry_after, in seconds, when known)
    │   │   └── Resting         the system's quiet hours; it was not asked at all
    │   ├── Conflict            the system's data moved under us; read again, then merge again
    │   └── Permanent           will not work until a person acts
    │       ├── AccessDenied    credentials or rights
    │       ├── SchemaMismatch  a column, sheet or endpoint that the contract needs is missing
    │       └── Unreadable      the bytes are not what the declaration says (encoding, truncated, not a workbook)
    ├── LinkHeld                a guard stopped one link until an operator releases it
    ├── LeaseHeld               another runner is on this link
    ├── LeaseLost               another runner took this link over; this run must not settle
    ├── AccountingError         a run's numbers do not add up: a defect of the engine, never ignored
    └── GateError               a suite could not be evaluated

An error says in Chinese and in English what happened, names where (dataset, link, region, file, row, key) and what to do.
This module stays free of heavy imports: Airflow's retry policy imports it while DAG files are parsed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class FedsyncError(Exception):
    """Base of all errors of the engine.

    `en`, `zh`: what happened. `todo`: what the reader should do next ("zh / en"). `where`: any of dataset, link, region,
    system, file, line, sheet, row, key, field; shown in that order.
    """

    ORDER = ("dataset", "link", "region", "system", "file", "line", "sheet", "row", "key", "field", "rule")

    def __init__(self, en: str, zh: str, *, todo: str = "", **where: object) -> None:
        self.en = en
        self.zh = zh
        self.todo = todo
        self.where: dict[str, object] = {name: value for name, value in where.items() if value not in (None, "")}
        super().__init__(en, zh)

    def at(self, **where: object) -> FedsyncError:
        """Add what the raiser could not know (its dataset, link or region); what is already named stays."""
        for name, value in where.items():
            if value not in (None, ""):
                self.where.setdefault(name, value)
        return self

    @property
    def place(self) -> str:
        """`dataset=resident region=110101001001 …`, in the order that a reader looks for it."""
        known = [name for name in self.ORDER if name in self.where]
        known += [name for name in self.where if name not in self.ORDER]
        return " ".join(f"{name}={self.where[name]}" for name in known)

    def __str__(self) -> str:
        text = f"{self.zh} / {self.en}"
        if self.where:
            text += f" [{self.place}]"
        if self.todo:
            text += f" → {self.todo}"
        return text


class DeclarationError(FedsyncError):
    """What was declared cannot be meant. `problems` holds each one, so that a reader can mend all at once."""

    def __init__(
        self, en: str, zh: str, *, todo: str = "", problems: tuple[FedsyncError, ...] = (), **where: object
    ) -> None:
        super().__init__(en, zh, todo=todo, **where)
        self.problems = problems

    def __str__(self) -> str:
        if not self.problems:
            return super().__str__()
        return "\n".join([super().__str__(), *(f"  - {problem}" for problem in self.problems)])


class ConnectorError(FedsyncError):
    """A system did not do what was asked; the driver's error is the `__cause__`."""


class Transient(ConnectorError):
    """May work if tried again. `retry_after`: seconds that the system asked for, if it said.

    `waited`: seconds that went by waiting for an answer that did not come; they count as much as a pause does. `given_up`: whoever
    insisted on it has given it up: it is not to be tried again within the same call.
    """

    waited: float = 0.0
    given_up: bool = False

    def __init__(self, en: str, zh: str, *, todo: str = "", retry_after: float | None = None, **where: object) -> None:
        super().__init__(en, zh, todo=todo, **where)
        self.retry_after = retry_after


class Resting(Transient):
    """The system has quiet hours, and was not asked, which says nothing about its health. `retry_after`: until they are over."""


class Conflict(ConnectorError):
    """The data changed between our read and our write; nothing was written. Read and merge again."""


class Permanent(ConnectorError):
    """Will not work until a person acts; never retried."""


class AccessDenied(Permanent):
    """The system refused the credentials, or they lack a right."""


class SchemaMismatch(Permanent):
    """A table, column, sheet or endpoint that the contract needs is not there."""


class Unreadable(Permanent):
    """The bytes are not what was declared: wrong encoding, truncated, not a workbook."""


class LinkHeld(FedsyncError):
    """A guard stopped this link; `fedsync link release` lets it go on."""


class LeaseHeld(FedsyncError):
    """Another runner works on this link; come back later."""


class LeaseLost(FedsyncError):
    """Another runner took the link over; this run settles nothing."""


class AccountingError(FedsyncError):
    """read ≠ delivered + unchanged + quarantined + held + out of scope."""


class GateError(FedsyncError):
    """A suite could not be evaluated."""


@contextmanager
def located(**where: object) -> Iterator[None]:
    """Name the place in every error of ours that passes through."""
    try:
        yield
    except FedsyncError as error:
        error.at(**where)
        raise
