"""A run in a process of its own that is killed (SIGKILL) at a failpoint.

The process is forked from a server that has loaded the engine already but never ran it, so that one costs some milliseconds instead of
two seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import openpyxl  # noqa: F401  what a run would load is loaded before the fork
import psycopg  # noqa: F401
import pymysql  # noqa: F401

import connectors.hosted
import connectors.sql
import connectors.workbook  # noqa: F401
from federation import failpoints
from federation.runtime import open_federation
from tests.federations import Clock
from tests.property.world import DATASET

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload([__name__])


def killed_while_syncing(
    folder: Path, uris: Mapping[str, str], now: datetime, upper: str, place: str, nth: int
) -> bool:
    """Sync a parent with its children until `place` is passed the nth time. False if the run ended before."""
    process = _forks.Process(target=_sync, args=(folder, dict(uris), now, upper, f"{place}:{nth}"))
    process.start()
    process.join(120)
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return process.exitcode != 0


def _sync(folder: Path, uris: dict[str, str], now: datetime, upper: str, failpoint: str) -> None:
    os.environ[failpoints.ENVIRONMENT] = failpoint
    failpoints.arm_from_environment()
    clock = Clock()
    clock.now = now
    federation = open_federation(folder, connection_uri=uris.get, clock=clock)
    federation.sync_parent(DATASET, upper)
    federation.close()
