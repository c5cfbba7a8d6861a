"""Backup and restore: an older ledger put back under nodes that went on converges, and loses nothing."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from federation.backup import Backup
from federation.errors import AccessDenied, FedsyncError, LeaseHeld, LeaseLost, Unreadable
from federation.runtime import open_backups, open_federation
from federation.storage import Storage
from tests.federations import CITY, E11, E12, E21, EAST, EAST_1, EAST_2, W11, W12, WEST, WEST_1, Small
from tests.servers import postgres_schema, postgres_url

PATH_E11, PATH_E21 = {CITY, EAST, EAST_1, E11}, {CITY, EAST, EAST_2, E21}
PATH_W11, PATH_W12 = {CITY, WEST, WEST_1, W11}, {CITY, WEST, WEST_1, W12}


@pytest.fixture(params=["sqlite", "postgres"])
def small(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "sqlite":
        yield Small(tmp_path / "federation")
        return
    with postgres_schema() as schema:
        separator = "&" if "?" in postgres_url() else "?"
        monkeypatch.setenv("FEDSYNC_LEDGER", f"{postgres_url()}{separator}options=-csearch_path%3D{schema}")
        made = Small(tmp_path / "federation")
        yield made
        made.federation.close()


def take(small: Small, place: Path) -> Backup:
    with closing(open_backups(small.folder, "tester", clock=small.clock)) as backups:
        return backups.take(Storage(str(place)))


def restore(small: Small, place: Path, **options: bool) -> None:
    with closing(open_backups(small.folder, "tester", clock=small.clock)) as backups:
        backups.restore(Storage(str(place)), **options)


def visit(small: Small, region: str, key: str, **values: Any) -> None:
    small.put(region, key, dataset="visit", **{"community_code": region, "summary": "独居", **values})


def begin(small: Small) -> None:
    for number in range(1, 13):
        small.resident(f"R{number}", E11 if number < 9 else E21)
    for number in range(1, 5):
        visit(small, E11, f"V{number}")
    settle(small)


def settle(small: Small) -> None:
    small.cascade()
    small.cascade("visit")


def work_after_the_backup(small: Small) -> None:
    """People edit, create, delete and move on all levels; all of it is synced."""
    small.put(CITY, "R1", name="城一")
    small.put(E11, "R1", phone="13911111111")
    small.put(E11, "R2", phone="13911111112")
    small.put(CITY, "R9", name="城九")
    small.drop(CITY, "R3")
    small.put(CITY, "R4", community_code=W11)
    small.resident("N1", W12, name="新一")
    small.put(EAST_1, "V1", dataset="visit", reply="已阅")
    small.drop(E11, "V2", dataset="visit")
    visit(small, W11, "V9", summary="新访")
    settle(small)


def work_after_the_restore(small: Small) -> None:
    """More of the same, partly on what was changed before."""
    small.put(CITY, "R1", name="城二")
    small.put(E11, "R2", phone="13922222222")
    small.put(E21, "R9", care_level="重点")
    small.drop(CITY, "R5")
    small.put(W12, "N1", phone="13933333333")
    small.put(W11, "R4", phone="13944444444")
    small.resident("N2", E12, name="新二")
    small.put(E11, "V1", dataset="visit", summary="再访")
    small.put(W11, "V9", dataset="visit", summary="又访")
    small.drop(E11, "V3", dataset="visit")


def assert_newest_everywhere(small: Small) -> None:
    told = {
        "R1": (PATH_E11, {"name": "城二", "phone": "13911111111"}),
        "R2": (PATH_E11, {"phone": "13922222222"}),
        "R4": (PATH_W11, {"phone": "13944444444"}),
        "R9": (PATH_E21, {"name": "城九", "care_level": "重点"}),
        "N1": (PATH_W12, {"name": "新一", "phone": "13933333333"}),
        "N2": ({CITY, EAST, EAST_1, E12}, {"name": "新二"}),
        "R3": (set(), {}),
        "R5": (set(), {}),
    }
    visits = {
        "V1": (PATH_E11, {"summary": "再访"}),
        "V9": (PATH_W11, {"summary": "又访"}),
        "V2": (set(), {}),
        "V3": (set(), {}),
    }
    for dataset, expected in (("resident", told), ("visit", visits)):
        for key, (path, values) in expected.items():
            assert small.holders(key, dataset) == path, key
            for region in path:
                row = small.get(region, key, dataset) or {}
                assert {name: row.get(name) for name in values} == values, (key, region)
    assert {(small.get(region, "V1", "visit") or {}).get("reply") for region in PATH_E11} == {"已阅"}
    assert len(small.store(CITY).rows) == 12, "nothing is doubled"


@pytest.mark.parametrize("ended_in", ["rest", "the middle"])
def test_an_older_backup_put_back_converges_to_the_authorities_newest_values(
    small: Small, tmp_path: Path, ended_in: str
) -> None:
    begin(small)
    take(small, tmp_path / "backup")
    work_after_the_backup(small)
    if ended_in == "the middle":  # a deletion and a move have come half-way
        small.drop(CITY, "R6")
        small.put(CITY, "R7", community_code=W11)
        small.put(E11, "R7", phone="13977777777")
        small.federation.sync_parent("resident", CITY)
    restore(small, tmp_path / "backup")
    work_after_the_restore(small)
    if ended_in == "the middle":
        small.federation.sync_parent("resident", EAST)  # the lower hop first
    settle(small)
    if ended_in == "the middle":
        assert small.holders("R6") == set(), "a deletion that had come half-way goes on"
        assert small.holders("R7") == PATH_W11
        assert {(small.get(region, "R7") or {})["phone"] for region in PATH_W11} == {"13977777777"}
        small.resident("R6")  # for the count of what follows
        settle(small)
    else:
        small.drop(CITY, "R6")
        settle(small)
        assert small.holders("R6") == set()
        small.resident("R6")
        settle(small)
    assert_newest_everywhere(small)
    assert small.cascade(force_full=True).moved == small.cascade("visit", force_full=True).moved == 0


def test_what_both_ends_already_hold_is_no_mass_change_and_needs_no_release(small: Small, tmp_path: Path) -> None:
    for number in range(40):
        small.resident(f"R{number}")
    small.cascade()
    take(small, tmp_path / "backup")
    for _ in range(4):  # in portions that no guard minds
        for number in range(40):
            if number % 4 == _:
                small.put(CITY, f"R{number}", name="改名")
        small.cascade()
    restore(small, tmp_path / "backup")
    small.cascade()
    assert {row["name"] for row in small.store(E11).rows.values()} == {"改名"}


def test_a_proposal_that_was_made_while_the_ledger_was_away_reaches_its_authority(small: Small, tmp_path: Path) -> None:
    begin(small)
    take(small, tmp_path / "backup")
    work_after_the_backup(small)
    restore(small, tmp_path / "backup")
    small.put(E11, "R8", name="王玮")
    settle(small)
    (correction,) = [c for c in small.federation.services.corrections.active("resident") if c.key == "R8"]
    assert (correction.target, correction.state) == (CITY, "waiting")
    assert (small.get(E11, "R8") or {})["name"] == "王伟"


def test_the_files_of_a_backup_may_be_long_gone_where_it_is_put_back(small: Small, tmp_path: Path) -> None:
    begin(small)
    take(small, tmp_path / "backup")
    work_after_the_backup(small)
    for path in (small.folder / "state/baselines").rglob("*.parquet"):
        path.unlink()
    restore(small, tmp_path / "backup")
    work_after_the_restore(small)
    settle(small)
    assert small.holders("R3") == set()


def test_a_runner_that_began_before_the_restore_settles_nothing_after_it(small: Small, tmp_path: Path) -> None:
    begin(small)
    take(small, tmp_path / "backup")
    link = small.federation.config.link("resident", EAST)
    lease, _ = small.federation.services.links.acquire(link)
    with pytest.raises(LeaseHeld):
        restore(small, tmp_path / "backup")
    restore(small, tmp_path / "backup", force=True)
    with pytest.raises(LeaseLost), small.federation.services.ledger.transaction() as connection:
        small.federation.services.links.settle(connection, lease, state="ok")
    again, _ = small.federation.services.links.acquire(link)
    assert again.token > lease.token


def test_a_restored_link_compares_everything_once(small: Small, tmp_path: Path) -> None:
    begin(small)
    take(small, tmp_path / "backup")
    restore(small, tmp_path / "backup")
    services, link = small.federation.services, small.federation.config.link("resident", EAST)
    before = services.links.state(link)
    small.cascade()
    after = services.links.state(link)
    assert before.last_full is not None and after.last_full is not None
    assert after.last_full > before.last_full, "both ends were read whole"
    small.put(CITY, "R1", name="城一")
    small.cascade()
    assert services.links.state(link).last_full == after.last_full, "and after that, what changed"


def test_the_trail_of_what_was_done_since_the_backup_is_kept(small: Small, tmp_path: Path) -> None:
    begin(small)
    take(small, tmp_path / "backup")
    services = small.federation.services
    with services.ledger.transaction() as connection:
        services.ledger.audit(connection, "tester", "later", "")
    restore(small, tmp_path / "backup")
    with services.ledger.transaction() as connection:
        actions = {line[0] for line in connection.exec_driver_sql("SELECT action FROM audit")}
    assert {"later", "backup.take", "backup.restore"} <= actions


def test_a_backup_taken_while_syncs_run_is_of_one_moment_and_whole(small: Small, tmp_path: Path) -> None:
    begin(small)
    stop, failed = threading.Event(), []

    def go_on() -> None:
        other = open_federation(small.folder, clock=small.clock)
        try:
            number = 0
            while not stop.is_set():
                number += 1
                small.put(CITY, "R1", name=f"城{number}")
                failed.extend(other.cascade("resident").errors.values())
        finally:
            other.close()

    runner = threading.Thread(target=go_on)
    runner.start()
    try:
        made = [take(small, tmp_path / f"backup{n}") for n in range(3)]
    finally:
        stop.set()
        runner.join()
    assert not failed
    assert all(backup.files for backup in made)
    restore(small, tmp_path / "backup1")
    settle(small)
    names = {(small.get(region, "R1") or {})["name"] for region in PATH_E11}
    assert names == {small.store(CITY).rows["R1"]["name"]}


def test_a_backup_is_refused_where_it_is_not_whole_not_ours_or_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Small(tmp_path / "federation")
    begin(small)
    place = tmp_path / "backup"
    with pytest.raises(Unreadable, match="no whole backup"):
        restore(small, place)
    take(small, place)
    with pytest.raises(FedsyncError, match="already"):
        take(small, place)
    secrets = [path for path in place.rglob("*") if path.name == "secret.key"]
    assert not secrets, "the secret is kept elsewhere"
    monkeypatch.setenv("FEDSYNC_SECRET", "another")
    with pytest.raises(AccessDenied, match="secret"):
        restore(small, place)
    monkeypatch.delenv("FEDSYNC_SECRET")
    one = next(iter((place / "baselines").rglob("*.parquet")))
    one.write_bytes(one.read_bytes()[:-1])
    with pytest.raises(Unreadable, match="damaged"):
        restore(small, place)
    settle(small)
