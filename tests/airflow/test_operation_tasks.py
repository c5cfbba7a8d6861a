"""The operators' tasks over a real federation on disk: pause, backfill, erase."""

from __future__ import annotations

import logging

import pytest
from fedsync_airflow import operation_tasks, tasks

from federation.errors import DeclarationError, FedsyncError, Transient
from tests.airflow.declared import BRANCH, Hands
from tests.federations import CITY, E11, EAST, EAST_1, W11, WEST


def test_a_paused_region_is_neither_woken_nor_collected_for_and_catches_up_when_resumed(
    hands: Hands, caplog: pytest.LogCaptureFixture
) -> None:
    hands.resident("R1", E11)
    hands.settle()
    operation_tasks.pause("pause", "region", EAST, "机房检修", None, "zhang")
    hands.put(CITY, "R1", name="王伟明")
    hands.resident("R2", W11)
    with caplog.at_level(logging.INFO, "fedsync"):
        assert tasks.sweep("resident") == {"city__from_above": [CITY]}
        (share,) = tasks.collect("resident", CITY)
        assert share["lowers"] == [WEST]
        tasks.sync("resident", share)
        assert tasks.collect("resident", EAST) == []
    assert hands.get(WEST, "R2") != {}
    assert hands.get(EAST, "R1")["name"] == "王伟"
    assert "机房检修" in caplog.text
    operation_tasks.pause("resume", "region", EAST, "", None, "zhang")
    hands.settle()
    assert {hands.get(region, "R1")["name"] for region in BRANCH} == {"王伟明"}


def test_a_link_that_is_paused_between_two_tasks_of_a_run_is_skipped_and_not_failed(hands: Hands) -> None:
    hands.resident("R1", E11)
    hands.settle()
    hands.put(CITY, "R1", name="王伟明")
    (share,) = tasks.collect("resident", CITY)
    operation_tasks.pause("pause", "link", f"resident/{EAST}", "核对", "2999-01-01T00:00:00+08:00", "zhang")
    tasks.sync("resident", share)
    assert tasks.news_of([share]) == ([], False)
    assert hands.get(EAST, "R1")["name"] == "王伟"
    state = hands.federation.services.links.states([f"resident/{EAST}"])[f"resident/{EAST}"]
    assert state.state == "ok"


def test_a_pause_of_what_is_not_declared_or_without_a_reason_fails_its_run(hands: Hands) -> None:
    with pytest.raises(DeclarationError):
        operation_tasks.pause("pause", "system", "nobody", "检修", None, "zhang")
    with pytest.raises(FedsyncError, match="reason"):
        operation_tasks.pause("pause", "region", EAST, " ", None, "zhang")


def test_a_backfill_compares_the_links_of_one_region_and_refuses_an_unknown_one(hands: Hands) -> None:
    hands.resident("R1", E11)
    hands.settle()
    operation_tasks.backfill("resident", EAST_1)
    with pytest.raises(DeclarationError):
        operation_tasks.backfill("resident", "999999999999")
    states = hands.federation.services.links.all("resident")
    compared = {link for link, state in states.items() if state.last_full != states[f"resident/{WEST}"].last_full}
    assert {f"resident/{code}" for code in (EAST, EAST_1, E11)} <= compared


def test_an_erasure_that_waits_for_a_node_fails_its_run_and_the_scheduled_one_finishes_it(
    hands: Hands, caplog: pytest.LogCaptureFixture
) -> None:
    hands.resident("R-9e1", E11, name="欧阳震华")
    hands.settle()
    operation_tasks.pause("pause", "region", EAST_1, "机房检修", None, "zhang")
    with caplog.at_level(logging.INFO):
        with pytest.raises(Transient):
            operation_tasks.erase("resident", "R-9e1", "本人撤回同意", "李工", "zhang")
        operation_tasks.erase("", "", "", "", "zhang")
    assert EAST_1 in caplog.text
    operation_tasks.pause("resume", "region", EAST_1, "", None, "zhang")
    operation_tasks.erase("", "", "", "", "airflow")
    assert all(hands.get(region, "R-9e1") == {} for region in BRANCH)
    assert "欧阳震华" not in caplog.text
    assert "R-9e1" not in caplog.text


def test_the_actor_is_the_user_who_triggered_the_run() -> None:
    class Run:
        triggering_user_name = "zhang"

    assert operation_tasks.actor_of({"dag_run": Run()}) == "zhang"
    assert operation_tasks.actor_of({}) == "airflow"
