"""Metrics: numbers that a person could count, within bounds, in both formats, and documented."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from federation.cli import app
from federation.metrics import CATALOGUE, FATES, Sample
from federation.metrics_text import as_prometheus
from federation.report import samples
from tests.federations import CITY, E11, Small

ROOT = Path(__file__).parents[2]
run = CliRunner()


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)


def read(small: Small, links: int | None = 20) -> dict[tuple[str, ...], float]:
    return {(s.name, *s.tags): s.value for s in samples(small.federation, None, links)}


def test_what_is_counted_is_what_happened(small: Small) -> None:
    for number in range(3):
        small.resident(f"R{number}")
    small.resident("R9", phone="1")
    small.cascade()
    found = read(small)
    down = {level: found["fedsync_recent_rows", "resident", level, "descended"] for level in ("district", "street")}
    assert down["district"] >= 3
    assert found["fedsync_links", "resident", "community", "ok"] == 5
    assert found["fedsync_links", "visit", "community", "new"] == 5
    assert found["fedsync_quarantine_open", "resident", "city"] == 1
    assert found["fedsync_nodes", "resident", "community"] == 5
    assert found["fedsync_reach_ratio", "resident", "community", "down"] == 1
    assert found["fedsync_reach_ratio", "visit", "community", "up"] == 0
    assert found["fedsync_freshness_seconds", "resident"] == 24 * 3600
    assert found["fedsync_recent_runs", "resident", "community", "ok"] >= 1
    assert found["fedsync_recent_runs", "resident", "community", "failed"] == 0


def test_lag_and_overdue_corrections_grow_with_time(small: Small) -> None:
    small.resident("R1")
    small.cascade()
    small.put(E11, "R1", name="王玮")
    small.cascade()
    assert read(small)["fedsync_corrections_open", "resident", "city"] == 1
    assert read(small)["fedsync_corrections_overdue", "resident", "city"] == 0
    small.clock.now += timedelta(days=60)
    found = read(small)
    assert found["fedsync_corrections_overdue", "resident", "city"] == 1
    lag = found["fedsync_lag_seconds_max", "resident", "community"]
    assert 60 * 86400 <= lag < 60 * 86400 + 60
    assert found["fedsync_recent_runs", "resident", "community", "ok"] == 0


def test_a_held_link_is_counted_and_comes_first_among_the_worst(small: Small) -> None:
    for number in range(30):
        small.resident(f"R{number}")
    small.cascade()
    for number in range(30):
        small.drop(E11, f"R{number}")
    small.federation.cascade("resident")
    found = read(small, links=1)
    assert found["fedsync_links", "resident", "community", "held"] == 1
    named = [key for key in found if key[0] == "fedsync_link_ok" and key[1] == "resident"]
    assert named == [("fedsync_link_ok", "resident", "community", f"resident/{E11}", "东华门街道 → 多福巷社区")]
    assert found[named[0]] == 0
    assert found["fedsync_recent_runs", "resident", "community", "held"] >= 1


def test_only_the_worst_links_are_named_unless_all_are_asked_for(small: Small) -> None:
    small.resident("R1")
    small.cascade()

    def named(links: int | None) -> int:
        return sum(key[0] == "fedsync_link_ok" and key[1] == "resident" for key in read(small, links))

    assert [named(links) for links in (0, 3, None)] == [0, 3, 10]


def test_every_fate_of_a_run_is_there_and_adds_up_to_what_was_read(small: Small) -> None:
    small.resident("R1")
    small.resident("R2", phone="1")
    small.cascade()
    found = read(small)
    for level in ("district", "street", "community"):
        for fate in FATES:
            assert ("fedsync_recent_rows", "resident", level, fate) in found


def test_the_prometheus_text_is_what_prometheus_parses_back(small: Small) -> None:
    small.resident("R1")
    small.cascade()
    wanted = samples(small.federation, None, 20)
    parsed = {
        (family.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(as_prometheus(wanted))
        for one in family.samples
    }
    assert parsed == {(s.name, tuple(sorted(s.named.items()))): s.value for s in wanted}
    assert as_prometheus([Sample("fedsync_nodes", 1, ('a"b\\', "c\nd"))]).count("\n") == 3


def test_the_command_prints_both_formats_and_replaces_a_file_whole(small: Small, tmp_path: Path) -> None:
    small.resident("R1")
    small.cascade()

    def call(*words: str) -> Any:
        return run.invoke(app, ["metrics", *words, "--file", str(small.folder)])

    told = json.loads(call("--format", "json", "--dataset", "resident").output)
    assert {one["tags"].get("dataset", "resident") for one in told} == {"resident"}
    target = tmp_path / "fedsync.prom"
    result = call("--output", str(target))
    assert (result.exit_code, result.output) == (0, "")
    assert target.read_text().startswith("# HELP fedsync_links ")
    assert [path.name for path in tmp_path.glob(".fedsync.prom*")] == []
    missing = call("--format", "json", "--output", str(tmp_path / "none" / "x.prom"))
    assert missing.exit_code == 1
    assert json.loads(missing.output)["ok"] is False


def test_no_metric_holds_a_value_or_a_key_of_a_record(small: Small) -> None:
    small.resident("KEY-4711", name="欧阳震华", phone="1")
    small.cascade()
    small.put(E11, "KEY-4711", name="欧阳振华")
    small.federation.cascade("resident")
    text = as_prometheus(samples(small.federation, None, None))
    assert not [word for word in ("欧阳", "4711", "110101199001010015") if word in text]
    assert CITY not in text  # regions are named by the links to them


def test_the_documentation_lists_every_metric_with_its_tags_and_none_else() -> None:
    text = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(fedsync_[a-z_]+)` \| ([^|]*) \|", text, re.MULTILINE))
    assert {name: set(re.findall(r"[a-z]+", tags)) for name, tags in rows.items()} == {
        name: set(metric.tags) for name, metric in CATALOGUE.items()
    }


def test_the_dashboard_shows_only_metrics_that_are_there() -> None:
    board = json.loads((ROOT / "docs/grafana/fedsync.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    named = {name for expression in expressions for name in re.findall(r"fedsync_[a-z_]+", expression)}
    assert named <= set(CATALOGUE)
    assert len(named) >= 12
    tags = {tag for name in named for tag in CATALOGUE[name].tags}
    for expression in expressions:
        assert set(re.findall(r"by \(([a-z, ]+)\)", expression)) <= {", ".join(sorted(tags)), *tags, *_pairs(tags)}


def _pairs(tags: set[str]) -> set[str]:
    return {f"{a}, {b}" for a in tags for b in tags}
