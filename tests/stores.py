"""Real places for files, for tests: an SFTP server (paramiko's, over a folder) and an S3-compatible store (moto's), on loopback ports.

Both start once for a test run and end with it. `Place` is a folder of one of them, with what somebody else would do to its files.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import paramiko
from moto.server import ThreadedMotoServer

USER, PASSWORD = "fedsync", "geheim"


class Place:
    """A folder somewhere. `url`, `access`: as a declaration says them."""

    url: str
    access: dict[str, Any] | None = None

    def path(self, name: str) -> str:
        return f"{self.url}/{name}"

    def read(self, name: str) -> bytes:
        raise NotImplementedError

    def write(self, name: str, content: bytes) -> None:
        raise NotImplementedError

    def remove(self, name: str) -> None:
        raise NotImplementedError

    def names(self) -> list[str]:
        raise NotImplementedError

    def options(self, name: str) -> dict[str, Any]:
        """A node's options for a file here."""
        return {"path": self.path(name)} | ({"access": self.access} if self.access else {})


class LocalPlace(Place):
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = str(folder)
        folder.mkdir(parents=True, exist_ok=True)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


class SftpPlace(LocalPlace):
    """The folder that the server serves, edited behind its back."""

    def __init__(self) -> None:
        server = sftp_server()
        inside = f"甲 社区-{uuid.uuid4().hex[:8]}"
        super().__init__(server.root / inside)
        self.url = f"sftp://127.0.0.1:{server.port}/{inside}"
        self.access = {"user": USER, "password": PASSWORD, "known_hosts": str(server.known_hosts)}


class S3Place(Place):
    def __init__(self) -> None:
        self.endpoint = s3_endpoint()
        self.bucket = f"b{uuid.uuid4().hex[:12]}"
        self.prefix = "甲 社区"
        self.url = f"s3://{self.bucket}/{self.prefix}"
        self.access = {"key": "k", "secret": "s", "endpoint": self.endpoint, "region": "us-east-1"}
        self.client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id="k",
            aws_secret_access_key="s",
            region_name="us-east-1",
        )
        self.client.create_bucket(Bucket=self.bucket)

    def read(self, name: str) -> bytes:
        body: bytes = self.client.get_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")["Body"].read()
        return body

    def write(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}", Body=content)

    def remove(self, name: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")

    def names(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=f"{self.prefix}/").get("Contents", [])
        return sorted(entry["Key"].rpartition("/")[2] for entry in found)


PLACES: dict[str, Callable[[Path], Place]] = {
    "local": lambda folder: LocalPlace(folder / "甲 社区"),
    "sftp": lambda _: SftpPlace(),
    "s3": lambda _: S3Place(),
}
"""Each kind of place, made anew for a test that has an empty folder."""


@cache
def s3_endpoint() -> str:
    """The URL of the store."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


@cache
def sftp_server() -> SftpServer:
    """The server."""
    return SftpServer()


class SftpServer:
    """Serves `root` to `USER`. `known_hosts`: a file that names its key."""

    def __init__(self, *, posix_rename: bool = True) -> None:
        base = Path(tempfile.mkdtemp(prefix="fedsync_sftp_"))
        self.root = base / "root"
        self.root.mkdir()
        self.posix_rename = posix_rename
        self.user_key = paramiko.ECDSAKey.generate()
        self._key = paramiko.ECDSAKey.generate()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.known_hosts = base / "known_hosts"
        self.known_hosts.write_text(self.line(self._key), encoding="ascii")
        self.sessions: list[paramiko.Transport] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def line(self, key: paramiko.PKey) -> str:
        """The line of a known-hosts file that says that this server has a key."""
        return f"[127.0.0.1]:{self.port} {key.get_name()} {key.get_base64()}\n"

    def hang_up(self) -> None:
        """End every session, as a restart of the server does."""
        for session in self.sessions:
            session.close()
        self.sessions.clear()

    def _serve(self) -> None:
        while True:
            client, _ = self._socket.accept()
            session = paramiko.Transport(client)
            session.add_server_key(self._key)
            session.set_subsystem_handler("sftp", paramiko.SFTPServer, _Files, self)
            self.sessions.append(session)
            session.start_server(event=threading.Event(), server=_Gate(self))  # with an event, it does not wait


class _Gate(paramiko.ServerInterface):
    def __init__(self, server: SftpServer) -> None:
        self.server = server

    def check_auth_password(self, username: str, password: str) -> int:
        good = (username, password) == (USER, PASSWORD)
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        good = username == USER and key == self.server.user_key
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "password,publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED


class _Handle(paramiko.SFTPHandle):
    def stat(self) -> Any:
        return paramiko.SFTPAttributes.from_stat(os.fstat(self.readfile.fileno()))

    def chattr(self, attr: Any) -> int:
        return int(paramiko.SFTP_OK)


class _Files(paramiko.SFTPServerInterface):
    """The files below the root."""

    def __init__(self, server: Any, own: SftpServer, *args: Any, **words: Any) -> None:
        super().__init__(server, *args, **words)
        self.own = own

    def _at(self, path: str) -> Path:
        return self.own.root / self.canonicalize(path).lstrip("/")

    def _done(self, step: Callable[[], Any]) -> Any:
        try:
            found = step()
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)
        return paramiko.SFTP_OK if found is None else found

    def list_folder(self, path: str) -> Any:
        return self._done(
            lambda: [paramiko.SFTPAttributes.from_stat(item.stat(), item.name) for item in self._at(path).iterdir()]
        )

    def stat(self, path: str) -> Any:
        return self._done(lambda: paramiko.SFTPAttributes.from_stat(self._at(path).stat()))

    def lstat(self, path: str) -> Any:
        return self._done(lambda: paramiko.SFTPAttributes.from_stat(self._at(path).lstat()))

    def open(self, path: str, flags: int, attr: Any) -> Any:
        def opened() -> _Handle:
            number = os.open(self._at(path), flags, 0o644)
            mode = {os.O_WRONLY: "wb", os.O_RDWR: "r+b"}.get(flags & os.O_ACCMODE, "rb")
            handle = _Handle(flags)
            handle.filename = str(self._at(path))
            handle.readfile = handle.writefile = os.fdopen(number, mode)
            return handle

        return self._done(opened)

    def remove(self, path: str) -> Any:
        return self._done(self._at(path).unlink)

    def rename(self, oldpath: str, newpath: str) -> Any:
        if self._at(newpath).exists():
            return paramiko.SFTP_FAILURE
        return self.posix_rename(oldpath, newpath, always=True)

    def posix_rename(self, oldpath: str, newpath: str, *, always: bool = False) -> Any:
        if not self.own.posix_rename and not always:
            return paramiko.SFTP_OP_UNSUPPORTED
        return self._done(lambda: self._at(oldpath).replace(self._at(newpath)) and None)

    def mkdir(self, path: str, attr: Any) -> Any:
        return self._done(self._at(path).mkdir)

    def rmdir(self, path: str) -> Any:
        return self._done(self._at(path).rmdir)

    def chattr(self, path: str, attr: Any) -> Any:
        return self._done(lambda: self._at(path).chmod(attr.st_mode & 0o7777) if attr.st_mode else None)
