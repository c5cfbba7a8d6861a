"""A street's platform behind HTTP keeps the contract, read whole and read since a time of change."""

from __future__ import annotations

import json
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import pytest

from connectors.base import Connector
from connectors.rest import RestConnector
from examples.beijing.http_platform import Reply
from examples.beijing.street_platform import StreetPlatform
from federation.errors import SchemaMismatch
from tests.contract import desk
from tests.contract.dataset import COMPOSITE, SAMPLE, make_node, visit
from tests.contract.suite import ConnectorContract, Row, on

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
KEYS = {"keys": {"parameters": {"only": "keys"}, "records": "records"}}


class DeskPlatform(StreetPlatform):
    """A street's platform on which people see corrections: PUT /api/{dataset}/-/corrections, GET /api/{dataset}/-/rulings."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.shown: dict[str, Row] = {}
        self.ruled: dict[str, tuple[str, str | None]] = {}

    def answer(self, method: str, path: list[str], query: dict[str, str], body: Any) -> Reply:
        match method, path[2:]:
            case "PUT", ["-", "corrections"]:
                self.shown = {line["correction_id"]: line for line in body}
                self.ruled = {name: ruled for name, ruled in self.ruled.items() if name in self.shown}
                return Reply(200, {"ok": True})
            case "GET", ["-", "rulings"]:
                ruled = {name: self.ruled.get(name, (None, None)) for name in self.shown}
                lines = [{"correction_id": name, "ruling": word, "reason": why} for name, (word, why) in ruled.items()]
                return Reply(200, {"rulings": lines})
        return super().answer(method, path, query, body)


class RestPlatform(ConnectorContract):
    """The people's side: the platform's own store, written past HTTP."""

    many = 400  # one request each
    options: ClassVar[dict[str, Any]] = {}
    tells_state: ClassVar[bool] = False

    def start(self) -> None:
        self.closing = ExitStack()
        self.platform = DeskPlatform(self.folder, "token", datasets=(self.dataset.name,))
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
            "corrections": {
                "show": {"method": "PUT", "path": "{path}/-/corrections"},
                "rulings": {"path": "{path}/-/rulings", "records": "rulings"},
            },
            "returns": {"path": "{path}/-/returns"},
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

    def people_see_corrections(self) -> dict[str, Row]:
        found = {}
        for name, shown in self.platform.shown.items():
            line = {
                word: "" if value is None else str(value) for word, value in shown.items() if word != "correction_id"
            }
            raised = EPOCH + timedelta(milliseconds=shown["raised"])
            line["raised"] = f"{raised.astimezone(ZoneInfo('Asia/Shanghai')):%Y-%m-%d %H:%M:%S}"
            ruling, reason = self.platform.ruled.get(name, ("", None))
            found[name] = {**line, "ruling": ruling, "ruling_reason": reason or ""}
        return found

    def people_see_returns(self) -> list[Row]:
        return [
            desk.return_seen(self.dataset, line)
            for line in self.platform.returns.get(self.dataset.name, [])
            if line["state"] != "closed"
        ]

    def test_the_call_after_the_end_of_a_return_tells_that_it_is_closed(self) -> None:
        shown = {**desk.returned("a1", "R1"), "state": "closed"}
        self.connector().show_returns(desk.returns(self.dataset, shown))
        (line,) = self.platform.returns[self.dataset.name]
        assert (line["return_id"], line["record_id"], line["state"]) == (desk.name("a1"), "R1", "closed")
        assert line["since"] == (shown["since"] - EPOCH) // timedelta(milliseconds=1) and "value" not in line

    def people_rule(self, correction_id: str, ruling: str, reason: str | None) -> None:
        self.platform.ruled[correction_id] = (ruling, reason)

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
