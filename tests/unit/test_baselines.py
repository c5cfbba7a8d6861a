"""Baselines that are large enough for news: whatever is written in whatever portions, they hold what a dictionary would."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from federation.ledger.baselines import Baselines, Manifest
from federation.merge import Advance

GROUPS = {"city": "meaning-1", "street": "meaning-2"}
LINK = "d/1"
Held = dict[str, tuple[str, int]]
"""Key → its value, and since when."""


@pytest.fixture(autouse=True)
def little_is_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federation.ledger.baselines.BUCKET_ROWS", 150)


@pytest.fixture
def baselines(tmp_path: Path) -> Baselines:
    return Baselines(str(tmp_path))


def change(upserts: Mapping[str, str], removed: tuple[str, ...] = ()) -> Advance:
    keys, fps = list(upserts), [value.encode() for value in upserts.values()]
    schema = pa.schema([("key", pa.string()), ("fp_city", pa.binary()), ("fp_street", pa.binary())])
    return Advance(
        pa.table({"key": keys, "fp_city": fps, "fp_street": fps}, schema=schema), pa.array(removed, pa.string())
    )


def held(table: pa.Table) -> Held:
    assert table.num_rows == len(set(table.column("key").to_pylist())), "each key stands once"
    return {row["key"]: (row["fp_city"].decode(), row["at"]) for row in table.to_pylist()}


def first(baselines: Baselines, count: int = 400) -> tuple[Manifest, Held]:
    made = {f"k{number}": "1" for number in range(count)}
    manifest = baselines.write(LINK, Manifest.parse(None), GROUPS, change(made), 0)
    return manifest, dict.fromkeys(made, ("1", 0))


def test_a_small_change_of_a_large_baseline_adds_one_small_file(baselines: Baselines, tmp_path: Path) -> None:
    manifest, model = first(baselines)
    before = set(tmp_path.rglob("*.parquet"))
    manifest = baselines.write(LINK, manifest, GROUPS, change({"k1": "2", "new": "2"}, ("k2",)), 5)
    (added,) = set(tmp_path.rglob("*.parquet")) - before
    assert added.stat().st_size < 4_000
    del model["k2"]
    model |= {"k1": ("2", 5), "new": ("2", 5)}
    assert manifest.rows == len(model)
    assert held(baselines.read(manifest, GROUPS, timed=True)) == model


def test_what_is_agreed_on_anew_without_a_difference_keeps_its_time(baselines: Baselines) -> None:
    manifest, model = first(baselines)
    manifest = baselines.write(LINK, manifest, GROUPS, change({"k1": "1", "k3": "2"}), 5)
    manifest = baselines.write(LINK, manifest, GROUPS, change({"k3": "2"}), 6)
    model["k3"] = ("2", 5)
    assert held(baselines.read(manifest, GROUPS, timed=True)) == model


@pytest.mark.parametrize("seed", range(6))
def test_changes_in_any_portions_read_as_a_dictionary_would(baselines: Baselines, seed: int) -> None:
    dice = random.Random(seed)
    manifest, model = first(baselines)
    apart, folded = 0, 0
    for at in range(1, 60):
        size = dice.choice([1, 1, 3, 10, 60])
        upserts = {f"k{dice.randrange(500)}": dice.choice("123") for _ in range(size)}
        gone = {f"k{dice.randrange(500)}" for _ in range(dice.choice([0, 0, 1, 5]))} - set(upserts)
        known = None
        if dice.random() < 0.5:  # as a link run hands over what it has read already
            known = baselines.pick(
                manifest, GROUPS, pa.array([*upserts, *gone, "k0", "k1"], pa.string()).unique(), timed=True
            )
        was = manifest
        manifest = baselines.write(LINK, manifest, GROUPS, change(upserts, tuple(sorted(gone))), at, known)
        apart, folded = apart + (len(manifest.news) > len(was.news)), folded + (len(manifest.news) < len(was.news))
        for key, value in upserts.items():
            model[key] = (value, model[key][1] if key in model and model[key][0] == value else at)
        for key in gone:
            model.pop(key, None)
        assert manifest.rows == len(model)
        assert Manifest.parse(manifest.dump()) == manifest
        assert held(baselines.read(manifest, GROUPS, timed=True)) == model
        asked = [f"k{dice.randrange(520)}" for _ in range(7)]
        picked = baselines.pick(manifest, GROUPS, pa.array(asked).unique(), timed=True)
        assert held(picked) == {key: model[key] for key in asked if key in model}
    assert apart > 5
    assert folded > 1


def test_news_are_not_collected_while_the_manifest_names_them(baselines: Baselines) -> None:
    manifest, _ = first(baselines)
    manifest = baselines.write(LINK, manifest, GROUPS, change({"k1": "2"}), 5)
    assert len(manifest.news) == 1
    assert baselines.collect(LINK, manifest, older_than=-1) == 0
    old, manifest = manifest, baselines.write(LINK, manifest, GROUPS, change({f"k{n}": "3" for n in range(300)}), 6)
    assert not manifest.news
    assert baselines.collect(LINK, manifest, older_than=-1) == len(old.files) + 1


def test_a_group_that_means_something_else_is_unknown_in_news_as_well(baselines: Baselines) -> None:
    manifest, _ = first(baselines)
    manifest = baselines.write(LINK, manifest, GROUPS, change({"k1": "2"}), 5)
    other = {"city": "another meaning", "street": "meaning-2"}
    (row,) = baselines.pick(manifest, other, pa.array(["k1"])).to_pylist()
    assert row == {"key": "k1", "fp_city": None, "fp_street": b"2"}


def test_a_manifest_of_before_news_is_read(baselines: Baselines) -> None:
    manifest, model = first(baselines)
    written = manifest.dump().replace(', "news": [], "news_rows": 0', "")
    assert "news" not in written
    assert held(baselines.read(Manifest.parse(written), GROUPS, timed=True)) == model
