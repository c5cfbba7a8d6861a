"""What the tasks do, as plain functions over a real federation on disk."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Connection
from fedsync_airflow import tasks
from fedsync_airflow.retry import POLICY

from connectors.hosted import HostedConnector
from federation.errors import (
    AccessDenied,
    AccountingError,
    Conflict,
    DeclarationError,
    FedsyncError,
    LeaseHeld,
    LinkHeld,
    Permanent,
    SchemaMismatch,
    Transient,
)
from tests.airflow.declared import BRANCH, Hands
from tests.federations import CITY, E11, E12, EAST, EAST_1, W11, WEST


def hop(upper: str) -> tuple[list[str], bool]:
    """One hop's run without Airflow: collect, sync every batch, and what would be announced."""
    work = tasks.collect("resident", upper)
    for share in work:
        tasks.sync("resident", share)
    return tasks.news_of(work)


def test_a_record_goes_down_hop_by_hop_and_only_regions_with_news_are_announced(hands: Hands) -> None:
    hands.settle()
    hands.resident("R1", E11)
    assert tasks.sweep("resident") == {"city__from_above": [CITY]}
    assert hop(CITY) == ([EAST], False)
    assert hop(EAST) == ([EAST_1], False)
    assert hop(EAST_1) == ([E11], False)
    assert [hands.get(region, "R1")["name"] for region in BRANCH] == ["王伟"] * 4
    assert hands.get(WEST, "R1") == {}


def test_an_edit_goes_up_hop_by_hop_and_only_the_parent_is_announced(hands: Hands) -> None:
    hands.resident("R1", E11)
    hands.settle()
    hands.put(E11, "R1", phone="13911111111")
    assert tasks.sweep("resident") == {"street__from_above": [EAST_1]}
    assert hop(EAST_1) == ([], True)
    assert hop(EAST) == ([], True)
    assert hop(CITY) == ([], True)
    assert [hands.get(region, "R1")["phone"] for region in BRANCH] == ["13911111111"] * 4


def test_a_hop_without_news_announces_nothing(hands: Hands) -> None:
    hands.resident("R1", E11)
    hands.settle()
    assert hop(CITY) == ([], False)
    assert tasks.sweep("resident") == {}


def test_an_edit_between_wakes_the_hops_at_both_of_its_sides(hands: Hands) -> None:
    hands.resident("R1", E11)
    hands.settle()
    hands.put(EAST_1, "R1", name="误改")
    assert tasks.sweep("resident") == {"district__from_above": [EAST], "street__from_above": [EAST_1]}


def test_a_failing_child_never_stops_its_siblings_and_their_news_are_announced(
    hands: Hands, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hands.settle()
    hands.resident("R1", E11)
    hands.resident("R2", W11)
    original = HostedConnector.apply

    def broken(self: HostedConnector, batch: Any) -> Any:
        if self.node.region.code == EAST:
            raise SchemaMismatch("a column is missing", "缺少列")
        return original(self, batch)

    monkeypatch.setattr(HostedConnector, "apply", broken)
    work = tasks.collect("resident", CITY)
    with caplog.at_level(logging.INFO, "fedsync"), pytest.raises(SchemaMismatch):
        tasks.sync("resident", work[0])
    assert tasks.news_of(work) == ([WEST], False)
    assert hands.get(WEST, "R2")["name"] == "王伟"
    assert hands.federation.services.links.state(hands.federation.config.link("resident", EAST)).state == "failed"
    told = [record.getMessage() for record in caplog.records if record.name == "fedsync"]
    assert sum(EAST in line for line in told) == sum(WEST in line for line in told) == 1


def test_a_retry_adds_to_the_news_of_the_first_try(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    hands.settle()
    hands.resident("R1", E11)
    hands.resident("R2", W11)
    original, calls = HostedConnector.apply, 0

    def fails_once(self: HostedConnector, batch: Any) -> Any:
        nonlocal calls
        if self.node.region.code == EAST and (calls := calls + 1) == 1:
            raise Permanent("refused", "拒绝")
        return original(self, batch)

    monkeypatch.setattr(HostedConnector, "apply", fails_once)
    work = tasks.collect("resident", CITY)
    with pytest.raises(Permanent):
        tasks.sync("resident", work[0])
    tasks.sync("resident", work[0])
    assert tasks.news_of(work) == ([EAST, WEST], False)


def test_an_unreadable_parent_fails_the_run_and_is_noted_at_each_of_its_links(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands.resident("R1", E11)
    hands.settle()
    hands.resident("R2", E11)

    def broken(self: HostedConnector, *given: Any, **named: Any) -> Any:
        raise AccessDenied("wrong password", "密码错误")

    monkeypatch.setattr(HostedConnector, "changes", broken)
    with pytest.raises(AccessDenied):
        tasks.collect("resident", CITY)
    links = hands.federation.services.links
    assert {links.state(hands.federation.config.link("resident", code)).state for code in (EAST, WEST)} == {"failed"}


def test_no_log_line_holds_a_value_of_a_record(hands: Hands, caplog: pytest.LogCaptureFixture) -> None:
    hands.settle()
    hands.resident("R1", E11, name="欧阳震华", phone="13812345678")
    with caplog.at_level(logging.DEBUG):
        hop(CITY)
    assert "欧阳震华" not in caplog.text
    assert "13812345678" not in caplog.text


@pytest.mark.parametrize("key", [None, "", EAST, "999999999999"])
def test_a_run_without_a_region_of_the_hops_upper_level_says_what_to_give(declaration: Path, key: str | None) -> None:
    with pytest.raises(DeclarationError) as raised:
        tasks.partition_of(key, "street")
    assert raised.value.todo


@pytest.mark.parametrize(
    "uri", ["sqlite:////srv/city/a.db", "https://host:18345/api/v1", "postgresql+psycopg://u:p%40@h/d"]
)
def test_a_connections_uri_reaches_the_driver_as_it_was_written(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CITY", uri)
    assert tasks.connection_uri("city") == uri
    monkeypatch.delenv("AIRFLOW_CONN_CITY")
    monkeypatch.setattr(Connection, "get", classmethod(lambda cls, name: cls.from_uri(uri, name)))
    assert tasks.connection_uri("city") == uri


def test_no_staged_record_outlives_its_run_and_a_cleared_sync_can_still_run(hands: Hands) -> None:
    hands.settle()
    hands.resident("R1", E11)
    work = tasks.collect("resident", CITY)
    tasks.sync("resident", work[0])
    tasks.tidy(work)
    assert list((hands.federation.config.state / "staging").rglob("*.parquet")) == []
    assert tasks.news_of(work) == ([EAST], False)
    hands.put(CITY, "R1", name="王芳")
    tasks.sync("resident", work[0])
    assert hands.get(EAST, "R1")["name"] == "王芳"


def test_what_a_dead_run_left_behind_is_removed_by_a_later_sweep(hands: Hands) -> None:
    hands.settle()
    work = tasks.collect("resident", CITY)
    folder = hands.federation.config.state / "staging" / work[0]["folder"]
    tasks.sweep("resident")
    assert folder.exists()
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    tasks.sweep("resident")
    assert not folder.exists()


def test_a_replay_without_an_id_replays_nothing(hands: Hands) -> None:
    hands.resident("R1", E11)
    hands.settle()
    hands.put(E11, "R1", phone="1380000")
    hands.federation.cascade("resident")
    with pytest.raises(FedsyncError, match="no quarantine id"):
        tasks.replay(" ", "tester")
    assert [item.state for item in hands.federation.services.quarantine.open_items()] == ["open"]


def test_a_region_of_the_hops_upper_level_is_taken(declaration: Path) -> None:
    assert tasks.partition_of(EAST_1, "street") == EAST_1


def test_children_are_synced_in_batches_named_after_their_regions(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "BATCH", 1)
    work = tasks.collect("resident", EAST_1)
    assert [share["lowers"] for share in work] == [[E11], [E12]]
    assert [share["label"] for share in work] == ["多福巷社区", "银闸社区"]
    assert len({share["folder"] for share in work}) == 1


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (Transient, "retry"),
        (Conflict, "retry"),
        (LeaseHeld, "retry"),
        (Permanent, "fail"),
        (AccessDenied, "fail"),
        (SchemaMismatch, "fail"),
        (LinkHeld, "fail"),
        (DeclarationError, "fail"),
        (AccountingError, "fail"),
        (FedsyncError, "fail"),
    ],
)
def test_what_time_may_heal_is_retried_and_what_a_person_must_mend_is_not(
    error: type[FedsyncError], action: str
) -> None:
    decision = POLICY.evaluate(error("en", "中"), 1, 3)
    assert decision.action.value == action
    assert (decision.retry_delay is not None) == (action == "retry")


def test_an_error_that_is_not_ours_is_left_to_airflow() -> None:
    assert POLICY.evaluate(ValueError("x"), 1, 3).action.value == "default"
