"""Hosted companion: a system that lacks some columns, made whole by a table that the engine keeps for exactly these.

Weak nodes must not break the chain: the fields pass through the companion and the hop goes on. The companion is read whole
(it is the engine's own and holds keys of one node only); a row that the system does not have is not a row.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa

from connectors.base import Applied, Batch, Capabilities, Changes, Connector, Node, Probe, no_keys


class CompanionConnector(Connector):
    """`main`: the system, whose node lacks `lacking`; `side`: the hosted table with the key and these fields."""

    def __init__(self, node: Node, main: Connector, side: Connector) -> None:
        super().__init__(node)
        self.main = main
        self.side = side
        self.keys = list(node.dataset.key)
        self.lacking = [name for name in side.node.fields if name not in self.keys]

    @property
    def capabilities(self) -> Capabilities:
        return self.main.capabilities

    def probe(self) -> Probe:
        main, side = self.main.probe(), self.side.probe()
        token = None if main.token is None else json.dumps([main.token, side.token])
        return Probe(token, main.detail)

    def prepare(self) -> None:
        self.main.prepare()
        self.side.prepare()

    def changes(self, since: str | None, *, sweep: bool = True) -> Changes:
        main_since, side_since = _parts(since)
        kept = self.side.changes(None)
        found = self.main.changes(main_since, sweep=sweep)
        if side_since is not None and kept.cursor != side_since:
            found = self._with_touched(found, kept)
        return replace(self._joined(found, kept), cursor=json.dumps([found.cursor, kept.cursor]))

    def _with_touched(self, found: Changes, kept: Changes) -> Changes:
        """Add the system's rows whose companion may have changed but which did not change themselves."""
        missing = kept.rows.select(self.keys).join(found.rows.select(self.keys), self.keys, join_type="left anti")
        if not missing.num_rows:
            return found
        more = self.main.fetch(missing)
        return replace(
            found,
            rows=pa.concat_tables([found.rows, more.rows]),
            rejects=pa.concat_tables([found.rejects, more.rejects]),
        )

    def fetch(self, keys: pa.Table) -> Changes:
        return self._joined(self.main.fetch(keys), self.side.changes(None))

    def apply(self, batch: Batch) -> Applied:
        """The companion first: if the system then fails, the companion holds a value for a row that is tried again.

        A system that refuses writes decided on an older read is asked before, with an empty batch, so that its Conflict leaves
        the companion as it was.
        """
        main_since, side_since = _parts(batch.cursor)
        main_token, side_token = _parts(batch.token)
        conditional = self.main.capabilities.conditional and main_since is not None
        if conditional:
            main_since = self.main.apply(Batch((), no_keys(self.node), main_since)).cursor
        parts = tuple(part for rows in batch.upserts if (part := self._part(rows, self.lacking)) is not None)
        side = self.side.apply(Batch(parts, batch.deletes, side_since if conditional else None, side_token))
        own = [name for name in self.node.fields if name not in self.lacking and name not in self.keys]
        main = tuple(
            part if (part := self._part(rows, own)) is not None else rows.select(self.keys) for rows in batch.upserts
        )
        applied = self.main.apply(Batch(main, batch.deletes, main_since, main_token))
        cursor = None if applied.cursor is None else json.dumps([applied.cursor, side.cursor])
        alone = applied.token is not None and side.token is not None
        return replace(applied, cursor=cursor, token=json.dumps([applied.token, side.token]) if alone else None)

    def notify(self, returns: pa.Table) -> None:
        self.main.notify(returns)

    def show_corrections(self, corrections: pa.Table) -> None:
        self.main.show_corrections(corrections)

    def rulings(self) -> pa.Table:
        return self.main.rulings()

    def close(self) -> None:
        self.main.close()
        self.side.close()

    def _part(self, rows: pa.Table, fields: list[str]) -> pa.Table | None:
        named = [name for name in rows.column_names if name in fields]
        return rows.select([*self.keys, *named]) if named else None

    def _joined(self, found: Changes, kept: Changes) -> Changes:
        rows = found.rows.select([name for name in found.rows.column_names if name not in self.lacking])
        if kept.rows.num_rows:
            whole = rows.join(kept.rows.select([*self.keys, *self.lacking]), self.keys, join_type="left outer")
        else:
            whole = rows
            for name in self.lacking:
                whole = whole.append_column(name, pa.nulls(rows.num_rows, self.node.schema.field(name).type))
        return replace(found, rows=whole.select(self.node.schema.names).cast(self.node.schema))


def _parts(cursor: str | None) -> tuple[str | None, str | None]:
    """The system's cursor and the companion's; what is no cursor of ours means: from the beginning."""
    try:
        held = json.loads(cursor or "null")
    except ValueError:
        return None, None
    return (held[0], held[1]) if isinstance(held, list) and len(held) == 2 else (None, None)
