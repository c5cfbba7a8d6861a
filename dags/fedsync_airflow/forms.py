"""Parts of the forms in which people fill in a run's parameters."""

from __future__ import annotations

from airflow.sdk import Param

REGION = "^[0-9]{12}$"
"""A region's code."""


def regions(description: str) -> Param:
    """A list of regions, one code a line."""
    return Param(
        [],
        type="array",
        items={"type": "string", "pattern": REGION},
        title="区划 / regions",
        description=description,
    )
