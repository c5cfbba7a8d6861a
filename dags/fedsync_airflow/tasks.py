"""What the tasks do: open the federation, call the engine, report in a few lines without any personal value.

Plain functions, so that they can be tested without Airflow. The engine is imported when a task runs, never at parse time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypedDict
from urllib.parse import unquote, urlsplit

from federation.errors import DeclarationError, FedsyncError
from fedsync_airflow import lineage, stats
from fedsync_airflow.names import declaration
from fedsync_airflow.retry import worst
from fedsync_airflow.shares import batches, label

if TYPE_CHECKING:
    from federation.federation import Federation
    from federation.staging import Staging

log = logging.getLogger("fedsync")
BATCH = 32
"""Children per mapped task: enough to share a process's start (one for 85 % of the streets of a large city), few enough to spread over workers."""


class Work(TypedDict):
    """One mapped task's share: the reference of the staged reading, and the children to sync. `label` names it for people."""

    folder: str
    upper: str
    number: int
    lowers: list[str]
    label: str


@contextmanager
def opened() -> Iterator[Federation]:
    """The federation that FEDSYNC_FEDERATION names, with secrets from Airflow's backends."""
    from federation.runtime import open_federation

    federation = open_federation(declaration(), connection_uri=connection_uri)
    try:
        yield federation
    finally:
        federation.close()


def connection_uri(name: str) -> str | None:
    """The URI of an Airflow connection, from the environment or Airflow's secrets backends; None if there is none."""
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    from federation.secrets import from_environment

    given = from_environment(name)  # as written: Airflow takes a URI apart and quotes its path when it puts it together
    if given is not None:
        return given
    try:
        split = urlsplit(Connection.get(name).get_uri())
    except AirflowNotFoundException:
        return None
    return f"{split.scheme}://{split.netloc}{unquote(split.path)}" + (f"?{split.query}" if split.query else "")


def partition_of(key: str | None, level: str) -> str:
    """The region that a run is for. Raises DeclarationError if the run has no partition key, or one of another level."""
    if not key:
        raise DeclarationError(
            "this run has no partition key",
            "本次运行没有分区键",
            todo=f"触发时填写{level}级区划代码 / trigger it with the code of a {level} as partition key",
        )
    with opened() as federation:
        if federation.config.tree[key].level != level:
            raise DeclarationError(
                f"{key} is not a {level}",
                f"{key} 不是 {level} 级区划",
                todo=f"换成 {level} 级区划代码 / give the code of a {level}",
                region=key,
            )
    return key


def collect(dataset: str, upper: str) -> list[Work]:
    """Read a parent once for its children, stage what was read, and cut the children into batches."""
    from federation import runlog

    with opened() as federation:
        try:
            reading = federation.collect(dataset, upper)
        except FedsyncError as error:
            federation.fail_children(dataset, upper, error)
            raise
        folder = federation.stage(reading)
        may_run, skipped = federation.children(dataset, upper)
        children = [link.lower for link in may_run]
    for link, why in skipped.items():
        runlog.write(log, runlog.Line(logging.INFO, f"{link}: {why}", {"dataset": dataset, "link": link}))
    read = {
        "rows": reading.rows.num_rows,
        "unreadable": reading.rejects.num_rows,
        "outside": reading.outside.num_rows,
    }
    told = f"读取 read {upper}: {read['rows']} 条 rows, {read['unreadable']} 无法读取 unreadable, {read['outside']} 属地之外 outside its jurisdiction"
    runlog.write(log, runlog.Line(logging.INFO, told, {"dataset": dataset, "upper": upper, **read}))
    return [
        Work(
            folder=folder,
            upper=upper,
            number=number,
            lowers=[child.code for child in batch],
            label=label([child.name for child in batch]),
        )
        for number, batch in enumerate(batches(children, BATCH))
    ]


def sync(dataset: str, work: Work) -> None:
    """Sync a parent with one batch of its children. All are tried; what they did is left beside the staged reading.

    Raises afterwards if some failed: an error worth a retry if there is one.
    """
    from federation import runlog

    with opened() as federation:
        staging = federation.services.staging
        # A run that was cleared after its end has no reading any more: each link then reads the parent itself.
        reading = staging.load(work["folder"])
        level = federation.config.tree[work["lowers"][0]].level
        batch = stats.Batch(dataset, level)
        outcomes, errors = federation.sync_children(dataset, work["upper"], work["lowers"], reading, progress=batch)
        lineage.send(federation, dataset, outcomes)
    for outcome in outcomes:
        runlog.write(log, runlog.link_line(outcome, errors.get(outcome.link_id)))
    below = [outcome.lower for outcome in outcomes if outcome.news_below]
    above = any(outcome.news_above for outcome in outcomes)
    staging.remember(work["folder"], work["number"], {"below": below, "above": above})
    runlog.write(log, runlog.batch_line(dataset, work["upper"], outcomes))
    batch.send(errors.values())
    if errors:
        raise worst(list(errors.values()))


def staging() -> Staging:
    """What is staged for this federation's runs."""
    from federation.runtime import open_staging

    return open_staging(declaration(), connection_uri=connection_uri)


def news_of(work: list[Work]) -> tuple[list[str], bool]:
    """What all batches of a run left behind: children that hold something new, and whether the parent does."""
    found = staging().news(work[0]["folder"]) if work else {"below": [], "above": False}
    return found["below"], found["above"]


def tidy(work: list[Work]) -> None:
    """Throw away the staged records, which may be personal; the news beside them are region codes and stay for a day."""
    if work:
        staging().tidy(work[0]["folder"])


def sweep(dataset: str) -> dict[str, list[str]]:
    """Probe every node cheaply: asset name → codes of the regions to wake."""
    from federation import runlog

    with opened() as federation:
        federation.services.staging.purge()
        news = federation.sweep(dataset)
    for code, reason in news.unreachable.items():
        told = f"连不上 cannot reach {code}: {reason}"
        runlog.write(log, runlog.Line(logging.WARNING, told, {"dataset": dataset, "region": code}))
    if news.skipped:
        told = f"跳过 skipped {len(news.skipped)} 链路 link(s): 暂停或等待新上级 paused or waiting for a new parent; fedsync status"
        runlog.write(log, runlog.Line(logging.INFO, told, {"dataset": dataset, "skipped": len(news.skipped)}))
    wake = {f"{level}__from_above": codes for level, codes in news.parents.items() if codes}
    for name, codes in wake.items():
        told = f"{name}: 唤醒 waking {len(codes)} 区划 region(s)"
        runlog.write(log, runlog.Line(logging.INFO, told, {"dataset": dataset, "asset": name, "regions": len(codes)}))
    return wake


def uploads(dataset: str, regions: list[str]) -> dict[str, list[str]]:
    """Ask nodes whose file was saved whether they hold news: asset name → codes of the regions to wake."""
    from federation.uploads import news_at

    wake: dict[str, list[str]] = {}
    with opened() as federation:
        contract = federation.config.dataset(dataset)
        known = [code for code in regions if code in federation.config.tree]
        news = news_at(federation, dataset, known)
        for code in news:
            level = federation.config.tree[code].level
            if contract.upper_of(level) is not None:
                wake.setdefault(f"{level}__from_below", []).append(code)
            if contract.lower_of(level) is not None:
                wake.setdefault(f"{level}__from_above", []).append(code)
    log.info("%d file(s) saved, %d with news: %s", len(regions), len(news), ", ".join(news[:20]) or "-")
    return wake


def replay(item: str, actor: str) -> None:
    """Ask that a quarantined record be read and judged anew. Raises FedsyncError if `item` names none (empty would be any), or one that no run will read."""
    from federation import quarantined

    if not item.strip():
        raise FedsyncError("no quarantine id was given", "未填写隔离编号", todo="fedsync quarantine list")
    with opened() as federation:
        quarantined.replay(federation.services, item, actor)


def release(link: str, actor: str) -> None:
    """Let a held link pass its guards once."""
    with opened() as federation:
        federation.services.links.release(link, actor)
