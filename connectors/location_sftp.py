"""Folders of an SFTP server, through fsspec and paramiko. See `connectors.locations` for every word and promise.

The server's key must stand in the known-hosts file; an unknown or changed one ends the connection before anything is sent. A broken
file counts as one that is being written if it changes while we look, since the server's clock need not be ours.
"""

from __future__ import annotations

import io
import posixpath
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paramiko
from fsspec.implementations.sftp import SFTPFileSystem

from connectors import files
from connectors.locations import Copy, Entry, Folder, SftpAccess
from federation.errors import AccessDenied, Permanent, Transient

SECONDS = 20.0
"""How long to wait for the server at each step."""
_LASTS = "将自动重试；若持续，检查主机、端口与网络 / it is tried again; if it lasts, check host, port and network"


class _VerifiedSftp(SFTPFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The plain one accepts any server that answers; this one only those whose key is known."""

    cachable = False

    def _connect(self) -> None:
        self.client = paramiko.SSHClient()
        known_hosts = self.ssh_kwargs.pop("known_hosts")
        if known_hosts.exists():
            self.client.load_host_keys(str(known_hosts))
        self.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        try:
            self.client.connect(self.host, **self.ssh_kwargs)
            self.ftp = self.client.open_sftp()
            self.ftp.get_channel().settimeout(SECONDS)
        except BaseException:
            self.client.close()
            raise


class SftpFolder(Folder):
    """See the module. `url`: `sftp://host[:port]/folder`."""

    def __init__(self, url: str, access: SftpAccess) -> None:
        authority, slash, path = url.split("://", 1)[1].partition("/")
        host, _, port = authority.partition(":")
        self._url = f"sftp://{authority}"
        self._host, self._port = host, int(port or 22)
        self._folder = slash + path or "/"
        self._access = access
        self._open: _VerifiedSftp | None = None

    def where(self, name: str) -> str:
        return f"{self._url}{self._path(name)}"

    def entries(self) -> list[Entry]:
        with self._server(self._folder) as server:
            try:
                found = server.ls(self._folder, detail=True)
            except FileNotFoundError:
                return []
        names = {posixpath.basename(stat["name"]): stat for stat in found if stat["type"] == "file"}
        return [
            Entry(name, stat["size"], f"{stat['mtime'].timestamp():.0f} {stat['size']}")
            for name, stat in sorted(names.items())
            if not files.is_temporary(name)
        ]

    def read(self, name: str) -> Copy:
        with self._server(self._path(name)) as server:
            try:
                before = self._state(server, name)
                content = self._content(server, name)
                after = self._state(server, name)
            except FileNotFoundError as cause:
                raise files.missing(self.where(name)) from cause
        if before != after or len(content) != before[0]:
            raise files.changed_meanwhile(self.where(name))
        return Copy(content, files.sha256(content))

    def exists(self, name: str) -> bool:
        with self._server(self._path(name)) as server:
            return bool(server.exists(self._path(name)))

    def create(self, name: str, content: bytes) -> bool:
        with self._server(self._path(name)) as server:
            server.makedirs(self._folder, exist_ok=True)
            self.refuse_if_open(name)
            made = self._written_beside(server, name, content, 0o664)
            try:
                server.ftp.rename(made, self._path(name))  # the plain rename of SFTP refuses to replace
            except OSError:
                server.ftp.remove(made)
                if server.exists(self._path(name)):
                    return False
                raise
        return True

    def replace(self, name: str, content: bytes, expected: Copy | None) -> None:
        path = self._path(name)
        with self._server(path) as server:
            there = server.exists(path)
            mode = server.ftp.stat(path).st_mode & 0o7777 if there else 0o664
            made = self._written_beside(server, name, content, mode)
            try:
                self.refuse_if_open(name)
                now = self._content(server, name) if there else None
                if now != (None if expected is None else expected.content):
                    raise files.saved_by_somebody(self.where(name))
                server.mv(made, path)
                made = ""
            finally:
                if made:
                    server.ftp.remove(made)

    def remove(self, name: str) -> None:
        with self._server(self._path(name)) as server:
            try:
                server.ftp.remove(self._path(name))
            except FileNotFoundError:
                return

    def lock_of(self, name: str) -> str | None:
        with self._server(self._path(name)) as server:
            return next((lock for lock in files.lock_names(name) if server.exists(self._path(lock))), None)

    def fresh(self, name: str) -> bool:
        with self._server(self._path(name)) as server:
            try:
                before = self._state(server, name)
                time.sleep(files.FRESH_SECONDS)
                return before != self._state(server, name)
            except FileNotFoundError:
                return True

    def close(self) -> None:
        if self._open is not None:
            self._open.client.close()
            self._open = None

    def _path(self, name: str) -> str:
        return posixpath.join(self._folder, name)

    def _state(self, server: _VerifiedSftp, name: str) -> tuple[int, int]:
        stat = server.ftp.stat(self._path(name))
        return stat.st_size, stat.st_mtime

    def _content(self, server: _VerifiedSftp, name: str) -> bytes:
        with server.open(self._path(name), "rb") as opened:
            opened.prefetch()  # else each 32 KB wait for the ones before
            content: bytes = opened.read()
        return content

    def _written_beside(self, server: _VerifiedSftp, name: str, content: bytes, mode: int) -> str:
        self._sweep(server, name)
        made = self._path(files.temporary_name(name))
        try:
            with server.open(made, "wb") as out:
                out.set_pipelined(True)
                out.write(content)
            server.ftp.chmod(made, mode)
            if server.ftp.stat(made).st_size != len(content):
                raise OSError("the server kept fewer bytes than were sent")
        except BaseException:
            _forget(server, made)
            raise
        return made

    def _sweep(self, server: _VerifiedSftp, name: str) -> None:
        """Remove what a killed writer left: temporary files of this name that are older than the folder's newest by an hour."""
        stats = server.ftp.listdir_attr(self._folder)
        newest = max((stat.st_mtime for stat in stats), default=0)
        for stat in stats:
            old = newest - stat.st_mtime > files.STALE_SECONDS
            if old and stat.filename.startswith(files.temporary_prefix(name)):
                _forget(server, self._path(stat.filename))

    @contextmanager
    def _server(self, path: str) -> Iterator[Any]:
        """The connection, made on first use; its errors as ours. After an error that is not the file's it is made anew."""
        where = f"{self._url}{path}"
        try:
            if self._open is None:
                self._open = self._connected()
            yield self._open
        except paramiko.AuthenticationException as cause:
            self.close()
            raise AccessDenied(
                f"the server refused the user {self._access.user}",
                f"服务器拒绝用户 {self._access.user}",
                todo="核对 access 的用户、口令或私钥 / check user, password or key under `access`",
                file=where,
            ) from cause
        except (paramiko.BadHostKeyException, paramiko.SSHException) as cause:
            self.close()
            if isinstance(cause, paramiko.BadHostKeyException) or "known_hosts" in str(cause):
                raise self._unknown(cause, where) from cause
            raise Transient(f"SFTP failed: {cause}", "SFTP 连接失败", todo=_LASTS, file=where) from cause
        except PermissionError as cause:
            raise AccessDenied(
                "no right to the file or its folder",
                "没有文件或文件夹的访问权限",
                todo="给该用户读写文件及其文件夹的权限 / let the user read and write the file and its folder",
                file=where,
            ) from cause
        except (OSError, EOFError) as cause:
            self.close()
            if "unsupported" in str(cause).lower():
                raise Permanent(
                    f"the server cannot swap a file in one step: {cause}",
                    "服务器不支持原子替换文件",
                    todo="启用 posix-rename@openssh.com 扩展 / use a server that knows posix-rename@openssh.com",
                    file=where,
                ) from cause
            raise Transient(
                f"the file cannot be reached: {cause}", "文件暂不可访问", todo=_LASTS, file=where
            ) from cause

    def _connected(self) -> _VerifiedSftp:
        access = self._access
        return _VerifiedSftp(
            self._host,
            port=self._port,
            username=access.user,
            password=access.password,
            pkey=_private_key(access),
            passphrase=access.passphrase,
            key_filename=None if access.key_file is None else str(access.key_file.expanduser()),
            known_hosts=access.known_hosts.expanduser(),
            look_for_keys=False,
            allow_agent=False,
            timeout=SECONDS,
            banner_timeout=SECONDS,
            auth_timeout=SECONDS,
        )

    def _unknown(self, cause: Exception, where: str) -> AccessDenied:
        changed = isinstance(cause, paramiko.BadHostKeyException)
        return AccessDenied(
            f"the server's key {'is not the one' if changed else 'does not stand'} in {self._access.known_hosts}; nothing was sent",
            f"服务器密钥与 {self._access.known_hosts} {'不符' if changed else '中的均不匹配（未登记）'}；未发送任何内容",
            todo=f"向服务器管理员核对指纹后登记 / check the fingerprint with the server's administrator, then add it: "
            f"ssh-keyscan -p {self._port} {self._host} >> {self._access.known_hosts}",
            file=where,
        )


def _private_key(access: SftpAccess) -> paramiko.PKey | None:
    """The key that `access` spells out."""
    if access.private_key is None:
        return None
    kinds = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)
    for kind in kinds:
        try:
            return kind.from_private_key(io.StringIO(access.private_key), access.passphrase)
        except paramiko.SSHException:
            continue
    raise AccessDenied(
        "the private key under `access` cannot be used (or its passphrase is wrong)",
        "access 中的私钥无法使用（或口令不对）",
        todo="改正 access.private_key / mend access.private_key",
        key="access.private_key",
    )


def _forget(server: _VerifiedSftp, path: str) -> None:
    try:
        server.ftp.remove(path)
    except OSError:  # it is hidden, and the next writer sweeps it
        return
