from __future__ import annotations

import csv
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from connectors.nodes import build as connector_of
from connectors.nodes import check_options
from connectors.registry import connector_class
from examples.beijing.build import HERE, PLATFORMS, SUITES, create, main, node_of
from examples.beijing.servers import serving
from federation.config import Binding, Config, load

CITY = "110000000000"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return load(create(tmp_path_factory.mktemp("samples") / "beijing", residents=240))


def rows(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def test_every_suite_that_a_dataset_names_is_in_the_folder(sample: Config) -> None:
    for dataset in sample.datasets.values():
        assert dataset.suite and (sample.suites / dataset.suite).is_file()


def test_the_regions_are_one_city_two_districts_four_streets_and_twelve_communities(sample: Config) -> None:
    assert Counter(region.level for region in sample.tree) == {"city": 1, "district": 2, "street": 4, "community": 12}
    for level, below, number in (("city", "district", 2), ("district", "street", 2), ("street", "community", 3)):
        assert all(len(sample.tree.below(region.code, below)) == number for region in sample.tree.at(level))


def test_work_orders_go_from_the_city_straight_to_the_streets(sample: Config) -> None:
    assert sample.dataset("work_order").hops == (("city", "street"),)
    assert [link.upper.code for link in sample.all_links("work_order")] == [CITY] * 4


def test_the_id_number_never_reaches_a_community(sample: Config) -> None:
    resident = sample.dataset("resident")
    assert "id_number" in resident.fields_at("street")
    assert "id_number" not in resident.fields_at("community")


def test_each_level_owns_what_is_promised(sample: Config) -> None:
    owned = {
        name: {level: [f for f, s in data.fields.items() if s.authority == level] for level in data.levels}
        for name, data in sample.datasets.items()
    }
    assert owned["resident"]["community"] == ["phone", "care_level", "care_note"]
    assert owned["work_order"]["street"] == ["status", "handler", "result", "return_reason"]
    assert owned["visit"]["street"] == ["reply", "replied_by"]
    assert owned["visit"]["city"] == []
    assert set(owned["facility"]["city"]) == set(sample.dataset("facility").fields)


def test_what_people_type_has_a_hint_and_everything_has_two_labels(sample: Config) -> None:
    for dataset in sample.datasets.values():
        for name, spec in dataset.fields.items():
            assert spec.label and spec.label_en, name
            assert bool(spec.hint) == (spec.authority in ("street", "community")), name


def test_systems_are_unlike_each_other_as_in_life(sample: Config) -> None:
    def kinds(dataset: str, level: str) -> list[str]:
        return [sample.binding(dataset, region.code).spec.connector for region in sample.tree.at(level)]

    assert kinds("resident", "city") == ["sql"]
    assert kinds("work_order", "city") == ["rest"]
    assert kinds("resident", "district") == ["sql", "sql"]
    for dataset in ("resident", "visit", "facility", "work_order"):
        assert kinds(dataset, "street") == ["sql", "rest", "workbook", "hosted"]
    assert Counter(kinds("visit", "community")) == {"workbook": 11, "sql": 1}
    suffixes = Counter(
        Path(str(binding.options["path"])).suffix
        for binding in sample.bindings("visit")
        if binding.region.level == "community" and binding.spec.connector == "workbook"
    )
    assert suffixes == {".xlsx": 10, ".csv": 1}
    assert sample.binding("resident", "110102000000").hosted == ("care_level", "care_note")


def _addressed(binding: Binding) -> dict[str, object]:
    """Options with an address in the place of each reference."""
    return {
        name: "http://127.0.0.1:1" if isinstance(value, dict) and set(value) == {"env"} else value
        for name, value in binding.options.items()
    }


def test_every_nodes_options_are_what_its_connector_takes(sample: Config) -> None:
    for binding in sample.bindings():
        if binding.spec.connector != "hosted":
            check_options(connector_class(binding.spec.connector), _addressed(binding), node_of(binding))


def test_nodes_keep_their_data_apart(sample: Config) -> None:
    """Every node has a table, path or file of its own."""
    places = [
        (binding.system, *(str(binding.options.get(word)) for word in ("url", "table", "path")))
        for binding in sample.bindings()
        if binding.spec.connector != "hosted"
    ]
    assert len(places) == len(set(places))


def test_every_table_has_the_columns_that_its_node_names(sample: Config) -> None:
    checked = 0
    for binding in sample.bindings():
        if binding.spec.connector != "sql" or binding.options.get("create"):
            continue
        path = Path(str(binding.options["url"]).removeprefix("sqlite:///"))
        table = binding.options["table"]
        columns = {str(row[1]) for row in rows(path, f"PRAGMA table_info({table})")}
        fields = [f for f in binding.dataset.fields_at(binding.region.level) if f not in binding.hosted]
        assert {binding.columns.get(field, field) for field in fields} <= columns, binding.region
        hosted = {binding.columns.get(field, field) for field in binding.hosted}
        assert not hosted & columns
        checked += 1
    assert checked == 12


def test_the_created_folder_is_self_contained(sample: Config) -> None:
    for binding in sample.bindings():
        for word in ("url", "path"):
            value = binding.options.get(word)
            if isinstance(value, str) and "/api/" not in value:
                assert str(sample.home) in value
    for path in sample.home.rglob("*"):
        assert not path.is_symlink()
        if path.suffix in (".yaml", ".csv", ".json") and path.parent != sample.home / "data":
            assert str(HERE) not in path.read_bytes().decode("utf-8", "ignore")


def test_the_city_has_its_residents_and_everything_between_is_empty(sample: Config) -> None:
    data = sample.home / "data"
    city = data / "city/registry.db"
    assert rows(city, "SELECT count(*), count(DISTINCT sqdm), count(gxsj) FROM t_rkjbxx") == [(240, 12, 240)]
    assert rows(city, "SELECT count(*), count(DISTINCT sqdm) FROM t_ggss") == [(12, 12)]
    assert rows(city, "SELECT count(*) FROM t_zfjl") == [(0,)]
    for path, tables in (
        ("dongcheng/grid.db", ("grid_person", "grid_visit", "grid_facility")),
        ("xicheng/population.db", ("RK_RESIDENT", "RK_VISIT", "RK_FACILITY")),
        ("yinzha/ledger.db", ("居民", "设施")),
    ):
        assert [rows(data / path, f"SELECT count(*) FROM {table}") for table in tables] == [[(0,)]] * len(tables)
    assert (data / "donghuamen/office.db").exists()


def test_the_citys_time_of_change_moves_with_every_change(tmp_path: Path) -> None:
    path = create(tmp_path / "s", residents=20) / "data/city/registry.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE t_rkjbxx SET gxsj = '2020-01-01 00:00:00.000000'")
        connection.execute("UPDATE t_rkjbxx SET lxdh = '19900009999' WHERE rkbh = (SELECT min(rkbh) FROM t_rkjbxx)")
    assert len(rows(path, "SELECT 1 FROM t_rkjbxx WHERE gxsj > '2026-01-01'")) == 1


def test_every_community_has_visits_of_its_own_in_its_own_system(sample: Config) -> None:
    people = {
        str(row[0]): row[1] for row in rows(sample.home / "data/city/registry.db", "SELECT rkbh, sqdm FROM t_rkjbxx")
    }
    total = 0
    for region in sample.tree.at("community"):
        binding = sample.binding("visit", region.code)
        found = connector_of(node_of(binding), binding.spec.connector).changes(None)
        assert found.rejects.num_rows == 0
        assert found.rows.num_rows > 0
        for row in found.rows.to_pylist():
            assert row["community_code"] == people[row["resident_id"]] == region.code
        total += found.rows.num_rows
    assert total == 24


def test_one_communitys_files_are_in_the_encoding_of_an_old_program(sample: Config) -> None:
    path = sample.home / "data/三井社区居委会/走访记录.csv"
    with path.open(encoding="gb18030", newline="") as lines:
        assert next(csv.reader(lines))[0] == "走访编号"
    with pytest.raises(UnicodeDecodeError):
        path.read_text(encoding="utf-8")


def test_the_hotline_answers_with_the_orders_under_the_declared_names(sample: Config) -> None:
    binding = sample.binding("work_order", CITY)
    with serving(sample.home / PLATFORMS) as platforms:
        options = {**binding.options, "base_url": platforms.hotline.url, "token": platforms.hotline_token}
        node = node_of(binding, options)
        connector = connector_of(node, "rest")
        found = connector.changes(None)
        connector.close()
    assert found.rejects.num_rows == 0
    assert found.rows.num_rows == 24
    assert set(found.rows.column("street_code").to_pylist()) == {region.code for region in sample.tree.at("street")}
    assert all(found.rows.column(name).null_count == 0 for name in ("title", "caller_phone", "dispatched_at", "status"))


def test_the_streets_platform_takes_and_gives_back_every_dataset_that_is_declared(
    sample: Config, tmp_path: Path
) -> None:
    with serving(tmp_path) as platforms:
        for dataset in sample.datasets:
            binding = sample.binding(dataset, "110101005000")
            options = {**binding.options, "base_url": platforms.street.url, "token": platforms.street_token}
            connector = connector_of(node_of(binding, options), "rest")
            assert connector.changes(None).rows.num_rows == 0
            assert connector.probe().token is not None
            connector.close()


def test_building_again_starts_afresh_and_makes_the_same(tmp_path: Path) -> None:
    folder = create(tmp_path / "s", residents=30, seed=1)
    registry = folder / "data/city/registry.db"
    statement = "SELECT rkbh, xm, sfzh, lxdh FROM t_rkjbxx ORDER BY rkbh"
    first = rows(registry, statement)
    (folder / "state").mkdir()
    (folder / "state/ledger.db").write_text("old", encoding="utf-8")
    (folder / "mine.txt").write_text("kept", encoding="utf-8")
    with closing(sqlite3.connect(registry)) as connection, connection:
        connection.execute("DELETE FROM t_rkjbxx")
    create(folder, residents=30, seed=1)
    assert rows(registry, statement) == first
    assert not (folder / "state").exists()
    assert (folder / "mine.txt").exists()


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/precious.xlsx").write_text("x", encoding="utf-8")
    with pytest.raises(FileExistsError, match="not made by this command"):
        create(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "precious.xlsx"]


def test_a_sample_without_residents_can_be_built(tmp_path: Path) -> None:
    config = load(create(tmp_path / "s", residents=0))
    assert rows(config.home / "data/city/registry.db", "SELECT count(*) FROM t_rkjbxx") == [(0,)]


def test_the_command_says_what_to_do_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path / "s"), "--residents", "12"])
    assert "python -m examples.beijing.servers" in capsys.readouterr().out
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    with pytest.raises(SystemExit, match="not made by this command"):
        main([str(tmp_path / "other")])


def test_the_suites_are_those_of_the_project(sample: Config) -> None:
    assert {path.name: path.read_bytes() for path in SUITES.glob("*.json")} == {
        path.name: path.read_bytes() for path in sample.suites.iterdir()
    }
