"""Showing people anew what stands, after something of it was erased."""

from __future__ import annotations

from collections.abc import Sequence

from federation.errors import FedsyncError
from federation.federation import Federation


def show_anew(federation: Federation, dataset: str, regions: Sequence[str]) -> dict[str, str]:
    """Show the people of these nodes their returns and corrections as they stand now; nodes that could not be told → why."""
    services, contract, failed = federation.services, federation.config.dataset(dataset), dict[str, str]()
    paused = services.paused()
    for code in regions:
        region = federation.config.tree.regions.get(code)
        if region is None or region.level not in contract.levels:
            continue
        pause = paused.node(dataset, code)
        if pause is not None:
            failed[code] = str(pause)
            continue
        try:
            with federation.node(dataset, code) as connector:
                services.return_desk(contract, region).show(connector, changed=True)
                if connector.capabilities.corrections:
                    connector.show_corrections(services.desk(contract, region).shown())
        except FedsyncError as error:
            failed[code] = str(error)
    return failed
