"""Guards: what must not happen without a person looking at it. A guard stops one link; the others go on."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from federation.config import Link
from federation.delivery import Judged
from federation.errors import LinkHeld
from federation.gate import Gate
from federation.sides import End

FEW = 5
"""Losing fewer rows than this never looks sudden, unless nothing is left."""


def check_guards(link: Link, ends: tuple[End, End], agreed: pa.Array, *, released: bool) -> None:
    """Raise LinkHeld if an end lost a larger share of what was agreed on than the contract allows (`max_loss`)."""
    if released or not len(agreed):
        return
    for end, region in zip(ends, (link.upper, link.lower)):
        rows = end.side.rows
        gone = rows.filter(
            pc.and_(pc.equal(rows.column("state"), "gone"), pc.is_in(rows.column("key"), agreed))
        ).num_rows
        emptied = gone == len(agreed) and gone > 1
        if emptied or (gone >= FEW and gone > link.contract.dataset.max_loss * len(agreed)):
            raise LinkHeld(
                f"{region} lost {gone} of {len(agreed)} records at once",
                f"{region} 一次少了 {len(agreed)} 条中的 {gone} 条",
                todo=f"核对数据后放行 / look at its data, then: fedsync link release {link.id}",
                region=str(region),
            )


def check_share(link: Link, gate: Gate | None, down: Judged, up: Judged, *, released: bool) -> None:
    """Raise LinkHeld if a larger share of the moving records failed than the suite allows."""
    if released or gate is None:
        return
    for judged, region in ((down, link.upper), (up, link.lower)):
        if judged.offered >= gate.min_records and judged.failing_share > gate.max_failing_share:
            raise LinkHeld(
                f"{len(judged.blocked)} of {judged.offered} records from {region} fail the gate",
                f"来自 {region} 的 {judged.offered} 条中有 {len(judged.blocked)} 条不合格",
                todo=f"检查来源数据，或放行 / look at the source, or: fedsync link release {link.id}",
                region=str(region),
            )
