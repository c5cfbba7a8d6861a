"""What an inspection of a node finds, and what follows from it. Deciding only: no I/O.

`Connector.inspect` gathers facts of its technology and judges them with what stands here, so that all of them speak alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from federation.contract import Dataset
from federation.errors import AccessDenied, FedsyncError, Permanent, SchemaMismatch, Transient

if TYPE_CHECKING:
    from connectors.base import Capabilities

Area = Literal["reach", "credentials", "rights", "schema", "clock", "capture", "strategy"]
State = Literal["ok", "warn", "fail"]
AREAS: dict[str, str] = {
    "reach": "连通",
    "credentials": "凭据",
    "rights": "权限",
    "schema": "结构",
    "clock": "时钟",
    "capture": "变更捕获",
    "strategy": "策略",
}
_OF_NODE = ("dataset", "link", "region", "system")
"""What a report on a node says anyway."""
_ASK = "请系统管理员查看 / ask the system's administrator"
NOTICEABLE_SECONDS = 5.0
"""A clock off by less is as good as right."""


@dataclass(frozen=True)
class Finding:
    """One thing that an inspection found. `ok`: as it should be; `warn`: works, with a drawback; `fail`: syncs would fail.

    `todo`: what to do about it ("zh / en"), empty where nothing is to be done.
    """

    area: Area
    state: State
    zh: str
    en: str
    todo: str = ""


def of_error(error: FedsyncError) -> Finding:
    """What an error, raised instead of an answer, says about a node."""
    area: Area = "schema"
    if isinstance(error, Transient):
        area = "reach"
    elif isinstance(error, AccessDenied):
        area = "credentials"
    elif not isinstance(error, SchemaMismatch) and isinstance(error, Permanent):
        area = "reach"
    place = " ".join(f"{word}={value}" for word, value in error.where.items() if word not in _OF_NODE)
    return Finding(area, "fail", error.zh, f"{error.en} [{place}]" if place else error.en, error.todo or _ASK)


def reached(detail: str) -> tuple[Finding, Finding]:
    """The system is there, and knows us."""
    return (
        Finding("reach", "ok", f"可访问（{detail}）", f"reached ({detail})"),
        Finding("credentials", "ok", "凭据有效", "the credentials are accepted"),
    )


def receives(dataset: Dataset, level: str, fields: Iterable[str]) -> bool:
    """Whether the engine will ever write here, accepted corrections aside: a field is owned elsewhere, or rows come or go there."""
    elsewhere = any(dataset.fields[name].authority != level for name in fields)
    movers = {*dataset.originates, *(dataset.retires or dataset.originates)}
    return elsewhere or bool(movers - {level})


def rights(
    needed: Mapping[str, tuple[str, str]], granted: Mapping[str, bool | None], *, optional: bool, todo: str
) -> list[Finding]:
    """`needed`: right → what it is needed for (zh, en). `granted`: whether there is the right; None: cannot be told without using it.

    `optional`: nothing will be written here but accepted corrections, so a missing right is a drawback only.
    """
    missing = [word for word in needed if granted.get(word) is False]
    unknown = [word for word in needed if granted.get(word) is None]
    found = []
    for word in missing:
        zh, en = needed[word]
        found.append(
            Finding(
                "rights", "warn" if optional else "fail", f"缺少权限 {word}：{zh}", f"no right to {word}: {en}", todo
            )
        )
    if unknown:
        words = ", ".join(unknown)
        found.append(
            Finding(
                "rights",
                "warn",
                f"不写入便无法确认的权限：{words}",
                f"cannot be told without writing: {words}",
                "请系统管理员确认 / ask the system's administrator",
            )
        )
    if not missing and not unknown:
        words = ", ".join(needed)
        found.append(Finding("rights", "ok", f"权限齐全：{words}", f"has the rights it needs: {words}"))
    return found


def clock(skew: float, tolerance_minutes: int) -> Finding:
    """`skew`: seconds by which the system's clock is ahead of ours."""
    ahead = abs(skew)
    zh = f"系统时钟{'快' if skew > 0 else '慢'} {ahead:.1f} 秒"
    en = f"the system's clock is {ahead:.1f} s {'ahead of' if skew > 0 else 'behind'} ours"
    todo = "用 NTP 校时 / set both clocks by NTP"
    if ahead <= NOTICEABLE_SECONDS:
        return Finding("clock", "ok", zh, en)
    if ahead <= tolerance_minutes * 60:
        return Finding("clock", "warn", zh, en, todo)
    return Finding("clock", "fail", f"{zh}，链路将被拦截", f"{en}; links would be held", todo)


def missing_columns(names: Sequence[str], has: Iterable[str]) -> Finding:
    """Columns that the contract needs and the system does not have. `names`: as they are looked for."""
    listed, there = ", ".join(names), ", ".join(has)
    return Finding(
        "schema",
        "fail",
        f"缺少列 {listed}（现有：{there}）",
        f"lacks the column {listed} (it has {there})",
        "在 columns 中写明列名，或将字段列入 hosted / map it under `columns`, or list the field under `hosted`",
    )


def every_column(count: int, place: str = "") -> Finding:
    """The system has the columns of so many fields, all that the contract needs. `place`: which of its parts was looked at."""
    zh, en = (f"{place}：", f"{place}: ") if place else ("", "")
    return Finding("schema", "ok", f"{zh}{count} 个字段均有列", f"{en}every one of {count} fields has its column")


def strategy(capabilities: Capabilities, dataset: Dataset) -> list[Finding]:
    """How syncs with such a system go."""
    return [
        _capture(capabilities),
        _deletes(capabilities, dataset),
        _writes(capabilities),
        _reads(capabilities),
        _people(capabilities),
    ]


def _capture(told: Capabilities) -> Finding:
    zh, en = {
        "log": ("变更表：只读取变更的记录", "a change table: only changed records are read"),
        "cursor": ("时间列：只读取近期变更的记录", "a column of last change: only what changed lately is read"),
        "snapshot": ("全量读取，按指纹比对", "everything is read and compared by fingerprint"),
    }[told.capture]
    return Finding("capture", "ok", f"{told.capture}：{zh}", f"{told.capture}: {en}")


def _deletes(told: Capabilities, dataset: Dataset) -> Finding:
    hours = f"{dataset.full_every / 60:g}"
    if not told.present:
        return Finding(
            "strategy",
            "warn",
            "删除：系统无法列出主键，看不到删除",
            "deletions are not seen: the system cannot list its keys",
            "改用标记停用的字段 / let a field mark what is retired",
        )
    if told.capture == "log":
        return Finding("strategy", "ok", "删除：由变更表立即看到", "deletions are seen at once, in the change table")
    if told.capture == "snapshot":
        return Finding("strategy", "ok", "删除：每次读取都看到", "deletions are seen at each read")
    if told.cheap_sweep:
        return Finding(
            "strategy", "ok", "删除：每次读取列出主键", "deletions are seen at each read, by listing the keys"
        )
    return Finding(
        "strategy",
        "warn",
        f"删除：每 {hours} 小时全量比对时才看到",
        f"deletions are seen at the full comparison only, every {hours} h",
        "改用 capture: log，或允许 cheap_sweep，或缩短 full_every / take `capture: log`, or a cheap sweep, or a shorter `full_every`",
    )


def _writes(told: Capabilities) -> Finding:
    if not told.writes:
        return Finding(
            "strategy",
            "warn",
            "只读系统，不写入",
            "a read-only system: nothing is written here",
            "若他级须写入此处，请换用可写的接口或账号 / where others are to write here, take an interface or account that can",
        )
    if told.conditional or told.checks:
        return Finding(
            "strategy",
            "ok",
            "写入：读取后有人改动则拒绝并重新合并",
            "writes are conditional: what people edited since the read is merged again, not overwritten",
        )
    return Finding(
        "strategy",
        "warn",
        "写入：无条件；读写之间的人工修改会被覆盖",
        "writes are unconditional: an edit made between our read and our write is overwritten",
        "若接口有版本标识，请声明 etag；否则避开办公时间同步 / declare `etag` if the API has one; else sync outside office hours",
    )


def _reads(told: Capabilities) -> Finding:
    if told.keyed_reads:
        return Finding("strategy", "ok", "按主键读取单条记录", "single records are read by key")
    return Finding("strategy", "ok", "读取单条记录须读取全部", "reading one record means reading all")


def _people(told: Capabilities) -> Finding:
    shown = {"退回 returns": told.returns, "校核 corrections": told.corrections, "回执 receipts": told.receipts}
    there = "、".join(word for word, yes in shown.items() if yes) or "– none"
    return Finding("strategy", "ok", f"在系统内向人展示：{there}", f"shown to people in the system: {there}")
