"""A wrapper passes on whatever the contract of a connector has, and whatever it may have later."""

from __future__ import annotations

import pytest

from connectors.base import Connector
from connectors.wrapping import WrappingConnector

OF_THE_CLASS = {"options_model", "watched"}
"""What is asked of a technology's class, before any node is opened."""
PUBLIC = sorted(name for name in vars(Connector) if not name.startswith("_") and name not in OF_THE_CLASS)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_wrapper_passes_on_each_part_of_the_contract(name: str) -> None:
    assert name in vars(WrappingConnector), (
        f"a node's {name} would be the default of `Connector`, whatever its system can do"
    )
