"""What link runs work with: the declaration and the ledger's parts; one of each per process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo

import pyarrow as pa
from sqlalchemy import Connection

from federation.config import Binding, Config, Link
from federation.contract import Dataset, LinkContract
from federation.correcting import Desk
from federation.errors import SchemaMismatch
from federation.gate import Gate
from federation.gate_suite import Rule
from federation.identity import Identities
from federation.journey import next_hop
from federation.ledger.baselines import Baselines
from federation.ledger.contests import Contests
from federation.ledger.corrections import Correction, Corrections
from federation.ledger.links import Links, LinkState
from federation.ledger.pauses import Pauses
from federation.ledger.quarantine import Item, Quarantine
from federation.ledger.store import Ledger
from federation.ledger.tombstones import Tombstones
from federation.ledger.waiting import Waiting, mark_of
from federation.ledger.waivers import Waivers
from federation.pausing import Paused
from federation.regions import Region
from federation.returning import ReturnDesk
from federation.secrets import Keyring
from federation.staging import Staging
from federation.vouch import SideName


@dataclass(frozen=True)
class Services:
    """See the module. `left_behind`: whether the engine still hosts records of a node whose own system keeps them by now.

    `present`: dataset, region, keys (as text) → those of them that the node holds. `withdraw`: dataset, region, keys: delete those
    among them that lie outside the node's jurisdiction, once their rows were shown to somebody.
    """

    config: Config
    ledger: Ledger
    links: Links
    baselines: Baselines
    staging: Staging
    quarantine: Quarantine
    waivers: Waivers
    corrections: Corrections
    contests: Contests
    tombstones: Tombstones
    waiting: Waiting
    pauses: Pauses
    keyring: Keyring
    gates: dict[str, Gate | None]
    left_behind: Callable[[Binding], bool]
    present: Callable[[str, str, pa.Array], pa.Array]
    withdraw: Callable[[str, str, pa.Array, Callable[[pa.Table], None]], None]

    def now(self) -> datetime:
        """The ledger's time, in the federation's time zone."""
        return self.ledger.clock().astimezone(ZoneInfo(self.config.spec.timezone))

    def exist(self, dataset: str, region: str, keys: pa.Array) -> pa.Array:
        """Of these keys (as text), those that a node holds: none, while there is no table because the dataset was never synced there."""
        try:
            return self.present(dataset, region, keys)
        except SchemaMismatch:
            touching = [f"{dataset}/{region}", *(link.id for link in self.config.links(dataset, region))]
            if any(state.last_ok is not None for state in self.links.states(touching).values()):
                raise
            return keys.slice(0, 0)

    def paused(self) -> Paused:
        """What is paused at this moment."""
        return Paused(self.config, self.pauses.standing())

    @cached_property
    def identities(self) -> Identities:
        """The checkpoint identity that each link has under this declaration."""
        return Identities(self.config, {name: gate.identity for name, gate in self.gates.items() if gate is not None})

    def rule(self, item: Item) -> Rule | None:
        """The rule of a gate that an item fails; None if it is none of a gate's (any more)."""
        gate = self.gates.get(item.dataset)
        return gate.suite.by_name.get(item.rule) if gate is not None else None

    def expired(self, dataset: Dataset | None) -> datetime:
        """What was last seen in quarantine before then has outlived its retention. None: of a dataset that is no longer declared."""
        days = (dataset.quarantine_days if dataset else None) or self.config.spec.quarantine_days
        return self.ledger.clock() - timedelta(days=days)

    def neighbours(self, link: Link, side: SideName) -> tuple[list[str], list[str]]:
        """The links beyond an end (whose word it relays), and, above, those of the other children."""
        dataset = link.contract.dataset
        if side == "lower":
            return [below.id for below in self.config.links(dataset.name, link.lower.code)], []
        beyond = [f"{dataset.name}/{link.upper.code}"] if dataset.upper_of(link.upper.level) else []
        others = self.config.links(dataset.name, link.upper.code)
        return beyond, [other.id for other in others if other.id != link.id]

    def former(self, link: Link) -> list[str]:
        """Links that still stand under this link's lower end in the ledger, though the tree has another parent for them."""
        dataset = link.contract.dataset.name
        declared = {below.id for below in self.config.links(dataset, link.lower.code)}
        return [name for name in self.links.under(dataset, link.lower.code) if name not in declared]

    def meanings(self, contract: LinkContract) -> dict[str, str]:
        """Group → hash of what its fingerprints mean: field list, types, normalisation."""
        found = {}
        for group in contract.groups:
            kept = {"type", "scale", "normalise"}
            specs = [(name, contract.dataset.fields[name].model_dump(include=kept)) for name in group.fields]
            found[group.name] = hashlib.sha256(json.dumps(specs).encode()).hexdigest()[:16]
        return found

    def desk(self, dataset: Dataset, region: Region) -> Desk:
        """The corrections of one node."""
        return Desk(self.corrections, self.config.tree, dataset, region, self.keyring.fingerprint)

    def return_desk(self, dataset: Dataset, region: Region) -> ReturnDesk:
        """The returns of one node."""
        return ReturnDesk(self.quarantine, self.config.tree, dataset, region)

    def mark(self, link: Link, side: SideName, states: dict[str, LinkState]) -> str:
        """Differs once a link beyond an end has agreed on something new."""
        beyond, _ = self.neighbours(link, side)
        return mark_of(states[name].baseline for name in beyond if name in states)

    def next_hop(self, dataset: str, at: str, goal: str) -> str | None:
        """The next region on a correction's way."""
        return next_hop(self.config.tree, self.config.dataset(dataset), at, goal)

    def cross(self, connection: Connection, link: Link) -> tuple[int, int]:
        """Let corrections pass a link; returns how many went up and down."""
        dataset = link.contract.dataset.name
        return self.corrections.cross(connection, link.upper.code, link.lower.code, dataset, self.next_hop)

    def link_for(self, correction: Correction) -> str | None:
        """The link whose run would let a correction get on; None if it waits for people."""
        if correction.at is None or correction.closed is not None or correction.at not in self.config.tree:
            return None
        dataset = self.config.dataset(correction.dataset)
        stuck = correction.state == "accepted" and not correction.applied
        unchecked = correction.state == "waiting" and not correction.checked
        if stuck or unchecked:
            return self.link_at(dataset.name, correction.target or correction.at)
        goal = correction.heading
        step = None if goal is None else self.next_hop(dataset.name, correction.at, goal)
        if step is None:
            return self.link_at(dataset.name, correction.at) if goal is not None else None
        above = dataset.upper_of(self.config.tree[correction.at].level)
        upward = above is not None and self.config.tree.ancestor(correction.at, above) == self.config.tree[step]
        return f"{dataset.name}/{correction.at if upward else step}"

    def link_at(self, dataset: str, region: str) -> str | None:
        """Some link that touches a node: the one above it, at the top the first below."""
        contract = self.config.dataset(dataset)
        if region not in self.config.tree:
            return None  # it has left the table
        if contract.upper_of(self.config.tree[region].level) is not None:
            return f"{dataset}/{region}"
        below = self.config.links(dataset, region)
        return below[0].id if below else None
