"""Folders (prefixes) of an S3-compatible object store, through fsspec's s3fs. See `connectors.locations` for every word and promise.

An object is swapped whole by the store, so a file is never half written. The store compares the version that a write was decided
on (If-Match) or that there is none (If-None-Match); an older store may ignore both, therefore the version is looked at just before.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from aiobotocore.session import AioSession, get_session
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
from s3fs import S3FileSystem

from connectors import files
from connectors.locations import Copy, Entry, Folder, S3Access
from federation.errors import AccessDenied, Permanent, Transient

SECONDS = 20.0
"""How long to wait for the store at each step."""


class S3Folder(Folder):
    """See the module. `url`: `s3://bucket/folder`."""

    def __init__(self, url: str, access: S3Access) -> None:
        self._bucket, _, folder = url.split("://", 1)[1].partition("/")
        self._folder = folder.strip("/")
        self._access = access
        self._open: S3FileSystem | None = None

    def where(self, name: str) -> str:
        return f"s3://{self._bucket}/{self._key(name)}"

    def entries(self) -> list[Entry]:
        prefix = f"{self._bucket}/{self._folder}".rstrip("/")
        with self._store("") as store:
            try:
                found = store.ls(prefix, detail=True, refresh=True)
            except FileNotFoundError:
                if not self._folder:
                    raise  # there is no such bucket
                return []
        files_found = {posixpath.basename(entry["name"]): entry for entry in found if entry["type"] == "file"}
        return [Entry(name, entry["size"], entry["ETag"]) for name, entry in sorted(files_found.items()) if name]

    def read(self, name: str) -> Copy:
        with self._store(name) as store:
            try:
                with store.open(self._path(name), "rb", cache_type="all") as opened:
                    content: bytes = opened.read()
                    return Copy(content, opened.details["ETag"])
            except FileNotFoundError as cause:
                raise files.missing(self.where(name)) from cause

    def exists(self, name: str) -> bool:
        with self._store(name) as store:
            return self._version(store, name) is not None

    def create(self, name: str, content: bytes) -> bool:
        with self._store(name) as store:
            self.refuse_if_open(name)
            return self._version(store, name) is None and self._put(store, name, content, IfNoneMatch="*")

    def replace(self, name: str, content: bytes, expected: Copy | None) -> None:
        with self._store(name) as store:
            self.refuse_if_open(name)
            version = None if expected is None else expected.version
            condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
            if self._version(store, name) != version or not self._put(store, name, content, **condition):
                raise files.saved_by_somebody(self.where(name))

    def remove(self, name: str) -> None:
        with self._store(name) as store:
            store.call_s3("delete_object", Bucket=self._bucket, Key=self._key(name))

    def lock_of(self, name: str) -> str | None:
        with self._store(name) as store:
            return next((lock for lock in files.lock_names(name) if self._version(store, lock) is not None), None)

    def fresh(self, name: str) -> bool:
        return False

    def close(self) -> None:
        store, self._open = self._open, None
        if store is not None and store._s3 is not None:
            store.close_session(store.loop, store._s3)

    def _key(self, name: str) -> str:
        return posixpath.join(self._folder, name)

    def _path(self, name: str) -> str:
        return f"{self._bucket}/{self._key(name)}"

    def _version(self, store: S3FileSystem, name: str) -> str | None:
        """The version now; None if there is no such object."""
        try:
            found: str = store.call_s3("head_object", Bucket=self._bucket, Key=self._key(name))["ETag"]
        except FileNotFoundError:
            return None
        return found

    def _put(self, store: S3FileSystem, name: str, content: bytes, **condition: str) -> bool:
        """Whether it was written: not if the condition does not hold."""
        try:
            store.call_s3("put_object", Bucket=self._bucket, Key=self._key(name), Body=content, **condition)
        except (OSError, FileExistsError) as cause:
            if _code(cause) in ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409", "404"):
                return False
            raise
        return True

    @contextmanager
    def _store(self, name: str) -> Iterator[Any]:
        """The connection, made on first use; its errors as ours."""
        try:
            if self._open is None:
                self._open = self._connected()
            yield self._open
        except (PermissionError, NoCredentialsError, PartialCredentialsError) as cause:
            raise AccessDenied(
                f"the store refused: {cause}",
                "对象存储拒绝访问",
                todo="核对 access 的 key 与 secret 及其对该桶的权限 / check key and secret under `access` and their rights to the bucket",
                file=self.where(name),
            ) from cause
        except FileNotFoundError as cause:
            raise Permanent(
                f"there is no bucket {self._bucket}",
                f"没有存储桶 {self._bucket}",
                todo="改正 path，或新建该桶 / mend `path`, or create the bucket",
                file=self.where(name),
            ) from cause
        except (OSError, BotoCoreError, ClientError) as cause:
            if _code(cause) in ("NotImplemented", "501"):
                raise Permanent(
                    f"the store takes no conditional writes: {cause}",
                    "对象存储不支持条件写入",
                    todo="升级对象存储至支持 If-Match 的版本 / use a store that knows If-Match",
                    file=self.where(name),
                ) from cause
            raise Transient(
                f"the store did not answer: {cause}",
                "对象存储暂不可访问",
                todo="将自动重试；若持续，检查 endpoint 与网络 / it is tried again; if it lasts, check `endpoint` and the network",
                file=self.where(name),
            ) from cause

    def _connected(self) -> S3FileSystem:
        access = self._access
        store = S3FileSystem(
            session=_session(),
            key=access.key,
            secret=access.secret,
            token=access.token,
            endpoint_url=access.endpoint,
            client_kwargs={"region_name": access.region} if access.region else {},
            config_kwargs={
                "connect_timeout": SECONDS,
                "read_timeout": SECONDS,
                "retries": {"total_max_attempts": 1},  # `connectors.retrying` does that
            },
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        store.retries = 1
        return store


@cache
def _session() -> AioSession:
    """One for all stores: each would read the description of the whole service anew, half a second long."""
    return get_session()


def _code(error: BaseException) -> str:
    """The code of the store's answer; "" if it gave none."""
    answer = getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))
