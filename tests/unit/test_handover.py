"""A region that was hosted gets a system: nothing is taken for deleted, everything moves over, whatever dies in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from connectors.sql import SqlConnector
from federation import failpoints, handover
from federation.errors import LinkHeld, Permanent, Transient
from federation.failpoints import ENVIRONMENT
from tests.federations import CITY, E11, EAST, EAST_1
from tests.hosted_federation import Unequipped, moved
from tests.unit.test_crash import Crash, die_at

LINK = f"resident/{E11}"


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.disarm()


@pytest.fixture
def place(tmp_path: Path) -> Unequipped:
    """Four residents, settled; one was edited by E11's people since, and nobody has synced that yet."""
    made = Unequipped(tmp_path)
    for number in range(1, 5):
        made.resident(f"R{number}", phone=f"1380000000{number}")
    made.cascade()
    made.put(E11, "R2", phone="13911111111", care_level="重点")
    return made


HELD = [
    ("R1", "13800000001", "无"),
    ("R2", "13911111111", "重点"),
    ("R3", "13800000003", "无"),
    ("R4", "13800000004", "无"),
]


def hand_over(place: Unequipped, *words: str) -> dict[str, object]:
    code, told = place.hosted("handover", "resident", E11, *words)
    assert code == 0, told
    (part,) = told["parts"]
    return dict(part)


def assert_moved_over(place: Unequipped) -> None:
    """The system holds everything, the engine nothing, and what people typed last goes up as it would have."""
    assert place.office() == HELD
    assert place.sync().errors == {}
    assert (place.get(CITY, "R2") or {})["phone"] == "13911111111"
    assert place.holders("R1") | place.holders("R2") >= {CITY, EAST, EAST_1}
    assert place.office() == HELD
    assert place.cascade(force_full=True).moved == 0
    assert place.federation.services.corrections.active("resident") == []
    assert place.hosted("handover", "resident", E11) == (0, {"ok": True, "parts": []})


def test_until_everything_was_handed_over_the_link_stops_and_says_how(place: Unequipped) -> None:
    place.equip()
    result = place.sync()
    assert set(result.errors) == {LINK}
    error = result.errors[LINK]
    assert isinstance(error, Permanent) and f"fedsync hosted handover resident {E11}" in error.todo
    assert "托管" in error.zh and "hosted" in error.en
    assert len(place.holders("R1")) == 3, "above, nothing is deleted"
    assert not (place.folder / "office.db").exists(), "and nothing is written below"


def test_even_a_single_record_is_not_taken_for_deleted(tmp_path: Path) -> None:
    place = Unequipped(tmp_path)
    place.put(E11, "V1", "visit", summary="好")
    place.cascade("visit")
    place.declare(moved().replace("resident", "visit"))
    assert "hosted" in str(place.sync("visit").errors[f"visit/{E11}"])
    assert place.get(CITY, "V1", "visit") is not None


def test_everything_moves_over_with_the_last_edits(place: Unequipped) -> None:
    place.equip()
    part = hand_over(place)
    assert (part["rows"], part["written"], part["kept"], part["dropped"]) == (4, 4, 0, 0)
    assert_moved_over(place)
    ((action, subject, detail),) = [line for line in place.trail() if line[0] == "hosted.handover"]
    assert (action, subject) == ("hosted.handover", f"resident/{E11}")
    assert "4 records to office" in detail and str(part["digest"]) in detail


def test_a_sync_before_and_a_sync_after_change_nothing_but_what_people_changed(place: Unequipped) -> None:
    place.equip()
    place.sync()
    hand_over(place)
    assert_moved_over(place)


def test_a_system_that_writes_files_takes_over_as_well(place: Unequipped) -> None:
    top = place.top(place.folder, moved()).replace(
        '{connector: sql, options: {url: "sqlite:///{home}/office.db", create: true}}',
        '{connector: workbook, options: {path: "{home}/office.csv"}}',
    )
    (place.folder / "federation.yaml").write_text(top, encoding="utf-8")
    hand_over(place)
    text = (place.folder / "office.csv").read_text(encoding="utf-8-sig")
    assert "R2,王伟" in text and "13911111111,重点" in text


@pytest.mark.parametrize("where", ["handover.written", "handover.verified"])
def test_a_handover_that_dies_there_is_finished_by_the_next(place: Unequipped, where: str) -> None:
    place.equip()
    die_at(where)
    with pytest.raises(Crash):
        place.hosted("handover", "resident", E11)
    failpoints.disarm()
    assert set(place.sync().errors) == {LINK}, "half a handover is none"
    assert hand_over(place)["written"] == 0, "what was written is not written again"
    assert_moved_over(place)


def test_a_handover_that_breaks_off_between_two_batches_goes_on_from_there(
    place: Unequipped, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.equip()
    monkeypatch.setattr(handover, "ROWS_AT_ONCE", 1)
    apply: Callable[..., object] = SqlConnector.apply
    calls: list[int] = []

    def failing(*arguments: object) -> object:
        calls.append(1)
        if len(calls) > 2:
            raise Permanent("the disk is full", "磁盘已满", todo="free some")
        return apply(*arguments)

    monkeypatch.setattr(SqlConnector, "apply", failing)
    code, told = place.hosted("handover", "resident", E11)
    assert (code, told["errors"][0]["zh"]) == (1, "磁盘已满")
    assert len(place.office()) == 2 and set(place.sync().errors) == {LINK}
    monkeypatch.undo()
    assert hand_over(place)["written"] == 2
    assert_moved_over(place)


def test_a_process_killed_in_the_middle_is_followed_by_one_that_finishes(place: Unequipped) -> None:
    place.equip()
    command = [sys.executable, "-c", "from federation.cli import main; main()", "hosted", "handover", "resident", E11]
    for name, ends in (("handover.written", -signal.SIGKILL), ("handover.verified", -signal.SIGKILL), ("", 0)):
        environment = {**os.environ, ENVIRONMENT: name}
        done = subprocess.run(
            [*command, "-f", str(place.folder)], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == ends, done.stderr
    assert_moved_over(place)


# --- what the system has already


def prepared(place: Unequipped, *rows: str) -> None:
    """The system with rows that its people entered before the handover."""
    place.equip()
    with place.federation.node("resident", E11) as connector:
        connector.prepare()
    for row in rows:
        place.office(f"INSERT INTO resident (resident_id, name, community_code, phone, care_level) VALUES ({row})")


def test_what_the_system_holds_like_this_already_is_left_alone_and_what_it_lacks_is_filled_in(
    place: Unequipped,
) -> None:
    prepared(
        place,
        f"'R1', '王伟', '{E11}', '13800000001', '无'",
        f"'R2', '王伟', '{E11}', NULL, NULL",
    )
    part = hand_over(place)
    assert (part["rows"], part["written"]) == (4, 3)
    assert_moved_over(place)


def test_another_value_in_the_system_stops_the_handover_until_somebody_chose(place: Unequipped) -> None:
    prepared(place, f"'R2', '王伟', '{E11}', '13777777777', NULL")
    code, told = place.hosted("handover", "resident", E11)
    assert (code, told["errors"][0]["key"]) == (1, "R2")
    assert "--existing" in told["errors"][0]["todo"]
    assert len(place.office()) == 1, "nothing was written"
    assert hand_over(place, "--existing", "keep")["kept"] == 1
    assert {row[0]: row[1:] for row in place.office()}["R2"] == ("13777777777", "重点")
    assert place.sync().errors == {}
    assert (place.get(CITY, "R2") or {})["phone"] == "13777777777"


def test_the_hosted_value_may_be_put_in_place_of_the_systems(place: Unequipped) -> None:
    prepared(place, f"'R2', '王伟', '{E11}', '13777777777', NULL")
    assert hand_over(place, "--existing", "overwrite")["kept"] == 0
    assert_moved_over(place)


def test_a_record_that_cannot_be_read_in_the_system_stops_the_handover(place: Unequipped) -> None:
    prepared(place, f"'R2', '王伟', '{E11}', '13911111111', '也许'")
    code, told = place.hosted("handover", "resident", E11)
    assert (code, told["errors"][0]["key"]) == (1, "R2")
    assert "cannot be read there" in told["errors"][0]["en"]


def test_records_of_the_system_that_were_never_hosted_stay_and_are_synced(place: Unequipped) -> None:
    prepared(place, f"'R9', '新人', '{E11}', NULL, NULL")
    hand_over(place)
    assert [row[0] for row in place.office()] == ["R1", "R2", "R3", "R4", "R9"]


def test_a_system_that_changes_what_it_is_given_is_found_out_and_nothing_is_taken_away(place: Unequipped) -> None:
    prepared(place)
    place.office(
        "CREATE TRIGGER spoil AFTER INSERT ON resident BEGIN UPDATE resident SET phone = '0' WHERE resident_id = 'R3'; END"
    )
    code, told = place.hosted("handover", "resident", E11)
    assert code == 1 and "does not hold what was handed to it" in told["errors"][0]["en"]
    assert set(place.sync().errors) == {LINK}
    place.office("DROP TRIGGER spoil")
    place.office("UPDATE resident SET phone = '13800000003' WHERE resident_id = 'R3'")
    hand_over(place)
    assert_moved_over(place)


def test_an_edit_while_it_is_handed_over_is_not_lost(place: Unequipped) -> None:
    place.equip()

    def edit() -> None:
        place.declare(place_before)
        place.put(E11, "R3", phone="13933333333")
        place.equip()

    place_before = f'  - {{system: hosted, regions: ["{E11}"], datasets: {{resident: {{}}}}}}\n'
    failpoints.arm("handover.verified", edit)
    code, told = place.hosted("handover", "resident", E11)
    failpoints.disarm()
    assert (code, told["errors"][0]["kind"]) == (1, "Conflict")
    code, told = place.hosted("handover", "resident", E11)
    assert code == 1 and "other values" in told["errors"][0]["en"]
    hand_over(place, "--existing", "overwrite")
    assert place.sync().errors == {}
    assert (place.get(CITY, "R3") or {})["phone"] == "13933333333"


def test_a_record_that_its_people_moved_elsewhere_is_handed_over_as_it_stands(place: Unequipped) -> None:
    other = "110101001002"
    place.put(E11, "R4", community_code=other)
    place.equip()
    hand_over(place)
    chosen = "SELECT community_code FROM resident WHERE resident_id = 'R4'"
    assert place.office(chosen) == [(other,)]


def test_leftovers_can_be_looked_at_and_removed_instead(place: Unequipped) -> None:
    place.equip()
    assert set(place.listed()) == {"R1", "R2", "R3", "R4"}
    code, told = place.hosted("put", "resident", E11, "resident_id=R1", "phone=1")
    assert code == 1 and "office" in told["errors"][0]["todo"]
    for number in range(1, 5):
        assert place.hosted("remove", "resident", E11, f"R{number}")[0] == 0
    assert place.hosted("handover", "resident", E11) == (0, {"ok": True, "parts": []})
    assert isinstance(place.sync().errors[LINK], LinkHeld), "what is gone now is a deletion, for a person to look at"


def test_a_read_only_system_takes_nothing_over(place: Unequipped) -> None:
    top = place.top(place.folder, moved()).replace(
        '{connector: sql, options: {url: "sqlite:///{home}/office.db", create: true}}',
        '{connector: parquet, options: {path: "{home}/drops", read_only: true}}',
    )
    (place.folder / "federation.yaml").write_text(top, encoding="utf-8")
    (place.folder / "drops").mkdir()
    code, told = place.hosted("handover", "resident", E11)
    assert code == 1 and "read-only" in told["errors"][0]["en"]


# --- fields


@pytest.fixture
def lacking(tmp_path: Path) -> Unequipped:
    """E11's system has no columns for phone and care_level; R1's were typed by command and are not synced yet."""
    place = Unequipped(tmp_path, moved("hosted: [phone, care_level]"))
    for number in range(1, 4):
        place.resident(f"R{number}", phone=f"1380000000{number}")
    place.cascade()
    place.put(E11, "R1", phone="13944444444")
    place.office("ALTER TABLE resident ADD COLUMN phone TEXT")
    return place


def test_a_column_that_a_system_gains_is_filled_with_what_was_hosted(lacking: Unequipped) -> None:
    lacking.equip("hosted: [care_level]")
    assert f"fedsync hosted handover resident {E11}" in str(lacking.sync().errors[LINK])
    part = hand_over(lacking)
    assert (part["rows"], part["written"], part["dropped"]) == (3, 3, 0)
    assert lacking.office("SELECT phone FROM resident ORDER BY resident_id") == [
        ("13944444444",),
        ("13800000002",),
        ("13800000003",),
    ]
    assert lacking.sync().errors == {}
    assert (lacking.get(CITY, "R1") or {})["phone"] == "13944444444"
    assert lacking.cascade(force_full=True).moved == 0
    assert lacking.listed()["R1"] == {"resident_id": "R1", "care_level": "无"}, "what is still hosted stays"


def test_values_of_a_record_that_the_system_lost_are_counted_and_dropped(lacking: Unequipped) -> None:
    lacking.office("DELETE FROM resident WHERE resident_id = 'R3'")
    lacking.equip("hosted: [care_level]")
    part = hand_over(lacking)
    assert (part["rows"], part["dropped"]) == (2, 1)


def test_a_companion_that_is_not_needed_any_more_is_no_reason_to_stop(lacking: Unequipped) -> None:
    lacking.office("ALTER TABLE resident ADD COLUMN care_level TEXT")
    lacking.equip()
    assert set(lacking.sync().errors) == {LINK}
    hand_over(lacking)
    assert lacking.sync().errors == {}
    assert lacking.office("SELECT care_level FROM resident") == [("无",)] * 3


def test_without_hosted_records_nothing_is_in_the_way_and_the_system_is_made_ready(tmp_path: Path) -> None:
    place = Unequipped(tmp_path)
    place.cascade()
    place.equip()
    assert place.hosted("handover", "resident", E11) == (0, {"ok": True, "parts": []})
    assert place.office() == []
    place.resident("R1")
    place.cascade()
    assert [row[0] for row in place.office()] == ["R1"]


def test_a_system_that_does_not_answer_is_told_and_nothing_is_lost(
    place: Unequipped, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.equip()

    def silent(*_: object) -> None:
        raise Transient("no answer", "无响应", retry_after=10_000.0)

    monkeypatch.setattr(SqlConnector, "prepare", silent)
    assert place.hosted("handover", "resident", E11)[1]["errors"][0]["zh"] == "无响应"
    monkeypatch.undo()
    hand_over(place)
    assert_moved_over(place)
