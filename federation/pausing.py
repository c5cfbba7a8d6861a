"""Which links and nodes a pause concerns. A paused link is neither probed nor run, keeps its cursors, and catches up when resumed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, time
from typing import TYPE_CHECKING, cast

from federation.config import Config, Link
from federation.errors import DeclarationError, FedsyncError
from federation.ledger.pauses import KINDS, Kind, Pause

if TYPE_CHECKING:
    from federation.services import Services


class Paused:
    """The pauses that stand at one moment, over one declaration. Pure."""

    def __init__(self, config: Config, pauses: Iterable[Pause]) -> None:
        self._config = config
        self._of: dict[Kind, dict[str, Pause]] = {kind: {} for kind in KINDS}
        for pause in pauses:
            self._of[pause.kind][pause.subject] = pause

    def __bool__(self) -> bool:
        return any(self._of.values())

    def link(self, link: Link) -> Pause | None:
        """What pauses a link: itself, a region that its lower end lies in, or the system of one of its ends."""
        if not self:
            return None
        dataset = link.contract.dataset.name
        return (
            self._of["link"].get(link.id)
            or self._region(link.lower.code)
            or self._system(dataset, link.lower.code)
            or self._system(dataset, link.upper.code)
        )

    def node(self, dataset: str, region: str) -> Pause | None:
        """What forbids to ask a node anything: a region that it lies in, or its system."""
        return self._region(region) or self._system(dataset, region)

    def _region(self, code: str) -> Pause | None:
        paused, tree = self._of["region"], self._config.tree
        region = tree.regions.get(code) if paused else None
        while region is not None and region.code not in paused:
            region = tree.regions.get(region.parent) if region.parent else None
        return paused[region.code] if region is not None else None

    def _system(self, dataset: str, region: str) -> Pause | None:
        paused = self._of["system"]
        return paused.get(self._config.system_of(dataset, region)) if paused else None


def subject_of(config: Config, kind: str, subject: str) -> tuple[Kind, str]:
    """What is meant by a kind and a name. Raises DeclarationError unless the declaration knows it."""
    if kind not in KINDS:
        raise DeclarationError(
            f"nothing of the kind {kind!r} can be paused",
            f"无法暂停 {kind!r}",
            todo=f"取值 / one of: {', '.join(KINDS)}",
        )
    if kind == "region":
        return "region", config.tree[subject].code
    if kind == "link":
        dataset, _, lower = subject.partition("/")
        return "link", config.link(dataset, lower).id
    if subject not in config.spec.systems:
        raise DeclarationError(
            f"there is no system {subject!r}",
            f"没有业务系统 {subject!r}",
            todo=f"取值 / one of: {', '.join(config.spec.systems)}",
            system=subject,
        )
    return cast(Kind, kind), subject


def pause_of(services: Services, kind: str, subject: str, reason: str, until: datetime | None, actor: str) -> Pause:
    """Pause something that the declaration knows. `until` without a time zone is in the federation's; at midnight it is that whole day.

    Raises DeclarationError for what is not declared, FedsyncError for an end that is over or a reason that is empty.
    """
    found = subject_of(services.config, kind, subject)
    if not reason.strip():
        raise FedsyncError("a pause needs a reason", "暂停须说明原因", todo="填写原因 / say why", **{kind: subject})
    if until is not None and until.tzinfo is None:
        last = datetime.combine(until.date(), time(23, 59, 59)) if until.time() == time() else until
        until = last.replace(tzinfo=services.now().tzinfo)
    return services.pauses.pause(*found, reason=reason.strip(), until=until, actor=actor)
