"""Storage (存储): where staged readings and baselines lie: a local folder, or an object store that workers on several hosts share.

Any fsspec location. Nothing is opened, and no library of a store imported, before something is read or written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import fsspec

from federation.errors import AccessDenied, FedsyncError, Permanent, Transient

_S3 = {"use_listings_cache": False, "config_kwargs": {"connect_timeout": 10, "read_timeout": 60}}
"""A listing that is remembered hides what another worker wrote since."""


@dataclass(frozen=True)
class Entry:
    """A file: its path under the storage, and when it was written (seconds since 1970; 0 if the store does not say)."""

    path: str
    made: float


@dataclass(frozen=True)
class Storage:
    """A folder of files. Paths are relative to `url`. Raises Transient, AccessDenied, or Permanent (a file that is not there)."""

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def inside(self, name: str) -> Storage:
        """A folder in it."""
        return Storage(f"{self.url.rstrip('/')}/{name}", self.options)

    @contextmanager
    def open(self, path: str, mode: str) -> Iterator[Any]:
        """A file, `rb` or `wb`; folders above it are made."""
        with self._answering(path):
            fs, root = self._place
            where = f"{root}/{path}"
            if mode == "wb" and self.local:
                fs.makedirs(where.rpartition("/")[0], exist_ok=True)
            with fs.open(where, mode) as file:
                yield file

    def read(self, path: str) -> bytes:
        """A whole file."""
        with self.open(path, "rb") as file:
            content: bytes = file.read()
        return content

    def write(self, path: str, content: bytes) -> None:
        """Write a whole file, or replace it."""
        with self.open(path, "wb") as file:
            file.write(content)

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        with self._answering(path):
            fs, root = self._place
            return bool(fs.exists(f"{root}/{path}"))

    def entries(self, folder: str = "") -> list[Entry]:
        """Every file below a folder, in the order of their paths; none if it is not there."""
        with self._answering(folder):
            fs, root = self._place
            found = fs.find(f"{root}/{folder}".rstrip("/"), detail=True)
        start = len(root) + 1
        return [Entry(path[start:], _made(about)) for path, about in sorted(found.items())]

    def remove(self, path: str) -> None:
        """Delete a file that may already be gone."""
        with self._answering(path):
            fs, root = self._place
            try:
                fs.rm_file(f"{root}/{path}")
            except FileNotFoundError:
                pass

    def remove_folder(self, folder: str) -> None:
        """Delete a folder with all that is in it; it may already be gone."""
        with self._answering(folder):
            fs, root = self._place
            try:
                fs.rm(f"{root}/{folder}", recursive=True)
            except FileNotFoundError:
                pass

    @property
    def local(self) -> bool:
        """Whether it lies in folders of this machine."""
        return "://" not in self.url or self.url.startswith("file://")

    @cached_property
    def _place(self) -> tuple[Any, str]:
        defaults = _S3 if self.url.startswith(("s3://", "s3a://")) else {}
        try:
            fs, root = fsspec.core.url_to_fs(self.url, **{**defaults, **self.options})
        except (ImportError, ValueError, TypeError) as cause:
            raise Permanent(
                f"this storage cannot be opened: {cause}",
                "无法打开该存储",
                todo="检查 storage.url 与 options；S3 需安装 fedsync[s3] / check `storage`; S3 needs fedsync[s3]",
                file=self.url,
            ) from cause
        return fs, root.rstrip("/")

    @contextmanager
    def _answering(self, path: str) -> Iterator[None]:
        where = f"{self.url}/{path}".rstrip("/")
        try:
            yield
        except FedsyncError:
            raise
        except FileNotFoundError as cause:
            raise Permanent(
                "a file of the storage, or its bucket, is not there",
                "存储中没有该文件或存储桶",
                todo="检查 storage；文件丢失时从备份恢复 / check `storage`; if files were lost: fedsync restore",
                file=where,
            ) from cause
        except PermissionError as cause:
            raise AccessDenied(
                f"the storage refused: {cause}",
                "存储拒绝访问",
                todo="检查 storage 的凭据与权限 / check the credentials and rights of `storage`",
                file=where,
            ) from cause
        except Exception as cause:
            # A store's library raises its own classes, and which library that is depends on the address alone.
            if not isinstance(cause, OSError) and not type(cause).__module__.startswith(_LIBRARIES):
                raise
            raise Transient(
                f"the storage did not answer: {cause}",
                "存储暂不可访问",
                todo="检查 storage / check `storage`",
                file=where,
            ) from cause


_LIBRARIES = ("botocore", "aiobotocore", "s3fs", "aiohttp", "fsspec")


def _made(about: Mapping[str, Any]) -> float:
    told = about.get("mtime") or about.get("LastModified") or about.get("created") or 0.0
    return float(told) if isinstance(told, (int, float)) else float(told.timestamp())
