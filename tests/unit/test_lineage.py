"""Lineage: directions follow the authority of each field; places name the system without its credentials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from federation.config import load
from federation.lineage import Flow, Place, flows, place_of, within
from federation.outcome import Outcome
from federation.secrets import resolve
from tests.airflow.declared import declare
from tests.federations import CITY, E11, EAST, EAST_1

PLACES = """
name: small
systems:
  pg: {connector: sql, options: {url: {env: PG}, table: rk_jbxx}}
  my: {connector: sql, options: {url: "mysql+pymysql://reader@10.1.2.3/hall"}}
  king: {connector: sql, options: {url: "kingbase://reader@10.1.2.4/hall"}}
  dm: {connector: sql, options: {url: "dameng://reader@10.1.2.5/HALL"}}
  lite: {connector: sql, options: {url: "sqlite:///{home}/a.db"}}
  api: {connector: rest, options: {base_url: "https://api.city.gov.cn:8443/v1", path: /people, token: {env: T}}}
  book: {connector: workbook, options: {path: "{home}/in/{region}.xlsx"}}
  far: {connector: workbook, options: {path: "sftp://desk@files.gov.cn/in/a.xlsx", sheet: 居民}}
  mem: {connector: memory, options: {store: s}}
nodes: []
"""
NODE = "  - {{system: {system}, level: {level}, datasets: {{resident: {{columns: {{name: xm}}, codes: {{care_level: {{无: 0, 一般: 1, 重点: 2}}}}}}}}}}\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PG", "postgresql://sync:s3cret@db.city.gov.cn/people?password=s3cret")
    monkeypatch.setenv("T", "s3cret")

    def of(system: str) -> Place:
        nodes = NODE.format(system=system, level="community")
        config = load(
            declare(tmp_path / system, **{"federation.yaml": PLACES.replace("nodes: []\n", "nodes:\n") + nodes})
        )
        return place_of(config, config.binding("resident", E11), resolve)

    return of


@pytest.mark.parametrize(
    ("system", "namespace", "name"),
    [
        ("pg", "postgres://db.city.gov.cn:5432", "people.public.rk_jbxx"),
        ("my", "mysql://10.1.2.3:3306", "hall.resident"),
        ("king", "postgres://10.1.2.4:54321", "hall.public.resident"),
        ("dm", "dm://10.1.2.5:5236", "HALL.resident"),
        ("lite", "file", "{home}/a.db#resident"),
        ("api", "https://api.city.gov.cn:8443", "v1/people"),
        ("book", "file", "{home}/in/" + E11 + ".xlsx"),
        ("far", "sftp://files.gov.cn", "in/a.xlsx#居民"),
        ("mem", "fedsync://small", f"mem/resident/{E11}"),
    ],
)
def test_a_place_names_the_system_without_credentials_and_the_table_in_it(
    place: Any, tmp_path: Path, system: str, namespace: str, name: str
) -> None:
    found = place(system)
    assert found == Place(namespace, name.format(home=tmp_path / system))
    assert not [word for word in ("s3cret", "sync@", "reader", "desk@") if word in f"{found.namespace}{found.name}"]


def both(config: Any, lower: str, **numbers: Any) -> tuple[Flow, ...]:
    link = config.link("resident", lower)
    return flows(config, link, Outcome("r", link.id, link.upper.code, lower, **numbers), resolve)


def names(flow: Flow) -> set[str]:
    return {target for _, target, _ in flow.columns}


def test_what_a_level_above_owns_flows_down_and_what_a_level_below_owns_flows_up(tmp_path: Path) -> None:
    config = load(declare(tmp_path))
    down, up = both(config, EAST)
    assert names(down) == {"resident_id", "name", "id_number", "community_code"}
    assert names(up) == {"resident_id", "phone", "care_level"}
    down, up = both(config, EAST_1)
    assert "id_number" not in names(down)  # not visible below the district
    assert down.source.place == Place("fedsync://small", f"hosted/resident/{EAST}")
    assert up.target.place == down.source.place


def test_what_is_shared_flows_both_ways(tmp_path: Path) -> None:
    shared = (
        "name: note\nlabel: 备注\nlevels: [city, district]\nkey: [id]\njurisdiction: place\nversion: at\noriginates: [city]\nfields:\n"
        "  id: {label: 号, authority: city}\n  place: {label: 属地, authority: city}\n"
        "  at: {label: 时间, type: timestamp, authority: shared}\n  text: {label: 文, authority: shared}\n"
    )
    config = load(declare(tmp_path, **{"datasets/note.yaml": shared}))
    link = config.link("note", EAST)
    down, up = flows(config, link, Outcome("r", link.id, CITY, EAST), resolve)
    assert names(down) == {"id", "place", "at", "text"}
    assert names(up) == {"id", "at", "text"}


def test_columns_go_by_the_systems_own_names_and_code_tables_show(tmp_path: Path) -> None:
    nodes = NODE.format(system="mem", level="district")
    config = load(declare(tmp_path, **{"federation.yaml": PLACES.replace("nodes: []\n", "nodes:\n") + nodes}))
    down, up = both(config, EAST)
    assert ("name", "xm", False) in down.columns
    assert ("care_level", "care_level", True) in up.columns
    assert "xm" in {column.name for column in down.target.columns}


def test_rows_are_those_read_at_the_source_and_written_at_the_target(tmp_path: Path) -> None:
    config = load(declare(tmp_path))
    accounts = {"upper": {"read": 7}, "lower": {"read": 3}}
    down, up = both(config, EAST, descended=5, removed_below=1, ascended=2, accounts=accounts)
    assert (down.rows, down.written, up.rows, up.written) == (7, 6, 3, 2)


def test_a_batch_that_is_too_large_leaves_links_out_and_counts_them(tmp_path: Path) -> None:
    config = load(declare(tmp_path))
    pairs = [both(config, EAST) for _ in range(5)]
    kept, left_out = within(pairs, most=15)
    assert (len(kept), left_out) == (4, 3)
