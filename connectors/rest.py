"""Records behind an HTTP API, by declaration alone: `connectors.rest_options` says what can be declared.

Capture is `cursor` where the API can filter by time of change, else `snapshot`. How batches are written: `connectors.rest_write`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from connectors.base import Applied, Batch, Capabilities, Changes, Node, Probe, changes_of, fetched
from connectors.desk import told
from connectors.findings import Finding
from connectors.polite import Manners
from connectors.rest_address import Addresses
from connectors.rest_client import Answer, Client
from connectors.rest_errors import GONE
from connectors.rest_inspect import inspected
from connectors.rest_json import MISSING, dig
from connectors.rest_options import RestOptions, WriteOptions
from connectors.rest_paging import Page, Pages
from connectors.rest_records import Key, Shape
from connectors.rest_write import Writer
from connectors.retrying import RequestingConnector, Retrier
from federation.errors import SchemaMismatch, located

_WHOLE_ABOVE = 500
"""Above so many keys, reading the collection costs fewer requests than reading each."""


class RestConnector(RequestingConnector):
    """See the module. One session; the first call connects."""

    options_model = RestOptions

    def __init__(self, node: Node, retrier: Retrier | None = None, manners: Manners = Manners()) -> None:
        super().__init__(node, retrier, manners)
        self.options = RestOptions.model_validate(node.options)
        self.shape = Shape(node, self.options.times, self.options.documents)
        self.client = Client(self.options, self.retrier, self.options.rate(manners))
        self.addresses = Addresses(node, self.options)
        self.pages = Pages(self.client, self.options.paging, self.shape.key_of)
        self._where = {"dataset": node.dataset.name, "region": str(node.region), "system": node.system}

    @property
    def capabilities(self) -> Capabilities:
        options = self.options
        return Capabilities(
            "cursor" if options.changed_since else "snapshot",
            keyed_reads=options.item_reads,
            cheap_sweep=options.changed_since is None or options.keys is not None,
            etags=options.etag is not None,
            writes=options.writes,
            returns=options.returns is not None,
            corrections=options.corrections is not None,
        )

    @property
    def place(self) -> str | None:
        return self.options.base_url

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

    def inspect(self) -> Sequence[Finding]:
        with located(**self._where):
            parameters = self._parameters(limited=True)
            return inspected(self.node, self.options, self.client, self.shape, self.capabilities, parameters)

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
            only_items = self.options.etag is not None and self.options.etag.header is not None
            if not self.options.item_reads or (keys.num_rows > _WHOLE_ABOVE and not only_items):
                return fetched(self.node, self._read(None, floor=None, present=False), keys)
            found: list[tuple[str, Any]] = []
            etags: list[str] = []
            for item in self.addresses.items(keys):
                path = self.addresses.of(self.options.item_path, item)
                answer = self.client.get(path, {}, key=item.key, accept=GONE)
                if answer.status not in GONE:
                    found.append((path, self._record(answer, path)))
                    if self.options.etag:
                        etags.append(self._etag(answer, found[-1][1], item.key))
            raw = self.shape.raw(found, self.node.fields)
            changes = changes_of(self.node, raw, present=False, cursor=None)
            told = self.shape.etags([record for _, record in found], etags) if etags else None
            return fetched(self.node, replace(changes, etags=told), keys)

    def apply(self, batch: Batch) -> Applied:
        with located(**self._where):
            return self._writer(batch.etags).apply(batch)

    def show_returns(self, returns: pa.Table) -> None:
        options = self.options.returns
        if options is not None:
            with located(**self._where):
                shown = [self.shape.returned(line) for line in returns.to_pylist()]
                self._writer().put(WriteOptions(method=options.method), options.path, shown)

    def show_corrections(self, corrections: pa.Table) -> None:
        options = self.options.corrections
        if options is None:
            return super().show_corrections(corrections)
        with located(**self._where):
            shown = [self.shape.correction(line) for line in corrections.to_pylist()]
            self._writer().put(WriteOptions(method=options.show.method), options.show.path, shown)
            return None

    def rulings(self) -> pa.Table:
        options = self.options.corrections
        if options is None:
            return super().rulings()
        with located(**self._where):
            asked, where = options.rulings, self.addresses.of(options.rulings.path)
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
            parameters[changed.parameter] = changed.value.replace("{since}", since)
        pages: list[Page] = list(self.pages.read(self.options.path, parameters, self.options.records))
        records = self._latest(pages)
        whole = [record for _, record in records]
        self.shape.check(whole, omits_nulls=self.options.omits_nulls)
        cursor = self._covered(pages, floor) if changed else None
        found = changes_of(self.node, self.shape.raw(records, self.node.fields), present=present, cursor=cursor)
        absent = self.shape.absent(whole) if since is None else frozenset[str]()
        return replace(found, missing=absent, etags=self._etags(whole))

    def _etags(self, records: list[Any]) -> pa.Table | None:
        """The etags that stand in the records themselves."""
        field = self.options.etag.field if self.options.etag else None
        if field is None or not records:
            return None
        told = self.shape.etags(records, [dig(record, field) for record in records])
        if told is None:
            raise _no_etag(field, f"GET {self.options.path}")
        return told

    def _etag(self, answer: Answer, record: Any, key: str) -> str:
        """The etag of one item. Raises SchemaMismatch if it has none: its writes could not be conditional."""
        assert self.options.etag
        header, field = self.options.etag.header, self.options.etag.field
        found = answer.headers.get(header) if header else dig(record, field or "")
        if not isinstance(found, str) or not found:
            raise _no_etag(header or field, f"GET {self.options.item_path}", key)
        return found

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

    def _writer(self, etags: pa.Table | None = None) -> Writer:
        return Writer(self.options, self.shape, self.addresses, self.client, etags, bulk=self.manners.bulk)


def _no_etag(field: str | None, request: str, key: str = "") -> SchemaMismatch:
    return SchemaMismatch(
        f"the answer shows no etag ({field})",
        f"应答没有给出 ETag（{field}）",
        todo="核对 etag；若接口没有 ETag，删去该项 / check `etag`; if the API has none, remove it",
        request=request,
        key=key,
    )
