"""A city: central databases and platforms; large batches, machines that bear load."""

from __future__ import annotations

from typing import ClassVar

from connectors.level import LevelConnector


class CityConnector(LevelConnector):
    """A city: central databases and platforms; large batches, machines that bear load."""

    level: ClassVar[str] = "city"
    batch_rows: ClassVar[int] = 200_000
    requests_per_second: ClassVar[float | None] = None
