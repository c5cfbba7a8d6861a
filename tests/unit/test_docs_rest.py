"""docs/rest.md: what it shows is valid, and it shows everything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from connectors.nodes import LEVEL_CONNECTORS
from connectors.rest_auth_options import WORDS
from connectors.rest_options import RestOptions
from federation.regions import LEVEL_ZH, LEVELS
from federation.runtime import check
from tests.documented import PAGE, snippets
from tests.federations import REGIONS, RESIDENT, written

TEXT = PAGE.read_text(encoding="utf-8")
FRAGMENTS = [text for text in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) if not text.startswith("systems:")]


def declared(folder: Path, text: str) -> Path:
    """A federation with this snippet in it."""
    files = {
        "federation.yaml": f'name: documented\ndatasets: "datasets/*.yaml"\n{text}',
        "regions.csv": REGIONS,
        "datasets/resident.yaml": RESIDENT.replace("suite: resident.json\n", ""),
    }
    return written(folder, files)


@pytest.mark.parametrize("text", snippets(), ids=["JSON:API", "platform", "OData"])
def test_a_complete_snippet_is_a_valid_declaration(text: str, tmp_path: Path) -> None:
    config, problems = check(declared(tmp_path, text))
    assert [str(problem) for problem in problems] == []
    binding = config.binding("resident", "110101001001")
    assert binding.spec.connector == "rest"
    assert set(binding.columns) <= set(binding.dataset.fields)


@pytest.mark.parametrize("text", FRAGMENTS, ids=range(len(FRAGMENTS)))
def test_a_fragment_is_valid_among_the_options(text: str) -> None:
    least = {"base_url": "https://platform.example", "path": "/people"}
    RestOptions.model_validate({**least, **_with_secrets(yaml.safe_load(text))})


def test_each_option_is_mentioned() -> None:
    written = set(re.findall(r"[a-z_0-9]+", TEXT))
    assert {name for model in _models(RestOptions) for name in model.model_fields if name not in written} == set()
    assert {word for word in WORDS if f"{{{word}}}" not in TEXT} == set()


@pytest.mark.parametrize("level", LEVELS)
def test_the_default_pace_of_each_level_is_what_the_page_says(level: str) -> None:
    manners = LEVEL_CONNECTORS[level].manners
    assert manners.rate
    line = f"| {level} {LEVEL_ZH[level]} | {manners.rate.per_second:g} | {manners.rate.burst} | {manners.bulk} |"
    assert line in TEXT


def test_a_signature_under_authorization_is_a_template_and_no_secret(tmp_path: Path) -> None:
    (text,) = (text for text in snippets() if "X-Signature" in text)
    assert check(declared(tmp_path, text.replace("X-Signature", "Authorization")))[1] == []


def _with_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return "s3cret" if set(value) == {"env"} else {name: _with_secrets(item) for name, item in value.items()}
    return value


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A model of options and those of its parts."""
    yield model
    for field in model.model_fields.values():
        below = [field.annotation, *get_args(field.annotation)]
        below += [part for each in below for part in get_args(each)]
        for part in below:
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _models(part)
