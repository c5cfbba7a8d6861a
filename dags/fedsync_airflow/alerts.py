"""What Airflow itself notices, told over the federation's channels: runs that failed, and runs that are not over in time.

A failure that held links explain is told as these links, under the subjects that the check after each sweep uses, so that nobody
hears of one thing twice. Without channels in the declaration, no DAG has a callback or a deadline.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from airflow.sdk import DeadlineAlert, DeadlineReference, SyncCallback

from federation.config import Config, load
from federation.contract import Dataset
from federation.errors import FedsyncError
from fedsync_airflow.names import TITLES, declaration, hop_dag_id, hop_title, title

log = logging.getLogger("fedsync")

_ENDING = frozenset({"sweep", "quality", "reconcile"})
"""A dataset's DAGs whose later runs tell that a failure is over, though they are for no region."""


def callbacks(config: Config, dataset: Dataset | None = None, *, ends: bool = False) -> dict[str, Any]:
    """What a DAG is declared with: a callback for its failures and, for a dataset's, its freshness as the deadline of each run.

    `ends`: a later success tells that a failure is over, where no sweep would notice.
    """
    if not config.spec.alerts.channels:
        return {}
    found: dict[str, Any] = {"on_failure_callback": run_failed}
    if ends:
        found["on_success_callback"] = run_succeeded
    if dataset is not None:
        found["deadline"] = DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=timedelta(minutes=dataset.freshness),
            callback=SyncCallback(deadline_missed),
            name=f"{dataset.name} freshness",
        )
    return found


def run_failed(context: Any) -> None:
    """Callback: a run failed. Raises what a channel raises, for Airflow to log."""
    run = context.get("dag_run")
    _tell("run", context["dag"].dag_id, context.get("run_id") or run.run_id, getattr(run, "partition_key", None))


def deadline_missed(context: Any) -> None:
    """Callback: a run that was queued a freshness ago is not over."""
    run = context["dag_run"]
    _tell("deadline", run["dag_id"], run["dag_run_id"], run.get("partition_key"))


def run_succeeded(context: Any) -> None:
    """Callback: a run went well, so earlier failures of its DAG are over."""
    from federation.alerting import Teller
    from fedsync_airflow.tasks import connection_uri, opened

    with opened() as federation:
        dag_id = context["dag"].dag_id
        subjects = [subject("run", dag_id, None), subject("deadline", dag_id, None)]
        Teller(federation.config, federation.services.ledger, connection_uri).end(subjects).check()


def watch(dataset: str) -> None:
    """After a sweep: tell what needs a person, and what is over. Raises what a channel raises.

    That it runs says that the sweep itself is well again.
    """
    from federation.alerting import check
    from fedsync_airflow.tasks import connection_uri, opened

    ended = [subject(kind, f"{dataset}__sweep", None) for kind in ("run", "deadline")]
    with opened() as federation:
        told = check(federation, dataset, connection_uri, ended)
    if told.standing or told.cleared:
        sent, over = (sum(map(len, found.values())) for found in (told.sent, told.cleared))
        log.info(
            "需人工处理 %d 项：发送 %d，省略 %d，恢复 %d / %d need a person: %d told, %d swallowed, %d over",
            *(told.standing, sent, told.swallowed, over) * 2,
        )
    told.check()


def subject(kind: str, dag_id: str, key: str | None) -> str:
    """`<kind>:<dag>/<region code>`, `-` for a run that is for no region."""
    return f"{kind}:{dag_id}/{key or '-'}"


def _tell(kind: str, dag_id: str, run_id: str, key: str | None) -> None:
    from airflow.sdk.configuration import conf

    from federation.alerting import Teller, Told, held_below, tell_directly
    from fedsync_airflow.tasks import connection_uri, opened

    config = load(declaration())
    dataset = config.datasets.get(dag_id.rpartition("__")[0])
    page = f"{conf.get('api', 'base_url', fallback='').rstrip('/')}/dags/{dag_id}/runs/{quote(run_id, safe='')}"
    upper = key if dataset is not None and key in config.tree else None
    held: list[Any] = []
    failed = 0
    told: Told
    try:
        with opened() as federation:
            if dataset is not None and upper is not None:
                held, failed = held_below(federation, dataset.name, upper)
            own = (
                [] if kind == "run" and held and not failed else [_alarm(config, kind, dag_id, key, len(held), failed)]
            )
            links = {alarm.subject: page for alarm in (*own, *held)}
            told = Teller(config, federation.services.ledger, connection_uri).tell([*own, *held], links)
    except FedsyncError as error:
        log.error("告警无法记入台账，直接发送 / the ledger cannot note the alert, which is told directly: %s", error)
        told = tell_directly(config, [_alarm(config, kind, dag_id, key, 0, 0)], connection_uri)
    told.check()


def _alarm(config: Config, kind: str, dag_id: str, key: str | None, held: int, failed: int) -> Any:
    from federation.alarms import Alarm

    dataset = config.datasets.get(dag_id.rpartition("__")[0])
    zh, en = title_of(config, dag_id, key)
    counts = f"（{failed} 条链路失败，{held} 条被拦截）", f" ({failed} link(s) failed, {held} held)"
    if kind == "deadline" and dataset is not None:
        said = f"运行超过时效 {dataset.freshness} 分钟仍未结束", f"not over within {dataset.freshness} min"
    else:
        said = "本次运行失败", "this run failed"
    if failed or held:
        said = said[0] + counts[0], said[1] + counts[1]
    todo = f"fedsync status --dataset {dataset.name}" if dataset is not None else ""
    watched = dataset is not None and (key is not None or dag_id.rpartition("__")[2] in _ENDING)
    return Alarm(
        subject(kind, dag_id, key), kind, dataset.name if dataset else None, zh, en, *said, todo, lasting=watched
    )


def title_of(config: Config, dag_id: str, key: str | None) -> tuple[str, str]:
    """What a run is about, in Chinese and in English."""
    name = config.tree[key].name if key and key in config.tree else (key or "")
    for dataset in config.datasets.values():
        titles = {hop_dag_id(dataset, *hop): hop_title(dataset, *hop) for hop in dataset.hops}
        titles |= {f"{dataset.name}__{word}": title(dataset, word) for word in TITLES}
        if dag_id in titles:
            return f"{titles[dag_id]} {name}".strip(), f"{dag_id} {name}".strip()
    return f"{dag_id} {name}".strip(), f"{dag_id} {name}".strip()
