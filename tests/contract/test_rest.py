"""A street's platform behind HTTP keeps the contract, read whole and read since a time of change."""

from __future__ import annotations

import json
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

import pytest

from connectors.base import Connector
from connectors.rest import RestConnector
from examples.beijing.street_platform import StreetPlatform
from federation.errors import SchemaMismatch
from tests.contract.dataset import COMPOSITE, SAMPLE, make_node, visit
from tests.contract.suite import ConnectorContract, Row, on

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
KEYS = {"keys": {"parameters": {"only": "keys"}, "records": "records"}}


class RestPlatform(ConnectorContract):
    """The people's side: the platform's own store, written past HTTP."""

    many = 400  # one request each
    options: ClassVar[dict[str, Any]] = {}
    tells_state: ClassVar[bool] = False

    def start(self) -> None:
        self.closing = ExitStack()
        self.platform = StreetPlatform(self.folder, "token", datasets=(self.dataset.name,))
        self.closing.enter_context(self.platform)

    def stop(self) -> None:
        self.closing.close()

    def connector(self) -> Connector:
        options = {
            "base_url": self.platform.url,
            "token": "token",
            "path": f"/api/{self.dataset.name}",
            "records": "records",
            "omits_nulls": True,
            "times": "milliseconds",
            "paging": {"kind": "offset", "parameter": "offset", "size_parameter": "limit", "size": 200, "total": "count"},
            **self.options,
        }  # fmt: skip
        if self.tells_state:
            options["state"] = {"path": f"/api/{self.dataset.name}/-/state", "field": "version"}
        return RestConnector(make_node(self.dataset, options))

    def people_write(self, rows: list[Row]) -> None:
        for values in rows:
            body = {name: _as_json(name, value) for name, value in values.items()}
            self.platform.records.put(self.dataset.name, self._key(values), body, merge=True)

    def people_delete(self, key: Row) -> None:
        assert self.platform.records.delete(self.dataset.name, self._key(key))

    def stored(self) -> list[Row]:
        found, _ = self.platform.records.page(self.dataset.name, offset=0, limit=10**6)
        return [_as_typed(body) for _, body, _ in found]

    def _key(self, values: Row) -> str:
        return ",".join(str(values[name]) for name in self.dataset.key)


class TestRestWhole(RestPlatform):
    tells_state = True


class TestRestSince(RestPlatform):
    options: ClassVar[dict[str, Any]] = {
        "changed_since": {"parameter": "modified_since", "field": "modified", "overlap_seconds": 1},
    }

    def connector(self) -> Connector:
        # The platform lists keys as bare values, which cannot tell the columns of a key of several.
        if self.dataset is SAMPLE:
            self.options = {**self.options, **KEYS}  # type: ignore[misc]
        return super().connector()

    @on(COMPOSITE)
    def test_bare_values_that_cannot_be_keys_are_a_mismatch(self) -> None:
        self.options = {**self.options, **KEYS}  # type: ignore[misc]
        self.people_write([visit("A", 1)])
        cursor = self.connector().changes(None).cursor
        with pytest.raises(SchemaMismatch):
            self.connector().changes(cursor, sweep=True)


def _as_json(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return (value - EPOCH) // timedelta(milliseconds=1)
    if name == "extra" and value is not None:
        return json.loads(value)
    return str(value) if isinstance(value, (date, Decimal)) else value


def _as_typed(body: Row) -> Row:
    moment = body.get("seen_at")
    extra = body.get("extra")
    return {
        **body,
        "seen_at": None if moment is None else EPOCH + timedelta(milliseconds=moment),
        "extra": None if extra is None else json.dumps(extra, ensure_ascii=False),
    }
