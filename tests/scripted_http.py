"""A real HTTP server whose answers a test scripts, to show what happens on the wire when systems misbehave."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit


@dataclass(frozen=True)
class Request:
    """What the server was asked. `path`, `target`: as they were sent, without and with the query. `body`: the content if it is JSON."""

    method: str
    path: str
    query: dict[str, str]
    headers: Message
    body: Any
    target: str = ""
    content: bytes = b""

    @property
    def steps(self) -> list[str]:
        """The decoded steps of the path."""
        return [unquote(step) for step in self.path.split("/") if step]

    @property
    def form(self) -> dict[str, str]:
        """The content as a form."""
        return dict(parse_qsl(self.content.decode(), keep_blank_values=True))


@dataclass(frozen=True)
class Say:
    """An answer. `body`: JSON, or bytes as they are. `length`: a Content-Length that lies. `date=None` leaves Date out."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    date: str | None = "now"


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


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
def scripted(answer: Callable[[Request], Answer], tls: ssl.SSLContext | None = None) -> Iterator[Scripted]:
    """Run a server on a free port for the length of a `with`. `tls`: speak HTTPS, with this certificate."""
    asked: list[Request] = []
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            request = Request(self.command, parts.path, query, self.headers, _json(content), self.path, content)
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
            body = b"" if said.status == 204 else body
            self.send_response_only(said.status)
            if said.date is not None:
                self.send_header("Date", self.date_time_string() if said.date == "now" else said.date)
            self.send_header("Content-Length", str(len(body) if said.length is None else said.length))
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_PATCH = do_POST = do_DELETE = do_OPTIONS = _serve

        def log_message(self, *_: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            return

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield Scripted(f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}", asked)
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()
