"""Which tombstones a removal leaves, and for whom."""

from __future__ import annotations

import json
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from federation.config import Link
from federation.ledger.baselines import Manifest
from federation.ledger.tombstones import Tombstone
from federation.services import Services
from federation.vouch import SIDES, SideName


def removals_schema(groups: list[str]) -> pa.Schema:
    """What `stones_of` takes: `removed` (`lower`, `upper`): the end that lost the row; `kind`; `destination`: the jurisdiction
    that it moved to, if known; `left`: the upper end keeps it for another child; fp_<group>: what was agreed on till then."""
    texts = [(name, pa.string()) for name in ("key", "removed", "kind", "destination")]
    return pa.schema([*texts, ("left", pa.bool_()), *((f"fp_{name}", pa.binary()) for name in groups)])


def stones_of(services: Services, link: Link, removals: pa.Table, at: datetime) -> list[Tombstone]:
    """A tombstone for each removed row and each neighbouring link that has yet to act on it."""
    if not removals.num_rows:
        return []
    dataset = link.contract.dataset
    owing = {
        end: _holding(
            services,
            link,
            end,
            removals.filter(pc.equal(removals.column("removed"), end)).column("key").combine_chunks(),
        )
        for end in SIDES
    }
    routes = services.config.tree.routes(link.lower.level)
    above = services.neighbours(link, "upper")[0]
    stones = []

    def add(region: str, key: str, links: list[str], kind: str, destination: str | None, fps: str | None) -> None:
        for name in links or [""]:
            done = None if name else at
            stones.append(Tombstone(dataset.name, region, key, name, kind, destination, fps, link.id, at, done))

    for row in removals.to_pylist():
        end = link.lower if row["removed"] == "lower" else link.upper
        add(end.code, row["key"], owing[row["removed"]].get(row["key"], []), row["kind"], row["destination"], None)
        if row["left"]:
            fps = {name[3:]: value.hex() for name, value in row.items() if name.startswith("fp_") and value is not None}
            heir = routes.get(row["destination"] or "")
            if heir and services.config.link(dataset.name, heir).upper != link.upper:
                heir = None  # under another parent, which is told by the link above
            links = [*above, *([f"{dataset.name}/{heir}"] if heir else [])]
            add(link.upper.code, row["key"], links, "left", row["destination"], json.dumps(fps))
    return stones


def arrivals(services: Services, link: Link, keys: list[str]) -> list[Tombstone]:
    """Notes at the lower end, for the links below that know them, that these records had left and are back."""
    dataset, at = link.contract.dataset.name, services.ledger.clock()
    return [
        Tombstone(dataset, link.lower.code, key, name, "arrived", None, None, link.id, at, None)
        for key, names in _holding(services, link, "lower", pa.array(keys, pa.string())).items()
        for name in names
    ]


def _holding(services: Services, link: Link, side: SideName, keys: pa.Array) -> dict[str, list[str]]:
    """Key → the links beyond an end that know the record."""
    found: dict[str, list[str]] = {}
    if not len(keys):
        return found
    beyond, others = services.neighbours(link, side)
    if side == "lower":
        beyond = [*beyond, *services.former(link)]
    for name, state in services.links.states([*beyond, *others]).items():
        known = services.baselines.pick(Manifest.parse(state.baseline), {}, keys).column("key").to_pylist()
        if state.intent:
            intent = services.baselines.read_intent(state.intent)
            known += intent.filter(pc.is_in(intent.column("key"), keys)).column("key").to_pylist()
        for key in set(known):
            found.setdefault(key, []).append(name)
    return found
