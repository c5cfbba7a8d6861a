"""Guards: what must not happen without a person looking at it. A guard stops one link; the others go on."""

from __future__ import annotations

from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from federation.config import Link
from federation.contract import Group
from federation.delivery import Judged
from federation.errors import LinkHeld
from federation.gate import Gate
from federation.ledger.links import LinkState
from federation.reading import Reading
from federation.regions import Region
from federation.sides import End
from federation.vector import query

FEW = 5
"""Losing fewer rows than this never looks sudden, unless nothing is left."""
MANY = 20
"""Changing fewer rows than this is never a mass change."""


def check_clock(link: Link, state: LinkState, now: datetime) -> None:
    """Raise LinkHeld if this machine's clock runs behind the link's own past by more than the contract tolerates."""
    behind = state.last_ok - now if state.last_ok is not None else timedelta()
    if not state.released and behind > timedelta(minutes=link.contract.dataset.clock_tolerance):
        raise LinkHeld(
            f"this machine's clock says {now:%Y-%m-%d %H:%M}, but the link settled at {state.last_ok:%Y-%m-%d %H:%M} already",
            "本机时钟早于上次运行时间",
            todo=f"校准时钟后放行 / set the clock, then: fedsync link release {link.id}",
        )


def check_schema(link: Link, readings: tuple[Reading, Reading], ends: tuple[End, End], baseline: pa.Table) -> None:
    """Raise LinkHeld if a system has no column any more for a field that travels on this link and that was agreed on.

    A column that was empty for all is not missed: some systems leave out what is empty, and nothing that was agreed on changed.
    """
    for reading, end, region in zip(readings, ends, (link.upper, link.lower)):
        missing = [name for name in link.contract.fields if name in reading.missing]
        lost = [name for name in missing if _counts(end, baseline, _groups(link, name))[1]]
        if lost:
            labels = "、".join(link.contract.dataset.fields[name].label for name in lost)
            raise LinkHeld(
                f"{region} has no column any more for: {', '.join(lost)}",
                f"{region} 缺少列：{labels}",
                todo=f"补回该列，或放行（其值视为空） / bring it back, or release (its values count as empty): fedsync link release {link.id}",
                region=str(region),
            )


def check_guards(link: Link, ends: tuple[End, End], baseline: pa.Table, agreed: int, now: datetime) -> None:
    """Raise LinkHeld if an end lost or changed a larger share of what was agreed on than the contract allows, or if its records
    come from the future. `baseline`: of what the ends speak of; `agreed`: how many records were agreed on in all.

    Only what an end's own people did counts: what it passes on for a link beyond has passed the guards there.
    """
    for side, end, other, region in (("upper", *ends, link.upper), ("lower", ends[1], ends[0], link.lower)):
        if agreed:
            relayed = {group.name for group in link.contract.relayed(side)}  # type: ignore[arg-type]
            own = [group for group in link.contract.groups if group.name not in relayed]
            gone, changed = _counts(end, baseline, own, other)
            _check_loss(link, region, gone, agreed)
            _check_change(link, region, changed, agreed)
        _check_future(link, region, end, now)


def _groups(link: Link, field: str) -> list[Group]:
    return [group for group in link.contract.groups if field in group.fields]


def _counts(end: End, baseline: pa.Table, own: list[Group], other: End | None = None) -> tuple[int, int]:
    """How many records an end lost, and how many it changed otherwise than the `other` end did: what both hold already moves nothing."""
    here = "s.fp_{0} <> b.fp_{0}" + (" AND s.fp_{0} IS DISTINCT FROM o.fp_{0}" if other is not None else "")
    differs = " OR ".join(f"({here.format(group.name)})" for group in own) or "false"
    (found,) = query(
        f"""SELECT count(*) FILTER (WHERE s.state = 'gone' AND NOT s.passed_on) AS gone,
                   count(*) FILTER (WHERE s.state = 'have' AND ({differs})) AS changed
            FROM s JOIN b ON b.key = s.key LEFT JOIN o ON o.key = s.key""",
        s=end.side.rows,
        b=baseline,
        o=(other or end).side.rows,
    ).to_pylist()
    return int(found["gone"]), int(found["changed"])


def _check_loss(link: Link, region: Region, gone: int, agreed: int) -> None:
    emptied = gone == agreed and gone > 1
    if emptied or (gone >= FEW and gone > link.contract.dataset.max_loss * agreed):
        raise LinkHeld(
            f"{region} lost {gone} of {agreed} records at once",
            f"{region} 一次少了 {agreed} 条中的 {gone} 条",
            todo=f"核对数据后放行 / look at its data, then: fedsync link release {link.id}",
            region=str(region),
        )


def _check_change(link: Link, region: Region, changed: int, agreed: int) -> None:
    if changed >= MANY and changed > link.contract.dataset.max_change * agreed:
        raise LinkHeld(
            f"{region} changed {changed} of {agreed} records at once",
            f"{region} 一次改动了 {agreed} 条中的 {changed} 条",
            todo=f"核对数据后放行 / look at its data, then: fedsync link release {link.id}",
            region=str(region),
        )


def _check_future(link: Link, region: Region, end: End, now: datetime) -> None:
    dataset = link.contract.dataset
    if dataset.version is None or dataset.fields[dataset.version].type != "timestamp":
        return
    limit = int((now + timedelta(minutes=dataset.clock_tolerance)).timestamp() * 1_000_000)
    ahead = pc.sum(pc.greater(end.side.rows.column("version"), limit)).as_py() or 0
    if ahead:
        label = dataset.fields[dataset.version].label
        raise LinkHeld(
            f"{ahead} record(s) of {region} carry a {dataset.version} in the future",
            f"{region} 有 {ahead} 条记录的“{label}”晚于当前时间",
            todo=f"校准该系统时钟并改正，或放行 / set that system's clock and mend them, or: fedsync link release {link.id}",
            region=str(region),
        )


def check_share(link: Link, gate: Gate | None, down: Judged, up: Judged) -> None:
    """Raise LinkHeld if a larger share of the moving records failed than the suite allows."""
    if gate is None:
        return
    for judged, region in ((down, link.upper), (up, link.lower)):
        if judged.offered >= gate.min_records and judged.failing_share > gate.max_failing_share:
            raise LinkHeld(
                f"{len(judged.blocked)} of {judged.offered} records from {region} fail the gate",
                f"来自 {region} 的 {judged.offered} 条中有 {len(judged.blocked)} 条不合格",
                todo=f"检查来源数据，或放行 / look at the source, or: fedsync link release {link.id}",
                region=str(region),
            )
