"""Partitions of a drop folder: which are there, whole and in which order they count; how one is published and taken away.

    dt=2026-01-31/                  one per day; a further one of the same day has a suffix: dt=2026-01-31.2/
        part-00000.parquet          any number of files
        _manifest.json              written last: {"kind": "full", "produced_at": "2026-02-01T02:00:00+08:00",
                                    "files": [{"name": "part-00000.parquet", "rows": 10, "sha256": "…"}],
                                    "schema": {"column": "type"}}   (optional: the columns of all files)

PARTITION   a folder whose manifest is complete and matches its files (names, rows, sha256); anything less is not there yet.
FULL        all records. DELTA: changes to what stood before; a file of a delta names only the columns that it changes.
ORDER       by day, then by the manifest's `produced_at`, then by name. What counts is the newest full and the deltas after it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from federation.errors import AccessDenied, Conflict, SchemaMismatch, Transient, Unreadable

MANIFEST = "_manifest.json"
PRODUCER = "fedsync"
_DAY = re.compile(r"dt=([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[._-].+)?")
_OWN = re.compile(rf"dt=[0-9-]{{10}}\.{PRODUCER}-([0-9]{{6}})")
_HIDDEN = f".{PRODUCER}-"
_STALE_SECONDS = 3600.0
_AGAIN_SECONDS = 30.0


class Part(BaseModel):
    """One file of a manifest."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(pattern=r"^[^/\\.][^/\\]*$")
    rows: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-fA-F]{64}$")


class Manifest(BaseModel):
    """What a partition says of itself; words that are not known here are left alone."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["full", "delta"]
    produced_at: AwareDatetime
    files: tuple[Part, ...]
    columns: dict[str, str] | None = Field(default=None, alias="schema")
    producer: str = ""


@dataclass(frozen=True)
class Partition:
    """A partition that is there. `digest`: of its manifest, which names the content of every file."""

    path: Path
    day: str
    manifest: Manifest
    digest: str

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def own(self) -> bool:
        """Whether the engine made it."""
        return self.manifest.producer == PRODUCER

    @property
    def order(self) -> tuple[str, datetime, str]:
        """Later partitions change what earlier ones say."""
        return self.day, self.manifest.produced_at, self.name

    def read(self) -> Iterator[tuple[str, pa.Table]]:
        """Each file's name and rows. Raises Transient if a file is no longer the one that the manifest names."""
        for part in self.manifest.files:
            path = self.path / part.name
            with named(path):
                before = _stamp(path)
                content = path.read_bytes()
                if _hashed(path, *before) != part.sha256.lower() or _stamp(path) != before:
                    raise Transient("the file changed while it was read", "读取时文件被修改", file=path)
            yield part.name, _table(path, content)


@dataclass(frozen=True)
class Unfinished:
    """A folder that is no partition yet. `why`: (en, zh). `seconds`: since anything in it changed."""

    path: Path
    day: str
    why: tuple[str, str]
    seconds: float


@dataclass(frozen=True)
class Drops:
    """What a folder holds. `all`: its partitions, in order. `waiting`: newer than all of them, and not there yet."""

    all: tuple[Partition, ...]
    waiting: tuple[Unfinished, ...] = ()

    @cached_property
    def live(self) -> tuple[Partition, ...]:
        """The partitions that count: the newest full and what follows it."""
        fulls = [at for at, partition in enumerate(self.all) if partition.manifest.kind == "full"]
        return self.all[fulls[-1] :] if fulls else self.all

    @property
    def cursor(self) -> str:
        """`<newest partition>@<digest of all that count>`."""
        return f"{self.live[-1].name if self.live else ''}@{self._chain[-1]}"

    def after(self, cursor: str | None) -> tuple[Partition, ...] | None:
        """What was added behind a cursor; None if what it covers is no longer what counts (late, rewritten, a new full)."""
        _, mark, chain = (cursor or "").rpartition("@")
        at = self._chain.index(chain) if mark and chain in self._chain[1:] else None
        return None if at is None else self.live[at:]

    @cached_property
    def _chain(self) -> list[str]:
        links = [hashlib.sha256(b"").hexdigest()[:32]]
        for partition in self.live:
            told = f"{links[-1]}{partition.name}\n{partition.digest}"
            links.append(hashlib.sha256(told.encode()).hexdigest()[:32])
        return links


def listed(folder: Path, overdue: timedelta) -> Drops:
    """Look through a folder, checking every file that counts.

    Raises SchemaMismatch if there is none; Transient while a partition that others build on is being copied or rewritten;
    Unreadable if one has stayed half-written for longer than `overdue`.
    """
    claimed: list[Partition] = []
    unfinished: list[Unfinished] = []
    for path, day in _folders(folder):
        found = _examined(path, day)
        if isinstance(found, Partition):
            claimed.append(found)
        elif found is not None:
            unfinished.append(found)
    claimed.sort(key=lambda partition: partition.order)
    whole: list[Partition] = []
    while claimed:
        partition = claimed.pop()
        why = _fault(partition)
        if why is not None:
            unfinished.append(Unfinished(partition.path, partition.day, why, _untouched(partition.path)))
            continue
        whole.append(partition)
        if partition.manifest.kind == "full":
            break
    drops = Drops((*claimed, *reversed(whole)))
    return Drops(drops.all, _patient(drops, unfinished, overdue))


def _patient(drops: Drops, unfinished: list[Unfinished], overdue: timedelta) -> tuple[Unfinished, ...]:
    """Those that may be waited for; raises if one may not."""
    based = bool(drops.live) and drops.live[0].manifest.kind == "full"
    first = drops.live[0].day if based else ""
    newest = max((partition.day for partition in drops.all), default="")
    concerned = tuple(one for one in unfinished if one.day >= first)
    for one in concerned:
        if one.seconds > overdue.total_seconds():
            raise Unreadable(
                f"the drop is half-written and nothing in it has changed for long: {one.why[0]}",
                f"数据分区不完整且长时间未变化：{one.why[1]}",
                todo="请提供方重新投递该分区，或将其移走 / have it dropped again, or move the folder away",
                file=one.path,
            )
        if one.day <= newest:
            raise Transient(
                f"a drop that later ones follow is being written: {one.why[0]}",
                f"后续分区所依赖的分区正在写入：{one.why[1]}",
                retry_after=_AGAIN_SECONDS,
                todo="写完后自动继续 / it goes on once it is written",
                file=one.path,
            )
    return concerned


def stamps(folder: Path) -> dict[str, str]:
    """Partition folder → a text that differs whenever something in it does. Reads manifests and times only."""
    found = {}
    for path, _ in _folders(folder):
        with named(path):
            lines = [f"{entry.name} {_stamp(Path(entry.path))}" for entry in _entries(path)]
            manifest = _content(path / MANIFEST) or b""
        told = "\n".join([*lines, hashlib.sha256(manifest).hexdigest()])
        found[path.name] = hashlib.sha256(told.encode()).hexdigest()[:32]
    return found


def _folders(folder: Path) -> list[tuple[Path, str]]:
    with named(folder):
        if not folder.is_dir():
            raise SchemaMismatch(
                "the drop folder is missing; nothing is read as deleted",
                "投递目录不存在；不会视为数据被删除",
                todo="检查 path，或运行 fedsync system prepare 新建 / check `path`, or create it with fedsync system prepare",
                file=folder,
            )
        found = [(entry.name, _DAY.fullmatch(entry.name), entry.is_dir()) for entry in os.scandir(folder)]
    return sorted((folder / name, match[1]) for name, match, is_folder in found if match and is_folder)


def _examined(path: Path, day: str) -> Partition | Unfinished | None:
    """The partition that a folder's manifest claims, or what is wanting; None if the folder is empty."""
    with named(path):
        there = {entry.name for entry in _entries(path)}
        if not there:
            return None
        content = _content(path / MANIFEST)
    if content is None:
        return Unfinished(path, day, (f"it has no {MANIFEST}", f"缺少 {MANIFEST}"), _untouched(path))
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as cause:
        where = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in cause.errors()[:3])
        why = f"its {MANIFEST} is not complete ({where})", f"{MANIFEST} 不完整（{where}）"
        return Unfinished(path, day, why, _untouched(path))
    apart = {part.name for part in manifest.files} ^ {name for name in there if name.endswith(".parquet")}
    if apart:
        names = ", ".join(sorted(apart))
        why = f"manifest and folder do not list the same files ({names})", f"清单与目录中的文件不一致（{names}）"
        return Unfinished(path, day, why, _untouched(path))
    return Partition(path, day, manifest, hashlib.sha256(content).hexdigest())


def _untouched(path: Path) -> float:
    """For how many seconds nothing in a folder has changed."""
    with named(path):
        return time.time() - max(found.stat().st_mtime for found in (path, *(Path(e.path) for e in _entries(path))))


def _fault(partition: Partition) -> tuple[str, str] | None:
    """What the files do not keep of what the manifest says."""
    columns: set[str] = set()
    for part in partition.manifest.files:
        file = partition.path / part.name
        with named(file):
            if _hashed(file, *_stamp(file)) != part.sha256.lower():
                return f"{part.name} has another sha256 than the manifest says", f"{part.name} 的 sha256 与清单不符"
        try:
            about = pq.read_metadata(file)
        except (pa.ArrowInvalid, OSError):
            return f"{part.name} is no Parquet file", f"{part.name} 不是 Parquet 文件"
        if about.num_rows != part.rows:
            return f"{part.name} has {about.num_rows} rows, not {part.rows}", f"{part.name} 的行数与清单不符"
        columns.update(about.schema.to_arrow_schema().names)
    told = partition.manifest.columns
    if told is not None and partition.manifest.files and set(told) != columns:
        names = ", ".join(sorted(set(told) ^ columns))
        return f"the files do not have the columns of the manifest ({names})", f"文件列与清单不符（{names}）"
    return None


def _table(path: Path, content: bytes) -> pa.Table:
    try:
        found = pq.read_table(pa.BufferReader(content))
        return pa.table({name: _plain(found.column(name)) for name in found.column_names})
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as cause:
        raise Unreadable(
            f"the file cannot be read as Parquet: {cause}",
            "文件无法按 Parquet 读取",
            todo="请提供方重新投递 / have it dropped again",
            file=path,
        ) from cause


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without the encodings that writers choose for size."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    text = pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_binary(kind)
    return column.cast(pa.string()) if text or pa.types.is_large_binary(kind) else column


# --- writing


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep all other engines on this machine, and on shares that know locks, from publishing here."""
    with named(folder):
        handle = os.open(folder / f"{_HIDDEN}lock", os.O_RDWR | os.O_CREAT, 0o664)
    try:
        with named(folder):  # a share may know no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def next_name(drops: Drops, day: str) -> str:
    """A name for our next partition of a day."""
    numbers = [int(match[1]) for partition in drops.all if (match := _OWN.fullmatch(partition.name))]
    return f"dt={day}.{PRODUCER}-{max(numbers, default=0) + 1:06d}"


@contextmanager
def draft(folder: Path, kind: Literal["full", "delta"], tables: list[pa.Table]) -> Iterator[tuple[Path, Manifest]]:
    """Write files into a hidden folder, gone afterwards unless it was published; its manifest is yet without a moment."""
    hidden = folder / f"{_HIDDEN}{secrets.token_hex(6)}"
    with named(folder):
        _swept(folder)
        hidden.mkdir()
    try:
        parts, columns = [], {}
        for number, table in enumerate(tables):
            path = hidden / f"part-{number:05d}.parquet"
            with named(path):
                pq.write_table(table, path, compression="zstd")
                _flush(path)
                parts.append(Part(name=path.name, rows=table.num_rows, sha256=_hashed(path, *_stamp(path))))
            columns.update({field.name: str(field.type) for field in table.schema})
        never = datetime.fromisoformat("0001-01-01T00:00:00+00:00")
        about = {"kind": kind, "produced_at": never, "files": parts, "schema": columns, "producer": PRODUCER}
        yield hidden, Manifest.model_validate(about)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def publish(hidden: Path, manifest: Manifest, day: str, name: str) -> Partition:
    """Give a draft its manifest, then its name, each in one step. Raises Conflict if the name is taken by now."""
    folder = hidden.parent
    content = json.dumps(manifest.model_dump(mode="json", by_alias=True), ensure_ascii=False, indent=1).encode()
    with named(folder):
        (hidden / MANIFEST).write_bytes(content)
        _flush(hidden / MANIFEST)
        _flush(hidden)
        try:
            hidden.rename(folder / name)
        except OSError as cause:
            if cause.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            raise Conflict(
                "another engine dropped a partition meanwhile",
                "另一引擎同时投递了分区",
                todo="将重新读取并合并 / it is read and merged again",
                file=folder / name,
            ) from cause
        _flush(folder)
    return Partition(folder / name, day, manifest, hashlib.sha256(content).hexdigest())


def take_away(partition: Partition) -> None:
    """Remove a partition: out of sight in one step, then its files."""
    hidden = partition.path.with_name(f"{_HIDDEN}{secrets.token_hex(6)}")
    with named(partition.path):
        partition.path.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _swept(folder: Path) -> None:
    """Remove what a writer that was killed left behind."""
    for left in folder.glob(f"{_HIDDEN}*"):
        if left.is_dir() and time.time() - left.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some network shares cannot flush a folder
        pass
    finally:
        os.close(handle)


# --- files


def _entries(path: Path) -> list[Any]:
    return sorted((entry for entry in os.scandir(path) if entry.is_file()), key=lambda entry: str(entry.name))


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=4096)
def _hashed(path: Path, inode: int, size: int, changed: int) -> str:
    """The file's sha256; known again while its stamp stays."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextmanager
def named(path: Path) -> Iterator[None]:
    """The operating system's errors as ours."""
    try:
        yield
    except OSError as cause:
        if cause.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise AccessDenied(
                f"no right to the drop folder: {cause.strerror}",
                "没有投递目录的访问权限",
                todo="给运行账号读写权限，或声明 read_only / let the engine's account read and write it, or declare `read_only`",
                file=path,
            ) from cause
        raise Transient(
            f"the drop folder cannot be reached: {cause.strerror}",
            "投递目录暂不可访问",
            todo="检查磁盘空间与网络共享 / check the disk space and the network share",
            file=path,
        ) from cause
