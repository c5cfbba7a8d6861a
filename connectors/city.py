"""A city: central databases and platforms."""

from __future__ import annotations

from typing import ClassVar

from connectors.level import LevelConnector
from connectors.polite import Manners, Rate


class CityConnector(LevelConnector):
    """A city: central databases and platforms."""

    level: ClassVar[str] = "city"
    manners: ClassVar[Manners] = Manners(Rate(50, burst=100), bulk=100)
