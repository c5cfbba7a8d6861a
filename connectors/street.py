"""A street or town (街镇): small platforms, shared servers, sometimes only spreadsheets."""

from __future__ import annotations

from typing import ClassVar

from connectors.level import LevelConnector


class StreetConnector(LevelConnector):
    """A street or town (街镇): small platforms, shared servers, sometimes only spreadsheets."""

    level: ClassVar[str] = "street"
