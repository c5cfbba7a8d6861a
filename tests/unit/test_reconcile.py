"""Reconciliation: what cursors and change tables missed is found and merged; what differs for a reason is told with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from connectors.memory import MemoryConnector
from federation.cli import app
from federation.errors import AccessDenied, LinkHeld
from federation.pausing import pause_of
from federation.reconcile import Comparison, Reconciler, children, parents
from tests.federations import CITY, E11, E12, EAST, EAST_1, EAST_2, MIXED, RESIDENT, TOP, W11, WEST, Small


def databases(folder: Path, capture: str = "mixed") -> dict[str, str]:
    """The declaration with stores that refuse a write by row, as databases do, instead of whole, as workbooks do."""
    captures = MIXED if capture == "mixed" else dict.fromkeys(MIXED, capture)
    top = TOP.replace("capture:", "conditional: false, capture:").format(prefix=folder, **captures)
    nodes = [f"  - {{system: {level}, level: {level}, datasets: {{resident: {{}}, visit: {{}}}}}}\n" for level in MIXED]
    return {"federation.yaml": top + "".join(nodes)}


@pytest.fixture(params=["log", "cursor", "snapshot", "mixed", "log in databases", "cursor in databases"])
def small(tmp_path: Path, request: pytest.FixtureRequest) -> Small:
    capture, _, kind = request.param.partition(" in ")
    return Small(tmp_path, capture, changes=databases(tmp_path, capture) if kind else None)


@pytest.fixture(params=["workbooks", "databases"])
def mixed(tmp_path: Path, request: pytest.FixtureRequest) -> Small:
    return Small(tmp_path, changes=databases(tmp_path) if request.param == "databases" else None)


def people(small: Small, count: int = 8) -> None:
    for number in range(count):
        small.resident(f"R{number}", E11 if number % 2 else W11)
    small.cascade()


def behind_its_back(small: Small, region: str, key: str, **values: Any) -> None:
    """A change that neither the clock nor the change table of the node's system tells of."""
    rows = small.store(region).rows
    rows[key] = {**rows.get(key, {}), **values}


def lost(small: Small, region: str, key: str) -> None:
    del small.store(region).rows[key]


def reconciled(small: Small, **options: Any) -> dict[str, Comparison]:
    reconciler = Reconciler(small.federation, actor="test", **options)
    found = [one for upper in parents(small.federation, "resident") for one in reconciler.parent("resident", upper)]
    assert len({one.link for one in found}) == len(found)
    return {one.link.partition("/")[2]: one for one in found}


def counts(one: Comparison) -> tuple[int, ...]:
    return (*one.found.values(), one.repaired, one.unexplained)


def test_ends_that_agree_are_compared_by_digests_and_nothing_runs(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    people(small)
    runs = small.federation.services.links.all()
    monkeypatch.setattr(MemoryConnector, "fetch", lambda *_: pytest.fail("a record was read"))
    found = reconciled(small)
    assert {one.differed for one in found.values()} == {0}
    assert found[EAST].rows == 4
    assert {one.skipped for one in found.values()} == {None}
    assert small.federation.services.links.all() == runs


def test_a_record_that_got_lost_below_is_found_and_delivered_again(small: Small) -> None:
    people(small)
    lost(small, E11, "R1")
    found = reconciled(small)
    assert counts(found[E11]) == (1, 0, 0, 1, 0)
    assert small.get(E11, "R1") is not None
    assert sum(one.differed for one in found.values()) == 1


def test_a_late_commit_that_no_cursor_told_of_is_found_and_travels_on(small: Small) -> None:
    people(small)
    behind_its_back(small, CITY, "R1", name="王小伟")
    found = reconciled(small)
    assert counts(found[EAST]) == (0, 0, 1, 1, 0)
    small.cascade()
    assert {small.get(region, "R1")["name"] for region in (EAST, EAST_1, E11)} == {"王小伟"}  # type: ignore[index]
    assert not any(one.differed for one in reconciled(small).values())


def test_an_edit_below_of_what_is_decided_there_goes_up(small: Small) -> None:
    people(small)
    behind_its_back(small, E11, "R3", phone="13900000000")
    assert counts(reconciled(small)[E11]) == (0, 0, 1, 1, 0)
    assert small.get(EAST_1, "R3")["phone"] == "13900000000"  # type: ignore[index]


def test_an_edit_below_of_what_is_decided_above_becomes_a_correction_as_in_any_run(small: Small) -> None:
    people(small)
    behind_its_back(small, EAST, "R1", name="改名")
    assert counts(reconciled(small)[EAST]) == (0, 0, 1, 1, 0)
    assert small.get(EAST, "R1")["name"] == "王伟"  # type: ignore[index]
    (correction,) = small.federation.services.corrections.about("resident", "R1")
    assert (correction.raised_by, correction.kind) == (EAST, "edit")


def test_a_backup_that_was_restored_below_brings_back_what_was_deleted_and_loses_what_was_new(mixed: Small) -> None:
    people(mixed)
    backup = {key: dict(row) for key, row in mixed.store(EAST).rows.items()}
    mixed.drop(CITY, "R1")
    mixed.resident("R9", E11)
    mixed.cascade()
    store = mixed.store(EAST)
    store.rows.clear()
    store.rows.update(backup)
    found = reconciled(mixed)
    assert counts(found[EAST]) == (1, 1, 0, 1, 0)
    assert found[EAST].explained == {"correction": 1}, "only the city creates residents: what came back is asked there"
    assert mixed.get(EAST, "R9") is not None
    assert mixed.get(CITY, "R1") is None


def test_a_dry_run_tells_what_differs_and_changes_nothing(small: Small) -> None:
    people(small)
    lost(small, E11, "R1")
    behind_its_back(small, E11, "R3", phone="13900000000")
    states = small.federation.services.links.all()
    found = reconciled(small, repair=False, tell_keys=True)
    assert counts(found[E11]) == (1, 0, 1, 0, 2)
    assert [(one.key, one.kind, one.why) for one in found[E11].left] == [
        ("R1", "missing_below", None),
        ("R3", "differing", None),
    ]
    assert found[E11].error is None
    assert small.get(E11, "R1") is None
    assert small.federation.services.links.all() == states


def test_news_that_no_run_has_read_yet_stays_news(mixed: Small) -> None:
    people(mixed)
    lost(mixed, EAST_1, "R1")
    mixed.resident("R8", W11, name="新来")
    before = mixed.federation.services.links.all()[f"resident/{EAST_1}"]
    assert reconciled(mixed)[EAST_1].repaired == 1
    after = mixed.federation.services.links.all()[f"resident/{EAST_1}"]
    assert (after.upper_cursor, after.state) == (before.upper_cursor, "ok")
    mixed.cascade()
    assert mixed.get(W11, "R8") is not None


def test_what_a_gate_stops_is_explained_and_no_damage(small: Small) -> None:
    people(small)
    small.put(
        E11, "R1", phone="12", **{n: v for n, v in small.get(E11, "R1").items() if n not in ("resident_id", "phone")}
    )  # type: ignore[union-attr]
    small.cascade()
    one = reconciled(small)[E11]
    assert (one.found["differing"], one.explained, one.unexplained, one.error) == (1, {"quarantined": 1}, 0, None)


def test_a_proposal_that_stands_until_it_is_ruled_on_is_explained(tmp_path: Path) -> None:
    small = Small(tmp_path, changes={"datasets/resident.yaml": RESIDENT + "on_correction: hold\n"})
    people(small)
    row = {name: value for name, value in small.get(EAST, "R1").items() if name != "resident_id"}  # type: ignore[union-attr]
    small.put(EAST, "R1", **{**row, "name": "改名"})
    small.cascade()
    found = reconciled(small)
    assert found[EAST].explained == {"correction": 1}
    assert found[EAST_1].explained == {"waiting": 1}
    assert not [one.error for one in found.values() if one.error]


def test_a_record_that_its_people_may_not_create_and_that_was_turned_down_is_explained(mixed: Small) -> None:
    people(mixed)
    mixed.put(E12, "R1", name="重名", community_code=E12, phone="13800000001", care_level="无")
    mixed.cascade()
    found = reconciled(mixed)
    assert found[E12].explained == {"correction": 1}, "the city alone creates residents"
    assert not [one.error for one in found.values() if one.error]


def test_fields_that_one_level_alone_sees_are_not_compared(mixed: Small) -> None:
    people(mixed)
    behind_its_back(mixed, EAST, "R1", id_number="999")
    found = reconciled(mixed, repair=False)
    assert found[EAST].found["differing"] == 1
    assert {one.differed for code, one in found.items() if code != EAST} == {0}


def test_an_end_that_lost_nearly_all_holds_its_link_and_nothing_is_deleted(mixed: Small) -> None:
    people(mixed, 24)
    mixed.store(E11).rows.clear()
    one = reconciled(mixed)[E11]
    assert isinstance(one.error, LinkHeld)
    assert (one.found["missing_below"], one.repaired, one.unexplained) == (12, 0, 12)
    assert mixed.get(EAST_1, "R1") is not None


def test_a_child_that_does_not_answer_stops_no_other(mixed: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    people(mixed)
    lost(mixed, EAST, "R1")
    original = MemoryConnector.changes

    def changes(self: MemoryConnector, since: str | None, **options: Any) -> Any:
        if self.node.region.code == WEST:
            raise AccessDenied("the password has expired", "密码已过期")
        return original(self, since, **options)

    monkeypatch.setattr(MemoryConnector, "changes", changes)
    found = reconciled(mixed)
    assert isinstance(found[WEST].error, AccessDenied)
    assert found[EAST].repaired == 1


def test_a_link_that_was_never_synced_is_skipped_and_says_so(mixed: Small) -> None:
    found = reconciled(mixed)
    assert all(one.skipped and not one.error for one in found.values())


def test_a_link_that_is_paused_is_left_alone_and_says_so(mixed: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    people(mixed)
    lost(mixed, E11, "R1")
    pause_of(mixed.federation.services, "region", EAST_1, "系统升级", None, "李工")
    one = reconciled(mixed)[E11]
    assert (one.error, one.differed) == (None, 0)
    assert "系统升级" in (one.skipped or "")
    assert mixed.get(E11, "R1") is None


def test_what_is_left_without_a_reason_is_an_error_that_names_the_link_and_no_key(
    mixed: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    people(mixed)
    lost(mixed, E11, "R1")
    monkeypatch.setattr("federation.reconcile.KeyedRun.run", lambda self: None)
    one = reconciled(mixed)[E11]
    assert one.unexplained == 1
    assert f"link=resident/{E11}" in str(one.error)
    assert "R1" not in str(one.error)


def test_a_region_is_compared_with_its_parent_and_inside(mixed: Small) -> None:
    federation = mixed.federation
    assert parents(federation, "resident", EAST_1) == [EAST, EAST_1]
    assert children(federation, "resident", EAST, EAST_1) == [EAST_1]
    assert children(federation, "resident", EAST_1, EAST_1) is None
    assert parents(federation, "resident", CITY)[0] == CITY
    assert EAST_2 in parents(federation, "resident", EAST)


def test_the_schedule_of_the_comparison_is_no_part_of_a_links_identity(tmp_path: Path) -> None:
    from federation.link import Ends, LinkRun

    identities = []
    for cron in ("1 1 * * *", "2 2 * * *"):
        small = Small(tmp_path, changes={"datasets/resident.yaml": f'{RESIDENT}reconcile: "{cron}"\n'})
        link = small.federation.config.link("resident", EAST)
        identities.append(LinkRun(small.federation.services, link, Ends(None, None)).identity)  # type: ignore[arg-type]
    assert identities[0] == identities[1]


def test_the_command_repairs_counts_and_names_keys_only_if_asked(mixed: Small) -> None:
    people(mixed)
    lost(mixed, E11, "R1")
    run = CliRunner()
    dry = ["reconcile", "resident", "-f", str(mixed.folder), "--dry-run"]
    plain = run.invoke(app, dry)
    assert plain.exit_code == 0
    assert "R1" not in plain.output
    assert "R1 missing_below" in run.invoke(app, [*dry, "--keys"]).output
    told = json.loads(run.invoke(app, ["reconcile", "-f", str(mixed.folder), "--region", E11, "--json"]).output)
    (line,) = [one for one in told["links"] if one["link"] == f"resident/{E11}"]
    assert (told["ok"], line["found"]["missing_below"], line["repaired"]) == (True, 1, 1)
    assert "王伟" not in str(told)
    assert mixed.get(E11, "R1") is not None
