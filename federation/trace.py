"""The trace of one record: its path hop by hop, which version each hop agreed on, where it stopped and why.

A *version* is named by a short hash over fingerprints, never by values. A hop's version covers the groups that every hop of the
dataset carries, so equal names mean the same version on every level; groups that travel on some hops only are named beside it.
A group is *behind* on a hop if the neighbouring hop towards its authority has agreed on another version.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from federation.ledger.receipts import Receipt
from federation.trace_words import Obstacle, Stop, Told


@dataclass(frozen=True)
class GroupVersion:
    """One field group on one hop, or at one node. `version`: None if it was agreed on under another contract."""

    group: str
    authority: str
    fields: tuple[str, ...]
    version: str | None
    behind: bool = False


@dataclass(frozen=True)
class Hop:
    """One link and what its two ends agree on. `since`: when they agreed on this version, settled by `run`; `lag`: minutes since the
    link last settled; `running`: a runner is at work on it now; `on_path`: whether it leads to the record's jurisdiction."""

    link: str
    upper: str
    lower: str
    on_path: bool
    agreed: bool
    version: str | None
    groups: tuple[GroupVersion, ...]
    since: datetime | None
    run: str | None
    receipts: tuple[Receipt, ...]
    state: str
    running: bool
    last_run: datetime | None
    last_ok: datetime | None
    lag: float | None
    obstacles: tuple[Obstacle, ...]

    @property
    def behind(self) -> tuple[str, ...]:
        """The groups of which a newer version has not passed here yet."""
        return tuple(group.group for group in self.groups if group.behind)


@dataclass(frozen=True)
class NodeNow:
    """What a node said when it was asked, against what its links agreed on.

    same: as agreed. edited: some groups (`differs`) were edited here since. unsettled: as a run was about to write that has not
    settled. new: it holds the record, but no link of it has agreed on it. missing: a link agreed on it, and it is not here (any
    more). absent: not here, as is to be expected. unreadable: its row cannot be typed. unreachable: the system did not answer.
    """

    region: str
    state: Literal["same", "edited", "unsettled", "new", "missing", "absent", "unreadable", "unreachable"]
    version: str | None
    groups: tuple[GroupVersion, ...]
    differs: tuple[str, ...]
    reason: Told | None


@dataclass(frozen=True)
class CorrectionLine:
    """One correction about the record, without values. `at`: where it stands now; `way`: the nodes it has reached."""

    correction: str
    kind: str
    group: str | None
    fields: tuple[str, ...]
    state: str
    raised_by: str
    target: str | None
    at: str | None
    raised: datetime
    due: date | None
    ruled: datetime | None
    closed: datetime | None
    way: tuple[str, ...]


@dataclass(frozen=True)
class Removal:
    """One tombstone. `kind`: deleted, moved (away from `region`), left (its child changed, it stays here), arrived (it came back).
    `owed_by`: the link that has yet to act on it; None once it has."""

    region: str
    kind: str
    destination: str | None
    at: datetime
    by_link: str
    owed_by: str | None


@dataclass(frozen=True)
class Trace:
    """Everything that is known of one record.

    `path`: the nodes of its jurisdiction from the top down, as told by `source` (the nodes themselves, or the ledger); `reached` of
    `levels`: how many of them hold it. `stop`: where it, or its newest version, stopped. `obstacles`: those at nodes that no link
    shown is concerned with. Of `links` links the baselines of `read` were looked at.
    """

    dataset: str
    key: str
    summary: Told
    source: str
    path: tuple[str, ...]
    levels: int
    reached: int
    deleted: datetime | None
    stop: Stop | None
    hops: tuple[Hop, ...]
    nodes: tuple[NodeNow, ...]
    obstacles: tuple[Obstacle, ...]
    corrections: tuple[CorrectionLine, ...]
    removals: tuple[Removal, ...]
    read: int
    links: int
