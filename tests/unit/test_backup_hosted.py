"""Backups of hosted records: people's own data, put back only where they were lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from federation.cli import app
from federation.errors import Permanent
from tests.airflow.declared import BRANCH, Hands, declare
from tests.federations import CITY, E11, EAST_1


@pytest.fixture
def declaration(tmp_path: Path) -> Path:
    """A federation whose every node is hosted, at rest, and a backup of it in `backup`."""
    path = declare(tmp_path / "federation")
    hands = Hands(path)
    for key in ("R1", "R2", "R3"):
        hands.resident(key)
    hands.settle()
    hands.federation.close()
    assert run("backup", str(tmp_path / "backup"), "-f", str(path)) == 0
    return path


def run(*words: str) -> int:
    return CliRunner().invoke(app, list(words)).exit_code


def lose(declaration: Path) -> None:
    for path in (declaration.parent / "state").glob("hosted.db*"):
        path.unlink()


def test_what_people_typed_since_the_backup_stays_unless_it_is_asked_for(declaration: Path, tmp_path: Path) -> None:
    hands = Hands(declaration)
    hands.put(E11, "R1", phone="13911111111")
    hands.settle()
    hands.put(CITY, "R2", name="王芳")
    hands.federation.close()
    assert run("restore", str(tmp_path / "backup"), "-f", str(declaration)) == 0
    hands = Hands(declaration)
    assert not hands.federation.cascade("resident").errors
    assert {hands.get(region, "R1")["phone"] for region in BRANCH} == {"13911111111"}
    assert {hands.get(region, "R2")["name"] for region in BRANCH} == {"王芳"}
    assert hands.federation.services.corrections.active("resident") == []
    hands.federation.close()


def test_hosted_records_that_were_lost_come_back_and_the_first_sync_changes_nothing(
    declaration: Path, tmp_path: Path
) -> None:
    lose(declaration)
    assert run("restore", str(tmp_path / "backup"), "--hosted", "-f", str(declaration), "--json") == 0
    hands = Hands(declaration)
    assert hands.federation.cascade("resident").moved == 0
    assert {hands.get(region, "R1")["phone"] for region in BRANCH} == {"13800000000"}
    hands.put(E11, "R1", phone="13911111111")
    hands.settle()
    assert hands.get(CITY, "R1")["phone"] == "13911111111"
    hands.federation.close()


def test_an_older_copy_put_in_their_place_by_hand_is_noticed_before_it_overwrites_anything(
    declaration: Path, tmp_path: Path
) -> None:
    state = declaration.parent / "state"
    hands = Hands(declaration)
    hands.federation.close()
    shutil.copy(state / "hosted.db", tmp_path / "old.db")
    hands = Hands(declaration)
    hands.put(E11, "R1", phone="13911111111")
    hands.settle()
    with hands.federation.node("resident", EAST_1) as node:
        cursor = node.probe().token
        lose(declaration)
        shutil.copy(tmp_path / "old.db", state / "hosted.db")
    hands.federation.close()
    hands = Hands(declaration)
    with pytest.raises(Permanent, match="older copy"), hands.federation.node("resident", EAST_1) as node:
        node.changes(cursor)
    hands.federation.close()


def test_a_ledger_that_was_put_back_by_its_own_tools_lets_every_link_compare_everything(
    declaration: Path, tmp_path: Path
) -> None:
    state = declaration.parent / "state"
    shutil.copy(state / "ledger.db", tmp_path / "ledger.db")
    hands = Hands(declaration)
    hands.put(E11, "R1", phone="13911111111")
    hands.settle()
    hands.federation.close()
    for path in state.glob("ledger.db*"):
        path.unlink()
    shutil.copy(tmp_path / "ledger.db", state / "ledger.db")
    assert run("restore", "--in-place", "-f", str(declaration)) == 0
    hands = Hands(declaration)
    news = hands.federation.sweep("resident")
    assert CITY in news.parents["city"] and EAST_1 in news.parents["street"]
    assert not hands.federation.cascade("resident").errors
    assert {hands.get(region, "R1")["phone"] for region in BRANCH} == {"13911111111"}
    hands.federation.close()


def test_a_command_without_a_place_says_what_is_missing(declaration: Path) -> None:
    told = CliRunner().invoke(app, ["restore", "-f", str(declaration)])
    assert told.exit_code == 2
    refused = CliRunner().invoke(app, ["restore", str(declaration.parent), "-f", str(declaration), "--json"])
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["errors"][0]["kind"] == "Unreadable"
