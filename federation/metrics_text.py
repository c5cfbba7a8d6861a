"""Samples as text: Prometheus's exposition format, and JSON."""

from __future__ import annotations

import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from federation.metrics import CATALOGUE, Sample
from federation.newfile import not_writable

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily


def as_prometheus(samples: Sequence[Sample]) -> str:
    """The exposition format 0.0.4, as the node exporter's textfile collector and a push gateway take it. All are gauges."""
    from prometheus_client import CollectorRegistry, generate_latest

    class Taken:
        def collect(self) -> Iterator[GaugeMetricFamily]:
            yield from _families(samples)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Taken())
    return generate_latest(registry).decode()


def _families(samples: Sequence[Sample]) -> Iterator[GaugeMetricFamily]:
    from prometheus_client.core import GaugeMetricFamily

    found: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        found[sample.name].append(sample)
    for name, metric in CATALOGUE.items():
        if name in found:
            family = GaugeMetricFamily(name, f"{metric.zh} / {metric.en}", labels=metric.tags)
            for sample in found[name]:
                family.add_metric(sample.tags, sample.value)
            yield family


def as_json(samples: Sequence[Sample]) -> str:
    """A list of {name, unit, tags, value}."""
    told = [{"name": s.name, "unit": CATALOGUE[s.name].unit, "tags": s.named, "value": s.value} for s in samples]
    return json.dumps(told, ensure_ascii=False)


def write_whole(path: Path, text: str) -> None:
    """Replace a file at once: who reads it meanwhile sees the old one or the new one. Raises FedsyncError if it cannot be written."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.write(text)
            Path(name).chmod(0o644)  # the collector reads it as another user
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as cause:
        raise not_writable(path, cause) from cause
