"""`fedsync trace`: where one record is, in which version, and where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer
from rich.console import Group
from rich.text import Text
from rich.tree import Tree

from federation.cli_common import HERE, FileOption, JsonOption, out, reporting
from federation.regions import LEVEL_ZH

if TYPE_CHECKING:
    from federation.config import Config
    from federation.contract import Dataset
    from federation.trace import CorrectionLine, GroupVersion, Hop, NodeNow, Removal, Trace
    from federation.trace_words import Obstacle

STATES = {"ok": "正常 ok", "held": "被拦截 held", "failed": "失败 failed", "new": "从未运行 new"}
ANSWERS = {
    "same": ("green", "与约定一致", "same as agreed"),
    "edited": ("yellow", "此后在此被改动", "edited here since"),
    "unsettled": ("yellow", "与未结算的运行一致", "as a run has it that has not settled"),
    "new": ("yellow", "在此，但尚无链路确认", "here, though no link has agreed on it"),
    "missing": ("red", "缺失", "missing"),
    "absent": ("dim", "不在此", "not here"),
    "unreadable": ("red", "无法识别", "unreadable"),
    "unreachable": ("red", "无法访问", "unreachable"),
}
KINDS = {
    "edit": "更正 edit",
    "create": "新增 create",
    "delete": "删除 delete",
    "carry": "随迁 carry",
    "lost": "留存 lost",
}
REMOVALS = {"deleted": "已删除 deleted", "moved": "已迁出 moved", "left": "下级已变 left", "arrived": "已返回 arrived"}


def trace(
    dataset: Annotated[str, typer.Argument(help="数据集 / the dataset")],
    key: Annotated[
        list[str],
        typer.Argument(help="主键；复合主键依次给出，或给出 JSON 数组 / the key; of a composite one, each part"),
    ],
    file: FileOption = HERE,
    live: Annotated[
        bool,
        typer.Option("--live", help="同时询问沿途业务系统的现状 / also ask the systems on the way what they hold now"),
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="查看全部链路 / read the baseline of every link")] = False,
    as_json: JsonOption = False,
) -> None:
    """追踪一条记录：各级版本、停在何处、为何 / Trace a record: which nodes hold which version, where it stopped and why.

    只显示指纹，不显示内容 / Shows fingerprints, never values.
    """
    from federation.runtime import open_federation
    from federation.tracing import trace as traced

    with reporting(as_json):
        federation = open_federation(file)
        found = traced(federation, dataset, key, live=live, every=every)
    zone = ZoneInfo(federation.config.spec.timezone)
    if as_json:
        told = {**asdict(found), "live": live}
        typer.echo(json.dumps(told, ensure_ascii=False, default=lambda value: _moment(value, zone)))
        return
    page = _Page(found, federation.config, zone)
    for line in page.head():
        out.print(line, highlight=False)
    out.print(page.tree(), highlight=False)
    for line in page.rest(live):
        out.print(line, highlight=False)


def _moment(value: object, zone: ZoneInfo) -> str:
    return value.astimezone(zone).isoformat() if isinstance(value, datetime) else str(value)


class _Page:
    """A trace for people: a tree from the city down, so that it stays readable in a narrow terminal."""

    def __init__(self, found: Trace, config: Config, zone: ZoneInfo) -> None:
        self.found, self.regions, self.zone = found, config.tree, zone
        self.dataset: Dataset = config.dataset(found.dataset)
        self.answers = {node.region: node for node in found.nodes}

    def head(self) -> Iterator[Text]:
        """What it is about, and the whole in one line of each language."""
        yield Text.assemble((f"{self.dataset.label} {self.dataset.name}", "bold"), " · ", (self.found.key, "bold"))
        troubled = self.found.stop or self.found.obstacles
        yield Text(self.found.summary.zh, style="bold yellow" if troubled else "bold green")
        yield Text(self.found.summary.en, style="yellow" if troubled else "green")

    def tree(self) -> Tree:
        """Each node below the one above it, with the hop between them."""
        below: dict[str, list[Hop]] = {}
        for hop in self.found.hops:
            below.setdefault(hop.upper, []).append(hop)
        lowers = {hop.lower for hop in self.found.hops}
        roots = [code for code in below if code not in lowers]
        roots += [code for code in (*self.found.path, *self.answers) if code not in below and code not in lowers]
        root = Tree("", hide_root=True)
        for code in dict.fromkeys(roots):
            self._grow(root.add(Group(*self._node(code))), code, below)
        return root

    def _grow(self, branch: Tree, code: str, below: dict[str, list[Hop]]) -> None:
        for hop in below.get(code, []):
            self._grow(branch.add(Group(*self._node(hop.lower), *self._hop(hop))), hop.lower, below)

    def _node(self, code: str) -> Iterator[Text]:
        region = self.regions[code]
        on_path = code in self.found.path
        level = f"{LEVEL_ZH[region.level]} {region.level}"
        yield Text.assemble(
            (f"{region.name} {code}", "bold" if on_path else "dim"),
            f"  {level}",
            "" if on_path else "  （其他支路 other branch）",
        )
        for obstacle in self.found.obstacles:
            if obstacle.link.endswith(f"/{code}"):
                yield from self._obstacle(obstacle)
        if code in self.answers:
            yield from self._answer(self.answers[code])

    def _hop(self, hop: Hop) -> Iterator[Text]:
        if hop.agreed:
            mark = ("≠ ", "yellow") if hop.behind else ("✓ ", "green")
            since = f" 自 since {self._time(hop.since)}" if hop.since else ""
            yield Text.assemble(mark, "两端一致 agreed ", (hop.version or "?", "bold cyan"), since)
            yield Text("  " + self._groups(hop.groups))
            yield from self._receipts(hop)
            if hop.behind:
                names = "、".join(hop.behind)
                yield Text(f"  上一跳版本更新 behind its neighbour: {names}", style="yellow")
        elif hop.on_path or hop.obstacles:
            yield Text.assemble(("✗ ", "red"), "未到 not agreed")
        lag = f" · 滞后 lag {_span(hop.lag)}" if hop.lag is not None else ""
        last = f" · 上次 last run {self._time(hop.last_run)}" if hop.last_run and hop.state != "ok" else ""
        running = " · 正在运行 running" if hop.running else ""
        yield Text(f"  链路 link {STATES.get(hop.state, hop.state)}{lag}{last}{running}", style="dim")
        for obstacle in hop.obstacles:
            yield from self._obstacle(obstacle)

    def _receipts(self, hop: Hop) -> Iterator[Text]:
        if hop.run is None:
            return
        told = [f"{self._name(r.region)} 写 written {r.written} 删 deleted {r.deleted}" for r in hop.receipts]
        yield Text(f"  回执 receipt {hop.run[:8]}：{'；'.join(told) or '两端原已相同 both had it'}", style="dim")

    def _obstacle(self, obstacle: Obstacle) -> Iterator[Text]:
        since = f" （自 since {self._time(obstacle.since)}）" if obstacle.since else ""
        yield Text.assemble(("! ", "yellow"), str(obstacle.told), since)

    def _answer(self, node: NodeNow) -> Iterator[Text]:
        colour, zh, en = ANSWERS[node.state]
        groups = "、".join(self._group(group) for group in node.groups if group.group in node.differs)
        what = f"：{groups}" if groups else f"：{node.reason}" if node.reason else ""
        version = f"{node.version} " if node.version else ""
        yield Text.assemble(("现在 now ", "dim"), (version, "bold cyan"), (f"{zh} {en}{what}", colour))

    def _groups(self, groups: Iterable[GroupVersion]) -> str:
        return " · ".join(f"{group.group} {group.version or '?'}{' ≠' if group.behind else ''}" for group in groups)

    def _group(self, group: GroupVersion) -> str:
        labels = "、".join(self.dataset.fields[name].label for name in group.fields)
        return f"{group.group}（{labels}）"

    def rest(self, live: bool) -> Iterator[Text]:
        """Corrections, tombstones, and what was looked at."""
        if self.found.corrections:
            yield Text("校核 corrections", style="bold")
            yield from (self._correction(line) for line in self.found.corrections)
        if self.found.removals:
            yield Text("移除记录 tombstones", style="bold")
            yield from (self._removal(line) for line in self.found.removals)
        asked = (
            f"询问了 {len(self.found.nodes)} 个节点 / asked {len(self.found.nodes)} nodes"
            if live
            else "仅据台账，未访问业务系统；--live 询问现状 / by the ledger alone; --live asks the systems"
        )
        read = f"查看 {self.found.read}/{self.found.links} 条链路的基线 / read {self.found.read} of {self.found.links} baselines"
        yield Text(f"{read} · {asked}", style="dim")

    def _correction(self, line: CorrectionLine) -> Text:
        what = "、".join(self.dataset.fields[name].label for name in line.fields if name in self.dataset.fields)
        parts = [
            f"  {line.correction[:10]} {KINDS.get(line.kind, line.kind)}{f'（{what}）' if what else ''} {line.state}",
            f"{self._name(line.raised_by)} → {self._name(line.target)}",
            f"现在 at {self._name(line.at)}",
            f"提出 raised {self._time(line.raised)}",
        ]
        parts += [f"期限 due {line.due}"] if line.due and line.ruled is None and line.state != "logged" else []
        parts += [f"裁定 ruled {self._time(line.ruled)}"] if line.ruled else []
        parts += [f"结果已返回 returned {self._time(line.closed)}"] if line.closed and line.ruled else []
        return Text(" · ".join(parts))

    def _removal(self, line: Removal) -> Text:
        whither = f" → {self._name(line.destination)}" if line.destination else ""
        owed = f" · 待处理 owed by {line.owed_by}" if line.owed_by else " · 已处理 acted on"
        return Text(
            f"  {self._name(line.region)} {REMOVALS.get(line.kind, line.kind)}{whither} {self._time(line.at)}{owed}"
        )

    def _name(self, code: str | None) -> str:
        return self.regions[code].name if code is not None and code in self.regions else code or "–"

    def _time(self, moment: datetime | None) -> str:
        return f"{moment.astimezone(self.zone):%Y-%m-%d %H:%M:%S}" if moment else "–"


def _span(minutes: float) -> str:
    if minutes < 120:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.0f} h" if minutes < 48 * 60 else f"{minutes / 1440:.0f} d"
