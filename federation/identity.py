"""The checkpoint identity of a link: a hash of everything that gives its baseline its meaning. Another one forces a full merge.

Contract, gate, how both ends keep the dataset, who the upper end is, and the scope: which regions' records pass this link. So a
region that joins the tree, or hangs under another parent, makes exactly the links on its way compare all keys once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from federation.config import Config, Link
from federation.regions import LEVELS

UNJUDGED = {"quarantine_days", "reconcile", "schedule", "freshness", "priority"}
"""What a contract says that changes no verdict on any record."""


class Identities:
    """Identities of links under one declaration. `gates`: dataset → identity of its gate. What links share is worked out once."""

    def __init__(self, config: Config, gates: Mapping[str, str]) -> None:
        self._config = config
        self._gates = gates
        self._contracts: dict[str, str] = {}
        self._ends: dict[tuple[str, str], str] = {}
        self._scopes: dict[str, str] = {}
        self._found: dict[str, str] = {}

    def of(self, link: Link) -> str:
        """64 hex digits."""
        if link.id not in self._found:
            dataset = link.contract.dataset
            parts = [
                self._contract(dataset.name),
                self._gates.get(dataset.name, ""),
                self._end(dataset.name, link.upper.code),
                self._end(dataset.name, link.lower.code),
                link.upper.code,
                link.lower.code,
                self._scope(link.lower.code),
            ]
            self._found[link.id] = hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
        return self._found[link.id]

    def _contract(self, name: str) -> str:
        if name not in self._contracts:
            self._contracts[name] = self._config.dataset(name).model_dump_json(exclude=UNJUDGED)
        return self._contracts[name]

    def _end(self, dataset: str, region: str) -> str:
        place = (dataset, region)
        if place not in self._ends:
            end = self._config.binding(dataset, region)
            kept = [end.system, end.options, end.columns, end.codes, end.hosted]
            self._ends[place] = json.dumps(kept, default=str, sort_keys=True)
        return self._ends[place]

    def _scope(self, code: str) -> str:
        """The regions whose records are this region's: itself and all inside it."""
        if code not in self._scopes:
            tree = self._config.tree
            inside = [r.code for level in LEVELS[LEVELS.index(tree[code].level) :] for r in tree.below(code, level)]
            self._scopes[code] = hashlib.sha256("\x1f".join(sorted(inside)).encode()).hexdigest()
        return self._scopes[code]
