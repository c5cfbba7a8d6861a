"""What is known of one record, and the path that it is believed to take from the city down. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from federation.config import Config, Link
from federation.contract import Dataset
from federation.ledger.contests import STANDING, Contest
from federation.ledger.corrections import OPEN, Correction
from federation.ledger.links import LinkState
from federation.ledger.quarantine import Item
from federation.ledger.receipts import Proof
from federation.ledger.tombstones import GONE, Tombstone
from federation.ledger.waiting import SideName
from federation.trace_words import Told


@dataclass(frozen=True)
class Agreed:
    """What a link's baseline says of the record. `fps`: group → fingerprint, None if it was agreed on under another contract;
    `since`: since when both ends agree on exactly these, None if that was not kept."""

    fps: Mapping[str, bytes | None]
    since: datetime | None
    stamp: int | None


@dataclass(frozen=True)
class Unfinished:
    """What a run that has not settled was about to do with the record. `seeded`, `removed`: the end (`lower`, `upper` or "") that
    was to get or lose it. `working`: that run may still be at work; else it died."""

    fps: Mapping[str, bytes | None]
    seeded: str
    removed: str
    working: bool


@dataclass(frozen=True)
class Answer:
    """What a node said when it was asked. `fps`: group → fingerprint; `place`: the jurisdiction that the record carries there."""

    state: Literal["have", "gone", "unreadable", "unreachable"]
    fps: Mapping[str, bytes] = field(default_factory=dict)
    place: str | None = None
    reason: Told | None = None


@dataclass(frozen=True)
class Findings:
    """Everything that the ledger (and, in `answers`, the nodes) said of one record, by link id or region code.

    `read`: the links whose baseline was looked at; `states`: of every link of the dataset that ever ran.
    """

    now: datetime
    states: Mapping[str, LinkState]
    read: frozenset[str]
    agreed: Mapping[str, Agreed]
    unfinished: Mapping[str, Unfinished]
    waits: Sequence[tuple[str, SideName]]
    items: Sequence[Item]
    contests: Sequence[Contest]
    corrections: Sequence[Correction]
    stones: Sequence[Tombstone]
    proofs: Mapping[str, Proof] = field(default_factory=dict)
    answers: Mapping[str, Answer] = field(default_factory=dict)

    @property
    def anything(self) -> bool:
        """Whether anybody knows the record, or knew it lately."""
        ledger = (self.agreed, self.unfinished, self.waits, self.items, self.contests, self.corrections, self.stones)
        return any(ledger) or any(answer.state in ("have", "unreadable") for answer in self.answers.values())

    @property
    def removed_from(self) -> set[str]:
        """The nodes from which the engine removed the record, and to which it has not come back."""
        return {stone.region for stone in self.stones if stone.kind in GONE}

    @property
    def deleted(self) -> datetime | None:
        """When the record was deleted, if whatever is still agreed on is older than that."""
        at = max((stone.at for stone in self.stones if stone.kind == "deleted"), default=None)
        older = at is not None and all(a.since is not None and a.since < at for a in self.agreed.values())
        return at if older else None

    def holders(self, config: Config, dataset: Dataset) -> set[str]:
        """The nodes that hold the record: as they said themselves, else as the ledger has it."""
        found = set()
        for link_id in self.agreed:
            link = config.link(dataset.name, region_of(link_id))
            found |= {link.upper.code, link.lower.code}
        found |= {item.origin for item in self.items}
        found |= {c.raised_by for c in self.corrections if c.kind == "create" and c.state in OPEN}
        for contest in self.contests:
            if contest.state != "ended":
                found |= {contest.parent, contest.challenger}
        for link_id, unfinished in self.unfinished.items():
            if unfinished.seeded:
                link = config.link(dataset.name, region_of(link_id))
                found.add(link.upper.code if unfinished.seeded == "lower" else link.lower.code)
        found -= self.removed_from
        for code, answer in self.answers.items():
            if answer.state in ("have", "unreadable"):
                found.add(code)
            elif answer.state == "gone":
                found.discard(code)
        return found


@dataclass(frozen=True)
class Path:
    """The nodes of the record's jurisdiction, from the top level down. `source`: who told the jurisdiction; `ends`: whether the path
    is known to end there (the ledger holds no jurisdictions: where no link below knows the record, it may go further)."""

    nodes: tuple[str, ...]
    source: Literal["live", "ledger"]
    ends: bool


def region_of(link_id: str) -> str:
    """The lower region of a link."""
    return link_id.rsplit("/", 1)[-1]


def path_of(config: Config, dataset: Dataset, found: Findings) -> Path:
    """Where the record belongs: as the node nearest to the jurisdiction's authority says, if nodes were asked; else as links agreed."""
    place = _Walk(config, dataset, found).place()
    nodes = _ancestors(config, dataset, place) if place is not None else ()
    told = _told(config, dataset, found, nodes)
    if told is not None:
        return Path(_ancestors(config, dataset, told), "live", True)
    bottom = bool(nodes) and config.tree[nodes[-1]].level == dataset.levels[-1]
    return Path(nodes, "ledger", bottom or found.deleted is not None)


def links_shown(config: Config, dataset: Dataset, found: Findings, path: Path) -> list[Link]:
    """The links that a trace tells of, top down, the record's own path first: of the path, those that agreed on the record or were about
    to, those where it is held up, and the links above each of them."""
    codes = set(path.nodes) | {region_of(name) for name in (*found.agreed, *found.unfinished)}
    codes |= {region_of(link_id) for link_id, _ in found.waits} | {region_of(item.link_id) for item in found.items}
    codes |= {region_of(contest.link_id) for contest in found.contests if contest.state in STANDING}
    codes |= {region_of(c.link_id) for c in found.corrections if c.kind in ("create", "delete") and c.state in OPEN}
    below = dataset.levels[1:]
    with_above = {region.code for code in codes for level in below if (region := config.tree.ancestor(code, level))}

    def rank(code: str) -> tuple[int, bool, str]:
        return below.index(config.tree[code].level), code not in path.nodes, code

    return [config.link(dataset.name, code) for code in sorted(with_above, key=rank)]


def _ancestors(config: Config, dataset: Dataset, place: str) -> tuple[str, ...]:
    regions = (config.tree.ancestor(place, level) for level in dataset.levels)
    return tuple(region.code for region in regions if region is not None)


def _told(config: Config, dataset: Dataset, found: Findings, believed: Sequence[str]) -> str | None:
    """The jurisdiction by the word of a node: the nearest to its authority, on the path that the ledger believes in, if one is."""
    authority = dataset.fields[dataset.jurisdiction].authority
    owner = dataset.levels.index(authority) if authority in dataset.levels else 0

    def rank(code: str) -> tuple[int, bool]:
        return abs(dataset.levels.index(config.tree[code].level) - owner), code not in believed

    told = {code: answer.place for code, answer in found.answers.items() if answer.place in config.tree}
    return told[min(told, key=rank)] if told else None


class _Walk:
    """Follows the record down by what links agreed on, were about to do, or could not do."""

    def __init__(self, config: Config, dataset: Dataset, found: Findings) -> None:
        self._config, self._dataset, self._found = config, dataset, found
        self._tree = config.tree
        down = {item.link_id for item in found.items if item.direction in ("down", "up")}
        self._stopped = down | {link_id for link_id, _ in found.waits} | set(found.unfinished)

    def place(self) -> str | None:
        """The lowest region known; None if nothing says where the record is."""
        for root in self._tree.at(self._dataset.levels[0]):
            if self._below(root.code) is not None:
                return self._down(root.code)
        start = self._highest()
        return None if start is None else self._down(start)

    def _down(self, code: str) -> str:
        while (step := self._below(code)) is not None:
            code = step
        return code

    def _below(self, code: str) -> str | None:
        links = self._config.links(self._dataset.name, code)
        moved = self._moved_to(code)
        agreed = [link for link in links if link.id in self._found.agreed]
        if agreed:
            there = [link for link in agreed if link.lower.code == moved]
            return max(there or agreed, key=self._since).lower.code
        stopped = [link for link in links if link.id in self._stopped]
        return stopped[0].lower.code if stopped else moved

    def _since(self, link: Link) -> float:
        since = self._found.agreed[link.id].since
        return since.timestamp() if since else 0.0

    def _moved_to(self, code: str) -> str | None:
        """The child in which the newest tombstone says that the record lives now."""
        level = self._dataset.lower_of(self._tree[code].level)
        for stone in reversed(self._found.stones):
            if stone.region == code and stone.kind == "deleted":
                return None
            inside = stone.destination and self._tree.ancestor(stone.destination, self._tree[code].level)
            if level is not None and inside and inside.code == code:
                child = self._tree.ancestor(stone.destination or "", level)
                return child.code if child else None
        return None

    def _highest(self) -> str | None:
        """Where to begin when no link of the top knows the record: where it was seen."""
        found = self._found
        if found.agreed:
            return region_of(max(found.agreed, key=lambda name: (self._depth(region_of(name)), self._since_of(name))))
        seen = [region_of(name) for name in found.unfinished]
        seen += [item.origin for item in found.items] + [region_of(link_id) for link_id, _ in found.waits]
        seen += [c.raised_by for c in found.corrections if c.kind == "create" and c.state in OPEN]
        seen += [c.challenger for c in found.contests]
        seen += sorted((stone.region for stone in reversed(found.stones)), key=self._depth, reverse=True)
        seen += [c.raised_by for c in found.corrections]
        return next((code for code in seen if self._depth(code) >= 0), None)

    def _depth(self, code: str) -> int:
        """How far below the top a region lies; -1 if it is no node of the dataset (any more)."""
        levels = self._dataset.levels
        known = code in self._tree and self._tree[code].level in levels
        return levels.index(self._tree[code].level) if known else -1

    def _since_of(self, link_id: str) -> float:
        since = self._found.agreed[link_id].since
        return since.timestamp() if since else 0.0
