"""OpenLineage: which tables a batch of links joins, column by column, sent with the running task by Airflow's own provider.

Off unless the provider is installed and configured. One event for a batch, whatever its number of records.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from federation.federation import Federation
    from federation.lineage import End, Flow
    from federation.outcome import Outcome

log = logging.getLogger("fedsync")


def active() -> bool:
    """Whether Airflow sends lineage anywhere."""
    try:
        from airflow.providers.openlineage import conf
    except ImportError:
        return False
    return not conf.is_disabled()


def send(federation: Federation, dataset: str, outcomes: Iterable[Outcome]) -> None:
    """Send what the links that ran joined. Trouble with lineage is logged by the provider, and never fails the batch."""
    if not active():
        return
    from airflow.providers.openlineage.api import emit_dataset_lineage

    from federation.lineage import flows, within
    from federation.secrets import resolve
    from fedsync_airflow.tasks import connection_uri

    config = federation.config
    found, left_out = within(
        flows(config, config.link(dataset, one.lower), one, lambda value: resolve(value, connection_uri))
        for one in outcomes
        if one.error is None
    )
    if left_out:
        log.warning("血缘事件过大，略去 %d 条链路 / lineage is too large, %d link(s) left out", left_out, left_out)
    if found:
        emit_dataset_lineage(inputs=_inputs(found), outputs=_outputs(found))


def _inputs(found: list[Flow]) -> list[Any]:
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import input_statistics_input_dataset

    rows: dict[tuple[str, str], int] = {}
    ends = {}
    for flow in found:
        key = (flow.source.place.namespace, flow.source.place.name)
        ends[key] = flow.source
        rows[key] = rows.get(key, 0) + flow.rows
    return [
        InputDataset(
            namespace=namespace,
            name=name,
            facets={"schema": _schema(end)},
            inputFacets={
                "inputStatistics": input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
                    rowCount=rows[namespace, name]
                )
            },
        )
        for (namespace, name), end in ends.items()
    ]


def _outputs(found: list[Flow]) -> list[Any]:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset

    flows: dict[tuple[str, str], list[Flow]] = {}
    for flow in found:
        flows.setdefault((flow.target.place.namespace, flow.target.place.name), []).append(flow)
    return [
        OutputDataset(
            namespace=namespace,
            name=name,
            facets={"schema": _schema(mine[0].target), "columnLineage": _column_lineage(mine)},
            outputFacets={
                "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                    rowCount=sum(flow.written for flow in mine)
                )
            },
        )
        for (namespace, name), mine in flows.items()
    ]


def _schema(end: End) -> Any:
    from openlineage.client.facet_v2 import schema_dataset

    return schema_dataset.SchemaDatasetFacet(
        fields=[
            schema_dataset.SchemaDatasetFacetFields(name=column.name, type=column.type, description=column.label)
            for column in end.columns
        ]
    )


def _column_lineage(flows: list[Flow]) -> Any:
    from openlineage.client.facet_v2 import column_lineage_dataset as facet

    inputs: dict[str, list[Any]] = {}
    for flow in flows:
        for source, target, translated in flow.columns:
            how = facet.Transformation(
                type="DIRECT",
                subtype="TRANSFORMATION" if translated else "IDENTITY",
                description="",
                masking=False,
            )
            place = flow.source.place
            one = facet.InputField(namespace=place.namespace, name=place.name, field=source, transformations=[how])
            inputs.setdefault(target, []).append(one)
    return facet.ColumnLineageDatasetFacet(
        fields={name: facet.Fields(inputFields=found) for name, found in inputs.items()}
    )
