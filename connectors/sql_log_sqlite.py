"""The change table in SQLite: positions are numbers.

One writer at a time: numbers are given in the order of commits, so what is committed later has a greater one. A number that was
given again after a restore is told by the line's random mark.

`INSERT OR REPLACE` removes rows that stand in the way of the new one, and SQLite fires no trigger for them. Where the table has a
unique index that could do so under another key, a trigger before the write notes the rows in the way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from sqlalchemy import Column, Connection, Table, func, insert, literal, select, text

from connectors.sql_log_table import AT_ONCE, TRIGGERS, ChangeTable, Standing, run
from connectors.sql_sqlite import is_comparable
from federation.contract import FieldSpec

_BEFORE = ("before_insert", "before_update")
_LOOK = text(
    "SELECT (SELECT type || ':' || sql FROM sqlite_master WHERE name = :data AND type IN ('table', 'view')), "
    "(SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN (:name, :state)), "
    "(SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND tbl_name = :data COLLATE NOCASE "
    "AND name IN (:insert, :update, :delete))"
)


class SqliteChanges(ChangeTable):
    """See the module."""

    marks: ClassVar[tuple[str, ...]] = ("log_seq", "log_mark", "log_at", "log_op")

    # --- making it and removing it

    def look(self, connection: Connection, data: Table) -> Standing | None:
        triggers = {event: f"{self.name}_{event}" for event in TRIGGERS}
        given = {"data": self.table, "name": self.name, "state": self.state, **triggers}
        shape, tables, found = connection.execute(_LOOK, given).one()
        if tables < 2 or found < len(TRIGGERS):
            return None
        state = connection.execute(select(*self.states.c)).mappings().first()
        if state is None:
            return None
        self._checked(dict(state))
        marked = self.marked
        newest = select(marked.c.log_seq, marked.c.log_mark).order_by(marked.c.log_seq.desc()).limit(1)
        line = connection.execute(newest).first()
        seq = 0 if line is None else int(line.log_seq)
        epoch = f"{state['epoch']}.{hashlib.sha256(str(shape).encode()).hexdigest()[:12]}"
        return Standing(
            epoch,
            str(seq),
            None if line is None else f"{seq}@{line.log_mark}",
            f"{epoch}:{seq}",
            int(state["purged"]),
            bool(state["untidy"]),
        )

    def install(self, connection: Connection, data: Table) -> None:
        kind = connection.execute(text("SELECT type FROM sqlite_master WHERE name = :name"), {"name": self.table})
        if kind.scalar() == "view":
            raise self.mismatch(
                f"{self.table} is a view: triggers there do not see its rows change",
                f"{self.table} 是视图，触发器无法捕获其变化",
                "改为 capture: cursor 或 snapshot，或将 table 指向基表"
                " / set `capture: cursor` or `snapshot`, or name the base table under `table`",
            )
        log, place = self._quoted(self.name), self._quoted(self.table)
        kept = "".join(f", {self._quoted(name)}" for name in self.keys.values())
        columns = [self._quoted(self.node.column(field)) for field in self.keys]
        into = f"INSERT INTO {log} (log_op{kept})"
        moved = " OR ".join(
            f"NEW.{name} IS NOT OLD.{name} OR typeof(NEW.{name}) <> typeof(OLD.{name})" for name in columns
        )
        new, old = (", ".join(f"{row}.{name}" for name in columns) for row in ("NEW", "OLD"))
        bodies = {
            "insert": f"{into} VALUES ('I', {new});",
            "update": f"{into} VALUES ('U', {new}); {into} SELECT 'U', {old} WHERE {moved};",
            "delete": f"{into} VALUES ('D', {old});",
        }
        run(
            connection,
            f"CREATE TABLE {log} (log_seq INTEGER PRIMARY KEY AUTOINCREMENT, "
            "log_mark TEXT NOT NULL DEFAULT (hex(randomblob(8))), "
            f"log_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')), log_op TEXT NOT NULL{kept})",
            f"CREATE TABLE {self._quoted(self.state)} (epoch TEXT NOT NULL, key_columns TEXT NOT NULL, "
            "purged INTEGER NOT NULL, untidy INTEGER NOT NULL)",
            *(
                f"CREATE TRIGGER {self._quoted(f'{self.name}_{event}')} AFTER {event.upper()} ON {place} BEGIN {body} END"
                for event, body in bodies.items()
            ),
            *self._of_replaced(connection, into, columns),
        )
        connection.execute(insert(self.states).values(self._first_state()))

    def _of_replaced(self, connection: Connection, into: str, columns: Sequence[str]) -> Iterator[str]:
        """Triggers that note the rows that a write may replace."""
        place = self._quoted(self.table)
        lines = []
        for unique in self._others_unique(connection):
            same = " AND ".join(f"t.{self._quoted(name)} = NEW.{self._quoted(name)}" for name in unique)
            lines.append(
                f"{into} SELECT 'D', {', '.join(f't.{name}' for name in columns)} FROM {place} t WHERE {same};"
            )
        if lines:
            for name in _BEFORE:
                event = name.removeprefix("before_").upper()
                trigger = self._quoted(f"{self.name}_{name}")
                yield f"CREATE TRIGGER {trigger} BEFORE {event} ON {place} BEGIN {' '.join(lines)} END"

    def _others_unique(self, connection: Connection) -> list[tuple[str, ...]]:
        """The sets of columns that are unique, other than the key."""
        columns = connection.execute(text("SELECT name, pk FROM pragma_table_info(:name)"), {"name": self.table}).all()
        found = {tuple(name for name, place in columns if place)}
        indexes = text('SELECT name FROM pragma_index_list(:name) WHERE "unique"')
        for index in connection.execute(indexes, {"name": self.table}).scalars().all():
            members = connection.execute(text("SELECT name FROM pragma_index_info(:name)"), {"name": index})
            found.add(tuple(name for name in members.scalars() if name is not None))
        keys = {self.node.column(field) for field in self.keys}
        return sorted(names for names in found if names and set(names) != keys)

    def uninstall(self, connection: Connection) -> None:
        tables = {}
        for name in (self.name, self.state):
            columns = (
                connection.execute(text("SELECT name FROM pragma_table_info(:name)"), {"name": name}).scalars().all()
            )
            if columns:
                tables[name] = columns
        self._refuse_strangers(tables)
        run(
            connection,
            *(f"DROP TRIGGER IF EXISTS {self._quoted(f'{self.name}_{event}')}" for event in (*TRIGGERS, *_BEFORE)),
            *(f"DROP TABLE IF EXISTS {self._quoted(name)}" for name in (self.name, self.state)),
        )

    # --- reading it

    def since(self, lines: Table, position: str) -> Any:
        return lines.c.log_seq > int(position)

    def reaches(self, position: str, standing: Standing) -> bool:
        return int(position) + 1 >= standing.purged

    def remembers(self, connection: Connection, anchor: str) -> bool:
        seq, _, mark = anchor.partition("@")
        marked = self.marked
        same = select(literal(1)).where(marked.c.log_seq == int(seq), marked.c.log_mark == mark)
        return connection.execute(same).first() is not None

    def exact(self, spec: FieldSpec, column: Column[Any]) -> bool:
        return is_comparable(spec, column)

    # --- our own writes

    def begin(self, connection: Connection, data: Table) -> Standing | None:
        return self.look(connection, data)

    def ours(
        self, connection: Connection, data: Table, before: Standing | None, token: str, touched: int
    ) -> Standing | None:
        """Nobody else can write between `begin` and the end of our transaction."""
        if before is None or before.token != token:
            return None
        marked = self.marked
        new = select(func.count()).select_from(marked).where(self.since(marked, before.position))
        after = self.look(connection, data)
        alone = connection.execute(new).scalar_one() == touched
        return after if alone and after is not None and after.epoch == before.epoch else None

    # --- keeping it small

    def purge(self, days: float) -> None:
        marked, states = self.marked, self.states
        seq = marked.c.log_seq
        young = marked.c.log_at >= func.strftime("%Y-%m-%d %H:%M:%f", "now", f"-{days * 86_400.0:.3f} seconds")
        with self.database.reading() as connection:
            first = connection.execute(select(seq).where(young).order_by(seq).limit(1)).scalar()
            old = select(func.max(seq)) if first is None else select(func.max(seq)).where(seq < first)
            limit, oldest = connection.execute(old).scalar(), connection.execute(select(func.min(seq))).scalar()
        if limit is None or oldest is None or oldest >= limit:
            return
        with self.database.writing() as connection:
            connection.execute(states.update().values(purged=func.max(states.c.purged, limit)))
        for start in range(oldest, limit, AT_ONCE):
            with self.database.writing() as connection:
                some = (seq >= start) & (seq < min(start + AT_ONCE, limit))
                connection.execute(marked.delete().where(some))

    def _quoted(self, name: str) -> str:
        return '"' + name.replace('"', '""') + '"'
