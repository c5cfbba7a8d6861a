"""What a run tells in its log: a few lines whose numbers add up, what is held and why, and what to do. Never a value of a record.

A line's fields (dataset, link, run_id, …) are bound to structlog's context while it is written, so that whoever renders the log,
Airflow or `fedsync --log-format json`, shows them as fields of their own.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from federation.errors import FedsyncError, LeaseHeld, LinkHeld
from federation.outcome import Outcome

SIDES = (("upper", "上级"), ("lower", "下级"))
PARTS = (
    ("delivered", "送出"),
    ("unchanged", "未变"),
    ("quarantined", "隔离"),
    ("held", "搁置"),
    ("out_of_scope", "范围外"),
)
"""What read rows became, in the order of `federation.accounting.Account`."""


@dataclass(frozen=True)
class Line:
    """One line of a log. `level`: of `logging`; `fields`: beside the text."""

    level: int
    text: str
    fields: dict[str, Any] = field(default_factory=dict)


def ended(error: FedsyncError | None) -> str:
    """How a link run ended: `ok`, `held` by a guard, `busy` (another runner has it), `failed`."""
    if error is None:
        return "ok"
    return "held" if isinstance(error, LinkHeld) else "busy" if isinstance(error, LeaseHeld) else "failed"


def link_line(outcome: Outcome, error: FedsyncError | None = None) -> Line:
    """What one link run did. `error`: what stopped it, where it is at hand."""
    dataset = outcome.link_id.partition("/")[0]
    fields: dict[str, Any] = {
        "dataset": dataset,
        "link": outcome.link_id,
        "run_id": outcome.run_id or None,
        "upper": outcome.upper,
        "lower": outcome.lower,
    }
    if outcome.skipped is not None:
        return Line(logging.INFO, f"{outcome.link_id}: {outcome.skipped}", {**fields, "outcome": "skipped"})
    if outcome.error is not None:
        how = ended(error) if error is not None else "failed"
        level = logging.WARNING if how == "busy" else logging.ERROR
        return Line(level, f"{outcome.link_id}: {outcome.error}", {**fields, "outcome": how})
    numbers = {
        "descended": outcome.descended,
        "ascended": outcome.ascended,
        "removed_below": outcome.removed_below,
        "removed_above": outcome.removed_above,
        "quarantined": outcome.quarantined,
        "held": outcome.held,
        "warned": outcome.warned,
    }
    read = {f"read_{side}": outcome.accounts.get(side, {}).get("read", 0) for side, _ in SIDES}
    fields |= {"outcome": "ok", **read, **numbers}
    return Line(logging.INFO, f"{outcome.link_id}: {_did(outcome)}{_next_steps(outcome, dataset)}", fields)


def _did(outcome: Outcome) -> str:
    accounts = {side: account for side, account in outcome.accounts.items() if account["read"]}
    if not accounts and not outcome.moved:
        return "没有变化 / nothing changed"
    parts = [
        f"{zh} {side} 读 read {account['read']} = "
        + " + ".join(f"{word} {name.replace('_', ' ')} {account[name]}" for name, word in PARTS)
        for side, zh in SIDES
        if (account := accounts.get(side))
    ]
    parts.append(f"回流 down {outcome.descended} (-{outcome.removed_below})")
    parts.append(f"上报 up {outcome.ascended} (-{outcome.removed_above})")
    if outcome.warned:
        parts.append(f"警告 warned {outcome.warned}")
    if outcome.corrections_up or outcome.corrections_down or outcome.ruled:
        parts.append(
            f"校核 corrections up {outcome.corrections_up}, down {outcome.corrections_down}, ruled {outcome.ruled}"
        )
    return "; ".join(parts)


def _next_steps(outcome: Outcome, dataset: str) -> str:
    steps = []
    if outcome.quarantined:
        steps.append(
            f"隔离须在来源处改正 / set aside until mended where it came from: fedsync quarantine list --dataset {dataset}"
        )
    if outcome.held:
        steps.append(
            f"搁置待裁定或待相邻链路 / held for a ruling or a neighbouring link: fedsync correction list --dataset {dataset}"
        )
    return "".join(f" → {step}" for step in steps)


def batch_line(dataset: str, upper: str, outcomes: Sequence[Outcome]) -> Line:
    """What a batch of links did in all; the lines of its links add up to it."""
    counted: Counter[str] = Counter()
    for one in outcomes:
        counted.update(
            {
                "down": one.descended,
                "up": one.ascended,
                "removed": one.removed_below + one.removed_above,
                "quarantined": one.quarantined,
                "held": one.held,
            }
        )
    failed = sum(one.error is not None for one in outcomes)
    skipped = sum(one.skipped is not None for one in outcomes)
    text = (
        f"{len(outcomes)} 条链路 links: {len(outcomes) - failed - skipped} 正常 ok, {failed} 失败 failed, {skipped} 跳过 skipped; 回流 down {counted['down']}, "
        f"上报 up {counted['up']}, 删除 removed {counted['removed']}, 隔离 quarantined {counted['quarantined']}, 搁置 held {counted['held']}"
    )
    if failed:
        text += f" → fedsync status --dataset {dataset}"
    fields = {
        "dataset": dataset,
        "upper": upper,
        "links": len(outcomes),
        "failed": failed,
        "skipped": skipped,
        **counted,
    }
    return Line(logging.WARNING if failed else logging.INFO, text, fields)


def write(log: logging.Logger, line: Line) -> None:
    """Write a line with its fields bound to the context."""
    from structlog.contextvars import bound_contextvars

    with bound_contextvars(**line.fields):
        log.log(line.level, "%s", line.text)


def progress(log: logging.Logger) -> Callable[[Outcome], None]:
    """Writes each link's line as soon as it is over: for the engine's `progress`."""
    return lambda outcome: write(log, link_line(outcome))
