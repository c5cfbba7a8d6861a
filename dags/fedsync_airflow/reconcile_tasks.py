"""What the tasks of a reconciliation do, as plain functions. Log lines tell counts only, never keys."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TypedDict

from federation.errors import FedsyncError, LinkHeld
from fedsync_airflow.retry import worst
from fedsync_airflow.shares import batches, label
from fedsync_airflow.tasks import opened

log = logging.getLogger("fedsync")
BATCH = 8
"""Parents per mapped task, each with all its children."""


class Share(TypedDict):
    """One mapped task's parents. `within`: the region that each is compared for (its own code: with all its children)."""

    parents: list[str]
    within: list[str | None]
    label: str


def plan(dataset: str, regions: Sequence[str]) -> list[Share]:
    """Cut the parents of a dataset, or those of links in and above some regions, into batches."""
    from federation.reconcile import parents

    with opened() as federation:
        wanted: dict[tuple[str, str | None], None] = {}
        for region in regions or [None]:
            wanted |= dict.fromkeys((parent, region) for parent in parents(federation, dataset, region))
        names = {parent: federation.config.tree[parent].name for parent, _ in wanted}
    return [
        Share(
            parents=[parent for parent, _ in batch],
            within=[region for _, region in batch],
            label=label([names[parent] for parent, _ in batch]),
        )
        for batch in batches(list(wanted), BATCH)
    ]


def compare(dataset: str, share: Share, *, repair: bool) -> None:
    """Compare a batch of parents with their children; all are tried. Raises afterwards if a link failed or differs without a reason."""
    from federation.reconcile import Reconciler, children

    errors: list[FedsyncError] = []
    with opened() as federation:
        reconciler = Reconciler(federation, repair=repair, actor="airflow")
        for parent, region in zip(share["parents"], share["within"]):
            for one in reconciler.parent(dataset, parent, children(federation, dataset, parent, region)):
                if one.differed:
                    log.warning(
                        "%s: of %d records %d are missing below, %d missing above, %d differ; repaired %d, explained %s, unexplained %d",
                        one.link, one.rows, *one.found.values(), one.repaired, one.explained or 0, one.unexplained,
                    )  # fmt: skip
                elif one.skipped:
                    log.info("%s: %s", one.link, one.skipped)
                elif one.error is None:
                    log.info("%s: %d records agree", one.link, one.rows)
                if one.error is not None:
                    log.error("%s: %s", one.link, one.error)
                    errors.append(one.error)
    if errors:
        # a person is needed where a link is held, whatever else may answer later
        raise next((error for error in errors if isinstance(error, LinkHeld)), worst(errors))
