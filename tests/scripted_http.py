"""A real HTTP server whose answers a test scripts, to show what happens on the wire when systems misbehave."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Request:
    """What the server was asked."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Say:
    """An answer. `body`: JSON, or bytes as they are. `length`: a Content-Length that lies. `date=None` leaves Date out."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    date: str | None = "now"


class Reset:
    """Break the connection off without an answer."""


class Silence:
    """Say nothing until the test is over."""


Answer = Say | Reset | Silence


class Scripted:
    """`url` and every request so far."""

    def __init__(self, url: str, asked: list[Request]) -> None:
        self.url = url
        self.asked = asked


@contextmanager
def scripted(answer: Callable[[Request], Answer]) -> Iterator[Scripted]:
    """Run a server on a free port for the length of a `with`."""
    asked: list[Request] = []
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            request = Request(
                self.command, parts.path, query, dict(self.headers), json.loads(content) if content else None
            )
            asked.append(request)
            said = answer(request)
            if isinstance(said, Silence):
                over.wait(10)
                return
            if isinstance(said, Reset):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                return
            body = said.body if isinstance(said.body, bytes) else json.dumps(said.body, ensure_ascii=False).encode()
            self.send_response_only(said.status)
            if said.date is not None:
                self.send_header("Date", self.date_time_string() if said.date == "now" else said.date)
            self.send_header("Content-Length", str(len(body) if said.length is None else said.length))
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_PATCH = do_POST = do_DELETE = _serve

        def log_message(self, *_: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            return

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield Scripted(f"http://127.0.0.1:{server.server_port}", asked)
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()
