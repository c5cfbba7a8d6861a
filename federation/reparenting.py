"""A region that hangs under another parent by now (改挂): its link keeps its id, its baseline and its child's cursor.

The records of the region reach the new parent by the ordinary move: every link on the old and on the new way has another scope, so
it compares all keys once (`federation.identity`), is retracted here and seeded there. Only then is the link adopted:

- what the new parent holds stays agreed on. Of groups that travel down the fingerprints stay, so that what the child's people edited
  meanwhile is seen for what it is; of the others they are forgotten: the new parent's copy is no edit of its people;
- what it does not hold is new to it, unless the old parent knew of its removal: that tombstone moves along;
- copies that the old way has no means to retract, since the records are placed by the child, are withdrawn from it.

Nothing is written at the child for the sake of the adoption.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from connectors.base import Connector
from federation.canonical import fingerprints, key_column, key_table
from federation.config import Link
from federation.correcting import due_date
from federation.ledger import receipts
from federation.ledger.baselines import Manifest
from federation.ledger.corrections import Proposal
from federation.ledger.links import Lease, LinkState
from federation.ledger.tombstones import Tombstone
from federation.merge import Advance
from federation.reading import KEY
from federation.services import Services
from federation.vector import query


def awaited_by(services: Services, link: Link, state: LinkState) -> str | None:
    """What a link with another parent waits for: a link on its old or new way that has not settled under this declaration.

    None: nothing. `state`: as settled under the old parent. A link that runs before would take what is still on its way for deleted.
    """
    way = [*_way(services, link, link.upper.code), *_way(services, link, state.upper)]
    states = services.links.states([step.id for step in way])
    for step in way:
        found = states.get(step.id)
        settled = found is not None and found.last_ok is not None and found.upper == step.upper.code
        if found is None or not settled or found.identity != services.identities.of(step):
            return (
                f"改挂后等待 {step.id} 先完成 / its parent changed from {state.upper} to {link.upper.code}:"
                f" it waits until {step.id} has settled"
            )
    return None


def _way(services: Services, link: Link, code: str) -> list[Link]:
    """The links above a region, the lowest first; none for a region that is no longer in the tree."""
    dataset, tree, found = link.contract.dataset, services.config.tree, []
    while code in tree and tree[code].level in dataset.levels and dataset.upper_of(tree[code].level) is not None:
        found.append(services.config.link(dataset.name, code))
        code = found[-1].upper.code
    return found


def adopt(services: Services, link: Link, lease: Lease, state: LinkState, upper: Connector) -> LinkState:
    """Put a link under its new parent, whose open connector is `upper`; the next merge compares all keys. May be repeated.

    Raises what the connectors of the new parent and, where copies must be withdrawn, of the old one raise.
    """
    upper.prepare()
    meanings, dataset = services.meanings(link.contract), link.contract.dataset
    manifest = Manifest.parse(state.baseline)
    agreed = services.baselines.read(manifest, meanings)
    keys = agreed.column("key").combine_chunks()
    missing = key_column(upper.fetch(key_table(keys, dataset)).deleted, dataset) if len(keys) else keys
    stones = _owed(services, link, state, missing)
    known = pa.array([stone.key for stone in stones], pa.string())
    dropped = missing.filter(pc.invert(pc.is_in(missing, known)))
    _withdraw(services, link, state, agreed, dropped)
    unsure = services.baselines.read_intent(state.intent).column("key") if state.intent else pa.array([], pa.string())
    change = Advance(_as_agreed(link, agreed, dropped, unsure), dropped)
    now = services.ledger.clock()
    adopted = services.baselines.write(link.id, manifest, meanings, change, receipts.milliseconds(now))
    moved: Mapping[str, str | None] = {
        "upper": link.upper.code, "upper_cursor": None, "upper_token": None, "intent": None, "baseline": adopted.dump(),
    }  # fmt: skip
    with services.ledger.transaction() as connection:
        services.links.settle(connection, lease, **moved, last_full=None)
        services.tombstones.hand_on(connection, link.id, state.upper, link.upper.code, [stone.key for stone in stones])
        detail = f"{state.upper} -> {link.upper.code}: {len(keys) - len(dropped)} kept, {len(dropped)} new to it"
        services.ledger.audit(connection, "engine", "link.adopt", link.id, detail)
    return replace(state, **moved, last_full=None)  # type: ignore[arg-type]


def _owed(services: Services, link: Link, state: LinkState, missing: pa.Array) -> list[Tombstone]:
    """Removals that the old parent has told this link of, and that are none of this move's own: the new parent lacks the record."""
    tree, absent = services.config.tree, set(missing.to_pylist())

    def elsewhere(stone: Tombstone) -> bool:
        return tree.ancestor(stone.destination or "", link.lower.level) != link.lower

    return [
        stone
        for stone in services.tombstones.owed(link.id, state.upper)
        if stone.key in absent and (stone.kind == "deleted" or (stone.kind == "moved" and elsewhere(stone)))
    ]


def _as_agreed(link: Link, agreed: pa.Table, dropped: pa.Array, unsure: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The baseline under the new parent. `unsure`: keys that a dead run may have written at the old one."""
    kept = [
        f"CASE WHEN unsure.key IS NULL THEN a.fp_{g.name} END AS fp_{g.name}"
        if g.direction == "descending"
        else f"CAST(NULL AS BLOB) AS fp_{g.name}"
        for g in link.contract.groups
    ]
    return query(
        f"SELECT a.key, {', '.join(kept)} FROM a ANTI JOIN d USING (key) LEFT JOIN unsure ON unsure.key = a.key",
        a=agreed,
        d=pa.table({"key": dropped}),
        unsure=pa.table({"key": unsure}),
    ).cast(agreed.schema)


def _withdraw(services: Services, link: Link, state: LinkState, agreed: pa.Table, dropped: pa.Array) -> None:
    """Take the region's records out of the nodes of its old way that no ordinary move reaches: there the jurisdiction is decided
    below, or the record never got further up. What its people had typed into fields of their own is carried to the new parent."""
    tree, dataset = services.config.tree, link.contract.dataset
    for step in _way(services, link, state.upper):
        if tree.lies_in(link.lower.code, step.lower.code):
            return  # a common ancestor
        manifest = Manifest.parse(services.links.states([step.id])[step.id].baseline)
        keys = agreed.column("key").combine_chunks()
        known = services.baselines.pick(manifest, services.meanings(step.contract), keys)
        place = step.contract.group_of(dataset.jurisdiction)
        if place is None or place.direction != "ascending":
            keys = dropped.filter(pc.invert(pc.is_in(dropped, known.column("key").combine_chunks())))
        if len(keys):
            services.withdraw(
                dataset.name, step.lower.code, keys, partial(_given_up, services, link, step, agreed, known)
            )


def _given_up(services: Services, link: Link, step: Link, agreed: pa.Table, known: pa.Table, rows: pa.Table) -> None:
    """Before these rows vanish from the lower end of `step`: carry what is worth it, and have that link forget them, for which
    their absence would be the sudden loss of a whole community."""
    _carry(services, link, step, agreed, known, rows)
    gone = key_column(rows, link.contract.dataset)
    gone = gone.filter(pc.is_in(gone, known.column("key").combine_chunks()))
    if not len(gone):
        return
    lease, state = services.links.acquire(step)
    try:
        meanings, now = services.meanings(step.contract), receipts.milliseconds(services.ledger.clock())
        change = Advance(known.slice(0, 0), gone)
        manifest = services.baselines.write(step.id, Manifest.parse(state.baseline), meanings, change, now)
        with services.ledger.transaction() as connection:
            services.links.settle(connection, lease, baseline=manifest.dump())
    finally:
        services.links.let_go(lease)


def _carry(services: Services, link: Link, step: Link, agreed: pa.Table, known: pa.Table, rows: pa.Table) -> None:
    """Propose to the new parent what the old one's people had typed into fields that their level owns, and that got no further.

    `known`: what the old parent agreed on with its own parent; `agreed`: with this child, where the record got no further.
    """
    dataset, tree = link.contract.dataset, services.config.tree
    own = [group for group in step.contract.groups if group.authority == step.lower.level]
    heir = tree.ancestor(link.lower.code, step.lower.level)
    if not own or heir is None or not rows.num_rows:
        return
    groups = {group.name: group.fields for group in own}
    typed = fingerprints(rows, dataset, groups, services.keyring.fingerprint)
    bases = {row["key"]: row for table in (agreed, known) for row in table.to_pylist()}
    values = {row[KEY]: row for row in rows.append_column(KEY, key_column(rows, dataset)).to_pylist()}
    proposals = []
    for row in typed.to_pylist():
        for group in own:
            basis, now = bases[row["key"]].get(f"fp_{group.name}"), row[f"fp_{group.name}"]
            if basis is not None and now != basis:
                edit = {name: values[row["key"]][name] for name in group.fields}
                place = (step.id, dataset.name, row["key"], "carry", step.lower.code, heir.code, group.name)
                proposals.append(Proposal(*place, edit, {}, now, basis, now))
    due = due_date(services.ledger.clock(), dataset.correction_days)
    with services.ledger.transaction() as connection:
        services.corrections.record(connection, proposals, lambda _: due)
