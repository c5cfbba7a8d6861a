"""What the tasks of a reconciliation do, as plain functions over a real federation on disk, and one whole run of its DAG."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fedsync_airflow import reconcile_tasks, shares

from connectors.hosted import HostedConnector
from federation.errors import AccessDenied, FedsyncError, LinkHeld, Transient
from federation.reconcile import Comparison
from tests.airflow.declared import Hands
from tests.airflow.test_dag_run import _metadata as _metadata
from tests.airflow.test_dag_run import dags as dags
from tests.airflow.test_dag_run import run
from tests.federations import CITY, E11, EAST, EAST_1, W11, WEST

# As in test_dag_run: Airflow's runner loads its whole web stack.
pytestmark = pytest.mark.filterwarnings("ignore")


def share(*parents: str) -> reconcile_tasks.Share:
    return reconcile_tasks.Share(parents=list(parents), within=[None] * len(parents), label="")


def test_parents_are_cut_into_batches_named_after_their_regions(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile_tasks, "BATCH", 4)
    first, second = reconcile_tasks.plan("resident", [])
    assert (len(first["parents"]), len(second["parents"])) == (4, 2)
    assert first["label"] == "北京市、东城区、西城区、东华门街道"
    (inside,) = reconcile_tasks.plan("resident", [EAST_1])
    assert (inside["parents"], inside["within"]) == ([EAST, EAST_1], [EAST_1, EAST_1])


def test_however_many_parents_there_are_the_batches_are_no_more_than_airflow_maps(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile_tasks, "BATCH", 1)
    monkeypatch.setattr(shares, "MOST", 4)
    assert [len(one["parents"]) for one in reconcile_tasks.plan("resident", [])] == [2, 2, 2]


def test_what_got_lost_is_repaired_and_log_lines_tell_counts_only(
    hands: Hands, caplog: pytest.LogCaptureFixture
) -> None:
    hands.resident("R1", name="欧阳晓晨")
    hands.resident("R2")
    hands.settle()
    hands.put(E11, "R1", care_level="重点")
    with caplog.at_level(logging.INFO, "fedsync"):
        reconcile_tasks.compare("resident", share(CITY, EAST_1), repair=False)
        assert hands.get(EAST_1, "R1")["care_level"] == "无"
        reconcile_tasks.compare("resident", share(CITY, EAST_1), repair=True)
    assert hands.get(EAST_1, "R1")["care_level"] == "重点"
    assert f"resident/{E11}: of 2 records 0 are missing below, 0 missing above, 1 differ; repaired 1" in caplog.text
    assert f"resident/{EAST}: 2 records agree" in caplog.text
    assert not [value for value in ("欧阳晓晨", "R1", "重点") if value in caplog.text]


def test_a_child_that_does_not_answer_fails_the_task_after_all_others(
    hands: Hands, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hands.resident("R1")
    hands.settle()
    original = HostedConnector.changes

    def changes(self: HostedConnector, since: str | None, **options: Any) -> Any:
        if self.node.region.code == EAST:
            raise AccessDenied("the password has expired", "密码已过期")
        return original(self, since, **options)

    monkeypatch.setattr(HostedConnector, "changes", changes)
    with caplog.at_level(logging.INFO, "fedsync"), pytest.raises(AccessDenied):
        reconcile_tasks.compare("resident", share(CITY, EAST_1), repair=True)
    assert f"resident/{WEST}: 0 records agree" in caplog.text
    assert f"resident/{E11}: 1 records agree" in caplog.text


def test_a_held_link_is_raised_before_what_may_answer_later(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(error: FedsyncError) -> Comparison:
        return Comparison("resident/1", CITY, EAST, error=error)

    found = [told(Transient("later", "稍后")), told(LinkHeld("held", "拦截"))]
    monkeypatch.setattr("federation.reconcile.Reconciler.parent", lambda *_: found)
    with pytest.raises(LinkHeld):
        reconcile_tasks.compare("resident", share(CITY), repair=True)


def test_the_dag_compares_the_regions_that_were_asked_for_and_repairs(dags: dict[str, Any], hands: Hands) -> None:
    hands.resident("R1")
    hands.resident("R2", W11)
    hands.settle()
    hands.drop(E11, "R1")
    hands.drop(W11, "R2")
    state, tasks = run(dags["resident__reconcile"], regions=[E11])
    assert (state, set(tasks), set(tasks.values())) == ("success", {"plan", "compare"}, {"success"})
    assert hands.get(E11, "R1")["name"] == "王伟"
    assert not hands.get(W11, "R2")
