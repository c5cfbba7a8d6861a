"""Intents: what a link run is about to write, noted before it writes; and finishing what a run that died had begun.

Between a write and its settlement a dead run leaves ends that agree on more than the baseline says. Without the intent, the next run
would take the engine's own delivery for somebody's edit, or a delivered record for a new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from connectors.base import Connector
from federation.canonical import fingerprints
from federation.config import Link
from federation.contract import Group
from federation.ledger.baselines import Manifest
from federation.ledger.links import Lease, LinkState
from federation.merge import Advance, Plan
from federation.merge_sql import DOWN, UP
from federation.reading import KEY, read_keys
from federation.services import Services
from federation.tombs import removals_schema, stones_of
from federation.vector import tables


def intent_of(plan: Plan, change: Advance) -> pa.Table:
    """What is about to be written: key, fp_<group> as it will be agreed on; `seeded`, `removed` (`lower`, `upper` or ""): the end
    that gets or loses the whole row; `kind` (`deleted`, `moved` or "") and nothing for keys where both ends agree already."""
    names = [group.name for group in plan.groups]
    if not plan.decisions.num_rows:
        return pa.table({"key": pa.array([], pa.string())})
    moves = " OR ".join(f"move_{name} IN ({DOWN}, {UP})" for name in names)
    fps = ", ".join(f"c.fp_{name}" for name in names)
    gone = pa.table({"key": change.removed})
    with tables(d=plan.decisions, c=change.upserts, gone=gone) as engine:
        return engine.sql(
            f"""
            SELECT d.key, {fps},
                CASE action WHEN 'seed_down' THEN 'lower' WHEN 'seed_up' THEN 'upper' ELSE '' END AS seeded,
                CASE WHEN gone.key IS NULL THEN '' WHEN action IN ('delete_down', 'retract') THEN 'lower'
                     WHEN action = 'delete_up' THEN 'upper' ELSE '' END AS removed,
                CASE WHEN gone.key IS NULL THEN '' WHEN action = 'retract' OR moved THEN 'moved' ELSE 'deleted' END AS kind
            FROM d LEFT JOIN c ON c.key = d.key LEFT JOIN gone ON gone.key = d.key
            WHERE (c.key IS NOT NULL AND (action IN ('seed_down', 'seed_up') OR {moves}))
               OR (gone.key IS NOT NULL AND action <> 'forget')
            """
        ).to_arrow_table()


def recovered(
    services: Services, link: Link, lease: Lease, state: LinkState, upper: Connector, lower: Connector
) -> LinkState:
    """Settle what a dead run's intent did bring about, and forget the intent; the rest is merged anew.

    A delivered group counts as agreed if the end that was to receive it holds it; a row that was to appear or vanish, if it did.
    """
    assert state.intent is not None
    intent = services.baselines.read_intent(state.intent)
    manifest = Manifest.parse(state.baseline)
    groups = link.contract.groups
    names = [group.name for group in groups]
    if not {f"fp_{name}" for name in names} <= set(intent.column_names):
        intent = intent.slice(
            0, 0
        )  # of another contract: nobody can tell what it meant, and the next run compares everything
    meanings = services.meanings(link.contract)
    keys = intent.column("key").to_pylist()
    change, removals = Advance(intent.select(["key"]), pa.array([], pa.string())), removals_schema(names).empty_table()
    if keys:
        ends = {"u": _held(upper, keys, groups, services), "l": _held(lower, keys, groups, services)}
        stones = services.tombstones.owed(link.id, link.upper.code)
        agreed = services.baselines.pick(manifest, meanings, intent.column("key").combine_chunks())
        change = _arrived(intent, agreed, ends, groups)
        places = {stone.key: stone.destination for stone in stones}
        removals = _removals(intent, change, agreed, ends["u"], places, names)
    now = services.ledger.clock()
    if change.upserts.num_rows or len(change.removed):
        manifest = services.baselines.write(link.id, manifest, meanings, change, int(now.timestamp() * 1000))
    stones = stones_of(services, link, removals, now)
    with services.ledger.transaction() as connection:
        services.links.settle(connection, lease, baseline=manifest.dump(), intent=None)
        services.tombstones.place(connection, stones)
        for seeded, region in (("lower", link.lower), ("upper", link.upper)):
            back = _seeded(intent, change, seeded)
            services.tombstones.returned(connection, link.contract.dataset.name, region.code, back)
        services.ledger.audit(connection, "engine", "link.recover", link.id, f"{intent.num_rows}")
    return replace(state, baseline=manifest.dump(), intent=None)


def _held(connector: Connector, keys: list[str], groups: tuple[Group, ...], services: Services) -> pa.Table:
    reading = read_keys(connector, keys)
    rows = pa.concat_tables([reading.rows, reading.outside]).drop_columns([KEY])
    dataset, fields = connector.node.dataset, {group.name: group.fields for group in groups}
    hashed = fingerprints(rows, dataset, fields, services.keyring.fingerprint)
    return hashed.append_column("place", rows.column(dataset.jurisdiction))


def _arrived(intent: pa.Table, agreed: pa.Table, ends: dict[str, pa.Table], groups: tuple[Group, ...]) -> Advance:
    def settled(group: Group) -> str:
        g = group.name
        receiver = {"descending": "l", "ascending": "u"}.get(group.direction)
        there = f"{receiver}.fp_{g} = i.fp_{g}" if receiver else f"l.fp_{g} = i.fp_{g} AND u.fp_{g} = i.fp_{g}"
        return f"CASE WHEN i.seeded <> '' OR ({there}) THEN i.fp_{g} ELSE b.fp_{g} END AS fp_{g}"

    appeared = "(i.seeded = 'lower' AND l.key IS NOT NULL) OR (i.seeded = 'upper' AND u.key IS NOT NULL)"
    with tables(i=intent, b=agreed, **ends) as engine:
        joined = "FROM i LEFT JOIN b ON b.key = i.key LEFT JOIN u ON u.key = i.key LEFT JOIN l ON l.key = i.key"
        upserts = engine.sql(
            f"""SELECT i.key, {", ".join(settled(group) for group in groups)} {joined}
                WHERE i.removed = '' AND (({appeared}) OR (i.seeded = '' AND b.key IS NOT NULL))"""
        ).to_arrow_table()
        removed = engine.sql(
            f"""SELECT i.key {joined}
                WHERE (i.removed = 'lower' AND l.key IS NULL) OR (i.removed = 'upper' AND u.key IS NULL)"""
        ).to_arrow_table()
    return Advance(upserts, removed.column("key").combine_chunks())


def _removals(
    intent: pa.Table,
    change: Advance,
    agreed: pa.Table,
    upper: pa.Table,
    places: Mapping[str, str | None],
    names: list[str],
) -> pa.Table:
    """What a dead run did remove (`tombs.removals_schema`). `places`: where a record moved to, as told from beyond."""
    told = pa.table({"key": pa.array(places, pa.string()), "place": pa.array(places.values(), pa.string())})
    with tables(i=intent, gone=pa.table({"key": change.removed}), b=agreed, u=upper, t=told) as engine:
        return (
            engine.sql(
                f"""SELECT i.key, i.removed, i.kind, coalesce(u.place, t.place) AS destination,
                        i.removed = 'lower' AND i.kind = 'moved' AND u.key IS NOT NULL AS left,
                        {", ".join(f"b.fp_{name}" for name in names)}
                    FROM i JOIN gone ON gone.key = i.key LEFT JOIN b ON b.key = i.key LEFT JOIN u ON u.key = i.key
                        LEFT JOIN t ON t.key = i.key"""
            )
            .to_arrow_table()
            .cast(removals_schema(names))
        )


def _seeded(intent: pa.Table, change: Advance, end: str) -> list[str]:
    """Keys that a dead run did bring to an end."""
    if not intent.num_rows:
        return []
    settled = change.upserts.column("key").combine_chunks()
    here = pc.and_(pc.equal(intent.column("seeded"), end), pc.is_in(intent.column("key"), settled))
    found: list[str] = intent.filter(here).column("key").to_pylist()
    return found
