"""The memory connector keeps the contract, acting as each kind of capture."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from connectors.base import Connector
from connectors.memory import STORES, MemoryConnector, Store
from federation.contract import Dataset
from tests.contract import desk
from tests.contract.dataset import make_node
from tests.contract.suite import ConnectorContract, Row


def memory_desk(store: Store, dataset: Dataset) -> dict[str, Row]:
    """What a store's people see of the corrections."""
    return {
        line["correction_id"]: desk.seen(
            dataset, line, *(text or "" for text in store.rulings.get(line["correction_id"], ()))
        )
        for line in store.corrections
    }


def memory_returns(store: Store, dataset: Dataset) -> list[Row]:
    """What a store's people see of the returns."""
    return [desk.return_seen(dataset, line) for line in store.returns]


class TestMemory(ConnectorContract):
    capture: ClassVar[str] = "snapshot"
    conditional: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return f"contract/{self.folder}"

    def stop(self) -> None:
        STORES.pop(self.name, None)

    def connector(self) -> Connector:
        options = {"store": self.name, "capture": self.capture, "conditional": self.conditional}
        return MemoryConnector(make_node(self.dataset, options))

    def people_write(self, rows: list[Row]) -> None:
        for values in rows:
            STORES[self.name].put(self._key(values), values)

    def people_delete(self, key: Row) -> None:
        STORES[self.name].drop(self._key(key))

    def stored(self) -> list[Row]:
        return list(STORES[self.name].rows.values())

    def people_see_corrections(self) -> dict[str, Row]:
        return memory_desk(STORES[self.name], self.dataset)

    def people_see_returns(self) -> list[Row]:
        return memory_returns(STORES[self.name], self.dataset)

    def people_rule(self, correction_id: str, ruling: str, reason: str | None) -> None:
        STORES[self.name].rulings[correction_id] = (ruling, reason)

    def _key(self, values: Row) -> Any:
        parts = [values[name] for name in self.dataset.key]
        return parts[0] if len(parts) == 1 else json.dumps([str(part) for part in parts], separators=(",", ":"))


class TestMemoryWithCursor(TestMemory):
    capture = "cursor"


class TestMemoryWithLog(TestMemory):
    capture = "log"


class TestMemoryThatChecksRows(TestMemory):
    conditional = False
