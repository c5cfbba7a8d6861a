"""What the operators' DAGs do, as plain functions. Log lines tell counts and links only, never a key or a value."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from federation.errors import FedsyncError, Transient
from fedsync_airflow.names import declaration
from fedsync_airflow.retry import worst
from fedsync_airflow.tasks import connection_uri, opened

log = logging.getLogger("fedsync")


def actor_of(context: Any) -> str:
    """Who triggered the run, for the audit trail: the Airflow user if there is one."""
    return getattr(context.get("dag_run"), "triggering_user_name", None) or "airflow"


def pause(action: str, kind: str, subject: str, reason: str, until: str | None, actor: str) -> None:
    """Pause or resume a link, a region with all below it, or a system."""
    from federation.pausing import pause_of, subject_of

    end = datetime.fromisoformat(until) if until else None
    with opened() as federation:
        services = federation.services
        if action == "resume":
            services.pauses.resume(*subject_of(federation.config, kind, subject.strip()), actor)
            log.info("resumed %s %s", kind, subject)
        else:
            log.info("%s", pause_of(services, kind, subject.strip(), reason, end, actor))


def backfill(dataset: str, region: str) -> None:
    """Compare all keys of a region's links and bring them to rest. Raises afterwards if some failed."""
    from federation.backfill import backfill as run

    with opened() as federation:
        result = run(federation, dataset, region.strip())
    log.info(
        "%s %s: %d link runs, %d rows written or deleted, %d skipped, %d failed",
        dataset, region, len(result.outcomes), result.moved, len(result.skipped), len(result.errors),
    )  # fmt: skip
    for link, why in result.skipped.items():
        log.warning("%s: %s", link, why)
    for link, error in result.errors.items():
        log.error("%s: %s", link, error)
    if result.errors:
        raise worst(list[FedsyncError](result.errors.values()))


def erase(dataset: str, key: str, reason: str, by: str, actor: str) -> None:
    """Erase a record, or, without a dataset, try again what is pending. Raises Transient while anything still waits."""
    from federation.runtime import open_eraser

    eraser = open_eraser(declaration(), actor, connection_uri=connection_uri)
    try:
        asked = [eraser.erase(dataset, key.strip(), reason=reason, by=by or actor)] if dataset else eraser.finish()
    finally:
        eraser.federation.close()
    for one in asked:
        log.info("erasure %s: %s", one.erasure_id, one.state)
        for place, why in one.waits_for.items():
            log.warning("erasure %s waits for %s: %s", one.erasure_id, place, why.replace(one.key, "…"))
    pending = [one.erasure_id for one in asked if one.state == "pending"]
    if pending and dataset:
        raise Transient(
            f"{len(pending)} erasure(s) still wait for a node or a link",
            f"{len(pending)} 项删除尚未完成",
            todo="fedsync erase list",
        )
