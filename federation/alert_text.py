"""What a message about alarms says, in Chinese and in English. Pure; one text, shaped for each kind of channel by `federation.channels`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from federation.alarms import Alarm
from federation.config_alerts import KIND_WORDS
from federation.ledger.alerts import Standing

Event = Literal["alarm", "clear", "test"]
MOST = 200
"""Alarms that a message lists at most; the rest is counted."""


@dataclass(frozen=True)
class Message:
    """One message. `lines`: one per subject, `markdown` and plain; `body`: the same as data. A sender may show fewer lines and says so."""

    event: Event
    title: str
    lines: tuple[tuple[str, str], ...]
    left_out: int
    body: dict[str, Any]

    def markdown(self, limit: int) -> str:
        """As Markdown of at most `limit` bytes of UTF-8."""
        return self._fitting(limit, f"**{self.title}**\n", lambda line: f"\n> {line[0]}\n")

    def plain(self, limit: int = 1 << 20) -> str:
        """As plain text of at most `limit` bytes of UTF-8."""
        return self._fitting(limit, f"{self.title}\n", lambda line: f"\n- {line[1]}\n")

    def _fitting(self, limit: int, head: str, shape: Callable[[tuple[str, str]], str]) -> str:
        text, size = head, len(head.encode())
        for number, line in enumerate(self.lines):
            part = shape(line)
            rest = len(self.lines) - number + self.left_out
            size += len(part.encode())
            if size > limit - len(_more(rest).encode()):
                return text + _more(rest)
            text += part
        return text + (_more(self.left_out) if self.left_out else "")


def _more(number: int) -> str:
    return f"\n……另有 {number} 项 / and {number} more: `fedsync alert list`\n"


def alarm_message(
    federation: str, alarms: Sequence[Alarm], before: Mapping[str, Standing], now: datetime, links: Mapping[str, str]
) -> Message:
    """What is the matter. `before`: how each subject stood before; `links`: subject → a page to look at."""
    number = len(alarms)
    title = f"【告警】{federation}：{number} 项待处理 / {number} alert(s)"
    shown = alarms[:MOST]
    lines, told = [], []
    for alarm in shown:
        stood, link = before.get(alarm.subject), links.get(alarm.subject, "")
        swallowed = stood.swallowed if stood else 0
        lines.append((_line(alarm, swallowed, link, bold=True), _line(alarm, swallowed, link, bold=False)))
        told.append({**asdict(alarm), "swallowed": swallowed, "link": link})
    return Message("alarm", title, tuple(lines), number - len(shown), _body("alarm", federation, now, told, number))


def _line(alarm: Alarm, swallowed: int, link: str, *, bold: bool) -> str:
    kind_zh, kind_en = alarm.words
    text = (
        f"{_strong(f'{kind_zh} / {kind_en}', bold)}：{_both(alarm.title_zh, alarm.title_en)} — {alarm.zh} / {alarm.en}"
    )
    if alarm.todo:
        text += f" → {f'`{alarm.todo}`' if bold else alarm.todo}"
    if link:
        text += f" [查看 / open]({link})" if bold else f" {link}"
    if swallowed:
        text += f"（此前省略 {swallowed} 次 / {swallowed} not told）"
    return text


def clear_message(federation: str, over: Sequence[Standing], now: datetime) -> Message:
    """What is over."""
    number = len(over)
    title = f"【恢复】{federation}：{number} 项已恢复 / {number} alert(s) over"
    shown = over[:MOST]
    lines, told = [], []
    for stood in shown:
        zh, en = KIND_WORDS[stood.kind]
        minutes = int((now - stood.raised).total_seconds() // 60)
        rest = f"{_both(stood.title_zh, stood.title_en)} — 已恢复，历时 {minutes} 分钟 / over after {minutes} min"
        lines.append((f"**{zh} / {en}**：{rest}", f"{zh} / {en}：{rest}"))
        told.append(
            {
                "subject": stood.subject,
                "kind": stood.kind,
                "dataset": stood.dataset,
                "title_zh": stood.title_zh,
                "title_en": stood.title_en,
                "raised": stood.raised.isoformat(),
                "swallowed": stood.swallowed,
            }
        )
    return Message("clear", title, tuple(lines), number - len(shown), _body("clear", federation, now, told, number))


def trial_message(federation: str, channel: str, now: datetime) -> Message:
    """Shows that a channel works."""
    line = f"通道 {channel} 可用，这是测试 / channel {channel} works, this is a test"
    return Message("test", f"【测试】{federation} / test", ((line, line),), 0, _body("test", federation, now, [], 0))


def _body(event: Event, federation: str, now: datetime, alerts: list[dict[str, Any]], number: int) -> dict[str, Any]:
    return {"event": event, "federation": federation, "at": now.isoformat(), "number": number, "alerts": alerts}


def _both(zh: str, en: str) -> str:
    return zh if zh == en else f"{zh} / {en}"


def _strong(text: str, bold: bool) -> str:
    return f"**{text}**" if bold else text
