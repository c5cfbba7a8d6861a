"""Which connector serves which word in the YAML. A new connector is one line here; modules load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from federation.errors import DeclarationError

if TYPE_CHECKING:
    from connectors.base import Connector

CONNECTORS: dict[str, str] = {
    "memory": "connectors.memory:MemoryConnector",
    "sql": "connectors.sql:SqlConnector",
    "rest": "connectors.rest:RestConnector",
    "workbook": "connectors.workbook:WorkbookConnector",
    "parquet": "connectors.parquet:ParquetConnector",
    "webdav": "connectors.webdav:WebdavConnector",
    "hosted": "connectors.hosted:HostedConnector",
}


def connector_class(word: str) -> type[Connector]:
    """The class behind a connector's word."""
    try:
        module, name = CONNECTORS[word].split(":")
    except KeyError:
        raise DeclarationError(
            f"there is no connector {word!r}",
            f"没有连接器 {word!r}",
            todo=f"取值 / one of: {', '.join(CONNECTORS)}",
            key="connector",
        ) from None
    found: type[Connector] = getattr(import_module(module), name)
    return found
