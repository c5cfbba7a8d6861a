"""Intents: what a link run is about to write, noted before it writes; and finishing what a run that died had begun.

Between a write and its settlement a dead run leaves ends that agree on more than the baseline says. Without the intent, the next run
would take the engine's own delivery for somebody's edit, or a delivered record for a new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial, reduce

import pyarrow as pa
import pyarrow.compute as pc

from connectors.base import Connector
from federation.canonical import fingerprints
from federation.config import Link
from federation.contract import Group
from federation.ledger import receipts
from federation.ledger.baselines import Manifest
from federation.ledger.links import Lease, LinkState
from federation.merge import Advance, Plan
from federation.merge_sql import DOWN, UP
from federation.reading import KEY, read_keys
from federation.services import Services
from federation.tombs import removals_schema, stones_of
from federation.vector import query


def intent_of(plan: Plan, change: Advance) -> pa.Table:
    """What is about to be written: key, fp_<group> as it will be agreed on; `seeded`, `removed` (`lower`, `upper` or ""): the end
    that gets or loses the whole row; `kind` (`deleted`, `moved` or "") and nothing for keys where both ends agree already."""
    names = [group.name for group in plan.groups]
    if not plan.decisions.num_rows:
        return pa.table({"key": pa.array([], pa.string())})
    moves = " OR ".join(f"move_{name} IN ({DOWN}, {UP})" for name in names)
    fps = ", ".join(f"c.fp_{name}" for name in names)
    gone = pa.table({"key": change.removed})
    return query(
        f"""
            SELECT d.key, {fps},
                CASE action WHEN 'seed_down' THEN 'lower' WHEN 'seed_up' THEN 'upper' ELSE '' END AS seeded,
                CASE WHEN gone.key IS NULL THEN '' WHEN action IN ('delete_down', 'retract') THEN 'lower'
                     WHEN action = 'delete_up' THEN 'upper' ELSE '' END AS removed,
                CASE WHEN gone.key IS NULL THEN '' WHEN action = 'retract' OR moved THEN 'moved' ELSE 'deleted' END AS kind
            FROM d LEFT JOIN c ON c.key = d.key LEFT JOIN gone ON gone.key = d.key
            WHERE (c.key IS NOT NULL AND (action IN ('seed_down', 'seed_up') OR {moves}))
               OR (gone.key IS NOT NULL AND action <> 'forget')
            """,
        d=plan.decisions,
        c=change.upserts,
        gone=gone,
    )


def recovered(
    services: Services,
    link: Link,
    lease: Lease,
    state: LinkState,
    upper: Connector,
    lower: Connector,
    run_id: str,
    *,
    refused: bool,
) -> LinkState:
    """Settle what the intent of a run that did not get to its end did bring about, and forget it; the rest is merged anew. `run_id`: of
    who does so.

    A delivered group counts as agreed if the end that was to receive it holds it; a row that was to vanish, if it did; a row that
    was to appear, if it is there and, where an end `refused` the run's writes, just as it was to be: else it may be what they
    were refused for.
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
    agreed = services.baselines.pick(manifest, meanings, intent.column("key").combine_chunks())
    if keys:
        ends = {"u": _held(upper, keys, groups, services), "l": _held(lower, keys, groups, services)}
        stones = services.tombstones.owed(link.id, link.upper.code)
        change = _arrived(intent, agreed, ends, groups, refused)
        places = {stone.key: stone.destination for stone in stones}
        removals = _removals(intent, change, agreed, ends["u"], places, names)
    now = services.ledger.clock()
    moved = bool(change.upserts.num_rows or len(change.removed))
    if moved:
        manifest = services.baselines.write(link.id, manifest, meanings, change, receipts.milliseconds(now))
    stones = stones_of(services, link, removals, now)
    with services.ledger.transaction() as connection:
        last_moved = now if moved else state.last_moved
        services.links.settle(connection, lease, baseline=manifest.dump(), intent=None, last_moved=last_moved)
        if moved:
            for end, region in (("lower", link.lower), ("upper", link.upper)):
                what = receipts.brought(_brought(intent, change, agreed, groups, end), _vanished(intent, change, end))
                receipts.enter(connection, run_id, link.id, region.code, what, now)
        services.tombstones.place(connection, stones)
        for seeded, region in (("lower", link.lower), ("upper", link.upper)):
            back = partial(_among, _seeded(intent, change, seeded))
            services.tombstones.returned(connection, link.contract.dataset.name, region.code, back)
        services.ledger.audit(connection, "engine", "link.recover", link.id, f"{intent.num_rows}")
    return replace(state, baseline=manifest.dump(), intent=None, last_moved=last_moved)


def _held(connector: Connector, keys: list[str], groups: tuple[Group, ...], services: Services) -> pa.Table:
    reading = read_keys(connector, keys)
    rows = pa.concat_tables([reading.rows, reading.outside]).drop_columns([KEY])
    dataset, fields = connector.node.dataset, {group.name: group.fields for group in groups}
    hashed = fingerprints(rows, dataset, fields, services.keyring.fingerprint)
    return hashed.append_column("place", rows.column(dataset.jurisdiction))


def _arrived(
    intent: pa.Table, agreed: pa.Table, ends: dict[str, pa.Table], groups: tuple[Group, ...], whole: bool
) -> Advance:
    def settled(group: Group) -> str:
        g = group.name
        receiver = {"descending": "l", "ascending": "u"}.get(group.direction)
        there = f"{receiver}.fp_{g} = i.fp_{g}" if receiver else f"l.fp_{g} = i.fp_{g} AND u.fp_{g} = i.fp_{g}"
        return f"CASE WHEN i.seeded <> '' OR ({there}) THEN i.fp_{g} ELSE b.fp_{g} END AS fp_{g}"

    def seeded(end: str, place: str) -> str:
        same = " AND ".join(f"{end}.fp_{group.name} = i.fp_{group.name}" for group in groups) if whole else "true"
        return f"(i.seeded = '{place}' AND {end}.key IS NOT NULL AND {same})"

    appeared = f"{seeded('l', 'lower')} OR {seeded('u', 'upper')}"
    known = {"i": intent, "b": agreed, **ends}
    joined = "FROM i LEFT JOIN b ON b.key = i.key LEFT JOIN u ON u.key = i.key LEFT JOIN l ON l.key = i.key"
    upserts = query(
        f"""SELECT i.key, {", ".join(settled(group) for group in groups)} {joined}
            WHERE i.removed = '' AND (({appeared}) OR (i.seeded = '' AND b.key IS NOT NULL))""",
        **known,
    )
    removed = query(
        f"""SELECT i.key {joined}
            WHERE (i.removed = 'lower' AND l.key IS NULL) OR (i.removed = 'upper' AND u.key IS NULL)""",
        **known,
    )
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
    return query(
        f"""SELECT i.key, i.removed, i.kind, coalesce(u.place, t.place) AS destination,
                        i.removed = 'lower' AND i.kind = 'moved' AND u.key IS NOT NULL AS left,
                        {", ".join(f"b.fp_{name}" for name in names)}
                    FROM i JOIN gone ON gone.key = i.key LEFT JOIN b ON b.key = i.key LEFT JOIN u ON u.key = i.key
                        LEFT JOIN t ON t.key = i.key""",
        i=intent,
        gone=pa.table({"key": change.removed}),
        b=agreed,
        u=upper,
        t=told,
    ).cast(removals_schema(names))


def _brought(intent: pa.Table, change: Advance, agreed: pa.Table, groups: tuple[Group, ...], end: str) -> pa.Table:
    """What an end holds because of a dead run, as a receipt names it (`receipts.content_of`).

    Of a shared group nobody can tell any more to which end it was written: it is left out, rather than claimed wrongly.
    """
    owner = {"lower": "descending", "upper": "ascending"}[end]
    fps = [
        f"CASE WHEN i.seeded = '{end}' OR {group.direction == owner} AND c.fp_{group.name} IS DISTINCT FROM b.fp_{group.name}"
        f" THEN c.fp_{group.name} END AS fp_{group.name}"
        for group in groups
    ]
    found = query(
        f"""SELECT c.key, {", ".join(fps)} FROM c JOIN i ON i.key = c.key LEFT JOIN b ON b.key = c.key
            WHERE i.seeded IN ('', '{end}')""",
        i=intent,
        c=change.upserts,
        b=agreed,
    )
    held = [found.column(f"fp_{group.name}").is_valid() for group in groups]
    return found.filter(reduce(pc.or_, held)) if held else found


def _vanished(intent: pa.Table, change: Advance, end: str) -> pa.Array:
    """Keys that an end lost because of a dead run."""
    here = intent.filter(pc.equal(intent.column("removed"), end)).column("key").combine_chunks()
    return here.filter(pc.is_in(here, change.removed))


def _among(known: pa.Array, keys: pa.Array) -> pa.Array:
    return keys.filter(pc.is_in(keys, known))


def _seeded(intent: pa.Table, change: Advance, end: str) -> pa.Array:
    """Keys that a dead run did bring to an end."""
    if not intent.num_rows:
        return pa.array([], pa.string())
    settled = change.upserts.column("key").combine_chunks()
    here = pc.and_(pc.equal(intent.column("seeded"), end), pc.is_in(intent.column("key"), settled))
    return intent.filter(here).column("key").combine_chunks()
