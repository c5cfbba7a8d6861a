"""The contract of a connector: how the engine reads and writes one node's system for one dataset.

Words used here:

NODE        a region's participation in a dataset: region + system + connector + options.
ROW         one record as typed Arrow values (`Node.schema`): all fields of the node, keys unique and not null.
CURSOR      an opaque text that a connector returned from `changes`; given back, it asks for what changed since.
PRESENT     the complete list of keys that the node holds now. With it the engine sees deletions; without it, none.
REJECT      a row that cannot be typed or trusted (bad value, missing or double key), with the reason for a person.
TOKEN       a cheap text that differs whenever the node's data may differ; None if the system cannot tell.
BATCH       all that one link run writes to one side; writing it twice leaves the same state as once.
RETURN      a row handed back (退回) to the people of this node with the reason.
CORRECTION  a value proposed (校核) to this node's people, who rule on it, or proposed by them, with what became of it.
RULING      what the people of this node decided on a correction: accept or reject, with a reason.

Errors are those of `federation.errors`: a connector wraps every driver error, keeping it as `__cause__`, and never retries:
`connectors.retrying` does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from federation import canonical
from federation.contract import Dataset
from federation.regions import Region


class Options(BaseModel):
    """Base of a connector's options as declared in YAML (secrets already resolved)."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
    `conditional`: `apply` refuses with Conflict if the data moved since it was read. `returns`: `notify` shows returns to people.
    `corrections`: `show_corrections` shows them to people, and `rulings` takes up what they decide.
    `cheap_sweep`: listing every key costs little, so each read may ask for it. `writes`: False for a read-only system.
    """

    capture: Literal["snapshot", "cursor", "log"]
    present: bool = True
    keyed_reads: bool = True
    conditional: bool = False
    returns: bool = False
    corrections: bool = False
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
    key is readable), or None if this was not a sweep. `cursor`: what to pass next time; it covers all of this result.
    """

    rows: pa.Table
    rejects: pa.Table
    deleted: pa.Table
    present: pa.Table | None
    cursor: str | None
    outside: pa.Table | None = None
    missing: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Batch:
    """All that one link run writes to one side.

    `upserts`: tables that each hold the key columns and exactly the columns to write (a row's other columns stay untouched; a
    key stands in at most one of them). `deletes`: key columns. `cursor`: the cursor of the read that this was decided on; a
    conditional connector refuses with Conflict if its data moved since, and writes nothing. `token`: the probe's token
    before that read, or after our own last write.
    """

    upserts: tuple[pa.Table, ...]
    deletes: pa.Table
    cursor: str | None = None
    token: str | None = None


@dataclass(frozen=True)
class Applied:
    """How many rows were written and how many keys are gone (counting those that already were).

    `cursor`: of a conditional connector, the state that our own write left behind, so that a further batch decided on the
    same read does not conflict with it. None otherwise. `token`: what `probe` says after our write, given only if nobody
    else wrote since `Batch.token`; with it, our own write does not look like news.
    """

    written: int
    deleted: int
    cursor: str | None = None
    token: str | None = None


RULINGS = pa.schema([("correction_id", pa.string()), ("ruling", pa.string()), ("reason", pa.string())])
"""`ruling`: `accept` or `reject`. `reason`: as written, or null."""

_RULING_WORDS = {
    **dict.fromkeys(("accept", "accepted", "采纳", "同意", "接受"), "accept"),
    **dict.fromkeys(("reject", "rejected", "不采纳", "不同意", "拒绝", "驳回"), "reject"),
}


def ruling_of(written: object) -> str | None:
    """`accept`, `reject`, or None for anything else that stands in a ruling's cell."""
    return _RULING_WORDS.get(str(written).strip().lower())


def correction_schema(dataset: Dataset) -> pa.Schema:
    """The corrections shown at a node: one line for each, in texts for people.

    `correction_id` (32 hex digits); the key columns, typed; `kind` (`edit`, `create`, `delete`); `field`: labels of the fields
    concerned; `current`, `proposed`: their values, a line of text per field; `raised_by`: region; `raised`: when (UTC);
    `due`: the day by which a ruling is owed; `state`: `waiting` is for this node's people to rule on, all others
    (`travelling`, `overdue`, `accepted`, `rejected`, `superseded`, `withdrawn`) tell what became of what they proposed;
    `reason`: of the ruling. The system adds two columns for people, `ruling` and `ruling_reason`, empty at first; they may
    fill them in where the state is `waiting` or `overdue`.
    """
    texts = ("kind", "field", "current", "proposed", "raised_by")
    return pa.schema(
        [
            ("correction_id", pa.string()),
            *canonical.schema(dataset, dataset.key),
            *((name, pa.string()) for name in texts),
            ("raised", pa.timestamp("us", "UTC")),
            ("due", pa.date32()),
            ("state", pa.string()),
            ("reason", pa.string()),
        ]
    )


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

    @abstractmethod
    def probe(self) -> Probe:
        """Say cheaply whether the system is there and whether its data may have changed. Reads no records."""

    def prepare(self) -> None:
        """Create what the engine needs in the system (a table, a sheet). May be called many times; touches no data."""
        return

    @abstractmethod
    def changes(self, since: str | None, *, sweep: bool = True) -> Changes:
        """All rows changed since the cursor (None: all rows). May repeat rows, must not miss one; never half a row.

        `sweep=True` asks for `present` as well. A `snapshot` connector ignores `since` and always sweeps.
        """

    @abstractmethod
    def fetch(self, keys: pa.Table) -> Changes:
        """The rows with these keys, as they are now (`present` and `cursor` are None; missing keys are in `deleted`)."""

    @abstractmethod
    def apply(self, batch: Batch) -> Applied:
        """Write a batch: insert or update its rows by key, delete its keys. Idempotent. All or nothing where the system can."""

    def notify(self, returns: pa.Table) -> None:
        """Show the node's people all open returns (key columns + `canonical.REJECTS`), replacing what was shown before."""
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
    listed = (
        pa.concat_tables([typed.rows.select(keys), known]).group_by(keys).aggregate([]).select(keys)
        if present
        else None
    )
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


def no_keys(node: Node) -> pa.Table:
    """An empty table of key columns."""
    return canonical.schema(node.dataset, node.dataset.key).empty_table()


def no_rejects(node: Node) -> pa.Table:
    """An empty table of rejects."""
    return canonical.reject_schema(node.dataset).empty_table()
