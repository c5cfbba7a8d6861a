"""The trace of a record: where it is, in which version, where it stopped and why, by the ledger and by the nodes themselves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from federation import failpoints
from federation.errors import DeclarationError, FedsyncError
from federation.ledger.links import LONGEST
from federation.ledger.schema import run as run_table
from federation.ledger.store import rows
from federation.runtime import open_federation
from federation.trace import Hop, NodeNow, Trace
from federation.tracing import key_of, trace
from tests.federations import CITY, E11, E12, EAST, EAST_1, VISIT, W11, WEST, WEST_1, Small

PATH = (CITY, EAST, EAST_1, E11)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    yield Small(tmp_path)
    failpoints.disarm()


def traced(
    small: Small, key: str = "R1", dataset: str = "resident", *, live: bool = False, every: bool = False
) -> Trace:
    return trace(small.federation, dataset, [key], live=live, every=every)


def hop(found: Trace, lower: str) -> Hop:
    return next(hop for hop in found.hops if hop.lower == lower)


def now(found: Trace) -> dict[str, str]:
    """Region → what its node said."""
    return {node.region: node.state for node in found.nodes}


def node(found: Trace, region: str) -> NodeNow:
    return next(node for node in found.nodes if node.region == region)


def kinds(found: Trace, lower: str) -> list[str]:
    return [obstacle.kind for obstacle in hop(found, lower).obstacles]


def stop(found: Trace) -> tuple[str, str] | None:
    return (found.stop.what, found.stop.link.rsplit("/", 1)[-1]) if found.stop else None


def die() -> None:
    raise KeyboardInterrupt


class TestDelivered:
    def test_a_record_that_arrived_everywhere_has_one_version_on_every_hop(self, small: Small) -> None:
        small.resident("R1")
        small.cascade()
        found = traced(small)
        assert (found.path, found.reached, found.levels, found.stop) == (PATH, 4, 4, None)
        assert [(h.lower, h.agreed, h.on_path, h.state) for h in found.hops] == [
            (code, True, True, "ok") for code in PATH[1:]
        ]
        assert len({h.version for h in found.hops}) == 1
        assert found.summary.zh == "到达 4/4 级，各级版本一致"
        assert found.summary.en == "reached 4 of 4 levels, the same version on each"
        assert found.nodes == (), "without being told to, no system is asked"

    def test_a_group_that_only_the_upper_hop_carries_is_named_there_alone(self, small: Small) -> None:
        small.resident("R1")
        small.cascade()
        small.put(CITY, "R1", id_number="110101199001010023")
        small.federation.sync_parent("resident", CITY)
        found = traced(small)
        assert [[group.group for group in h.groups] for h in found.hops] == [
            ["city", "city_city_district", "community"],
            ["city", "community"],
            ["city", "community"],
        ]
        assert (len({h.version for h in found.hops}), found.stop) == (1, None), "nothing is behind: it goes no further"

    def test_a_hop_tells_since_when_by_which_run_and_with_which_receipt_it_agrees(self, small: Small) -> None:
        small.resident("R1")
        small.cascade()
        began = small.clock.now
        small.put(CITY, "R1", name="王芳")
        small.cascade()
        last = hop(traced(small), E11)
        assert last.since is not None
        assert began < last.since < small.clock.now
        with small.federation.services.ledger.transaction() as connection:
            statement = select(run_table.c.finished).where(run_table.c.run_id == last.run)
            (ran,) = rows(connection, statement)
        assert abs(ran["finished"] - last.since) < timedelta(milliseconds=1)
        assert [(r.run_id, r.region, r.written, r.deleted) for r in last.receipts] == [(last.run, E11, 1, 0)]

    def test_an_edit_gives_its_own_group_another_version_and_no_other(self, small: Small) -> None:
        small.resident("R1")
        small.cascade()
        before = hop(traced(small), E11)
        small.put(E11, "R1", phone="13911111111")
        small.cascade()
        after = hop(traced(small), E11)
        changed = {a.group for a, b in zip(after.groups, before.groups) if a.version != b.version}
        assert changed == {"community"}
        assert after.version != before.version


class TestStopped:
    def test_a_record_that_the_gate_stopped_on_its_first_way_down(self, small: Small) -> None:
        small.resident("R1", phone="138")
        small.cascade()
        found = traced(small)
        assert (stop(found), found.reached, found.levels) == (("record", EAST), 1, 4)
        (obstacle,) = hop(found, EAST).obstacles
        (item,) = small.federation.services.quarantine.open_items()
        assert (obstacle.kind, obstacle.id, obstacle.region, obstacle.since) == (
            "quarantined",
            item.item_id,
            CITY,
            item.first_seen,
        )
        assert item.rule in obstacle.told.zh
        assert "138" not in str(found.summary)

    def test_a_change_that_the_gate_stopped_on_its_way_up(self, small: Small) -> None:
        small.resident("R1")
        small.cascade()
        small.put(E11, "R1", phone="138")
        small.cascade()
        found = traced(small)
        assert (stop(found), found.reached) == (("change", E11), 4)
        assert kinds(found, E11) == ["quarantined"]

    def test_a_row_that_cannot_be_read_in_the_middle(self, small: Small) -> None:
        small.put(E11, "V1", "visit", community_code=E11, visited_on="2026-01-05", summary="好")
        small.federation.sync_parent("visit", EAST_1)
        small.put(EAST_1, "V1", "visit", visited_on="昨天")
        small.cascade("visit")
        found = traced(small, "V1", "visit")
        assert stop(found) == ("record", EAST_1)
        assert "visited_on" in found.summary.en
        assert now(traced(small, "V1", "visit", live=True))[EAST_1] == "unreadable"

    def test_what_is_in_doubt_in_the_middle_waits(self, small: Small) -> None:
        small.resident("R1")
        small.cascade()
        small.put(EAST_1, "R1", name="错误")
        small.federation.sync_children("resident", EAST_1, [E11], None)
        found = traced(small)
        assert (stop(found), kinds(found, E11)) == (("change", E11), ["waiting"])
        assert "东华门街道" in hop(found, E11).obstacles[0].told.zh
        small.cascade()
        assert traced(small).stop is None

    def test_a_contested_key_is_told_at_the_challengers_link_with_its_whole_branch(self, small: Small) -> None:
        for community in (E11, W11):
            small.put(community, "V1", "visit", community_code=community, summary=f"来自{community}")
        small.cascade("visit")
        found = traced(small, "V1", "visit")
        (contest,) = small.federation.services.contests.standing("visit")
        assert (found.path, found.reached, found.stop) == (PATH, 4, None)
        (obstacle,) = hop(found, WEST).obstacles
        assert (obstacle.kind, obstacle.id, obstacle.region) == ("contested", contest.contest_id, CITY)
        branch = {h.lower: (h.agreed, h.on_path) for h in found.hops if h.lower in (WEST, WEST_1, W11)}
        assert branch == {WEST: (False, False), WEST_1: (True, False), W11: (True, False)}
        assert hop(found, W11).version != hop(found, E11).version
        assert "西城区 另有争议" in found.summary.zh
        small.federation.services.contests.rule(contest, WEST, "tester", "先登记")
        small.cascade("visit")
        ended = traced(small, "V1", "visit")
        assert (ended.path, ended.reached, ended.obstacles) == ((CITY, WEST, WEST_1, W11), 4, ())

    def test_a_newer_version_that_a_held_link_does_not_let_pass(self, small: Small) -> None:
        for number in range(6):
            small.resident(f"R{number}")
        small.cascade()
        for number in range(6):
            small.drop(E11, f"R{number}")
        small.put(CITY, "R1", name="王芳")
        small.federation.cascade("resident")
        found = traced(small)
        assert found.stop is not None
        assert (stop(found), found.stop.groups) == (("version", E11), ("city",))
        assert [h.behind for h in found.hops] == [(), (), ("city",)]
        assert (hop(found, E11).state, kinds(found, E11)) == ("held", ["held"])
        assert f"fedsync link release resident/{E11}" in found.summary.zh
        assert "lost 6 of 6" in found.summary.en

    def test_a_failed_link_is_told_with_its_reason(self, small: Small) -> None:
        small.resident("R1")
        small.cascade()
        small.put(CITY, "R1", name="王芳")
        small.federation.sync_parent("resident", CITY)
        error = FedsyncError("the platform is down", "平台停机", todo="稍后")
        small.federation.services.links.mark_failed(f"resident/{EAST_1}", error)
        found = traced(small)
        assert (stop(found), kinds(found, EAST_1)) == (("version", EAST_1), ["failed"])
        assert found.summary.zh.endswith("因为链路失败：平台停机")
        assert "because the link failed: the platform is down" in found.summary.en

    def test_a_version_that_nothing_stops_waits_for_the_next_run(self, small: Small) -> None:
        small.resident("R1")
        small.cascade()
        small.put(CITY, "R1", name="王芳")
        small.federation.sync_parent("resident", CITY)
        found = traced(small)
        assert (stop(found), found.summary.zh.endswith("因为等待链路下次运行")) == (("version", EAST_1), True)

    def test_an_edit_below_that_has_come_half_way_up_is_newer_than_the_hops_above(self, small: Small) -> None:
        small.resident("R1")
        small.cascade()
        small.put(E11, "R1", phone="13911111111")
        small.federation.sync_parent("resident", EAST_1)
        found = traced(small)
        assert found.stop is not None
        assert (stop(found), found.stop.groups) == (("version", EAST_1), ("community",))
        assert [h.behind for h in found.hops] == [(), ("community",), ()]

    def test_a_record_from_below_that_has_come_half_way_is_found_though_no_link_of_the_top_knows_it(
        self, small: Small
    ) -> None:
        small.cascade("visit")
        small.put(E11, "V1", "visit", community_code=E11, summary="好")
        small.clock.now += timedelta(hours=1)
        small.federation.sync_parent("visit", EAST_1)
        found = traced(small, "V1", "visit")
        assert (found.path, found.reached, stop(found)) == (PATH, 2, ("record", EAST_1))

    def test_a_link_that_never_ran(self, small: Small) -> None:
        small.put(E11, "V1", "visit", community_code=E11, summary="好")
        small.federation.sync_parent("visit", EAST_1)
        found = traced(small, "V1", "visit")
        assert (stop(found), kinds(found, EAST_1), kinds(found, EAST)) == (("record", EAST_1), ["new"], ["new"])
        assert hop(found, EAST_1).lag is None

    def test_where_the_ledger_cannot_tell_the_next_hop_it_says_so_and_the_nodes_can(self, small: Small) -> None:
        small.cascade()
        small.resident("R1")
        small.federation.sync_parent("resident", CITY)
        error = FedsyncError("the platform is down", "平台停机")
        small.federation.services.links.mark_failed(f"resident/{EAST_1}", error)
        found = traced(small)
        assert (found.path, found.reached, found.levels, found.stop) == ((CITY, EAST), 2, 4, None)
        assert "止于 东城区" in found.summary.zh
        assert "链路未正常运行：东华门街道" in found.summary.zh
        told = traced(small, live=True)
        assert (told.path, told.source, stop(told)) == (PATH, "live", ("record", EAST_1))
        assert "平台停机" in told.summary.zh

    def test_a_run_that_died_before_it_settled(self, small: Small) -> None:
        small.resident("R1")
        small.cascade()
        small.put(CITY, "R1", name="王芳")
        failpoints.arm("settle.before", die)
        with pytest.raises(KeyboardInterrupt):
            small.cascade()
        failpoints.disarm()
        found = traced(small, live=True)
        assert (stop(found), kinds(found, EAST)) == (("change", EAST), ["unfinished"])
        assert "中断" in found.summary.zh
        assert now(found) == {CITY: "unsettled", EAST: "unsettled", EAST_1: "same", E11: "same"}
        small.cascade()
        assert (traced(small).stop, set(now(traced(small, live=True)).values())) == (None, {"same"})

    def test_the_first_delivery_of_a_record_by_a_run_that_died(self, small: Small) -> None:
        small.cascade()
        small.resident("R1")
        failpoints.arm("lower.apply.before", die)
        with pytest.raises(KeyboardInterrupt):
            small.cascade()
        found = traced(small)
        assert (stop(found), found.reached, kinds(found, EAST)) == (("record", EAST), 1, ["unfinished"])

    def test_a_run_that_is_still_at_work_is_not_called_dead(self, small: Small) -> None:
        small.resident("R1")
        small.cascade()
        small.put(CITY, "R1", name="王芳")
        seen: list[Trace] = []
        failpoints.arm("settle.before", lambda: seen.append(traced(small)))
        small.federation.sync_parent("resident", CITY)
        failpoints.disarm()
        assert (hop(seen[0], EAST).running, "正在运行" in seen[0].summary.zh) == (True, True)
        assert not hop(traced(small), EAST).running


class TestMovedAndDeleted:
    def test_a_record_half_way_through_its_move_is_told_on_both_branches(self, small: Small) -> None:
        small.resident("R1")
        small.cascade()
        small.put(CITY, "R1", community_code=W11)
        small.federation.sync_parent("resident", CITY)
        found = traced(small)
        assert (found.path, found.reached, stop(found)) == ((CITY, WEST, WEST_1, W11), 2, ("record", WEST_1))
        assert {h.lower for h in found.hops if h.agreed and not h.on_path} == {EAST_1, E11}
        owed = [(r.region, r.kind, r.destination, r.owed_by) for r in found.removals if r.owed_by]
        assert (EAST, "moved", W11, f"resident/{EAST_1}") in owed
        assert "其他支路尚有：东华门街道、多福巷社区" in found.summary.zh

    def test_a_record_that_moved_there_and_back_is_told_where_it_is_with_the_tombstones_it_left(
        self, small: Small
    ) -> None:
        small.resident("R1")
        small.cascade()
        for place in (W11, E11):
            small.put(CITY, "R1", community_code=place)
            small.cascade()
        found = traced(small)
        assert (found.path, found.reached, found.stop) == (PATH, 4, None)
        assert {(r.region, r.kind) for r in found.removals} >= {(r, "moved") for r in (WEST, WEST_1, W11)}
        assert {h.lower for h in found.hops} == {EAST, EAST_1, E11}

    def test_a_move_within_a_street_follows_the_newest_tombstone(self, small: Small) -> None:
        small.resident("R1")
        small.cascade()
        small.put(CITY, "R1", community_code=E12)
        small.federation.sync_parent("resident", CITY)
        small.federation.sync_parent("resident", EAST)
        small.federation.sync_children("resident", EAST_1, [E11], None)
        found = traced(small)
        assert (found.path, stop(found)) == ((CITY, EAST, EAST_1, E12), ("record", E12))

    def test_a_deletion_half_way_says_from_how_many_levels_it_is_gone(self, small: Small) -> None:
        for key in ("R1", "R2"):
            small.resident(key)
        small.cascade()
        small.drop(CITY, "R1")
        small.federation.sync_parent("resident", CITY)
        found = traced(small)
        assert (stop(found), found.reached) == (("removal", EAST_1), 2)
        assert found.deleted is not None
        assert found.summary.zh.startswith("已删除：已从 2/4 级移除，移除停在 东城区 → 东华门街道")

    def test_a_deletion_that_came_all_the_way_down_is_remembered(self, small: Small) -> None:
        for key in ("R1", "R2"):
            small.resident(key)
        small.cascade()
        small.drop(CITY, "R1")
        small.cascade()
        found = traced(small, live=True)
        assert (found.reached, found.stop, found.summary.zh) == (0, None, "已删除，各级均已移除")
        assert {(r.region, r.kind, r.owed_by) for r in found.removals} == {(c, "deleted", None) for c in PATH[1:]}
        assert set(now(found).values()) == {"absent"}

    def test_a_record_created_anew_after_its_deletion_is_not_called_deleted(self, small: Small) -> None:
        for key in ("R1", "R2"):
            small.resident(key)
        small.cascade()
        small.drop(CITY, "R1")
        small.cascade()
        small.resident("R1", E12)
        small.cascade()
        found = traced(small)
        assert (found.deleted, found.path, found.reached) == (None, (CITY, EAST, EAST_1, E12), 4)


class TestCorrections:
    def test_a_correction_is_told_on_its_way_where_it_waits_and_with_its_outcome(self, small: Small) -> None:
        small.resident("R1")
        small.cascade()
        small.put(E11, "R1", name="王玮")
        small.federation.sync_parent("resident", EAST_1)
        (line,) = traced(small).corrections
        assert (line.kind, line.state, line.raised_by, line.target, line.at) == ("edit", "raised", E11, CITY, EAST_1)
        assert (line.fields, line.group, line.way) == (("name",), "city", (E11, EAST_1))
        small.cascade()
        found = traced(small)
        assert (found.corrections[0].state, found.corrections[0].at) == ("waiting", CITY)
        assert "1 条校核待裁定" in found.summary.zh
        assert found.corrections[0].due is not None
        small.federation.rule(line.correction, "rejected", "以户口本为准", "tester")
        small.cascade()
        (ended,) = traced(small).corrections
        assert (ended.state, ended.at, ended.ruled is not None, ended.closed is not None) == (
            "rejected",
            E11,
            True,
            True,
        )
        assert "校核" not in traced(small).summary.zh

    def test_a_creation_that_is_to_be_ruled_on_is_what_stops_the_record(self, small: Small) -> None:
        small.cascade()
        small.put(E11, "R9", name="赵六", community_code=E11)
        small.cascade()
        found = traced(small, "R9")
        assert (found.path, found.reached, stop(found)) == (PATH, 1, ("record", E11))
        assert kinds(found, E11) == ["ruling"]
        assert "北京市" in found.summary.zh

    def test_an_overdue_correction_is_told_as_such(self, small: Small) -> None:
        small.resident("R1")
        small.cascade()
        small.put(E11, "R1", name="王玮")
        small.cascade()
        small.clock.now += timedelta(days=40)
        assert [line.state for line in traced(small).corrections] == ["overdue"]


class TestLive:
    def test_nodes_that_hold_what_was_agreed_on_say_the_same(self, small: Small) -> None:
        small.resident("R1")
        small.cascade()
        found = traced(small, live=True)
        assert now(found) == dict.fromkeys(PATH, "same")
        assert {n.version for n in found.nodes} == {hop(found, E11).version}

    def test_an_edit_that_no_run_has_seen_is_told_at_its_node_with_its_group(self, small: Small) -> None:
        small.resident("R1")
        small.cascade()
        small.put(E11, "R1", phone="13911111111")
        found = traced(small, live=True)
        assert now(found) == {CITY: "same", EAST: "same", EAST_1: "same", E11: "edited"}
        assert node(found, E11).differs == ("community",)
        assert node(found, E11).version != hop(found, E11).version
        assert "此后被改动：多福巷社区" in found.summary.zh

    def test_an_edit_of_what_one_hop_carries_only_is_seen_as_well(self, small: Small) -> None:
        small.resident("R1")
        small.cascade()
        small.put(EAST, "R1", id_number="110101199001010023")
        found = traced(small, live=True)
        assert (now(found)[EAST], node(found, EAST).differs) == ("edited", ("city_city_district",))

    def test_a_record_whose_jurisdiction_somebody_changed_without_right_is_edited_there_not_missing(
        self, small: Small
    ) -> None:
        small.resident("R1")
        small.cascade()
        small.put(E11, "R1", community_code=W11)
        found = traced(small, live=True)
        assert (now(found)[E11], node(found, E11).differs) == ("edited", ("city",))
        assert found.path == PATH, "the city decides where a resident lives"

    def test_a_node_between_two_hops_that_agreed_on_different_versions_is_as_agreed_with_either(
        self, small: Small
    ) -> None:
        small.resident("R1")
        small.cascade()
        small.put(CITY, "R1", name="王芳")
        small.federation.sync_parent("resident", CITY)
        assert now(traced(small, live=True)) == dict.fromkeys(PATH, "same")

    def test_a_record_that_somebody_deleted_is_missing_there(self, small: Small) -> None:
        small.resident("R1")
        small.cascade()
        small.drop(EAST_1, "R1")
        found = traced(small, live=True)
        assert (now(found)[EAST_1], found.reached) == ("missing", 3)
        assert "缺失：东华门街道" in found.summary.zh

    def test_a_record_that_was_never_synced_is_found_at_the_top_with_the_path_it_will_take(self, small: Small) -> None:
        small.cascade()
        small.resident("R1")
        with pytest.raises(FedsyncError, match="no link knows"):
            traced(small)
        found = traced(small, live=True)
        assert (found.path, found.source, found.reached, stop(found)) == (PATH, "live", 1, ("record", EAST))
        assert now(found) == {CITY: "new", EAST: "absent", EAST_1: "absent", E11: "absent"}

    def test_the_nodes_know_of_a_move_before_any_link_does(self, small: Small) -> None:
        small.resident("R1")
        small.cascade()
        small.put(CITY, "R1", community_code=W11)
        found = traced(small, live=True)
        assert (found.path, found.reached, stop(found)) == ((CITY, WEST, WEST_1, W11), 1, ("record", WEST))
        assert (now(found)[CITY], now(found)[E11], now(found)[W11]) == ("edited", "same", "absent")

    def test_a_node_that_does_not_answer_is_told_and_the_others_answer(self, tmp_path: Path) -> None:
        small = Small(tmp_path)
        top = tmp_path / "federation.yaml"
        broken = (
            f"  paper: {{connector: sql, options: {{url: 'sqlite:///{tmp_path}/paper.db', create: true}}}}\nnodes:\n"
        )
        text = top.read_text().replace("nodes:\n", broken)
        top.write_text(text + f"  - {{system: paper, regions: ['{E11}'], datasets: {{resident: {{}}}}}}\n")
        small.federation = open_federation(tmp_path, clock=small.clock)
        small.resident("R1")
        small.cascade()
        assert now(traced(small, live=True)) == dict.fromkeys(PATH, "same")
        small.federation.close()
        (tmp_path / "paper.db").write_bytes(b"this was a database once" * 100)
        small.federation = open_federation(tmp_path, clock=small.clock)
        found = traced(small, live=True)
        assert now(found) == {CITY: "same", EAST: "same", EAST_1: "same", E11: "unreachable"}
        reason = node(found, E11).reason
        assert reason is not None
        assert "not a sound database" in reason.en
        assert (found.reached, "无法访问：多福巷社区" in found.summary.zh) == (4, True)

    def test_what_was_agreed_on_under_another_contract_cannot_be_called_edited(self, small: Small) -> None:
        small.resident("R1")
        small.cascade()
        path = small.folder / "datasets/resident.yaml"
        path.write_text(path.read_text().replace("name: {label: 姓名,", "name: {label: 姓名, normalise: [upper],"))
        small.federation = open_federation(small.folder, clock=small.clock)
        found = traced(small, live=True)
        assert now(found) == dict.fromkeys(PATH, "same")
        assert {group.version for h in found.hops for group in h.groups if group.group == "city"} == {None}
        assert (found.stop, hop(found, E11).version) == (None, None)


COMPOSITE = VISIT.replace("key: [visit_id]", "key: [visit_id, visited_on]")


class TestKeys:
    @pytest.mark.parametrize(
        "words",
        [
            ["V1", "2026-01-05"],
            ["V1", "2026年1月5日"],
            [" V1 ", "2026/1/5"],
            ['["V1","2026-01-05"]'],
            ['["V1", "20260105"]'],
        ],
    )
    def test_a_composite_key_is_taken_as_people_type_it(self, tmp_path: Path, words: list[str]) -> None:
        small = Small(tmp_path, changes={"datasets/visit.yaml": COMPOSITE})
        small.put(E11, "V1", "visit", community_code=E11, visited_on="2026-01-05", summary="好")
        small.put(E11, "V1 ", "visit", visit_id="V1", community_code=E11, visited_on="2026-01-06", summary="好")
        small.cascade("visit")
        found = trace(small.federation, "visit", words)
        assert (found.key, found.reached) == ('["V1","2026-01-05"]', 4)

    def test_a_key_with_too_few_parts_or_none_that_fits_says_what_is_wanted(self, tmp_path: Path) -> None:
        dataset = Small(tmp_path, changes={"datasets/visit.yaml": COMPOSITE}).federation.config.dataset("visit")
        with pytest.raises(
            FedsyncError, match=r"has 2 field\(s\), 1 given.*visit_id（走访编号）、visited_on（走访日期）"
        ):
            key_of(["V1"], dataset, "Asia/Shanghai")
        with pytest.raises(FedsyncError, match="visited_on must be a date") as told:
            key_of(["V1", "昨天"], dataset, "Asia/Shanghai")
        assert told.value.where["field"] == "visited_on"
        with pytest.raises(FedsyncError, match="must not be empty"):
            key_of(["", "2026-01-05"], dataset, "Asia/Shanghai")

    def test_a_single_key_is_taken_as_it_is_even_if_it_looks_like_json(self, small: Small) -> None:
        dataset = small.federation.config.dataset("resident")
        assert key_of(['["R1"]'], dataset, "Asia/Shanghai") == '["R1"]'
        assert key_of([" R1"], dataset, "Asia/Shanghai") == "R1"

    def test_a_record_that_nobody_knows_and_a_dataset_that_there_is_not_are_clear_errors(self, small: Small) -> None:
        small.cascade()
        with pytest.raises(FedsyncError, match="no link knows this record") as told:
            traced(small, "R404")
        assert (told.value.where["dataset"], told.value.where["key"]) == ("resident", "R404")
        with pytest.raises(FedsyncError, match="no link knows"):
            traced(small, "R404", live=True)
        with pytest.raises(DeclarationError, match="there is no dataset nothing"):
            traced(small, "R1", "nothing")


class TestWhatIsRead:
    def test_only_baselines_that_may_know_the_record_are_read_unless_all_are_asked_for(self, small: Small) -> None:
        small.resident("R1")
        small.resident("W1", W11)
        small.cascade()
        small.clock.now += LONGEST + timedelta(minutes=1)
        for upper in (CITY, EAST, WEST):
            small.federation.sync_parent("resident", upper)
        found = traced(small)
        assert (found.read, found.links) == (
            6,
            10,
        )  # two districts, two streets of the one, two communities of the first
        assert traced(small, every=True).read == 10

    def test_what_a_held_link_still_knows_is_found_though_nothing_above_remembers_it(self, small: Small) -> None:
        for number in range(6):
            small.resident(f"R{number}")
        small.cascade()
        small.clock.now += LONGEST + timedelta(minutes=1)
        small.cascade()
        for upper in (EAST, CITY):
            small.drop(upper, "R1")
        small.federation.sync_parent("resident", CITY)
        error = FedsyncError("the platform is down", "平台停机")
        small.federation.services.links.mark_failed(f"resident/{EAST_1}", error)
        found = traced(small)
        assert {h.lower for h in found.hops if h.agreed} == {EAST_1, E11}
