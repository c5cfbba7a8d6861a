"""Reach (触达率): the share of nodes that the city's data reaches in time, and whose data reaches the city in time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from federation.config import Config
from federation.ledger.links import LinkState


@dataclass(frozen=True)
class LevelReach:
    """Of the `nodes` of one level, how many the chain of links to the top reached in time, and which it did not."""

    dataset: str
    level: str
    nodes: int
    reached: int
    missing: tuple[str, ...]

    @property
    def share(self) -> float:
        """Between 0 and 1; 1 where there is nothing to reach."""
        return self.reached / self.nodes if self.nodes else 1.0


def reach(config: Config, dataset: str, states: dict[str, LinkState], now: datetime) -> list[LevelReach]:
    """The reach of each level below the top. A node counts if every link on its path settled within the freshness promise.

    A link that settles carries both directions, so down-reach and up-reach are the same number until a link is one-way.
    """
    contract = config.dataset(dataset)
    limit = now - timedelta(minutes=contract.freshness)
    reached = {region.code for region in config.tree.at(contract.levels[0])}
    result = []
    for upper, lower in contract.hops:
        nodes, missing = 0, []
        for region in config.tree.at(lower):
            nodes += 1
            parent = config.tree.ancestor(region.code, upper)
            state = states.get(f"{dataset}/{region.code}")
            fresh = state is not None and state.state == "ok" and state.last_ok is not None and state.last_ok >= limit
            if fresh and parent is not None and parent.code in reached:
                reached.add(region.code)
            else:
                missing.append(region.code)
        result.append(LevelReach(dataset, lower, nodes, nodes - len(missing), tuple(missing)))
    return result
