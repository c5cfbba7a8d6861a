"""psycopg with an end to its patience: a server that is due an answer and says nothing is given up.

The driver itself waits for ever once it is connected, and what the system offers (keepalive, TCP_USER_TIMEOUT) notices a dead host,
but not a server, or something between, that takes what it is sent and keeps silent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import psycopg
from psycopg import errors, generators
from psycopg.pq import ExecStatus
from psycopg.waiting import Ready, Wait

T = TypeVar("T")


class Silence(psycopg.OperationalError):
    """No answer within the time that was given. The connection is closed: nobody knows what became of the statement."""


class ImpatientConnection(psycopg.Connection[Any]):
    """A connection whose every wait ends after `timeout` seconds (None: never): a statement, or one piece of a COPY."""

    timeout: float | None = None
    _silence: str | None = None

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """See psycopg. Raises Silence where nobody else asked for a limit, and again for whatever is tried afterwards."""
        if self._silence is not None:
            raise Silence(self._silence)
        if timeout is not None or self.timeout is None:
            return super().wait(gen, interval, timeout)
        until = time.monotonic() + self.timeout
        try:
            return super().wait(gen, interval, self.timeout)
        except psycopg.OperationalError as cause:
            if self.closed or time.monotonic() < until:
                raise
            self._silence = f"no answer for {self.timeout:g} seconds"
            self.pgconn.finish()
            raise Silence(self._silence) from cause


def drain(copy: psycopg.Copy, write: Callable[[Any], object]) -> tuple[int, bool]:
    """Write what has arrived of a COPY TO, waiting only if that is nothing: how many rows, and whether there may be more.

    The driver's own `read` costs a wait for each row, ten times what it costs to take the row.
    """

    def arrived() -> Generator[Wait, Ready | int, tuple[int, bool]]:
        pgconn, found = copy.connection.pgconn, 0
        while True:
            size, row = pgconn.get_copy_data(1)
            if size > 0:
                write(row)
                found += 1
            elif size < 0:
                (result,) = yield from generators.fetch_many(pgconn)
                if result.status != ExecStatus.COMMAND_OK:
                    raise errors.error_from_result(result)
                return found, False
            elif found:
                return found, True
            else:
                while not (yield Wait.R):
                    continue
                pgconn.consume_input()

    told: tuple[int, bool] = copy.connection.wait(arrived())
    return told
