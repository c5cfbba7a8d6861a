"""Handover (移交): what the engine hosted of a node goes into the system that the node has by now, before the next sync.

`source` is a hosted part: a whole node, or the companion that kept some fields. `target` is the system, without its level's guard. Each
step may be repeated: a record that the system has already is compared, what it lacks is filled in, and only what the system is
proven to hold is taken out of the hosted part. A handover that dies anywhere is finished by the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from connectors.base import Applied, Batch, Changes, Connector, Node, digest_of, no_keys
from federation.canonical import key_column
from federation.errors import Permanent, SchemaMismatch
from federation.failpoints import reached
from federation.regions import Region

ROWS_AT_ONCE = 10_000
_NAMED = 5
"""So many keys are named in an error."""

Existing = Literal["refuse", "keep", "overwrite"]
"""What becomes of a value that the system holds and that differs from the hosted one."""


class HostedPart(Protocol):
    """What the engine keeps of one node: `connectors.hosted.HostedConnector`."""

    node: Node

    @property
    def whole(self) -> bool:
        """Whether it keeps records, and not just the fields that a system lacks."""

    def prepare(self) -> tuple[str, ...]:
        """See `connectors.base.Connector`."""

    def changes(self, since: str | None, *, sweep: bool = True) -> Changes:
        """See `connectors.base.Connector`."""

    def fetch(self, keys: pa.Table) -> Changes:
        """See `connectors.base.Connector`."""

    def apply(self, batch: Batch) -> Applied:
        """See `connectors.base.Connector`."""

    def edit(self, raw: pa.Table) -> pa.Table:
        """Write rows that people typed; the rejects, with reasons."""

    def remove(self, keys: pa.Table) -> None:
        """Delete records by key."""

    def returned(self) -> list[dict[str, Any]]:
        """The returns that people are to mend, the oldest first."""

    def rekey(self) -> int:
        """Seal with the newest key what an older one sealed; how many records that were."""


@dataclass(frozen=True)
class HandedOver:
    """What one part came to. `rows`: records that the system holds now; `written`: how many of them were written by this handover.

    `kept`: records where the system's own values stand against the hosted ones; `dropped`: values of fields whose record the
    system does not have; `digest`: of what was handed over, the same at both ends.
    """

    rows: int
    written: int
    kept: int
    dropped: int
    digest: str


def not_handed_over(dataset: str, region: Region) -> Permanent:
    """The error for a sync of a node whose records the engine still hosts."""
    return Permanent(
        f"{region} has a system now, but records (or fields) that the engine hosted were not handed over to it",
        f"{region} 已启用业务系统，但引擎托管的数据尚未移交",
        todo=f"先移交 / hand them over first: fedsync hosted handover {dataset} {region.code}",
        dataset=dataset,
        region=str(region),
    )


def hand_over(
    source: HostedPart, target: Connector, existing: Existing, verified: Callable[[HandedOver], None]
) -> HandedOver:
    """Copy a hosted part into the system, prove it, then empty the part.

    `verified` is called once the system is proven to hold everything, before anything is taken out of the part. Raises Permanent
    if the system cannot be written, holds other values (`existing="refuse"`), or does not hold what was written; Conflict if
    somebody edited either meanwhile: then simply again.
    """
    if not target.capabilities.writes:
        raise Permanent(
            "the system is read-only", "该系统只读", todo="检查声明 / look at its declaration", **_place(target)
        )
    given = source.changes(None)
    _refuse_faulty(
        source, given, "hosted records cannot be read", "部分托管记录无法读取", "fedsync hosted put | remove"
    )
    rows = given.rows.select([name for name in given.rows.column_names if _carries(source, given.rows, name)])
    found = target.changes(None)
    wanted, there = _wanted(source, rows, found)
    _refuse_rejected(target, wanted, found)
    resolved, kept = _resolved(target, wanted, there, existing)
    written = _write(target, _differing(target, resolved, there), found.cursor)
    reached("handover.written")
    digest = _proven(target, resolved)
    handed = HandedOver(resolved.num_rows, written, kept, rows.num_rows - wanted.num_rows, digest)
    verified(handed)
    reached("handover.verified")
    _emptied(source, given)
    return handed


def _place(connector: Connector | HostedPart) -> dict[str, str]:
    node = connector.node
    return {"dataset": node.dataset.name, "region": str(node.region), "system": node.system}


def _keys(connector: Connector | HostedPart) -> list[str]:
    return list(connector.node.dataset.key)


def _carries(source: HostedPart, rows: pa.Table, name: str) -> bool:
    """Of a companion, only fields that it kept values of: the system may have filled the others long since."""
    return source.whole or name in _keys(source) or rows.column(name).null_count < rows.num_rows


def _listed(connector: Connector | HostedPart, rows: pa.Table) -> str:
    keys = key_column(rows.slice(0, _NAMED), connector.node.dataset).to_pylist()
    return ", ".join(str(key) for key in keys) + (" …" if rows.num_rows > _NAMED else "")


def _refuse_faulty(connector: HostedPart, found: Changes, en: str, zh: str, todo: str) -> None:
    if found.rejects.num_rows:
        raise Permanent(
            f"{found.rejects.num_rows} {en}: {found.rejects.column('reason_en')[0]}",
            f"{zh}（{found.rejects.num_rows} 条）：{found.rejects.column('reason_zh')[0]}",
            todo=todo,
            **_place(connector),
            key=_listed(connector, found.rejects),
        )


def _wanted(source: HostedPart, rows: pa.Table, found: Changes) -> tuple[pa.Table, pa.Table]:
    """What is to be handed over, and what of it the system has already; in the same fields."""
    keys = _keys(source)
    there = found.rows.select(rows.column_names).join(rows.select(keys), keys, join_type="left semi")
    there = there.select(rows.column_names).cast(rows.schema)
    if source.whole:
        return rows, there
    known = pa.concat_tables([found.rows.select(keys), found.rejects.select(keys)])
    mine = rows.join(known, keys, join_type="left semi").select(rows.column_names).cast(rows.schema)
    valued = pa.array([False] * mine.num_rows, pa.bool_())
    for name in (name for name in mine.column_names if name not in keys):
        valued = pc.or_(valued, pc.is_valid(mine.column(name)).combine_chunks())
    return mine.filter(valued), there


def _refuse_rejected(target: Connector, wanted: pa.Table, found: Changes) -> None:
    """A record that stands in the system and cannot be read there can be neither compared nor proven."""
    keys = _keys(target)
    bad = found.rejects.join(wanted.select(keys), keys, join_type="left semi")
    if bad.num_rows:
        raise Permanent(
            f"{bad.num_rows} of the records stand in the system already and cannot be read there",
            f"其中 {bad.num_rows} 条已在该系统中且无法读取",
            todo="先在该系统中改正 / mend them there first",
            **_place(target),
            key=_listed(target, bad),
        )
    lost = [
        name
        for name in found.missing
        if name in wanted.column_names and wanted.column(name).null_count < wanted.num_rows
    ]
    if lost:
        raise SchemaMismatch(
            f"the system has no column for {', '.join(lost)}",
            f"该系统缺少列 {', '.join(lost)}",
            todo="补上该列，或列入 hosted / add the column, or list the field under `hosted`",
            **_place(target),
        )


def _resolved(target: Connector, wanted: pa.Table, there: pa.Table, existing: Existing) -> tuple[pa.Table, int]:
    """The rows as the system is to hold them, and how many records keep a value of its own against the hosted one."""
    keys, names = _keys(target), wanted.column_names
    others = [name for name in names if name not in keys]
    joined = wanted.join(there, keys, join_type="left outer", right_suffix="__there")
    differs = pa.array([False] * joined.num_rows, pa.bool_())
    columns = {name: joined.column(name) for name in keys}
    for name in others:
        ours, theirs = joined.column(name), joined.column(f"{name}__there")
        clash = pc.fill_null(pc.not_equal(ours, theirs), False)
        differs = pc.or_(differs, clash.combine_chunks())
        columns[name] = pc.coalesce(ours, theirs) if existing == "overwrite" else pc.coalesce(theirs, ours)
    clashing = joined.filter(differs)
    if clashing.num_rows and existing == "refuse":
        raise Permanent(
            f"{clashing.num_rows} of the records stand in the system already with other values; nothing was written",
            f"其中 {clashing.num_rows} 条已在该系统中且取值不同；未写入任何内容",
            todo="--existing keep 保留系统中的值，--existing overwrite 以托管值为准 / "
            "--existing keep leaves the system's values, --existing overwrite puts the hosted ones in their place",
            **_place(target),
            key=_listed(target, clashing),
        )
    kept = clashing.num_rows if existing == "keep" else 0
    return pa.table(columns).select(names).cast(wanted.schema), kept


def _differing(target: Connector, resolved: pa.Table, there: pa.Table) -> pa.Table:
    """The rows that the system does not hold like this yet."""
    keys, names = _keys(target), resolved.column_names
    marked = there.append_column("_there", pa.array([True] * there.num_rows, pa.bool_()))
    joined = resolved.join(marked, keys, join_type="left outer", right_suffix="__there")
    same = pc.is_valid(joined.column("_there"))
    for name in (name for name in names if name not in keys):
        ours, theirs = joined.column(name), joined.column(f"{name}__there")
        equal = pc.or_(pc.fill_null(pc.equal(ours, theirs), False), pc.and_(pc.is_null(ours), pc.is_null(theirs)))
        same = pc.and_(same, equal)
    return joined.filter(pc.invert(same)).select(names).cast(resolved.schema)


def _write(target: Connector, rows: pa.Table, cursor: str | None) -> int:
    """How many rows were written."""
    cursor = cursor if target.capabilities.conditional else None
    for start in range(0, rows.num_rows, ROWS_AT_ONCE):
        applied = target.apply(Batch((rows.slice(start, ROWS_AT_ONCE),), no_keys(target.node), cursor))
        cursor = applied.cursor if target.capabilities.conditional else None
    return int(rows.num_rows)


def _proven(target: Connector, resolved: pa.Table) -> str:
    """Read the rows back. Raises Permanent unless they are, value for value, what was to be written."""
    keys = _keys(target)
    held = target.changes(None).rows.select(resolved.column_names)
    held = held.join(resolved.select(keys), keys, join_type="left semi").select(resolved.column_names)
    wanted, found = (digest_of(target.node, rows.cast(resolved.schema)) for rows in (resolved, held))
    if wanted != found:
        raise Permanent(
            f"the system does not hold what was handed to it: {found.rows} of {wanted.rows} records, or other values",
            f"该系统所存与移交内容不一致（{found.rows}/{wanted.rows} 条，或取值不同）",
            todo="检查列类型、长度与触发器，再次移交 / look at its column types, lengths and triggers, then hand over again",
            **_place(target),
        )
    return wanted.value


def _emptied(source: HostedPart, given: Changes) -> None:
    """Take out what was handed over, unless somebody edited it since it was read."""
    keys = given.rows.select(_keys(source))
    if source.whole:
        source.apply(Batch((), keys, given.cursor))
        return
    nulls = keys
    for field in source.node.schema:
        if field.name not in keys.column_names:
            nulls = nulls.append_column(field, pa.nulls(keys.num_rows, field.type))
    source.apply(Batch((nulls,), no_keys(source.node), given.cursor))
