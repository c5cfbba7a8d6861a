"""The commands by which people rule: `fedsync correction …` and `fedsync contest …`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from federation.cli import app
from tests.federations import CITY, E11, E12, EAST_1, Small

run = CliRunner()


@pytest.fixture
def small(tmp_path: Path) -> Small:
    made = Small(tmp_path)
    made.clock.now = datetime.now(UTC)  # the command reads the machine's clock
    made.resident("R1")
    made.cascade()
    made.put(E11, "R1", name="王玮")
    made.cascade()
    return made


def call(small: Small, *words: str) -> tuple[int, Any]:
    result = run.invoke(app, [*words, "--file", str(small.folder), "--json"])
    return result.exit_code, json.loads(result.output)


def test_a_correction_is_listed_shown_accepted_and_reaches_every_level(small: Small) -> None:
    _, (listed,) = call(small, "correction", "list", "--region", CITY)
    assert (listed["state"], listed["raised_by"], listed["at"]) == ("waiting", E11, CITY)
    assert "王玮" not in json.dumps(listed, ensure_ascii=False), "a list shows no personal value"
    code, shown = call(small, "correction", "show", listed["correction_id"][:10])
    assert (code, shown["proposed"], shown["current"]) == (0, {"name": "王玮"}, {"name": "王伟"})
    code, ruled = call(small, "correction", "accept", listed["correction_id"][:10], "--reason", "已核对户口本")
    assert (code, ruled["state"], (small.get(CITY, "R1") or {})["name"]) == (0, "accepted", "王玮")
    small.cascade()
    assert (small.get(E12, "R1") or small.get(E11, "R1") or {})["name"] == "王玮"
    assert call(small, "correction", "list") == (0, [])
    assert [c["state"] for c in call(small, "correction", "list", "--state", "accepted")[1]] == ["accepted"]


def test_a_rejection_needs_a_reason_and_a_ruled_correction_is_not_ruled_on_again(small: Small) -> None:
    _, (listed,) = call(small, "correction", "list")
    name = listed["correction_id"][:10]
    assert run.invoke(app, ["correction", "reject", name, "--file", str(small.folder)]).exit_code == 2
    assert call(small, "correction", "reject", name, "--reason", "以户口本为准")[0] == 0
    code, told = call(small, "correction", "accept", name)
    assert (code, told["errors"][0]["todo"]) == (1, "fedsync correction show")


def test_a_correction_can_be_taken_back_and_an_unknown_one_is_an_error(small: Small) -> None:
    _, (listed,) = call(small, "correction", "list")
    assert call(small, "correction", "withdraw", listed["correction_id"][:10])[1]["state"] == "withdrawn"
    code, told = call(small, "correction", "show", "no-such-id")
    assert (code, told["errors"][0]["todo"]) == (1, "fedsync correction list")


def test_an_overdue_correction_is_listed_as_such(small: Small) -> None:
    assert call(small, "correction", "list", "--state", "overdue") == (0, [])
    with small.federation.services.ledger.transaction() as connection:
        connection.exec_driver_sql("UPDATE correction SET due = '2020-01-01'")
    assert [c["state"] for c in call(small, "correction", "list", "--state", "overdue")[1]] == ["overdue"]


def test_the_tables_are_drawn_for_people(small: Small) -> None:
    result = run.invoke(app, ["correction", "list", "--file", str(small.folder)], env={"COLUMNS": "200"})
    assert (result.exit_code, "姓名" in result.output, "多福巷社区" in result.output) == (0, True, True)
    assert run.invoke(app, ["contest", "list", "--file", str(small.folder)]).exit_code == 0


def test_a_contested_key_is_listed_shown_and_awarded(small: Small) -> None:
    for community in (E11, E12):
        small.put(community, "V1", "visit", community_code=community, summary=f"来自{community}")
    small.cascade("visit")
    _, (listed,) = call(small, "contest", "list", "--dataset", "visit")
    assert (listed["parent"], listed["incumbent"], listed["challenger"]) == (EAST_1, E11, E12)
    name = listed["contest_id"][:10]
    shown = call(small, "contest", "show", name)[1]
    assert (shown["held"]["summary"], shown["claimed"]["summary"]) == (f"来自{E11}", f"来自{E12}")
    assert call(small, "contest", "award", name, CITY)[0] == 1
    assert call(small, "contest", "award", name, E12, "--reason", "银闸先登记")[1]["state"] == "awarded"
    small.cascade("visit")
    assert (small.get(CITY, "V1", "visit") or {})["summary"] == f"来自{E12}"
    assert call(small, "contest", "list") == (0, [])


def test_a_mistyped_dataset_or_region_is_no_empty_list(small: Small) -> None:
    assert call(small, "correction", "list", "--dataset", "residents")[0] == 1
    assert call(small, "correction", "list", "--state", "accepted", "--region", "42")[0] == 1
    assert call(small, "contest", "list", "--dataset", "residents")[0] == 1
    assert call(small, "contest", "list", "--dataset", "visit") == (0, [])


def test_a_correction_of_a_dataset_that_is_declared_no_more_is_listed_all_the_same(small: Small) -> None:
    (small.folder / "datasets/resident.yaml").unlink()
    top = small.folder / "federation.yaml"
    top.write_text(top.read_text(encoding="utf-8").replace("resident: {}, ", ""), encoding="utf-8")
    asked = run.invoke(app, ["correction", "list", "--file", str(small.folder)])
    assert asked.exit_code == 0 and "R1" in asked.output
