"""The trend of quality: per node and rule, how many records of each report failed. Counts only; no key, no value."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, delete, func, insert, select

from federation.ledger.schema import quality as table
from federation.ledger.store import Ledger, rows

LONG_AGO = timedelta(days=30)


@dataclass(frozen=True)
class Finding:
    """What a rule found at one node: `failing` of the `evaluated` records. A rule on the whole table counts as one record."""

    rule: str
    severity: str
    evaluated: int
    failing: int

    @property
    def share(self) -> float:
        """The failing share, 0 where nothing was there to judge."""
        return self.failing / self.evaluated if self.evaluated else 0.0


@dataclass(frozen=True)
class Trend:
    """A node's latest finding of one rule. `before`, `long_ago`: the share in the run before, and in the last one that is 30 days old."""

    region: str
    checked_at: datetime
    finding: Finding
    before: float | None
    long_ago: float | None

    @property
    def change(self) -> float | None:
        """What the share has grown by since the run before; None if there was none."""
        return None if self.before is None else self.finding.share - self.before

    @property
    def long_change(self) -> float | None:
        """The same, against 30 days ago."""
        return None if self.long_ago is None else self.finding.share - self.long_ago


class QualityLog:
    """The ledger's `quality` table."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def record(self, dataset: str, region: str, findings: Sequence[Finding], at: datetime) -> None:
        """Enter what one report found at one node."""
        lines = [
            {
                "dataset": dataset,
                "region": region,
                "checked_at": at,
                "rule": found.rule,
                "severity": found.severity,
                "evaluated": found.evaluated,
                "failing": found.failing,
            }
            for found in findings
        ]
        with self.ledger.transaction() as connection:
            connection.execute(insert(table), lines)

    def examined(self, dataset: str, since: datetime) -> set[str]:
        """The nodes with a report since then."""
        statement = select(table.c.region).where(table.c.dataset == dataset, table.c.checked_at >= since).distinct()
        with self.ledger.transaction() as connection:
            return {row["region"] for row in rows(connection, statement)}

    def prune(self, dataset: str, keep: timedelta) -> int:
        """Forget what is older than `keep`; how many lines."""
        old = delete(table).where(table.c.dataset == dataset, table.c.checked_at < self.ledger.clock() - keep)
        with self.ledger.transaction() as connection:
            gone: int = connection.execute(old).rowcount
        return gone

    def trend(self, dataset: str, regions: Collection[str] | None = None) -> list[Trend]:
        """The latest findings of each node, beside earlier ones. `regions`: of these only."""
        wanted = table.c.dataset == dataset
        if regions is not None:
            wanted &= table.c.region.in_(sorted(regions))
        latest = _last(wanted)
        runs = latest.subquery()
        earlier = _last(wanted).join(runs, runs.c.region == table.c.region).where(table.c.checked_at < runs.c.at)
        old = earlier.where(table.c.checked_at <= self.ledger.clock() - LONG_AGO)
        now, before, long_ago = (self._lines(wanted, moments) for moments in (latest, earlier, old))
        return [
            Trend(region, at, found, _share(before, region, rule), _share(long_ago, region, rule))
            for (region, rule), (at, found) in now.items()
        ]

    def _lines(
        self, wanted: ColumnElement[bool], moments: Select[tuple[str, datetime]]
    ) -> dict[tuple[str, str], tuple[datetime, Finding]]:
        run = moments.subquery()
        chosen = (table.c.region == run.c.region) & (table.c.checked_at == run.c.at)
        statement = select(table).join(run, chosen).where(wanted).order_by(table.c.region, table.c.rule)
        with self.ledger.transaction() as connection:
            lines = connection.execute(statement).all()
        return {
            (line.region, line.rule): (
                line.checked_at,
                Finding(line.rule, line.severity, line.evaluated, line.failing),
            )
            for line in lines
        }


def _last(wanted: ColumnElement[bool]) -> Select[tuple[str, datetime]]:
    """region, at: the last report on each node."""
    return select(table.c.region, func.max(table.c.checked_at).label("at")).where(wanted).group_by(table.c.region)


def _share(lines: dict[tuple[str, str], tuple[datetime, Finding]], region: str, rule: str) -> float | None:
    held = lines.get((region, rule))
    return None if held is None else held[1].share
