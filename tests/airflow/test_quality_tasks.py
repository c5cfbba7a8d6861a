"""What the tasks of the quality report do, as plain functions over a real federation on disk, and one whole run of its DAG."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from fedsync_airflow import quality_tasks, shares

from connectors.hosted import HostedConnector
from federation.errors import AccessDenied, GateError, Transient
from federation.ledger.quality import QualityLog
from tests.airflow.declared import BRANCH, Hands
from tests.airflow.test_dag_run import _metadata as _metadata
from tests.airflow.test_dag_run import dags as dags
from tests.airflow.test_dag_run import run
from tests.federations import CITY, E11, E12, EAST, EAST_1, EAST_2, W11

# As in test_dag_run: Airflow's runner loads its whole web stack.
pytestmark = pytest.mark.filterwarnings("ignore")


def share(regions: list[str], begun: str = "2020-01-01T00:00:00+00:00") -> quality_tasks.Share:
    return quality_tasks.Share(regions=regions, begun=begun, label="")


def examined(hands: Hands) -> set[str]:
    return {line.region for line in QualityLog(hands.federation.services.ledger).trend("resident")}


def test_nodes_are_cut_into_batches_named_after_their_regions(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality_tasks, "BATCH", 5)
    shares = quality_tasks.plan("resident", [])
    assert [len(one["regions"]) for one in shares] == [5, 5, 1]
    assert shares[0]["label"] == "北京市、东城区、西城区、东华门街道…"
    (inside,) = quality_tasks.plan("resident", [EAST_1, EAST_2])
    assert inside["regions"][:3] == [EAST_1, EAST_2, E11]


def test_however_many_nodes_there_are_the_batches_are_no_more_than_airflow_maps(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality_tasks, "BATCH", 1)
    monkeypatch.setattr(shares, "MOST", 4)
    assert [len(one["regions"]) for one in quality_tasks.plan("resident", [])] == [3, 3, 3, 2]


def test_log_lines_tell_counts_only(hands: Hands, caplog: pytest.LogCaptureFixture) -> None:
    hands.resident("R1", E11, name="欧阳晓晨", phone="8355坏号")
    with caplog.at_level(logging.INFO, "fedsync"):
        quality_tasks.examine("resident", share([CITY]))
        quality_tasks.publish("resident")
    assert f"{CITY}: 1 records, 3 rules, 1 failing" in caplog.text
    assert not [value for value in ("欧阳晓晨", "8355坏号", "R1") if value in caplog.text]


def test_a_node_that_does_not_answer_fails_the_task_after_all_others_and_a_retry_reads_only_it(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    for region in BRANCH:
        hands.put(region, "R1", community_code=E11, phone="13800000000")
    original, asked, down = HostedConnector.changes, list[str](), {EAST}

    def changes(self: HostedConnector, since: str | None, **options: Any) -> Any:
        asked.append(self.node.region.code)
        if self.node.region.code in down:
            raise AccessDenied("the password has expired", "密码已过期")
        return original(self, since, **options)

    monkeypatch.setattr(HostedConnector, "changes", changes)
    (planned,) = quality_tasks.plan("resident", [])
    work = {**planned, "regions": list(BRANCH)}
    with pytest.raises(AccessDenied):
        quality_tasks.examine("resident", work)  # type: ignore[arg-type]
    assert examined(hands) == set(BRANCH) - {EAST}
    asked.clear()
    down.clear()
    quality_tasks.examine("resident", work)  # type: ignore[arg-type]
    assert asked == [EAST]
    assert examined(hands) == set(BRANCH)


def test_a_rule_that_cannot_be_evaluated_is_raised_before_a_system_that_may_answer_later(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    from federation import quality_pages

    found = list(quality_pages.report(hands.federation, "visit", [E11, E12]))
    faults = (AccessDenied("no", "否"), Transient("later", "稍后"), GateError("rule", "规则"))
    broken = [type(one)(**{**one.__dict__, "errors": faults}) for one in found[:1]]
    monkeypatch.setattr(quality_pages, "report", lambda *_: iter(broken))
    with pytest.raises(GateError):
        quality_tasks.examine("visit", share([E11]))


def test_the_dag_examines_the_regions_that_were_asked_for_and_publishes_their_pages(
    dags: dict[str, Any], hands: Hands, declaration: Path
) -> None:
    hands.put(W11, "R2", community_code=W11, phone="13800000000")
    state, tasks = run(dags["resident__quality"], regions=[W11])
    assert (state, set(tasks.values())) == ("success", {"success"})
    assert set(tasks) == {"plan", "examine", "publish", "done"}
    assert examined(hands) == {W11}
    pages = {path.name for path in (declaration.parent / "state/quality/resident").iterdir()}
    assert pages == {"index.html", f"{W11}.html"}
