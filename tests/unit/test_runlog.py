"""The log: a run's story in a few lines whose numbers add up, with fields for programs, and no value of any record."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from federation.cli import app
from federation.errors import LeaseHeld, LinkHeld, Transient
from federation.logformat import NAME
from federation.outcome import Outcome
from federation.runlog import batch_line, ended, link_line
from tests.federations import CITY, E11, EAST, Small


@pytest.fixture(autouse=True)
def _quiet_again() -> Iterator[None]:
    yield
    log = logging.getLogger(NAME)
    log.handlers, log.propagate = [], True


def log_of(small: Small, *words: str) -> tuple[int, list[dict[str, Any]], str]:
    result = CliRunner().invoke(app, ["--log-format", "json", "sync", *words, "--json", "--file", str(small.folder)])
    json.loads(result.stdout)
    return result.exit_code, [json.loads(line) for line in result.stderr.splitlines()], result.stderr


def test_the_command_writes_one_json_object_a_line_beside_its_answer(tmp_path: Path) -> None:
    small = Small(tmp_path)
    small.resident("R1")
    code, lines, _ = log_of(small, "--dataset", "resident")
    assert code == 0
    (first, *_) = [line for line in lines if line["link"] == f"resident/{EAST}"]
    assert (first["dataset"], first["upper"], first["lower"]) == ("resident", CITY, EAST)
    assert (first["level"], first["logger"], first["outcome"]) == ("info", "fedsync", "ok")
    assert re.fullmatch(r"[0-9a-f]{32}", first["run_id"])
    assert first["timestamp"].endswith("Z")
    assert first["descended"] == 1


def test_the_numbers_of_a_line_add_up_to_what_was_read(tmp_path: Path) -> None:
    small = Small(tmp_path)
    for number in range(3):
        small.resident(f"R{number}")
    small.resident("R9", phone="1")
    _, lines, _ = log_of(small, "--dataset", "resident")
    told = [line["event"] for line in lines if "读 read" in line["event"]]
    assert told
    for text in told:
        for read, parts in re.findall(r"读 read (\d+) = ([^;]*)", text):
            assert int(read) == sum(map(int, re.findall(r"(\d+)(?: \+|$)", parts)))
    assert any("fedsync quarantine list --dataset resident" in text for text in told)


def test_a_held_link_says_why_and_what_to_do_and_no_line_holds_a_value(tmp_path: Path) -> None:
    small = Small(tmp_path)
    for number in range(30):
        small.resident(f"R{number}", name="欧阳震华", phone="13812345678")
    small.cascade()
    for number in range(30):
        small.drop(E11, f"R{number}")
    code, lines, text = log_of(small, "--dataset", "resident")
    assert code == 1
    (held, *_) = [line for line in lines if line["level"] == "error"]
    assert held["link"] == f"resident/{E11}"
    assert re.fullmatch(r"[0-9a-f]{32}", held["run_id"])
    assert f"fedsync link release resident/{E11}" in held["event"]
    assert "欧阳震华" not in text
    assert "13812345678" not in text


def test_without_the_option_the_command_logs_nothing(tmp_path: Path) -> None:
    small = Small(tmp_path)
    small.resident("R1")
    result = CliRunner().invoke(app, ["sync", "--json", "--file", str(small.folder)])
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_batch_adds_its_links_up_and_says_what_to_do_about_failures() -> None:
    outcomes = [
        Outcome("r", "d/1", CITY, EAST, descended=2, removed_above=1, quarantined=1),
        Outcome.nothing("r", "d/2", CITY, E11, error="x"),
    ]
    line = batch_line("d", CITY, outcomes)
    assert (line.level, line.fields["down"], line.fields["removed"], line.fields["failed"]) == (
        logging.WARNING,
        2,
        1,
        1,
    )
    assert "fedsync status --dataset d" in line.text


def test_a_line_says_how_its_run_ended() -> None:
    outcome = Outcome.nothing("r", "d/1", CITY, EAST, error="x")
    how = {type(error): ended(error) for error in (LinkHeld("", ""), LeaseHeld("", ""), Transient("", ""))}
    assert list(how.values()) == ["held", "busy", "failed"]
    assert link_line(outcome, LeaseHeld("", "")).level == logging.WARNING
    assert link_line(outcome, LinkHeld("", "")).fields["outcome"] == "held"
