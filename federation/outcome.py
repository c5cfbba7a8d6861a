"""What a link run did, in numbers that can cross a process boundary."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """`descended`, `ascended`: rows written below and above; `removed_…`: rows deleted there; `corrections_…`: corrections and
    outcomes that passed; `ruled`: corrections that were ruled on, written or settled themselves; `accounts`: per end; `skipped`: why
    the link was left alone, though nothing is wrong with it."""

    run_id: str
    link_id: str
    upper: str
    lower: str
    descended: int = 0
    ascended: int = 0
    removed_below: int = 0
    removed_above: int = 0
    quarantined: int = 0
    held: int = 0
    warned: int = 0
    corrections_up: int = 0
    corrections_down: int = 0
    ruled: int = 0
    accounts: dict[str, dict[str, int]] = field(default_factory=dict)
    error: str | None = None
    skipped: str | None = None

    @classmethod
    def nothing(
        cls, run_id: str, link_id: str, upper: str, lower: str, error: str | None = None, skipped: str | None = None
    ) -> Outcome:
        """A run that did nothing, or failed, or was not to be."""
        return cls(run_id, link_id, upper, lower, error=error, skipped=skipped)

    @property
    def news_below(self) -> bool:
        """Whether the lower node now holds something new."""
        return bool(self.descended or self.removed_below or self.corrections_down)

    @property
    def news_above(self) -> bool:
        """Whether the upper node now holds something new."""
        return bool(self.ascended or self.removed_above or self.corrections_up)

    @property
    def moved(self) -> bool:
        """Whether anything was written anywhere, or a correction got on."""
        return self.news_below or self.news_above or bool(self.ruled)

    def summary(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)
