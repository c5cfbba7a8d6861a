"""Receipts (回执): proof that one node holds one version of a batch, entered by the run that delivered it when it settles.

A receipt names the run, the link, the node, and how many rows were written and deleted there; `content` hashes exactly what
was delivered, so that whoever has the keys and fingerprints of a batch can check it:

    content  = hex(sha256(all columns of the written rows, sorted by key, then the removed keys, sorted))
    column   = <name>:<how many values>\\n, the length in bytes of each value (32 bits, little-endian), the values run together
    columns  `key` (UTF-8), `fp_<group>` in the order of their names (empty if the group was not delivered), then `removed`

Of a single record the baseline's `at` is the receipt: since then both ends hold exactly the version it names. The run that
settled it is the one that settled at that moment (`proofs`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection, insert, select

from federation.ledger.schema import receipt as table
from federation.ledger.schema import run as run_table
from federation.ledger.store import rows


@dataclass(frozen=True)
class Receipt:
    """One row of the ledger's `receipt` table: what one run brought to one node."""

    receipt_id: int
    run_id: str
    link_id: str
    region: str
    written: int
    deleted: int
    content: str
    at: datetime


@dataclass(frozen=True)
class Brought:
    """What one run brings to one node, as its receipt says."""

    written: int
    deleted: int
    content: str


@dataclass(frozen=True)
class Proof:
    """Which run settled a version, and what it delivered to either node; no receipt if both nodes had it already."""

    run_id: str | None
    receipts: tuple[Receipt, ...]


def milliseconds(moment: datetime) -> int:
    """A moment as the baseline keeps it: milliseconds since 1970 UTC."""
    return int(moment.timestamp() * 1000)


def content_of(written: pa.Table, removed: pa.Array) -> str:
    """The hash of a batch (see the module), whatever the order of its rows. `written`: key + fp_<group>; `removed`: keys."""
    rows_ = written.take(pc.sort_indices(written.column("key")))
    names = ["key", *sorted(name for name in written.column_names if name != "key")]
    columns = [(name, rows_.column(name).combine_chunks()) for name in names]
    digest = hashlib.sha256()
    for name, column in (*columns, ("removed", removed.take(pc.sort_indices(removed)))):
        values = pc.fill_null(column.cast(pa.binary()), b"")
        whole = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
        digest.update(f"{name}:{len(values)}\n".encode())
        digest.update(pc.binary_length(values).to_numpy(zero_copy_only=False).astype("<i4").tobytes())
        digest.update(pc.binary_join(whole, b"")[0].as_buffer())
    return digest.hexdigest()


def brought(written: pa.Table, removed: pa.Array) -> Brought:
    """What a delivery of these rows (key + fp_<group>), and the removal of these keys, is in a receipt."""
    return Brought(written.num_rows, len(removed), content_of(written, removed))


def enter(connection: Connection, run_id: str, link_id: str, region: str, what: Brought, at: datetime) -> None:
    """Enter the receipt of a node, inside the settling transaction; nothing if nothing was brought to it."""
    if what.written or what.deleted:
        told = {"run_id": run_id, "link_id": link_id, "region": region, "at": at}
        connection.execute(insert(table).values(**told, **asdict(what)))


def proofs(connection: Connection, moments: Mapping[str, int]) -> dict[str, Proof]:
    """Link → the run that settled at this moment (ms, as in the baseline), and its receipts."""
    found = {}
    for link_id, moment in moments.items():
        near = datetime.fromtimestamp(moment / 1000, UTC)
        window = (near - timedelta(milliseconds=2), near + timedelta(milliseconds=2))
        statement = select(table).where(table.c.link_id == link_id, table.c.at.between(*window))
        receipts = [Receipt(**row) for row in rows(connection, statement)]
        runs = select(run_table.c.run_id, run_table.c.finished).where(
            run_table.c.link_id == link_id, run_table.c.finished.between(*window), run_table.c.outcome == "ok"
        )
        then = tuple(receipt for receipt in receipts if milliseconds(receipt.at) == moment)
        ran = [row["run_id"] for row in rows(connection, runs) if milliseconds(row["finished"]) == moment]
        found[link_id] = Proof(_first(ran) or _first([receipt.run_id for receipt in then]), then)
    return found


def _first(names: Sequence[str]) -> str | None:
    return names[0] if names else None
