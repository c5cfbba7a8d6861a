"""`fedsync trace`: what it prints, for people and for programs, and that no value is among it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from federation.cli import app
from tests.federations import CITY, E11, EAST, EAST_1, VISIT, W11, Small

run = CliRunner(env={"COLUMNS": "72"})


@pytest.fixture
def small(tmp_path: Path) -> Small:
    made = Small(tmp_path)
    made.clock.now = datetime.now(UTC)  # the command reads the machine's clock
    made.resident("R1")
    made.cascade()
    return made


def call(small: Small, *words: str) -> tuple[int, str]:
    result = run.invoke(app, ["trace", *words, "--file", str(small.folder)])
    return result.exit_code, result.output


def told(small: Small, *words: str) -> Any:
    code, text = call(small, *words, "--json")
    assert code == 0
    return json.loads(text)


def test_the_summary_comes_first_and_the_path_is_a_tree_from_the_city_down(small: Small) -> None:
    code, text = call(small, "resident", "R1")
    lines = text.splitlines()
    assert (code, lines[0]) == (0, "居民 resident · R1")
    assert (lines[1], lines[2]) == ("到达 4/4 级，各级版本一致", "reached 4 of 4 levels, the same version on each")
    named = [next(n for n, line in enumerate(lines) if code in line) for code in (CITY, EAST, EAST_1, E11)]
    assert named == sorted(named)
    assert text.count("✓ 两端一致 agreed") == 3
    assert "read 6 of 10 baselines" in text
    assert "by the ledger alone" in " ".join(text.split())


def test_it_fits_a_narrow_terminal(small: Small) -> None:
    small.put(E11, "R1", phone="138", name="王玮")
    small.cascade()
    _, text = call(small, "resident", "R1", "--live")
    width = [sum(2 if ord(letter) > 0x2E80 else 1 for letter in line.rstrip()) for line in text.splitlines()]
    assert max(width) <= 72


def test_json_is_one_document_with_times_of_the_federations_zone(small: Small) -> None:
    document = told(small, "resident", "R1")
    assert (document["dataset"], document["key"], document["reached"], document["levels"]) == ("resident", "R1", 4, 4)
    assert document["path"] == [CITY, EAST, EAST_1, E11]
    assert document["summary"]["en"].startswith("reached 4 of 4")
    last = document["hops"][-1]
    assert (last["link"], last["agreed"], last["state"]) == (f"resident/{E11}", True, "ok")
    assert {group["group"]: len(group["version"]) for group in last["groups"]} == {"city": 8, "community": 8}
    assert (
        datetime.fromisoformat(last["since"]).utcoffset()
        == datetime.fromisoformat("2026-01-01T00:00+08:00").utcoffset()
    )
    assert last["receipts"][0]["region"] == E11
    assert (document["live"], document["nodes"]) == (False, [])


def test_live_says_what_each_node_holds_now(small: Small) -> None:
    small.put(E11, "R1", phone="13911111111")
    document = told(small, "resident", "R1", "--live")
    assert {n["region"]: n["state"] for n in document["nodes"]} == {
        CITY: "same",
        EAST: "same",
        EAST_1: "same",
        E11: "edited",
    }
    _, text = call(small, "resident", "R1", "--live")
    flat = "".join(text.split())
    assert "此后在此被改动editedheresince：community（手机号、关爱等级）" in flat
    assert "asked4nodes" in flat


def test_all_reads_every_baseline(small: Small) -> None:
    assert told(small, "resident", "R1", "--all")["read"] == 10


def test_an_unknown_record_or_dataset_or_a_wrong_key_ends_with_1_and_says_what_to_do(small: Small) -> None:
    for words, en in (
        (("resident", "R404"), "no link knows this record"),
        (("nothing", "R1"), "there is no dataset nothing"),
        (("resident", "R1", "R2"), "the key of resident has 1 field(s), 2 given"),
    ):
        code, text = call(small, *words, "--json")
        (error,) = json.loads(text)["errors"]
        assert (code, error["en"].startswith(en), bool(error["zh"] and error["todo"])) == (1, True, True)
    assert call(small, "resident")[0] == 2


def test_a_composite_key_is_given_in_parts(tmp_path: Path) -> None:
    visit = VISIT.replace("key: [visit_id]", "key: [visit_id, visited_on]")
    small = Small(tmp_path, changes={"datasets/visit.yaml": visit})
    small.put(E11, "V1", "visit", community_code=E11, visited_on="2026-01-05", summary="好")
    small.cascade("visit")
    assert told(small, "visit", "V1", "2026-01-05")["reached"] == 4
    assert told(small, "visit", '["V1","2026-01-05"]')["reached"] == 4


def test_no_value_of_the_record_is_printed_whatever_became_of_it(small: Small) -> None:
    secrets = {"name": "欧阳震华", "id_number": "110101199001010023", "phone": "13812345678"}
    small.put(CITY, "R1", **secrets)
    small.cascade()
    small.put(E11, "R1", name="夏侯惇", phone="1381234")  # a correction, and a record in quarantine
    small.cascade()
    small.put(CITY, "R1", community_code=W11)  # a carried edit, tombstones
    small.federation.sync_parent("resident", CITY)
    small.put(EAST_1, "R1", care_level="重点")
    for community in (E11, W11):  # a contested key
        small.put(community, "V1", "visit", community_code=community, summary=f"来自{community}的走访")
    small.put(EAST_1, "V1", "visit", visited_on="大前天")  # a row that cannot be read
    small.cascade("visit")
    values = [*secrets.values(), "夏侯惇", "1381234", "王伟", "13800000000", "重点", "的走访", "大前天"]
    for words in (("resident", "R1"), ("visit", "V1")):
        for options in ((), ("--live",), ("--json",), ("--json", "--live")):
            code, text = call(small, *words, *options)
            assert code == 0
            assert not [value for value in values if value in text], options
    document = told(small, "resident", "R1")
    assert {line["kind"] for line in document["corrections"]} >= {"edit"}
    assert [o["kind"] for hop in document["hops"] for o in hop["obstacles"]].count("quarantined") == 1
    assert document["removals"]


def test_corrections_and_tombstones_are_listed_below_the_tree(small: Small) -> None:
    small.put(E11, "R1", name="王玮")
    small.cascade()
    small.put(CITY, "R1", community_code=W11)
    small.cascade()
    _, text = call(small, "resident", "R1")
    flat = " ".join(text.split())
    assert "校核 corrections" in flat
    assert "更正 edit（姓名） waiting · 多福巷社区 → 北京市" in flat
    assert "移除记录 tombstones" in flat
    assert "东城区 已迁出 moved → 府南社区" in flat
