"""A saved file wakes its street: the trigger in the triggerer, and the DAG that it wakes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from fedsync_airflow import tasks
from fedsync_airflow.uploads import regions_of
from fedsync_uploads import UploadTrigger

from tests.airflow.conftest import ROOT
from tests.airflow.declared import Hands, declare
from tests.federations import E11, E12, EAST_1

pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
BOOKS = f"""
name: small
systems:
  books: {{connector: workbook, options: {{path: "{{home}}/books/{{region}}.xlsx"}}}}
nodes:
  - {{system: books, regions: ["{E11}", "{E12}"], datasets: {{resident: {{}}}}}}
"""


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A declaration in which two communities keep workbooks."""
    path = declare(tmp_path / "federation", **{"federation.yaml": BOOKS})
    monkeypatch.setenv("FEDSYNC_FEDERATION", str(path))
    return path


def test_only_datasets_with_nodes_that_may_be_files_have_a_dag_for_uploads(books: Path) -> None:
    bag = DagBag(dag_folder=ROOT / "dags", safe_mode=False)
    assert bag.import_errors == {}
    assert [name for name in bag.dags if name.endswith("__uploads")] == ["resident__uploads"]
    dag: Any = bag.dags["resident__uploads"]
    assert {asset.name for task in dag.tasks for asset in task.outlets} == {"resident__community__from_below"}
    (saved,) = dag.timetable.asset_condition.objects
    (watcher,) = saved.watchers
    assert isinstance(watcher.trigger, UploadTrigger)
    assert watcher.trigger.federation == str(books)


def test_the_trigger_fires_for_a_saved_file_within_two_looks_and_survives_a_declaration_that_cannot_be_read(
    books: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedsync_uploads.AGAIN", 0.05)
    folder = books.parent / "books"
    folder.mkdir()

    async def acts() -> list[Any]:
        stream = UploadTrigger(str(books), "resident", every=0.05).run()
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(1.0)
        assert not first.done()
        books.write_text("nodes: [")
        (folder / f"{E11}.xlsx").write_bytes(b"saved")
        told = [(await asyncio.wait_for(first, 10)).payload]
        books.write_text(BOOKS)
        (folder / f"{E12}.xlsx").write_bytes(b"saved")
        told.append((await asyncio.wait_for(anext(stream), 10)).payload)
        await stream.aclose()
        return told

    assert asyncio.run(acts()) == [{"regions": [E11]}, {"regions": [E12]}]


def test_a_trigger_comes_back_from_its_serialized_form(books: Path) -> None:
    path, given = UploadTrigger(str(books), "resident").serialize()
    assert path == "fedsync_uploads.UploadTrigger"
    assert UploadTrigger(**given).serialize() == (path, given)


def test_the_run_wakes_the_hop_above_a_file_with_news_and_nobody_else(books: Path) -> None:
    hands = Hands(books)
    hands.resident("R1", E11)
    hands.settle()
    assert tasks.uploads("resident", [E11, E12]) == {}
    hands.put(E11, "R1", phone="13911111111")
    assert tasks.uploads("resident", [E11, E12, "999999999999"]) == {"community__from_below": [E11]}
    hands.put(EAST_1, "R1", phone="13922222222")
    assert tasks.uploads("resident", [EAST_1]) == {"street__from_below": [EAST_1], "street__from_above": [EAST_1]}
    hands.federation.close()


def test_all_events_that_started_a_run_count() -> None:
    def event(*codes: str) -> SimpleNamespace:
        return SimpleNamespace(extra={"from_trigger": True, "payload": {"regions": list(codes)}})

    assert regions_of({"saved": [event(E12), event(E11, E12)]}) == [E11, E12]
    assert regions_of({"saved": [SimpleNamespace(extra={})]}) == []
