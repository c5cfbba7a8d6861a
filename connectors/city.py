"""A city: central databases and platforms."""

from __future__ import annotations

from typing import ClassVar

from connectors.level import LevelConnector


class CityConnector(LevelConnector):
    """A city: central databases and platforms."""

    level: ClassVar[str] = "city"
