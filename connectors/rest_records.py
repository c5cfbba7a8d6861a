"""Between JSON records and rows: dotted paths, the texts of values, and the time of change."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from connectors.base import ETAG, Node, etag_schema
from connectors.rest_json import MISSING, Number, dig
from federation.canonical import LOCATOR, conform
from federation.canonical_json import looks_like_document
from federation.contract import FieldSpec
from federation.errors import SchemaMismatch

Key = tuple[str | None, ...]


def plant(body: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at a dotted path, making the objects on the way."""
    *above, last = path.split(".")
    for step in above:
        body = body.setdefault(step, {})
    body[last] = value


class Shape:
    """How one node's records look in JSON. `times`, `documents`: see `RestOptions`."""

    def __init__(self, node: Node, times: str, documents: str = "values") -> None:
        self.node = node
        self.times = times
        self.documents = documents
        self.zone = ZoneInfo(node.timezone)
        self.paths = {name: node.column(name) for name in node.fields}

    def key_of(self, record: Any) -> Key:
        """The key as the API writes it; a bare value is a key of one column."""
        if not isinstance(record, Mapping):
            if len(self.node.dataset.key) > 1:
                raise self._several(str(record))
            return (self._text(self.node.dataset.key[0], record),)
        return tuple(self._text(name, dig(record, self.paths[name])) for name in self.node.dataset.key)

    def raw(self, located: Sequence[tuple[str, Any]], fields: Sequence[str]) -> pa.Table:
        """An untyped table of (locator, record) pairs: every value as the text that it was written with."""
        columns = {
            name: pa.array([self._text(name, dig(record, self.paths[name])) for _, record in located], pa.string())
            for name in fields
        }
        return pa.table({**columns, LOCATOR: pa.array([locator for locator, _ in located], pa.string())})

    def absent(self, records: Sequence[Any]) -> frozenset[str]:
        """The fields beside the key that none of these records has; none if there are no records."""
        others = [name for name in self.node.fields if name not in self.node.dataset.key]
        lost = (name for name in others if all(dig(record, self.paths[name]) is MISSING for record in records))
        return frozenset(lost) if records else frozenset()

    def check(self, records: Sequence[Any], *, omits_nulls: bool) -> None:
        """Raise SchemaMismatch for a column that no record has: it was renamed, and is not empty everywhere."""
        for name in self.node.dataset.key if omits_nulls else self.node.fields:
            if records and all(dig(record, self.paths[name]) is MISSING for record in records):
                raise SchemaMismatch(
                    f"no record has {self.paths[name]}",
                    f"所有记录都没有 {self.paths[name]}",
                    todo="核对 columns；若接口省略空值，声明 omits_nulls / check `columns`; if the API leaves empty values "
                    "out, declare `omits_nulls`",
                    field=name,
                )

    def body(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON that writes exactly these fields."""
        body: dict[str, Any] = {}
        for name, value in row.items():
            plant(body, self.paths[name], self._json(name, value))
        return body

    def bare_key(self, body: Mapping[str, Any]) -> Any:
        """The key alone, as it stands in the JSON of a record. Raises SchemaMismatch for a key of several columns."""
        if len(self.node.dataset.key) > 1:
            raise self._several("the list of keys")
        return dig(body, self.paths[self.node.dataset.key[0]])

    def etags(self, records: Sequence[Any], told: Sequence[Any]) -> pa.Table | None:
        """`etag_schema` of these records and their etags; None if not one has an etag."""
        dataset = self.node.dataset
        texts = [str(etag) if isinstance(etag, str) and etag else None for etag in told]
        if not any(texts):
            return None
        # Typed together with the key, so that a key that cannot be read, or stands twice, has none.
        spec = FieldSpec(label="ETag", authority="shared", normalise=())
        keyed = dataset.model_copy(update={"fields": {**dataset.fields, ETAG: spec}})
        raw = self.raw([("", record) for record in records], dataset.key)
        raw = raw.append_column(ETAG, pa.array(texts, pa.string()))
        rows = conform(raw, keyed, [*dataset.key, ETAG], timezone=self.node.timezone).rows
        return rows.filter(pc.is_valid(rows.column(ETAG))).cast(etag_schema(dataset))

    def correction(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON that shows a correction."""
        keys = {name: line[name] for name in self.node.dataset.key}
        texts = {name: value for name, value in line.items() if name not in keys}
        raised, due = line["raised"], line["due"]
        texts["raised"] = None if raised is None else self._moment(raised)
        texts["due"] = None if due is None else due.isoformat()
        return {**self.body(keys), **texts}

    def returned(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON that shows a return. The value stands in the record itself."""
        keys = {name: line[name] for name in self.node.dataset.key}
        texts = {name: line[name] for name in ("return_id", "rule", "reason_zh", "reason_en", "hop", "state")}
        since = None if line["since"] is None else self._moment(line["since"])
        return {**self.body(keys), **texts, "field": self.paths.get(line["field"]), "since": since}

    def time(self, value: Any) -> datetime | None:
        """A time of change as a moment; None if it is not one."""
        if value is None or value is MISSING or isinstance(value, bool):
            return None
        try:
            if self.times in ("seconds", "milliseconds"):
                ticks = Decimal(getattr(value, "text", str(value))) / (1000 if self.times == "milliseconds" else 1)
                return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(ticks * 1_000_000))
            text = str(value).strip()
            found = datetime.fromisoformat(text) if self.times == "iso" else datetime.strptime(text, self.times)
        except (ValueError, ArithmeticError):
            return None
        return found if found.tzinfo else found.replace(tzinfo=self.zone)

    def since(self, moment: datetime) -> str:
        """A moment as the API's filter takes it. Cut, never rounded up, so that nothing falls out."""
        if self.times in ("seconds", "milliseconds"):
            unit = timedelta(milliseconds=1) if self.times == "milliseconds" else timedelta(seconds=1)
            return str((moment - datetime.fromtimestamp(0, UTC)) // unit)
        local = moment.astimezone(self.zone)
        return local.isoformat(timespec="milliseconds") if self.times == "iso" else local.strftime(self.times)

    def _several(self, key: str) -> SchemaMismatch:
        return SchemaMismatch(
            f"a bare value cannot be a key of {len(self.node.dataset.key)} columns",
            f"主键有 {len(self.node.dataset.key)} 列，不能以单个值列出",
            todo="主键须以含各主键列的记录列出，否则删去相应的 keys / keys must be listed as records with the key's columns; else "
            "remove that `keys`",
            key=key,
        )

    def _text(self, name: str, value: Any) -> str | None:
        if value is None or value is MISSING:
            return None
        kind = self.node.dataset.fields[name].type
        if kind == "json":
            # Many platforms keep JSON in a text column; text that opens like a document is taken for one.
            document = isinstance(value, str) and (self.documents == "texts" or looks_like_document(value))
            return str(value) if document else json.dumps(value, ensure_ascii=False)
        if kind == "timestamp" and self.times != "iso":
            moment = self.time(value)
            # Not a time: passed on as it is, for the typing to set aside with a reason.
            return str(value) if moment is None else moment.astimezone(UTC).isoformat()
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, Number):
            whole, _, fraction = value.text.partition(".")
            return value.text if fraction.strip("0") else whole
        return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)

    def _moment(self, value: datetime) -> int | str:
        return int(self.since(value)) if self.times in ("seconds", "milliseconds") else self.since(value)

    def _json(self, name: str, value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, datetime):
            return self._moment(value)
        if isinstance(value, date):
            return value.isoformat()
        if isinstance(value, Decimal):
            # As text: a JSON number passes through a binary float in most servers.
            return f"{value:f}"
        nested = self.documents == "values" and self.node.dataset.fields[name].type == "json"
        return json.loads(value) if nested else value
