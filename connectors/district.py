"""A district: its own databases, often with other column names than the city."""

from __future__ import annotations

from typing import ClassVar

from connectors.level import LevelConnector
from connectors.polite import Manners, Rate


class DistrictConnector(LevelConnector):
    """A district: its own databases, often with other column names than the city."""

    level: ClassVar[str] = "district"
    manners: ClassVar[Manners] = Manners(Rate(20, burst=100), bulk=100)
