"""A community or village (社区/村): the workbook that people actually fill in."""

from __future__ import annotations

from typing import ClassVar

from connectors.level import LevelConnector
from connectors.polite import Manners, Rate


class CommunityConnector(LevelConnector):
    """A community or village (社区/村): the workbook that people actually fill in."""

    level: ClassVar[str] = "community"
    manners: ClassVar[Manners] = Manners(Rate(5, burst=25), bulk=20)
