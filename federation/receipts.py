"""Receipts (回执) as people of a node see them: what arrived there and what others received from there, the newest first."""

from __future__ import annotations

from datetime import datetime, timedelta

import pyarrow as pa
from sqlalchemy import select

from connectors.base import RECEIPTS, Connector
from federation.contract import Dataset
from federation.errors import Transient
from federation.ledger.schema import receipt as table
from federation.ledger.store import rows
from federation.regions import Region
from federation.services import Services

LONGEST = 50
"""How many receipts people see."""

_NEWS = timedelta(days=1)
"""So long a receipt may still be unseen, because people had their document open whenever it was to be shown."""


def receipts_of(services: Services, dataset: Dataset, region: Region, longest: int = LONGEST) -> pa.Table:
    """The newest receipts of a node's links (`RECEIPTS`)."""
    tree = services.config.tree
    others = {link.id: link.lower for link in services.config.links(dataset.name, region.code)}
    above = dataset.upper_of(region.level)
    parent = tree.ancestor(region.code, above) if above is not None else None
    if parent is not None:
        others[f"{dataset.name}/{region.code}"] = parent
    query = select(table).where(table.c.link_id.in_(others)).order_by(table.c.receipt_id.desc()).limit(longest)
    with services.ledger.transaction() as connection:
        found = rows(connection, query)
    lines = [
        {
            "at": line["at"],
            "way": "arrived" if line["region"] == region.code else "sent",
            "other": str(others[line["link_id"]]),
            "written": line["written"],
            "deleted": line["deleted"],
            "run_id": line["run_id"],
        }
        for line in found
    ]
    return pa.Table.from_pylist(lines, RECEIPTS)


def show_receipts(services: Services, end: Connector, dataset: Dataset, region: Region, *, moved: bool) -> None:
    """Show a node's people its receipts after a run that moved something, or while there may be some that they did not see yet.

    People who have their document open are not disturbed, and the run does not fail for it: a later run shows them.
    """
    shown = receipts_of(services, dataset, region)
    if not shown.num_rows:
        return
    newest: datetime = shown.column("at")[0].as_py()
    if moved or services.ledger.clock() - newest < _NEWS:
        try:
            end.show_receipts(shown)
        except Transient:
            return
