"""What the tests of the sample HTTP services share: the people's side is the service's own shelf, written past HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date, datetime
from decimal import Decimal
from typing import Any, ClassVar

from connectors.base import Connector
from connectors.rest import RestConnector
from connectors.rest_json import MISSING, dig
from connectors.rest_records import plant
from tests.contract.dataset import SAMPLE, make_node
from tests.contract.suite import ConnectorContract, Row
from tests.scripted_http import Answer, Request, scripted
from tests.services.shelf import Shelf


class RestService(ConnectorContract):
    """`place`: where a column stands in a record, {name} being the field; `names`: the fields that stand elsewhere."""

    many = 200
    place: ClassVar[str] = "{name}"
    names: ClassVar[dict[str, str]] = {}
    documents: ClassVar[str] = "texts"

    def service(self) -> Callable[[Request], Answer]:
        """A new service; its store is `self.shelf`."""
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """The connector's options."""
        raise NotImplementedError

    def moment(self, value: datetime) -> str:
        """A time as the service writes it."""
        return value.isoformat()

    def start(self) -> None:
        self.shelf = Shelf()
        self.closing = ExitStack()
        self.server = self.closing.enter_context(scripted(self.service()))

    def stop(self) -> None:
        self.closing.close()

    def connector(self) -> Connector:
        # What was never written has no column in these services.
        given = {**self.options(), "omits_nulls": True, "documents": self.documents, "requests_per_second": None}
        return RestConnector(make_node(self.dataset, given, columns=self.columns))

    @property
    def columns(self) -> dict[str, str]:
        single = {name: where for name, where in self.names.items() if self.dataset is SAMPLE or name != "record_id"}
        return {name: single.get(name, self.place.format(name=name)) for name in self.dataset.fields}

    def people_write(self, rows: list[Row]) -> None:
        for values in rows:
            body: dict[str, Any] = {}
            for name, value in values.items():
                plant(body, self.columns[name], self._as_json(name, value))
            self.shelf.put(self._key(values), body)

    def people_delete(self, key: Row) -> None:
        assert self.shelf.drop(self._key(key))

    def stored(self) -> list[Row]:
        return [self._as_row(held.body) for held in self.shelf.listed()]

    def _key(self, values: Row) -> str:
        return ",".join(str(values[name]) for name in self.dataset.key)

    def _as_json(self, name: str, value: Any) -> Any:
        if isinstance(value, datetime):
            return self.moment(value)
        if name == "extra" and value is not None and self.documents == "values":
            return json.loads(value)
        return str(value) if isinstance(value, (date, Decimal)) else value

    def _as_row(self, body: dict[str, Any]) -> Row:
        found = {name: dig(body, where) for name, where in self.columns.items()}
        row = {name: None if value is MISSING else value for name, value in found.items()}
        if row.get("extra") is not None and self.documents == "values":
            row["extra"] = json.dumps(row["extra"], ensure_ascii=False)
        return row
