from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from examples.beijing import generator
from examples.beijing.build import HERE
from federation.canonical import conform, schema
from federation.contract import Dataset
from federation.regions import RegionTree
from federation.yamlfile import YamlFile

TREE = RegionTree.read(HERE / "regions.csv")
MAKERS: dict[str, Callable[[int, int], pa.Table]] = {
    "resident": lambda count, seed: generator.residents(TREE, count, seed),
    "facility": lambda count, seed: generator.facilities(TREE, count, seed),
    "work_order": lambda count, seed: generator.work_orders(TREE, count, seed),
    "visit": lambda count, seed: generator.visits(TREE, count, seed, among=generator.residents(TREE, 300, 1)),
}
every_dataset = pytest.mark.parametrize("name", MAKERS)


def contract(name: str) -> Dataset:
    file = YamlFile(HERE / "datasets" / f"{name}.yaml")
    return file.model(Dataset, file.data)


@every_dataset
def test_the_same_seed_makes_the_same_data(name: str) -> None:
    assert MAKERS[name](500, 7).equals(MAKERS[name](500, 7))


@every_dataset
def test_another_seed_makes_other_data(name: str) -> None:
    assert not MAKERS[name](500, 7).equals(MAKERS[name](500, 8))


@every_dataset
@pytest.mark.parametrize("count", [0, 1, 5000])
def test_rows_have_the_contracts_columns_and_types_and_none_is_rejected(name: str, count: int) -> None:
    dataset = contract(name)
    made = MAKERS[name](count, 3)
    assert made.num_rows == count
    assert made.schema.equals(schema(dataset, list(dataset.fields)))
    typed = conform(made, dataset, list(dataset.fields))
    assert typed.rejects.num_rows == 0
    assert typed.rows.equals(made)


@every_dataset
def test_every_community_or_street_has_its_share(name: str) -> None:
    dataset = contract(name)
    made = MAKERS[name](400, 3)
    level = "street" if name == "work_order" else "community"
    places = pc.unique(made.column(dataset.jurisdiction)).to_pylist()
    assert sorted(places) == [region.code for region in TREE.at(level)]


def test_fewer_residents_than_communities_are_no_error() -> None:
    places = generator.residents(TREE, 5, 1).column("community_code").to_pylist()
    assert len(set(places)) == 5


def check_digit(first: str) -> str:
    """GB 11643, from its text: the weighted sum of all 18 digits is 1 modulo 11."""
    total = sum(int(digit) * pow(2, 17 - at, 11) for at, digit in enumerate(first))
    rest = (1 - total) % 11
    return "X" if rest == 10 else str(rest)


def test_id_numbers_are_checksummed_unique_and_agree_with_birth_date_and_gender() -> None:
    rows = generator.residents(TREE, 20_000, 5).select(["id_number", "birth_date", "gender"]).to_pylist()
    assert len({row["id_number"] for row in rows}) == len(rows)
    assert {row["id_number"][-1] for row in rows} == set("0123456789X")
    for row in rows:
        number = row["id_number"]
        assert re.fullmatch(r"\d{17}[\dX]", number)
        assert number[-1] == check_digit(number[:17])
        assert number[6:14] == row["birth_date"].strftime("%Y%m%d")
        assert row["gender"] == ("男" if int(number[16]) % 2 else "女")


def test_id_numbers_belong_to_an_area_that_was_never_assigned() -> None:
    numbers = generator.residents(TREE, 2000, 5).column("id_number")
    assert pc.all(pc.starts_with(numbers, "1199")).as_py()


def test_phones_are_well_formed_unique_and_of_a_made_up_range() -> None:
    phones = generator.residents(TREE, 2000, 5).column("phone").drop_null().to_pylist()
    assert len(set(phones)) == len(phones) > 1800
    assert all(re.fullmatch(r"1[3-9]\d{9}", phone) and phone.startswith("1990000") for phone in phones)


def test_resident_ids_are_opaque_and_say_nothing_of_the_id_number() -> None:
    rows = generator.residents(TREE, 2000, 5).select(["resident_id", "id_number"]).to_pylist()
    assert len({row["resident_id"] for row in rows}) == 2000
    assert all(re.fullmatch(r"R\d{10}", row["resident_id"]) for row in rows)
    assert not any(row["resident_id"][1:] in row["id_number"] for row in rows)


def test_who_needs_most_care_has_a_note_and_the_old_need_more_of_it() -> None:
    rows = generator.residents(TREE, 5000, 5).select(["care_level", "care_note", "birth_date"]).to_pylist()
    assert all(row["care_note"] for row in rows if row["care_level"] == "重点")
    assert not any(row["care_note"] for row in rows if row["care_level"] == "无")

    def share(old: bool) -> float:
        of = [row["care_level"] == "重点" for row in rows if (row["birth_date"].year < 1950) == old]
        return sum(of) / len(of)

    assert share(True) > 2 * share(False) > 0


def test_a_work_order_is_told_as_far_as_it_is_handled() -> None:
    for row in generator.work_orders(TREE, 2000, 5).to_pylist():
        assert (row["handler"] is None) == (row["status"] == "待办")
        assert (row["result"] is not None) == (row["status"] == "已办结")
        assert (row["return_reason"] is not None) == (row["status"] == "退回")


def test_a_visit_belongs_to_the_community_of_its_resident() -> None:
    people = generator.residents(TREE, 300, 1)
    home = dict(zip(people.column("resident_id").to_pylist(), people.column("community_code").to_pylist()))
    rows = generator.visits(TREE, 1000, 2, among=people).to_pylist()
    assert all(home[row["resident_id"]] == row["community_code"] for row in rows)
    assert all(row["visit_id"].startswith(f"V{row['community_code']}-") for row in rows)


def test_there_are_no_visits_where_nobody_lives() -> None:
    nobody = generator.residents(TREE, 0, 1)
    assert generator.visits(TREE, 10, 2, among=nobody).num_rows == 0


def test_visits_to_residents_of_another_tree_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "regions.csv"
    path.write_text("code,name,level,parent\n110000000000,北京市,city,\n", encoding="utf-8")
    with pytest.raises(ValueError, match="outside the tree"):
        generator.visits(RegionTree.read(path), 3, 2, among=generator.residents(TREE, 3, 1))


def test_a_tree_without_communities_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "regions.csv"
    path.write_text("code,name,level,parent\n110000000000,北京市,city,\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no community"):
        generator.residents(RegionTree.read(path), 3, 1)


def test_two_hundred_thousand_residents_are_distinct_people() -> None:
    made = generator.residents(TREE, 200_000, 9)
    for name in ("resident_id", "id_number"):
        assert pc.count_distinct(made.column(name)).as_py() == 200_000
    phones = made.column("phone").drop_null()
    assert pc.count_distinct(phones).as_py() == len(phones)


def test_more_people_than_a_birthday_has_numbers_is_an_error() -> None:
    born = np.zeros(50_001, np.int64)
    with pytest.raises(ValueError, match="no more id numbers"):
        generator.id_numbers(born, np.ones(born.size, bool))
