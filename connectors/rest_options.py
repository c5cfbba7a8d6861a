"""How a REST API is declared in YAML. Nothing here is code: an API that needs code deserves a connector of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field as Option
from pydantic import field_validator, model_validator

from connectors.base import OptionPart, Options
from connectors.polite import Manners, Rate
from connectors.rest_auth_options import AuthOptions, BearerOptions, Secret

Method = Literal["PUT", "PATCH", "POST", "DELETE"]


class PagingOptions(OptionPart):
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


class ChangedSinceOptions(OptionPart):
    """A filter on the time of change: `parameter` takes a time (inclusive or not), `field` is where a record shows its own.

    `value`: what the parameter is set to, {since} being the time (`modified ge {since}`). `overlap_seconds`: read again this much before the newest change seen; must exceed the longest transaction of the system
    and the difference between its servers' clocks.
    """

    parameter: str
    field: str
    value: str = "{since}"
    overlap_seconds: int = Option(default=300, ge=0)

    @field_validator("value")
    @classmethod
    def _since(cls, value: str) -> str:
        if "{since}" not in value:
            raise ValueError("must contain {since}")
        return value


class KeysOptions(OptionPart):
    """A request that lists only keys, for a cheap sweep: each entry is a record with the key's columns, or the key itself."""

    path: str | None = None
    parameters: dict[str, str] = Option(default_factory=dict)
    records: str | None = None


class StateOptions(OptionPart):
    """A cheap request whose answer differs, in the dotted path `field`, whenever the data may differ."""

    path: str
    field: str


class SuccessOptions(OptionPart):
    """For an API that answers 200 to everything: the dotted path of its own code, and the codes that mean success.

    `statuses`: the HTTP statuses that other codes stand for (`{10429: 429, 40101: 401}`). A code from 400 to 599 stands for the status
    of that number, unless it is declared.
    """

    field: str
    values: tuple[int | str | bool, ...]
    statuses: dict[int | str, int] = Option(default_factory=dict)

    @field_validator("statuses")
    @classmethod
    def _failures(cls, statuses: dict[int | str, int]) -> dict[int | str, int]:
        if any(not 400 <= status <= 599 for status in statuses.values()):
            raise ValueError("a code that is no success stands for a status from 400 to 599")
        return statuses

    def status(self, code: Any, status: int) -> int:
        """What an answer of this HTTP status and code comes down to, as an HTTP status; -1 for a refusal of no known kind."""
        if code in self.values:
            return status
        if not isinstance(code, (int, str)):
            return -1
        declared = next((found for name, found in self.statuses.items() if str(name) == str(code)), None)
        number = int(code) if str(code).isdecimal() else -1
        return declared or (number if 400 <= number <= 599 else -1)


class EtagOptions(OptionPart):
    """Where the API shows a record's etag: in a `header` (`ETag`) of the answer that holds an item alone, or in the dotted path `field`
    of each record.

    Each write then carries If-Match, or If-None-Match: * where there was no record, and the API must refuse it (412) if the record
    is no longer in that state.
    """

    header: str | None = None
    field: str | None = None

    @model_validator(mode="after")
    def _shown(self) -> EtagOptions:
        if (self.header is None) == (self.field is None):
            raise ValueError("name either the `header` or the `field` that shows the etag")
        return self


class WriteOptions(OptionPart):
    """One kind of write. `path` may use {path} and {key}.

    `record`: dotted path at which the record stands in the request ("": it is the whole of it). `fixed`: what else each record
    must hold, by dotted path (`{type: residents}`).
    """

    method: Method
    path: str | None = None
    record: str = ""
    fixed: dict[str, Any] = Option(default_factory=dict)


class FailedOptions(OptionPart):
    """Where the answer to a bulk write tells which records were not written: an entry of the list `records` for each.

    `key`: dotted path of the record's key in an entry ("": the entry itself; without it the columns of the key, as in a record).
    `field`: then each record sent has an entry, and failed unless the entry shows one of `values` there. To a deletion, a record
    that was not there is no failure: name the code for it, too.
    """

    records: str
    key: str | None = None
    field: str | None = None
    values: tuple[int | str | bool, ...] = ()

    @model_validator(mode="after")
    def _told(self) -> FailedOptions:
        if bool(self.field) != bool(self.values):
            raise ValueError("`field` and `values` go together")
        return self


class BulkWriteOptions(OptionPart):
    """One request for up to `size` records (None: as its level's manners say).

    `path` may use {path} and, for a deletion, {keys} (joined by commas; then without a body). `records`: dotted path of the list in the
    request. `fixed`: as for single writes. `keys`: whether a deletion lists `records` of the key's columns, or bare `values`. `failed`:
    see there. `written`: dotted path of the number of records written. Without either, a request that succeeds has written all of its
    records.
    """

    method: Method = "POST"
    path: str = "{path}"
    size: int | None = Option(default=None, ge=1, le=10_000)
    records: str = ""
    fixed: dict[str, Any] = Option(default_factory=dict)
    keys: Literal["records", "values"] = "records"
    failed: FailedOptions | None = None
    written: str | None = None


class BulkOptions(OptionPart):
    """Writes of many records at once, where the API has them."""

    upsert: BulkWriteOptions | None = None
    delete: BulkWriteOptions | None = None


class ShowOptions(OptionPart):
    """The write that replaces the corrections shown to people by a JSON list: all of them, each time. `path` may use {path}.

    Each entry is an object: the key's columns as in a record, and `correction_id`, `kind`, `field`, `current`, `proposed`,
    `raised_by`, `raised`, `due`, `state`, `reason` (`connectors.base.correction_schema`).
    """

    method: Method = "PUT"
    path: str


class ReturnsOptions(OptionPart):
    """The write that replaces the returns shown to people by a JSON list: all of them, each time. `path` may use {path}.

    Each entry is an object: the key's columns as in a record, and `return_id`, `field` (the API's own path of it), `rule`, `reason_zh`,
    `reason_en`, `hop`, `since`, `state`: `open`, `replay`, or, in the one call after its end, `closed`.
    """

    method: Method = "PUT"
    path: str


class RulingsOptions(OptionPart):
    """A request for what people ruled: a list, at the dotted path `records`, of {correction_id, ruling, reason}.

    An entry without a ruling is one that people have not ruled on.
    """

    path: str
    records: str = ""


class CorrectionsOptions(OptionPart):
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
    `auth`: how to prove who we are; `token` is short for a bearer token. `etag`: makes each write conditional. `bulk`: takes precedence
    over `upsert` and `delete`; it must create what is missing. `key_style`: how a key stands in an address, `plain` (composite keys
    joined by commas) or `odata` (`'R1'`, `id='R1',no=2`). `requests_per_second`: over all nodes of the process that share `base_url`;
    undeclared, as its level's manners say, and with None there is no limit.
    `requests_per_run`: after so many requests of one run it stops with an error; what it wrote is found by the next one.
    `documents`: whether a json field stands in a record as it is (`values`) or in a text (`texts`). Declare `texts` for an API whose
    PATCH merges objects at any depth (RFC 7396), which would keep the members that a new value has no more.
    `corrections`: where people see corrections and rule on them; without it, they cannot. `returns`: where they see what is handed back to
    them.
    """

    base_url: str
    path: str
    auth: AuthOptions | None = None
    token: Secret | None = None
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
    bulk: BulkOptions = BulkOptions()
    etag: EtagOptions | None = None
    key_style: Literal["plain", "odata"] = "plain"
    corrections: CorrectionsOptions | None = None
    returns: ReturnsOptions | None = None
    item_reads: bool = True
    omits_nulls: bool = False
    times: str = "iso"
    documents: Literal["values", "texts"] = "values"
    timeout: tuple[float, float] = (10.0, 60.0)
    ca: Path | None = None
    requests_per_second: float | None = Option(default=None, gt=0)
    requests_per_run: int | None = Option(default=None, gt=0)
    headers: dict[str, str] = Option(default_factory=dict)
    idempotency_header: str | None = "Idempotency-Key"

    @field_validator("base_url")
    @classmethod
    def _plain(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must be http(s)://host[:port][/prefix]")
        if parts.username or parts.password:
            raise ValueError("must not hold credentials; use `auth`")
        return url.rstrip("/")

    @field_validator("headers")
    @classmethod
    def _harmless(cls, headers: dict[str, str]) -> dict[str, str]:
        if any(name.lower() in ("authorization", "cookie") for name in headers):
            raise ValueError("credentials go into `auth`")
        return headers

    @property
    def proof(self) -> AuthOptions | None:
        """How to prove who we are."""
        return BearerOptions(kind="bearer", token=self.token) if self.token else self.auth

    def rate(self, manners: Manners) -> Rate | None:
        """How many requests the API bears: as declared, else by its level's manners; None: no limit."""
        if "requests_per_second" not in self.model_fields_set:
            return manners.rate
        return Rate(self.requests_per_second) if self.requests_per_second else None

    @property
    def writes(self) -> bool:
        """Whether records can be written."""
        return self.upsert is not None or self.bulk.upsert is not None

    @model_validator(mode="after")
    def _consistent(self) -> RestOptions:
        if self.token and self.auth:
            raise ValueError("`token` is short for a bearer token: declare either it or `auth`")
        if self.etag and (self.bulk.upsert or self.bulk.delete):
            raise ValueError(
                "writes with `etag` are single ones: an API cannot refuse one record of many by its etag; declare either"
            )
        if self.etag and self.etag.header and not self.item_reads:
            raise ValueError("etags in a header are read with the items: they need `item_reads`")
        return self

    @model_validator(mode="after")
    def _addressed(self) -> RestOptions:
        if "{key}" not in self.item_path:
            raise ValueError("item_path must contain {key}")
        if self.times not in ("iso", "seconds", "milliseconds") and "%" not in self.times:
            raise ValueError("times must be iso, seconds, milliseconds or a strftime pattern")
        return self
