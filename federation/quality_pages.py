"""The quality report as static pages: an index over nodes and rules, drawn from the ledger's counts, and Data Docs below it.

    <publish>/index.html                  every dataset
    <publish>/style.css                   the only file beside the pages; nothing is fetched from elsewhere
    <publish>/<dataset>/index.html        rules × levels, nodes × rules: share and trend
    <publish>/<dataset>/<region>.html     Great Expectations' page of one node

No page holds a value of a record, or a key. `publish` is a folder or any fsspec location.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import fsspec
from jinja2 import Environment, PackageLoader, StrictUndefined

from federation.contract import Dataset
from federation.errors import DeclarationError, Permanent
from federation.federation import Federation
from federation.ledger.quality import QualityLog, Trend
from federation.quality import BUILT_IN, NodeQuality, examine, rules_of
from federation.quality_docs import node_page, text_of
from federation.regions import LEVEL_ZH, Region

STALE = timedelta(days=2)
"""A node whose last report is so much older than the newest one was not read since."""


@dataclass(frozen=True)
class RuleLine:
    """A rule on the index. `label`: its number and fields; `levels`: level → (share, change, change in 30 days) over its nodes."""

    name: str
    label: str
    severity: str
    zh: str
    en: str
    levels: dict[str, tuple[float, float | None, float | None]]


@dataclass(frozen=True)
class NodeLine:
    """A node on the index. `cells`: one per rule, None where it is not evaluated; `page`: whether it has Data Docs."""

    region: Region
    depth: int
    checked: str
    stale: bool
    page: bool
    cells: tuple[Trend | None, ...]


def report(federation: Federation, dataset: str, regions: Sequence[str]) -> Iterator[NodeQuality]:
    """Examine nodes and publish a page for each that has rules; `Site.publish` then draws the index over all of them."""
    site, contract = Site(federation), federation.config.dataset(dataset)
    for found in examine(federation, dataset, regions):
        if found.judged:
            page = node_page(federation.config, contract, found.region, found.judged, found.checked_at)
            site.put_node(dataset, found.region, page)
        yield found


class Site:
    """The published pages of a federation."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation
        self._config = federation.config
        where = self._config.spec.quality.publish or str(self._config.state / "quality")
        self.root = where if "://" in where else str(self._config.home / where)
        try:
            self._fs, self._path = fsspec.core.url_to_fs(self.root)
        except (ValueError, ImportError) as cause:
            raise DeclarationError(
                f"pages cannot be published to {self.root}: {cause}",
                f"无法发布到 {self.root}",
                todo="检查 quality.publish，或安装所需的 fsspec 后端 / check `quality.publish`, or install the fsspec backend that it needs",
                file=self._config.file.path,
            ) from cause

    def put_node(self, dataset: str, region: str, page: str) -> None:
        """Publish one node's Data Docs page."""
        self._write(f"{dataset}/{region}.html", page)

    def publish(self, dataset: str) -> str:
        """Draw the indexes anew from the ledger, and drop pages of regions that are no more; where the index lies."""
        contract = self._config.dataset(dataset)
        trends = QualityLog(self._federation.services.ledger).trend(dataset)
        pages = self._pages(dataset)
        self._write("style.css", _read("style.css"))
        self._write(f"{dataset}/index.html", self._index(contract, trends, pages))
        listed = [name for name in self._config.datasets if self._fs.exists(f"{self._path}/{name}/index.html")]
        datasets = [self._config.datasets[name] for name in listed]
        self._write(
            "index.html",
            _drawn(
                "site.html", title=self._config.spec.label or self._config.spec.name, datasets=datasets, zh=LEVEL_ZH
            ),
        )
        return f"{self.root}/{dataset}/index.html"

    def _index(self, dataset: Dataset, trends: Sequence[Trend], pages: set[str]) -> str:
        by_node: dict[str, dict[str, Trend]] = {}
        for trend in trends:
            by_node.setdefault(trend.region, {})[trend.finding.rule] = trend
        rules = self._rules(dataset, trends)
        newest = max((trend.checked_at for trend in trends), default=None)
        nodes = [self._node(dataset, region, rules, by_node, newest, pages) for region in self._regions(dataset)]
        return _drawn(
            "dataset.html",
            dataset=dataset,
            rules=rules,
            levels=[(level, LEVEL_ZH[level]) for level in dataset.levels],
            groups=_grouped(nodes),
            checked=self._time(newest) if newest else "–",
        )

    def _rules(self, dataset: Dataset, trends: Sequence[Trend]) -> list[RuleLine]:
        tree = self._config.tree
        of_rule: dict[str, dict[str, list[Trend]]] = {}
        for trend in trends:
            if trend.region in tree:
                levels = of_rule.setdefault(trend.finding.rule, {})
                levels.setdefault(tree[trend.region].level, []).append(trend)
        told = [(name, *words) for name, words in BUILT_IN.items()]
        for rule in rules_of(self._federation, dataset):
            fields = "、".join(dataset.fields[name].label for name in rule.columns)
            told.append((rule.name, fields or "整表 table", rule.severity, text_of(rule.zh), text_of(rule.en)))
        return [
            RuleLine(
                name,
                f"{number} {fields}".strip(),
                severity,
                zh,
                en,
                {level: _level(found) for level, found in of_rule.get(name, {}).items()},
            )
            for number, (name, fields, severity, zh, en) in enumerate(told, start=1)
        ]

    def _node(
        self,
        dataset: Dataset,
        region: Region,
        rules: Sequence[RuleLine],
        by_node: dict[str, dict[str, Trend]],
        newest: datetime | None,
        pages: set[str],
    ) -> NodeLine:
        found = by_node.get(region.code, {})
        at = next((trend.checked_at for trend in found.values()), None)
        return NodeLine(
            region,
            dataset.levels.index(region.level),
            self._time(at) if at else "–",
            at is None or (newest is not None and newest - at > STALE),
            region.code in pages,
            tuple(found.get(rule.name) for rule in rules),
        )

    def _regions(self, dataset: Dataset) -> list[Region]:
        """The dataset's regions, each followed by those inside it."""
        tree = self._config.tree

        def inside(region: Region) -> Iterable[Region]:
            yield region
            below = dataset.lower_of(region.level)
            for child in tree.below(region.code, below) if below else ():
                yield from inside(child)

        return [region for top in tree.at(dataset.levels[0]) for region in inside(top)]

    def _pages(self, dataset: str) -> set[str]:
        """Regions that have a page."""
        folder = f"{self._path}/{dataset}"
        if not self._fs.exists(folder):
            return set()
        known = {region.code for region in self._config.tree}
        found = set()
        for path in self._fs.ls(folder, detail=False):
            code = path.rsplit("/", 1)[-1].removesuffix(".html")
            if code in known:
                found.add(code)
            elif code != "index":
                self._fs.rm(path)
        return found

    def _time(self, moment: datetime) -> str:
        return f"{moment.astimezone(ZoneInfo(self._config.spec.timezone)):%Y-%m-%d %H:%M}"

    def _write(self, name: str, text: str) -> None:
        path = f"{self._path}/{name}"
        try:
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            self._fs.pipe_file(path, text.encode())
        except OSError as cause:
            raise Permanent(
                f"the page cannot be written: {cause}",
                "无法写入质量报告页面",
                todo="检查 quality.publish 所指位置的权限与空间 / check rights and space at `quality.publish`",
                file=f"{self.root}/{name}",
            ) from cause


def _level(trends: Sequence[Trend]) -> tuple[float, float | None, float | None]:
    """One rule over the nodes of one level: the share over all their records, and how the nodes' shares changed, weighted alike."""
    evaluated = sum(trend.finding.evaluated for trend in trends)
    failing = sum(trend.finding.failing for trend in trends)
    return (
        failing / evaluated if evaluated else 0.0,
        _weighted([(trend.change, trend.finding.evaluated) for trend in trends]),
        _weighted([(trend.long_change, trend.finding.evaluated) for trend in trends]),
    )


def _weighted(changes: Sequence[tuple[float | None, int]]) -> float | None:
    known = [(change, weight) for change, weight in changes if change is not None]
    whole = sum(weight for _, weight in known)
    if not known:
        return None
    return sum(change * weight for change, weight in known) / whole if whole else 0.0


def _grouped(nodes: Sequence[NodeLine]) -> list[tuple[NodeLine, list[NodeLine]]]:
    """The nodes in foldable groups: the top, then each region of the next level with all inside it; two levels are one group."""
    groups: list[tuple[NodeLine, list[NodeLine]]] = []
    alone = 1 if max((node.depth for node in nodes), default=0) > 1 else 0
    for node in nodes:
        if node.depth <= alone:
            groups.append((node, [node]))
        else:
            groups[-1][1].append(node)
    return groups


def percent(share: float | None) -> str:
    """A share as people read it: 0, <0.1%, 12.5%."""
    if share is None:
        return "–"
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{share:.1%}" if share else "0"


def moved(change: float | None) -> bool:
    """Whether a share changed by as much as is shown: a tenth of a percentage point, rounded."""
    return change is not None and abs(change) >= 0.0005


def points(change: float | None) -> str:
    """A change of a share, in percentage points: ▲ grew (worse), ▼ fell."""
    if change is None:
        return ""
    if not moved(change):
        return "="
    return f"{'▲' if change > 0 else '▼'}{abs(change) * 100:.1f}"


def _environment() -> Environment:
    made = Environment(loader=PackageLoader("federation", "pages"), autoescape=True, undefined=StrictUndefined)
    made.filters |= {"percent": percent, "points": points, "moved": moved}
    return made


def _drawn(template: str, **words: Any) -> str:
    return _environment().get_template(template).render(**words)


def _read(name: str) -> str:
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]
