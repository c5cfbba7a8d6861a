"""Receipts (回执): what a run says that a node holds is what the node holds, in count, in keys and in version."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import select

from federation import failpoints
from federation.canonical import conform, fingerprints
from federation.ledger.baselines import Baselines, Manifest
from federation.ledger.receipts import Receipt, content_of, proofs
from federation.ledger.schema import receipt as receipt_table
from federation.ledger.schema import run as run_table
from federation.ledger.store import rows
from federation.merge import Advance
from tests.federations import CITY, E11, E12, EAST, EAST_1, RESIDENT, WEST, Small

FP = pa.schema([("key", pa.string()), ("fp_city", pa.binary()), ("fp_community", pa.binary())])


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    yield Small(tmp_path)
    failpoints.disarm()


def receipts(small: Small, region: str) -> list[Receipt]:
    ledger = small.federation.services.ledger
    with ledger.transaction() as connection:
        found = rows(connection, select(receipt_table).order_by(receipt_table.c.receipt_id))
    return [Receipt(**row) for row in found if row["region"] == region]


def agreed(small: Small, region: str, key: str = "R1") -> dict[str, Any] | None:
    services, link = small.federation.services, small.federation.config.link("resident", region)
    manifest = Manifest.parse(services.links.state(link).baseline)
    picked = services.baselines.pick(manifest, services.meanings(link.contract), pa.array([key]), timed=True)
    return next(iter(picked.to_pylist()), None)


def by_hand(columns: dict[str, list[bytes]]) -> str:
    """The documented form, written anew."""
    text = b"".join(
        f"{name}:{len(values)}\n".encode() + b"".join(len(v).to_bytes(4, "little") for v in values) + b"".join(values)
        for name, values in columns.items()
    )
    return hashlib.sha256(text).hexdigest()


def versions(small: Small, region: str, fields: dict[str, tuple[str, ...]]) -> dict[str, dict[str, bytes]]:
    """Key → group → fingerprint of what a node really holds."""
    dataset = small.federation.config.dataset("resident")
    names = dataset.fields_at(small.federation.config.tree[region].level)
    held = [{name: row.get(name) for name in names} for row in small.store(region).rows.values()]
    typed = conform(pa.Table.from_pylist(held), dataset, names).rows
    found = fingerprints(typed, dataset, fields, small.federation.services.keyring.fingerprint).to_pylist()
    return {row["key"]: {name: row[f"fp_{name}"] for name in fields} for row in found}


def test_a_receipt_hashes_the_keys_and_the_version_that_the_node_holds(small: Small) -> None:
    for key in ("R2", "R1"):
        small.resident(key)
    small.cascade()
    link = small.federation.config.link("resident", E11)
    groups = {group.name: group.fields for group in link.contract.groups}
    held = versions(small, E11, groups)
    (receipt,) = receipts(small, E11)
    columns = {"key": [b"R1", b"R2"], **{f"fp_{g}": [held[key][g] for key in ("R1", "R2")] for g in sorted(groups)}}
    assert (receipt.written, receipt.deleted) == (2, 0)
    assert receipt.content == by_hand({**columns, "removed": []})


def test_a_receipt_of_one_group_names_that_group_only(small: Small) -> None:
    small.resident("R1")
    small.cascade()
    small.put(E11, "R1", phone="13911111111")
    small.cascade()
    (receipt,) = receipts(small, CITY)
    fields = {group.name: group.fields for group in small.federation.config.link("resident", EAST).contract.groups}
    held = versions(small, CITY, fields)["R1"]
    empty = {f"fp_{name}": [b""] for name in sorted(fields)}
    assert receipt.content == by_hand({"key": [b"R1"], **empty, "fp_community": [held["community"]], "removed": []})


def test_the_hash_of_a_batch_does_not_depend_on_the_order_of_its_rows() -> None:
    lines = [{"key": f"k{n}", "fp_city": bytes([n]) * 16, "fp_community": None} for n in range(9)]
    there, back = (pa.Table.from_pylist(order, schema=FP) for order in (lines, lines[::-1]))
    gone, enog = pa.array(["x", "y"]), pa.array(["y", "x"])
    assert content_of(there, gone) == content_of(pa.concat_tables([back.slice(0, 4), back.slice(4)]), enog)
    assert content_of(there, gone) == content_of(there.select(["key", "fp_community", "fp_city"]), gone)


@pytest.mark.parametrize(
    "other",
    [
        [{"key": "a", "fp_city": b"2" * 16, "fp_community": None}],
        [{"key": "a", "fp_city": None, "fp_community": b"1" * 16}],
        [{"key": "b", "fp_city": b"1" * 16, "fp_community": None}],
        [],
    ],
)
def test_the_hash_of_a_batch_tells_any_other_version_group_or_key(other: list[dict[str, Any]]) -> None:
    one = pa.Table.from_pylist([{"key": "a", "fp_city": b"1" * 16, "fp_community": None}], schema=FP)
    nothing = pa.array([], pa.string())
    assert content_of(one, nothing) != content_of(pa.Table.from_pylist(other, schema=FP), nothing)
    assert content_of(one, nothing) != content_of(one, pa.array(["a"]))
    assert content_of(one.slice(0, 0), pa.array(["a"])) != content_of(one, nothing)


def test_a_removal_that_waits_for_an_edit_above_is_in_no_receipt(tmp_path: Path) -> None:
    shared = RESIDENT.replace("phone: {label: 手机号, authority: community", "phone: {label: 手机号, authority: shared")
    shared = shared.replace(
        "fields:\n", "version: edit\nfields:\n  edit: {label: 版本, type: int, authority: shared}\n"
    )
    small = Small(tmp_path, changes={"datasets/resident.yaml": shared})
    small.resident("R1", edit=1)
    small.cascade()
    small.put(E11, "R1", phone="1391111", edit=2)
    small.put(CITY, "R1", community_code=E12)
    small.cascade()
    assert small.get(E11, "R1") is not None
    assert [receipt.deleted for receipt in receipts(small, E11)] == [0]
    small.put(E11, "R1", phone="13911111111", edit=3)
    small.cascade()
    assert small.holders("R1") == {CITY, EAST, EAST_1, E12}
    assert [receipt.deleted for receipt in receipts(small, E11)] == [0, 1]


def test_what_a_dead_run_brought_gets_its_receipt_from_the_run_that_settles_it(small: Small) -> None:
    small.resident("R1")
    small.cascade()
    small.put(CITY, "R1", name="王芳")

    def die() -> None:
        raise KeyboardInterrupt

    failpoints.arm("settle.before", die)
    with pytest.raises(KeyboardInterrupt):
        small.cascade()
    failpoints.disarm()
    assert len(receipts(small, EAST)) == 1
    small.cascade()
    link = small.federation.config.link("resident", EAST)
    fields = {group.name: group.fields for group in link.contract.groups}
    held = versions(small, EAST, fields)["R1"]
    empty = {f"fp_{name}": [b""] for name in sorted(fields)}
    receipt = receipts(small, EAST)[-1]
    assert (receipt.written, receipt.deleted) == (1, 0)
    assert receipt.content == by_hand({"key": [b"R1"], **empty, "fp_city": [held["city"]], "removed": []})
    found = agreed(small, EAST)
    assert found is not None
    with small.federation.services.ledger.transaction() as connection:
        assert proofs(connection, {link.id: found["at"]})[link.id].receipts == (receipt,)


def test_a_removal_by_a_dead_run_gets_its_receipt_as_well(small: Small) -> None:
    for key in ("R1", "R2"):
        small.resident(key)
    small.cascade()
    small.drop(CITY, "R1")

    def die() -> None:
        raise KeyboardInterrupt

    failpoints.arm("settle.before", die)
    with pytest.raises(KeyboardInterrupt):
        small.cascade()
    failpoints.disarm()
    small.cascade()
    receipt = receipts(small, EAST)[-1]
    assert (receipt.written, receipt.deleted) == (0, 1)
    names = sorted(group.name for group in small.federation.config.link("resident", EAST).contract.groups)
    nothing: dict[str, list[bytes]] = {"key": [], **{f"fp_{name}": [] for name in names}}
    assert receipt.content == by_hand({**nothing, "removed": [b"R1"]})


def test_the_time_of_agreement_is_that_of_the_run_that_settled_the_version(small: Small) -> None:
    small.resident("R1")
    small.cascade()
    found, link = agreed(small, E11), f"resident/{E11}"
    assert found is not None
    with small.federation.services.ledger.transaction() as connection:
        proof = proofs(connection, {link: found["at"]})[link]
        runs = rows(
            connection, select(run_table.c.run_id).where(run_table.c.link_id == link, run_table.c.outcome == "ok")
        )
    (receipt,) = receipts(small, E11)
    assert proof.receipts == (receipt,)
    assert proof.run_id == receipt.run_id
    assert {"run_id": proof.run_id} in runs


def test_a_run_that_agrees_on_nothing_new_leaves_the_time_of_agreement(small: Small) -> None:
    small.resident("R1")
    small.cascade()
    before = agreed(small, E11)
    small.put(E11, "R1", phone="1391111")
    small.cascade()
    assert [item.key for item in small.federation.services.quarantine.open_items()] == ["R1"]
    small.put(E11, "R1", phone="13800000000", name="错误")
    small.cascade()
    assert agreed(small, E11) == before
    small.put(E11, "R1", phone="13911111111")
    small.cascade()
    after = agreed(small, E11)
    assert before is not None and after is not None
    assert after["at"] > before["at"]


def test_a_key_that_goes_and_comes_back_is_agreed_on_anew(tmp_path: Path) -> None:
    baselines, groups = Baselines(str(tmp_path)), {"city": "m", "community": "m"}
    row = pa.Table.from_pylist([{"key": "a", "fp_city": b"1" * 16, "fp_community": None}], schema=FP)
    nothing = pa.array([], pa.string())
    first = baselines.write("d/1", Manifest.parse(None), groups, Advance(row, nothing), 10)
    again = baselines.write("d/1", first, groups, Advance(row, nothing), 20)
    gone = baselines.write("d/1", again, groups, Advance(row.slice(0, 0), pa.array(["a"])), 30)
    back = baselines.write("d/1", gone, groups, Advance(row, nothing), 40)
    times = [
        baselines.pick(m, groups, pa.array(["a"]), timed=True).column("at").to_pylist() for m in (again, gone, back)
    ]
    assert times == [[10], [], [40]]


def test_what_another_district_never_had_has_no_receipt_there(small: Small) -> None:
    small.resident("R1")
    small.cascade()
    assert receipts(small, WEST) == []
