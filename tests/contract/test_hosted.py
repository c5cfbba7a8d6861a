"""Hosted records keep the contract on SQLite and on PostgreSQL; people without a system have `edit` and `remove`."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from connectors.base import Batch, no_keys
from connectors.hosted import HostedConnector
from federation.canonical import key_table
from federation.errors import AccessDenied, Conflict, SchemaMismatch, Unreadable
from federation.regions import Region
from tests.contract import desk
from tests.contract.dataset import COMPOSITE, REGION, SAMPLE, make_node, row, table, whole
from tests.contract.sealed import KEY, unsealed
from tests.contract.suite import ConnectorContract, Row
from tests.servers import postgres_schema, postgres_url

OTHER = bytes(range(100, 132))
NEIGHBOUR = Region("110101001002", "银闸社区", "community", "110101001000")


class Hosted(ConnectorContract):
    """People reach a hosted table through the engine only, so nothing untyped can get in."""

    loose = False

    def url(self) -> str:
        return f"sqlite:///{self.folder / 'state' / 'hosted.db'}"

    def connector(self) -> HostedConnector:
        return HostedConnector(make_node(self.dataset, {"url": self.url(), "keys": (KEY,)}))

    def people_write(self, rows: list[Row]) -> None:
        for names in {tuple(values) for values in rows}:
            alike = [values for values in rows if tuple(values) == names]
            rejects = self.connector().edit(table(self.dataset, alike))
            assert not rejects.num_rows, rejects.to_pylist()

    def people_delete(self, key: Row) -> None:
        self.connector().remove(table(self.dataset, [key]))

    def people_see_returns(self) -> list[Row]:
        return [desk.return_seen(self.dataset, line) for line in self.connector().returned()]

    def payloads(self) -> list[tuple[str, str]]:
        with closing(sqlite3.connect(self.folder / "state" / "hosted.db")) as connection:
            return connection.execute("SELECT record_key, payload FROM hosted_record WHERE NOT deleted").fetchall()

    def stored(self) -> list[Row]:
        found = self.payloads()
        keys = key_table([key for key, _ in found], self.dataset).to_pylist()
        place = (self.dataset.name, REGION.code, "all")
        return [{**key, **unsealed(payload, *place, text)} for key, (text, payload) in zip(keys, found)]


class TestHostedInSqlite(Hosted):
    pass


class TestHostedInPostgres(Hosted):
    def start(self) -> None:
        self.closing = ExitStack()
        self.schema = self.closing.enter_context(postgres_schema())

    def stop(self) -> None:
        self.closing.close()

    def url(self) -> str:
        joint = "&" if "?" in postgres_url() else "?"
        return f"{postgres_url()}{joint}options=-csearch_path%3D{self.schema}"

    def payloads(self) -> list[tuple[str, str]]:
        with psycopg.connect(postgres_url()) as connection:
            return connection.execute(
                f"SELECT record_key, payload FROM {self.schema}.hosted_record WHERE NOT deleted"
            ).fetchall()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'hosted.db'}"


def opened(url: str, part: str = "all", keys: tuple[bytes, ...] = (KEY,), **place: Any) -> HostedConnector:
    connector = HostedConnector(make_node(SAMPLE, {"url": url, "part": part, "keys": keys}, **place))
    connector.prepare()
    return connector


def names(connector: HostedConnector) -> dict[str, str | None]:
    rows = connector.changes(None).rows
    return dict(zip(rows.column("record_id").to_pylist(), rows.column("name").to_pylist()))


def test_regions_in_one_database_see_nothing_of_each_other(url: str) -> None:
    here, there = opened(url), opened(url, region=NEIGHBOUR)
    here.edit(table(SAMPLE, [row("R1", name="甲")]))
    there.edit(table(SAMPLE, [row("R1", name="乙"), row("R2", name="丙")]))
    here.remove(table(SAMPLE, [{"record_id": "R1"}]))
    assert names(here) == {}
    assert names(there) == {"R1": "乙", "R2": "丙"}


def test_the_datasets_of_one_region_see_nothing_of_each_other(url: str) -> None:
    residents = opened(url)
    visits = HostedConnector(make_node(COMPOSITE, {"url": url, "keys": (KEY,)}))
    visits.prepare()
    residents.edit(table(SAMPLE, [row("R1")]))
    assert visits.changes(None).rows.num_rows == 0


def test_a_companion_does_not_collide_with_a_whole_node_of_the_same_region(url: str) -> None:
    whole_node = opened(url)
    companion = opened(url, "companion", fields=("record_id", "note"))
    whole_node.edit(table(SAMPLE, [whole("R1", note="整")]))
    companion.edit(table(SAMPLE, [{"record_id": "R1", "note": "伴"}, {"record_id": "R2", "note": "伴"}]))
    companion.remove(table(SAMPLE, [{"record_id": "R2"}]))
    assert whole_node.changes(None).rows.column("note").to_pylist() == ["整"]
    assert companion.changes(None).rows.to_pylist() == [{"record_id": "R1", "note": "伴"}]


def test_a_companion_that_gains_a_field_keeps_what_it_held(url: str) -> None:
    opened(url, "companion", fields=("record_id", "note")).edit(table(SAMPLE, [{"record_id": "R1", "note": "伴"}]))
    wider = opened(url, "companion", fields=("record_id", "note", "visits"))
    wider.edit(table(SAMPLE, [{"record_id": "R1", "visits": 3}]))
    assert wider.changes(None).rows.to_pylist() == [{"record_id": "R1", "note": "伴", "visits": 3}]


def test_deletions_are_told_without_a_sweep(url: str) -> None:
    connector = opened(url)
    connector.edit(table(SAMPLE, [row("R1"), row("R2")]))
    cursor = connector.changes(None).cursor
    connector.remove(table(SAMPLE, [{"record_id": "R1"}, {"record_id": "R9"}]))
    found = connector.changes(cursor, sweep=False)
    assert found.deleted.to_pylist() == [{"record_id": "R1"}]
    assert found.present is None and found.rows.num_rows == 0


def test_only_what_changed_since_the_cursor_is_read(url: str) -> None:
    connector = opened(url)
    connector.edit(table(SAMPLE, [row("R1"), row("R2")]))
    cursor = connector.changes(None).cursor
    connector.edit(table(SAMPLE, [{"record_id": "R2", "note": "改"}]))
    assert connector.changes(cursor).rows.column("record_id").to_pylist() == ["R2"]


def test_writing_what_is_held_already_is_no_news(url: str) -> None:
    connector = opened(url)
    connector.edit(table(SAMPLE, [whole("R1")]))
    before = connector.probe().token
    connector.edit(table(SAMPLE, [whole("R1")]))
    connector.remove(table(SAMPLE, [{"record_id": "R9"}]))
    assert connector.probe().token == before


def test_what_people_mistype_comes_back_with_a_reason_and_the_rest_is_kept(url: str) -> None:
    connector = opened(url)
    rejects = connector.edit(pa.table({"record_id": ["R1", "R2", None], "visits": ["3", "许多", "1"]}))
    assert [(entry["record_id"], entry["rule"]) for entry in rejects.to_pylist()] == [
        ("R2", "type:int"),
        (None, "key:missing"),
    ]
    assert connector.changes(None).rows.select(["record_id", "visits"]).to_pylist() == [
        {"record_id": "R1", "visits": 3}
    ]


def test_a_value_that_a_changed_contract_no_longer_allows_is_a_reject(url: str) -> None:
    opened(url).edit(table(SAMPLE, [row("R1", care="无"), row("R2", care="重点")]))
    care = SAMPLE.fields["care"].model_copy(update={"values": ("无", "一般")})
    narrower = SAMPLE.model_copy(update={"fields": {**SAMPLE.fields, "care": care}})
    found = HostedConnector(make_node(narrower, {"url": url, "keys": (KEY,)})).changes(None)
    assert found.rows.column("record_id").to_pylist() == ["R1"]
    assert found.rejects.column("rule").to_pylist() == ["type:enum"]


def test_a_database_made_anew_is_not_taken_for_the_old_one(url: str, tmp_path: Path) -> None:
    connector = opened(url)
    connector.edit(table(SAMPLE, [row("R1")]))
    cursor = connector.changes(None).cursor
    (tmp_path / "hosted.db").unlink()
    fresh = opened(url)
    fresh.edit(table(SAMPLE, [row("R2")]))
    assert fresh.changes(cursor).rows.column("record_id").to_pylist() == ["R2"]
    with pytest.raises(Conflict):
        fresh.apply(Batch((table(SAMPLE, [row("R3")]),), no_keys(fresh.node), cursor))


def test_a_lost_database_is_an_error_and_not_an_empty_one(url: str, tmp_path: Path) -> None:
    opened(url).edit(table(SAMPLE, [row("R1")]))
    (tmp_path / "hosted.db").unlink()
    with pytest.raises(SchemaMismatch):
        HostedConnector(make_node(SAMPLE, {"url": url, "keys": (KEY,)})).changes(None)


def _prepare_and_write(url: str, number: int, start: Any) -> None:
    start.wait(30)
    connector = opened(url)
    for turn in range(5):
        connector.edit(table(SAMPLE, [row(f"R{number}-{turn}")]))


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_processes_that_use_it_first_at_the_same_time_do_not_disturb_each_other(tmp_path: Path, kind: str) -> None:
    with ExitStack() as stack:
        url = f"sqlite:///{tmp_path / 'new' / 'hosted.db'}"
        if kind == "postgres":
            schema = stack.enter_context(postgres_schema())
            url = f"{postgres_url()}{'&' if '?' in postgres_url() else '?'}options=-csearch_path%3D{schema}"
        spawn = multiprocessing.get_context("spawn")
        start = spawn.Barrier(3)
        workers = [spawn.Process(target=_prepare_and_write, args=(url, number, start)) for number in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert [worker.exitcode for worker in workers] == [0, 0, 0]
        reader = opened(url)
        assert reader.changes(None).rows.num_rows == 15
        assert str(reader.probe().token).endswith(":15")


# --- at rest


def stored_texts(tmp_path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(tmp_path / "hosted.db")) as database:
        return dict(database.execute("SELECT record_key, payload FROM hosted_record WHERE NOT deleted").fetchall())


def alter(tmp_path: Path, statement: str, *values: str) -> None:
    with closing(sqlite3.connect(tmp_path / "hosted.db")) as database, database:
        database.execute(statement, values)


def test_values_never_lie_open_in_the_database(url: str, tmp_path: Path) -> None:
    connector = opened(url)
    connector.edit(table(SAMPLE, [whole("R1", name="王小明")]))
    connector.edit(table(SAMPLE, [{"record_id": "R1", "note": "新的备注"}]))
    connector.remove(table(SAMPLE, [{"record_id": "R1"}]))
    content = b"".join(path.read_bytes() for path in tmp_path.glob("hosted.db*"))
    for text in ("王小明", "新的备注", "门口有台阶", 'community_code":'):
        assert text.encode() not in content
    assert b"R1" in content, "keys are opaque by contract, and stay searchable"


def test_the_same_values_never_look_the_same_twice(url: str, tmp_path: Path) -> None:
    opened(url).edit(table(SAMPLE, [whole("R1"), whole("R2")]))
    assert len(set(stored_texts(tmp_path).values())) == 2


def test_a_sealed_record_that_was_moved_to_another_is_refused(url: str, tmp_path: Path) -> None:
    connector = opened(url)
    connector.edit(table(SAMPLE, [row("R1", name="甲"), row("R2", name="乙")]))
    alter(tmp_path, "UPDATE hosted_record SET payload = ? WHERE record_key = 'R2'", stored_texts(tmp_path)["R1"])
    with pytest.raises(Unreadable, match="altered") as caught:
        connector.changes(None)
    assert caught.value.where["key"] == "R2"
    connector.remove(table(SAMPLE, [{"record_id": "R2"}]))
    assert names(connector) == {"R1": "甲"}


def test_a_sealed_record_that_was_altered_is_refused(url: str, tmp_path: Path) -> None:
    connector = opened(url)
    connector.edit(table(SAMPLE, [row("R1", name="甲")]))
    text = stored_texts(tmp_path)["R1"]
    alter(tmp_path, "UPDATE hosted_record SET payload = ?", text[:-6] + ("A" if text[-6] != "A" else "B") + text[-5:])
    with pytest.raises(Unreadable, match="altered"):
        connector.changes(None)


def test_after_the_key_was_replaced_old_records_stay_readable_and_new_ones_use_it(url: str) -> None:
    opened(url).edit(table(SAMPLE, [row("R1", name="甲"), row("R2", name="乙")]))
    new = opened(url, keys=(OTHER, KEY))
    new.edit(table(SAMPLE, [{"record_id": "R2", "name": "丙"}]))
    assert names(new) == {"R1": "甲", "R2": "丙"}
    with pytest.raises(AccessDenied, match="FEDSYNC_SECRET_PREVIOUS") as caught:
        names(opened(url, keys=(OTHER,)))
    assert caught.value.where["key"] == "R1"
    assert opened(url, keys=(OTHER,)).fetch(table(SAMPLE, [{"record_id": "R2"}])).rows.num_rows == 1


def test_sealing_anew_needs_the_old_key_once_and_is_no_news(url: str) -> None:
    opened(url).edit(table(SAMPLE, [row("R1", name="甲"), row("R2", name="乙")]))
    new = opened(url, keys=(OTHER, KEY))
    before = new.probe().token
    assert (new.rekey(), new.rekey()) == (2, 0)
    assert new.probe().token == before
    assert names(opened(url, keys=(OTHER,))) == {"R1": "甲", "R2": "乙"}


def test_records_that_were_written_before_records_were_sealed_are_read_and_sealed(url: str, tmp_path: Path) -> None:
    connector = opened(url)
    connector.edit(table(SAMPLE, [row("R1", name="甲"), row("R2", name="乙")]))
    for key, name in (("R1", "甲"), ("R2", "乙")):
        plain = json.dumps({"community_code": REGION.code, "name": name}, ensure_ascii=False)
        alter(tmp_path, "UPDATE hosted_record SET payload = ? WHERE record_key = ?", plain, key)
    assert names(connector) == {"R1": "甲", "R2": "乙"}
    connector.edit(table(SAMPLE, [{"record_id": "R1", "name": "丙"}]))
    assert (connector.rekey(), names(connector)) == (1, {"R1": "丙", "R2": "乙"})
    assert not [text for text in stored_texts(tmp_path).values() if "{" in text]


def test_how_many_records_there_are_is_told_without_opening_them(url: str, tmp_path: Path) -> None:
    assert HostedConnector(make_node(SAMPLE, {"url": url, "keys": (KEY,)})).live() == 0
    assert not (tmp_path / "hosted.db").exists()
    connector = opened(url)
    connector.edit(table(SAMPLE, [row("R1"), row("R2")]))
    connector.remove(table(SAMPLE, [{"record_id": "R2"}]))
    assert (connector.live(), opened(url, "companion").live(), opened(url, region=NEIGHBOUR).live()) == (1, 0, 0)
