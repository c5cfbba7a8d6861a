"""The declarations that docs/rest.md shows, as tests use them: what is documented is what is tested."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

PAGE = Path(__file__).parents[1] / "docs" / "rest.md"


def snippets() -> list[str]:
    """The YAML texts that declare systems, in the order of the page."""
    found = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return [text for text in found if text.startswith("systems:")]


def options(system: str, region: str, **values: str) -> dict[str, Any]:
    """The options of a documented system, with these values for its references to the environment."""
    declared = next(found for text in snippets() if system in (found := yaml.safe_load(text)["systems"]))
    filled: dict[str, Any] = _filled(declared[system]["options"], region, values)
    return filled


def _filled(value: Any, region: str, values: dict[str, str]) -> Any:
    if isinstance(value, dict):
        if set(value) == {"env"}:
            return values[value["env"]]
        return {name: _filled(item, region, values) for name, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, region, values) for item in value]
    return value.replace("{region}", region) if isinstance(value, str) else value
