"""Build the sample federation: `python -m examples.beijing.build DIR`, or `create(folder)`.

Afterwards `DIR` holds all that it needs: the declaration, its suites, and under `data` the systems of all regions. The city
has its residents, facilities and work orders; each community has recorded some visits; everything between is empty.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from connectors.base import Batch, Node, no_keys
from connectors.nodes import build as connector_of
from examples.beijing import generator, tables
from examples.beijing.hotline import ORDERS
from examples.beijing.http_platform import Records
from federation.config import Binding, Config, load

HERE = Path(__file__).resolve().parent
SUITES = HERE.parents[1] / "expectations"
PLATFORMS = "data/platforms"
"""Where both HTTP platforms keep their data: the folder to give to `examples.beijing.servers`."""

_MARKER = ".fedsync-sample"
_DECLARED = ("federation.yaml", "regions.csv", "datasets", "expectations")
_MADE = (*_DECLARED, "data", "state")


def create(folder: Path, *, residents: int = 600, seed: int = 20261123) -> Path:
    """Build the sample in `folder` and return it. Building again starts afresh: systems and state as on the first day.

    Raises FileExistsError if the folder holds something that this function did not make.
    """
    folder = folder.resolve()
    _claim(folder)
    for name in ("federation.yaml", "regions.csv"):
        shutil.copyfile(HERE / name, folder / name)
    shutil.copytree(HERE / "datasets", folder / "datasets")
    shutil.copytree(SUITES, folder / "expectations", ignore=lambda _, names: [n for n in names if n[-5:] != ".json"])
    config = load(folder)
    tables.build(folder / "data")
    people = generator.residents(config.tree, residents, seed)
    _fill_city(config, people, residents, seed)
    _fill_hotline(config, folder / PLATFORMS, generator.work_orders(config.tree, max(1, residents // 10), seed))
    _fill_workbooks(config)
    _fill_visits(config, generator.visits(config.tree, residents // 10, seed, among=people))
    return folder


def _claim(folder: Path) -> None:
    """Make the folder empty and ours."""
    if folder.exists() and any(folder.iterdir()) and not (folder / _MARKER).is_file():
        raise FileExistsError(
            f"{folder} 不为空，且不是样例目录；请换一个目录 / is not empty and was not made by this command; choose another"
        )
    for name in _MADE:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARKER).write_text("made by examples.beijing.build\n", encoding="utf-8")


def _fill_city(config: Config, people: pa.Table, residents: int, seed: int) -> None:
    city = config.tree.at("city")[0].code
    registry = config.home / "data/city/registry.db"
    facilities = generator.facilities(config.tree, max(len(config.tree.at("community")), residents // 20), seed)
    for dataset, rows in (("resident", people), ("facility", facilities)):
        _insert(registry, config.binding(dataset, city), rows)


def _insert(path: Path, binding: Binding, rows: pa.Table) -> None:
    """Put rows into a table of a sample database under the system's own column names."""
    names = [binding.columns.get(name, name) for name in rows.column_names]
    texts = [pc.cast(rows.column(name), pa.string()).to_pylist() for name in rows.column_names]
    statement = f"INSERT INTO {binding.options['table']} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    with tables.database(path) as connection:
        connection.executemany(statement, zip(*texts))


def _fill_hotline(config: Config, folder: Path, orders: pa.Table) -> None:
    folder.mkdir(parents=True)
    binding = config.binding("work_order", config.tree.at("city")[0].code)
    dispatched = pc.cast(orders.column("dispatched_at"), pa.timestamp("us", config.spec.timezone))
    orders = orders.set_column(
        orders.column_names.index("dispatched_at"),
        "dispatched_at",
        pc.strftime(dispatched, format="%Y-%m-%dT%H:%M:%S+08:00"),
    )
    records = Records(folder / "hotline.sqlite")
    try:
        for order in orders.to_pylist():
            number = order.pop("order_no")
            records.put(ORDERS, number, _nested(order, binding.columns), merge=False)
    finally:
        records.close()


def _nested(row: dict[str, object], columns: dict[str, str]) -> dict[str, object]:
    """A row as the platform keeps it: `caller.phone` is `phone` inside `caller`."""
    whole: dict[str, object] = {}
    for name, value in row.items():
        *above, last = columns.get(name, name).split(".")
        place = whole
        for step in above:
            place = place.setdefault(step, {})  # type: ignore[assignment]
        place[last] = value
    return whole


def _fill_workbooks(config: Config) -> None:
    """Lay out every workbook, as its people find it on the first day."""
    for binding in config.bindings():
        if binding.spec.connector == "workbook":
            connector_of(node_of(binding), "workbook").prepare()


def _fill_visits(config: Config, visits: pa.Table) -> None:
    """Let each community record its visits in its own system."""
    for community in config.tree.at("community"):
        binding = config.binding("visit", community.code)
        own = visits.filter(pc.equal(visits.column("community_code"), community.code))
        if binding.spec.connector == "workbook":
            node = node_of(binding)
            connector_of(node, "workbook").apply(Batch((own,), no_keys(node)))
        else:
            _insert(config.home / "data/yinzha/ledger.db", binding, own)


def node_of(binding: Binding, options: dict[str, object] | None = None) -> Node:
    """A node of the sample, without its hosted fields. `options` replace the declared ones, whose references are not resolved here."""
    fields = tuple(name for name in binding.dataset.fields_at(binding.region.level) if name not in binding.hosted)
    return Node(
        binding.dataset,
        binding.region,
        binding.system,
        binding.options if options is None else options,
        fields,
        binding.columns,
        binding.timezone,
    )


def main(arguments: list[str] | None = None) -> None:
    """Build and say what to do next."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.beijing.build", description="生成样例联邦 / build the sample"
    )
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="目标目录（空的或由本命令生成的）/ empty, or made by this command"
    )
    parser.add_argument("--residents", type=int, default=600, help="居民数 / number of residents")
    parser.add_argument("--seed", type=int, default=20261123, help="随机种子 / seed of the made-up data")
    options = parser.parse_args(arguments)
    try:
        folder = create(options.folder, residents=options.residents, seed=options.seed)
    except FileExistsError as error:
        raise SystemExit(str(error)) from None
    print(
        f"{folder}\n下一步 / next: export HOTLINE_TOKEN=… STREET_TOKEN=…; "
        f"python -m examples.beijing.servers {folder / PLATFORMS}"
    )


if __name__ == "__main__":
    main()
