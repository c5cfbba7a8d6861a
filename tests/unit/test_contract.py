from __future__ import annotations

from pathlib import Path

import pytest

from federation.contract import Dataset, LinkContract
from tests.unit.declarations import RESIDENT, accepted, changed, line_of, refused, the_one

LEVELS = "levels: [city, district, street, community]"
PHONE = "phone: {label: 电话, authority: community}"


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "says"),
    [
        (LEVELS, "levels: [district, city, street, community]", "levels:", "levels", "from the top down"),
        (LEVELS, "levels: [city, district, district, street, community]", "levels:", "levels", "from the top down"),
        (LEVELS, "levels: [city, town, street, community]", "levels:", "levels.1", "(it is 'town')"),
        ("originates: [city]", "originates: [village]", "originates", "originates.0", "(it is 'village')"),
        ("key: [rid]", "key: [id]", "key:", "key", "there is no field id"),
        ("key: [rid]", "key: [rid, rid]", "key:", "key", "stands twice"),
        ("jurisdiction: place", "jurisdiction: where", "jurisdiction", "jurisdiction", "there is no field where"),
        ("jurisdiction: place", "jurisdiction: place\nversion: at", "version", "version", "there is no field at"),
        ("jurisdiction: place", "jurisdiction: place\nversion: phone", "version", "version", "timestamp or an int"),
        ("rid: {label: 编号", "rid: {type: float, label: 编号", "rid:", "fields.rid", "cannot be a key"),
        ("place: {label: 社区", "place: {type: int, label: 社区", "place: {", "fields.place.type", "a region code"),
        ("社区, authority: city", "社区, authority: shared", "place: {", "fields.place.authority", "cannot be shared"),
        (PHONE, PHONE.replace("community", "shared"), "phone", "fields.phone.authority", "needs the dataset's `version`"),
        (PHONE, PHONE.replace("community", "village"), "phone", "fields.phone.authority", "(it is 'village')"),
        (PHONE, PHONE.replace("}", ", visible: [city, street, community]}"), "phone", "fields.phone.visible", "neighbouring"),
        (PHONE, PHONE.replace("}", ", visible: [city, district]}"), "phone", "fields.phone.authority", "must be one of"),
        (PHONE, "phone: {authority: community}", "phone", "fields.phone.label", "label is missing"),
        (PHONE, PHONE.replace("label:", "lable: x, label:"), "phone", "fields.phone.lable", "is not a known word"),
        (PHONE, PHONE.replace("}", ", values: [a]}"), "phone", "fields.phone.values", "only an enum"),
        (PHONE, PHONE.replace("}", ", type: number}"), "phone", "fields.phone.type", "(it is 'number')"),
        (PHONE, PHONE.replace("phone:", "Phone:"), "Phone", "fields.Phone", "(it is 'Phone')"),
        ("values: [甲, 乙], ", "", "kind", "fields.kind.values", "lists its allowed values"),
        ("place: {label: 社区,", "place: {visible: [city], label: 社区,", "place: {", "fields.place.visible", "on every level"),
        ("name: resident", "name: Resident", "name:", "name", "(it is 'Resident')"),
        ("label: 居民", "label: 居民\nmax_loss: 1.5", "max_loss", "max_loss", "(it is 1.5)"),
    ],
)  # fmt: skip
def test_a_slip_in_a_contract_is_answered_with_its_line_and_key(
    tmp_path: Path, old: str, new: str, line: str, key: str, says: str
) -> None:
    resident = changed(RESIDENT, old, new)
    found = [problem for problem in refused(tmp_path, resident=resident) if says in problem.en]
    the_one(found, file="resident.yaml", line=line_of(resident, line), key=key, says=says)


def test_a_shared_field_outside_the_versions_sight_is_an_error(tmp_path: Path) -> None:
    versioned = changed(RESIDENT, "jurisdiction: place", "jurisdiction: place\nversion: at")
    versioned += "  at: {label: 时间, type: timestamp, authority: city, visible: [city, district]}\n"
    shared = changed(versioned, PHONE, PHONE.replace("community", "shared"))
    problems = refused(tmp_path, resident=shared)
    assert [problem.where["key"] for problem in problems] == ["fields.phone.authority"]
    assert "at must be visible wherever" in problems[0].en


def test_each_fault_of_a_contract_is_told_once_in_its_place(tmp_path: Path) -> None:
    resident = changed(changed(RESIDENT, "values: [甲, 乙], ", ""), "key: [rid]", "key: [id]")
    problems = refused(tmp_path, resident=resident)
    assert [problem.where["key"] for problem in problems] == [
        "key",
        "fields.kind.values",
    ]


def resident(tmp_path: Path) -> Dataset:
    return accepted(tmp_path).dataset("resident")


def test_a_field_travels_only_between_levels_that_both_see_it(tmp_path: Path) -> None:
    dataset = resident(tmp_path)
    assert "idno" in LinkContract(dataset, "city", "district").fields
    assert "idno" not in LinkContract(dataset, "district", "street").fields
    assert "idno" not in dataset.fields_at("community")


def test_an_upper_levels_fields_descend_and_a_lower_levels_ascend(tmp_path: Path) -> None:
    hop = LinkContract(resident(tmp_path), "street", "community")
    assert {group.name: (group.direction, group.fields) for group in hop.groups} == {
        "city": ("descending", ("place",)),
        "community": ("ascending", ("phone", "kind")),
    }


def test_only_a_level_that_originates_may_create_or_retire(tmp_path: Path) -> None:
    dataset = resident(tmp_path)
    assert [level for level in dataset.levels if dataset.may_create(level)] == ["city"]
    assert [level for level in dataset.levels if dataset.may_retire(level)] == ["city"]


def test_a_group_is_the_same_on_every_hop_that_carries_it(tmp_path: Path) -> None:
    dataset = resident(tmp_path)
    hops = [LinkContract(dataset, upper, lower) for upper, lower in dataset.hops]
    fields: dict[str, set[tuple[str, ...]]] = {}
    for hop in hops:
        for group in hop.groups:
            fields.setdefault(group.name, set()).add(group.fields)
    assert all(len(found) == 1 for found in fields.values())


def test_hops_join_neighbouring_levels_of_the_dataset(tmp_path: Path) -> None:
    assert resident(tmp_path).hops == (("city", "district"), ("district", "street"), ("street", "community"))
