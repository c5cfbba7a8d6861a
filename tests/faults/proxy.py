"""A TCP proxy in front of a real server that breaks connections as real networks do: on command, from a script, or by seeded chance.

A *fault* strikes a connection once that many bytes passed one way since the fault was armed, or as soon as the client sends a
given text. Ways: `up` to the server, `down` to the client.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

Way = Literal["up", "down"]
CHUNK = 2048
"""Bytes read at once: small, so that a fault strikes within a page and not between two."""


@dataclass(frozen=True)
class Fault:
    """`kind`: `cut` closes both sides; `reset` answers the client with RST; `stall` stays connected and says nothing more;
    `drip` passes `size` bytes each `every` seconds.

    `after`: bytes of this `way` that still pass. `seen`: strikes instead at this text from the client, before the server gets it;
    with `answered`, after the server got it and answered, and the answer is lost.
    """

    kind: Literal["cut", "reset", "stall", "drip"]
    after: int = 0
    way: Way = "down"
    seen: bytes | None = None
    answered: bool = False
    size: int = 512
    every: float = 0.004


@dataclass(eq=False)
class _Passage:
    """One connection: its writers by way, what passed since the last command, and a fault of its own if chance drew one."""

    writers: dict[str, asyncio.StreamWriter]
    drawn: Fault | None
    passed: Counter[str] = field(default_factory=Counter)
    tail: bytes = b""
    answering: Fault | None = None
    stalled: bool = False


class Proxy:
    """Listens on `port` of 127.0.0.1 for the length of a `with`. `counts`: connections accepted, and strikes by kind.

    Commands may be given at any time; they hold for open connections as well.
    """

    def __init__(self, host: str, port: int, *, seed: int = 0) -> None:
        self.counts: Counter[str] = Counter()
        self._upstream = (host, port)
        self._chance = random.Random(seed)
        self._faults: deque[Fault] = deque()
        self._forever = False
        self._draw: Callable[[], Fault | None] | None = None
        self._passages: set[_Passage] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._listener = _bound(0)
        self._server: asyncio.Server | None = None
        self.port: int = self._listener.getsockname()[1]

    # --- commands

    def script(self, *faults: Fault) -> None:
        """Each fault strikes once, one after the other, whichever connection comes to it first."""
        self._command(self._arm(deque(faults), False, None))

    def always(self, fault: Fault) -> None:
        """Every connection comes to this fault."""
        self._command(self._arm(deque((fault,)), True, None))

    def randomly(self, share: float, kinds: tuple[str, ...] = ("cut", "reset"), within: int = 20_000) -> None:
        """So large a share of connections is struck: by a kind, on a way and after up to so many bytes, as the seed has it."""

        def draw() -> Fault | None:
            kind, way = self._chance.choice(kinds), self._chance.choice(("up", "down"))
            after, struck = self._chance.randrange(within), self._chance.random() < share
            return Fault(kind, after, way) if struck else None  # type: ignore[arg-type]

        self._command(self._arm(deque(), False, draw))

    def calm(self) -> None:
        """No more faults; connections that stalled are closed, as when a network comes back."""
        self._command(self._arm(deque(), False, None))

    def refuse(self) -> None:
        """Nobody listens any more, and open connections are cut."""
        self._command(self._quit())

    def accept(self) -> None:
        """Listen again after `refuse`."""
        self._command(self._listen())

    def __enter__(self) -> Proxy:
        self._thread.start()
        self.accept()
        return self

    def __exit__(self, *_: object) -> None:
        self._command(self._quit())
        self._command(self._ended())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._listener.close()
        self._loop.close()

    # --- in the loop

    def _command(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _arm(self, faults: deque[Fault], forever: bool, draw: Callable[[], Fault | None] | None) -> None:
        self._faults, self._forever, self._draw = faults, forever, draw
        for passage in list(self._passages):
            passage.drawn, passage.answering = draw() if draw else None, None
            passage.passed.clear()
            if passage.stalled:
                self._close(passage)

    async def _listen(self) -> None:
        self._listener.close()
        self._listener = _bound(self.port)
        self._server = await asyncio.start_server(self._accepted, sock=self._listener)

    async def _quit(self) -> None:
        if self._server is not None:
            self._server.close()
        self._listener.close()
        self._listener = _bound(self.port)  # bound without listening: the port stays ours, and refuses
        for passage in list(self._passages):
            self._close(passage)

    async def _ended(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts["accepted"] += 1
        passage = _Passage({"down": writer}, self._draw() if self._draw else None)
        self._passages.add(passage)
        fault = self._fault_of(passage)
        if fault is not None and fault.seen is None and not fault.after and fault.kind != "drip":
            self._strike(passage, fault)  # the server never hears of this connection
            return
        try:
            answers, passage.writers["up"] = await asyncio.open_connection(*self._upstream)
        except OSError:
            self._close(passage)
            return
        for way, source in (("up", reader), ("down", answers)):
            task = self._loop.create_task(self._pump(passage, way, source))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, passage: _Passage, way: str, source: asyncio.StreamReader) -> None:
        try:
            while data := await source.read(CHUNK):
                if passage.stalled or not await self._pass(passage, way, data):
                    return
            if not passage.stalled:
                passage.writers[way].write_eof()
        except OSError:
            self._close(passage)

    async def _pass(self, passage: _Passage, way: str, data: bytes) -> bool:
        """Pass data on as far as the connection's fault lets it; False if there is nothing left to pump."""
        fault, writer = self._fault_of(passage), passage.writers[way]
        if fault is not None and fault.kind == "drip" and fault.way == way:
            self.counts["drip"] += 1
            for start in range(0, len(data), fault.size):
                writer.write(data[start : start + fault.size])
                await writer.drain()
                await asyncio.sleep(fault.every)
            return True
        if fault is not None and fault.kind != "drip" and self._comes_to(passage, fault, way, data):
            if fault.seen is None:
                writer.write(data[: fault.after - passage.passed[way]])
                with suppress(OSError):
                    await writer.drain()
            self._strike(passage, fault)
            return False
        passage.passed[way] += len(data)
        writer.write(data)
        await writer.drain()
        return True

    def _fault_of(self, passage: _Passage) -> Fault | None:
        if self._draw is not None:
            return passage.drawn
        return passage.answering or (self._faults[0] if self._faults else None)

    def _comes_to(self, passage: _Passage, fault: Fault, way: str, data: bytes) -> bool:
        if fault.seen is None:
            return way == fault.way and passage.passed[way] + len(data) > fault.after
        if way == "down":
            return passage.answering is fault
        heard, passage.tail = passage.tail + data, data[-len(fault.seen) :]
        if fault.seen not in heard:
            return False
        passage.answering = fault if fault.answered else None
        return not fault.answered

    def _strike(self, passage: _Passage, fault: Fault) -> None:
        self.counts[fault.kind] += 1
        if self._draw is None and not self._forever and self._faults and self._faults[0] is fault:
            self._faults.popleft()
            for other in self._passages:
                other.passed.clear()
        if fault.kind == "stall":
            passage.stalled = True
            return
        if fault.kind == "reset":
            client = passage.writers["down"].get_extra_info("socket")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            passage.writers["down"].transport.abort()
        self._close(passage)

    def _close(self, passage: _Passage) -> None:
        self._passages.discard(passage)
        for writer in passage.writers.values():
            writer.close()


def _bound(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    return made
