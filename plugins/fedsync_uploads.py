"""The trigger that wakes a dataset's `<dataset>__uploads` DAG within seconds of somebody saving a file.

Runs in Airflow's triggerer, in threads beside its event loop. It opens no file and asks no system: it looks when each file was saved last.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from federation.errors import FedsyncError

if TYPE_CHECKING:
    from federation.uploads import Watcher

log = logging.getLogger("fedsync")
EVERY = 2.0
"""Seconds between two looks; a file is news at the second look after it was saved."""
AGAIN = 300.0
"""Seconds after which the declaration is read again: regions come and go."""
MOST = 1000
"""Regions that one event names; more than so many at once are told in several."""


class UploadTrigger(BaseEventTrigger):
    """Fires `{"regions": [code, …]}` when files of these nodes were saved. `federation`: path of the declaration."""

    def __init__(self, federation: str, dataset: str, every: float = EVERY) -> None:
        super().__init__()
        self.federation = federation
        self.dataset = dataset
        self.every = every

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """See the base class."""
        given = {"federation": self.federation, "dataset": self.dataset, "every": self.every}
        return f"{type(self).__module__}.{type(self).__name__}", given

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Never ends. A declaration that cannot be read is tried again later; what is known goes on being watched."""
        watcher: Watcher | None = None
        read = 0.0
        while True:
            if watcher is None or time.monotonic() - read >= AGAIN:
                read = time.monotonic()
                watcher = await asyncio.to_thread(self._watcher, watcher)
            saved = await asyncio.to_thread(watcher.look)
            for start in range(0, len(saved), MOST):
                yield TriggerEvent({"regions": saved[start : start + MOST]})
            await asyncio.sleep(self.every)

    def _watcher(self, before: Watcher | None) -> Watcher:
        from federation.config import load
        from federation.runtime import watched
        from federation.uploads import Watcher

        try:
            places: dict[str, Path] = watched(load(self.federation), self.dataset)
        except FedsyncError as error:
            log.warning("%s: files are not watched anew: %s", self.dataset, error)
            return before or Watcher({})
        return before.moved_to(places) if before is not None else Watcher(places)
