"""The composition root: from a declaration on disk to a `Federation` at work. The only module here that opens connectors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from connectors.base import Connector, Node
from connectors.level import Scope
from connectors.nodes import build, check_options, open_node
from connectors.registry import connector_class
from federation.config import HOSTED, Binding, Config, load
from federation.errors import DeclarationError, FedsyncError
from federation.federation import Federation
from federation.gate import Gate
from federation.ledger.baselines import Baselines
from federation.ledger.contests import Contests
from federation.ledger.corrections import Corrections
from federation.ledger.links import Links
from federation.ledger.quarantine import Quarantine
from federation.ledger.store import Clock, Ledger, utc_now
from federation.ledger.tombstones import Tombstones
from federation.ledger.waiting import Waiting
from federation.secrets import ConnectionUri, Keyring, from_environment, resolve
from federation.services import Services


def open_federation(
    path: Path | str | Config, *, connection_uri: ConnectionUri = from_environment, clock: Clock = utc_now
) -> Federation:
    """Open a declared federation: its ledger (migrated), its gates, its key. Opens no node."""
    config = path if isinstance(path, Config) else load(path)
    ledger = Ledger(_ledger_url(config, connection_uri), clock)
    keyring = _keyring(config, connection_uri)
    services = Services(
        config,
        ledger,
        Links(ledger),
        Baselines(str(config.state / "baselines")),
        Quarantine(ledger, keyring),
        Corrections(ledger, keyring),
        Contests(ledger, keyring),
        Tombstones(ledger),
        Waiting(ledger),
        keyring,
        load_gates(config),
    )
    return Federation(services, Opener(config, connection_uri))


def load_gates(config: Config) -> dict[str, Gate | None]:
    """The gate of each dataset; None for a dataset without a suite. Raises DeclarationError for an invalid suite."""
    return {
        name: Gate.load(config.suites / dataset.suite, dataset) if dataset.suite else None
        for name, dataset in config.datasets.items()
    }


def check(path: Path | str) -> tuple[Config, list[FedsyncError]]:
    """Validate a declaration down to each connector's options and each suite; the problems that `load` cannot see."""
    config = load(path)
    problems: list[FedsyncError] = []
    for dataset in config.datasets.values():
        try:
            if dataset.suite:
                Gate.load(config.suites / dataset.suite, dataset)
        except DeclarationError as error:
            problems += error.problems or (error,)
    seen: set[tuple[str, int]] = set()
    for binding in config.bindings():
        if binding.system == HOSTED or (binding.dataset.name, binding.line) in seen:
            continue
        seen.add((binding.dataset.name, binding.line))
        try:
            node = node_of(binding, _fields(binding), _unresolved(binding.options))
            check_options(connector_class(binding.spec.connector), node.options, node)
        except FedsyncError as error:
            problems.append(config.error_at(binding, error))
    return config, problems


class Opener:
    """Opens the connector of a node as declared."""

    def __init__(self, config: Config, connection_uri: ConnectionUri) -> None:
        self._config = config
        self._connection_uri = connection_uri
        self._scope = cache(self._make_scope)

    def __call__(self, binding: Binding) -> Connector:
        options = resolve(binding.options, self._connection_uri)
        node = node_of(binding, _fields(binding), options)
        return open_node(
            node, binding.spec.connector, self._scope(binding.region.level), lacking=binding.hosted, hosted=self._hosted
        )

    def _make_scope(self, level: str) -> Scope:
        return Scope(self._config.tree.routes(level))

    def _hosted(self, node: Node) -> Connector:
        whole = set(node.fields) == set(_visible(node))
        options: Mapping[str, object] = {
            "url": f"sqlite:///{self._config.state / 'hosted.db'}",
            "part": "all" if whole else "companion",
        }
        return build(Node(node.dataset, node.region, HOSTED, dict(options), node.fields, {}, node.timezone), HOSTED)


def _unresolved(value: Any) -> Any:
    """Options with a stand-in for each secret: their shape can be checked where the secrets are not at hand."""
    if isinstance(value, dict):
        if value and set(value) <= {"env", "connection", "part"}:
            return "http://unresolved.invalid"
        return {key: _unresolved(item) for key, item in value.items()}
    return value


def node_of(binding: Binding, fields: tuple[str, ...], options: dict[str, object]) -> Node:
    """A connector's node from a binding."""
    return Node(binding.dataset, binding.region, binding.system, options, fields, binding.columns, binding.timezone)


def _fields(binding: Binding) -> tuple[str, ...]:
    return binding.dataset.fields_at(binding.region.level)


def _visible(node: Node) -> tuple[str, ...]:
    return node.dataset.fields_at(node.region.level)


def _ledger_url(config: Config, connection_uri: ConnectionUri) -> str:
    if config.spec.ledger is None:
        return os.environ.get("FEDSYNC_LEDGER") or f"sqlite:///{config.state / 'ledger.db'}"
    return str(resolve(config.spec.ledger.model_dump(exclude_none=True, exclude_defaults=True), connection_uri))


def _keyring(config: Config, connection_uri: ConnectionUri) -> Keyring:
    if config.spec.secret is None:
        given = os.environ.get("FEDSYNC_SECRET")
        return Keyring(given.encode()) if given else Keyring.from_file(config.state / "secret.key")
    return Keyring(
        str(resolve(config.spec.secret.model_dump(exclude_none=True, exclude_defaults=True), connection_uri)).encode()
    )
