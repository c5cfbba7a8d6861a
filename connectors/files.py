"""Files that people have open: read whole, replaced whole, never half of either.

A write goes to a hidden temporary file in the same folder, is flushed to the disk, and takes the file's place in one step; just
before, the lock file and the bytes that the decision was made on are checked again. A lock file beside a document (Excel, WPS,
LibreOffice) means that somebody has it open: reading it is fine, replacing it would lose their work when they save.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG

from federation.errors import AccessDenied, Conflict, SchemaMismatch, Transient, Unreadable

FRESH_SECONDS = 2.0
"""A broken file changed within this time is taken for one that is being written; after it, for a broken one."""

STALE_SECONDS = 3600.0
"""A temporary file of ours older than this was left by a writer that was killed."""
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def lock_of(path: Path) -> Path | None:
    """The lock file of whoever has the document open, None if nobody has."""
    for name in lock_names(path.name):
        lock = path.with_name(name)
        if lock.exists():
            return lock
    return None


def lock_names(name: str) -> tuple[str, ...]:
    """The files by which Excel and WPS, LibreOffice, and older WPS say that a document of this name is open."""
    return f"~${name}", f".~lock.{name}#", f".~{name}"


def refuse_if_open(path: Path) -> None:
    """Raise Transient while somebody has the document open."""
    lock = lock_of(path)
    if lock is not None:
        raise opened_by_somebody(path, lock.name)


def opened_by_somebody(where: object, lock: str) -> Transient:
    """The error for a document that somebody has open, as its lock file says."""
    return Transient(
        "somebody has the file open, so it cannot be written now; nothing was changed",
        "文件正被打开，暂不能写入；未作任何修改",
        todo=f"请保存并关闭该文件，下一轮自动重试；若确无人打开，删除 {lock} / save and close it, the next run tries again; "
        f"if nobody has it open, delete {lock}",
        file=where,
    )


def read(path: Path) -> bytes:
    """The whole file. Raises SchemaMismatch if there is none: a missing file is never an empty one."""
    with _named(path):
        try:
            before = path.stat()
            content = path.read_bytes()
            after = path.stat()
        except FileNotFoundError as cause:
            raise missing(path) from cause
    if (before.st_size, before.st_mtime_ns, before.st_ino) != (after.st_size, after.st_mtime_ns, after.st_ino):
        raise changed_meanwhile(path)
    return content


def exists(path: Path) -> bool:
    """Whether there is such a file. A folder that cannot be looked into raises, for it may well be there."""
    with _named(path):
        return path.exists()


def missing(where: object) -> SchemaMismatch:
    """The error for a file that is not there."""
    return SchemaMismatch(
        "the file is missing; nothing is read as deleted",
        "文件不存在；不会视为数据被删除",
        todo="恢复该文件，或运行 fedsync system prepare 新建 / restore the file, or create it with fedsync system prepare",
        file=where,
    )


def changed_meanwhile(where: object) -> Transient:
    """The error for a file that changed while it was read."""
    return Transient("the file changed while it was read", "读取时文件被修改", retry_after=FRESH_SECONDS, file=where)


def saved_by_somebody(where: object) -> Conflict:
    """The error for a file that is not what a write was decided on."""
    return Conflict(
        "somebody saved the file after it was read; nothing was written",
        "读取后文件已被他人保存；未写入任何内容",
        file=where,
    )


def fresh(path: Path) -> bool:
    """Whether the file changed a moment ago, so that somebody may still be writing it."""
    try:
        return abs(time.time() - path.stat().st_mtime) < FRESH_SECONDS
    except OSError:
        return True


def listed(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """The files of a folder, by name; none if there is no folder. Temporary files of ours are left out."""
    found = []
    with _named(folder):
        if not folder.is_dir():
            return []
        for path in sorted(folder.iterdir()):
            try:
                stat = path.stat()
            except FileNotFoundError:  # it went while we looked
                continue
            if S_ISREG(stat.st_mode) and not is_temporary(path.name):
                found.append((path, stat))
    return found


def create(path: Path, content: bytes) -> bool:
    """Write a file that must not exist yet, folders included. False, and nothing written, if it does by now."""
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_if_open(path)
        made = _written_beside(path, content, 0o664)
        try:
            os.link(made, path)
        except FileExistsError:
            return False
        except OSError:  # a share without hard links
            if path.exists():
                return False
            made.replace(path)
        finally:
            made.unlink(missing_ok=True)
    return True


def replace(path: Path, content: bytes, expected: bytes | None) -> None:
    """Put `content` in the file's place. Raises Conflict if it no longer holds `expected` (None: there is none yet)."""
    with _named(path):
        target = path.resolve()  # a link to the document stays a link
        mode = target.stat().st_mode & 0o7777 if target.exists() else 0o664
        made = _written_beside(target, content, mode)
        try:
            refuse_if_open(path)
            now = target.read_bytes() if target.exists() else None
            if now != expected:
                raise saved_by_somebody(path)
            made.replace(target)
        finally:
            made.unlink(missing_ok=True)
        _flush_folder(target.parent)


def remove(path: Path) -> None:
    """Delete a file that may already be gone."""
    with _named(path):
        path.unlink(missing_ok=True)


def may(path: Path, mode: int) -> bool:
    """Whether this process may do that (`os.R_OK`, `os.W_OK`) with a file or folder."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def sha256(*parts: bytes) -> str:
    """A token of these bytes, parts kept apart."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def temporary_prefix(name: str) -> str:
    """How the names of temporary files of ours begin, for a file of this name."""
    return f".{name}.fedsync-"


def temporary_name(name: str) -> str:
    """A new hidden name for a file that is to take the place of `name`."""
    return f"{temporary_prefix(name)}{secrets.token_hex(6)}"


def is_temporary(name: str) -> bool:
    """Whether a file is one of ours that has not taken its place."""
    return name.startswith(".") and ".fedsync-" in name


def _written_beside(path: Path, content: bytes, mode: int) -> Path:
    prefix = temporary_prefix(path.name)
    for left in path.parent.glob(f"{_literal(prefix)}*"):
        if time.time() - left.stat().st_mtime > STALE_SECONDS:  # a writer that was killed
            left.unlink(missing_ok=True)
    fresh = path.with_name(temporary_name(path.name))
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        fresh.chmod(mode)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    return fresh


def _literal(text: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some network shares cannot flush a folder
        pass
    finally:
        os.close(handle)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """The operating system's errors as ours."""
    try:
        yield
    except IsADirectoryError as cause:
        raise Unreadable("the path is a folder", "路径是文件夹", todo="改正 path / mend `path`", file=path) from cause
    except OSError as cause:
        if cause.errno in _DENIED:
            raise AccessDenied(
                f"no right to the file: {cause.strerror}",
                "没有文件的访问权限",
                todo="给运行账号读写该文件及其文件夹的权限 / let the engine's account read and write the file and its folder",
                file=path,
            ) from cause
        raise Transient(
            f"the file cannot be reached: {cause.strerror}",
            "文件暂不可访问",
            todo="检查磁盘空间与网络共享 / check the disk space and the network share",
            file=path,
        ) from cause
