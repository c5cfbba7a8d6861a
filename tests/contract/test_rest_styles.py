"""Services of three styles keep the contract, declared as docs/rest.md declares them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar

from tests.contract.dataset import REGION, SAMPLE
from tests.contract.rest_service import RestService
from tests.documented import options
from tests.scripted_http import Answer, Request
from tests.services.jsonapi import JsonApi
from tests.services.odata import OData
from tests.services.platform import BEIJING, TIMES, Platform


class TestJsonApi(RestService):
    place = "attributes.{name}"
    names: ClassVar[dict[str, str]] = {
        "record_id": "id",
        "community_code": "attributes.community",
        "note": "attributes.visit.note",
    }
    documents = "values"

    def service(self) -> Callable[[Request], Answer]:
        service = JsonApi(identify=lambda data: self._key(self._as_row(data)))
        self.shelf = service.shelf
        return service

    def options(self) -> dict[str, Any]:
        return options("civil_affairs", REGION.code, CIVIL_URL=self.server.url, CIVIL_SECRET="s3cret")


class TestPlatform(RestService):
    names: ClassVar[dict[str, str]] = {
        "record_id": "recordId",
        "community_code": "gridCode",
        "note": "visit.note",
        "visits": "visit.times",
    }

    def service(self) -> Callable[[Request], Answer]:
        self.platform = Platform(identify=self._identify)
        self.shelf = self.platform.shelf
        return self.platform

    def options(self) -> dict[str, Any]:
        given = options("grid_platform", REGION.code, GRID_URL=self.server.url, GRID_SECRET="s3cret")
        if self.dataset is not SAMPLE:
            given["bulk"]["delete"]["keys"] = "records"
        return {**given, "times": TIMES}  # the contract's times have milliseconds

    def moment(self, value: datetime) -> str:
        return value.astimezone(BEIJING).strftime(TIMES)

    def _identify(self, entry: Any) -> str:
        return self._key(self._as_row(entry)) if isinstance(entry, dict) else str(entry)


class TestOData(RestService):
    names: ClassVar[dict[str, str]] = {
        "record_id": "Id",
        "community_code": "Community",
        "note": "Visit.Note",
        "visits": "Visit.Times",
    }

    def service(self) -> Callable[[Request], Answer]:
        service = OData(keys=tuple(self.columns[name] for name in self.dataset.key))
        self.shelf = service.shelf
        return service

    def options(self) -> dict[str, Any]:
        given = options("health_registry", REGION.code, HEALTH_URL=self.server.url, HEALTH_KEY="k3y-1234")
        given["keys"]["parameters"]["$select"] = ",".join(self.columns[name] for name in self.dataset.key)
        return given


class TestODataSkipping(TestOData):
    """Read whole, by $skip and $top."""

    def options(self) -> dict[str, Any]:
        paging = {"kind": "offset", "parameter": "$skip", "size_parameter": "$top", "size": 50, "total": "@odata.count"}
        whole = {name: value for name, value in super().options().items() if name not in ("changed_since", "keys")}
        return {**whole, "paging": paging, "parameters": {**whole["parameters"], "$count": "true"}}
