"""Backfill (补数) of one region: every link inside it, and those that join it to the top, compare all keys once; nothing else does."""

from __future__ import annotations

from federation.errors import FedsyncError
from federation.federation import PASSES, CascadeResult, Federation, Progress

Hop = tuple[str, list[str]]
"""A parent and those of its children that are concerned."""


def backfill(federation: Federation, dataset: str, region: str, *, progress: Progress | None = None) -> CascadeResult:
    """Compare all keys of a region's links, then let what moved come to rest, on these links alone; siblings are not touched.

    What nobody changed is not written again. Raises FedsyncError for a region that the dataset has no link for, or if it does not
    come to rest.
    """
    hops = hops_of(federation, dataset, region)
    if not hops:
        raise FedsyncError(
            f"{dataset} has no link at {region}",
            f"数据集 {dataset} 在该区划没有链路",
            todo="检查数据集的层级 / look at the levels of the dataset",
            dataset=dataset,
            region=region,
        )
    result = CascadeResult()
    for number in range(PASSES):
        moved = False
        for upper, lowers in hops if number % 2 == 0 else hops[::-1]:
            one = _hop(federation, dataset, upper, lowers, force_full=number == 0, progress=progress)
            result.add(one)
            moved = moved or one.restless
        if number and not moved:
            return result
    raise FedsyncError(
        f"{dataset} at {region} did not come to rest in {PASSES} passes: two ends keep correcting each other",
        f"{dataset} 经过 {PASSES} 轮仍未收敛",
        todo="fedsync status",
        dataset=dataset,
        region=region,
    )


def hops_of(federation: Federation, dataset: str, region: str) -> list[Hop]:
    """The links that concern a region, by parent, top down. A region between the dataset's levels stands for what lies inside it."""
    config = federation.config
    contract, place = config.dataset(dataset), config.tree[region]
    found: list[Hop] = []
    for upper, _ in contract.hops:
        for parent in config.tree.at(upper):
            lowers = [
                link for link in config.links(dataset, parent.code) if config.tree.related(link.lower.code, place.code)
            ]
            if lowers:
                found.append((parent.code, [link.lower.code for link in lowers]))
    return found


def _hop(
    federation: Federation,
    dataset: str,
    upper: str,
    lowers: list[str],
    *,
    force_full: bool,
    progress: Progress | None,
) -> CascadeResult:
    """Sync a parent with some of its children; it is read once if that are all of them."""
    if len(lowers) == len(federation.config.links(dataset, upper)):
        return federation.sync_parent(dataset, upper, force_full=force_full, progress=progress)
    result = CascadeResult()
    try:
        result.outcomes, result.errors = federation.sync_children(
            dataset, upper, lowers, None, force_full=force_full, progress=progress
        )
    except FedsyncError as error:
        result.errors = {f"{dataset}/{lower}": error for lower in lowers}
    return result
