"""From findings to a trace: what agrees, what is behind, what stopped where. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from federation.config import Config, Link
from federation.contract import Dataset, Group, LinkContract
from federation.correcting import shown_state
from federation.ledger.contests import STANDING
from federation.ledger.corrections import OPEN, Correction
from federation.ledger.links import working
from federation.trace import CorrectionLine, GroupVersion, Hop, NodeNow, Removal, Trace
from federation.trace_path import Findings, Path, links_shown, region_of
from federation.trace_words import ABOUT_LINK, ORDER, Obstacle, Stop, Told, Words

SHORT = 8
"""Hex digits of a version's name."""
FEW = 3
"""So many regions are named in one line; more are counted as "…"."""


def groups_at(dataset: Dataset, level: str) -> dict[str, Group]:
    """The groups that travel on the hops of a level's nodes."""
    above, below = dataset.upper_of(level), dataset.lower_of(level)
    hops = [LinkContract(dataset, above, level)] if above else []
    hops += [LinkContract(dataset, level, below)] if below else []
    return {group.name: group for hop in hops for group in hop.groups}


def version_of(fps: Mapping[str, bytes | None], groups: Sequence[str]) -> str | None:
    """The short name of these groups' fingerprints together; None if one is unknown, or if there are none."""
    known = [(name, fps.get(name)) for name in sorted(groups)]
    if not known or any(fp is None for _, fp in known):
        return None
    return hashlib.sha256("|".join(f"{name}={(fp or b'').hex()}" for name, fp in known).encode()).hexdigest()[:SHORT]


def assemble(config: Config, dataset: Dataset, key: str, found: Findings, path: Path) -> Trace:
    """Put the findings in order: top down, the record's own path before other branches."""
    return _Assembly(config, dataset, found, path).trace(key)


class _Assembly:
    def __init__(self, config: Config, dataset: Dataset, found: Findings, path: Path) -> None:
        self.config, self.dataset, self.found, self.path = config, dataset, found, path
        self.words = Words(config.tree, dataset)
        carried = [{group.name for group in LinkContract(dataset, *hop).groups} for hop in dataset.hops]
        self.common = sorted(set.intersection(*carried))
        self.obstacles = sorted(self._obstacles(), key=lambda obstacle: ORDER.index(obstacle.kind))
        self.holders = found.holders(config, dataset)
        self.hops = tuple(self._hop(link) for link in links_shown(config, dataset, found, path))

    def trace(self, key: str) -> Trace:
        found, path = self.found, self.path
        levels = len(path.nodes) if path.ends else len(self.dataset.levels)
        reached = sum(code in self.holders for code in path.nodes)
        stop, deleted = self._stop(), found.deleted
        nodes = tuple(self._node(code) for code in sorted(found.answers, key=self._rank))
        more = not path.ends and bool(path.nodes) and stop is None
        summary = self.words.summary(
            reached,
            levels,
            stop,
            deleted=deleted is not None,
            known_end=path.nodes[-1] if more else None,
            notes=self._notes(nodes, stop, more=more),
        )
        shown = {hop.link for hop in self.hops}
        return Trace(
            dataset=self.dataset.name,
            key=key,
            summary=summary,
            source=path.source,
            path=path.nodes,
            levels=levels,
            reached=reached,
            deleted=deleted,
            stop=stop,
            hops=self.hops,
            nodes=nodes,
            obstacles=tuple(obstacle for obstacle in self.obstacles if obstacle.link not in shown),
            corrections=tuple(self._correction(correction) for correction in found.corrections),
            removals=tuple(self._removals()),
            read=len(found.read),
            links=sum(1 for _ in self.config.all_links(self.dataset.name)),
        )

    def _obstacles(self) -> Iterator[Obstacle]:
        found, words = self.found, self.words
        yield from (words.contested(contest) for contest in found.contests if contest.state in STANDING)
        yield from (words.quarantined(item) for item in found.items)
        for link_id, side in found.waits:
            link = self.config.link(self.dataset.name, region_of(link_id))
            yield words.waiting(link_id, link.upper.code if side == "upper" else link.lower.code)
        for correction in found.corrections:
            if correction.kind in ("create", "delete") and correction.state in OPEN:
                yield words.ruling(correction)
        for link_id, unfinished in found.unfinished.items():
            yield words.unfinished(link_id, working=unfinished.working)

    def _hop(self, link: Link) -> Hop:
        found, agreed = self.found, self.found.agreed.get(link.id)
        state, proof = found.states.get(link.id), found.proofs.get(link.id)
        obstacles = [obstacle for obstacle in self.obstacles if obstacle.link == link.id]
        told = self.words.link(link.id, state)
        obstacles += [told] if told is not None else []
        last_ok = state.last_ok if state else None
        return Hop(
            link=link.id,
            upper=link.upper.code,
            lower=link.lower.code,
            on_path=link.lower.code in self.path.nodes,
            agreed=agreed is not None,
            version=version_of(agreed.fps, self.common or list(agreed.fps)) if agreed else None,
            groups=tuple(self._versions(link.contract.groups, agreed.fps, self._behind(link))) if agreed else (),
            since=agreed.since if agreed else None,
            run=proof.run_id if proof else None,
            receipts=proof.receipts if proof else (),
            state=state.state if state else "new",
            running=state is not None and working(state, found.now),
            last_run=state.last_run if state else None,
            last_ok=last_ok,
            lag=round((found.now - last_ok).total_seconds() / 60, 1) if last_ok else None,
            obstacles=tuple(obstacles),
        )

    def _versions(
        self, groups: Iterable[Group], fps: Mapping[str, bytes | None], marked: Collection[str]
    ) -> Iterator[GroupVersion]:
        for group in groups:
            version = version_of(fps, [group.name])
            yield GroupVersion(group.name, group.authority, group.fields, version, group.name in marked)

    def _behind(self, link: Link) -> set[str]:
        """The groups of which the neighbouring hop towards the authority (of a shared group: the later one) has another version."""
        agreed, behind = self.found.agreed, set()
        above = f"{self.dataset.name}/{link.upper.code}"
        below = [name for name in agreed if name in self._below(link)]
        for group in link.contract.groups:
            mine = agreed[link.id]
            beyond = {"descending": [above], "ascending": below, "shared": [above, *below]}[group.direction]
            for name in beyond:
                theirs = agreed.get(name)
                fp = theirs.fps.get(group.name) if theirs else None
                if theirs is None or fp is None or mine.fps[group.name] in (None, fp):
                    continue
                if group.direction != "shared" or (theirs.stamp or 0) > (mine.stamp or 0):
                    behind.add(group.name)
        return behind

    def _below(self, link: Link) -> set[str]:
        """The links below that lead to where the record lives; any, if none does."""
        links = {below.id: below.lower.code for below in self.config.links(self.dataset.name, link.lower.code)}
        mine = {name for name, lower in links.items() if lower in self.path.nodes}
        return mine or set(links)

    def _stop(self) -> Stop | None:
        """The first place, from the top, where something does not get on: the record, its newest version, or a change of it."""
        mine = [hop for hop in self.hops if hop.on_path]
        if self.found.deleted is not None:
            left = [hop for hop in self.hops if hop.agreed]
            return self._stopped("removal", left[0]) if left else None
        edges = [hop for hop in mine if not hop.agreed and {hop.upper, hop.lower} & self.holders]
        if edges:
            return self._stopped("record", next((hop for hop in edges if hop.obstacles), edges[0]))
        late = [hop for hop in mine if hop.behind]
        if late:
            return self._stopped("version", next((hop for hop in late if hop.obstacles), late[0]))
        stuck = [hop for hop in mine if any(obstacle.kind not in ABOUT_LINK for obstacle in hop.obstacles)]
        return self._stopped("change", stuck[0]) if stuck else None

    def _stopped(self, what: Literal["record", "version", "removal", "change"], hop: Hop) -> Stop:
        unreadable = [
            o for o in self.obstacles if o.link == f"{self.dataset.name}/{hop.upper}" and o.region == hop.upper
        ]
        obstacles = [*hop.obstacles, *unreadable]
        because = obstacles[0].told if obstacles else self.words.pending
        return Stop(what, hop.link, hop.upper, hop.lower, hop.behind, because)

    def _notes(self, nodes: Sequence[NodeNow], stop: Stop | None, *, more: bool) -> Iterator[Told]:
        names = self.words.names
        waiting = sum(1 for c in self.found.corrections if c.state in OPEN and c.kind not in ("create", "delete"))
        if waiting:
            yield Told(f"{waiting} 条校核待裁定", f"{waiting} correction(s) to be ruled on")
        others = [hop.lower for hop in self.hops if hop.agreed and not hop.on_path]
        if others and self.found.deleted is None:
            yield Told(f"其他支路尚有：{names(others)}", f"still on another branch: {names(others)}")
        rivals = [c.challenger for c in self.found.contests if c.state in STANDING]
        if rivals:
            yield Told(f"{names(rivals)} 另有争议", f"contested by {names(rivals)}")
        where = stop.link if stop is not None else None
        halted = [
            hop.lower for hop in self.hops if hop.on_path and hop.agreed and hop.state != "ok" and hop.link != where
        ]
        if more:
            links = self.config.links(self.dataset.name, self.path.nodes[-1])
            states = {link.lower.code: self.found.states.get(link.id) for link in links}
            halted += [code for code, state in states.items() if state is None or state.state != "ok"]
        if halted:
            few = names(halted[:FEW]) + ("…" if len(halted) > FEW else "")
            yield Told(f"链路未正常运行：{few}", f"not running as it should: the link of {few}")
        for word, zh, en in (
            ("edited", "此后被改动", "edited since"),
            ("missing", "缺失", "missing"),
            ("unreadable", "无法识别", "unreadable"),
            ("unreachable", "无法访问", "unreachable"),
        ):
            found = [node.region for node in nodes if node.state == word]
            if found:
                yield Told(f"{zh}：{names(found)}", f"{en}: {names(found)}")

    def _node(self, code: str) -> NodeNow:
        """Compare a node's answer with what its links agreed on, or were about to."""
        answer, found = self.found.answers[code], self.found
        mine = {link_id for link_id in (*found.agreed, *found.unfinished) if code in self._ends(link_id)}
        agreed = [found.agreed[name].fps for name in mine if name in found.agreed]
        about = [found.unfinished[name].fps for name in mine if name in found.unfinished]
        differs = tuple(name for name, fp in answer.fps.items() if not _among(fp, name, agreed, otherwise=True))
        unsettled = all(_among(answer.fps[name], name, about, otherwise=False) for name in differs)
        gone = code in found.removed_from
        state: str = answer.state
        if answer.state == "gone":
            state = "missing" if agreed and not gone else "absent"
        elif answer.state == "have" and (not agreed or gone):
            state = "unsettled" if about else "new"
        elif answer.state == "have":
            state = "same" if not differs else "unsettled" if about and unsettled else "edited"
        groups = groups_at(self.dataset, self.config.tree[code].level)
        carried = [groups[name] for name in groups if name in answer.fps]
        marked = differs if state == "edited" else ()
        return NodeNow(
            region=code,
            state=state,  # type: ignore[arg-type]
            version=version_of(answer.fps, self.common or list(answer.fps)),
            groups=tuple(self._versions(carried, answer.fps, marked)),
            differs=marked,
            reason=answer.reason,
        )

    def _ends(self, link_id: str) -> tuple[str, str]:
        link = self.config.link(self.dataset.name, region_of(link_id))
        return link.upper.code, link.lower.code

    def _rank(self, code: str) -> tuple[int, str]:
        return self.dataset.levels.index(self.config.tree[code].level), code

    def _correction(self, correction: Correction) -> CorrectionLine:
        return CorrectionLine(
            correction=correction.correction_id,
            kind=correction.kind,
            group=correction.group,
            fields=correction.names,
            state=shown_state(correction, self.found.now),
            raised_by=correction.raised_by,
            target=correction.target,
            at=correction.at,
            raised=correction.raised,
            due=correction.due,
            ruled=correction.ruled,
            closed=correction.closed,
            way=tuple(region for region, _ in correction.way),
        )

    def _removals(self) -> Iterator[Removal]:
        for stone in self.found.stones:
            owed = stone.link_id if stone.acknowledged is None else None
            yield Removal(stone.region, stone.kind, stone.destination, stone.at, stone.by_link, owed or None)


def _among(fp: bytes, group: str, versions: Sequence[Mapping[str, bytes | None]], *, otherwise: bool) -> bool:
    """Whether a group's fingerprint is one of these; `otherwise`: if none of them can tell."""
    told = [version[group] for version in versions if group in version]
    known = [one for one in told if one is not None]
    return fp in known if known else otherwise
