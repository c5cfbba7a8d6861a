"""Writing records over HTTP: one by one or many at once, on a condition where the API can refuse.

An API has no transactions: each request is idempotent, so a batch that stopped half-way is completed by writing it again. A record
that the API refuses (400, 422), or that was edited meanwhile (409, 412), does not keep the others from being written; the batch
then fails naming it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from connectors.base import ETAG, Applied, Batch
from connectors.rest_address import Addresses, Item
from connectors.rest_client import Answer, Call, Client
from connectors.rest_errors import GONE, Refused
from connectors.rest_json import MISSING, dig
from connectors.rest_options import BulkWriteOptions, FailedOptions, RestOptions, WriteOptions
from connectors.rest_records import Shape, plant
from federation.canonical import key_column
from federation.errors import Conflict, ConnectorError, Permanent, SchemaMismatch

_REFUSALS = 100
"""After so many refused records a batch is given up: by then it is the declaration that is wrong, not the records."""

Told = tuple[Item, Any]
"""A record to write: its item, and its JSON (of a deletion: of its key)."""


class Writer:
    """Writes one batch of one node. `etags`: what the batch was decided on (`Batch.etags`). `bulk`: records in one request, unless declared."""

    def __init__(
        self,
        options: RestOptions,
        shape: Shape,
        addresses: Addresses,
        client: Client,
        etags: pa.Table | None,
        *,
        bulk: int,
    ) -> None:
        self._options = options
        self._shape = shape
        self._addresses = addresses
        self._client = client
        # One text for each batch: a request sent again by the retrier is known as the same write, while the same values
        # written later, after others, are not mistaken for it by a server that remembers keys for a day.
        self._call = secrets.token_hex(8)
        self._size = bulk
        self._lost: list[ConnectorError] = []
        self._known: dict[str, str | None] = {}
        if etags is not None and options.etag is not None:
            self._known = dict(zip(key_column(etags, shape.node.dataset).to_pylist(), etags.column(ETAG).to_pylist()))

    def apply(self, batch: Batch) -> Applied:
        """Write the batch. Raises Conflict or Refused for the records that were not written, once the others are."""
        written = sum(self._upserts(rows) for rows in batch.upserts)
        deleted = self._deletes(batch.deletes)
        # Conflicts first: reading anew mends them.
        for errors in ([error for error in self._lost if isinstance(error, Conflict)], self._lost):
            if errors:
                raise _summed(errors)
        return Applied(written, deleted)

    def put(self, how: WriteOptions, path: str, body: Any) -> None:
        """Write something that is no record."""
        self._send(how.method, self._addresses.of(path), "", body)

    def _upserts(self, rows: pa.Table) -> int:
        """How many of these rows were written."""
        told = [(item, self._shape.body(row)) for item, row in zip(self._addresses.items(rows), rows.to_pylist())]
        bulk, single = self._options.bulk.upsert, self._options.upsert
        if bulk is not None:
            return sum(self._bulk(bulk, part) for part in _parts(told, bulk.size or self._size))
        if single is None and told:
            raise _read_only(told[0][0], "upsert")
        return sum(self._tried(partial(self._upsert, item, body)) for item, body in told)

    def _deletes(self, keys: pa.Table) -> int:
        """How many of these records are gone."""
        items = self._addresses.items(keys)
        bulk, single = self._options.bulk.delete, self._options.delete
        if bulk is not None:
            told = [(item, self._shape.body(row)) for item, row in zip(items, keys.to_pylist())]
            return sum(self._bulk(bulk, part, deletes=True) for part in _parts(told, bulk.size or self._size))
        if single is None and items:
            raise _read_only(items[0], "delete")
        return sum(self._tried(partial(self._delete, item)) for item in items)

    def _one(
        self,
        how: WriteOptions,
        default: str,
        item: Item,
        body: Any,
        headers: Mapping[str, str] = {},
        accept: Collection[int] = (),
    ) -> Answer:
        """One write of one record."""
        if body is not None:
            body = _enveloped(_fixed(body, how.fixed), how.record)
        return self._send(how.method, self._addresses.of(how.path or default, item), item.key, body, headers, accept)

    def _send(
        self,
        method: str,
        path: str,
        key: str,
        body: Any,
        headers: Mapping[str, str] = {},
        accept: Collection[int] = (),
        read: bool = False,
    ) -> Answer:
        content = json.dumps([method, path, body, self._call], sort_keys=True, ensure_ascii=False)
        once = hashlib.sha256(content.encode()).hexdigest()[:32]
        name = self._options.idempotency_header
        every = {**headers, **({name: once} if name else {})}
        return self._client.send(Call(method, path, body=body, headers=every, key=key, accept=accept, read=read))

    def _upsert(self, item: Item, body: Any) -> None:
        upsert, create, where = self._options.upsert, self._options.create, self._options.item_path
        assert upsert is not None
        if item.key not in self._known:
            answer = self._one(upsert, where, item, body, accept=GONE if create else ())
            if create and answer.status in GONE:
                self._one(create, "{path}", item, body)
        elif (etag := self._known[item.key]) is None:
            how, default = (create, "{path}") if create else (upsert, where)
            self._one(how, default, item, body, {"If-None-Match": "*"})
        elif self._one(upsert, where, item, body, {"If-Match": etag}, GONE).status in GONE:
            raise Conflict("the record was deleted meanwhile", "记录已被他人删除", key=item.key)

    def _delete(self, item: Item) -> None:
        assert self._options.delete is not None
        etag = self._known.get(item.key)
        if item.key in self._known and etag is None:
            return  # It was not there; whatever is there by now is not what was to be deleted.
        headers = {} if etag is None else {"If-Match": etag}
        self._one(self._options.delete, self._options.item_path, item, None, headers, GONE)

    def _tried(self, write: Callable[[], None]) -> int:
        """1 if the write was done, 0 if this very record was refused; a flood of refusals ends the batch."""
        try:
            write()
        except (Refused, Conflict) as error:
            self._lose(error)
            return 0
        return 1

    def _lose(self, error: ConnectorError) -> None:
        self._lost.append(error)
        if len(self._lost) >= _REFUSALS:
            raise _summed(self._lost) from error

    # --- many at once

    def _bulk(self, how: BulkWriteOptions, told: Sequence[Told], *, deletes: bool = False) -> int:
        """How many of these were written. A request that is refused as a whole is halved, until the record that it was for is alone."""
        try:
            failed = self._answered(how, told, self._requested(how, told, deletes=deletes))
        except (Refused, Conflict) as error:
            if len(told) > 1:
                middle = len(told) // 2
                return sum(self._bulk(how, part, deletes=deletes) for part in (told[:middle], told[middle:]))
            self._lose(error)
            return 0
        for key in failed:
            self._lose(_not_written(key, how.path))
        return len(told) - len(failed)

    def _requested(self, how: BulkWriteOptions, told: Sequence[Told], *, deletes: bool) -> Answer:
        items = [item for item, _ in told]
        path = self._addresses.of(how.path, *items)
        body: Any = None
        if "{keys}" not in how.path:
            bare = deletes and how.keys == "values"
            records = [self._shape.bare_key(body) if bare else _fixed(body, how.fixed) for _, body in told]
            body = _enveloped(records, how.records)
        key = items[0].key if len(items) == 1 else ""
        return self._send(how.method, path, key, body, read=how.failed is not None or how.written is not None)

    def _answered(self, how: BulkWriteOptions, told: Sequence[Told], answer: Answer) -> list[str]:
        """The keys of the records that the API says it has not written. Raises SchemaMismatch if it does not say what was declared."""
        sent = {self._shape.key_of(body): item.key for item, body in told}
        failed = [] if how.failed is None else self._failed(how.failed, how, answer, sent)
        if how.written is not None:
            count = dig(answer.data, how.written)
            if isinstance(count, bool) or not isinstance(count, int):
                raise _unsaid(how.path, "number", "数目", how.written)
            if count != len(told) - len(failed):
                raise Permanent(
                    f"of {len(told)} records the API has written {count}, and does not say which it has not",
                    f"{len(told)} 条记录中接口只写入 {count} 条，未说明哪些没有写入",
                    todo="查看对方系统日志，或声明 bulk.*.failed / look at that system's log, or declare `failed` of `bulk`",
                    request=how.path,
                )
        return failed

    def _failed(
        self, failed: FailedOptions, how: BulkWriteOptions, answer: Answer, sent: Mapping[Any, str]
    ) -> list[str]:
        entries = dig(answer.data, failed.records)
        if entries is None or (entries is MISSING and how.written is not None):
            entries = []
        if not isinstance(entries, list) or (failed.field and len(entries) != len(sent)):
            raise _unsaid(how.path, "list of results", "结果列表", failed.records)
        keys: dict[str, None] = {}
        for entry, place in zip(entries, [*sent.values(), *[""] * len(entries)]):
            if failed.field and dig(entry, failed.field) in failed.values:
                continue
            told = self._shape.key_of(entry if failed.key is None else dig(entry, failed.key))
            # Results without keys stand in the order of the records.
            unnamed = place if failed.field and None in told else " ".join(str(part) for part in told)
            keys[sent.get(told, unnamed)] = None
        return list(keys)


def _parts(told: Sequence[Told], size: int) -> Iterator[Sequence[Told]]:
    return (told[start : start + size] for start in range(0, len(told), size))


def _fixed(body: dict[str, Any], fixed: Mapping[str, Any]) -> dict[str, Any]:
    for path, value in fixed.items():
        plant(body, path, value)
    return body


def _enveloped(body: Any, path: str) -> Any:
    if not path:
        return body
    whole: dict[str, Any] = {}
    plant(whole, path, body)
    return whole


def _summed(errors: Sequence[ConnectorError]) -> ConnectorError:
    """One error for all: the first, naming the others' keys."""
    first = errors[0]
    if len(errors) == 1:
        return first
    error = type(first)(
        f"{first.en}, and so {len(errors) - 1} more record(s)",
        f"{first.zh}，另有 {len(errors) - 1} 条同样如此",
        todo=first.todo,
        **first.where,
        others=", ".join(str(error.where.get("key")) for error in errors[1:]),
    )
    error.__cause__ = first
    return error


def _not_written(key: str, path: str) -> Refused:
    return Refused(
        "the system took the request and says that it has not written this record",
        "系统受理了请求，但称未写入该记录",
        todo="查看对方系统日志，核对字段 / look at that system's log, check the columns",
        request=path,
        key=key,
    )


def _unsaid(path: str, en: str, zh: str, field: str) -> SchemaMismatch:
    return SchemaMismatch(
        f"the answer has no {en} at {field or '(top)'}, so nobody can tell what was written",
        f"应答在 {field or '顶层'} 处没有{zh}，无法得知写入结果",
        todo="核对 bulk 的 failed 与 written / check `failed` and `written` of `bulk`",
        request=path,
    )


def _read_only(item: Item, word: str) -> Permanent:
    return Permanent(
        f"the API is declared without `{word}`",
        f"该接口未声明 {word}",
        todo=f"声明 {word}，或不让数据写往此处 / declare `{word}`, or let nothing be written here",
        key=item.key,
    )
