"""Opening a node: its technology, its code tables, a companion for what it lacks, its quiet hours, its level's guard, and the retry
wrapper, in this order.

All nodes of one server share its circuit (`connectors.breaker`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from connectors.base import Connector, Node
from connectors.breaker import circuit_of
from connectors.city import CityConnector
from connectors.coded import CodedConnector, Codes, coded_node
from connectors.community import CommunityConnector
from connectors.companion import CompanionConnector
from connectors.district import DistrictConnector
from connectors.level import LevelConnector, Scope
from connectors.polite import PoliteConnector, QuietHours
from connectors.registry import connector_class
from connectors.retrying import RequestingConnector, Retrier, RetryingConnector
from connectors.street import StreetConnector
from federation.errors import DeclarationError

NO_CODES: Codes = {}
LEVEL_CONNECTORS: dict[str, type[LevelConnector]] = {
    kind.level: kind for kind in (CityConnector, DistrictConnector, StreetConnector, CommunityConnector)
}


def open_node(
    node: Node,
    word: str,
    scope: Scope,
    *,
    lacking: tuple[str, ...] = (),
    codes: Codes = NO_CODES,
    hosted: Callable[[Node], Connector],
) -> Connector:
    """The connector of a node, ready to use. `lacking`: fields kept by the engine, in the table that `hosted` opens.

    `codes`: the code tables of its system.
    """
    opened = open_system(node, word, lacking=lacking, codes=codes, hosted=hosted)
    return RetryingConnector(LEVEL_CONNECTORS[node.region.level](opened.inner, scope), opened.retrier)


def open_system(
    node: Node,
    word: str,
    *,
    lacking: tuple[str, ...] = (),
    codes: Codes = NO_CODES,
    hosted: Callable[[Node], Connector],
) -> RetryingConnector:
    """The connector of a node without its level's guard."""
    retrier = Retrier()
    if word == "hosted":
        inner: Connector = hosted(node)
    elif lacking:
        own = tuple(name for name in node.fields if name not in lacking)
        apart = tuple(name for name in node.fields if name in lacking or name in node.dataset.key)
        main, side = _spoken(_part(node, own), word, codes, retrier), hosted(_part(node, apart))
        # a system of its own: what is wrong with it says nothing about the node's
        kept = RetryingConnector(side, Retrier(circuit=circuit_of(side.place)))
        inner = CompanionConnector(node, main, kept)
    else:
        inner = _spoken(node, word, codes, retrier)
    if hours := node.options.get("quiet_hours"):
        inner = PoliteConnector(inner, [QuietHours.parse(text) for text in hours])
    retrier.circuit = circuit_of(inner.place)
    return RetryingConnector(inner, retrier)


def _spoken(node: Node, word: str, codes: Codes, retrier: Retrier) -> Connector:
    """The bare connector of a node, in the words of the contract."""
    return (
        CodedConnector(node, build(coded_node(node, codes), word, retrier), codes)
        if codes
        else build(node, word, retrier)
    )


def build(node: Node, word: str, retrier: Retrier | None = None) -> Connector:
    """The bare connector of a node, with the manners of its level. Raises DeclarationError if its options are not what it takes.

    `retrier`: for connectors that make many requests per call; without it they try each request once.
    """
    kind = connector_class(word)
    check_options(kind, node.options, node)
    if issubclass(kind, RequestingConnector):
        return kind(node, retrier, LEVEL_CONNECTORS[node.region.level].manners)
    return kind(node)


def check_options(kind: type[Connector], options: dict[str, Any], node: Node) -> None:
    """Validate a connector's own options. Raises DeclarationError."""
    try:
        kind.options_model.model_validate(options)
    except ValidationError as cause:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
            for fault in cause.errors(include_url=False, include_input=False)
        )
        raise DeclarationError(
            f"wrong options: {faults}",
            f"连接器选项有误：{faults}",
            todo="改正 options / mend the options",
            dataset=node.dataset.name,
            region=str(node.region),
            system=node.system,
        ) from cause


def _part(node: Node, fields: tuple[str, ...]) -> Node:
    return Node(
        node.dataset,
        node.region,
        node.system,
        node.options,
        fields,
        {k: v for k, v in node.columns.items() if k in fields},
        node.timezone,
    )
