"""Reading a collection page by page without losing a row while people work on it.

Numbered pages move under the reader: a row that is added makes later ones appear twice (harmless: the last one read wins), a
row that is deleted makes one slip through between two pages. A row that slips through would be taken for a deleted one, so:
by offset, each page begins with the last row of the page before, and the reader steps back if that is not a row it has seen;
by page number, a total that shrinks stops the read as Transient. A short page is never taken for the last: servers cap sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from requests.utils import parse_header_links

from connectors.rest_client import Answer, Client
from connectors.rest_json import MISSING, dig
from connectors.rest_options import PagingOptions
from federation.errors import Permanent, SchemaMismatch, Transient

_STEPS_BACK = 100
_BARREN = 2
"""So many pages in a row with nothing new end the read: some servers answer pages past the end with the last page again.
One is not enough, since rows that are added in bulk can push a whole page of known rows to the next number."""

KeyOf = Callable[[Any], Hashable]


@dataclass(frozen=True)
class Page:
    """The records of one answer. `label` tells a person which page it was."""

    records: list[Any]
    label: str
    answer: Answer
    total: int | None


class Pages:
    """Reads a collection. `key_of`: what tells records apart."""

    def __init__(self, client: Client, paging: PagingOptions, key_of: KeyOf) -> None:
        self.client = client
        self.paging = paging
        self.key_of = key_of

    def read(self, path: str, parameters: Mapping[str, Any], records: str) -> Iterator[Page]:
        """All pages, in order; a row may stand on several. Raises Transient if the list moved too much to be read whole."""
        read = {
            "page": self._by_page,
            "offset": self._by_offset,
            "cursor": self._by_cursor,
            "link": self._by_link,
            "none": self._whole,
        }[self.paging.kind]
        return read(path, dict(parameters), records)

    def _page(self, path: str, parameters: Mapping[str, Any], records: str, label: str) -> Page:
        answer = self.client.get(path, parameters)
        found = dig(answer.data, records)
        total = self._total(answer)
        # Some servers write an empty list as null. Only where they also count 0 is it not a fault: emptiness erases.
        if found is None and total == 0:
            found = []
        if not isinstance(found, list):
            raise SchemaMismatch(
                f"the answer has no list at {records or '(top)'}",
                f"应答在 {records or '顶层'} 处没有列表",
                todo="核对 records / check `records`",
                # Without the query: the next page's address may hold a key.
                request=f"GET {urlsplit(path).path}",
            )
        return Page(found, label, answer, total)

    def _total(self, answer: Answer) -> int | None:
        if not self.paging.total:
            return None
        value = dig(answer.data, self.paging.total)
        try:
            return int(value)
        except (TypeError, ValueError):
            raise SchemaMismatch(
                f"the answer has no number at {self.paging.total}",
                f"应答在 {self.paging.total} 处没有总数",
                todo="核对 paging.total / check `paging.total`",
            ) from None

    def _sized(self, parameters: dict[str, Any]) -> dict[str, Any]:
        return (
            {**parameters, self.paging.size_parameter: self.paging.size} if self.paging.size_parameter else parameters
        )

    def _whole(self, path: str, parameters: dict[str, Any], records: str) -> Iterator[Page]:
        page = self._page(path, parameters, records, path)
        yield page
        self._counted(len(page.records), page.total)

    def _by_page(self, path: str, parameters: dict[str, Any], records: str) -> Iterator[Page]:
        assert self.paging.parameter
        seen: set[Hashable] = set()
        number, received, barren = self.paging.first, 0, 0
        total: int | None = None
        while True:
            asked = self._sized({**parameters, self.paging.parameter: number})
            page = self._page(path, asked, records, f"{path} {self.paging.parameter}={number}")
            if total is not None and page.total is not None and page.total < total:
                raise self._moved()
            total, received = page.total, received + len(page.records)
            yield page
            fresh = {self.key_of(record) for record in page.records} - seen
            barren = 0 if fresh else barren + 1
            seen |= fresh
            if not page.records or barren == _BARREN or (total is not None and received >= total):
                break
            number += 1
        self._counted(received, total)

    def _by_offset(self, path: str, parameters: dict[str, Any], records: str) -> Iterator[Page]:
        assert self.paging.parameter
        seen: set[Hashable] = set()
        start = self.paging.first
        position, barren, back = start, 0, 0
        while True:
            anchored = position > start
            first = position - 1 if anchored else start
            asked = self._sized({**parameters, self.paging.parameter: first})
            page = self._page(path, asked, records, f"{path} {self.paging.parameter}={first}")
            keys = [self.key_of(record) for record in page.records]
            if anchored and (not keys or keys[0] not in seen):
                # Rows before this one were deleted and the list moved to the left: go back to where a known row stands.
                position, back = max(start, position - self.paging.size), back + 1
                if back > _STEPS_BACK:
                    raise self._moved()
                continue
            yield page
            barren = 0 if set(keys) - seen else barren + 1
            seen.update(keys)
            position = first + len(keys)
            only_known = anchored and len(keys) == 1
            if (
                not keys
                or only_known
                or barren == _BARREN
                or (page.total is not None and position - start >= page.total)
            ):
                return

    def _by_cursor(self, path: str, parameters: dict[str, Any], records: str) -> Iterator[Page]:
        assert self.paging.parameter and self.paging.next
        asked, received, used = self._sized(parameters), 0, set[str]()
        while True:
            page = self._page(path, asked, records, f"{path} #{len(used) + 1}")
            received += len(page.records)
            yield page
            following = dig(page.answer.data, self.paging.next)
            if following is MISSING or following in (None, "", False):
                return self._counted(received, page.total)
            self._unused(str(following), used)
            asked = self._sized({**parameters, self.paging.parameter: following})

    def _by_link(self, path: str, parameters: dict[str, Any], records: str) -> Iterator[Page]:
        address, asked, received, used = path, self._sized(parameters), 0, set[str]()
        while True:
            page = self._page(address, asked, records, f"{path} #{len(used) + 1}")
            received += len(page.records)
            yield page
            following = self._next_link(page.answer)
            if not following:
                return self._counted(received, page.total)
            self._unused(following, used)
            address, asked = self.client.resolve(page.answer.url, following), {}

    def _next_link(self, answer: Answer) -> str | None:
        if self.paging.next:
            found = dig(answer.data, self.paging.next)
            return str(found) if found is not MISSING and found else None
        links = parse_header_links(answer.headers.get("Link", ""))
        return next((str(link["url"]) for link in links if link.get("rel") == "next"), None)

    def _unused(self, mark: str, used: set[str]) -> None:
        if mark in used:
            raise Permanent(
                "the API names the same next page again: the list would never end",
                "接口反复给出同一下一页，列表没有尽头",
                todo="核对 paging / check `paging`",
            )
        used.add(mark)

    def _counted(self, received: int, total: int | None) -> None:
        if total is not None and received < total:
            raise Transient(
                f"the API counts {total} rows but gave {received}",
                f"接口称共 {total} 条，只给出 {received} 条",
                todo="若一直如此，请核对 paging / if it stays, check `paging`",
            )

    def _moved(self) -> Transient:
        return Transient(
            "rows were deleted while the list was read; it must be read again",
            "读取期间有记录被删除，需要重读",
        )
