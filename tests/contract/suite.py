"""What every connector promises, as tests: a new connector's test class inherits `ConnectorContract` and fills in four hooks.

    class TestMemory(ConnectorContract):
        def connector(self) -> Connector: ...            # a fresh object on the same system each time
        def people_write(self, rows) -> None: ...        # insert or update, as the system's own people would
        def people_delete(self, key) -> None: ...
        def stored(self) -> list[dict]: ...              # what the system really holds, read past the connector

A system that shows corrections needs two more: `people_see_corrections` and `people_rule`; one that shows returns or receipts
`people_see_returns`, `people_see_receipts`.

Rows are dicts by field name (`make_node(self.dataset, …)` builds the node; `self.dataset` differs between tests). What a system
cannot do is told by its `capabilities`, and by `loose` below; the one place that skips is `_unmet`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pytest

from connectors.base import ETAG, RULINGS, Applied, Batch, Buckets, Changes, Connector, Expected, etag_schema, no_keys
from federation import canonical_buckets
from federation.canonical import conform, fingerprints, key_column, schema
from federation.contract import Dataset
from federation.errors import Conflict
from tests.contract import desk
from tests.contract.dataset import COMPOSITE, REGION, RICH, SAMPLE, row, table, visit, whole

Test = TypeVar("Test", bound=Callable[..., None])
Row = dict[str, Any]
AWKWARD = (
    "𠮷野家😀",
    '他说“好”，她说"no" and it\'s \\n',
    "第一行\n第二行",
    "007",
    "1e5",
    "00:10",
    "=1+1",
    "NULL",
    "\\N",
    "100%",
    ",;\t|",
    "TRUE",
    "2026-01-31",
    ":name %s ?",
)
"""Texts that some system on the way would like to make something else of."""


def needs(*what: str) -> Callable[[Test], Test]:
    """What a system must be able to do for a test to say anything (`ConnectorContract._unmet` knows the words)."""
    return lambda test: _mark(test, "needs", what)


def on(dataset: Dataset) -> Callable[[Test], Test]:
    """The dataset that a test works with, if not `SAMPLE`."""
    return lambda test: _mark(test, "dataset", dataset)


def _mark(test: Test, name: str, value: object) -> Test:
    setattr(test, name, value)
    return test


class ConnectorContract:
    """Inherit, name the class `Test…`, fill in the hooks. `self.folder` is an empty folder of this test's own."""

    loose = True
    """People can write anything into any field: text into a number, no key, the same key twice."""
    long_text = 20_000
    """Characters that fit into one value."""
    many = 2_000
    """Rows for the tests with many of them; fewer where each costs a request."""

    dataset: Dataset
    folder: Path

    # --- hooks

    def start(self) -> None:
        """Make the empty system for `self.dataset`, if the connector's `prepare` does not."""

    def stop(self) -> None:
        """Remove what `start` made."""

    def connector(self) -> Connector:
        """A fresh connector on the system."""
        raise NotImplementedError

    def people_write(self, rows: list[Row]) -> None:
        """Insert or update by key, writing only the named fields. A loose system takes a missing or double key as a new row."""
        raise NotImplementedError

    def people_delete(self, key: Row) -> None:
        """Delete the row with this key."""
        raise NotImplementedError

    def stored(self) -> list[Row]:
        """All rows that the system holds, read without the connector; the contract's canonical typing makes them comparable."""
        raise NotImplementedError

    def people_see_corrections(self) -> dict[str, Row]:
        """What people see on the desk, read past the connector: correction id → the texts that `tests.contract.desk.seen` names."""
        raise NotImplementedError

    def people_rule(self, correction_id: str, ruling: str, reason: str | None) -> None:
        """Write a ruling and its reason beside a correction, as people do."""
        raise NotImplementedError

    def people_see_returns(self) -> list[Row]:
        """The returns that people see and that stand: the texts that `tests.contract.desk.return_seen` names."""
        raise NotImplementedError

    def people_see_receipts(self) -> list[Row]:
        """The receipts that people see, in order: the texts that `tests.contract.desk.receipt_seen` names."""
        raise NotImplementedError

    def desk_place(self) -> object:
        """Something that differs whenever what holds the desk or the receipts was written; the same always, where that cannot be told."""
        return None

    # --- what does not apply

    def _unmet(self, word: str, connector: Connector) -> str | None:
        can = connector.capabilities
        lacking = {
            "writes": (can.writes, "the system is read-only"),
            "present": (can.present, "the system cannot list its keys"),
            "increments": (can.capture != "snapshot", "every read is whole"),
            "snapshot": (can.capture == "snapshot", "reads may be partial"),
            "conditional": (can.conditional, "writes are not conditional"),
            "checks": (can.checks, "writes are not compared with what was read"),
            "etags": (can.etags, "rows have no etags"),
            "returns": (can.returns, "the system shows no returns"),
            "corrections": (can.corrections, "the system shows no corrections"),
            "receipts": (can.receipts, "the system shows no receipts"),
            "token": (connector.probe().token is not None, "the system cannot tell whether it changed"),
            "loose": (self.loose, "the system refuses such values itself"),
        }
        met, reason = lacking[word]
        return None if met else reason

    @pytest.fixture(autouse=True)
    def _system(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
        self.dataset = getattr(request.function, "dataset", SAMPLE)
        self.folder = tmp_path
        self.start()
        opened: list[Connector] = []
        make = self.connector

        def remembered() -> Connector:
            opened.append(make())
            return opened[-1]

        self.connector = remembered  # type: ignore[method-assign]
        try:
            first = self.connector()
            first.prepare()
            for word in getattr(request.function, "needs", ()):
                if reason := self._unmet(word, first):
                    pytest.skip(reason)
            yield
        finally:
            for connector in opened:
                connector.close()
            self.stop()

    # --- helpers

    def rows(self, changes: Changes) -> dict[str, Row]:
        """The rows read, by key text."""
        return _by_key(changes.rows, self.dataset)

    def held(self) -> dict[str, Row]:
        """The rows that the system really holds, typed, by key text."""
        return _by_key(self.typed(self.stored()), self.dataset)

    def typed(self, rows: list[Row]) -> pa.Table:
        """Rows as the contract types them; none may be lost on the way."""
        names = list(self.dataset.fields)
        raw = {name: _column([found.get(name) for found in rows]) for name in names}
        typed = conform(pa.table(raw) if rows else schema(self.dataset, names).empty_table(), self.dataset, names)
        assert not typed.rejects.num_rows, typed.rejects.to_pylist()
        return typed.rows

    def write(
        self,
        *tables: pa.Table,
        deletes: list[Row] | None = None,
        cursor: str | None = None,
        expected: Expected | None = None,
    ) -> Applied:
        """Apply one batch through a fresh connector, as a link run would."""
        connector = self.connector()
        names = self.dataset.key
        gone = table(self.dataset, deletes, *names) if deletes else no_keys(connector.node)
        return connector.apply(Batch(tables, gone, cursor, expected=expected))

    def keys(self, *keys: Any) -> pa.Table:
        """Key columns for `fetch`."""
        return table(
            self.dataset,
            [dict(zip(self.dataset.key, key if isinstance(key, tuple) else (key,))) for key in keys],
            *self.dataset.key,
        )

    def holding(self, name: str, *values: Any) -> dict[str, Row]:
        """The rows found by values of a field, by key text."""
        asked = pa.array(values, schema(self.dataset, [name]).field(name).type)
        return _by_key(self.connector().holding(name, asked), self.dataset)

    # --- reading

    def test_an_empty_system_reads_as_no_rows(self) -> None:
        found = self.connector().changes(None)
        assert (found.rows.num_rows, found.rejects.num_rows, found.deleted.num_rows) == (0, 0, 0)

    def test_reading_from_nothing_returns_every_row_whole(self) -> None:
        self.people_write([whole("R1"), whole("R2", name="李雷", care="无"), row("R3")])
        assert self.rows(self.connector().changes(None)) == self.held()
        assert set(self.held()) == {"R1", "R2", "R3"}

    def test_what_is_read_has_the_schema_of_the_contract(self) -> None:
        self.people_write([whole("R1"), row("R2")])
        connector = self.connector()
        found = connector.changes(None)
        keys = schema(self.dataset, self.dataset.key)
        assert found.rows.schema.equals(connector.node.schema)
        assert found.deleted.schema.equals(keys)
        assert found.present is None or found.present.schema.equals(keys)
        fetched = connector.fetch(self.keys("R1", "R9"))
        assert fetched.rows.schema.equals(connector.node.schema)
        assert fetched.deleted.schema.equals(keys)

    def test_every_type_is_read_as_the_value_that_people_wrote(self) -> None:
        self.people_write([whole("R1")])
        read = self.connector().changes(None).rows
        assert _prints(read, self.dataset) == _prints(self.typed([whole("R1")]), self.dataset)

    def test_a_second_read_of_an_unchanged_system_is_the_same(self) -> None:
        self.people_write([whole("R1"), row("R2")])
        first, second = self.connector().changes(None), self.connector().changes(None)
        assert self.rows(first) == self.rows(second)

    def test_the_cursor_covers_what_was_returned(self) -> None:
        self.people_write([whole("R1"), row("R2")])
        before = self.connector().changes(None)
        again = self.connector().changes(before.cursor)
        assert self.rows(again).items() <= self.rows(before).items()
        assert not again.deleted.num_rows

    def test_rows_changed_after_a_cursor_are_seen(self) -> None:
        self.people_write([row("R1", note="一"), row("R2", note="一")])
        cursor = self.connector().changes(None).cursor
        self.people_write([row("R2", note="二"), row("R3", note="新")])
        found = self.rows(self.connector().changes(cursor))
        assert (found["R2"]["note"], found["R3"]["note"]) == ("二", "新")

    def test_rows_written_in_the_same_instant_as_the_cursor_are_seen(self) -> None:
        """Twenty rounds without a pause: most fall into one tick of any clock that people's rows are stamped with."""
        known: dict[str, Row] = {}
        cursor = None
        for number in range(20):
            self.people_write([row(f"R{number % 7}", visits=number)])
            found = self.connector().changes(cursor)
            known.update(self.rows(found))
            cursor = found.cursor
        assert known == self.held()

    @needs("present")
    def test_a_deletion_shows_in_the_list_of_keys(self) -> None:
        self.people_write([row("R1"), row("R2"), row("R3")])
        cursor = self.connector().changes(None).cursor
        self.people_delete({"record_id": "R2"})
        found = self.connector().changes(cursor, sweep=True)
        assert found.present is not None
        assert sorted(key_column(found.present, self.dataset).to_pylist()) == ["R1", "R3"]
        assert "R2" not in self.rows(found)

    @needs("increments")
    def test_keys_are_listed_only_if_asked_for(self) -> None:
        self.people_write([row("R1")])
        cursor = self.connector().changes(None).cursor
        assert self.connector().changes(cursor, sweep=False).present is None

    @needs("snapshot", "present")
    def test_a_whole_read_lists_its_keys_whether_asked_or_not(self) -> None:
        self.people_write([row("R1")])
        found = self.connector().changes("whatever", sweep=False)
        assert found.present is not None
        assert key_column(found.present, self.dataset).to_pylist() == ["R1"]

    def test_many_rows_are_read_and_counted(self) -> None:
        self.people_write([row(f"R{number:05d}", visits=number, note=f"第 {number} 户") for number in range(self.many)])
        found = self.connector().changes(None)
        assert found.rows.num_rows == self.many
        assert sum(found.rows.column("visits").to_pylist()) == sum(range(self.many))

    # --- rows that cannot be read

    @needs("loose")
    def test_a_value_that_cannot_be_typed_is_rejected_with_a_reason_and_stops_nobody_else(self) -> None:
        self.people_write([row("R1", visits=1), row("R2", visits="很多"), row("R3", visits=3)])
        found = self.connector().changes(None)
        assert set(self.rows(found)) == {"R1", "R3"}
        (reject,) = found.rejects.to_pylist()
        assert (reject["record_id"], reject["field"], reject["value"], reject["rule"]) == (
            "R2",
            "visits",
            "很多",
            "type:int",
        )
        assert "走访次数" in reject["reason_zh"] and "很多" in reject["reason_zh"]
        assert "whole number" in reject["reason_en"]

    @needs("loose", "present")
    def test_the_key_of_a_rejected_row_counts_as_present(self) -> None:
        self.people_write([row("R1"), row("R2", visits="很多")])
        found = self.connector().changes(None)
        assert found.present is not None
        assert sorted(key_column(found.present, self.dataset).to_pylist()) == ["R1", "R2"]

    @needs("loose", "present", "increments")
    def test_the_key_of_a_rejected_row_counts_as_present_in_a_later_sweep(self) -> None:
        self.people_write([row("R1"), row("R2", visits="很多")])
        found = self.connector().changes(self.connector().changes(None).cursor, sweep=True)
        assert found.present is not None
        assert sorted(key_column(found.present, self.dataset).to_pylist()) == ["R1", "R2"]

    @needs("loose")
    def test_a_row_without_a_key_is_rejected(self) -> None:
        self.people_write([row("R1"), row(None, name="无名")])
        found = self.connector().changes(None)
        assert set(self.rows(found)) == {"R1"}
        (reject,) = found.rejects.to_pylist()
        assert (reject["record_id"], reject["rule"]) == (None, "key:missing")
        assert reject["reason_zh"] and reject["reason_en"]

    @needs("loose")
    def test_rejected_rows_asked_for_by_key_are_not_reported_as_deleted(self) -> None:
        self.people_write([row("R1"), row("R2", visits="很多")])
        found = self.connector().fetch(self.keys("R1", "R2"))
        assert set(self.rows(found)) == {"R1"}
        assert found.rejects.column("record_id").to_pylist() == ["R2"]
        assert not found.deleted.num_rows

    # --- reading by key

    def test_fetch_returns_the_rows_asked_for_and_no_other(self) -> None:
        self.people_write([whole(f"R{number}") for number in range(6)])
        found = self.connector().fetch(self.keys("R1", "R4"))
        assert self.rows(found) == {key: self.held()[key] for key in ("R1", "R4")}
        assert found.present is None and found.cursor is None

    def test_fetch_reports_keys_that_are_not_there_as_deleted(self) -> None:
        self.people_write([row("R1")])
        found = self.connector().fetch(self.keys("R1", "R8", "O'Brien; --"))
        assert set(self.rows(found)) == {"R1"}
        assert sorted(found.deleted.column("record_id").to_pylist()) == ["O'Brien; --", "R8"]

    def test_fetch_of_nothing_returns_nothing(self) -> None:
        self.people_write([row("R1")])
        connector = self.connector()
        found = connector.fetch(no_keys(connector.node))
        assert (found.rows.num_rows, found.rejects.num_rows, found.deleted.num_rows) == (0, 0, 0)

    def test_fetch_of_many_keys_finds_each(self) -> None:
        """From the middle to 100 beyond the end."""
        half = self.many // 2
        self.people_write([row(f"R{number:05d}", visits=number) for number in range(self.many)])
        found = self.connector().fetch(self.keys(*(f"R{number:05d}" for number in range(half, self.many + 100))))
        assert found.rows.num_rows == self.many - half
        assert found.deleted.num_rows == 100

    # --- reading by a value

    def test_rows_are_found_by_a_value_of_a_field_of_any_type(self) -> None:
        other = {"name": "李雷", "visits": 7, "score": 2.5, "income": Decimal("0.07"), "insured": False, "care": "无"}
        other |= {
            "note": "无",
            "born": date(2001, 2, 3),
            "seen_at": datetime(2026, 2, 1, tzinfo=UTC),
            "extra": '{"a":[7],"中":"字"}',
        }
        self.people_write([whole("R1"), row("R2"), whole("R3"), whole("R4", **other)])
        held = self.held()
        for name in RICH:
            assert self.holding(name, held["R1"][name]) == {key: held[key] for key in ("R1", "R3")}, name
        assert set(self.holding("record_id", "R1", "R4", "R9")) == {"R1", "R4"}
        assert set(self.holding("community_code", REGION.code)) == {"R1", "R2", "R3", "R4"}

    def test_a_value_that_is_written_untidily_is_found_as_what_it_means(self) -> None:
        written = [
            "李娜",
            " 李娜",
            "李娜  ",
            "\u3000李娜\u3000",
            "Zoé Á",
            "Zoe\u0301 A\u0301",
            "  Zoe\u0301 Á",
            "李 娜",
            "李娜1",
        ]
        self.people_write([row(f"R{number}", name=name) for number, name in enumerate(written)])
        assert set(self.holding("name", "李娜", "Zoé Á")) == {f"R{number}" for number in range(7)}

    def test_null_is_not_a_value_that_rows_are_found_by(self) -> None:
        self.people_write([row("R1", name="李娜", visits=1), row("R2")])
        for name, value in (("name", "李娜"), ("visits", 1)):
            assert set(self.holding(name, None, value)) == {"R1"}
            assert not self.holding(name, None)

    def test_nothing_is_found_by_a_value_that_nobody_holds(self) -> None:
        self.people_write([whole("R1")])
        for name, value in (("name", "O'Brien; --%"), ("visits", 2**63 - 1), ("visits", -1), ("born", date(1, 1, 1))):
            assert not self.holding(name, value), value
        assert not self.holding("name")
        connector = self.connector()
        found = connector.holding("name", pa.array(["nobody"], pa.string()))
        assert found.schema.equals(connector.node.schema)

    def test_rows_are_found_by_many_values(self) -> None:
        half = self.many // 2
        self.people_write([row(f"R{number:05d}", visits=number, name=f"第{number}") for number in range(self.many)])
        asked = range(half, self.many + 100)
        for found in (self.holding("visits", *asked), self.holding("name", *(f"第{number}" for number in asked))):
            assert set(found) == {f"R{number:05d}" for number in range(half, self.many)}

    @needs("loose")
    def test_a_row_that_cannot_be_read_is_not_found_by_its_value(self) -> None:
        self.people_write([row("R1", name="李娜"), row("R2", name="李娜", visits="很多"), row(None, name="李娜")])
        assert set(self.holding("name", "李娜")) == {"R1"}

    @needs("loose")
    def test_a_number_or_a_day_that_is_written_as_text_is_found(self) -> None:
        self.people_write([row("R1", visits="007", born="1931/2/8"), row("R2", visits=" ７ ", born="1931-02-08")])
        assert set(self.holding("visits", 7)) == set(self.holding("born", date(1931, 2, 8))) == {"R1", "R2"}

    # --- writing

    @needs("writes")
    def test_new_rows_are_inserted(self) -> None:
        applied = self.write(table(self.dataset, [whole("R1"), whole("R2", name="李雷")]))
        assert (applied.written, applied.deleted) == (2, 0)
        assert self.held() == _by_key(self.typed([whole("R1"), whole("R2", name="李雷")]), self.dataset)

    @needs("writes")
    def test_an_update_leaves_columns_that_are_not_named_untouched(self) -> None:
        self.people_write([whole("R1"), whole("R2")])
        before = self.held()
        self.write(table(self.dataset, [{"record_id": "R1", "note": "新", "visits": 7}]))
        assert self.held() == {"R1": {**before["R1"], "note": "新", "visits": 7}, "R2": before["R2"]}

    @needs("writes")
    def test_rows_new_and_known_may_stand_in_one_table(self) -> None:
        self.people_write([row("R2", note="旧", name="留")])
        self.write(table(self.dataset, [row("R1", note="甲"), row("R2", note="乙"), row("R3", note="丙")]))
        held = self.held()
        assert {key: found["note"] for key, found in held.items()} == {"R1": "甲", "R2": "乙", "R3": "丙"}
        assert held["R2"]["name"] == "留"

    @needs("writes")
    def test_rows_are_deleted_and_those_already_gone_are_counted(self) -> None:
        self.people_write([row("R1"), row("R2"), row("R3")])
        applied = self.write(deletes=[{"record_id": "R2"}, {"record_id": "R9"}])
        assert set(self.held()) == {"R1", "R3"}
        assert applied.deleted == 2

    @needs("writes")
    def test_a_deleted_key_may_come_back_without_its_old_values(self) -> None:
        self.write(table(self.dataset, [whole("R1")]))
        self.write(deletes=[{"record_id": "R1"}])
        self.write(table(self.dataset, [row("R1", name="新人")]))
        assert self.held() == _by_key(self.typed([row("R1", name="新人")]), self.dataset)

    @needs("writes")
    def test_writing_a_batch_twice_leaves_the_same_as_once(self) -> None:
        self.people_write([whole("R1"), row("R2"), row("R3")])
        upserts = (table(self.dataset, [{"record_id": "R1", "note": "改"}]), table(self.dataset, [whole("R4")]))
        self.write(*upserts, deletes=[{"record_id": "R3"}])
        once = self.held()
        self.write(*upserts, deletes=[{"record_id": "R3"}])
        assert self.held() == once
        assert set(once) == {"R1", "R2", "R4"}

    @needs("writes")
    def test_a_batch_may_hold_several_tables_with_different_columns(self) -> None:
        self.people_write([whole("R1"), whole("R2"), row("R5")])
        before = self.held()
        applied = self.write(
            table(self.dataset, [{"record_id": "R1", "name": "甲"}]),
            table(self.dataset, [{"visits": 3, "record_id": "R2", "insured": False}]),
            table(self.dataset, [whole("R3")]),
            deletes=[{"record_id": "R5"}],
        )
        assert (applied.written, applied.deleted) == (3, 1)
        held = self.held()
        assert held["R1"] == {**before["R1"], "name": "甲"}
        assert held["R2"] == {**before["R2"], "visits": 3, "insured": False}
        assert set(held) == {"R1", "R2", "R3"}

    @needs("writes")
    def test_an_empty_batch_changes_nothing(self) -> None:
        self.people_write([whole("R1")])
        before = self.held()
        empty = schema(self.dataset, ["record_id", "note"]).empty_table()
        assert self.write().written == 0
        assert self.write(empty).written == 0
        assert self.held() == before

    @needs("writes")
    def test_a_row_of_its_key_alone_is_inserted_if_it_is_absent(self) -> None:
        self.people_write([whole("R1")])
        before = self.held()
        self.write(table(self.dataset, [{"record_id": "R1"}, {"record_id": "R2"}]))
        held = self.held()
        assert held["R1"] == before["R1"]
        assert set(held) == {"R1", "R2"}

    @needs("writes")
    def test_null_is_written_over_a_value_of_every_type_and_read_back(self) -> None:
        self.people_write([whole("R1")])
        self.write(table(self.dataset, [row("R1", **dict.fromkeys(RICH))]))
        for found in (self.held(), self.rows(self.connector().changes(None))):
            assert {name: found["R1"][name] for name in RICH} == dict.fromkeys(RICH)

    @needs("writes")
    def test_every_type_makes_the_round_trip_with_the_same_fingerprint(self) -> None:
        rows = [
            whole("R1"),
            whole("R2", visits=2**53, score=1e-7, income=Decimal("-0.01"), insured=False),
            whole("R3", visits=0, score=-123456.789, income=Decimal("99999999999.99"), care="无", extra="[]"),
        ]
        written = self.typed(rows)
        self.write(written)
        assert _prints(self.connector().changes(None).rows, self.dataset) == _prints(written, self.dataset)
        assert _prints(self.connector().fetch(self.keys("R1", "R2", "R3")).rows, self.dataset) == _prints(
            written, self.dataset
        )

    @needs("writes")
    def test_text_makes_the_round_trip_as_it_is_in_values_and_in_keys(self) -> None:
        keys = {f"K{text}".replace("\n", ""): text for text in AWKWARD}
        self.write(table(self.dataset, [row(key, note=text) for key, text in keys.items()]))
        read = self.rows(self.connector().changes(None))
        assert {key: found["note"] for key, found in read.items()} == keys
        asked = self.rows(self.connector().fetch(self.keys(*keys)))
        assert {key: found["note"] for key, found in asked.items()} == keys
        first, *others = keys
        self.write(deletes=[{"record_id": key} for key in others])
        assert set(self.held()) == {first}

    @needs("writes")
    def test_very_long_text_makes_the_round_trip(self) -> None:
        text = "长" * (self.long_text - 1) + "。"
        self.write(table(self.dataset, [row("R1", note=text)]))
        assert self.rows(self.connector().changes(None))["R1"]["note"] == text

    @needs("writes")
    def test_a_key_with_leading_zeros_finds_its_own_row(self) -> None:
        self.write(table(self.dataset, [row("007", note="甲"), row("7", note="乙")]))
        self.write(table(self.dataset, [{"record_id": "007", "note": "丙"}]), deletes=[{"record_id": "7"}])
        assert {key: found["note"] for key, found in self.held().items()} == {"007": "丙"}

    @needs("writes")
    def test_many_rows_are_written_then_changed(self) -> None:
        """Every second one changes, and a tenth more are new."""
        first = [row(f"R{number:05d}", visits=number) for number in range(self.many)]
        self.write(table(self.dataset, first))
        changed = range(0, self.many + self.many // 5, 2)
        self.write(table(self.dataset, [{"record_id": f"R{number:05d}", "visits": -1} for number in changed]))
        held = self.held()
        assert len(held) == self.many + self.many // 10
        assert sum(found["visits"] == -1 for found in held.values()) == len(changed)
        assert held["R00001"]["visits"] == 1

    @needs("writes")
    def test_what_was_written_is_seen_by_the_next_read(self) -> None:
        self.people_write([row("R1")])
        cursor = self.connector().changes(None).cursor
        self.write(table(self.dataset, [{"record_id": "R1", "note": "回流"}]))
        assert self.rows(self.connector().changes(cursor))["R1"]["note"] == "回流"

    # --- writing on a condition

    @needs("writes", "conditional")
    def test_a_write_decided_on_an_older_read_is_refused_and_writes_nothing(self) -> None:
        self.people_write([row("R1", note="一")])
        cursor = self.connector().changes(None).cursor
        self.people_write([row("R1", note="二")])
        before = self.held()
        with pytest.raises(Conflict):
            self.write(table(self.dataset, [row("R1", note="三"), row("R2")]), cursor=cursor)
        assert self.held() == before

    @needs("writes", "conditional")
    def test_a_write_decided_on_the_newest_read_is_taken_and_so_is_the_one_after_it(self) -> None:
        self.people_write([row("R1", note="一")])
        cursor = self.connector().changes(None).cursor
        applied = self.write(table(self.dataset, [row("R1", note="二")]), cursor=cursor)
        assert applied.cursor is not None
        self.write(table(self.dataset, [row("R2", note="三")]), cursor=applied.cursor)
        assert {key: found["note"] for key, found in self.held().items()} == {"R1": "二", "R2": "三"}
        with pytest.raises(Conflict):
            self.write(table(self.dataset, [row("R1", note="四")]), cursor=cursor)

    # --- writing what was decided on rows as they were read

    def expecting(self, *keys: str) -> Expected:
        """These rows as they are now (or are not), in one group per field."""
        connector = self.connector()
        found = connector.fetch(self.keys(*keys))
        groups = {name: (name,) for name in self.dataset.fields if name not in self.dataset.key}
        prints = fingerprints(found.rows, self.dataset, groups, b"secret")
        there = set(prints.column("key").to_pylist())
        lines = [*({**line, "here": True} for line in prints.to_pylist())]
        lines += [{"key": key, "here": False} for key in keys if key not in there]
        shape = pa.schema([*prints.schema, ("here", pa.bool_())])
        return Expected(pa.Table.from_pylist(lines, schema=shape), groups, b"secret")

    @needs("writes", "checks")
    def test_a_row_that_people_edited_after_it_was_read_is_not_overwritten(self) -> None:
        self.people_write([row("R1", note="一"), row("R2", note="一")])
        expected = self.expecting("R1", "R2", "R3")
        self.people_write([row("R2", note="二")])
        before = self.held()
        with pytest.raises(Conflict, match="R2"):
            self.write(table(self.dataset, [row(key, note="三") for key in ("R1", "R2", "R3")]), expected=expected)
        assert self.held() == before

    @needs("writes", "checks")
    def test_a_row_that_people_entered_after_it_was_looked_for_is_not_overwritten(self) -> None:
        expected = self.expecting("R1")
        self.people_write([row("R1", note="一")])
        with pytest.raises(Conflict, match="R1"):
            self.write(table(self.dataset, [row("R1", note="三")]), expected=expected)
        assert self.held()["R1"]["note"] == "一"

    @needs("writes", "checks")
    def test_a_row_that_people_deleted_after_it_was_read_is_not_created_anew_by_half(self) -> None:
        self.people_write([row("R1", note="一", name="王伟")])
        expected = self.expecting("R1")
        self.people_delete({"record_id": "R1"})
        with pytest.raises(Conflict, match="R1"):
            self.write(table(self.dataset, [row("R1", note="三")]), expected=expected)
        assert self.held() == {}

    @needs("writes", "checks")
    def test_a_row_that_people_edited_after_it_was_read_is_not_deleted_but_one_that_is_gone_already_is_no_matter(
        self,
    ) -> None:
        self.people_write([row("R1", note="一"), row("R2", note="一")])
        expected = self.expecting("R1", "R2")
        prints = expected.prints.set_column(
            expected.prints.schema.get_field_index("here"), "here", pa.nulls(2, pa.bool_())
        )
        expected = Expected(prints, expected.groups, expected.secret)
        self.people_delete({"record_id": "R1"})
        self.write(deletes=[{"record_id": "R1"}], expected=expected)
        self.people_write([row("R2", note="二")])
        with pytest.raises(Conflict, match="R2"):
            self.write(deletes=[{"record_id": "R2"}], expected=expected)
        assert self.held()["R2"]["note"] == "二"

    @needs("writes", "checks")
    def test_an_edit_of_fields_that_are_not_being_written_is_in_nobodys_way(self) -> None:
        self.people_write([row("R1", note="一", name="王伟")])
        whole_row = self.expecting("R1")
        wanted = whole_row.prints.select(["key", "fp_name", "here"])
        expected = Expected(wanted, {"name": ("name",)}, whole_row.secret)
        self.people_write([row("R1", note="二")])
        self.write(table(self.dataset, [{"record_id": "R1", "name": "李娜"}]), expected=expected)
        assert (self.held()["R1"]["note"], self.held()["R1"]["name"]) == ("二", "李娜")

    @needs("writes", "checks")
    def test_many_rows_that_are_as_they_were_read_are_written(self) -> None:
        keys = [f"R{number}" for number in range(self.many)]
        self.people_write([row(key, note="一") for key in keys[::2]])
        expected = self.expecting(*keys)
        self.write(table(self.dataset, [row(key, note="二") for key in keys]), expected=expected)
        assert {found["note"] for found in self.held().values()} == {"二"}
        assert len(self.held()) == len(keys)

    # --- writing on a condition, row by row

    def etags(self, *keys: Any) -> pa.Table:
        """What a link run knows of these rows after reading them: each one's etag, null for those that are not there."""
        found = self.connector().fetch(self.keys(*keys))
        assert found.etags is not None or not found.rows.num_rows
        gone = found.deleted.append_column(ETAG, pa.nulls(found.deleted.num_rows, pa.string()))
        return gone if found.etags is None else pa.concat_tables([found.etags, gone])

    def write_if(self, etags: pa.Table, *tables: pa.Table, deletes: list[Row] | None = None) -> Applied:
        """Apply one batch that was decided on rows with these etags, through a fresh connector."""
        connector = self.connector()
        gone = table(self.dataset, deletes, *self.dataset.key) if deletes else no_keys(connector.node)
        return connector.apply(Batch(tables, gone, etags=etags))

    @needs("etags")
    def test_every_row_that_is_fetched_tells_its_etag(self) -> None:
        self.people_write([row("R1"), row("R2"), row("007")])
        connector = self.connector()
        found = connector.fetch(self.keys("R1", "007", "R9"))
        assert found.etags is not None and found.etags.schema.equals(etag_schema(self.dataset))
        told = dict(zip(key_column(found.etags, self.dataset).to_pylist(), found.etags.column(ETAG).to_pylist()))
        assert set(told) == {"R1", "007"} and all(told.values())

    @needs("etags")
    def test_the_etags_of_a_whole_read_are_those_of_the_rows_fetched(self) -> None:
        self.people_write([row("R1"), row("R2")])
        found = self.connector().changes(None).etags
        if found is not None:
            assert sorted(found.to_pylist(), key=str) == sorted(self.etags("R1", "R2").to_pylist(), key=str)

    @needs("writes", "etags")
    def test_a_row_that_was_edited_since_it_was_read_is_not_written(self) -> None:
        self.people_write([row("R1", note="一"), row("R2", note="一")])
        read = self.etags("R1", "R2")
        self.people_write([row("R1", note="二")])
        before = self.held()["R1"]
        with pytest.raises(Conflict) as caught:
            self.write_if(read, table(self.dataset, [row("R1", note="三"), row("R2", note="三")]))
        assert caught.value.where["key"] == "R1"
        assert self.held()["R1"] == before

    @needs("writes", "etags")
    def test_a_row_that_was_edited_or_deleted_since_it_was_read_is_neither_deleted_nor_made_anew(self) -> None:
        self.people_write([row("R1", note="一"), row("R2", note="一"), row("R3", note="一")])
        read = self.etags("R1", "R2", "R3")
        self.people_write([row("R1", note="二")])
        self.people_delete({"record_id": "R2"})
        with pytest.raises(Conflict):
            self.write_if(read, table(self.dataset, [row("R2", note="三")]), deletes=[{"record_id": "R1"}])
        assert {key: found["note"] for key, found in self.held().items()} == {"R1": "二", "R3": "一"}

    @needs("writes", "etags")
    def test_a_row_that_was_not_there_is_made_only_if_it_still_is_not(self) -> None:
        read = self.etags("R1", "R2")
        self.people_write([row("R1", note="民")])
        with pytest.raises(Conflict) as caught:
            self.write_if(read, table(self.dataset, [row("R1", note="三"), row("R2", note="三")]))
        assert caught.value.where["key"] == "R1"
        assert self.held()["R1"]["note"] == "民"

    @needs("writes", "etags")
    def test_writes_on_the_newest_etags_are_taken_and_end_them(self) -> None:
        self.people_write([row("R1", note="一"), row("R2", note="一")])
        read = self.etags("R1", "R2", "R3")
        change = table(self.dataset, [row("R1", note="二"), row("R3", note="新")])
        applied = self.write_if(read, change, deletes=[{"record_id": "R2"}])
        assert (applied.written, applied.deleted) == (2, 1)
        assert {key: found["note"] for key, found in self.held().items()} == {"R1": "二", "R3": "新"}
        with pytest.raises(Conflict):
            self.write_if(read, table(self.dataset, [row("R1", note="三")]))

    @on(COMPOSITE)
    @needs("writes", "etags")
    def test_the_etag_of_a_row_with_a_key_of_several_fields_is_its_own(self) -> None:
        self.people_write([visit("A", 1, note="一"), visit("A", 2, note="一")])
        read = self.etags(("A", 1), ("A", 2))
        self.people_write([visit("A", 1, note="二")])
        self.write_if(read, table(self.dataset, [visit("A", 2, note="三")]))
        with pytest.raises(Conflict):
            self.write_if(read, table(self.dataset, [visit("A", 1, note="三")]))

    # --- is there anything new?

    @needs("token")
    def test_the_token_changes_after_people_write(self) -> None:
        self.people_write([row("R1", note="一")])
        before = self.connector().probe().token
        self.people_write([row("R1", note="二")])
        assert self.connector().probe().token != before

    @needs("token")
    def test_the_token_changes_after_people_delete(self) -> None:
        self.people_write([row("R1"), row("R2")])
        before = self.connector().probe().token
        self.people_delete({"record_id": "R1"})
        assert self.connector().probe().token != before

    @needs("token")
    def test_the_token_stays_while_nothing_changes(self) -> None:
        self.people_write([row("R1")])
        connector = self.connector()
        tokens = {connector.probe().token, self.connector().probe().token}
        connector.changes(None)
        self.connector().prepare()
        tokens.add(self.connector().probe().token)
        assert len(tokens) == 1

    # --- corrections

    def show(self, *lines: Row) -> None:
        """Show these corrections through a fresh connector, as a link run would."""
        self.connector().show_corrections(desk.corrections(self.dataset, *lines))

    def told(self) -> dict[str, tuple[str, str | None]]:
        """What a fresh connector says that people ruled: correction id → ruling and reason."""
        found = self.connector().rulings()
        assert found.schema.equals(RULINGS)
        listed = {line["correction_id"]: (line["ruling"], line["reason"]) for line in found.to_pylist()}
        assert len(listed) == found.num_rows, "a correction is ruled on twice"
        return listed

    @needs("corrections")
    def test_people_see_every_correction_whole(self) -> None:
        lines = [
            desk.line("a1", "R1"),
            desk.line("b2", "R2", kind="create", field="姓名\n备注", current="", proposed="张三\n他说“好”", due=None),
            desk.line("c3", "R3", kind="delete", state="rejected", reason="记录属实"),
        ]
        self.show(*lines)
        assert self.people_see_corrections() == {one["correction_id"]: desk.seen(self.dataset, one) for one in lines}

    @needs("corrections")
    def test_what_was_shown_before_and_is_no_longer_is_taken_away(self) -> None:
        self.show(desk.line("a1", "R1"), desk.line("b2", "R2"))
        self.show(desk.line("b2", "R2"), desk.line("c3", "R3"))
        assert set(self.people_see_corrections()) == {desk.name("b2"), desk.name("c3")}

    @needs("corrections")
    def test_a_correction_that_moved_on_is_shown_as_it_is_now(self) -> None:
        self.show(desk.line("a1", "R1", state="travelling", due=None))
        now = desk.line("a1", "R1", state="accepted", proposed="改过", reason="同意")
        self.show(now)
        assert self.people_see_corrections() == {desk.name("a1"): desk.seen(self.dataset, now)}

    @needs("corrections")
    def test_showing_none_clears_the_desk(self) -> None:
        self.show()
        assert not self.people_see_corrections()
        self.show(desk.line("a1", "R1"))
        self.people_rule(desk.name("a1"), "accept", None)
        self.show()
        assert not self.people_see_corrections() and not self.told()

    @needs("corrections")
    def test_nothing_is_ruled_on_before_people_rule(self) -> None:
        assert not self.told()
        self.show(desk.line("a1", "R1"))
        assert not self.told()

    @needs("corrections")
    def test_what_people_rule_is_told_until_the_correction_goes(self) -> None:
        self.show(desk.line("a1", "R1"), desk.line("b2", "R2"), desk.line("c3", "R3", state="overdue"))
        self.people_rule(desk.name("a1"), "accept", "核对无误")
        self.people_rule(desk.name("c3"), "reject", None)
        ruled = {desk.name("a1"): ("accept", "核对无误"), desk.name("c3"): ("reject", None)}
        assert self.told() == ruled
        assert self.told() == ruled, "a ruling is not taken back by reading it"

    @needs("corrections")
    def test_a_ruling_stays_while_its_correction_is_still_shown_and_goes_with_it(self) -> None:
        self.show(desk.line("a1", "R1"), desk.line("b2", "R2"))
        self.people_rule(desk.name("a1"), "不采纳", "属实")
        self.people_rule(desk.name("b2"), "再看看", "等社区答复")
        self.show(desk.line("c3", "R3"), desk.line("b2", "R2", state="overdue"), desk.line("a1", "R1", state="overdue"))
        assert self.told() == {desk.name("a1"): ("reject", "属实")}
        seen = self.people_see_corrections()[desk.name("b2")]
        assert (seen["state"], seen["ruling"], seen["ruling_reason"]) == ("overdue", "再看看", "等社区答复")
        self.show(desk.line("c3", "R3"))
        self.show(desk.line("c3", "R3"), desk.line("a1", "R1"))
        assert not self.told(), "a ruling went with its correction"

    @needs("corrections")
    def test_a_ruling_is_understood_in_the_words_that_people_use(self) -> None:
        words = dict.fromkeys(("accept", "Accepted", " 采纳 ", "同意", "接受"), "accept")
        words |= dict.fromkeys(("reject", "REJECTED", "不采纳", "不同意", "拒绝", "驳回"), "reject")
        names = {word: f"a{number:02d}" for number, word in enumerate(words)}
        self.show(*(desk.line(short, f"R{short}") for short in names.values()))
        for word, short in names.items():
            self.people_rule(desk.name(short), word, None)
        assert self.told() == {desk.name(names[word]): (ruling, None) for word, ruling in words.items()}

    @needs("corrections")
    def test_other_words_are_no_ruling(self) -> None:
        words = ("待定", "yes", "采纳吗", "1", "=1+1", "-")
        lines = [desk.line(f"a{number}", f"R{number}") for number in range(len(words))]
        self.show(*lines)
        for number, word in enumerate(words):
            self.people_rule(desk.name(f"a{number}"), word, "想一想")
        assert not self.told()

    @needs("corrections")
    def test_showing_the_same_again_changes_nothing(self) -> None:
        lines = [desk.line("a1", "R1"), desk.line("b2", "R2", state="rejected", reason="属实", due=None)]
        self.show(*lines)
        self.people_rule(desk.name("a1"), "采纳", "好")
        before, place = self.people_see_corrections(), self.desk_place()
        self.show(*lines)
        self.show(*reversed(lines))
        assert self.people_see_corrections() == before
        assert self.desk_place() == place, "what is shown already is not written again"

    @needs("corrections")
    def test_texts_on_the_desk_stay_as_they_are(self) -> None:
        lines = [
            desk.line(f"a{number:02d}", f"K{text}".replace("\n", ""), current=text, proposed=f"{text}。", reason=text)
            for number, text in enumerate(AWKWARD)
        ]
        self.show(*lines)
        assert self.people_see_corrections() == {one["correction_id"]: desk.seen(self.dataset, one) for one in lines}

    @needs("corrections")
    def test_neither_showing_nor_ruling_is_a_change_of_the_data(self) -> None:
        self.people_write([whole("R1"), row("R2")])
        before, held = self.connector().changes(None), self.held()
        self.show(desk.line("a1", "R1"), desk.line("b2", "R2", proposed="=1+1"))
        self.people_rule(desk.name("a1"), "采纳", "好")
        self.show(desk.line("a1", "R1"))
        connector = self.connector()
        after = connector.changes(None)
        assert self.held() == held and self.rows(after) == self.rows(before)
        if connector.capabilities.capture == "snapshot":  # another's cursor may wait for somebody's open transaction
            assert after.cursor == before.cursor
        if connector.capabilities.writes:
            self.write(table(self.dataset, [row("R2", note="新")]), cursor=before.cursor)

    @needs("corrections", "token")
    def test_neither_showing_nor_ruling_changes_the_token(self) -> None:
        self.people_write([whole("R1"), row("R2")])
        tokens = [self.connector().probe().token]
        self.show(desk.line("a1", "R1"), desk.line("b2", "R2"))
        tokens.append(self.connector().probe().token)
        self.people_rule(desk.name("a1"), "采纳", "好")
        tokens.append(self.connector().probe().token)
        self.show(desk.line("a1", "R1", state="overdue"))
        tokens.append(self.connector().probe().token)
        self.show()
        assert {*tokens, self.connector().probe().token} == {tokens[0]}

    @on(COMPOSITE)
    @needs("corrections")
    def test_a_correction_shows_a_key_of_several_fields(self) -> None:
        lines = [desk.line("a1", "A", visit_no=1), desk.line("b2", "A", visit_no=2)]
        self.show(*lines)
        assert self.people_see_corrections() == {one["correction_id"]: desk.seen(self.dataset, one) for one in lines}

    # --- returns

    @needs("returns")
    def test_people_see_exactly_the_returns_that_stand(self) -> None:
        lines = [
            desk.returned("a1", "R1"),
            desk.returned("b2", "R2", field=None, value=None, reason_zh="与上级所持信息不一致", reason_en="ask above"),
            desk.returned("c3", "R3", state="replay", reason_zh="他说“好”，她说“不”。", reason_en="100%, of it"),
        ]
        for shown in (lines[:1], lines, lines[1:], []):
            self.connector().show_returns(desk.returns(self.dataset, *shown))
            expected = [desk.return_seen(self.dataset, one) for one in shown]
            assert sorted(self.people_see_returns(), key=str) == sorted(expected, key=str)

    @needs("returns")
    def test_a_return_that_ended_no_longer_stands(self) -> None:
        one, other = desk.returned("a1", "R1"), desk.returned("b2", "R2")
        self.connector().show_returns(desk.returns(self.dataset, one, other))
        self.connector().show_returns(desk.returns(self.dataset, {**one, "state": "closed"}, other))
        assert self.people_see_returns() == [desk.return_seen(self.dataset, other)]

    @on(COMPOSITE)
    @needs("returns")
    def test_a_return_shows_a_key_of_several_fields(self) -> None:
        lines = [desk.returned("a1", "A", visit_no=1), desk.returned("b2", "B", visit_no=2)]
        self.connector().show_returns(desk.returns(self.dataset, *lines))
        expected = [desk.return_seen(self.dataset, one) for one in lines]
        assert sorted(self.people_see_returns(), key=str) == sorted(expected, key=str)

    @needs("returns")
    def test_showing_returns_is_no_change_of_the_data(self) -> None:
        self.people_write([whole("R1"), row("R2")])
        before, token, held = self.connector().changes(None), self.connector().probe().token, self.held()
        for shown in ([desk.returned("a1", "R1")], [desk.returned("b2", "R2")], []):
            self.connector().show_returns(desk.returns(self.dataset, *shown))
            if token is not None:
                assert self.connector().probe().token == token
        after = self.connector().changes(None)
        assert self.rows(after) == self.rows(before) and self.held() == held

    # --- receipts

    @needs("receipts")
    def test_people_see_their_receipts_in_order_and_only_these(self) -> None:
        lines = [desk.receipt("c3"), desk.receipt("b2", way="sent", written=0, deleted=2), desk.receipt("a1")]
        for shown in (lines[1:], lines, lines[:1]):
            self.connector().show_receipts(desk.receipts(*shown))
            assert self.people_see_receipts() == [desk.receipt_seen(one) for one in shown]
        self.connector().show_receipts(desk.receipts())
        assert self.people_see_receipts() == []

    @needs("receipts")
    def test_showing_the_same_receipts_again_writes_nothing(self) -> None:
        self.connector().show_receipts(desk.receipts(desk.receipt("a1")))
        place = self.desk_place()
        self.connector().show_receipts(desk.receipts(desk.receipt("a1")))
        assert self.desk_place() == place

    @needs("receipts", "token")
    def test_receipts_are_no_change_of_the_data(self) -> None:
        self.people_write([whole("R1")])
        before, token, held = self.connector().changes(None), self.connector().probe().token, self.held()
        for number in range(3):
            self.connector().show_receipts(desk.receipts(desk.receipt(f"a{number}")))
            assert self.connector().probe().token == token
        assert self.connector().changes(None).cursor == before.cursor and self.held() == held

    # --- opening, closing, comparing

    def test_preparing_again_touches_no_data(self) -> None:
        self.people_write([whole("R1")])
        before = self.held()
        connector = self.connector()
        assert connector.prepare() == ()
        assert connector.prepare() == ()
        assert self.held() == before

    def test_closing_twice_is_harmless(self) -> None:
        connector = self.connector()
        connector.close()
        connector.probe()
        connector.close()
        connector.close()

    def test_the_digest_depends_on_content_and_not_on_order(self) -> None:
        self.people_write([whole("R1"), whole("R2")])
        first = self.connector().digest()
        assert first.rows == 2
        self.people_delete({"record_id": "R1"})
        assert self.connector().digest() != first
        self.people_write([whole("R1")])
        assert self.connector().digest() == first
        self.people_write([row("R2", note="另一句")])
        assert self.connector().digest() != first

    def test_digests_of_buckets_are_those_of_the_rows_that_are_read(self) -> None:
        self.people_write([whole("R1"), whole("R2", note=None), row("R3")])
        connector = self.connector()
        rows, asked = connector.changes(None).rows, Buckets(tuple(self.dataset.fields)[1:], 1, "5a")
        wanted = canonical_buckets.digests(rows, self.dataset, asked)
        told = connector.bucket_digests(asked)
        assert sum(told.column("rows").to_pylist()) == 3
        assert _lines(told) == _lines(wanted)
        hashes = connector.bucket_hashes(asked, told)
        assert sorted(hashes.column("record_id").to_pylist()) == ["R1", "R2", "R3"]
        assert not connector.bucket_hashes(asked, told.slice(0, 0)).num_rows
        self.people_write([row("R3", note="改")])
        assert _lines(self.connector().bucket_digests(asked)) != _lines(told)

    @on(COMPOSITE)
    def test_digests_of_buckets_hold_keys_of_several_fields(self) -> None:
        self.people_write([visit("A", 1, note="一"), visit("A", 2, note="二")])
        connector, asked = self.connector(), Buckets(("community_code", "note"), 2, "5a")
        wanted = canonical_buckets.digests(connector.changes(None).rows, self.dataset, asked)
        assert _lines(connector.bucket_digests(asked)) == _lines(wanted)

    # --- keys of several fields

    @on(COMPOSITE)
    def test_a_key_of_several_fields_is_read_and_fetched_as_one(self) -> None:
        self.people_write([visit("A", 1, note="一"), visit("A", 2, note="二"), visit("B", 1, note="三")])
        assert self.rows(self.connector().changes(None)) == self.held()
        found = self.connector().fetch(self.keys(("A", 2), ("B", 2), ("B", 1)))
        assert {(entry["record_id"], entry["visit_no"]) for entry in found.rows.to_pylist()} == {("A", 2), ("B", 1)}
        assert found.deleted.to_pylist() == [{"record_id": "B", "visit_no": 2}]

    @on(COMPOSITE)
    @needs("writes")
    def test_a_key_of_several_fields_is_written_and_deleted_as_one(self) -> None:
        self.people_write([visit("A", 1, note="一"), visit("A", 2, note="二")])
        self.write(
            table(self.dataset, [{"record_id": "A", "visit_no": 2, "note": "改"}]),
            table(self.dataset, [visit("B", 2, note="新")]),
            deletes=[{"record_id": "A", "visit_no": 1}, {"record_id": "B", "visit_no": 1}],
        )
        expected = self.typed([visit("A", 2, note="改"), visit("B", 2, note="新")])
        assert self.held() == _by_key(expected, self.dataset)

    @on(COMPOSITE)
    @needs("present")
    def test_a_deletion_is_seen_by_the_whole_key(self) -> None:
        self.people_write([visit("A", 1), visit("A", 2), visit("B", 1)])
        cursor = self.connector().changes(None).cursor
        self.people_delete({"record_id": "A", "visit_no": 1})
        found = self.connector().changes(cursor, sweep=True)
        assert found.present is not None
        assert {tuple(entry.values()) for entry in found.present.to_pylist()} == {("A", 2), ("B", 1)}


def _lines(table: pa.Table) -> list[str]:
    """The rows of a table, whatever their order."""
    return sorted(map(str, table.to_pylist()))


def _by_key(rows: pa.Table, dataset: Dataset) -> dict[str, Row]:
    listed = dict(zip(key_column(rows, dataset).to_pylist(), rows.to_pylist()))
    assert len(listed) == rows.num_rows, "a key stands twice"
    return listed


def _prints(rows: pa.Table, dataset: Dataset) -> dict[str, bytes]:
    """One fingerprint per row and field, so that a failure names the field."""
    names = [name for name in dataset.fields if name not in dataset.key]
    hashed = fingerprints(rows, dataset, {name: [name] for name in names}, b"contract").to_pylist()
    return {f"{entry['key']}.{name}": entry[f"fp_{name}"] for entry in hashed for name in names}


def _column(values: list[Any]) -> pa.Array:
    """One Arrow column; systems without types mix them, and then everything is text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())
