"""What a trace says to people, in Chinese and English: what stands in a record's way, and the one line that sums it all up. Pure.

Nothing here knows a value: reasons of a gate quote the record, so they stay sealed (`fedsync quarantine show`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from federation.contract import Dataset
from federation.ledger.contests import Contest
from federation.ledger.corrections import Correction
from federation.ledger.links import LinkState
from federation.ledger.quarantine import Item
from federation.regions import RegionTree

ObstacleKind = Literal["contested", "quarantined", "waiting", "ruling", "unfinished", "held", "failed", "new"]
ORDER: tuple[ObstacleKind, ...] = (
    "contested",
    "quarantined",
    "waiting",
    "ruling",
    "unfinished",
    "held",
    "failed",
    "new",
)
"""Which of several obstacles on one link is told first: what is about the record itself, then what is about the link."""
ABOUT_LINK = ("held", "failed", "new")


@dataclass(frozen=True)
class Told:
    """One statement in both languages."""

    zh: str
    en: str

    def __str__(self) -> str:
        return f"{self.zh} / {self.en}"


@dataclass(frozen=True)
class Obstacle:
    """What stands in the record's way on a link (or at a node whose row cannot be read). `id`: of the quarantine item, contest or
    correction; `region`: who can do something about it, where that is known."""

    kind: ObstacleKind
    link: str
    region: str | None
    since: datetime | None
    id: str | None
    told: Told


@dataclass(frozen=True)
class Stop:
    """Where the record stopped. `what`: the `record` itself, a newer `version` of these groups, its `removal`, or a `change` that was
    made at one end."""

    what: Literal["record", "version", "removal", "change"]
    link: str
    upper: str
    lower: str
    groups: tuple[str, ...]
    because: Told


class Words:
    """Phrases about one federation's regions and one dataset's fields."""

    pending = Told("等待链路下次运行", "it waits for the link's next run")
    """Nothing stands in the way: the link has not run since."""

    def __init__(self, tree: RegionTree, dataset: Dataset) -> None:
        self._tree, self._dataset = tree, dataset

    def name(self, code: str | None) -> str:
        """A region as people call it; its code if the region table no longer has it."""
        return self._tree[code].name if code is not None and code in self._tree else code or "–"

    def names(self, codes: Sequence[str]) -> str:
        """Several regions."""
        return "、".join(self.name(code) for code in codes)

    def contested(self, contest: Contest) -> Obstacle:
        """Two children claim the key."""
        both = f"{self.name(contest.incumbent)}、{self.name(contest.challenger)}"
        state = {"open": ("待裁定", "to be ruled on"), "awarded": ("已判归后者", "awarded to the latter")}
        zh, en = state.get(contest.state, ("已判归前者", "awarded to the former"))
        short = contest.contest_id[:10]
        told = Told(
            f"争议：{both} 都登记了此主键，{self.name(contest.parent)}{zh}（fedsync contest show {short}）",
            f"contested: {both} both claim the key, {en} at {self.name(contest.parent)}",
        )
        return Obstacle("contested", contest.link_id, contest.parent, contest.raised, contest.contest_id, told)

    def quarantined(self, item: Item) -> Obstacle:
        """A gate, or the reader, set the record aside. The reason stays sealed: it quotes the record."""
        way = {"down": ("回流", "descending"), "up": ("上报", "ascending"), "read": ("读取", "when read")}[
            item.direction
        ]
        spec = self._dataset.fields.get(item.field or "")
        field = f"“{spec.label}”" if spec else item.field or ""
        again, back = item.state == "replay", self.name(item.origin)
        told = Told(
            f"隔离（{way[0]}）：{field}不符规则 {item.rule}{'，待重放' if again else ''}，退回 {back}（fedsync quarantine show {item.item_id[:10]}）",
            f"quarantined ({way[1]}): {item.field or ''} fails {item.rule}{', to be replayed' if again else ''}; returned to {back}",
        )
        return Obstacle("quarantined", item.link_id, item.origin, item.first_seen, item.item_id, told)

    def waiting(self, link_id: str, end: str) -> Obstacle:
        """What an end holds was not agreed on by the link beyond it."""
        told = Told(
            f"待定：{self.name(end)} 所持内容未经其另一侧链路确认，待该链路运行",
            f"in doubt: the link beyond {self.name(end)} has not agreed on what it holds",
        )
        return Obstacle("waiting", link_id, end, None, None, told)

    def ruling(self, correction: Correction) -> Obstacle:
        """A creation or deletion by somebody not entitled to it."""
        zh, en = ("新增", "creation") if correction.kind == "create" else ("删除", "deletion")
        where, short = self.name(correction.target), correction.correction_id[:10]
        told = Told(
            f"{zh}须由 {where} 裁定（校核 {short}）", f"its {en} is for {where} to rule on (correction {short})"
        )
        return Obstacle(
            "ruling", correction.link_id, correction.target, correction.raised, correction.correction_id, told
        )

    def unfinished(self, link_id: str, *, working: bool) -> Obstacle:
        """A run wrote its intent and has not settled."""
        told = (
            Told("正在运行，尚未结算", "a run is at work on it")
            if working
            else Told(
                "上次运行中断，写入未结算，下次运行补齐", "a run died before it settled; the next one finishes its work"
            )
        )
        return Obstacle("unfinished", link_id, None, None, None, told)

    def link(self, link_id: str, state: LinkState | None) -> Obstacle | None:
        """A link that does not run as it should; None if it does."""
        if state is None or state.state == "new":
            return Obstacle("new", link_id, None, None, None, Told("链路从未运行", "the link never ran"))
        if state.state == "held":
            reason, released = _reason(state), state.released
            told = Told(
                f"链路被拦截：{reason.zh}（{'已放行一次' if released else f'fedsync link release {link_id}'}）",
                f"the link is held{', but released once' if released else ''}: {reason.en}",
            )
            return Obstacle("held", link_id, None, state.last_run, None, told)
        if state.state == "failed":
            reason = _reason(state)
            told = Told(f"链路失败：{reason.zh}", f"the link failed: {reason.en}")
            return Obstacle("failed", link_id, None, state.last_run, None, told)
        return None

    def summary(
        self,
        reached: int,
        levels: int,
        stop: Stop | None,
        *,
        deleted: bool,
        known_end: str | None,
        notes: Iterable[Told],
    ) -> Told:
        """One line. `known_end`: the last region known of a path that may go further; `notes`: what else is to be said."""
        if deleted:
            gone = levels - reached
            zh = "已删除，各级均已移除" if not reached else f"已删除：已从 {gone}/{levels} 级移除"
            en = "deleted, gone from every level" if not reached else f"deleted: gone from {gone} of {levels} levels"
        else:
            zh, en = f"到达 {reached}/{levels} 级", f"reached {reached} of {levels} levels"
        if stop is not None:
            between = f"{self.name(stop.upper)} → {self.name(stop.lower)}"
            groups = "、".join(stop.groups)
            what = {
                "record": ("停在", "stopped at"),
                "removal": ("移除停在", "the removal stopped at"),
                "version": (f"{groups} 组的新版本停在", f"the newest version of {groups} stopped at"),
                "change": ("有改动停在", "a change stopped at"),
            }[stop.what]
            zh += f"，{what[0]} {between}，因为{stop.because.zh}"
            en += f", {what[1]} {between}, because {stop.because.en}"
        elif known_end is not None:
            zh += f"，止于 {self.name(known_end)}；下一级未知（台账不含属地，可加 --live）"
            en += f", down to {self.name(known_end)}; where next is not in the ledger (try --live)"
        elif not deleted:
            zh, en = f"{zh}，各级版本一致", f"{en}, the same version on each"
        for note in notes:
            zh, en = f"{zh}；{note.zh}", f"{en}; {note.en}"
        return Told(zh, en)


def _reason(state: LinkState) -> Told:
    """Both languages of a link's reason: the ledger keeps the Chinese, and both with place and advice."""
    zh, both = state.reason_zh or "", state.reason_en or ""
    return Told(zh, both.removeprefix(f"{zh} / ").split(" → ")[0].split(" [")[0])
