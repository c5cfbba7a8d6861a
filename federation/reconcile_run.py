"""A link run that looks again at some keys at both ends, whatever the cursors say: how a comparison repairs what it found."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from connectors.base import Connector
from federation.config import Link
from federation.ledger.links import LinkState
from federation.link import Ends, LinkRun
from federation.reading import Reading, read_keys
from federation.services import Services

MOST = 20_000
"""Keys up to which both ends are asked for just these; beyond, they are read whole."""


class KeyedRun(LinkRun):
    """The ordinary merge, with its authority, gate, guards, corrections and protocol, over these keys (as text).

    Cursors and tokens stay where they were, so that news which nobody has read yet stays news. An end that cannot be asked by key, or
    refuses a write as a whole, is read as in any other run, with these keys besides. A link that is due to be compared whole is.
    """

    def __init__(self, services: Services, link: Link, ends: Ends, keys: Collection[str]) -> None:
        super().__init__(services, link, ends, force_full=len(keys) > MOST)
        self.keys = frozenset(keys)

    def _again(self, state: LinkState) -> dict[str, set[str]]:
        return {side: keys | self.keys for side, keys in super()._again(state).items()}

    def _read_end(
        self, end: Connector, state: LinkState, full: bool, again: set[str], cursor: str | None, token: str | None
    ) -> Reading:
        able = end.capabilities
        if full or not able.keyed_reads or able.conditional:
            return super()._read_end(end, state, full, again, cursor, token)
        return replace(read_keys(end, again), since=cursor, cursor=cursor, token=token)
