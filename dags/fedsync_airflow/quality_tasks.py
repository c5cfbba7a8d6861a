"""What the tasks of a quality report do, as plain functions. Log lines tell counts only."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import TypedDict

from federation.errors import FedsyncError, GateError
from fedsync_airflow.retry import worst
from fedsync_airflow.shares import batches, label
from fedsync_airflow.tasks import opened

log = logging.getLogger("fedsync")
BATCH = 64
"""Nodes per mapped task: Great Expectations takes longer to import than to judge a community."""


class Share(TypedDict):
    """One mapped task's nodes. `begun`: when the run was planned, so that a retry skips what it has examined already."""

    regions: list[str]
    begun: str
    label: str


def plan(dataset: str, within: Sequence[str]) -> list[Share]:
    """Cut the nodes of a dataset, or those inside some regions, into batches."""
    from federation.quality import regions_of

    with opened() as federation:
        codes = regions_of(federation, dataset, within)
        begun = federation.services.ledger.clock().isoformat()
        names = {code: federation.config.tree[code].name for code in codes}
    return [
        Share(regions=list(batch), begun=begun, label=label([names[code] for code in batch]))
        for batch in batches(codes, BATCH)
    ]


def examine(dataset: str, share: Share) -> None:
    """Examine a batch of nodes; all are tried. Raises afterwards if some failed: a rule that needs mending before an absent system."""
    from federation.ledger.quality import QualityLog
    from federation.quality_pages import report

    errors: list[FedsyncError] = []
    with opened() as federation:
        begun = datetime.fromisoformat(share["begun"])
        ready = QualityLog(federation.services.ledger).examined(dataset, begun)
        left = [code for code in share["regions"] if code not in ready]
        for found in report(federation, dataset, left):
            if found.findings:
                log.info(
                    "%s: %d records, %d rules, %d failing", found.region, found.rows, len(found.findings), found.failing
                )
            for error in found.errors:
                log.error("%s: %s", found.region, error)
            errors += found.errors
    if errors:
        raise next((error for error in errors if isinstance(error, GateError)), worst(errors))


def publish(dataset: str) -> None:
    """Draw the index over all nodes."""
    from federation.quality_pages import Site

    with opened() as federation:
        log.info("published %s", Site(federation).publish(dataset))
