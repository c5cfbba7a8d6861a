"""The composition root: from a declaration on disk to a `Federation` at work. The only module here that opens connectors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from connectors.base import Batch, Connector, Node
from connectors.hosted import HostedConnector, renewed
from connectors.hosted import metadata as hosted_metadata
from connectors.level import Scope
from connectors.nodes import check_options, open_node, open_system
from connectors.registry import connector_class
from connectors.sql_database import release_idle
from federation.backup import Backups, Hosted
from federation.canonical import key_column, key_table
from federation.config import HOSTED, Binding, Config, Reference, load
from federation.erasing import Eraser
from federation.errors import DeclarationError, FedsyncError, located
from federation.federation import Federation
from federation.gate import Gate
from federation.hosting import Hosting
from federation.ledger.baselines import Baselines
from federation.ledger.contests import Contests
from federation.ledger.corrections import Corrections
from federation.ledger.erasures import Erasure, Erasures
from federation.ledger.links import Links
from federation.ledger.pauses import Pauses
from federation.ledger.quarantine import Quarantine
from federation.ledger.store import Clock, Ledger, open_engine, utc_now
from federation.ledger.tombstones import Tombstones
from federation.ledger.waiting import Waiting
from federation.ledger.waivers import Waivers
from federation.quality_suite import check_reports
from federation.secrets import ConnectionUri, Keyring, from_environment, resolve
from federation.services import Services
from federation.staging import Staging
from federation.storage import Storage


def open_federation(
    path: Path | str | Config, *, connection_uri: ConnectionUri = from_environment, clock: Clock = utc_now
) -> Federation:
    """Open a declared federation: its ledger (migrated), its gates, its key. Opens no node."""
    services, opener = _opened(path, connection_uri, clock)
    return Federation(services, opener, opener.close)


def open_hosting(
    path: Path | str | Config,
    actor: str,
    *,
    connection_uri: ConnectionUri = from_environment,
    clock: Clock = utc_now,
) -> Hosting:
    """Open what the engine hosts in a federation. `actor`: who asks, for the audit trail."""
    return Hosting(*_opened(path, connection_uri, clock), actor)


def open_backups(
    path: Path | str | Config, actor: str, *, connection_uri: ConnectionUri = from_environment, clock: Clock = utc_now
) -> Backups:
    """Open what takes and restores backups of a federation. `actor`: who asks, for the audit trail."""
    services, opener = _opened(path, connection_uri, clock)
    url = opener.hosted_url
    file = url.removeprefix("sqlite:///") if url.startswith("sqlite") else None
    there = file is None or Path(file).exists()
    return Backups(services, Hosted(open_engine(url), there, hosted_metadata, renewed), actor)


def open_eraser(
    path: Path | str | Config,
    actor: str,
    *,
    connection_uri: ConnectionUri = from_environment,
    clock: Clock = utc_now,
) -> Eraser:
    """Open what erases records from a federation. `actor`: who runs it, for the audit trail."""
    services, opener = _opened(path, connection_uri, clock)
    return Eraser(Federation(services, opener), opener, actor)


def finish_erasures(
    federation: Federation, actor: str, *, connection_uri: ConnectionUri = from_environment
) -> list[Erasure]:
    """Try every pending erasure of an open federation again; reads nothing but the ledger if there is none."""
    services = federation.services
    if not Erasures(services.ledger, services.keyring).all("pending"):
        return []
    return Eraser(federation, Opener(services.config, connection_uri, services.keyring), actor).finish()


def _opened(path: Path | str | Config, connection_uri: ConnectionUri, clock: Clock) -> tuple[Services, Opener]:
    config = path if isinstance(path, Config) else load(path)
    ledger = Ledger(_ledger_url(config, connection_uri), clock)
    keyring = _keyring(config, connection_uri)
    storage = storage_of(config, connection_uri)
    opener = Opener(config, connection_uri, keyring)
    services = Services(
        config,
        ledger,
        Links(ledger),
        Baselines(storage.inside("baselines")),
        Staging(storage.inside("staging")),
        Quarantine(ledger, keyring),
        Waivers(ledger, keyring),
        Corrections(ledger, keyring),
        Contests(ledger, keyring),
        Tombstones(ledger),
        Waiting(ledger),
        Pauses(ledger),
        keyring,
        load_gates(config),
        lambda binding: bool(opener.left(binding)),
        opener.present,
        opener.withdraw,
    )
    return services, opener


def open_staging(path: Path | str | Config, *, connection_uri: ConnectionUri = from_environment) -> Staging:
    """Open what is staged, and nothing else: no ledger, no node."""
    config = path if isinstance(path, Config) else load(path)
    return Staging(storage_of(config, connection_uri).inside("staging"))


def load_gates(config: Config) -> dict[str, Gate | None]:
    """The gate of each dataset; None for a dataset without a suite. Raises DeclarationError for an invalid suite."""
    return {
        name: Gate.load(config.suites / dataset.suite, dataset, datasets=config.datasets) if dataset.suite else None
        for name, dataset in config.datasets.items()
    }


def check(path: Path | str) -> tuple[Config, list[FedsyncError]]:
    """Validate a declaration down to each connector's options and each suite; the problems that `load` cannot see."""
    config = load(path)
    problems: list[FedsyncError] = []
    for dataset in config.datasets.values():
        try:
            if dataset.suite:
                Gate.load(config.suites / dataset.suite, dataset, datasets=config.datasets)
        except DeclarationError as error:
            problems += error.problems or (error,)
    problems += check_reports(config)
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


def watched(config: Config, dataset: str) -> dict[str, Path]:
    """The nodes of a dataset that people edit as files of this machine: region → file or folder. Touches no system and no secret."""
    found = {}
    for binding in config.bindings():
        if binding.dataset.name == dataset and binding.spec.connector != HOSTED:
            node = node_of(binding, _fields(binding), _unresolved(binding.options))
            path = connector_class(binding.spec.connector).watched(node)
            if path is not None:
                found[binding.region.code] = path
    return found


class Opener:
    """Opens the connector of a node as declared, and what the engine hosts of it."""

    def __init__(self, config: Config, connection_uri: ConnectionUri, keyring: Keyring) -> None:
        self._config = config
        self._connection_uri = connection_uri
        self._keyring = keyring
        self._scope = cache(self._make_scope)

    def __call__(self, binding: Binding) -> Connector:
        scope = self._scope(binding.region.level)
        return open_node(
            self._node(binding),
            binding.spec.connector,
            scope,
            lacking=binding.hosted,
            codes=binding.codes,
            hosted=self._hosted,
        )

    def close(self) -> None:
        """Give back the connections to the hosted records, if they were asked for."""
        if "hosted_url" in vars(self):
            release_idle(self.hosted_url)

    def present(self, dataset: str, region: str, keys: pa.Array) -> pa.Array:
        """Which of these keys (as text) a node holds."""
        binding = self._config.binding(dataset, region)
        with located(dataset=dataset, region=str(binding.region), system=binding.system):
            connector = self(binding)
            try:
                gone = key_column(connector.fetch(key_table(keys, binding.dataset)).deleted, binding.dataset)
            finally:
                connector.close()
        return keys.filter(pc.invert(pc.is_in(keys, value_set=gone)))

    def withdraw(self, dataset: str, region: str, keys: pa.Array, showing: Callable[[pa.Table], None]) -> None:
        """Delete those of these records (keys as text) that lie outside a node's jurisdiction. `showing` sees their rows before.

        Raises Conflict if a system that can tell was edited meanwhile: then simply again.
        """
        binding = self._config.binding(dataset, region)
        with located(dataset=dataset, region=str(binding.region), system=binding.system):
            connector = self(binding)
            try:
                found = connector.fetch(key_table(keys, binding.dataset))
                if found.outside is not None and found.outside.num_rows:
                    showing(found.outside)
                    cursor = found.cursor if connector.capabilities.conditional else None
                    connector.apply(Batch((), found.outside.select(list(binding.dataset.key)), cursor))
            finally:
                connector.close()

    def unguarded(self, binding: Binding) -> Connector:
        """The same without its level's guard: for records that lie outside, and are none of the engine's making."""
        return open_system(
            self._node(binding),
            binding.spec.connector,
            lacking=binding.hosted,
            codes=binding.codes,
            hosted=self._hosted,
        )

    def kept(self, binding: Binding) -> HostedConnector | None:
        """What the engine keeps of a node: all of it, or the fields that its system lacks; None if it keeps nothing."""
        if binding.spec.connector == HOSTED:
            return self._part(binding, _fields(binding), "all")
        if binding.hosted:
            return self._part(binding, (*binding.dataset.key, *binding.hosted), "companion")
        return None

    def left(self, binding: Binding) -> list[HostedConnector]:
        """What the engine still keeps of a node though its system keeps it by now: records, or values of fields."""
        if binding.spec.connector == HOSTED:
            return []
        keys = binding.dataset.key
        moved = [name for name in _fields(binding) if name not in keys and name not in binding.hosted]
        found = [self._part(binding, _fields(binding), "all"), self._part(binding, (*keys, *moved), "companion")]
        return [part for part in found if _holds(part)]

    def hosted_nodes(self) -> Iterator[HostedConnector]:
        """Every part of a node that the engine keeps or has left."""
        return (part for part in self._parts() if part.live())

    def kept_of(self, dataset: str) -> Iterator[HostedConnector]:
        """Every part that the engine keeps, or has left, of a dataset's nodes."""
        return (part for part in self._parts(dataset) if part.made())

    def _parts(self, dataset: str | None = None) -> Iterator[HostedConnector]:
        for binding in self._config.bindings(dataset):
            for part in ("all", "companion"):
                yield self._part(binding, _fields(binding), part)

    def _node(self, binding: Binding) -> Node:
        return node_of(binding, _fields(binding), resolve(binding.options, self._connection_uri))

    def _make_scope(self, level: str) -> Scope:
        return Scope(self._config.tree.routes(level))

    def _hosted(self, node: Node) -> Connector:
        whole = set(node.fields) == set(node.dataset.fields_at(node.region.level))
        return self._open_part(node, "all" if whole else "companion")

    def _part(self, binding: Binding, fields: tuple[str, ...], part: str) -> HostedConnector:
        ordered = tuple(name for name in binding.dataset.fields if name in fields)
        return self._open_part(node_of(binding, ordered, {}), part)

    @cached_property
    def hosted_url(self) -> str:
        """The database of hosted records."""
        return hosted_url(self._config, self._connection_uri)

    def _open_part(self, node: Node, part: str) -> HostedConnector:
        options: dict[str, Any] = {
            "url": self.hosted_url,
            "part": part,
            "keys": self._keyring.derived(b"fedsync hosted"),
        }
        return HostedConnector(Node(node.dataset, node.region, HOSTED, options, node.fields, {}, node.timezone))


def _holds(part: HostedConnector) -> bool:
    """Whether there is a record; of a companion, a value in one of its fields."""
    if not part.live():
        return False
    if part.whole:
        return True
    found = part.changes(None)
    others = [name for name in part.node.fields if name not in part.node.dataset.key]
    return bool(found.rejects.num_rows) or any(
        found.rows.column(name).null_count < found.rows.num_rows for name in others
    )


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


def storage_of(config: Config, connection_uri: ConnectionUri = from_environment) -> Storage:
    """Where staging and baselines lie. Touches nothing there."""
    spec = config.spec.storage
    if spec is None:
        return Storage(str(config.state))
    url = spec.url if "://" in spec.url else str(config.home / spec.url)
    return Storage(url, resolve(spec.options, connection_uri))


def hosted_url(config: Config, connection_uri: ConnectionUri = from_environment) -> str:
    """The database of hosted records: as declared; else a file that is there already goes on being used; else beside the ledger."""
    if config.spec.hosted is not None:
        return str(resolve(config.spec.hosted.model_dump(exclude_none=True, exclude_defaults=True), connection_uri))
    given, file = os.environ.get("FEDSYNC_HOSTED"), config.state / "hosted.db"
    if given:
        return given
    ledger = _ledger_url(config, connection_uri)
    return f"sqlite:///{file}" if ledger.startswith("sqlite") or file.exists() else ledger


def _ledger_url(config: Config, connection_uri: ConnectionUri) -> str:
    if config.spec.ledger is None:
        return os.environ.get("FEDSYNC_LEDGER") or f"sqlite:///{config.state / 'ledger.db'}"
    return str(resolve(config.spec.ledger.model_dump(exclude_none=True, exclude_defaults=True), connection_uri))


def _keyring(config: Config, connection_uri: ConnectionUri) -> Keyring:
    def secret(reference: Reference) -> bytes:
        return str(resolve(reference.model_dump(exclude_none=True, exclude_defaults=True), connection_uri)).encode()

    given = os.environ.get("FEDSYNC_SECRET")
    previous = [secret(reference) for reference in config.spec.previous_secrets] or [
        word.encode() for word in os.environ.get("FEDSYNC_SECRET_PREVIOUS", "").split()
    ]
    if config.spec.secret is not None:
        return Keyring(secret(config.spec.secret), previous)
    return Keyring(given.encode(), previous) if given else Keyring.from_file(config.state / "secret.key", previous)
