"""Erasing one person: afterwards no store of the federation holds any value of the record, and it does not come back."""

from __future__ import annotations

import json
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from psycopg import sql
from sqlalchemy import select, update
from typer.testing import CliRunner

from connectors.base import Batch, no_keys
from connectors.memory import MemoryConnector
from federation.cli import app
from federation.errors import FedsyncError, Transient
from federation.ledger.erasures import ERASED, without_key
from federation.ledger.schema import metadata
from federation.pausing import pause_of
from federation.runtime import open_eraser, open_federation
from tests.federations import CITY, E11, E12, E21, EAST, EAST_1, REGIONS, RESIDENT, SUITE, VISIT, W11, Small, written
from tests.servers import postgres_schema, postgres_url

VALUES = ("欧阳震华", "欧阳正华", "110101197001010077", "13712345678", "137123", "13787654321")
KEY = "R-7f3a9c51"


@pytest.fixture
def small(tmp_path: Path) -> Small:
    made = Small(tmp_path)
    made.resident(KEY, E11, name=VALUES[0], phone=VALUES[3])
    made.resident("R2", E11)
    made.cascade()
    return made


def erase(small: Small, key: str = KEY, dataset: str = "resident") -> Any:
    eraser = open_eraser(small.folder, "test", clock=small.clock)
    return eraser.erase(dataset, key, reason="本人撤回同意", by="李工")


def finish(small: Small) -> list[Any]:
    return open_eraser(small.folder, "test", clock=small.clock).finish()


def mentions(small: Small, key: str = KEY) -> dict[str, int]:
    """Table of the ledger → rows in which the key stands somewhere."""
    found = {}
    with small.federation.services.ledger.transaction() as connection:
        for table in metadata.tables.values():
            lines = connection.execute(select(table)).all()
            found[table.name] = sum(key in str(tuple(line)) for line in lines)
    return {name: number for name, number in found.items() if number}


def in_baselines(small: Small, key: str = KEY) -> list[str]:
    from federation.ledger.baselines import Manifest

    baselines = small.federation.services.baselines
    return [
        state.link_id
        for state in small.federation.services.links.all().values()
        if baselines.pick(Manifest.parse(state.baseline), {}, pa.array([key])).num_rows
    ]


def test_the_record_is_gone_from_every_node_stays_gone_and_nobody_else_loses_anything(small: Small) -> None:
    done = erase(small)
    assert (done.state, done.key, done.waits_for) == ("done", "", {})
    assert small.holders(KEY) == set()
    assert small.holders("R2") == {CITY, EAST, EAST_1, E11}
    assert mentions(small) == {}
    assert in_baselines(small) == []
    assert small.cascade(force_full=True).moved == 0
    assert not any(small.federation.sweep("resident").parents.values())
    assert small.holders(KEY) == set()
    assert erase(small).erasure_id == done.erasure_id, "once more is the same"


def test_a_record_that_only_the_community_may_delete_is_erased_above_as_well(small: Small) -> None:
    small.put(E11, "V-1", "visit", community_code=E11, summary=VALUES[0])
    small.cascade("visit")
    assert erase(small, "V-1", "visit").state == "done"
    assert small.holders("V-1", "visit") == set()
    assert mentions(small, "V-1") == {}


def test_what_no_link_carries_is_erased_where_it_stands(small: Small) -> None:
    small.put(E21, KEY, community_code=E21, name=VALUES[0], phone=VALUES[3])  # claimed by another community
    small.put(W11, KEY, community_code=E11, name=VALUES[0])  # a copy that lies outside its jurisdiction
    small.cascade()
    assert {E21, W11} <= small.holders(KEY)
    assert KEY in {line["resident_id"] for line in small.store(W11).returns}
    assert erase(small).state == "done"
    assert KEY not in {line["resident_id"] for line in small.store(W11).returns if line["state"] != "closed"}
    assert VALUES[0] not in str(small.store(W11).returns)
    assert small.holders(KEY) == set()
    assert mentions(small) == {}
    small.cascade()
    assert small.holders(KEY) == set()


def test_corrections_returns_and_waivers_are_emptied_and_people_see_them_no_more(small: Small) -> None:
    small.put(E11, KEY, name=VALUES[1])
    small.put(E11, "R2", name="王炜", phone="1380")
    small.cascade()
    small.put(E11, KEY, phone=VALUES[4])
    small.cascade()
    (item,) = small.federation.services.quarantine.open_items(key=KEY)
    small.federation.waive(item.item_id, by="李工", reason="核实", until=date(2027, 1, 1), actor="test")
    store = small.store(E11)
    assert {line["resident_id"] for line in store.returns} == {KEY, "R2"}
    assert {line["resident_id"] for line in small.store(CITY).corrections} == {KEY, "R2"}
    assert erase(small).state == "done"
    assert {line["resident_id"] for line in store.returns if line["state"] != "closed"} == {"R2"}
    for region in (CITY, EAST, EAST_1, E11):
        shown = str((small.store(region).returns, small.store(region).corrections))
        assert not [value for value in VALUES if value in shown]
    assert {line["resident_id"] for line in small.store(CITY).corrections} == {"R2"}
    assert mentions(small) == {}
    assert small.federation.services.quarantine.open_items(key="R2")
    assert small.federation.services.corrections.active("resident")


@pytest.mark.parametrize("region", [CITY, EAST, EAST_1, E11, E12])
def test_a_node_that_is_down_keeps_the_erasure_pending_and_a_later_run_finishes_it(
    small: Small, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(self: MemoryConnector, *given: Any, original: Any, **named: Any) -> Any:
        if self.node.region.code == region:
            raise Transient("no answer", "无响应")
        return original(self, *given, **named)

    for name in ("probe", "changes", "fetch", "apply"):
        original = getattr(MemoryConnector, name)
        monkeypatch.setattr(MemoryConnector, name, lambda s, *g, _o=original, **n: down(s, *g, original=_o, **n))
    pending = erase(small)
    assert pending.state == "pending"
    assert region in pending.waits_for
    assert finish(small)[0].state == "pending"
    result = CliRunner().invoke(app, ["erase", "list", "--json", "--file", str(small.folder)])
    (told,) = json.loads(result.output)
    assert (told["state"], region in told["waits"], told["asked_by"]) == ("pending", True, "李工")
    assert KEY not in json.dumps({name: value for name, value in told.items() if name != "waits"})
    monkeypatch.undo()
    (done,) = finish(small)
    assert done.state == "done"
    assert small.holders(KEY) == set()
    assert mentions(small) == {}
    assert small.cascade(force_full=True).moved == 0
    assert small.holders(KEY) == set()


def test_a_pause_keeps_it_pending_too_and_the_next_sync_after_it_finishes_it(small: Small) -> None:
    pause_of(small.federation.services, "region", EAST_1, "检修", None, "李工")
    pending = erase(small)
    assert pending.state == "pending"
    assert {EAST_1, E11} <= set(pending.waits_for)
    small.federation.services.pauses.resume("region", EAST_1, "李工")
    result = CliRunner().invoke(app, ["sync", "--dataset", "resident", "--file", str(small.folder)])
    assert result.exit_code == 0, result.output
    assert [one.state for one in open_eraser(small.folder, "test", clock=small.clock).erasures.all()] == ["done"]
    assert small.holders(KEY) == set()


def test_a_key_that_nobody_knows_is_an_error_and_leaves_nothing_behind(small: Small) -> None:
    with pytest.raises(FedsyncError, match="no node holds"):
        erase(small, "nobody")
    assert open_eraser(small.folder, "test", clock=small.clock).erasures.all() == []
    assert mentions(small, "nobody") == {}


def test_the_command_asks_for_a_reason_and_for_who_answers_and_tells_no_key(small: Small) -> None:
    def call(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, [*words, "--file", str(small.folder)])
        return result.exit_code, result.output

    assert call("erase", "resident")[0] == 2
    assert call("erase", "resident", KEY)[0] == 1
    code, text = call("erase", "resident", KEY, "--reason", "本人撤回同意", "--by", "李工", "--json")
    assert (code, json.loads(text)[0]["state"]) == (0, "done")
    assert KEY not in text
    code, text = call("erase", "list")
    assert code == 0
    assert KEY not in text
    assert call("erase", "finish")[0] == 0


def test_what_is_staged_for_other_processes_is_thrown_away_if_it_speaks_of_the_record(small: Small) -> None:
    staging = small.federation.services.staging
    told = small.federation.stage(small.federation.collect("resident", EAST, force_full=True))
    other = small.federation.stage(
        small.federation.collect("resident", small.federation.config.tree["110102000000"].code)
    )
    reading = staging.load(told)
    assert reading is not None
    assert VALUES[0] in str(reading.rows.to_pylist())
    erase(small)
    assert staging.load(told) is None
    assert not list((small.federation.config.state / "staging" / told).glob("*.parquet"))
    assert staging.load(other) is not None


def test_a_key_is_taken_out_of_a_text_only_where_it_stands_alone() -> None:
    assert "R1" not in without_key("[link=x key=R1] R1, R1", "R1")
    assert without_key("R10, xR1, R1-2", "R1") == "R10, xR1, R1-2"


def test_the_audit_trail_and_the_errors_lose_the_key_and_nothing_else(small: Small) -> None:
    services = small.federation.services
    small.resident("7", E11, name=VALUES[0])
    small.cascade()
    with services.ledger.transaction() as connection:
        for action, detail in (
            ("hosted.put", "7 records: 7, 77, R-7"),
            ("hosted.show", "7"),
            ("link.settle", '{"n": 7}'),
        ):
            services.ledger.audit(connection, "test", action, f"resident/{E11}", detail)
        connection.execute(
            update(metadata.tables["link"])
            .where(metadata.tables["link"].c.link_id == f"resident/{W11}")
            .values(state="held", reason_en="lost 7 of 7 [link=x key=7, 8]")
        )
    assert erase(small, "7").state == "done"
    with services.ledger.transaction() as connection:
        audit = metadata.tables["audit"]
        lines = connection.execute(select(audit.c.detail).where(audit.c.actor == "test", audit.c.subject.contains(E11)))
        assert [detail for (detail,) in lines] == [f"7 records: {ERASED}, 77, R-7", ERASED, '{"n": 7}']
    assert services.links.all()[f"resident/{W11}"].reason_en == f"lost 7 of 7 [link=x key={ERASED}, 8]"


# --- on real stores: PostgreSQL, SQLite, hosted by the engine, workbooks

TOP = """
name: real
systems:
  city: {{connector: sql, options: {{url: "{url}", schema_name: "{schema}", create: true}}}}
  district: {{connector: sql, options: {{url: "sqlite:///{{home}}/{{region}}.db", create: true}}}}
  community: {{connector: workbook, options: {{path: "{{home}}/{{region}}.xlsx"}}}}
nodes:
  - {{system: city, level: city, datasets: {{resident: {{}}}}}}
  - {{system: district, level: district, datasets: {{resident: {{}}}}}}
  - {{system: community, level: community, datasets: {{resident: {{}}}}}}
"""


@pytest.fixture
def real(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    with postgres_schema() as schema:
        files = {
            "federation.yaml": TOP.format(url=postgres_url(), schema=schema),
            "regions.csv": REGIONS,
            "datasets/resident.yaml": RESIDENT,
            "datasets/visit.yaml": VISIT,
            "expectations/resident.json": SUITE,
        }
        written(tmp_path, files)
        yield tmp_path, schema


def everything(folder: Path, schema: str) -> Iterator[tuple[str, str]]:
    """Each store of the federation, and all that it holds, as text: bytes as they lie on disk, and what is packed inside."""
    with psycopg.connect(postgres_url()) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [schema]).fetchall()
        assert names
        for (name,) in names:
            whole = sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(schema, name))
            yield f"postgres {name}", str(connection.execute(whole).fetchall())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield str(path), path.read_bytes().decode("utf-8", "replace")
        if path.suffix == ".xlsx":
            with zipfile.ZipFile(path) as archive:
                yield (
                    f"{path} inside",
                    "".join(archive.read(name).decode("utf-8", "replace") for name in archive.namelist()),
                )
        elif path.suffix == ".parquet":
            yield f"{path} inside", str(pq.read_table(path).to_pylist())
        elif path.suffix == ".db":
            with closing(sqlite3.connect(path)) as database:
                yield f"{path} inside", "".join(database.iterdump())


def test_no_value_is_left_in_any_database_workbook_ledger_or_folder(real: tuple[Path, str]) -> None:
    folder, schema = real
    federation = open_federation(folder)

    def put(region: str, **values: Any) -> None:
        with federation.node("resident", region) as node:
            node.prepare()
            row = pa.table({name: [value] for name, value in {"resident_id": KEY, **values}.items()})
            node.apply(Batch((row,), no_keys(node.node)))

    def sync() -> None:
        result = federation.cascade("resident")
        assert not result.errors, {link: str(error) for link, error in result.errors.items()}

    put(CITY, name=VALUES[0], id_number=VALUES[2], community_code=E11, phone=VALUES[3], care_level="重点")
    sync()
    put(E11, name=VALUES[1])
    sync()
    put(E11, phone=VALUES[5])
    sync()
    put(E11, phone=VALUES[4])
    put(E21, name=VALUES[0], community_code=E21, phone=VALUES[3])
    sync()
    federation.stage(federation.collect("resident", EAST, force_full=True))
    held = {value for value in VALUES for _, text in everything(folder, schema) if value in text}
    assert held == set(VALUES), "the search finds what is there"
    assert federation.services.quarantine.open_items(key=KEY)
    federation.close()
    eraser = open_eraser(folder, "test")
    done = eraser.erase("resident", KEY, reason="本人撤回同意", by="李工")
    assert (done.state, done.waits_for) == ("done", {})
    eraser.federation.close()
    left = [(place, value) for place, text in everything(folder, schema) for value in VALUES if value in text]
    assert left == []
    keys = [place for place, text in everything(folder, schema) if KEY in text]
    assert not [place for place in keys if "postgres" in place and "change" not in place]
    with closing(sqlite3.connect(folder / "state/ledger.db")) as ledger:
        assert KEY not in "".join(ledger.iterdump())
    again = open_federation(folder)
    assert again.cascade("resident", force_full=True).moved == 0
    again.close()
