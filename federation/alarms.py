"""What needs a person, decided from the ledger's state. Pure: no I/O, no clock.

An alarm (告警) names regions, links and counts. It never quotes a connector's error, which may hold what a record said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from federation.config import Config, Link
from federation.config_alerts import KIND_WORDS
from federation.contract import Dataset
from federation.ledger.corrections import Correction
from federation.ledger.links import LinkState


@dataclass(frozen=True)
class Alarm:
    """One thing that needs a person. `subject`: stable while it stands, `<kind>:<what>`. `title_…`: what it is about; `zh`, `en`: what
    is the matter; `todo`: the command that helps. `lasting`: it ends some time, and that is told; else it is told and over."""

    subject: str
    kind: str
    dataset: str | None
    title_zh: str
    title_en: str
    zh: str
    en: str
    todo: str = ""
    lasting: bool = True

    @property
    def words(self) -> tuple[str, str]:
        """What its kind is called, in Chinese and in English."""
        return KIND_WORDS[self.kind]


def link_title(link: Link) -> tuple[str, str]:
    """`居民 东华门街道 → 多福巷社区`, and the same for who reads English: names of regions have no other."""
    dataset = link.contract.dataset
    path = f"{link.upper.name} → {link.lower.name}"
    return f"{dataset.label} {path}", f"{dataset.label_en or dataset.name} {path}"


def held_alarm(link: Link, state: LinkState) -> Alarm:
    """A guard stopped the link. Its reason tells counts and names only (`federation.guards`)."""
    zh = state.reason_zh or "保护检查拦截了该链路"
    en = (state.reason_en or "").removeprefix(f"{zh} / ").split(" [", 1)[0].split(" → ", 1)[0]
    titles = link_title(link)
    return Alarm(
        f"held:{link.id}",
        "held",
        link.contract.dataset.name,
        *titles,
        zh,
        en or "a guard stopped this link",
        f"fedsync link release {link.id}",
    )


def failed_alarm(link: Link, state: LinkState) -> Alarm:
    """The link has not settled for longer than its dataset promises."""
    dataset = link.contract.dataset
    since = f"{state.last_ok:%Y-%m-%d %H:%M} UTC" if state.last_ok else None
    zh = f"最近一次成功为 {since}，已超过时效 {dataset.freshness} 分钟" if since else "从未成功"
    en = f"last settled {since}, the promise is {dataset.freshness} min" if since else "has never settled"
    titles = link_title(link)
    return Alarm(
        f"failed:{link.id}", "failed", dataset.name, *titles, zh, en, f"fedsync status --dataset {dataset.name}"
    )


def link_alarms(links: Iterable[Link], states: Mapping[str, LinkState], now: datetime) -> list[Alarm]:
    """Links that are held and not released yet, and links that failed and have not settled within their dataset's freshness."""
    found = []
    for link in links:
        state = states.get(link.id)
        if state is None:
            continue
        promise = timedelta(minutes=link.contract.dataset.freshness)
        if state.state == "held" and not state.released:
            found.append(held_alarm(link, state))
        elif state.state == "failed" and (state.last_ok is None or now - state.last_ok > promise):
            found.append(failed_alarm(link, state))
    return found


def overdue_alarms(config: Config, dataset: Dataset, corrections: Iterable[Correction], today: date) -> list[Alarm]:
    """Corrections that nobody ruled on in time, by the region that is to rule."""
    late: dict[str, list[int]] = {}
    for correction in corrections:
        if correction.state in ("raised", "waiting") and correction.due is not None and today > correction.due:
            late.setdefault(correction.target or "", []).append((today - correction.due).days)
    found = []
    for code, days in sorted(late.items()):
        name = config.tree[code].name if code in config.tree else "–"
        found.append(
            Alarm(
                f"overdue:{dataset.name}/{code}",
                "overdue",
                dataset.name,
                f"{dataset.label} {name}",
                f"{dataset.label_en or dataset.name} {name}",
                f"{len(days)} 条校核超期未裁定，最久已超 {max(days)} 天",
                f"{len(days)} correction(s) not ruled on in time, the oldest {max(days)} day(s) late",
                f"fedsync correction list --dataset {dataset.name} --state overdue",
            )
        )
    return found


def settled_since(links: Iterable[Link], states: Mapping[str, LinkState], moment: datetime) -> bool:
    """Whether all these links ran well after a moment: then a run that failed for them before is made good."""
    found = [states.get(link.id) for link in links]
    return bool(found) and all(
        state is not None and state.state == "ok" and state.last_ok is not None and state.last_ok > moment
        for state in found
    )
