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
from zoneinfo import ZoneInfo

from pydantic import Field as Option
from pydantic import StrictInt, StrictStr

from federation.config_alerts import AlertsSpec, alert_problems
from federation.config_nodes import HOSTED as HOSTED
from federation.config_nodes import node_problems
from federation.config_reference import Reference as Reference
from federation.contract import Dataset, Declared, Level, LinkContract
from federation.errors import DeclarationError, FedsyncError
from federation.regions import LEVEL_ZH, LEVELS, Region, RegionTree
from federation.yamlfile import Position, YamlFile

_SECRET = re.compile(
    r"password|passwd|passphrase|secret|token|api_?key|credential|authorization|private_?key", re.IGNORECASE
)
_URL_PASSWORD = re.compile(
    r"^[\w+.-]+://[^/@:\s]*:[^@\s]+@|[?&;](password|passwd|pwd|token|secret|api_?key)=[^&;]", re.IGNORECASE
)


class SystemSpec(Declared):
    """One real system. `options` belong to the connector; `{home}`, `{region}`, `{name}` and `{dataset}` are filled in."""

    connector: str
    label: str = ""
    timezone: str | None = None
    parallel: int | None = Option(
        default=None, ge=1, description="how many tasks of Airflow may work on it at a time (`fedsync system pools`)"
    )
    options: dict[str, Any] = Option(default_factory=dict)


class BindingSpec(Declared):
    """How one dataset is kept in a system. `columns`: field → the system's own name. `hosted`: fields that it has no column for.

    `codes`: field → the contract's value → the system's code, text or number (`gender: {男: 1, 女: 2}`).
    """

    options: dict[str, Any] = Option(default_factory=dict)
    columns: dict[str, str] = Option(default_factory=dict)
    codes: dict[str, dict[str, StrictInt | StrictStr]] = Option(default_factory=dict)
    hosted: tuple[str, ...] = ()


class NodeSpec(Declared):
    """Which regions use a system: those listed, or all of `level` (inside `within`, if given).

    Where several nodes bind one dataset of a region, the one that lists it counts, else the one with the narrowest `within`.
    """

    system: str
    regions: tuple[str, ...] = ()
    level: Level | None = None
    within: str | None = None
    datasets: dict[str, BindingSpec]


class QualitySpec(Declared):
    """The quality report. `publish`: a folder (relative to the declaration) or any fsspec location; default: `quality` in `state`."""

    schedule: str = Option(default="30 2 * * *", description="cron of the report, in the federation's time zone")
    publish: str | None = None
    keep_days: int = Option(default=60, ge=31, description="days that the trend is kept in the ledger")


class StorageSpec(Declared):
    """Where staging and baselines lie: `url`, a folder (relative to the declaration) or any fsspec location (`s3://bucket/prefix`).

    `options`: of that location's fsspec library (for S3: `key`, `secret`, `endpoint_url`); secrets by reference.
    """

    url: str
    options: dict[str, Any] = Option(default_factory=dict)


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
        default=None, description="SQLAlchemy URL of the ledger; default: FEDSYNC_LEDGER, else SQLite in `state`"
    )
    secret: Reference | None = Option(
        default=None,
        description="keys fingerprints, quarantine and hosted records; default: FEDSYNC_SECRET, else a file in `state`",
    )
    storage: StorageSpec | None = Option(
        default=None, description="staging and baselines; default: in `state`. Several hosts need one that all reach"
    )
    hosted: Reference | None = Option(
        default=None,
        description="SQLAlchemy URL of hosted records; default: FEDSYNC_HOSTED, else `hosted.db` in `state` if it is there or the ledger is SQLite, else the ledger's database",
    )
    previous_secrets: tuple[Reference, ...] = Option(
        default=(),
        description="secrets that were replaced, newest first; default: the words of FEDSYNC_SECRET_PREVIOUS",
    )
    quality: QualitySpec = QualitySpec()
    alerts: AlertsSpec = AlertsSpec()
    quarantine_days: int = Option(
        default=180,
        ge=1,
        description="days after which the content of a quarantined record is emptied; a dataset may say less",
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
    codes: dict[str, dict[str, int | str]]
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
        """(dataset, region) → index into `spec.nodes`; the narrower node beats the wider."""
        found: dict[tuple[str, str], int] = {}
        for index, node in sorted(enumerate(self.spec.nodes), key=lambda item: self._narrowness(item[1])):
            for code in node.regions or [region.code for region in self._of_level(node)]:
                for dataset in node.datasets:
                    found[dataset, code] = index
        return found

    def _narrowness(self, node: NodeSpec) -> int:
        if node.regions:
            return len(LEVELS) + 1
        return 1 + LEVELS.index(self.tree[node.within].level) if node.within else 0

    def _of_level(self, node: NodeSpec) -> list[Region]:
        assert node.level is not None
        return self.tree.below(node.within, node.level) if node.within else self.tree.at(node.level)

    def named(self, dataset: str | None) -> list[str]:
        """The name of one dataset, or of all. Raises DeclarationError for an unknown one."""
        return [self.dataset(dataset).name] if dataset else list(self.datasets)

    def system_of(self, dataset: str, region: str) -> str:
        """The name of the system that keeps a dataset for a region; `hosted` if the engine does. Cheaper than `binding`."""
        index = self._nodes.get((dataset, region))
        return HOSTED if index is None else self.spec.nodes[index].system

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
            return Binding(contract, place, HOSTED, SystemSpec(connector=HOSTED), {}, {}, {}, (), self.spec.timezone, 1)
        node = self.spec.nodes[index]
        bound = node.datasets[dataset]
        system = self.spec.systems.get(node.system) or SystemSpec(connector=HOSTED)
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
            bound.codes,
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


def _top(path: Path | str) -> YamlFile:
    top = Path(path)
    return YamlFile((top / "federation.yaml" if top.is_dir() else top).absolute())


def region_table(path: Path | str) -> Path:
    """Where a declaration keeps its region table, without validating the rest."""
    file = _top(path)
    return file.path.parent / str(file.data.get("regions", FederationSpec.model_fields["regions"].default))


def load(path: Path | str) -> Config:
    """Read and validate a declaration. Raises DeclarationError that lists every problem with file, line and key."""
    file = _top(path)
    spec = file.model(FederationSpec, file.data)
    tree = RegionTree.read(file.path.parent / spec.regions)
    datasets, problems = _datasets(file, spec)
    complete = not problems  # else a dataset may seem to be missing only because its file is faulty
    problems += _system_problems(file, spec)
    problems += node_problems(file, spec, tree, datasets, complete=complete)
    problems += alert_problems(file, spec.alerts, datasets) if complete else []
    for section in ("systems", "storage", "alerts"):
        problems += _secret_problems(file, (section,), file.data.get(section, {}))
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
    # An absolute pattern would take the declaration apart from its folder (and `glob` refuses it).
    paths = [] if Path(spec.datasets).is_absolute() else sorted(top.path.parent.glob(spec.datasets))
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


def _system_problems(file: YamlFile, spec: FederationSpec) -> list[FedsyncError]:
    problems: list[FedsyncError] = []
    zones: list[tuple[Position, str]] = [(("timezone",), spec.timezone)]
    for name, system in spec.systems.items():
        if name == HOSTED:
            problems.append(
                file.error(
                    ("systems", name),
                    f"{HOSTED} is the name of what the engine keeps itself",
                    f"{HOSTED} 专指由引擎代管",
                    "改名 / choose another name",
                )
            )
        if system.timezone:
            zones.append((("systems", name, "timezone"), system.timezone))
    for position, zone in zones:
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError):
            problems.append(
                file.error(position, f"unknown time zone {zone}", f"未知时区 {zone}", "如 / such as Asia/Shanghai")
            )
    return problems


def _secret_problems(file: YamlFile, position: Position, data: Any, secret: bool = False) -> list[FedsyncError]:
    """Credentials stand in the environment or in an Airflow connection, never in YAML. `secret`: a key above says so."""
    if isinstance(data, dict) and secret and set(data) <= {"env", "connection", "part"}:
        return []
    if isinstance(data, (dict, list)):
        problems: list[FedsyncError] = []
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            named = isinstance(key, str) and "columns" not in position and position[-1] not in ("systems", "datasets")
            tells = secret or (named and bool(_SECRET.search(str(key))))
            problems += _secret_problems(file, (*position, key), value, tells)
        return problems
    # A template of a signature stands under Authorization as well, and holds no secret.
    typed = data is not None and not isinstance(data, bool) and data != "" and "{signature}" not in str(data)
    if not (typed and (secret or _URL_PASSWORD.search(str(data)))):
        return []
    name = next((part for part in reversed(position) if isinstance(part, str)), "")
    return [
        file.error(
            position,
            f"{name} holds a secret in plain text",
            f"{name} 含明文凭据",
            "改为 {env: 变量名} 或 {connection: 连接名} / write {env: NAME} or {connection: ID}",
        )
    ]


def _filled(value: Any, words: dict[str, str]) -> Any:
    if isinstance(value, str):
        return re.sub(r"\{(home|region|name|dataset)\}", lambda match: words[match[1]], value)
    if isinstance(value, dict):
        return {key: _filled(item, words) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, words) for item in value]
    return value
