"""Records behind an HTTP API, by declaration alone: `connectors.rest_options` says what can be declared.

Capture is `cursor` where the API can filter by time of change, else `snapshot`. The API has no transactions: a batch is written
record by record, each write idempotent, so a batch that stopped half-way is completed by writing it again. A record that the
API refuses (400, 422) does not keep the others from being written; the batch then fails naming it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from connectors.base import Applied, Batch, Capabilities, Changes, Node, Probe, changes_of, fetched
from connectors.desk import told
from connectors.rest_client import GONE, MISSING, Answer, Client, Refused, dig
from connectors.rest_options import RestOptions, WriteOptions
from connectors.rest_paging import Page, Pages
from connectors.rest_records import Key, Shape
from connectors.retrying import RequestingConnector, Retrier
from federation.canonical import key_column
from federation.errors import Permanent, SchemaMismatch, located

_WHOLE_ABOVE = 500
"""Above so many keys, reading the collection costs fewer requests than reading each."""


_REFUSALS = 100
"""After so many refused records a batch is given up: by then it is the declaration that is wrong, not the records."""


@dataclass(frozen=True)
class Item:
    """One record's key, and the same as a step of an address (percent-encoded, composite keys joined with commas)."""

    key: str
    encoded: str


_EVERY = Item("", "")
"""Of a request that concerns no single record."""


class RestConnector(RequestingConnector):
    """See the module. One session; the first call connects."""

    options_model = RestOptions

    def __init__(self, node: Node, retrier: Retrier | None = None) -> None:
        super().__init__(node, retrier)
        self.options = RestOptions.model_validate(node.options)
        self.shape = Shape(node, self.options.times, self.options.documents)
        self.client = Client(self.options, self.retrier)
        self.pages = Pages(self.client, self.options.paging, self.shape.key_of)
        self._where = {"dataset": node.dataset.name, "region": str(node.region), "system": node.system}

    @property
    def capabilities(self) -> Capabilities:
        options = self.options
        return Capabilities(
            "cursor" if options.changed_since else "snapshot",
            keyed_reads=options.item_reads,
            cheap_sweep=options.changed_since is None or options.keys is not None,
            writes=options.upsert is not None,
            corrections=options.corrections is not None,
        )

    def probe(self) -> Probe:
        with located(**self._where):
            state = self.options.state
            if state is None:
                answer = self.client.reach(self.options.path, self._parameters(limited=True))
                return Probe(None, f"HTTP {answer.status}")
            found = dig(self.client.get(state.path, {}).data, state.field)
            if found is MISSING or found is None:
                raise SchemaMismatch(
                    f"the answer has no {state.field}",
                    f"应答缺少 {state.field}",
                    todo="核对 state.field / check `state.field`",
                    request=f"GET {state.path}",
                )
            return Probe(json.dumps(found, sort_keys=True), f"{state.field}={found}")

    def changes(self, since: str | None, *, sweep: bool = True) -> Changes:
        with located(**self._where):
            since = since if self.options.changed_since else None
            if since is not None and sweep and self.options.keys is None:
                # Listing the keys means reading everything here; then everything is also the answer.
                return self._read(None, floor=since, present=True)
            found = self._read(since, floor=since, present=since is None)
            return self._with_keys(found) if since is not None and sweep else found

    def fetch(self, keys: pa.Table) -> Changes:
        with located(**self._where):
            if not self.options.item_reads or keys.num_rows > _WHOLE_ABOVE:
                return fetched(self.node, self._read(None, floor=None, present=False), keys)
            found: list[tuple[str, Any]] = []
            for item in self._items(keys):
                path = self._address(self.options.item_path, item)
                answer = self.client.get(path, {}, key=item.key, accept=GONE)
                if answer.status not in GONE:
                    found.append((path, self._record(answer, path)))
            raw = self.shape.raw(found, self.node.fields)
            return fetched(self.node, changes_of(self.node, raw, present=False, cursor=None), keys)

    def apply(self, batch: Batch) -> Applied:
        with located(**self._where):
            # One text for each call: a request sent again by the retrier is known as the same write, while the same values
            # written later, after others, are not mistaken for it by a server that remembers keys for a day.
            call = secrets.token_hex(8)
            refused: list[Refused] = []
            written = deleted = 0
            for rows in batch.upserts:
                for item, row in zip(self._items(rows), rows.to_pylist()):
                    written += _tried(refused, partial(self._upsert, item, row, call))
            for item in self._items(batch.deletes):
                deleted += _tried(refused, partial(self._delete, item, call))
            if refused:
                raise _summed(refused)
            return Applied(written, deleted)

    def show_corrections(self, corrections: pa.Table) -> None:
        options = self.options.corrections
        if options is None:
            return super().show_corrections(corrections)
        with located(**self._where):
            how = WriteOptions(method=options.show.method, path=options.show.path)
            shown = [self.shape.correction(line) for line in corrections.to_pylist()]
            self._write(how, options.show.path, _EVERY, shown, secrets.token_hex(8), frozenset())
            return None

    def rulings(self) -> pa.Table:
        options = self.options.corrections
        if options is None:
            return super().rulings()
        with located(**self._where):
            asked, where = options.rulings, self._address(options.rulings.path, _EVERY)
            found = dig(self.client.get(where, {}).data, asked.records)
            if not isinstance(found, list) or not all(isinstance(line, dict) for line in found):
                raise SchemaMismatch(
                    f"the answer has no list of rulings at {asked.records or '(top)'}",
                    f"应答在 {asked.records or '顶层'} 处没有裁定列表",
                    todo="核对 corrections.rulings / check `corrections.rulings`",
                    request=f"GET {where}",
                )
            return told((line.get("correction_id"), line.get("ruling"), line.get("reason")) for line in found)

    def close(self) -> None:
        self.client.close()

    def _parameters(self, *, limited: bool = False) -> dict[str, Any]:
        size = self.options.paging.size_parameter
        few = {size: self.options.paging.size} if limited and size else {}
        return {**self.options.parameters, **self.options.sort, **few}

    def _read(self, since: str | None, *, floor: str | None, present: bool) -> Changes:
        """Read the collection from `since` on (None: all of it). `floor`: the cursor never falls behind it."""
        changed, parameters = self.options.changed_since, self._parameters()
        if changed and since is not None:
            parameters[changed.parameter] = since
        pages: list[Page] = list(self.pages.read(self.options.path, parameters, self.options.records))
        records = self._latest(pages)
        self.shape.check([record for _, record in records], omits_nulls=self.options.omits_nulls)
        cursor = self._covered(pages, floor) if changed else None
        found = changes_of(self.node, self.shape.raw(records, self.node.fields), present=present, cursor=cursor)
        absent = self.shape.absent([record for _, record in records]) if since is None else frozenset[str]()
        return replace(found, missing=absent)

    def _latest(self, pages: list[Page]) -> list[tuple[str, Any]]:
        """Each record once, with where it stood.

        A key on two pages is one row that moved while the pages were read, so the last one read is how it is now. A key twice
        on one page is two rows, and is left for the typing to refuse.
        """
        latest: dict[Key, tuple[int, list[tuple[str, Any]]]] = {}
        keyless: list[tuple[str, Any]] = []
        for number, page in enumerate(pages):
            for position, record in enumerate(page.records, start=1):
                if not isinstance(record, dict):
                    raise SchemaMismatch(
                        "the list holds something other than records",
                        "列表中有不是记录的内容",
                        todo="核对 records / check `records`",
                        row=position,
                    )
                key = self.shape.key_of(record)
                entry = (f"{page.label} 第 {position} 条", record)
                if None in key:
                    keyless.append(entry)
                elif key in latest and latest[key][0] == number:
                    latest[key][1].append(entry)
                else:
                    latest[key] = (number, [entry])
        return [entry for _, entries in latest.values() for entry in entries] + keyless

    def _covered(self, pages: list[Page], floor: str | None) -> str | None:
        """The cursor that covers what was read: the newest change seen, less the overlap; `floor` if that is later.

        Never later than the first page: what changes on a page after it was read, while later pages bring newer changes,
        would be lost. The first page's moment is by the server's clock (header Date), never by ours; without that header,
        the newest change on that page.
        """
        changed = self.options.changed_since
        assert changed
        times = [[self.shape.time(dig(record, changed.field)) for record in page.records] for page in pages]
        known = [moment for page in times for moment in page if moment is not None]
        if not known:
            if any(page.records for page in pages):
                raise SchemaMismatch(
                    f"no record shows its time of change at {changed.field}",
                    f"没有记录在 {changed.field} 处给出修改时间",
                    todo="核对 changed_since.field 与 times / check `changed_since.field` and `times`",
                )
            return floor
        began = pages[0].answer.date or max((moment for moment in times[0] if moment), default=min(known))
        moment: datetime = min(max(known), began) - timedelta(seconds=changed.overlap_seconds)
        text = self.shape.since(moment)
        before = self.shape.time(floor)
        reached = self.shape.time(text)
        return floor if before is not None and reached is not None and before > reached else text

    def _with_keys(self, found: Changes) -> Changes:
        """Add the list of all keys. A row just read counts as present even if a lagging list does not show it yet."""
        keys = self.options.keys
        assert keys
        names = list(self.node.dataset.key)
        path = keys.path or self.options.path
        records = self.options.records if keys.records is None else keys.records
        listed: dict[Key, Any] = {}
        for page in self.pages.read(path, {**self._parameters(), **keys.parameters}, records):
            listed.update((self.shape.key_of(record), None) for record in page.records)
        raw = pa.table({name: pa.array([key[i] for key in listed], pa.string()) for i, name in enumerate(names)})
        only_keys = replace(self.node, fields=tuple(names))
        present = changes_of(only_keys, raw, present=True, cursor=None).present
        assert present is not None
        seen = found.rejects.select(names)
        for name in names:
            seen = seen.filter(pc.is_valid(seen.column(name)))
        every = pa.concat_tables([present, found.rows.select(names), seen])
        return replace(found, present=every.group_by(names).aggregate([]).select(names))

    def _items(self, keys: pa.Table) -> list[Item]:
        """The items of these rows. Raises Permanent for a key that cannot stand in an address."""
        items = []
        for text in key_column(keys, self.node.dataset).to_pylist():
            parts = [text] if len(self.node.dataset.key) == 1 else json.loads(text)
            if parts in (["."], [".."]):
                # Every HTTP library folds such a step, and the request would go to the collection or above it.
                raise Permanent("a key cannot be . or ..", "主键不能是 . 或 ..", key=text)
            items.append(Item(text, ",".join(quote(str(part), safe="") for part in parts)))
        return items

    def _address(self, template: str, item: Item) -> str:
        return template.replace("{path}", self.options.path).replace("{key}", item.encoded)

    def _record(self, answer: Answer, path: str) -> Any:
        record = dig(answer.data, self.options.record)
        if not isinstance(record, dict):
            raise SchemaMismatch(
                f"the answer has no record at {self.options.record or '(top)'}",
                f"应答在 {self.options.record or '顶层'} 处没有记录",
                todo="核对 record / check `record`",
                request=f"GET {path}",
            )
        return record

    def _upsert(self, item: Item, row: dict[str, Any], call: str) -> None:
        upsert, create = self.options.upsert, self.options.create
        if upsert is None:
            raise _read_only(item, "upsert")
        body = self.shape.body(row)
        answer = self._write(upsert, self.options.item_path, item, body, call, GONE if create else frozenset())
        if create and answer.status in GONE:
            self._write(create, self.options.path, item, body, call, frozenset())

    def _delete(self, item: Item, call: str) -> None:
        if self.options.delete is None:
            raise _read_only(item, "delete")
        self._write(self.options.delete, self.options.item_path, item, None, call, GONE)

    def _write(
        self, how: WriteOptions, default: str, item: Item, body: Any, call: str, accept: frozenset[int]
    ) -> Answer:
        path = self._address(how.path or default, item)
        content = json.dumps([how.method, path, body, call], sort_keys=True, ensure_ascii=False)
        once = hashlib.sha256(content.encode()).hexdigest()[:32]
        return self.client.write(how.method, path, body, key=item.key, once=once, accept=accept)


def _tried(refused: list[Refused], write: Callable[[], None]) -> int:
    """1 if the write was done, 0 if the API refused this very record; a flood of refusals ends the batch."""
    try:
        write()
    except Refused as error:
        refused.append(error)
        if len(refused) >= _REFUSALS:
            raise _summed(refused) from error
        return 0
    return 1


def _summed(refused: list[Refused]) -> Refused:
    """One error for all refused records: the first, naming the others' keys."""
    first = refused[0]
    if len(refused) == 1:
        return first
    error = Refused(
        f"{first.en}, and so {len(refused) - 1} more record(s)",
        f"{first.zh}，另有 {len(refused) - 1} 条同样被拒",
        todo=first.todo,
        **first.where,
        others=", ".join(str(error.where.get("key")) for error in refused[1:]),
    )
    error.__cause__ = first
    return error


def _read_only(item: Item, word: str) -> Permanent:
    return Permanent(
        f"the API is declared without `{word}`",
        f"该接口未声明 {word}",
        todo=f"声明 {word}，或不让数据写往此处 / declare `{word}`, or let nothing be written here",
        key=item.key,
    )
