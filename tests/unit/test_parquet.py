"""Drop folders: what is half-written, late, rewritten or drifted; what the engine drops; how the folder stays small."""

from __future__ import annotations

import json
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors import parquet_drops
from connectors.base import Batch, Changes, no_keys, no_returns
from connectors.nodes import build
from connectors.parquet import ParquetConnector
from federation.canonical import key_column
from federation.errors import AccessDenied, Conflict, DeclarationError, Permanent, SchemaMismatch, Transient, Unreadable
from tests.contract.dataset import REGION, SAMPLE, make_node, row, table
from tests.parquet_drop import MANIFEST, drop, manifests

FIELDS = ("record_id", "community_code", "note", "visits")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "drops").mkdir()
    return tmp_path / "drops"


def connector(folder: Path, **options: Any) -> ParquetConnector:
    return ParquetConnector(make_node(SAMPLE, {"path": folder, **options}, fields=FIELDS))


def rows_of(*records: tuple[Any, ...], fields: tuple[str, ...] = ("record_id", "note", "visits")) -> pa.Table:
    found = pa.table({name: [record[at] for record in records] for at, name in enumerate(fields)})
    return found.append_column("community_code", pa.array([REGION.code] * found.num_rows))


def changes_table(*records: tuple[Any, ...], fields: tuple[str, ...] = ("record_id", "note", "_op")) -> pa.Table:
    return pa.table({name: [record[at] for record in records] for at, name in enumerate(fields)})


def at(day: int, hour: int = 12) -> datetime:
    return datetime(2026, 1, day, hour, tzinfo=UTC)


def full(folder: Path, day: int, *records: tuple[Any, ...], hour: int = 12, **about: Any) -> Path:
    return drop(folder, f"dt=2026-01-{day:02d}", "full", [rows_of(*records)], at(day, hour), **about)


def delta(folder: Path, day: int, *tables: pa.Table, suffix: str = "", hour: int = 12, **about: Any) -> Path:
    return drop(folder, f"dt=2026-01-{day:02d}{suffix}", "delta", list(tables), at(day, hour), **about)


def aged(path: Path, hours: float = 24) -> None:
    then = time.time() - hours * 3600
    for file in (*path.iterdir(), path):
        os.utime(file, (then, then))


def notes(found: Changes) -> dict[str, str | None]:
    return dict(zip(found.rows.column("record_id").to_pylist(), found.rows.column("note").to_pylist()))


def read(folder: Path, since: str | None = None, **options: Any) -> Changes:
    return connector(folder, **options).changes(since)


def write(folder: Path, *upserts: pa.Table, cursor: str | None = None, deletes: Any = None, **options: Any) -> Any:
    one = connector(folder, **options)
    gone = table(SAMPLE, [{"record_id": key} for key in deletes], "record_id") if deletes else no_keys(one.node)
    return one.apply(Batch(upserts, gone, cursor))


# --- half-written drops


def test_a_partition_without_a_manifest_is_not_there_yet(folder: Path) -> None:
    full(folder, 1, ("R1", "旧", 1))
    full(folder, 2, ("R1", "新", 2), manifest=False)
    assert notes(read(folder)) == {"R1": "旧"}


@pytest.mark.parametrize("missing", ["part-0.parquet", "part-1.parquet"])
def test_a_partition_whose_manifest_came_before_its_files_is_not_there_yet(folder: Path, missing: str) -> None:
    full(folder, 1, ("R1", "旧", 1))
    late = drop(folder, "dt=2026-01-02", "full", [rows_of(("R1", "新", 2)), rows_of(("R2", "新", 2))], at(2))
    content = (late / missing).read_bytes()
    (late / missing).unlink()
    assert notes(read(folder)) == {"R1": "旧"}
    (late / missing).write_bytes(content)
    assert notes(read(folder)) == {"R1": "新", "R2": "新"}


def test_a_file_that_is_still_being_copied_is_not_read(folder: Path) -> None:
    full(folder, 1, ("R1", "旧", 1))
    file = full(folder, 2, ("R1", "新", 2)) / "part-0.parquet"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    token = connector(folder).probe().token
    assert notes(read(folder)) == {"R1": "旧"}
    file.write_bytes(content)
    assert connector(folder).probe().token != token
    assert notes(read(folder)) == {"R1": "新"}


@pytest.mark.parametrize(
    "written",
    ["", "{", '{"kind": "full"}', '{"kind": "whole", "produced_at": "2026-01-02T00:00:00Z", "files": []}'],
    ids=["empty", "cut", "without files", "of another kind"],
)
def test_a_manifest_that_is_not_complete_counts_as_none(folder: Path, written: str) -> None:
    full(folder, 1, ("R1", "旧", 1))
    (full(folder, 2, ("R1", "新", 2)) / MANIFEST).write_text(written)
    assert notes(read(folder)) == {"R1": "旧"}


def test_a_manifest_that_names_a_file_elsewhere_is_not_followed(folder: Path) -> None:
    full(folder, 1, ("R1", "旧", 1))
    path = full(folder, 2, ("R1", "新", 2))
    about = json.loads((path / MANIFEST).read_text())
    about["files"][0]["name"] = "../dt=2026-01-01/part-0.parquet"
    (path / MANIFEST).write_text(json.dumps(about))
    assert notes(read(folder)) == {"R1": "旧"}


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"files": [{"name": "part-0.parquet", "rows": 1, "sha256": "0" * 64}]}, "another sha256"),
        ({"schema": {"record_id": "string"}}, "columns of the manifest"),
    ],
)
def test_a_drop_that_stays_at_odds_with_its_manifest_is_an_error_that_names_it(
    folder: Path, about: dict[str, Any], says: str
) -> None:
    full(folder, 1, ("R1", "旧", 1))
    path = full(folder, 2, ("R1", "新", 2), **about)
    assert notes(read(folder)) == {"R1": "旧"}
    aged(path)
    with pytest.raises(Unreadable, match=says) as caught:
        read(folder)
    assert caught.value.where["file"] == path and caught.value.zh


def test_a_row_count_at_odds_with_the_manifest_is_no_match(folder: Path) -> None:
    full(folder, 1, ("R1", "旧", 1))
    path = full(folder, 2, ("R1", "新", 2))
    about = json.loads((path / MANIFEST).read_text())
    about["files"][0]["rows"] = 7
    (path / MANIFEST).write_text(json.dumps(about))
    assert notes(read(folder)) == {"R1": "旧"}


def test_what_is_half_written_and_older_than_what_counts_disturbs_nobody(folder: Path) -> None:
    aged(full(folder, 1, ("R1", "旧", 1), manifest=False))
    full(folder, 2, ("R1", "新", 2))
    assert notes(read(folder)) == {"R1": "新"}


def test_while_a_partition_that_others_follow_is_rewritten_nothing_is_read_or_written(folder: Path) -> None:
    full(folder, 1, ("R1", "旧", 1))
    path = full(folder, 2, ("R1", "新", 2), ("R2", "新", 2))
    delta(folder, 3, changes_table(("R1", "改", "U")))
    cursor = read(folder).cursor
    content = (path / MANIFEST).read_bytes()
    (path / MANIFEST).unlink()
    for since in (None, cursor):
        with pytest.raises(Transient, match="being written"):
            read(folder, since)
    with pytest.raises(Transient):
        write(folder, table(SAMPLE, [{"record_id": "R1", "note": "写"}]))
    (path / MANIFEST).write_bytes(content)
    assert read(folder, cursor).rows.num_rows == 0


def test_empty_folders_and_folders_of_other_names_are_no_partitions(folder: Path) -> None:
    full(folder, 1, ("R1", "一", 1))
    for name in ("dt=2026-01-02", "tmp", ".dt=2026-01-03", "dt=2026-1-3"):
        (folder / name).mkdir()
    (folder / "tmp" / "part-0.parquet").write_bytes(b"")
    assert notes(read(folder)) == {"R1": "一"}


def test_a_missing_folder_is_never_an_empty_one(tmp_path: Path) -> None:
    for call in (lambda: read(tmp_path / "no"), connector(tmp_path / "no").probe):
        with pytest.raises(SchemaMismatch, match="missing"):
            call()


def test_a_file_that_is_no_parquet_is_no_match_even_if_its_checksum_is_right(folder: Path) -> None:
    path = full(folder, 1, ("R1", "一", 1))
    (path / "part-0.parquet").write_bytes(b"PAR1 and then nothing")
    about = json.loads((path / MANIFEST).read_text())
    about["files"][0]["sha256"] = parquet_drops._hashed(
        path / "part-0.parquet", *parquet_drops._stamp(path / "part-0.parquet")
    )
    (path / MANIFEST).write_text(json.dumps(about))
    aged(path)
    with pytest.raises(Unreadable, match="no Parquet file"):
        read(folder)


# --- what counts


def test_the_newest_full_and_the_deltas_behind_it_count_in_their_order(folder: Path) -> None:
    full(folder, 1, ("R0", "零", 0))
    full(folder, 2, ("R1", "一", 1), ("R2", "二", 2), ("R3", "三", 3))
    delta(folder, 2, changes_table(("R1", "改", "U"), ("R4", "四", "I")), suffix=".1", hour=13)
    delta(folder, 3, changes_table(("R2", None, "D"), ("R1", "再改", "update")))
    found = read(folder)
    assert notes(found) == {"R1": "再改", "R3": "三", "R4": "四"}
    assert dict(zip(found.rows.column("record_id").to_pylist(), found.rows.column("visits").to_pylist()))["R1"] == 1


def test_partitions_of_one_day_count_by_when_they_were_produced_and_not_by_name(folder: Path) -> None:
    full(folder, 1, ("R1", "一", 1))
    delta(folder, 2, changes_table(("R1", "晚", "U")), suffix=".1", hour=20)
    delta(folder, 2, changes_table(("R1", "早", "U")), suffix=".2", hour=8)
    assert notes(read(folder)) == {"R1": "晚"}


def test_a_record_that_was_deleted_comes_back_without_its_old_values(folder: Path) -> None:
    full(folder, 1, ("R1", "一", 1))
    delta(folder, 2, changes_table(("R1", None, "D")))
    delta(folder, 3, changes_table(("R1", "回", "I")))
    (found,) = read(folder).rows.to_pylist()
    assert (found["note"], found["visits"]) == ("回", None)


def test_a_delta_without_an_operation_column_inserts_and_updates(folder: Path) -> None:
    full(folder, 1, ("R1", "一", 1))
    delta(folder, 2, changes_table(("R1", "改"), ("R2", "二"), fields=("record_id", "note")))
    assert notes(read(folder)) == {"R1": "改", "R2": "二"}


def test_the_operation_column_may_have_another_name(folder: Path) -> None:
    full(folder, 1, ("R1", "一", 1), ("R2", "二", 2))
    delta(folder, 2, changes_table(("R1", None, "删除"), fields=("record_id", "note", "czlx")))
    assert notes(read(folder, operation_column="czlx")) == {"R2": "二"}


def test_an_unknown_operation_is_an_error_that_names_file_and_row(folder: Path) -> None:
    full(folder, 1, ("R1", "一", 1))
    path = delta(folder, 2, changes_table(("R1", None, "U"), ("R2", None, "X")))
    with pytest.raises(Unreadable, match="'X' is no operation") as caught:
        read(folder)
    assert (caught.value.where["file"], caught.value.where["row"]) == (path / "part-0.parquet", 2)


# --- increments


def test_a_read_behind_a_cursor_tells_what_deltas_changed_and_deleted(folder: Path) -> None:
    full(folder, 1, ("R1", "一", 1), ("R2", "二", 2), ("R3", "三", 3))
    cursor = read(folder).cursor
    delta(folder, 2, changes_table(("R1", "改", "U"), ("R2", None, "D"), ("R9", None, "D")))
    found = connector(folder).changes(cursor, sweep=False)
    assert notes(found) == {"R1": "改"}
    assert found.rows.column("visits").to_pylist() == [1], "a row is told whole, whatever the delta names"
    assert sorted(found.deleted.column("record_id").to_pylist()) == ["R2", "R9"]
    assert found.present is None


def test_deltas_of_whole_rows_are_told_without_reading_what_stood_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(folder, 1, ("R1", "一", 1), ("R2", "二", 2))
    cursor = read(folder).cursor
    delta(folder, 2, rows_of(("R1", "改", 7)))
    opened: list[str] = []
    original = parquet_drops.Partition.read

    def watched(partition: parquet_drops.Partition) -> Any:
        opened.append(partition.name)
        return original(partition)

    monkeypatch.setattr(parquet_drops.Partition, "read", watched)
    assert notes(connector(folder).changes(cursor, sweep=False)) == {"R1": "改"}
    assert opened == ["dt=2026-01-02"]


def test_a_late_partition_is_noticed_and_everything_is_told_with_all_keys(folder: Path) -> None:
    full(folder, 1, ("R1", "一", 1), ("R2", "二", 2))
    delta(folder, 3, changes_table(("R1", "三日", "U")))
    one = connector(folder)
    token, cursor = one.probe().token, one.changes(None).cursor
    delta(folder, 2, changes_table(("R1", "二日", "U"), ("R2", None, "D")))
    assert one.probe().token != token
    found = one.changes(cursor, sweep=False)
    assert notes(found) == {"R1": "三日"}
    assert found.present is not None and found.present.column("record_id").to_pylist() == ["R1"]


def test_a_rewritten_partition_is_noticed_and_everything_is_told_with_all_keys(folder: Path) -> None:
    full(folder, 1, ("R1", "一", 1), ("R2", "二", 2))
    delta(folder, 2, changes_table(("R2", "改", "U")))
    cursor = read(folder).cursor
    full(folder, 1, ("R1", "重", 1))
    found = read(folder, cursor)
    assert notes(found) == {"R1": "重", "R2": "改"}
    assert found.present is not None


def test_a_partition_that_is_dropped_again_unchanged_is_no_news_to_the_cursor(folder: Path) -> None:
    full(folder, 1, ("R1", "一", 1))
    cursor = read(folder).cursor
    content = (folder / "dt=2026-01-01" / MANIFEST).read_bytes()
    full(folder, 1, ("R1", "一", 1))
    assert (folder / "dt=2026-01-01" / MANIFEST).read_bytes() == content
    assert read(folder, cursor).rows.num_rows == 0


def test_a_new_full_partition_tells_deletions_by_its_keys(folder: Path) -> None:
    full(folder, 1, ("R1", "一", 1), ("R2", "二", 2))
    cursor = read(folder).cursor
    full(folder, 2, ("R1", "一", 1))
    found = connector(folder).changes(cursor, sweep=False)
    assert found.present is not None and found.present.column("record_id").to_pylist() == ["R1"]


# --- drift and faults


def test_a_field_that_a_full_partition_has_no_column_for_is_missing_and_not_empty(folder: Path) -> None:
    drop(folder, "dt=2026-01-01", "full", [rows_of(("R1", "一", 1)).drop_columns(["visits"])], at(1))
    found = read(folder)
    assert found.missing == {"visits"} and notes(found) == {"R1": "一"}


def test_a_field_that_one_of_the_files_has_no_column_for_is_missing(folder: Path) -> None:
    parts = [rows_of(("R1", "一", 1)), rows_of(("R2", "二", 2)).drop_columns(["visits"])]
    drop(folder, "dt=2026-01-01", "full", parts, at(1))
    assert read(folder).missing == {"visits"}


@pytest.mark.parametrize("lost", ["record_id", "community_code"])
def test_without_key_or_jurisdiction_nothing_is_read(folder: Path, lost: str) -> None:
    path = drop(folder, "dt=2026-01-01", "full", [rows_of(("R1", "一", 1)).drop_columns([lost])], at(1))
    with pytest.raises(SchemaMismatch, match=lost) as caught:
        read(folder)
    assert caught.value.where["file"] == path / "part-0.parquet"


def test_a_delta_names_only_what_it_changes_and_nothing_is_missing(folder: Path) -> None:
    full(folder, 1, ("R1", "一", 1))
    delta(folder, 2, changes_table(("R1", "改", "U")))
    assert not read(folder).missing


def test_a_key_in_two_parts_of_a_full_partition_is_trusted_in_neither(folder: Path) -> None:
    parts = [rows_of(("R1", "甲", 1), ("R2", "二", 2)), rows_of(("R1", "乙", 1))]
    drop(folder, "dt=2026-01-01", "full", parts, at(1))
    found = read(folder)
    assert notes(found) == {"R2": "二"}
    assert found.rejects.column("rule").to_pylist() == ["key:duplicate"] * 2
    assert found.rejects.column("locator").to_pylist() == [
        "dt=2026-01-01/part-0.parquet 第 1 行",
        "dt=2026-01-01/part-1.parquet 第 1 行",
    ]
    assert found.present is not None and sorted(found.present.column("record_id").to_pylist()) == ["R1", "R2"]


def test_a_key_that_a_delta_both_deletes_and_writes_is_set_aside(folder: Path) -> None:
    full(folder, 1, ("R1", "一", 1))
    delta(folder, 2, changes_table(("R1", "改", "U"), ("R1", None, "D"), ("R2", "二", "U")))
    found = read(folder)
    assert notes(found) == {"R2": "二"}
    (reject,) = found.rejects.to_pylist()
    assert (reject["record_id"], reject["rule"]) == ("R1", "key:duplicate")
    assert reject["reason_zh"] and "R1" in reject["reason_en"]


def test_a_key_deleted_twice_in_one_delta_is_deleted(folder: Path) -> None:
    full(folder, 1, ("R1", "一", 1), ("R2", "二", 2))
    delta(folder, 2, changes_table(("R1", None, "D"), ("R1", None, "D")))
    found = read(folder)
    assert notes(found) == {"R2": "二"} and not found.rejects.num_rows


def test_a_faulty_row_stands_until_a_later_partition_says_it_anew_or_deletes_it(folder: Path) -> None:
    bad = pa.table({"record_id": ["R1", "R2", "R3"], "note": ["一"] * 3, "visits": ["多"] * 3})
    drop(folder, "dt=2026-01-01", "full", [bad.append_column("community_code", pa.array([REGION.code] * 3))], at(1))
    assert read(folder).rejects.num_rows == 3
    delta(folder, 2, changes_table(("R1", "仍坏", "U"), ("R3", None, "D")))
    found = read(folder)
    assert sorted(found.rejects.column("record_id").to_pylist()) == ["R1", "R2"] and not found.rows.num_rows
    delta(folder, 3, rows_of(("R1", "好", 3)))
    found = read(folder)
    assert notes(found) == {"R1": "好"} and found.rejects.column("record_id").to_pylist() == ["R2"]


def test_a_faulty_row_of_a_later_delta_makes_the_record_a_reject(folder: Path) -> None:
    full(folder, 1, ("R1", "一", 1), ("R2", "二", 2))
    cursor = read(folder).cursor
    delta(folder, 2, changes_table(("R1", "多"), fields=("record_id", "visits")))
    for since in (None, cursor):
        found = read(folder, since)
        assert "R1" not in notes(found)
        assert [(one["record_id"], one["rule"]) for one in found.rejects.to_pylist()] == [("R1", "type:int")]
        assert not found.deleted.num_rows


def test_encodings_that_writers_choose_for_size_are_read_as_what_they_mean(folder: Path) -> None:
    found = pa.table(
        {
            "record_id": pa.array(["R1", "R2"], pa.large_string()),
            "community_code": pa.array([REGION.code] * 2).dictionary_encode(),
            "note": pa.array([b"\xe4\xb8\x80", None], pa.binary()),
            "visits": pa.array([1, 2], pa.uint8()),
        }
    )
    drop(folder, "dt=2026-01-01", "full", [found], at(1))
    assert notes(read(folder)) == {"R1": "一", "R2": None}


# --- what the engine drops


def test_the_engine_drops_one_partition_a_batch_with_the_columns_that_it_was_given(folder: Path) -> None:
    full(folder, 1, ("R1", "一", 1), ("R2", "二", 2))
    write(folder, table(SAMPLE, [{"record_id": "R1", "note": "写"}]), deletes=["R2"])
    path, about = manifests(folder)[-1]
    assert (about["kind"], about["producer"], path.name.endswith(".fedsync-000001")) == ("delta", "fedsync", True)
    found = [pq.read_table(path / part["name"]).to_pylist() for part in about["files"]]
    assert found == [[{"record_id": "R1", "note": "写", "_op": "U"}], [{"record_id": "R2", "_op": "D"}]]
    assert not list(folder.glob(".fedsync-*/"))


def test_the_engines_partition_counts_behind_all_that_is_there_even_if_that_is_dated_ahead(folder: Path) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=2)
    drop(folder, f"dt={tomorrow.date()}", "full", [rows_of(("R1", "明", 1))], tomorrow)
    write(folder, table(SAMPLE, [{"record_id": "R1", "note": "写"}]))
    assert notes(read(folder)) == {"R1": "写"}


def test_a_batch_written_twice_is_one_partition(folder: Path) -> None:
    rows = table(SAMPLE, [row("R2", note="二"), row("R1", note="一")])
    write(folder, rows)
    write(folder, rows.take([1, 0]))
    assert len(manifests(folder)) == 1


def test_the_same_batch_after_another_is_written_again(folder: Path) -> None:
    for note in ("一", "二", "一"):
        write(folder, table(SAMPLE, [row("R1", note=note)]))
    assert notes(read(folder)) == {"R1": "一"}


def test_a_write_that_breaks_off_leaves_nothing_to_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full(folder, 1, ("R1", "一", 1))

    def broken(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", broken)
    with pytest.raises(Transient, match="No space left"):
        write(folder, table(SAMPLE, [{"record_id": "R1", "note": "写"}]))
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["dt=2026-01-01"]


def test_what_a_killed_writer_left_is_removed_by_a_later_one(folder: Path) -> None:
    left = folder / ".fedsync-0123456789ab"
    left.mkdir()
    (left / "part-00000.parquet").write_bytes(b"half")
    aged(left)
    write(folder, table(SAMPLE, [row("R1", note="一")]))
    assert not left.exists()


def test_a_provider_who_drops_while_the_engine_writes_makes_it_withdraw(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(folder, 1, ("R1", "一", 1))
    cursor = read(folder).cursor
    publish = parquet_drops.publish

    def meanwhile(*arguments: Any) -> Any:
        delta(folder, 2, changes_table(("R1", "同时", "U")))
        return publish(*arguments)

    monkeypatch.setattr(parquet_drops, "publish", meanwhile)
    with pytest.raises(Conflict):
        write(folder, table(SAMPLE, [{"record_id": "R1", "note": "写"}]), cursor=cursor)
    monkeypatch.undo()
    assert notes(read(folder)) == {"R1": "同时"}
    assert {path.name for path, _ in manifests(folder)} == {"dt=2026-01-01", "dt=2026-01-02"}


def test_engines_that_write_at_the_same_time_do_not_overwrite_each_other(folder: Path) -> None:
    def work(number: int) -> None:
        for turn in range(5):
            write(folder, table(SAMPLE, [row(f"R{number}-{turn}", note="写")]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(notes(read(folder))) == 20
    assert len(manifests(folder)) == 20


def test_our_own_write_is_no_news_unless_somebody_else_dropped_something(folder: Path) -> None:
    full(folder, 1, ("R1", "一", 1))
    one = connector(folder)
    token = one.probe().token
    rows = table(SAMPLE, [{"record_id": "R1", "note": "写"}])
    applied = one.apply(Batch((rows,), no_keys(one.node), one.changes(None).cursor, token))
    assert applied.token == one.probe().token
    full(folder, 2, ("R1", "新", 2))
    stale = one.apply(Batch((rows,), no_keys(one.node), one.changes(None).cursor, applied.token))
    assert stale.token is None


def test_returns_are_shown_in_a_file_of_the_folder_and_taken_away_again(folder: Path) -> None:
    full(folder, 1, ("R1", "一", 1))
    one = connector(folder)
    token = one.probe().token
    reasons = {"locator": "x", "field": "note", "value": "一", "rule": "r", "reason_zh": "不合", "reason_en": "no"}
    returns = pa.Table.from_pylist([{"record_id": "R1", **reasons}], no_returns(one.node).schema)
    one.show_returns(returns)
    assert json.loads((folder / "_returns.json").read_text(encoding="utf-8")) == [
        {"record_id": "R1", **reasons, **dict.fromkeys(("return_id", "hop", "since", "state"))}
    ]
    assert one.probe().token == token
    one.show_returns(returns.slice(0, 0))
    assert not (folder / "_returns.json").exists()


def test_a_read_only_folder_is_never_written(folder: Path) -> None:
    full(folder, 1, ("R1", "一", 1))
    one = connector(folder, read_only=True)
    assert one.prepare() == ()
    assert not one.capabilities.writes and not one.capabilities.returns
    with pytest.raises(Permanent, match="read-only"):
        one.apply(Batch((table(SAMPLE, [row("R1")]),), no_keys(one.node)))
    assert [path.name for path in folder.iterdir()] == ["dt=2026-01-01"]


@pytest.mark.parametrize("path", ["s3://drops/甲", "sftp://files.example.cn/甲", "file:///data/甲"])
def test_an_address_is_refused_and_not_taken_for_a_folder_of_that_name(path: str) -> None:
    with pytest.raises(DeclarationError, match="path of this machine"):
        build(make_node(SAMPLE, {"path": path}), "parquet")


def test_a_folder_without_rights_is_told_as_such(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(AccessDenied, match="Permission denied"):
        write(folder, table(SAMPLE, [row("R1")]))


# --- keeping the folder small


def days_ago(count: int) -> datetime:
    return datetime.now(UTC) - timedelta(days=count)


def old(folder: Path, kind: str, days: int, found: pa.Table) -> None:
    drop(folder, f"dt={days_ago(days).date()}", kind, [found], days_ago(days))


def names(folder: Path) -> list[str]:
    return [path.name for path, _ in manifests(folder)]


def test_nothing_is_ever_removed_unless_it_is_declared(folder: Path) -> None:
    old(folder, "full", 90, rows_of(("R1", "一", 1)))
    old(folder, "full", 60, rows_of(("R1", "一", 1)))
    write(folder, table(SAMPLE, [{"record_id": "R1", "note": "写"}]))
    assert len(names(folder)) == 3


def test_old_partitions_that_do_not_count_any_more_are_removed(folder: Path) -> None:
    for days in (90, 60, 3, 1):
        old(folder, "full", days, rows_of(("R1", f"{days}", 1)))
    write(folder, table(SAMPLE, [{"record_id": "R1", "note": "写"}]), keep_days=30)
    assert names(folder)[:-1] == [f"dt={days_ago(days).date()}" for days in (3, 1)]


def test_old_deltas_are_joined_into_a_full_partition_that_reads_the_same(folder: Path) -> None:
    old(folder, "full", 90, rows_of(("R1", "一", 1), ("R2", "二", 2)))
    old(folder, "delta", 80, changes_table(("R1", "改", "U")))
    old(folder, "delta", 40, changes_table(("R2", None, "D"), ("R3", "三", "I")))
    old(folder, "delta", 5, changes_table(("R1", "近", "U")))
    one = connector(folder, keep_days=30)
    rows = table(SAMPLE, [{"record_id": "R3", "note": "写"}])
    applied = one.apply(Batch((rows,), no_keys(one.node), one.changes(None).cursor, one.probe().token))
    assert [about["kind"] for _, about in manifests(folder)] == ["full", "delta", "delta"]
    assert notes(read(folder)) == {"R1": "近", "R3": "写"}
    assert applied.cursor == read(folder).cursor and applied.token == one.probe().token
    assert read(folder, applied.cursor).rows.num_rows == 0


def test_deltas_with_rows_that_cannot_be_read_are_kept_as_they_are(folder: Path) -> None:
    old(folder, "full", 90, rows_of(("R1", "一", 1)))
    old(folder, "delta", 80, changes_table(("R1", "多"), fields=("record_id", "visits")))
    write(folder, table(SAMPLE, [row("R2", note="写")]), keep_days=30)
    assert len(names(folder)) == 3 and read(folder).rejects.num_rows == 1


def test_a_folder_that_only_the_engine_fills_stays_small(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    today = datetime.now(UTC).date()
    for day in range(60):
        monkeypatch.setattr(ParquetConnector, "_today", lambda _, day=day: str(today + timedelta(days=day)))
        write(folder, table(SAMPLE, [row(f"R{day % 7}", note=f"{day}")]), keep_days=5)
        assert len(names(folder)) <= 12
    monkeypatch.undo()
    assert notes(read(folder)) == {f"R{day % 7}": f"{day}" for day in range(53, 60)}


def test_it_is_opened_by_its_word(folder: Path) -> None:
    assert isinstance(build(make_node(SAMPLE, {"path": str(folder)}), "parquet"), ParquetConnector)


def test_keys_are_told_in_their_canonical_form(folder: Path) -> None:
    full(folder, 1, (" R1 ", "一", 1))
    found = read(folder)
    assert found.present is not None and key_column(found.present, SAMPLE).to_pylist() == ["R1"]
