"""Where a correction goes: which region's node rules on it, and which hop comes next. Pure."""

from __future__ import annotations

from federation.contract import SHARED, Dataset
from federation.regions import LEVELS, RegionTree


def next_hop(tree: RegionTree, dataset: Dataset, at: str, goal: str) -> str | None:
    """The next region on the way from one node to another, along the dataset's hops; None if it is there."""
    if at == goal or at not in tree or goal not in tree:
        return None  # there, or one of them has left the table
    below = dataset.lower_of(tree[at].level)
    if below is not None and tree.lies_in(goal, at):
        step = tree.ancestor(goal, below)
    else:
        above = dataset.upper_of(tree[at].level)
        step = tree.ancestor(at, above) if above else None
    return step.code if step else None


def authority(tree: RegionTree, dataset: Dataset, level: str, region: str, jurisdiction: str | None) -> str:
    """The region whose node owns a value at `level`: above `region`, or below it where the record lives.

    A shared value, or one whose record lives nowhere, is ruled on at `region` itself.
    """
    if level == SHARED or level not in dataset.levels:
        return region
    found = tree.ancestor(region, level)
    if found is None and jurisdiction is not None and jurisdiction in tree:
        found = tree.ancestor(jurisdiction, level)
    return found.code if found else region


def entitled(dataset: Dataset, word: str, level: str) -> str:
    """The level that rules on a creation (`originates`) or deletion (`retires`) by a node of `level`: the nearest above, else below."""
    levels = dataset.originates if word == "originates" else dataset.retires or dataset.originates
    order = [LEVELS.index(name) for name in levels]
    here = LEVELS.index(level)
    above = [rank for rank in order if rank < here]
    return LEVELS[max(above)] if above else LEVELS[min(order)]
