"""The federation's numbers, by the way that Airflow is configured to send its own: StatsD, Datadog or OpenTelemetry; else nowhere.

Names begin with `fedsync.` after Airflow's own prefix. Where a backend knows tags, dataset, level and so on are tags; plain StatsD
knows none, so there they are part of the name, in the order of the tags.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from federation.errors import FedsyncError
    from federation.outcome import Outcome


def wanted() -> bool:
    """Whether Airflow sends metrics anywhere."""
    from airflow.sdk.configuration import conf

    return any(conf.getboolean("metrics", name, fallback=False) for name in ("statsd_on", "otel_on", *_DATADOG))


_DATADOG = ("statsd_datadog_enabled",)


def _tagged() -> bool:
    """Whether tags reach the backend that Airflow chooses."""
    from airflow.sdk.configuration import conf

    def on(name: str) -> bool:
        return bool(conf.getboolean("metrics", name, fallback=False))

    return on(*_DATADOG) or not on("statsd_on") or on("statsd_influxdb_enabled")


def _named(name: str, tags: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The name to send under, and the tags to send along."""
    from airflow.sdk.observability.stats import normalize_name_for_stats

    if _tagged():
        return name, tags
    return ".".join([name, *(normalize_name_for_stats(value, log_warning=False) for value in tags.values())]), {}


class Batch:
    """What one batch of links did. Given to the engine as its `progress`; `send` it when the batch is over."""

    def __init__(self, dataset: str, level: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._tags = {"dataset": dataset, "level": level}
        self._clock = clock
        self._last = clock()
        self._rows: Counter[str] = Counter()
        self._runs: Counter[str] = Counter()
        self._took: list[float] = []

    def __call__(self, outcome: Outcome) -> None:
        """One link is over."""
        from federation.metrics import rows_of

        now = self._clock()
        self._took.append(now - self._last)
        self._last = now
        self._rows.update(rows_of(outcome.summary()))
        self._runs["ok"] += outcome.error is None and outcome.skipped is None

    def send(self, errors: Iterable[FedsyncError] = ()) -> None:
        """Counters of rows by fate and of runs by how they ended, and each link run's duration. `errors`: of the runs that failed."""
        from airflow.sdk.observability import stats

        from federation.runlog import ended

        if not wanted():
            return
        self._runs.update(ended(error) for error in errors)
        for kind, counted in (("rows", self._rows), ("runs", self._runs)):
            for word, number in counted.items():
                if number:
                    name, tags = _named(f"fedsync.{kind}.{word}", self._tags)
                    stats.incr(name, number, tags=tags)
        name, tags = _named("fedsync.link_run", self._tags)
        for seconds in self._took:
            stats.timing(name, seconds * 1000.0, tags=tags)


def report(dataset: str) -> None:
    """Gauges of how a dataset stands: what `fedsync metrics --worst 0` gives, under `fedsync.<name>`."""
    if not wanted():
        return
    from airflow.sdk.observability import stats

    from federation.report import samples
    from fedsync_airflow.tasks import opened

    with opened() as federation:
        found: list[Any] = samples(federation, dataset, 0)
    for sample in found:
        name, tags = _named(sample.name.replace("fedsync_", "fedsync.", 1), sample.named)
        stats.gauge(name, sample.value, tags=tags)
