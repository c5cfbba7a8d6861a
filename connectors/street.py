"""A street or town (街镇): small platforms, shared servers, sometimes only spreadsheets."""

from __future__ import annotations

from typing import ClassVar

from connectors.level import LevelConnector
from connectors.polite import Manners, Rate


class StreetConnector(LevelConnector):
    """A street or town (街镇): small platforms, shared servers, sometimes only spreadsheets."""

    level: ClassVar[str] = "street"
    manners: ClassVar[Manners] = Manners(Rate(10, burst=50), bulk=50)
