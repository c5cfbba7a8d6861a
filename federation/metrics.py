"""How a federation stands, in named numbers (指标). Pure: from what the ledger says to samples; how they leave is others' business.

Names and tags do not grow with the number of links, unless links are asked for: the worst few, or all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import Any

from federation.config import Config, Link
from federation.ledger.links import LinkState
from federation.reach import reach

WORST = 20
"""Links that are named by default."""
STATES = ("new", "ok", "held", "failed")
OUTCOMES = ("ok", "held", "failed")
FATES = ("descended", "ascended", "removed", "unchanged", "quarantined", "held", "out_of_scope", "warned")
"""What can become of a row in a run, see `federation.outcome` and `federation.accounting`."""


@dataclass(frozen=True)
class Metric:
    """A name, its unit, what it says in Chinese and English, and the tags that tell its samples apart."""

    name: str
    unit: str
    zh: str
    en: str
    tags: tuple[str, ...]


_LEVEL, _LINK = ("dataset", "level"), ("dataset", "level", "link", "path")
CATALOGUE = {
    metric.name: metric
    for metric in (
        Metric("fedsync_links", "links", "链路数，按状态", "links by state", (*_LEVEL, "state")),
        Metric("fedsync_lag_seconds_max", "s", "距上次结算最久的时长", "longest time since a link settled", _LEVEL),
        Metric("fedsync_lag_seconds_median", "s", "距上次结算的中位时长", "median time since a link settled", _LEVEL),
        Metric("fedsync_freshness_seconds", "s", "承诺的时效", "the promised freshness", ("dataset",)),
        Metric("fedsync_nodes", "nodes", "顶级以下的节点数", "nodes below the top", _LEVEL),
        Metric("fedsync_reach_ratio", "0–1", "触达率", "share of nodes reached in time", (*_LEVEL, "direction")),
        Metric("fedsync_quarantine_open", "records", "隔离中的记录，按来源层级", "records set aside, by level of origin", _LEVEL),
        Metric("fedsync_corrections_open", "corrections", "未裁定的校核，按裁定层级", "not ruled on, by the level that rules", _LEVEL),
        Metric("fedsync_corrections_overdue", "corrections", "其中超期的", "those among them that are late", _LEVEL),
        Metric("fedsync_contests_open", "contests", "待裁定的争议", "contested keys not ruled on", ("dataset",)),
        Metric("fedsync_alerts_open", "alerts", "未恢复的告警，按类别", "alerts that are not over, by kind", ("kind",)),
        Metric("fedsync_recent_window_seconds", "s", "下列各项统计的时段", "what the next ones look back over", ()),
        Metric("fedsync_recent_runs", "runs", "时段内的链路运行，按结果", "link runs in the window, by outcome", (*_LEVEL, "outcome")),
        Metric("fedsync_recent_rows", "rows", "时段内各次运行的条数之和，按去向", "rows of the window's runs, by fate", (*_LEVEL, "fate")),
        Metric("fedsync_recent_run_seconds_max", "s", "时段内最长的链路运行", "longest link run in the window", _LEVEL),
        Metric("fedsync_recent_run_seconds_median", "s", "时段内链路运行的中位时长", "median link run in the window", _LEVEL),
        Metric("fedsync_link_ok", "0/1", "链路状态正常", "whether the link's last run went well", _LINK),
        Metric("fedsync_link_lag_seconds", "s", "链路距上次结算的时长", "time since the link settled", _LINK),
        Metric("fedsync_link_quarantine_open", "records", "链路隔离中的记录", "records that the link has set aside", _LINK),
        Metric("fedsync_link_recent_rows", "rows", "时段内链路写入与删除的条数", "rows the link wrote or deleted in the window", _LINK),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """One number of a metric. `tags`: in the metric's order."""

    name: str
    value: float
    tags: tuple[str, ...] = ()

    @property
    def named(self) -> dict[str, str]:
        """Tags by name."""
        return dict(zip(CATALOGUE[self.name].tags, self.tags))


@dataclass(frozen=True)
class Ran:
    """One recorded link run. `counts`: an outcome's summary."""

    link_id: str
    seconds: float
    outcome: str
    counts: Mapping[str, Any]


@dataclass(frozen=True)
class Figures:
    """What the ledger says at one moment. `quarantine`: (link or node, dataset, origin) → records; `corrections`, `overdue`: (dataset,
    region that rules) → number; `contests`: dataset → number; `alerts`: kind → subjects; `runs`: those of the last `window` seconds."""

    now: datetime
    window: float
    states: dict[str, LinkState]
    quarantine: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    corrections: Mapping[tuple[str, str], int] = field(default_factory=dict)
    overdue: Mapping[tuple[str, str], int] = field(default_factory=dict)
    contests: Mapping[str, int] = field(default_factory=dict)
    alerts: Mapping[str, int] = field(default_factory=dict)
    runs: tuple[Ran, ...] = ()


def rows_of(counts: Mapping[str, Any]) -> dict[str, int]:
    """Fate → rows, of one outcome's summary; both ends of a link together."""
    accounts = counts.get("accounts", {}).values()
    found = {name: int(counts.get(name, 0)) for name in ("descended", "ascended", "quarantined", "held", "warned")}
    found["removed"] = int(counts.get("removed_below", 0)) + int(counts.get("removed_above", 0))
    found |= {name: sum(int(one.get(name, 0)) for one in accounts) for name in ("unchanged", "out_of_scope")}
    return {fate: found[fate] for fate in FATES}


def measure(config: Config, figures: Figures, datasets: Iterable[str], *, links: int | None = WORST) -> list[Sample]:
    """Every sample of these datasets. `links`: how many links are named, the worst first; None: all."""
    samples = [Sample("fedsync_recent_window_seconds", figures.window)]
    samples += [Sample("fedsync_alerts_open", number, (kind,)) for kind, number in sorted(figures.alerts.items())]
    for name in datasets:
        samples += _dataset(config, figures, name, links)
    return samples


def _dataset(config: Config, figures: Figures, name: str, named: int | None) -> Iterator[Sample]:
    contract = config.dataset(name)
    declared = list(config.all_links(name))
    levels = {link.id: link.lower.level for link in declared}
    yield Sample("fedsync_freshness_seconds", contract.freshness * 60.0, (name,))
    yield Sample("fedsync_contests_open", figures.contests.get(name, 0), (name,))
    yield from _standing(figures, name, declared)
    for line in reach(config, name, figures.states, figures.now):
        yield Sample("fedsync_nodes", line.nodes, (name, line.level))
        for direction in ("down", "up"):
            yield Sample("fedsync_reach_ratio", line.share, (name, line.level, direction))
    aside: Counter[tuple[str, str]] = Counter()
    for (_, dataset, origin), number in figures.quarantine.items():
        aside[dataset, origin] += number
    origins = _by_level(config, aside, name)
    targets, late = _by_level(config, figures.corrections, name), _by_level(config, figures.overdue, name)
    for level in contract.levels:
        yield Sample("fedsync_quarantine_open", origins[level], (name, level))
        yield Sample("fedsync_corrections_open", targets[level], (name, level))
        yield Sample("fedsync_corrections_overdue", late[level], (name, level))
    runs = [run for run in figures.runs if run.link_id in levels]
    yield from _recent(name, contract.levels[1:], levels, runs)
    yield from _links(figures, name, declared, runs, named)


def _by_level(config: Config, numbers: Mapping[tuple[str, str], int], name: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for (dataset, region), number in numbers.items():
        if dataset == name and region in config.tree:
            found[config.tree[region].level] += number
    return found


def _standing(figures: Figures, name: str, declared: list[Link]) -> Iterator[Sample]:
    states: dict[str, Counter[str]] = defaultdict(Counter)
    lags: dict[str, list[float]] = defaultdict(list)
    for link in declared:
        state = figures.states.get(link.id)
        states[link.lower.level][state.state if state else "new"] += 1
        lag = lag_of(state, figures.now)
        if lag is not None:
            lags[link.lower.level].append(lag)
    for level, counted in states.items():
        for word in dict.fromkeys((*STATES, *counted)):
            yield Sample("fedsync_links", counted[word], (name, level, word))
    for level, found in lags.items():
        yield Sample("fedsync_lag_seconds_max", max(found), (name, level))
        yield Sample("fedsync_lag_seconds_median", median(found), (name, level))


def lag_of(state: LinkState | None, now: datetime) -> float | None:
    """Seconds since a link last settled; None if it never did."""
    if state is None or state.last_ok is None:
        return None
    return max(0.0, (now - state.last_ok).total_seconds())


def _recent(name: str, below: Iterable[str], levels: Mapping[str, str], runs: Iterable[Ran]) -> Iterator[Sample]:
    outcomes: dict[str, Counter[str]] = {level: Counter() for level in below}
    rows: dict[str, Counter[str]] = {level: Counter() for level in outcomes}
    took: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        level = levels[run.link_id]
        outcomes[level][run.outcome] += 1
        rows[level].update(rows_of(run.counts))
        took[level].append(run.seconds)
    for level in outcomes:
        for outcome in OUTCOMES:
            yield Sample("fedsync_recent_runs", outcomes[level][outcome], (name, level, outcome))
        for fate in FATES:
            yield Sample("fedsync_recent_rows", rows[level][fate], (name, level, fate))
        if took[level]:
            yield Sample("fedsync_recent_run_seconds_max", max(took[level]), (name, level))
            yield Sample("fedsync_recent_run_seconds_median", median(took[level]), (name, level))


def _links(
    figures: Figures, name: str, declared: list[Link], runs: Iterable[Ran], named: int | None
) -> Iterator[Sample]:
    """The links by name: those that are not well first, then those that settled longest ago."""
    moved: Counter[str] = Counter()
    for run in runs:
        found = rows_of(run.counts)
        moved[run.link_id] += found["descended"] + found["ascended"] + found["removed"]
    aside: Counter[str] = Counter()
    for (link_id, _, _), number in figures.quarantine.items():
        aside[link_id] += number

    def badness(link: Link) -> tuple[bool, float]:
        state = figures.states.get(link.id)
        ill = state is not None and state.state not in ("ok", "new")
        return (not ill, -(lag_of(state, figures.now) or 0.0))

    for link in sorted(declared, key=badness)[:named]:
        state = figures.states.get(link.id)
        tags = (name, link.lower.level, link.id, f"{link.upper.name} → {link.lower.name}")
        yield Sample("fedsync_link_ok", float(state is not None and state.state == "ok"), tags)
        lag = lag_of(state, figures.now)
        if lag is not None:
            yield Sample("fedsync_link_lag_seconds", lag, tags)
        yield Sample("fedsync_link_quarantine_open", aside[link.id], tags)
        yield Sample("fedsync_link_recent_rows", moved[link.id], tags)
