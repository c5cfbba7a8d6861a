"""The contract of a connector: how the engine reads and writes one node's system for one dataset.

Words used here:

NODE        a region's participation in a dataset: region + system + connector + options.
ROW         one record as typed Arrow values (`Node.schema`): all fields of the node, keys unique and not null.
CURSOR      an opaque text that a connector returned from `changes`; given back, it asks for what changed since.
PRESENT     the complete list of keys that the node holds now. With it the engine sees deletions; without it, none.
REJECT      a row that cannot be typed or trusted (bad value, missing or double key), with the reason for a person.
TOKEN       a cheap text that differs whenever the node's data may differ; None if the system cannot tell.
ETAG        an opaque text that some systems give each state of a row; a write that carries it is refused once the row has another.
BATCH       all that one link run writes to one side; writing it twice leaves the same state as once.
RECEIPT     proof (回执) that a node wrote a batch: what arrived here, and what others received from here.
RETURN      a row handed back (退回) to the people of this node with the reason.
CORRECTION  a value proposed (校核) to this node's people, who rule on it, or proposed by them, with what became of it.
BUCKET      the rows of one jurisdiction whose keys' hashes begin alike; its digest tells whether two nodes hold the same in it.
RULING      what the people of this node decided on a correction: accept or reject, with a reason.

Errors are those of `federation.errors`: a connector wraps every driver error, keeping it as `__cause__`, and never retries:
`connectors.retrying` does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, StringConstraints, field_validator

from connectors import findings
from connectors.findings import Finding
from connectors.shown import correction_schema as correction_schema
from connectors.shown import returns_schema as returns_schema
from federation import canonical, canonical_buckets
from federation.canonical_buckets import Buckets as Buckets
from federation.contract import Dataset
from federation.errors import Conflict
from federation.regions import Region

ETAG = "_etag"
"""The column that holds a row's etag."""


class OptionPart(BaseModel):
    """Base of a part of a connector's options that has a shape of its own."""

    # What was declared may hold secrets, and the causes of an error end up in logs.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


Hours = Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d-(([01]\d|2[0-3]):[0-5]\d|24:00)$")]


class Options(OptionPart):
    """Base of a connector's options as declared in YAML (secrets already resolved).

    `quiet_hours`: when the system must not be asked, on the node's clock (`22:00-06:00`).
    """

    quiet_hours: tuple[Hours, ...] = ()

    @field_validator("quiet_hours")
    @classmethod
    def _some(cls, hours: tuple[str, ...]) -> tuple[str, ...]:
        if any(text[:5] == text[-5:] for text in hours):
            raise ValueError("begins and ends at the same time")
        return hours


@dataclass(frozen=True)
class Node:
    """Where a connector works. `fields`: what this node holds, in the contract's order. `columns`: field → the system's own name."""

    dataset: Dataset
    region: Region
    system: str
    options: dict[str, Any]
    fields: tuple[str, ...]
    columns: dict[str, str] = field(default_factory=dict)
    timezone: str = "Asia/Shanghai"

    @cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the node's rows."""
        return canonical.schema(self.dataset, self.fields)

    @cached_property
    def owned(self) -> frozenset[str]:
        """The fields that this node's level may originate (its own columns in a sheet)."""
        level = self.region.level
        return frozenset(name for name in self.fields if self.dataset.fields[name].authority in (level, "shared"))

    def column(self, name: str) -> str:
        """The system's own name of a field."""
        return self.columns.get(name, name)

    def conform(self, raw: pa.Table) -> canonical.Conformed:
        """Type rows whose columns are named after fields."""
        return canonical.conform(raw, self.dataset, self.fields, timezone=self.timezone)


@dataclass(frozen=True)
class Capabilities:
    """What a system can promise; the engine chooses its strategy from this alone.

    `capture`: how `changes` finds them: `snapshot` (always everything), `cursor` (since a watermark), `log` (a change table).
    `present`: `changes(sweep=True)` lists every key, so deletions are seen. `keyed_reads`: `fetch` costs by key, not by table.
    `conditional`: `apply` refuses with Conflict if any data moved since it was read (`Batch.cursor`). `checks`: it refuses if one of
    the rows that it writes did (`Batch.expected`). `etags`: the same without reading them again: reads tell each row's etag (`fetch`
    always, `changes` where that costs nothing more), and `apply` refuses with Conflict a row that `Batch.etags` has another for; it may
    have written others of the batch. `returns`: `show_returns` shows returns to people.
    `corrections`: `show_corrections` shows them to people, and `rulings` takes up what they decide.
    `receipts`: `show_receipts` shows people what arrived and what was sent.
    `cheap_sweep`: listing every key costs little, so each read may ask for it. `writes`: False for a read-only system.
    """

    capture: Literal["snapshot", "cursor", "log"]
    present: bool = True
    keyed_reads: bool = True
    conditional: bool = False
    checks: bool = False
    etags: bool = False
    returns: bool = False
    corrections: bool = False
    receipts: bool = False
    cheap_sweep: bool = True
    writes: bool = True


@dataclass(frozen=True)
class Probe:
    """The answer to "are you there, and is there anything new?". `detail`: a line for an operator."""

    token: str | None
    detail: str = ""


@dataclass(frozen=True)
class Changes:
    """What a node holds or has changed. `rows`: typed rows. `rejects`: rows that could not be read, keyed where possible.

    `outside`: typed rows whose jurisdiction lies outside the node (set apart by the level's guard; None before it).
    `missing`: fields of the node for which the system had no column at all in this read (never key fields); their values in
    `rows` are null. `deleted`: key columns of rows known to be gone. `present`: key columns of every row there is (rejects included where their
    key is readable), or None if this was not a sweep. `cursor`: what to pass next time; it covers all of this result. `etags`
    (`etag_schema`): of rows and rejects of this very read, as far as the system told them.
    """

    rows: pa.Table
    rejects: pa.Table
    deleted: pa.Table
    present: pa.Table | None
    cursor: str | None
    outside: pa.Table | None = None
    missing: frozenset[str] = frozenset()
    etags: pa.Table | None = None


@dataclass(frozen=True)
class Expected:
    """What a batch was decided on: the rows that it writes or deletes, as they were when they were read.

    A system that can lock rows compares them, inside the writing transaction, with what they are now: whoever edited one
    meanwhile is heard instead of overwritten. Only what is being delivered counts.

    `prints`: key (as text), `here` (whether there was a row; null: it does not matter whether it is still there), fp_<group>
    (null: of no interest). `groups`: their fields. `secret`: what the fingerprints are keyed with."""

    prints: pa.Table
    groups: Mapping[str, tuple[str, ...]]
    secret: bytes

    @property
    def keys(self) -> pa.Array:
        """The keys of the rows to compare."""
        return self.prints.column("key").combine_chunks()

    def moved(self, rows: pa.Table, dataset: Dataset) -> list[str]:
        """The keys whose row is not what was read. `rows`: all typed rows with these keys, as they are now.

        A group of which the system keeps only some fields cannot be compared.
        """
        held = {name: fields for name, fields in self.groups.items() if set(fields) <= set(rows.column_names)}
        now = canonical.fingerprints(rows, dataset, held, self.secret)
        now = now.append_column("there", pa.repeat(True, now.num_rows)).rename_columns(
            ["key", *(f"now_{name}" for name in held), "there"]
        )
        both = self.prints.join(now, "key", join_type="left outer")
        there = pc.fill_null(both.column("there"), False)
        changed = pc.fill_null(pc.not_equal(both.column("here"), there), False)
        for name in held:
            differs = pc.fill_null(pc.not_equal(both.column(f"fp_{name}"), both.column(f"now_{name}")), False)
            changed = pc.or_(changed, differs)
        found: list[str] = both.filter(changed).column("key").to_pylist()
        return sorted(found)


@dataclass(frozen=True)
class Batch:
    """All that one link run writes to one side.

    `upserts`: tables that each hold the key columns and exactly the columns to write (a row's other columns stay untouched; a
    key stands in at most one of them). `deletes`: key columns. `cursor`: the cursor of the read that this was decided on; a
    conditional connector refuses with Conflict if its data moved since, and writes nothing. `token`: the probe's token
    before that read, or after our own last write. `expected`: the rows that it writes or deletes, as they were read; a connector
    that checks refuses with Conflict if one of them is another now, and writes nothing. `etags` (`etag_schema`): of the rows as they
    were when this was decided on, null where there was no such row; a key without a line there is written whatever stands in its place.
    """

    upserts: tuple[pa.Table, ...]
    deletes: pa.Table
    cursor: str | None = None
    token: str | None = None
    expected: Expected | None = None
    etags: pa.Table | None = None


@dataclass(frozen=True)
class Applied:
    """How many rows were written and how many keys are gone (counting those that already were).

    `cursor`: of a conditional connector, the state that our own write left behind, so that a further batch decided on the
    same read does not conflict with it. Any other connector may name it together with `token`: a read from there on does not
    repeat our own write. None otherwise. `token`: what `probe` says after our write, given only if nobody else wrote since
    `Batch.token`; with it, our own write does not look like news.
    """

    written: int
    deleted: int
    cursor: str | None = None
    token: str | None = None


RECEIPTS = pa.schema(
    [
        ("at", pa.timestamp("us", "UTC")),
        ("way", pa.string()),
        ("other", pa.string()),
        ("written", pa.int64()),
        ("deleted", pa.int64()),
        ("run_id", pa.string()),
    ]
)
"""Receipts of one node, the newest first. `way`: `arrived` here, or `sent` from here; `other`: the region at the other end, with its name.

`written`, `deleted`: how many rows the node that received them wrote and deleted. `run_id`: of the link run.
"""

RULINGS = pa.schema([("correction_id", pa.string()), ("ruling", pa.string()), ("reason", pa.string())])
"""`ruling`: `accept` or `reject`. `reason`: as written, or null."""

_RULING_WORDS = {
    **dict.fromkeys(("accept", "accepted", "采纳", "同意", "接受"), "accept"),
    **dict.fromkeys(("reject", "rejected", "不采纳", "不同意", "拒绝", "驳回"), "reject"),
}


def ruling_of(written: object) -> str | None:
    """`accept`, `reject`, or None for anything else that stands in a ruling's cell."""
    return _RULING_WORDS.get(str(written).strip().lower())


@dataclass(frozen=True)
class Digest:
    """A node's content in short: number of rows and an order-free hash of all its values."""

    rows: int
    value: str


class Connector(ABC):
    """One node's system for one dataset. Not thread-safe; cheap to create: the first call connects.

    Every method may raise Transient, Permanent (AccessDenied, SchemaMismatch, Unreadable); `apply` also Conflict.
    """

    options_model: ClassVar[type[Options]] = Options

    def __init__(self, node: Node) -> None:
        self.node = node

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this system can promise. No I/O."""

    @property
    def place(self) -> str | None:
        """The server behind this node, named alike by all nodes that share it, without credentials: where it does not answer one of
        them, it answers none. None: nothing is shared. No I/O."""
        return None

    @classmethod
    def watched(cls, node: Node) -> Path | None:
        """The file or folder of this machine that people save to when they edit this node; None: only `probe` tells. No I/O.

        Secrets among the node's options may be missing."""
        return None

    @abstractmethod
    def probe(self) -> Probe:
        """Say cheaply whether the system is there and whether its data may have changed. Reads no records."""

    def inspect(self) -> Sequence[Finding]:
        """What an operator should know before he relies on this node: is it reached, what may we do there, does its schema suit the
        contract, is its clock right, how will syncs go. Raises as `probe` does where there is nothing to inspect.

        Writes nothing anywhere, and reads no more records than one answer of the system holds.
        """
        answer = self.probe()
        return (*findings.reached(answer.detail), *findings.strategy(self.capabilities, self.node.dataset))

    def prepare(self) -> tuple[str, ...]:
        """Create what the engine needs in the system (a table, a sheet). May be called many times; touches no data.

        Returns what it made, a short text of both languages each; nothing where all of it stood.
        """
        return ()

    def unprepare(self) -> None:
        """Remove from the system what `prepare` put into people's own data, if anything. May be called many times."""
        return

    @abstractmethod
    def changes(self, since: str | None, *, sweep: bool = True) -> Changes:
        """All rows changed since the cursor (None: all rows). May repeat rows, must not miss one; never half a row.

        `sweep=True` asks for `present` as well. A `snapshot` connector ignores `since` and always sweeps.
        """

    @abstractmethod
    def fetch(self, keys: pa.Table) -> Changes:
        """The rows with these keys, as they are now (`present` and `cursor` are None; missing keys are in `deleted`)."""

    def holding(self, name: str, values: pa.Array) -> pa.Table:
        """The rows whose field `name` holds one of these values (typed), as they are now; none of them may be missed. Null is no value.

        Default: read everything."""
        return having(self.changes(None, sweep=False).rows, name, values)

    @abstractmethod
    def apply(self, batch: Batch) -> Applied:
        """Write a batch: insert or update its rows by key, delete its keys. Idempotent. All or nothing where the system can."""

    def show_returns(self, returns: pa.Table) -> None:
        """Show the node's people all returns (`returns_schema`), replacing what was shown before.

        A return that is `closed` is told once more, by the first call after; who shows a list leaves it out. Called only with the
        capability `returns`. Changes neither the node's cursor nor its probe token, unless people mended something where it is shown.
        """
        return

    def show_receipts(self, receipts: pa.Table) -> None:
        """Show the node's people what arrived and what was sent (`RECEIPTS`), replacing what was shown before.

        Changes neither the node's cursor nor its probe token, and writes nothing if the same is shown already. A Transient
        means that people are at work there: the next run shows them.
        """
        return

    def show_corrections(self, corrections: pa.Table) -> None:
        """Show the node's people all corrections that concern them (`correction_schema`), replacing what was shown before.

        A ruling that people wrote beside a correction which is still among them stays. Called only with the capability
        `corrections`. Neither this nor people's rulings may change the node's cursor or probe token.
        """
        raise NotImplementedError

    def rulings(self) -> pa.Table:
        """What the node's people wrote beside the corrections shown to them: `RULINGS`, one line for each that is ruled on.

        Only lines with a recognised ruling: accept, reject, or as people write it (采纳, 同意, 接受; 不采纳, 不同意, 拒绝, 驳回),
        whatever the case. Nothing is taken back here: a ruling is told again until the correction is no longer shown.
        """
        return RULINGS.empty_table()

    def digest(self) -> Digest:
        """Count and hash the whole content. Default: read everything."""
        return digest_of(self.node, self.changes(None).rows)

    def bucket_digests(self, asked: Buckets) -> pa.Table:
        """`canonical_buckets.DIGESTS` of the whole content; rejects may count or not. Nodes that differ in none hold the same rows, but for
        hashes that meet by chance; nodes that do may still hold the same facts. Default: read everything."""
        return canonical_buckets.digests(self.changes(None).rows, self.node.dataset, asked)

    def bucket_hashes(self, asked: Buckets, wanted: pa.Table) -> pa.Table:
        """`canonical_buckets.hashes_schema` of the rows in some buckets (`wanted`: place, bucket), by the same rules."""
        return canonical_buckets.hashes(self.changes(None).rows, self.node.dataset, asked, wanted)

    def close(self) -> None:
        """Give connections back. May be called more than once."""
        return


def digest_of(node: Node, rows: pa.Table) -> Digest:
    """The digest of rows already read: the sum of row hashes, so that order does not count."""
    hashed = canonical.fingerprints(rows, node.dataset, {"all": rows.column_names}, b"digest")
    total = sum(int.from_bytes(value, "big") for value in hashed.column("fp_all").to_pylist()) % 2**128
    return Digest(rows.num_rows, f"{total:032x}")


def changes_of(node: Node, raw: pa.Table, *, present: bool, cursor: str | None) -> Changes:
    """Changes from raw rows (columns named after fields): types them; every readable key counts as present."""
    typed = node.conform(raw)
    keys = list(node.dataset.key)
    known = typed.rejects.select(keys)
    for name in keys:
        known = known.filter(known.column(name).is_valid())
    if known.num_rows:  # a key that stands twice is rejected twice, and is none of the rows'
        known = known.group_by(keys).aggregate([]).select(keys)
    listed = pa.concat_tables([typed.rows.select(keys), known]) if present else None
    return Changes(typed.rows, typed.rejects, no_keys(node), listed, cursor)


def fetched(node: Node, changes: Changes, keys: pa.Table) -> Changes:
    """The part of `changes` that answers `fetch(keys)`; keys found nowhere are `deleted`."""
    names = list(node.dataset.key)
    rows = changes.rows.join(keys.select(names), names, join_type="left semi")
    rejects = (
        changes.rejects.join(keys.select(names), names, join_type="left semi")
        if changes.rejects.num_rows
        else changes.rejects
    )
    found = pa.concat_tables([rows.select(names), rejects.select(names)])
    deleted = keys.select(names).join(found, names, join_type="left anti")
    return replace(
        changes,
        rows=rows.select(node.schema.names).cast(node.schema),
        rejects=rejects.select(changes.rejects.column_names),
        deleted=deleted,
        present=None,
        cursor=None,
    )


def having(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """Of rows already read, the part that answers `holding`."""
    return rows.filter(pc.is_in(rows.column(name), value_set=values.drop_null()))


def refuse_moved(node: Node, expected: Expected, rows: pa.Table) -> None:
    """Raise Conflict if a row is not what was read. `rows`: all typed rows with the expected keys, as they are now."""
    moved = expected.moved(rows, node.dataset)
    if moved:
        raise Conflict(
            f"{len(moved)} record(s) were edited after they were read; nothing was written",
            f"有 {len(moved)} 条记录在读取后被修改；未写入任何内容",
            todo="将重新读取并合并 / they are read and merged again",
            dataset=node.dataset.name,
            region=str(node.region),
            system=node.system,
            key=", ".join(moved[:5]),
        )


def etag_schema(dataset: Dataset) -> pa.Schema:
    """Key columns (typed) + `ETAG`."""
    return pa.schema([*canonical.schema(dataset, dataset.key), (ETAG, pa.string())])


def no_keys(node: Node) -> pa.Table:
    """An empty table of key columns."""
    return canonical.schema(node.dataset, node.dataset.key).empty_table()


def no_returns(node: Node) -> pa.Table:
    """An empty table of returns."""
    return returns_schema(node.dataset).empty_table()


def no_rejects(node: Node) -> pa.Table:
    """An empty table of rejects."""
    return canonical.reject_schema(node.dataset).empty_table()
