"""The ledger: leases, settling, baselines, and what a crash leaves behind. Run on SQLite here; PostgreSQL in test_ledger_postgres."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import create_engine, text

from connectors.memory import MemoryConnector
from federation.errors import AccountingError, Conflict, FedsyncError, LeaseHeld, LeaseLost
from federation.ledger.baselines import Baselines, Manifest
from federation.ledger.links import LEASE
from federation.ledger.store import Ledger
from federation.merge import Advance
from federation.runtime import open_federation
from tests.federations import CITY, E11, EAST, EAST_1, Small
from tests.servers import postgres_url

GROUPS = {"city": "meaning-1", "street": "meaning-2"}


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)


def change(upserts: dict[str, str], removed: tuple[str, ...] = ()) -> Advance:
    keys, fps = list(upserts), [value.encode() * 16 for value in upserts.values()]
    return Advance(
        pa.table(
            {"key": keys, "fp_city": fps, "fp_street": fps},
            schema=pa.schema([("key", pa.string()), ("fp_city", pa.binary()), ("fp_street", pa.binary())]),
        ),
        pa.array(removed, pa.string()),
    )


def keys_of(baselines: Baselines, manifest: Manifest) -> dict[str, bytes]:
    held = baselines.read(manifest, GROUPS).to_pylist()
    return {row["key"]: row["fp_city"] for row in held}


def test_a_second_runner_cannot_take_a_link_that_is_leased(small: Small) -> None:
    links, link = small.federation.services.links, small.federation.config.link("resident", E11)
    links.acquire(link)
    with pytest.raises(LeaseHeld):
        links.acquire(link)


def test_a_runner_that_works_for_longer_than_a_lease_keeps_it_and_one_that_died_does_not(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("federation.ledger.links.RENEW_SECONDS", 0.02)
    links, link = small.federation.services.links, small.federation.config.link("resident", E11)
    lease, _ = links.acquire(link)
    with links.kept(lease):
        for _ in range(3):
            small.clock.now += LEASE - timedelta(seconds=30)
            wanted, deadline = small.clock.now + LEASE - timedelta(seconds=1), time.monotonic() + 20
            while (links.state(link).lease_until or wanted) < wanted:
                assert time.monotonic() < deadline, "the lease is not renewed"
                time.sleep(0.01)
            with pytest.raises(LeaseHeld):
                links.acquire(link)
    small.clock.now += LEASE + timedelta(seconds=1)
    second, _ = links.acquire(link)
    with links.kept(lease):
        time.sleep(0.1)
    assert links.state(link).holder == second.holder, "who was taken over renews nothing"


def test_a_runner_that_was_taken_over_cannot_settle(small: Small) -> None:
    links, link = small.federation.services.links, small.federation.config.link("resident", E11)
    first, _ = links.acquire(link)
    small.clock.now += LEASE + timedelta(seconds=1)
    second, _ = links.acquire(link)
    with small.federation.services.ledger.transaction() as connection, pytest.raises(LeaseLost):
        links.settle(connection, first, state="ok")
    with small.federation.services.ledger.transaction() as connection:
        links.settle(connection, second, state="ok")
    assert links.state(link).state == "ok"


def test_a_runner_of_this_machine_that_died_is_taken_over_at_once(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    links, link = small.federation.services.links, small.federation.config.link("resident", E11)
    import socket

    monkeypatch.setattr("federation.ledger.links.holder_name", lambda: f"{socket.gethostname()}:999999999:dead")
    links.acquire(link)
    monkeypatch.undo()
    links.acquire(link)


def test_a_small_change_rewrites_only_the_buckets_it_touches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federation.ledger.baselines.BUCKET_ROWS", 50)
    baselines = Baselines(str(tmp_path))
    first = baselines.write("d/1", Manifest.parse(None), GROUPS, change({f"k{n}": "1" for n in range(1000)}), 0)
    second = baselines.write("d/1", first, GROUPS, change({"k7": "2"}, ("k8",)), 0)
    assert (first.rows, second.rows) == (1000, 999)
    assert first.buckets > 1
    assert len(set(first.files.values()) - set(second.files.values())) <= 2
    held = keys_of(baselines, second)
    assert held["k7"] == b"2" * 16
    assert "k8" not in held
    assert len(held) == 999


def test_the_old_baseline_stays_readable_after_a_change_and_is_collected_when_old(tmp_path: Path) -> None:
    baselines = Baselines(str(tmp_path))
    first = baselines.write("d/1", Manifest.parse(None), GROUPS, change({"a": "1"}), 0)
    second = baselines.write("d/1", first, GROUPS, change({"a": "2"}), 0)
    assert keys_of(baselines, first) == {"a": b"1" * 16}
    assert baselines.collect("d/1", second) == 0
    assert baselines.collect("d/1", second, older_than=-1.0) == 1
    assert keys_of(baselines, second) == {"a": b"2" * 16}


def test_a_group_whose_fields_changed_counts_as_never_agreed_on(tmp_path: Path) -> None:
    baselines = Baselines(str(tmp_path))
    first = baselines.write("d/1", Manifest.parse(None), GROUPS, change({"a": "1"}), 0)
    (row,) = baselines.read(first, {"city": "another meaning", "street": "meaning-2"}).to_pylist()
    assert row == {"key": "a", "fp_city": None, "fp_street": b"1" * 16}


def test_the_ledger_and_the_baseline_hold_no_attribute_value(small: Small) -> None:
    small.resident("R1", phone="13812345678", name="欧阳震华")
    small.cascade()
    small.put(E11, "R1", phone="1381234")
    small.put(E11, "R1", name="夏侯惇")
    small.federation.cascade("resident")
    small.federation.close()
    kept = b"".join(path.read_bytes() for path in (small.folder / "state").rglob("*") if path.is_file())
    for value in ("13812345678", "1381234", "欧阳震华", "夏侯惇"):
        assert value.encode() not in kept


def test_an_end_that_is_edited_between_read_and_write_is_read_again_and_nothing_is_lost(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.resident("R1")
    small.cascade()
    small.put(CITY, "R1", name="王芳")
    original, calls = MemoryConnector.apply, 0

    def late_edit(self: MemoryConnector, batch: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            self.store.put("R1", {"phone": "13911111111"})
        return original(self, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(MemoryConnector, "apply", late_edit)
    small.federation.cascade("resident")
    monkeypatch.undo()
    small.cascade()
    assert (small.get(E11, "R1") or {})["name"] == "王芳"


def test_a_conflict_that_never_ends_is_an_error_that_names_the_link(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.resident("R1")

    def never(self: MemoryConnector, batch: object) -> object:
        raise Conflict("the store changed", "数据已变化")

    monkeypatch.setattr(MemoryConnector, "apply", never)
    result = small.federation.cascade("resident")
    assert f"resident/{EAST}" in result.errors
    assert EAST in str(result.errors[f"resident/{EAST}"])


def test_a_system_that_confirms_less_than_it_was_asked_to_write_fails_the_run(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.resident("R1")
    from connectors.base import Applied

    monkeypatch.setattr(MemoryConnector, "apply", lambda self, batch: Applied(0, 0, None))
    result = small.federation.cascade("resident")
    assert isinstance(result.errors[f"resident/{EAST}"], AccountingError)


def test_a_change_of_the_contract_forces_a_full_merge(small: Small) -> None:
    small.resident("R1")
    small.cascade()
    path = small.folder / "datasets/resident.yaml"
    path.write_text(path.read_text().replace("visible: [city, district], ", ""))
    again = open_federation(small.folder, clock=small.clock)
    assert not again.cascade("resident").errors
    assert (small.get(E11, "R1") or {})["id_number"] == "110101199001010015"


def test_a_replayed_record_is_judged_anew_although_nobody_edited_it(tmp_path: Path) -> None:
    small = Small(tmp_path, "cursor")
    small.resident("R1")
    small.cascade()
    small.put(E11, "R1", phone="1380000")
    small.cascade()
    (item,) = small.federation.services.quarantine.open_items()
    assert small.federation.services.quarantine.open(item).record["phone"] == "1380000"
    suite = small.folder / "expectations/resident.json"
    loosened = json.loads(suite.read_text())
    loosened["expectations"][0]["kwargs"]["regex"] = "^1[0-9]+$"
    again = open_federation(small.folder, clock=small.clock)
    again.services.gates["resident"] = None
    again.services.quarantine.replay(item, "tester")
    assert not again.cascade("resident").errors
    assert (small.get(CITY, "R1") or {})["phone"] == "1380000"
    assert again.services.quarantine.open_items() == []


def test_an_unknown_quarantine_id_is_a_clear_error(small: Small) -> None:
    with pytest.raises(FedsyncError, match="no item begins with"):
        small.federation.services.quarantine.find("zzz")


def test_the_same_ledger_works_on_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = postgres_url()
    engine = create_engine(server.replace("postgresql://", "postgresql+psycopg://", 1), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("DROP DATABASE IF EXISTS fedsync_ledger_test"))
        connection.execute(text("CREATE DATABASE fedsync_ledger_test"))
    monkeypatch.setenv("FEDSYNC_LEDGER", server.rsplit("/", 1)[0] + "/fedsync_ledger_test")
    small = Small(tmp_path)
    assert isinstance(small.federation.services.ledger, Ledger)
    small.resident("R1")
    small.cascade()
    assert small.holders("R1") == {CITY, EAST, EAST_1, E11}
    small.put(E11, "R1", phone="1")
    small.cascade()
    assert [item.key for item in small.federation.services.quarantine.open_items()] == ["R1"]
    small.put(E11, "R1", phone="13922222222")
    small.cascade()
    assert (small.get(CITY, "R1") or {})["phone"] == "13922222222"
    assert small.cascade(force_full=True).moved == 0
    small.federation.close()
    with engine.connect() as connection:
        connection.execute(text("DROP DATABASE fedsync_ledger_test"))
    engine.dispose()


def test_a_reading_that_is_older_than_the_links_last_settlement_deletes_nothing(small: Small) -> None:
    small.cascade()
    stale = small.federation.collect("resident", EAST, force_full=True)
    for number in range(4):
        small.resident(f"R{number}")
    small.cascade()
    outcomes, errors = small.federation.sync_children("resident", EAST, [EAST_1], stale)
    assert not errors
    assert not outcomes[0].moved
    assert small.holders("R1") == {CITY, EAST, EAST_1, E11}


def test_after_a_cascade_a_sweep_wakes_nobody_and_after_an_edit_only_the_links_that_see_it(small: Small) -> None:
    small.resident("R1")
    small.put(E11, "V1", "visit", community_code=E11, visited_on="2026-01-05", summary="好")
    small.cascade()
    small.cascade("visit")
    for dataset in ("resident", "visit"):
        assert not any(small.federation.sweep(dataset).parents.values())
    small.put(E11, "R1", phone="13911111111")
    assert small.federation.sweep("resident").parents == {"city": [], "district": [], "street": [EAST_1]}
    small.put(EAST, "R1", name="错误")
    assert small.federation.sweep("resident").parents == {"city": [CITY], "district": [EAST], "street": [EAST_1]}


def test_a_new_link_waits_for_the_chain_above_it_unless_records_originate_at_its_ends(small: Small) -> None:
    assert small.federation.sweep("resident").parents == {"city": [CITY], "district": [], "street": []}
    assert list(filter(None, small.federation.sweep("visit").parents.values())) == [
        [EAST_1, "110101002000", "110102001000"]
    ]
    small.federation.sync_parent("resident", CITY)
    assert small.federation.sweep("resident").parents["district"] == [EAST, "110102000000"]
