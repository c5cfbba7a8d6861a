"""Where a record stands behind an API: its key as a step of an address."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from connectors.base import Node
from connectors.rest_options import RestOptions
from federation.canonical import key_column
from federation.errors import Permanent


@dataclass(frozen=True)
class Item:
    """One record's key, and the same as a step of an address (percent-encoded)."""

    key: str
    encoded: str


EVERY = Item("", "")
"""Of a request that concerns no single record."""


class Addresses:
    """Fills in the templates of one node's addresses: {path}, {key}, {keys}."""

    def __init__(self, node: Node, options: RestOptions) -> None:
        self._node = node
        self._path = options.path
        self._step = self._odata if options.key_style == "odata" else self._plain

    def items(self, keys: pa.Table) -> list[Item]:
        """The items of these rows. Raises Permanent for a key that cannot stand in an address."""
        dataset = self._node.dataset
        texts = key_column(keys, dataset).to_pylist()
        return [
            Item(text, self._step(text, row)) for text, row in zip(texts, keys.select(list(dataset.key)).to_pylist())
        ]

    def of(self, template: str, *items: Item) -> str:
        """The address of an item, or of several."""
        joined = ",".join(item.encoded for item in items)
        return template.replace("{path}", self._path).replace("{keys}", joined).replace("{key}", joined)

    def _plain(self, text: str, row: dict[str, Any]) -> str:
        parts = [text] if len(row) == 1 else json.loads(text)
        if parts in (["."], [".."]):
            # Every HTTP library folds such a step, and the request would go to the collection or above it.
            raise Permanent("a key cannot be . or ..", "主键不能是 . 或 ..", key=text)
        return ",".join(quote(str(part), safe="") for part in parts)

    def _odata(self, _: str, row: dict[str, Any]) -> str:
        """A key predicate of OData 4: text in single quotes, one in it doubled; columns named if there are several."""
        literals = [_literal(value) for value in row.values()]
        if len(row) == 1:
            return literals[0]
        return ",".join(f"{self._node.column(name)}={literal}" for name, literal in zip(row, literals))


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "'" + quote(value.replace("'", "''"), safe="'") + "'"
    return quote(str(value), safe="")
