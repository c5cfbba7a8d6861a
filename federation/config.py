"""The declaration of a federation: regions, systems, nodes and datasets, read from YAML and validated as a whole.

Light enough to be read while a DAG file is parsed: touches no system and no secret. `Config.check_nodes` (used by
`fedsync check` and before a run) also validates every connector's own options.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field as Option

from federation.contract import Dataset, Declared, Level, LinkContract
from federation.errors import DeclarationError, FedsyncError
from federation.regions import LEVEL_ZH, LEVELS, Region, RegionTree
from federation.yamlfile import YamlFile

HOSTED = "hosted"
"""The system of a region that has none: the engine keeps its records itself."""

_SECRET = re.compile(r"password|passwd|secret|token|api_?key|credential", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"^[a-z0-9+]+://[^/@:]*:[^/@]+@", re.IGNORECASE)


class Reference(Declared):
    """Where a secret is kept: an environment variable, or an Airflow connection (`part`: uri, login, password, host)."""

    env: str | None = None
    connection: str | None = None
    part: str = "uri"


class SystemSpec(Declared):
    """One real system. `options` belong to the connector; `{home}`, `{region}`, `{name}` and `{dataset}` are filled in."""

    connector: str
    label: str = ""
    timezone: str | None = None
    options: dict[str, Any] = Option(default_factory=dict)


class BindingSpec(Declared):
    """How one dataset is kept in a system. `columns`: field → the system's own name. `hosted`: fields that it has no column for."""

    options: dict[str, Any] = Option(default_factory=dict)
    columns: dict[str, str] = Option(default_factory=dict)
    hosted: tuple[str, ...] = ()


class NodeSpec(Declared):
    """Which regions use a system: those listed, or all of `level` (inside `within`, if given)."""

    system: str
    regions: tuple[str, ...] = ()
    level: Level | None = None
    within: str | None = None
    datasets: dict[str, BindingSpec]


class FederationSpec(Declared):
    """The top file of a declaration (`federation.yaml`). Paths are relative to it."""

    name: str
    label: str = ""
    regions: str = "regions.csv"
    datasets: str = Option(default="datasets/*.yaml", description="glob of the dataset files")
    suites: str = "expectations"
    state: str = "state"
    timezone: str = "Asia/Shanghai"
    ledger: Reference | None = Option(
        default=None, description="SQLAlchemy URL of the ledger; default: SQLite in `state`"
    )
    secret: Reference | None = Option(
        default=None, description="keys fingerprints and quarantine; default: a file in `state`"
    )
    systems: dict[str, SystemSpec] = Option(default_factory=dict)
    nodes: tuple[NodeSpec, ...] = ()


@dataclass(frozen=True)
class Binding:
    """One node as declared: which system keeps this dataset for this region, and how."""

    dataset: Dataset
    region: Region
    system: str
    spec: SystemSpec
    options: dict[str, Any]
    columns: dict[str, str]
    hosted: tuple[str, ...]
    timezone: str
    line: int


@dataclass(frozen=True)
class Link:
    """Parent node ↔ child node for one dataset: the unit of sync."""

    contract: LinkContract
    upper: Region
    lower: Region

    @property
    def id(self) -> str:
        """`<dataset>/<code of the lower region>`: a region has one parent per dataset."""
        return f"{self.contract.dataset.name}/{self.lower.code}"


@dataclass(frozen=True)
class Config:
    """A federation as declared and found consistent."""

    file: YamlFile
    spec: FederationSpec
    tree: RegionTree
    datasets: dict[str, Dataset]

    @property
    def home(self) -> Path:
        """The folder of the declaration."""
        return self.file.path.parent

    @property
    def state(self) -> Path:
        """The folder where the engine keeps its own files."""
        return self.home / self.spec.state

    @property
    def suites(self) -> Path:
        """The folder of the Great Expectations suites."""
        return self.home / self.spec.suites

    def dataset(self, name: str) -> Dataset:
        """A dataset by name."""
        try:
            return self.datasets[name]
        except KeyError:
            raise DeclarationError(
                f"there is no dataset {name}",
                f"没有数据集 {name}",
                todo=f"取值 / one of: {', '.join(self.datasets)}",
                dataset=name,
            ) from None

    @cached_property
    def _nodes(self) -> dict[tuple[str, str], int]:
        """(dataset, region) → index into `spec.nodes`; a node that lists the region beats one that names its level."""
        found: dict[tuple[str, str], int] = {}
        for listed in (False, True):
            for index, node in enumerate(self.spec.nodes):
                if bool(node.regions) != listed:
                    continue
                for code in node.regions or [region.code for region in self._of_level(node)]:
                    for dataset in node.datasets:
                        found[dataset, code] = index
        return found

    def _of_level(self, node: NodeSpec) -> list[Region]:
        assert node.level is not None
        return self.tree.below(node.within, node.level) if node.within else self.tree.at(node.level)

    def binding(self, dataset: str, region: str) -> Binding:
        """How a region keeps a dataset; a region without a declared node is hosted by the engine."""
        contract, place = self.dataset(dataset), self.tree[region]
        if place.level not in contract.levels:
            raise DeclarationError(
                f"{dataset} has no level {place.level}",
                f"数据集 {dataset} 不含{LEVEL_ZH[place.level]}级",
                dataset=dataset,
                region=region,
            )
        index = self._nodes.get((dataset, region))
        if index is None:
            return Binding(contract, place, HOSTED, SystemSpec(connector=HOSTED), {}, {}, (), self.spec.timezone, 1)
        node = self.spec.nodes[index]
        system, bound = self.spec.systems[node.system], node.datasets[dataset]
        words = {"home": str(self.home), "region": region, "name": place.name, "dataset": dataset}
        options = {name: _filled(value, words) for name, value in {**system.options, **bound.options}.items()}
        line = self.file.line(("nodes", index, "datasets", dataset))
        return Binding(
            contract,
            place,
            node.system,
            system,
            options,
            bound.columns,
            bound.hosted,
            system.timezone or self.spec.timezone,
            line,
        )

    def bindings(self, dataset: str | None = None) -> Iterator[Binding]:
        """Every node, by dataset and from the top level down."""
        for name in [dataset] if dataset else self.datasets:
            for level in self.dataset(name).levels:
                for region in self.tree.at(level):
                    yield self.binding(name, region.code)

    def link(self, dataset: str, lower: str) -> Link:
        """The link of a region to its parent in a dataset."""
        contract, region = self.dataset(dataset), self.tree[lower]
        above = contract.upper_of(region.level) if region.level in contract.levels else None
        upper = self.tree.ancestor(lower, above) if above else None
        if above is None or upper is None:
            raise DeclarationError(
                f"{region} has no parent in {dataset}",
                f"{region} 在 {dataset} 中没有上级",
                todo="检查层级 / check the levels of the dataset",
                dataset=dataset,
                region=lower,
            )
        return Link(LinkContract(contract, above, region.level), upper, region)

    def links(self, dataset: str, upper: str) -> list[Link]:
        """The links of a region to its children in a dataset, in the order of the children's codes."""
        contract, region = self.dataset(dataset), self.tree[upper]
        below = contract.lower_of(region.level)
        if below is None:
            return []
        hop = LinkContract(contract, region.level, below)
        return [Link(hop, region, child) for child in self.tree.below(upper, below)]

    def all_links(self, dataset: str | None = None) -> Iterator[Link]:
        """Every link, by dataset and from the top hop down."""
        for name in [dataset] if dataset else self.datasets:
            for upper, _ in self.dataset(name).hops:
                for region in self.tree.at(upper):
                    yield from self.links(name, region.code)

    def error_at(self, binding: Binding, error: FedsyncError) -> FedsyncError:
        """Name the line that declared a node in an error about it."""
        return error.at(
            dataset=binding.dataset.name,
            region=str(binding.region),
            system=binding.system,
            file=self.file.path,
            line=binding.line,
        )


def load(path: Path | str) -> Config:
    """Read and validate a declaration. Raises DeclarationError that lists every problem with file, line and key."""
    top = Path(path)
    top = top / "federation.yaml" if top.is_dir() else top
    file = YamlFile(top.absolute())
    spec = file.model(FederationSpec, file.data)
    tree = RegionTree.read(file.path.parent / spec.regions)
    datasets, problems = _datasets(file, spec)
    problems += _node_problems(file, spec, tree, datasets)
    problems += _secret_problems(file, ("systems",), file.data.get("systems", {}))
    problems += _secret_problems(file, ("nodes",), file.data.get("nodes", []))
    if problems:
        raise DeclarationError(
            f"the declaration has {len(problems)} problem(s)",
            f"声明有 {len(problems)} 处问题",
            problems=tuple(problems),
            file=file.path,
        )
    return Config(file, spec, tree, datasets)


def _datasets(top: YamlFile, spec: FederationSpec) -> tuple[dict[str, Dataset], list[FedsyncError]]:
    found: dict[str, Dataset] = {}
    problems: list[FedsyncError] = []
    paths = sorted(top.path.parent.glob(spec.datasets))
    if not paths:
        problems.append(
            top.error(
                ("datasets",),
                f"no dataset file matches {spec.datasets}",
                "没有匹配的数据集文件",
                "每个数据集一个 YAML 文件 / one YAML file per dataset",
            )
        )
    for path in paths:
        try:
            file = YamlFile(path)
            dataset = file.model(Dataset, file.data)
        except DeclarationError as error:
            problems += error.problems or (error,)
            continue
        if dataset.name in found:
            problems.append(
                file.error(
                    ("name",),
                    f"the dataset {dataset.name} is declared twice",
                    f"数据集 {dataset.name} 重复声明",
                    "改名或删去 / rename or delete one",
                )
            )
        if dataset.suite and not (top.path.parent / spec.suites / dataset.suite).is_file():
            problems.append(
                file.error(
                    ("suite",),
                    f"there is no suite {dataset.suite} under {spec.suites}",
                    f"找不到质量规则 {dataset.suite}",
                    "改正文件名或删去 suite / mend the name or delete `suite`",
                )
            )
        found[dataset.name] = dataset
    return found, problems


def _node_problems(
    file: YamlFile, spec: FederationSpec, tree: RegionTree, datasets: dict[str, Dataset]
) -> list[FedsyncError]:
    problems: list[FedsyncError] = []
    taken: dict[tuple[str, str], int] = {}
    for index, node in enumerate(spec.nodes):
        here = ("nodes", index)
        if node.system != HOSTED and node.system not in spec.systems:
            problems.append(
                file.error(
                    (*here, "system"),
                    f"there is no system {node.system}",
                    f"没有业务系统 {node.system}",
                    f"取值 / one of: {', '.join([*spec.systems, HOSTED])}",
                )
            )
        if bool(node.regions) == bool(node.level):
            problems.append(
                file.error(
                    here,
                    "a node names either `regions` or a `level`",
                    "regions 与 level 二选一",
                    "保留其一 / keep one of them",
                )
            )
        for place, code in enumerate(node.regions):
            if code not in tree:
                problems.append(
                    file.error(
                        (*here, "regions", place),
                        f"unknown region {code}",
                        f"未知区划 {code}",
                        "检查代码或补充区划表 / check the code or add it to the region table",
                    )
                )
        if node.within and node.within not in tree:
            problems.append(
                file.error(
                    (*here, "within"),
                    f"unknown region {node.within}",
                    f"未知区划 {node.within}",
                    "检查代码 / check the code",
                )
            )
        levels = {tree[code].level for code in node.regions if code in tree} or ({node.level} if node.level else set())
        for name, bound in node.datasets.items():
            at = (*here, "datasets", name)
            dataset = datasets.get(name)
            if dataset is None:
                problems.append(
                    file.error(
                        at, f"there is no dataset {name}", f"没有数据集 {name}", f"取值 / one of: {', '.join(datasets)}"
                    )
                )
                continue
            for level in sorted(levels - set(dataset.levels), key=LEVELS.index):
                problems.append(
                    file.error(
                        at,
                        f"{name} has no level {level}",
                        f"数据集 {name} 不含{LEVEL_ZH[level]}级",
                        f"取值 / its levels: {', '.join(dataset.levels)}",
                    )
                )
            for word, names in (("columns", tuple(bound.columns)), ("hosted", bound.hosted)):
                for field in names:
                    if field not in dataset.fields:
                        problems.append(
                            file.error(
                                (*at, word),
                                f"{name} has no field {field}",
                                f"{name} 没有字段 {field}",
                                f"取值 / one of: {', '.join(dataset.fields)}",
                            )
                        )
                    elif word == "hosted" and field in dataset.key:
                        problems.append(
                            file.error(
                                (*at, word),
                                f"the key field {field} cannot be hosted apart",
                                f"主键 {field} 不能单独托管",
                                "删去此项 / delete it",
                            )
                        )
            for code in node.regions:
                if (name, code) in taken:
                    problems.append(
                        file.error(
                            at,
                            f"{name} of region {code} is already bound on line {taken[name, code]}",
                            f"区划 {code} 的 {name} 重复绑定",
                            "删去一处 / delete one of them",
                        )
                    )
                taken[name, code] = file.line(at)
    return problems


def _secret_problems(file: YamlFile, position: tuple[str | int, ...], data: Any) -> list[FedsyncError]:
    """Credentials stand in the environment or in an Airflow connection, never in YAML."""
    problems: list[FedsyncError] = []
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        here = (*position, key)
        if isinstance(value, str):
            if _URL_PASSWORD.match(value) or (
                isinstance(key, str) and _SECRET.search(key) and "columns" not in position
            ):
                problems.append(
                    file.error(
                        here,
                        f"{key} holds a secret in plain text",
                        f"{key} 含明文凭据",
                        "改为 {env: 变量名} 或 {connection: 连接名} / write {env: NAME} or {connection: ID}",
                    )
                )
        else:
            problems += _secret_problems(file, here, value)
    return problems


def _filled(value: Any, words: dict[str, str]) -> Any:
    if isinstance(value, str):
        return re.sub(r"\{(home|region|name|dataset)\}", lambda match: words[match[1]], value)
    if isinstance(value, dict):
        return {key: _filled(item, words) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, words) for item in value]
    return value
