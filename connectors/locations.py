"""Where files lie: a local folder, an SFTP server, an S3-compatible object store; one small contract for all three.

FOLDER   a place that holds files by name; names are single path segments. Sub-folders are other folders.
COPY     a whole file as it was read: its bytes and their version.
VERSION  a text that differs whenever the file's bytes do; a write on a condition names the copy that it was decided on.
LOCK     a file beside a document (`~$name` …) by which Excel, WPS and LibreOffice say that somebody has it open.

A path is written `/data/甲/台账.xlsx`, `sftp://host:22/甲/台账.xlsx` or `s3://bucket/甲/台账.xlsx`; nothing in it is percent-decoded, and
it never holds a password: who we are is said by `access`. How far a condition reaches:

- local: lock and bytes are checked again, then the file is swapped in one step; an edit in between (microseconds) would be lost.
- sftp: the same, with a round trip between check and swap; the server must know `posix-rename@openssh.com`.
- s3: the store itself compares (If-Match, If-None-Match), so nothing is lost. A store that ignores these headers leaves the instant
  between our check and our write; one that refuses them is refused.

Errors are those of `federation.errors`, naming the file; nothing here retries.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from connectors import files
from connectors.base import Options
from federation.errors import ConnectorError, DeclarationError, SchemaMismatch, Transient, Unreadable

SFTP, S3 = "sftp", "s3"


class SftpAccess(Options):
    """Who we are on an SFTP server. `user`; `password`, or `private_key` (its text) or `key_file`, with its `passphrase`.

    `known_hosts`: file that names the server's key, as ssh keeps it; default `~/.ssh/known_hosts`. A server whose key is not in
    it is never talked to.
    """

    user: str
    password: str | None = None
    private_key: str | None = None
    key_file: Path | None = None
    passphrase: str | None = None
    known_hosts: Path = Path("~/.ssh/known_hosts")


class S3Access(Options):
    """Who we are in an object store. Without `key` and `secret`: as the machine's own environment says.

    `endpoint`: URL of a store that is not Amazon's. `region`: where the store asks for one.
    """

    key: str | None = None
    secret: str | None = None
    token: str | None = None
    endpoint: str | None = None
    region: str | None = None


Access = SftpAccess | S3Access


@dataclass(frozen=True)
class Copy:
    """A whole file as it was read."""

    content: bytes
    version: str


@dataclass(frozen=True)
class Entry:
    """A file in a listing. `mark`: differs whenever the file may have changed; cheap, and no `version`."""

    name: str
    size: int
    mark: str


class Folder(ABC):
    """A folder of files. Connects on first use; not thread-safe. Every method may raise Transient or Permanent."""

    @abstractmethod
    def where(self, name: str) -> Path | str:
        """How an error names a file of this folder."""

    @abstractmethod
    def entries(self) -> list[Entry]:
        """The files in it, in the order of their names; none if the folder does not exist. Temporary files of ours are left out."""

    @abstractmethod
    def read(self, name: str) -> Copy:
        """A whole file, never half of one. Raises SchemaMismatch if there is none."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is such a file."""

    @abstractmethod
    def create(self, name: str, content: bytes) -> bool:
        """Write a file that must not exist yet, folders included. False, and nothing written, if it does by now."""

    @abstractmethod
    def replace(self, name: str, content: bytes, expected: Copy | None) -> None:
        """Put `content` in a file's place. Raises Conflict if it no longer is `expected` (None: there is none yet)."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Delete a file that may already be gone."""

    @abstractmethod
    def lock_of(self, name: str) -> str | None:
        """The name of the lock file of whoever has this document open, None if nobody has."""

    @abstractmethod
    def fresh(self, name: str) -> bool:
        """Whether somebody may be writing this file at this moment, so that it may be whole a little later."""

    def close(self) -> None:
        """Give the connection back; the next call connects anew."""
        return

    def refuse_if_open(self, name: str) -> None:
        """Raise Transient while somebody has the document open."""
        lock = self.lock_of(name)
        if lock is not None:
            raise files.opened_by_somebody(self.where(name), lock)


class LocalFolder(Folder):
    """A folder that the operating system mounts, network shares included."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def where(self, name: str) -> Path:
        return self.path / name

    def entries(self) -> list[Entry]:
        return [
            Entry(path.name, stat.st_size, f"{stat.st_mtime_ns} {stat.st_size} {stat.st_ino}")
            for path, stat in files.listed(self.path)
        ]

    def read(self, name: str) -> Copy:
        content = files.read(self.where(name))
        return Copy(content, files.sha256(content))

    def exists(self, name: str) -> bool:
        return files.exists(self.where(name))

    def create(self, name: str, content: bytes) -> bool:
        return files.create(self.where(name), content)

    def replace(self, name: str, content: bytes, expected: Copy | None) -> None:
        files.replace(self.where(name), content, None if expected is None else expected.content)

    def remove(self, name: str) -> None:
        files.remove(self.where(name))

    def lock_of(self, name: str) -> str | None:
        lock = files.lock_of(self.where(name))
        return None if lock is None else lock.name

    def fresh(self, name: str) -> bool:
        return files.fresh(self.where(name))


@dataclass(frozen=True)
class File:
    """One file of a folder."""

    folder: Folder
    name: str

    @property
    def where(self) -> Path | str:
        """How an error names it."""
        return self.folder.where(self.name)

    @property
    def suffix(self) -> str:
        """`.xlsx`, in lower case."""
        return Path(self.name).suffix.lower()

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return Path(self.name).stem

    def beside(self, name: str) -> File:
        """Another file of the same folder."""
        return File(self.folder, name)

    def read(self) -> Copy:
        """`Folder.read`; Transient if the file is missing while somebody has it open: programs save by way of another name."""
        try:
            return self.folder.read(self.name)
        except SchemaMismatch as error:
            if self.folder.lock_of(self.name) is None:
                raise
            raise Transient(
                "the file is being saved", "文件正在保存", retry_after=files.FRESH_SECONDS, file=self.where
            ) from error

    def exists(self) -> bool:
        """`Folder.exists`."""
        return self.folder.exists(self.name)

    def create(self, content: bytes) -> bool:
        """`Folder.create`."""
        return self.folder.create(self.name, content)

    def replace(self, content: bytes, expected: Copy | None) -> None:
        """`Folder.replace`."""
        self.folder.replace(self.name, content, expected)

    def remove(self) -> None:
        """`Folder.remove`."""
        self.folder.remove(self.name)

    def refuse_if_open(self) -> None:
        """`Folder.refuse_if_open`."""
        self.folder.refuse_if_open(self.name)

    def broken(self, en: str, zh: str, todo: str, line: int | None = None) -> ConnectorError:
        """The error for bytes that make no document: Transient while they are being written, else Unreadable."""
        if self.folder.fresh(self.name) or self.folder.lock_of(self.name) is not None:
            return Transient(
                f"the file is being written ({en})",
                f"文件正在写入（{zh}）",
                retry_after=files.FRESH_SECONDS,
                file=self.where,
                line=line,
            )
        return Unreadable(en, zh, todo=todo, file=self.where, line=line)


def scheme_of(path: str) -> str:
    """`sftp`, `s3`, … of a URL; "" for a path of this machine."""
    return path.split("://", 1)[0].lower() if "://" in path else ""


def access_fault(path: str, access: Access | None) -> str | None:
    """What is wrong with the way that a declaration reaches a path, as a text; None if nothing is."""
    scheme = scheme_of(path)
    authority = path.split("://", 1)[-1].split("/", 1)[0]
    if scheme and "@" in authority:
        return (
            "a path holds neither user nor password: say them under `access` / 用户与口令写在 access 下，不写在路径中"
        )
    if scheme == SFTP and not isinstance(access, SftpAccess):
        return "an sftp path needs `access: {user: …}` / sftp 路径需要 access: {user: …}"
    if scheme == S3 and not (access is None or isinstance(access, S3Access)):
        return "an s3 path takes `access: {key, secret, endpoint, region}` / s3 路径的 access 为 {key, secret, endpoint, region}"
    if not scheme and access is not None:
        return "a path of this machine takes no `access` / 本机路径不用 access"
    return None


def file_at(path: str, access: Access | None = None) -> File:
    """The file at a path. Raises DeclarationError for a path that leads nowhere we can go."""
    parent, slash, name = path.rpartition("/")
    return File(folder_at(parent or slash, access), name)


def folder_at(path: str, access: Access | None = None) -> Folder:
    """The folder at a path. No I/O. Raises DeclarationError for a path that leads nowhere we can go."""
    fault = access_fault(path, access)
    if fault is not None:
        raise DeclarationError(fault.split(" / ")[0], fault.split(" / ")[-1], key="access", file=path)
    scheme = scheme_of(path)
    if not scheme:
        return LocalFolder(Path(path or "."))
    if scheme == SFTP and isinstance(access, SftpAccess):
        from connectors.location_sftp import SftpFolder  # only those who go there need the library

        return SftpFolder(path, access)
    if scheme == S3 and not isinstance(access, SftpAccess):
        from connectors.location_s3 import S3Folder

        return S3Folder(path, access or S3Access())
    raise DeclarationError(
        f"there is no way to {scheme}://",
        f"不支持 {scheme}:// 路径",
        todo="取值 / one of: 本机路径 a path of this machine, sftp://…, s3://…",
        key="path",
        file=path,
    )
