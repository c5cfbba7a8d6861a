"""How a REST API is declared in YAML. Nothing here is code: an API that needs code deserves a connector of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field as Option
from pydantic import field_validator, model_validator

from connectors.base import Options

Method = Literal["PUT", "PATCH", "POST", "DELETE"]


class PagingOptions(Options):
    """How the API cuts a collection into pages.

    `page`: numbered, from `start` (1). `offset`: rows to skip, from `start` (0). `cursor`: each answer names the next in the
    dotted path `next`; none there means the end. `link`: each answer gives the next address, in `next` or, without it, in
    the header Link (RFC 8288). `none`: one answer holds everything. `total`: dotted path of the number of rows of the whole
    collection; if declared, an answer that holds fewer is noticed.
    """

    kind: Literal["page", "offset", "cursor", "link", "none"] = "none"
    parameter: str | None = None
    size_parameter: str | None = None
    size: int = Option(default=200, ge=2, le=10_000)
    start: int | None = None
    next: str | None = None
    total: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> PagingOptions:
        if self.kind in ("page", "offset", "cursor") and not self.parameter:
            raise ValueError(f"paging by {self.kind} needs `parameter`")
        if self.kind == "cursor" and not self.next:
            raise ValueError("paging by cursor needs `next`, the dotted path of the next cursor")
        return self

    @property
    def first(self) -> int:
        """The number of the first page, or the first offset."""
        return self.start if self.start is not None else int(self.kind == "page")


class ChangedSinceOptions(Options):
    """A filter on the time of change: `parameter` takes a time (inclusive or not), `field` is where a record shows its own.

    `overlap_seconds`: read again this much before the newest change seen; must exceed the longest transaction of the system
    and the difference between its servers' clocks.
    """

    parameter: str
    field: str
    overlap_seconds: int = Option(default=300, ge=0)


class KeysOptions(Options):
    """A request that lists only keys, for a cheap sweep: each entry is a record with the key's columns, or the key itself."""

    path: str | None = None
    parameters: dict[str, str] = Option(default_factory=dict)
    records: str | None = None


class StateOptions(Options):
    """A cheap request whose answer differs, in the dotted path `field`, whenever the data may differ."""

    path: str
    field: str


class SuccessOptions(Options):
    """For an API that answers 200 to everything: the dotted path of its own code, and the codes that mean success.

    Another code from 400 to 599 is taken for the HTTP status of that number.
    """

    field: str
    values: tuple[int | str | bool, ...]


class WriteOptions(Options):
    """One kind of write. `path` may use {path} and {key}."""

    method: Method
    path: str | None = None


class ShowOptions(Options):
    """The write that replaces the corrections shown to people by a JSON list: all of them, each time. `path` may use {path}.

    Each entry is an object: the key's columns as in a record, and `correction_id`, `kind`, `field`, `current`, `proposed`,
    `raised_by`, `raised`, `due`, `state`, `reason` (`connectors.base.correction_schema`).
    """

    method: Method = "PUT"
    path: str


class RulingsOptions(Options):
    """A request for what people ruled: a list, at the dotted path `records`, of {correction_id, ruling, reason}.

    An entry without a ruling is one that people have not ruled on.
    """

    path: str
    records: str = ""


class CorrectionsOptions(Options):
    """A desk in the API's own system where people see corrections and rule on them; both answer the people of one node."""

    show: ShowOptions
    rulings: RulingsOptions


class RestOptions(Options):
    """A collection of records behind HTTP.

    `records`, `record`: dotted paths of the list in a collection's answer and of the record in an item's ("": the answer
    itself). `parameters`: sent with every read of the collection (a scope such as `{street: "{region}"}`). `sort`: parameters
    that give the pages an order that does not change while they are read; declare it wherever the API has one.
    `upsert` sends only the columns of the batch, so the API must leave the others alone, whatever its method is called; with
    `create`, a record that upsert does not find (404) is created by it. None means the API cannot. `item_reads`: whether
    GET works on `item_path`. `omits_nulls`: the API leaves empty columns out; without it, a column that no record has is
    taken for one that was renamed. `times`: how timestamps are written: `iso`, `seconds` or `milliseconds` since 1970, or a
    strftime pattern in the system's local time. `timeout`: seconds to connect, seconds between bytes of the answer.
    `ca`: certificate of a private authority. `idempotency_header`: carries the same text whenever one write is sent again.
    `documents`: whether a json field stands in a record as it is (`values`) or in a text (`texts`). Declare `texts` for an API whose
    PATCH merges objects at any depth (RFC 7396), which would keep the members that a new value has no more.
    `corrections`: where people see corrections and rule on them; without it, they cannot.
    """

    base_url: str
    path: str
    token: str | None = None
    item_path: str = "{path}/{key}"
    records: str = ""
    record: str = ""
    parameters: dict[str, str] = Option(default_factory=dict)
    sort: dict[str, str] = Option(default_factory=dict)
    paging: PagingOptions = PagingOptions()
    changed_since: ChangedSinceOptions | None = None
    keys: KeysOptions | None = None
    state: StateOptions | None = None
    success: SuccessOptions | None = None
    upsert: WriteOptions | None = WriteOptions(method="PATCH")
    create: WriteOptions | None = None
    delete: WriteOptions | None = WriteOptions(method="DELETE")
    corrections: CorrectionsOptions | None = None
    item_reads: bool = True
    omits_nulls: bool = False
    times: str = "iso"
    documents: Literal["values", "texts"] = "values"
    timeout: tuple[float, float] = (10.0, 60.0)
    ca: Path | None = None
    requests_per_second: float | None = Option(default=None, gt=0)
    headers: dict[str, str] = Option(default_factory=dict)
    idempotency_header: str | None = "Idempotency-Key"

    @field_validator("base_url")
    @classmethod
    def _plain(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must be http(s)://host[:port][/prefix]")
        if parts.username or parts.password:
            raise ValueError("must not hold credentials; use `token`")
        return url.rstrip("/")

    @field_validator("headers")
    @classmethod
    def _harmless(cls, headers: dict[str, str]) -> dict[str, str]:
        if any(name.lower() in ("authorization", "cookie") for name in headers):
            raise ValueError("credentials go into `token`")
        return headers

    @model_validator(mode="after")
    def _addressed(self) -> RestOptions:
        if "{key}" not in self.item_path:
            raise ValueError("item_path must contain {key}")
        if self.times not in ("iso", "seconds", "milliseconds") and "%" not in self.times:
            raise ValueError("times must be iso, seconds, milliseconds or a strftime pattern")
        return self
