"""What the sample platforms share: a small HTTP server with a token, a store that survives restarts, and faults on demand.

Standard library only. It listens on 127.0.0.1 and nowhere else.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

LARGEST_BODY = 1 << 20


@dataclass(frozen=True)
class Faults:
    """Failures that come as surely as in real life, but always at the same request. 0: never.

    Every `busy_every`th request is answered 429 with Retry-After `retry_after` seconds; every `broken_every`th 500. Of the
    broken writes every second one is done first: the answer is lost, not the write. `seed` shifts both counts.
    """

    busy_every: int = 0
    broken_every: int = 0
    retry_after: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Reply:
    """What a platform answers."""

    status: int
    body: Any
    headers: tuple[tuple[str, str], ...] = ()


class Records:
    """JSON documents by dataset and key in one SQLite file, each with its time of change in microseconds since 1970 UTC.

    Safe for threads. Times of change never repeat and never go back, even if the machine's clock does.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._file = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._file.execute("PRAGMA journal_mode=WAL")
        self._file.execute("PRAGMA busy_timeout=5000")
        self._file.execute(
            "CREATE TABLE IF NOT EXISTS records (dataset TEXT, key TEXT, body TEXT NOT NULL, changed INTEGER NOT NULL, "
            "PRIMARY KEY (dataset, key)) WITHOUT ROWID"
        )
        self._file.execute("CREATE TABLE IF NOT EXISTS state (version INTEGER NOT NULL, latest INTEGER NOT NULL)")
        self._file.execute("INSERT INTO state SELECT 0, 0 WHERE NOT EXISTS (SELECT 1 FROM state)")

    def get(self, dataset: str, key: str) -> tuple[dict[str, Any], int] | None:
        """One document and its time of change."""
        with self._lock:
            row = self._file.execute(
                "SELECT body, changed FROM records WHERE dataset = ? AND key = ?", (dataset, key)
            ).fetchone()
        return (json.loads(row[0]), row[1]) if row else None

    def put(self, dataset: str, key: str, body: dict[str, Any], *, merge: bool) -> bool:
        """Write a document, whole or (`merge`) only what `body` holds, at any depth. True if it is new."""
        with self._transaction():
            known = self.get(dataset, key)
            whole = merged(known[0], body) if merge and known else body
            self._file.execute(
                "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)",
                (dataset, key, json.dumps(whole, ensure_ascii=False), self._tick()),
            )
        return known is None

    def delete(self, dataset: str, key: str) -> bool:
        """Delete a document. False if there was none."""
        with self._transaction():
            gone = self._file.execute("DELETE FROM records WHERE dataset = ? AND key = ?", (dataset, key)).rowcount
            if gone:
                self._tick()
        return bool(gone)

    def page(
        self, dataset: str, *, offset: int, limit: int, since: int = 0, by_change: bool = False
    ) -> tuple[list[tuple[str, dict[str, Any], int]], int]:
        """Documents changed at or after `since`, ordered by key or by change, and how many there are in all."""
        order = "changed" if by_change else "key"
        with self._lock:
            (total,) = self._file.execute(
                "SELECT count(*) FROM records WHERE dataset = ? AND changed >= ?", (dataset, since)
            ).fetchone()
            rows = self._file.execute(
                f"SELECT key, body, changed FROM records WHERE dataset = ? AND changed >= ? ORDER BY {order} LIMIT ? OFFSET ?",
                (dataset, since, limit, offset),
            ).fetchall()
        return [(key, json.loads(body), changed) for key, body, changed in rows], total

    @property
    def version(self) -> int:
        """How many writes there were."""
        with self._lock:
            return int(self._file.execute("SELECT version FROM state").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._file.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._file.execute("ROLLBACK")
                raise
            self._file.execute("COMMIT")

    def _tick(self) -> int:
        self._file.execute(
            "UPDATE state SET version = version + 1, latest = max(latest + 1, ?)", (time.time_ns() // 1000,)
        )
        return int(self._file.execute("SELECT latest FROM state").fetchone()[0])


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`old` with what `new` holds, nested objects merged the same way."""
    result = dict(old)
    for name, value in new.items():
        below = result.get(name)
        result[name] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


class Platform:
    """One sample platform, on loopback unless `host` says otherwise. A subclass answers requests; `records` is its store, for tests and for seeding."""

    name: ClassVar[str]
    token_variable: ClassVar[str]

    def __init__(
        self, folder: Path, token: str, *, host: str = "127.0.0.1", port: int = 0, faults: Faults = Faults()
    ) -> None:
        if not token:
            raise ValueError(f"{self.name} needs a token; set {self.token_variable}")
        self.records = Records(folder / f"{self.name}.sqlite")
        self.faults = faults
        self._token = token
        self._count = 0
        self._broken = 0
        self._lock = threading.Lock()
        try:
            self._server = _Server((host, port), self)
        except BaseException:
            self.records.close()
            raise
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name=self.name, daemon=True)

    def answer(self, method: str, path: list[str], query: dict[str, str], body: Any) -> Reply:
        """Answer a request that carries the token. `path`: its decoded steps. `body`: its JSON."""
        raise NotImplementedError

    def refusal(self, status: int, text: str) -> Any:
        """The body of an answer that says no."""
        return {"error": text}

    def handle(self, method: str, target: str, authorization: str, body: bytes) -> Reply:
        """One request: token, faults, then the platform itself."""
        if not hmac.compare_digest(authorization.encode(), f"Bearer {self._token}".encode()):
            return Reply(401, self.refusal(401, "令牌无效 / bad token"), (("WWW-Authenticate", "Bearer"),))
        fault = self._fault()
        if fault and (fault.status == 429 or method == "GET" or self._broken % 2):
            return fault
        try:
            reply = self._routed(method, target, body)
        except ValueError as error:
            return Reply(400, self.refusal(400, str(error)))
        return fault or reply

    def _routed(self, method: str, target: str, body: bytes) -> Reply:
        parts = urlsplit(target)
        path = [unquote(step) for step in parts.path.split("/") if step]
        query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        return self.answer(method, path, query, json.loads(body) if body else None)

    def _fault(self) -> Reply | None:
        with self._lock:
            self._count += 1
            turn = self._count + self.faults.seed
            if self.faults.busy_every and turn % self.faults.busy_every == 0:
                after = f"{self.faults.retry_after:g}"
                return Reply(429, self.refusal(429, "请求过于频繁 / too many requests"), (("Retry-After", after),))
            if self.faults.broken_every and turn % self.faults.broken_every == 0:
                self._broken += 1
                return Reply(500, self.refusal(500, "内部错误 / internal error"))
        return None

    def __enter__(self) -> Platform:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.records.close()


class _Server(ThreadingHTTPServer):
    """Ends its open keep-alive connections when closed, and waits for their threads."""

    daemon_threads = False
    block_on_close = True

    def __init__(self, address: tuple[str, int], platform: Platform) -> None:
        self.platform = platform
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        with self._open_lock:
            self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        with self._open_lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go away; that is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _serve(self) -> None:
        size = self.headers.get("Content-Length", "0")
        if not re.fullmatch(r"[0-9]{1,9}", size) or int(size) > LARGEST_BODY:
            self.close_connection = True
            self._send(Reply(413, None))
            return
        body = self.rfile.read(int(size))
        authorization = self.headers.get("Authorization", "")
        self._send(self.server.platform.handle(self.command, self.path, authorization, body))

    do_GET = do_PUT = do_PATCH = do_POST = do_DELETE = _serve

    def _send(self, reply: Reply) -> None:
        content = json.dumps(reply.body, ensure_ascii=False).encode()
        self.send_response(reply.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in reply.headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Quiet: an address may hold a key."""


def number(query: dict[str, str], name: str, default: int, *, least: int, most: int) -> int:
    """A whole number from the query. Raises ValueError, which is answered 400."""
    text = query.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ValueError(f"{name}: 应为整数 / must be a whole number")
    return min(max(int(text), least), most)


def token_from_environment(platform: type[Platform]) -> str:
    """The platform's token. Raises SystemExit that says which variable to set."""
    token = os.environ.get(platform.token_variable, "")
    if not token:
        raise SystemExit(f"未设置环境变量 / set the environment variable {platform.token_variable}")
    return token
