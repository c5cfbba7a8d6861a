"""The memory connector keeps the contract, acting as each kind of capture."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from connectors.base import Connector
from connectors.memory import STORES, MemoryConnector
from tests.contract.dataset import make_node
from tests.contract.suite import ConnectorContract, Row


class TestMemory(ConnectorContract):
    capture: ClassVar[str] = "snapshot"

    @property
    def name(self) -> str:
        return f"contract/{self.folder}"

    def stop(self) -> None:
        STORES.pop(self.name, None)

    def connector(self) -> Connector:
        return MemoryConnector(make_node(self.dataset, {"store": self.name, "capture": self.capture}))

    def people_write(self, rows: list[Row]) -> None:
        for values in rows:
            STORES[self.name].put(self._key(values), values)

    def people_delete(self, key: Row) -> None:
        STORES[self.name].drop(self._key(key))

    def stored(self) -> list[Row]:
        return list(STORES[self.name].rows.values())

    def _key(self, values: Row) -> Any:
        parts = [values[name] for name in self.dataset.key]
        return parts[0] if len(parts) == 1 else json.dumps([str(part) for part in parts], separators=(",", ":"))


class TestMemoryWithCursor(TestMemory):
    capture = "cursor"


class TestMemoryWithLog(TestMemory):
    capture = "log"
