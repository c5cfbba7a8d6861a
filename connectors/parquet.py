"""A drop folder of Parquet files: how data bureaux hand over bulk files, one partition a day (see `connectors.parquet_drops`).

The newest full partition and the deltas after it are read as one table (`connectors.parquet_fold`). While only deltas are added, a
read returns what they change; a partition that came late or was rewritten, or a new full one, makes the next read whole. What is
half-written is never read: the newest is waited for, one that others build on stops the node until it is whole.

The engine writes deltas of its own, one for each batch, into the same folder: a file for each set of columns, published in one step.
They count behind all that was there, so a provider's later full partition is believed, and is expected to hold what it took over.
A provider that rewrites a partition puts the new folder in the place of the old one, or changes the manifest last.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
from pydantic import Field, field_validator

from connectors import files, parquet_drops, parquet_inspect
from connectors.base import Applied, Batch, Capabilities, Changes, Connector, Node, Options, Probe, fetched, no_keys
from connectors.desk import standing
from connectors.findings import Finding
from connectors.parquet_drops import Drops, Partition
from connectors.parquet_fold import Folded, fold
from federation.errors import Conflict, Permanent, located

RETURNS = "_returns.json"


class ParquetOptions(Options):
    """`path`: the drop folder, on this machine or mounted there. `operation_column`: of a delta, says what becomes of a row: U (insert or update) or D (delete).

    `overdue_minutes`: a drop that stays half-written for longer is an error. `keep_days`: when the engine writes, it removes
    older partitions that no longer count, and joins those that do into one full partition; default: it removes nothing. It must be
    longer than a provider may be late. `read_only`: the engine never writes here.
    """

    path: Path
    operation_column: str = "_op"
    overdue_minutes: int = Field(default=120, gt=0)
    keep_days: int | None = Field(default=None, gt=0)
    read_only: bool = False

    @field_validator("path", mode="before")
    @classmethod
    def _of_this_machine(cls, path: Any) -> Any:
        """As a path of this machine, an address would be a folder called `s3:`, empty and ready to be written to."""
        if "://" in str(path):
            raise ValueError(
                "a drop folder is a path of this machine: mount the place, or have the files copied here"
                " / 投递目录须为本机路径：请挂载该位置，或先将文件复制到本机"
            )
        return path


class ParquetConnector(Connector):
    """See the module."""

    options_model = ParquetOptions

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.options = ParquetOptions.model_validate(node.options)
        self.folder = self.options.path
        self._where = {"dataset": node.dataset.name, "region": str(node.region), "system": node.system}

    @classmethod
    def watched(cls, node: Node) -> Path | None:
        path = node.options.get("path")
        return Path(str(path)) if path else None

    @property
    def capabilities(self) -> Capabilities:
        writes = not self.options.read_only
        return Capabilities(
            "log", keyed_reads=False, conditional=True, cheap_sweep=False, returns=writes, writes=writes
        )

    def probe(self) -> Probe:
        with located(**self._where):
            stamps = parquet_drops.stamps(self.folder)
        return Probe(_token(stamps), f"{len(stamps)} partitions, newest {max(stamps, default='none')}")

    def inspect(self) -> Sequence[Finding]:
        with located(**self._where), parquet_drops.named(self.folder):
            return parquet_inspect.inspected(self.node, self.folder, self._listed(), self.capabilities)

    def prepare(self) -> tuple[str, ...]:
        with located(**self._where), parquet_drops.named(self.folder):
            if self.options.read_only or self.folder.is_dir():
                return ()
            self.folder.mkdir(parents=True, exist_ok=True)
        return (f"目录 folder {self.folder}",)

    def changes(self, since: str | None, *, sweep: bool = True) -> Changes:
        with located(**self._where):
            drops = self._listed()
            later = drops.after(since)
            if later is None:  # what the cursor covered does not count any more: everything is told, and all keys
                found = self._folded(drops.live)
                present = found.present(self.node) if sweep or since is not None else None
                return self._changes(replace(found, gone=no_keys(self.node)), present, drops.cursor)
            found, present = self._folded(later), None
            if sweep or not found.whole:
                every = self._folded(drops.live)
                present = every.present(self.node) if sweep else None
                found = every.only(self.node, found)
            return self._changes(found, present, drops.cursor)

    def fetch(self, keys: pa.Table) -> Changes:
        with located(**self._where):
            found = replace(self._folded(self._listed().live), gone=no_keys(self.node))
            return fetched(self.node, self._changes(found, None, None), keys)

    def apply(self, batch: Batch) -> Applied:
        rows = sum(table.num_rows for table in batch.upserts)
        with located(**self._where):
            if self.options.read_only:
                raise Permanent(
                    "the drop folder is declared read-only",
                    "投递目录声明为只读",
                    todo="删去 read_only，或不让数据写往此处 / remove `read_only`, or let nothing be written here",
                    file=self.folder,
                )
            with parquet_drops.locked(self.folder):
                before, drops = parquet_drops.stamps(self.folder), self._listed()
                if batch.cursor is not None and batch.cursor != drops.cursor:
                    raise self._moved()
                made = self._dropped(drops, self._files(batch))
                now = parquet_drops.stamps(self.folder)
                alone = before == {name: stamp for name, stamp in now.items() if made is None or name != made.name}
                if made is not None:
                    # A provider does not ask for our lock: if it dropped something meanwhile, ours is withdrawn.
                    if batch.cursor is not None and not alone:
                        parquet_drops.take_away(made)
                        raise self._moved()
                    drops = self._tidied(Drops((*drops.all, made), drops.waiting))
                known = alone and batch.token == _token(before)
                token = _token(parquet_drops.stamps(self.folder)) if known else None
        return Applied(rows, batch.deletes.num_rows, drops.cursor, token)

    def show_returns(self, returns: pa.Table) -> None:
        """Show the returns in `_returns.json`, one document of all of them. Writes nothing if they are shown already."""
        path = self.folder / RETURNS
        shown = files.read(path) if files.exists(path) else None
        returns = standing(returns)
        content = json.dumps(returns.to_pylist(), ensure_ascii=False, indent=1, default=str).encode()
        if not returns.num_rows:
            files.remove(path)
        elif content != shown:
            files.replace(path, content, shown)

    # --- reading

    def _listed(self) -> Drops:
        return parquet_drops.listed(self.folder, timedelta(minutes=self.options.overdue_minutes))

    def _folded(self, partitions: tuple[Partition, ...]) -> Folded:
        return fold(self.node, partitions, self.options.operation_column)

    def _changes(self, found: Folded, present: pa.Table | None, cursor: str | None) -> Changes:
        return Changes(found.rows, found.rejects, found.gone, present, cursor, missing=found.missing)

    # --- writing

    def _moved(self) -> Conflict:
        return Conflict(
            "a partition was dropped after the folder was read; nothing was written",
            "读取后有新的分区投递；未写入任何内容",
            todo="将重新读取并合并 / it is read and merged again",
            file=self.folder,
        )

    def _files(self, batch: Batch) -> list[pa.Table]:
        """A batch as files: the columns under the system's names, and what is to be done; in the order of the key."""
        tables = []
        for rows, word in (*((rows, "U") for rows in batch.upserts), (batch.deletes, "D")):
            if rows.num_rows:
                rows = rows.sort_by([(name, "ascending") for name in self.node.dataset.key])
                named = rows.rename_columns([self.node.column(name) for name in rows.column_names])
                word_column = pa.array([word] * rows.num_rows, pa.string())
                tables.append(named.append_column(self.options.operation_column, word_column))
        return tables

    def _dropped(self, drops: Drops, tables: list[pa.Table]) -> Partition | None:
        """The newest partition, of these files; None if there are none, or the newest partition is made of them already."""
        if not tables:
            return None
        with parquet_drops.draft(self.folder, "delta", tables) as (hidden, manifest):
            newest = drops.all[-1] if drops.all else None
            if newest is not None and newest.own and newest.manifest.files == manifest.files:
                return None
            days = [self._today(), *(partition.day for partition in drops.all), *(one.day for one in drops.waiting)]
            day = max(days)
            same_day = [partition.manifest.produced_at for partition in drops.all if partition.day == day]
            moment = max([datetime.now(UTC), *(moment + timedelta(milliseconds=1) for moment in same_day)])
            manifest = manifest.model_copy(update={"produced_at": moment})
            return parquet_drops.publish(hidden, manifest, day, parquet_drops.next_name(drops, day))

    def _today(self) -> str:
        return datetime.now(ZoneInfo(self.node.timezone)).date().isoformat()

    # --- keeping the folder small

    def _tidied(self, drops: Drops) -> Drops:
        """The folder without what is old and does not count; what is old and counts, once it is much, as one full partition."""
        if self.options.keep_days is None:
            return drops
        keep = timedelta(days=self.options.keep_days)
        today = datetime.fromisoformat(self._today())
        limit, long_ago = ((today - days).date().isoformat() for days in (keep, 2 * keep))
        old = tuple(partition for partition in drops.live if partition.day < limit)
        if len(old) > 1 and (old[0].manifest.kind == "delta" or old[0].day < long_ago):
            drops = self._joined(drops, old)
        stays = drops.live
        for partition in drops.all[: len(drops.all) - len(stays)]:
            if partition.day < limit:
                parquet_drops.take_away(partition)
        return Drops(tuple(p for p in drops.all if p in stays or p.day >= limit), drops.waiting)

    def _joined(self, drops: Drops, old: tuple[Partition, ...]) -> Drops:
        """With a full partition right behind `old` that says what these come to; not where some of it cannot be read."""
        found = self._folded(old)
        if found.rejects.num_rows or found.missing:
            return drops
        rows = found.rows.rename_columns([self.node.column(name) for name in found.rows.column_names])
        last = old[-1]
        with parquet_drops.draft(self.folder, "full", [rows]) as (hidden, manifest):
            moment = last.manifest.produced_at + timedelta(microseconds=1)
            manifest = manifest.model_copy(update={"produced_at": moment})
            made = parquet_drops.publish(hidden, manifest, last.day, parquet_drops.next_name(drops, last.day))
        every: list[Any] = sorted([*drops.all, made], key=lambda partition: partition.order)
        return replace(drops, all=tuple(every))


def _token(stamps: dict[str, str]) -> str:
    return files.sha256(*(f"{name} {stamp}".encode() for name, stamp in sorted(stamps.items())))[:32]
