"""Metrics through what Airflow is configured with: a real StatsD socket, and a real OTLP collector."""

from __future__ import annotations

import atexit
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from airflow.sdk._shared.observability.metrics.otel_logger import flush_otel_metrics
from airflow.sdk.observability import stats as airflow_stats
from airflow.sdk.observability.metrics.stats_utils import get_stats_factory
from fedsync_airflow import stats, tasks
from opentelemetry import metrics as otel
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from tests.airflow.declared import Hands
from tests.federations import CITY, E11
from tests.scripted_http import Request, Say, scripted

# Airflow leaves the socket of its StatsD client to the end of the process.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


@pytest.fixture
def initialise(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Initialises Airflow's metrics as a task's process does, with these settings."""

    def start(**settings: str) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(f"AIRFLOW__METRICS__{name.upper()}", value)
        airflow_stats.initialize(factory=get_stats_factory(), export_legacy_names=False)

    yield start
    monkeypatch.undo()
    airflow_stats.initialize(factory=get_stats_factory(), export_legacy_names=False)


@contextmanager
def statsd() -> Iterator[tuple[int, list[str]]]:
    """A UDP socket that StatsD's lines arrive at."""
    got: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.3)
        over = threading.Event()

        def listen() -> None:
            while True:
                try:
                    got.extend(server.recv(65536).decode().splitlines())
                except TimeoutError:
                    if over.is_set():  # and nothing is left to read
                        return

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield server.getsockname()[1], got
        finally:
            over.set()
            thread.join()


def one_hop(hands: Hands) -> None:
    hands.settle()
    hands.resident("R1", E11)
    hands.resident("R2", E11)
    for share in tasks.collect("resident", CITY):
        tasks.sync("resident", share)
    stats.report("resident")


def test_plain_statsd_gets_counters_durations_and_gauges_with_dataset_and_level_in_their_names(
    hands: Hands, initialise: Any
) -> None:
    with statsd() as (port, got):
        initialise(statsd_on="True", statsd_host="127.0.0.1", statsd_port=str(port), statsd_prefix="airflow")
        one_hop(hands)
    assert "airflow.fedsync.rows.descended.resident.district:2|c" in got
    assert "airflow.fedsync.runs.ok.resident.district:2|c" in got
    assert sum(line.startswith("airflow.fedsync.link_run.resident.district:") for line in got) == 2
    assert "airflow.fedsync.links.resident.community.ok:5.0|g" in got or (
        "airflow.fedsync.links.resident.community.ok:5|g" in got
    )
    assert any(line.startswith("airflow.fedsync.reach_ratio.resident.district.down:1") for line in got)


def test_statsd_with_tags_gets_them_as_tags(hands: Hands, initialise: Any) -> None:
    with statsd() as (port, got):
        initialise(statsd_on="True", statsd_host="127.0.0.1", statsd_port=str(port), statsd_influxdb_enabled="True")
        one_hop(hands)
    assert "airflow.fedsync.rows.descended,dataset=resident,level=district:2|c" in got


def test_an_otlp_collector_gets_the_same_with_attributes(
    hands: Hands, initialise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Request] = []

    def answer(request: Request) -> Say:
        asked.append(request)
        return Say(body=b"")

    with scripted(answer) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        initialise(otel_on="True")
        one_hop(hands)
        provider: Any = otel.get_meter_provider()
        provider.force_flush()
        provider.shutdown()
        atexit.unregister(flush_otel_metrics)  # a task's process ends after its flush, this one goes on
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for request in asked:
        message = ExportMetricsServiceRequest.FromString(request.content)
        for resource in message.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in (*metric.sum.data_points, *metric.gauge.data_points):
                        tags = {one.key: one.value.string_value for one in point.attributes}
                        found.setdefault(metric.name, []).append((tags, point.as_int or point.as_double))
    assert asked[0].path == "/v1/metrics"
    # Each export, the last one at the end, says how much it was so far.
    assert set(map(str, found["airflow.fedsync.rows.descended"])) == {
        str(({"dataset": "resident", "level": "district"}, 2))
    }
    assert ({"dataset": "resident", "level": "community", "state": "ok"}, 5) in found["airflow.fedsync.links"]
    assert ({"dataset": "resident"}, 24 * 3600) in found["airflow.fedsync.freshness_seconds"]


def test_where_airflow_sends_no_metrics_the_federation_is_not_even_opened(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEDSYNC_FEDERATION")
    assert not stats.wanted()
    stats.report("resident")
