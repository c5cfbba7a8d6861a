"""From partitions to records: what a full and the deltas after it come to, column by column.

A record's column holds what the latest partition says that has this column; a delete forgets all that was said before it. A row
that cannot be typed, or whose key stands twice in one partition, makes the record a reject until a later partition deletes it or
says all of the faulty row's columns anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.base import Node, no_keys, no_rejects
from connectors.parquet_drops import Partition
from connectors.sql_values import joined
from federation.canonical import LOCATOR, key_column, key_table
from federation.errors import SchemaMismatch, Unreadable

DELETES = frozenset(("d", "delete", "deleted", "删除"))
UPSERTS = frozenset(("u", "update", "upsert", "i", "insert", "c", "create", "r", "修改", "新增"))


@dataclass(frozen=True)
class _Said:
    """What one partition says in files of the same columns. `fields`: beside the key. `order`: of the partition."""

    order: int
    fields: frozenset[str]
    rows: pa.Table
    rejects: pa.Table
    gone: pa.Array


@dataclass(frozen=True)
class Folded:
    """Records as partitions leave them. `gone`: keys that they delete. `missing`: fields that a full partition has no column for.

    `whole`: whether every row is known in full; not so where a delta alone was folded that changes some columns.
    """

    rows: pa.Table
    rejects: pa.Table
    gone: pa.Table
    missing: frozenset[str]
    whole: bool

    def present(self, node: Node) -> pa.Table:
        """The keys of all records, rejects included where their key is readable."""
        names = list(node.dataset.key)
        known = self.rejects.select(names)
        for name in names:
            known = known.filter(known.column(name).is_valid())
        return pa.concat_tables([self.rows.select(names), known]).group_by(names).aggregate([]).select(names)

    def only(self, node: Node, others: Folded) -> Folded:
        """Of these records, those that `others` speaks of."""
        spoken = pa.concat_tables([others.present(node), others.gone])
        names = list(node.dataset.key)
        rows = self.rows.join(spoken, names, join_type="left semi").select(self.rows.column_names)
        rejects = self.rejects.join(spoken, names, join_type="left semi").select(self.rejects.column_names)
        return replace(self, rows=rows, rejects=rejects, gone=others.gone)


def fold(node: Node, partitions: Sequence[Partition], operation: str) -> Folded:
    """What these partitions come to, in their order. `operation`: the column of a delta that says what to do with a row."""
    said: list[_Said] = []
    missing: set[str] = set()
    for order, partition in enumerate(partitions):
        groups = _groups(node, partition, operation)
        if partition.manifest.kind == "full" and not partition.own:
            missing |= {name for group in groups for name in set(node.fields) - set(group.fields)}
        said += _apart(node, order, [group.read(node, order) for group in groups], partition.name)
    return _folded(node, said, frozenset(missing))


# --- one partition


@dataclass(frozen=True)
class _Group:
    """The files of a partition that have the same columns. `places`: name and number of rows of each, in their order."""

    fields: tuple[str, ...]
    raw: pa.Table
    deletes: pa.Array
    places: tuple[tuple[str, int], ...]

    def read(self, node: Node, order: int) -> _Said:
        keys = list(node.dataset.key)
        numbered = self.raw.append_column(LOCATOR, pa.array(np.arange(self.raw.num_rows)))
        typed = node.conform(numbered.filter(pc.invert(self.deletes)))
        named = [*keys, *(name for name in self.fields if name not in keys)]
        found = typed.rejects
        gone = no_keys(node)
        if pc.any(self.deletes).as_py():
            dropped = replace(node, fields=tuple(keys)).conform(numbered.filter(self.deletes).select([*keys, LOCATOR]))
            twice = pc.equal(dropped.rejects.column("rule"), "key:duplicate")  # deleted twice is deleted
            gone = pa.concat_tables([dropped.rows, dropped.rejects.filter(twice).select(keys)])
            found = pa.concat_tables([found, dropped.rejects.filter(pc.invert(twice))])
        at = found.schema.get_field_index("locator")
        rejects = found.set_column(
            at, "locator", pa.array(map(self._place, found.column("locator").to_pylist()), pa.string())
        )
        return _Said(
            order, frozenset(self.fields) - set(keys), typed.rows.select(named), rejects, key_column(gone, node.dataset)
        )

    def _place(self, number: str) -> str:
        row = int(number)
        for name, count in self.places:
            if row < count:
                return f"{name} 第 {row + 1} 行"
            row -= count
        raise AssertionError("a row that no file has")


def _groups(node: Node, partition: Partition, operation: str) -> list[_Group]:
    """The files by the columns that they have."""
    alike: dict[tuple[str, ...], list[tuple[str, pa.Table, pa.Array]]] = {}
    for name, table in partition.read():
        fields = tuple(field for field in node.fields if node.column(field) in table.column_names)
        _refuse_without(node, partition, name, fields, table)
        deletes = _deletes(partition, name, table, operation)
        raw = pa.table({field: table.column(node.column(field)) for field in fields})
        alike.setdefault(fields, []).append((name, raw, deletes))
    return [
        _Group(
            fields,
            joined([raw for _, raw, _ in parts]),
            pa.concat_arrays([deletes for _, _, deletes in parts]),
            tuple((f"{partition.name}/{name}", raw.num_rows) for name, raw, _ in parts),
        )
        for fields, parts in alike.items()
    ]


def _refuse_without(node: Node, partition: Partition, name: str, fields: tuple[str, ...], table: pa.Table) -> None:
    wanted = list(node.dataset.key)
    if partition.manifest.kind == "full":
        wanted.append(node.dataset.jurisdiction)
    lost = ", ".join(node.column(field) for field in dict.fromkeys(wanted) if field not in fields)
    if lost:
        raise SchemaMismatch(
            f"the file lacks the column {lost} (it has {', '.join(table.column_names)})",
            f"文件缺少列 {lost}",
            todo="在 columns 中写明列名，或请提供方补上 / map it under `columns`, or have it delivered",
            dataset=node.dataset.name,
            region=str(node.region),
            file=partition.path / name,
        )


def _deletes(partition: Partition, name: str, table: pa.Table, operation: str) -> pa.Array:
    """Which rows of a file say that their record is gone."""
    if partition.manifest.kind == "full" or operation not in table.column_names:
        return pa.array([False] * table.num_rows, pa.bool_())
    words = pc.utf8_lower(pc.utf8_trim_whitespace(table.column(operation).cast(pa.string()))).combine_chunks()
    known = pc.is_in(words, pa.array([*DELETES, *UPSERTS]))
    if not pc.all(known).as_py() and table.num_rows:
        row = pc.index(known, False).as_py()
        raise Unreadable(
            f"{table.column(operation)[row].as_py()!r} is no operation",
            f"无法识别的操作 {table.column(operation)[row].as_py()!r}",
            todo=f"{operation} 列取 U 或 D / the column {operation} holds U or D",
            file=partition.path / name,
            row=row + 1,
        )
    return pc.is_in(words, pa.array([*DELETES]))


def _apart(node: Node, order: int, said: list[_Said], name: str) -> list[_Said]:
    """The same with keys that stand in two places of one partition set aside: nobody can tell which of them comes last."""
    texts = [key_column(one.rows, node.dataset) for one in said]
    places = pa.concat_arrays([*texts, *(one.gone.unique() for one in said)]) if said else pa.array([], pa.string())
    counted = pc.value_counts(places)
    twice = counted.field("values").filter(pc.greater(counted.field("counts"), 1))
    if len(said) + sum(len(one.gone) > 0 for one in said) < 2 or not len(twice):
        return said
    every = frozenset(field for one in said for field in one.fields)
    kept = [
        replace(
            one,
            rows=one.rows.filter(pc.invert(pc.is_in(text, twice))),
            gone=one.gone.filter(pc.invert(pc.is_in(one.gone, twice))),
        )
        for one, text in zip(said, texts)
    ]
    keys = key_table(twice, node.dataset)
    judged = replace(node, fields=node.dataset.key).conform(pa.concat_tables([keys, keys])).rejects
    at = judged.schema.get_field_index("locator")
    rejects = judged.slice(0, len(twice)).set_column(at, "locator", pa.array([name] * len(twice), pa.string()))
    nothing = said[0].rows.slice(0, 0)
    return [*kept, _Said(order, every, nothing, rejects, pa.array([], pa.string()))]


# --- all of them


def _folded(node: Node, said: Sequence[_Said], missing: frozenset[str]) -> Folded:
    keys = list(node.dataset.key)
    texts = [key_column(one.rows, node.dataset) for one in said]
    gone = [one.gone for one in said]
    faulty = [key_column(one.rejects, node.dataset) for one in said]
    every = pa.concat_arrays([*texts, *gone, *faulty]) if said else pa.array([], pa.string())
    names = every.unique().drop_null()
    count = len(names)

    def ids(parts: Iterable[pa.Array]) -> list[np.ndarray]:
        return [pc.fill_null(pc.index_in(part, names), -1).to_numpy(zero_copy_only=False) for part in parts]

    row_ids, gone_ids, fault_ids = ids(texts), ids(gone), ids(faulty)
    forgotten = np.full(count, -1)
    for one, found in zip(said, gone_ids):
        forgotten[found] = one.order
    counts = [one.order > forgotten[found] for one, found in zip(said, row_ids)]
    alive = np.zeros(count, dtype=bool)
    for found, valid in zip(row_ids, counts):
        alive[found[valid]] = True
    rejects, bad = _standing(said, row_ids, fault_ids, forgotten)
    alive[bad] = False
    kept = np.flatnonzero(alive)
    columns: dict[str, pa.ChunkedArray | pa.Array] = {}
    whole = True
    for name in node.fields:
        having = [at for at, one in enumerate(said) if name in keys or name in one.fields]
        latest = np.full(count, -1)
        start = 0
        for at in having:
            valid = counts[at]
            latest[row_ids[at][valid]] = start + np.flatnonzero(valid)
            start += said[at].rows.num_rows
        taken = latest[kept]
        whole = whole and not bool(np.any((taken < 0) & (forgotten[kept] < 0)))
        held = pa.chunked_array(
            [c for at in having for c in said[at].rows.column(name).chunks], node.schema.field(name).type
        )
        columns[name] = held.take(pa.array(taken, mask=taken < 0))
    dead = (forgotten >= 0) & ~alive
    dead[bad] = False
    return Folded(
        pa.table(columns, schema=node.schema),
        pa.concat_tables(rejects) if rejects else no_rejects(node),
        key_table(names.filter(pa.array(dead)), node.dataset) if count else no_keys(node),
        missing,
        whole,
    )


def _standing(
    said: Sequence[_Said], row_ids: list[np.ndarray], fault_ids: list[np.ndarray], forgotten: np.ndarray
) -> tuple[list[pa.Table], np.ndarray]:
    """The rejects that nothing later mends, and the numbers of their keys."""
    mended: Mapping[frozenset[str], np.ndarray] = {
        fields: np.full(len(forgotten), -1) for fields in {one.fields for one in said if one.rejects.num_rows}
    }
    for fields, latest in mended.items():
        for one, found in zip(said, row_ids):
            if fields <= one.fields:
                latest[found] = one.order
    tables: list[pa.Table] = []
    bad: list[np.ndarray] = []
    for one, found in zip(said, fault_ids):
        if not one.rejects.num_rows:
            continue
        latest = np.maximum(mended[one.fields][found], forgotten[found]) if len(forgotten) else np.full(len(found), -1)
        stands = (found < 0) | (latest <= one.order)
        tables.append(one.rejects.filter(pa.array(stands)))
        bad.append(found[stands & (found >= 0)])
    return tables, np.concatenate(bad) if bad else np.array([], dtype=np.int64)
