"""Code tables (代码表): a system that writes 1 and 2 where the contract says 男 and 女, made to speak the contract.

The wrapped connector works on a contract of its own, in which a coded field is an enum of the system's codes: so an unknown code is
a reject like any other value that is not allowed, keys are looked up by their codes, and a workbook offers the codes. Here they are
translated, both ways. A code that is declared as a number is written as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from connectors.base import Applied, Batch, Buckets, Changes, Connector, Digest, Expected, Node, digest_of
from connectors.wrapping import WrappingConnector
from federation.canonical import key_column, reject_schema, schema, typed
from federation.errors import Permanent

Code = int | str
Codes = Mapping[str, Mapping[str, Code]]
"""Field → the contract's value, as it is declared → the system's code."""


@dataclass(frozen=True)
class _Pairs:
    """The code table of one field. `values`: typed. `texts`: the codes as text. `natives`: as they are written."""

    values: pa.Array
    texts: pa.Array
    natives: pa.Array

    def decoded(self, texts: pa.Array | pa.ChunkedArray) -> Any:
        """Values for codes."""
        return pc.take(self.values, pc.index_in(texts, self.texts))

    def encoded(self, values: pa.Array | pa.ChunkedArray, *, native: bool) -> Any:
        """Codes for values; null where there is none."""
        return pc.take(self.natives if native else self.texts, pc.index_in(values, self.values))


def coded_node(node: Node, codes: Codes) -> Node:
    """The node as its system has it: coded fields are enums of their codes."""
    fields = dict(node.dataset.fields)
    for name, table in codes.items():
        about = {"type": "enum", "values": tuple(map(str, table.values())), "normalise": ("trim",)}
        fields[name] = fields[name].model_copy(update=about)
    return replace(node, dataset=node.dataset.model_copy(update={"fields": fields}))


class CodedConnector(WrappingConnector):
    """See the module. `inner`: the connector of `coded_node(node, codes)`."""

    def __init__(self, node: Node, inner: Connector, codes: Codes) -> None:
        super().__init__(inner, node)
        self._pairs = {name: self._table(name, table) for name, table in codes.items()}

    def _table(self, name: str, table: Mapping[str, Code]) -> _Pairs:
        values = typed(pa.array(list(table), pa.string()), self.node.dataset.fields[name], self.node.timezone)
        numbers = all(isinstance(code, int) for code in table.values())
        texts = [str(code) for code in table.values()]
        return _Pairs(values, pa.array(texts, pa.string()), pa.array(table.values() if numbers else texts))

    def changes(self, since: str | None, *, sweep: bool = True) -> Changes:
        return self._decoded(self.inner.changes(since, sweep=sweep))

    def fetch(self, keys: pa.Table) -> Changes:
        return self._decoded(self.inner.fetch(self._encoded(keys.select(list(self.node.dataset.key)), native=False)))

    def holding(self, name: str, values: pa.Array) -> pa.Table:
        """A value without a code is held by nobody here."""
        asked = self._pairs[name].encoded(values, native=False) if name in self._pairs else values
        return self._values(self.inner.holding(name, asked), self.node.fields)

    def apply(self, batch: Batch) -> Applied:
        upserts = tuple(self._encoded(rows) for rows in batch.upserts)
        expected = self._comparable(batch.expected)
        return self.inner.apply(
            replace(batch, upserts=upserts, deletes=self._encoded(batch.deletes), expected=expected)
        )

    def show_returns(self, returns: pa.Table) -> None:
        shown = self._encoded(returns, native=False)
        values = pa.array([self._code_of(line) for line in returns.to_pylist()], pa.string())
        self.inner.show_returns(shown.set_column(shown.column_names.index("value"), "value", values))

    def _code_of(self, line: Mapping[str, Any]) -> str | None:
        """A returned value as the system's people see it: its code; as it stands where it is none of the contract's values."""
        name: str | None = line["field"]
        value: str | None = line["value"]
        if name not in self._pairs or value is None or line["rule"] == "code:unknown":
            return value
        pairs = self._pairs[name]
        codes: dict[str, str] = dict(zip(map(str, pairs.values.to_pylist()), pairs.texts.to_pylist()))
        return codes.get(value, value)

    def show_corrections(self, corrections: pa.Table) -> None:
        self.inner.show_corrections(self._encoded(corrections, native=False))

    def _comparable(self, expected: Expected | None) -> Expected | None:
        """What can be compared with rows that hold codes: the groups without a coded field; nothing, if a key is coded."""
        if expected is None or not self._pairs.keys().isdisjoint(self.node.dataset.key):
            return None
        groups = {name: fields for name, fields in expected.groups.items() if self._pairs.keys().isdisjoint(fields)}
        return replace(expected, groups=groups)

    def digest(self) -> Digest:
        return digest_of(self.node, self.changes(None).rows)

    def bucket_digests(self, asked: Buckets) -> pa.Table:
        return Connector.bucket_digests(self, asked)

    def bucket_hashes(self, asked: Buckets, wanted: pa.Table) -> pa.Table:
        return Connector.bucket_hashes(self, asked, wanted)

    def _encoded(self, rows: pa.Table, *, native: bool = True) -> pa.Table:
        """Typed rows with codes for values. Raises Permanent for a value that has none."""
        for at, name in enumerate(rows.column_names):
            if name not in self._pairs:
                continue
            column = self._pairs[name].encoded(rows.column(name), native=native)
            lost = rows.filter(pc.and_(pc.is_null(column), pc.is_valid(rows.column(name))))
            if lost.num_rows:
                raise self._without_code(name, lost)
            rows = rows.set_column(at, name, column)
        return rows

    def _without_code(self, name: str, lost: pa.Table) -> Permanent:
        value = lost.column(name)[0].as_py()
        label = self.node.dataset.fields[name].label
        return Permanent(
            f"{value!r} of {name} has no code in this system",
            f"“{label}”的值“{value}”在该系统中没有代码",
            todo=f"在 codes.{name} 中补充 / add it under `codes.{name}`",
            dataset=self.node.dataset.name,
            region=str(self.node.region),
            system=self.node.system,
            key=key_column(lost.slice(0, 1), self.node.dataset)[0].as_py(),
            field=name,
        )

    def _decoded(self, found: Changes) -> Changes:
        keys = self.node.dataset.key
        present = None if found.present is None else self._values(found.present, keys)
        rows, gone = self._values(found.rows, self.node.fields), self._values(found.deleted, keys)
        return replace(found, rows=rows, rejects=self._rejects(found.rejects), deleted=gone, present=present)

    def _values(self, rows: pa.Table, fields: tuple[str, ...]) -> pa.Table:
        for at, name in enumerate(rows.column_names):
            if name in self._pairs:
                rows = rows.set_column(at, name, self._pairs[name].decoded(rows.column(name)))
        return rows.cast(schema(self.node.dataset, fields))

    def _rejects(self, rejects: pa.Table) -> pa.Table:
        """Rejects with keys of the contract, and the reason of an unknown code in its own words."""
        for at, name in enumerate(self.node.dataset.key):
            if name in self._pairs:
                rejects = rejects.set_column(at, name, self._pairs[name].decoded(rejects.column(name)))
        lines = [{**line, **self._reason(line)} for line in rejects.to_pylist()]
        return pa.Table.from_pylist(lines, reject_schema(self.node.dataset))

    def _reason(self, line: Mapping[str, Any]) -> dict[str, str]:
        name = line["field"]
        if name not in self._pairs or line["rule"] != "type:enum":
            return {}
        pairs, label = self._pairs[name], self.node.dataset.fields[name].label
        known = [f"{code}={value}" for code, value in zip(pairs.texts.to_pylist(), _shown(pairs.values))]
        return {
            "rule": "code:unknown",
            "reason_zh": f"“{label}”的代码“{line['value']}”未声明（{'、'.join(known)}）",
            "reason_en": f"the code {line['value']!r} of {name} is not declared ({', '.join(known)})",
        }


def _shown(values: pa.Array) -> list[str]:
    return ["是" if value is True else "否" if value is False else str(value) for value in values.to_pylist()]
