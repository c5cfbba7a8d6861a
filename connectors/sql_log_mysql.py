"""The change table in MySQL and MariaDB: lines are numbered by the reader, after their commit.

These databases do not tell in which order transactions committed, and the values of an AUTO_INCREMENT column are given before: a
line with a smaller one may become visible later. So a trigger leaves `log_batch` empty, and whoever reads or probes first numbers
what has been committed: in a transaction that locks the state's line, all lines that are visible and have no batch get the next one,
and the state keeps the number. Hence

1. a line gets its batch once, after its transaction has committed, however long that took;
2. batches and the state's number are committed together, one numbering after the other: whoever sees the number n in the state
   sees all lines of the batches up to n, and lines that are numbered later belong to later batches.

So the lines after a position n are those with a batch above n, in whatever order transactions began, wrote and committed. It needs no
right to look into other people's transactions. Numbering waits for nobody and keeps nobody waiting: it finds lines in a plain
consistent read, which sees nothing uncommitted, and touches each by its primary key; nobody else ever touches a line.

Our own lines are numbered in the transaction that wrote them, at its end, under the same lock.

What fires no trigger: foreign keys with CASCADE or SET NULL (such a table is refused), a column or a whole table rewritten by ALTER
TABLE (told by the table's time of creation, which the epoch holds), and TRUNCATE, of a partition as well: it gives the table a new
number inside InnoDB, which MariaDB tells an account that has the right PROCESS, and which the epoch then holds. Else an empty table
is read whole, and one that was filled again is noticed at the next full comparison.

Triggers work with the rights of the account that installed them; if it is dropped, writes to the table fail.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from sqlalchemy import (
    Connection,
    LargeBinary,
    String,
    Table,
    cast,
    func,
    insert,
    literal,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError

from connectors.sql_log_table import AT_ONCE, STATE, TRIGGERS, ChangeTable, Standing, run
from connectors.sql_mysql import SESSION
from connectors.sql_mysql_errors import DENIED, number_of

WAIT = 5
"""Seconds that a trigger's creation waits for the table's open transactions; those behind it wait as long."""
_NO_SUPER = 1419
"""Binary logging is on and the server trusts no creator of triggers."""
_NARROW = ("char", "varchar")
_INTEGERS = ("tinyint", "smallint", "mediumint", "int", "bigint")
_TEXTS = ("tinytext", "text", "mediumtext", "longtext")

_LOOK = text("""
SELECT (SELECT CREATE_TIME FROM information_schema.TABLES WHERE TABLE_SCHEMA = coalesce(:place, DATABASE())
        AND TABLE_NAME = :data) AS made,
    (SELECT count(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = coalesce(:place, DATABASE())
        AND TABLE_NAME = :name) AS lines_there,
    (SELECT count(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = coalesce(:place, DATABASE())
        AND TABLE_NAME = :state) AS state_there,
    (SELECT count(*) FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = coalesce(:place, DATABASE())
        AND EVENT_OBJECT_TABLE = :data AND TRIGGER_NAME IN (:insert, :update, :delete)) AS triggers
""")
_FILE = "CONVERT(CAST(CONVERT({} USING filename) AS BINARY) USING utf8mb4)"
_NAME = f"CONCAT({_FILE.format('coalesce(:place, DATABASE())')}, '/', {_FILE.format(':data')})"
_NUMBERS = text(
    "SELECT TABLE_ID FROM information_schema.INNODB_SYS_TABLES "
    f"WHERE NAME = {_NAME} OR LEFT(NAME, CHAR_LENGTH({_NAME}) + 3) = CONCAT({_NAME}, '#P#') ORDER BY TABLE_ID"
)
"""InnoDB's numbers of a table, or of each of its partitions; it names them as it names their files."""
_COLUMNS = text(
    "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, COLLATION_NAME FROM information_schema.COLUMNS "
    "WHERE TABLE_SCHEMA = coalesce(:place, DATABASE()) AND TABLE_NAME = :name ORDER BY ORDINAL_POSITION"
)
_CASCADES = text(
    "SELECT CONSTRAINT_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS "
    "WHERE CONSTRAINT_SCHEMA = coalesce(:place, DATABASE()) AND TABLE_NAME = :name "
    "AND (UPDATE_RULE IN ('CASCADE', 'SET NULL') OR DELETE_RULE IN ('CASCADE', 'SET NULL'))"
)


class MysqlChanges(ChangeTable):
    """See the module."""

    marks: ClassVar[tuple[str, ...]] = ("log_seq", "log_batch", "log_writer", "log_at", "log_op")
    stated: ClassVar[tuple[str, ...]] = (*STATE, "batch", "key_types")

    # --- making it and removing it

    def look(self, connection: Connection, data: Table) -> Standing | None:
        triggers = {event: f"{self.name}_{event}" for event in TRIGGERS}
        given = {"place": self.schema, "data": self.table, "name": self.name, "state": self.state, **triggers}
        found = connection.execute(_LOOK, given).one()
        if not found.lines_there or not found.state_there or found.triggers < len(TRIGGERS):
            return None
        state = connection.execute(select(*self.states.c)).mappings().first()
        if state is None:
            return None
        self._checked(dict(state))
        if state["key_types"] != " ".join(self._key_types(connection)):
            return None  # the key has another type now: made anew, it can keep it
        made = " ".join([str(found.made), *self._numbers(connection)])
        epoch = f"{state['epoch']}.{hashlib.sha256(made.encode()).hexdigest()[:12]}"
        marked = self.marked
        batch = marked.c.log_batch
        newest = (
            select(marked.c.log_seq, cast(marked.c.log_at, String).label("log_at"))
            .where(batch == select(func.max(batch)).scalar_subquery())
            .order_by(marked.c.log_seq.desc())
            .limit(1)
        )
        line = connection.execute(newest).first()
        return Standing(
            epoch,
            str(state["batch"]),
            None if line is None else f"{line.log_seq}@{line.log_at}",
            f"{epoch}:{state['batch']}{':empty' if (empty := self._is_empty(connection, data)) else ''}",
            int(state["purged"]),
            bool(state["untidy"]),
            behind=connection.execute(select(literal(1)).where(batch.is_(None)).limit(1)).first() is not None,
            empty=empty,
        )

    def _numbers(self, connection: Connection) -> list[str]:
        """What MariaDB's InnoDB calls the data table now; nothing where the account may not know."""
        dialect: Any = self.database.engine.dialect
        if not dialect.is_mariadb:
            return []
        try:
            found = connection.execute(_NUMBERS, {"place": self.schema, "data": self.table})
        except DBAPIError as error:
            if number_of(error.orig) not in DENIED:
                raise
            return []
        return [str(number) for number in found.scalars()]

    def _is_empty(self, connection: Connection, data: Table) -> bool:
        return connection.execute(select(literal(1)).select_from(data).limit(1)).first() is None

    def install(self, connection: Connection, data: Table) -> None:
        self._refuse_unfit(connection)
        types = self._key_types(connection)
        log, place = self._full(self.name), self._full(self.table)
        names = [self._quoted(name) for name in self.keys.values()]
        kept = "".join(f", {name} {kind} NULL" for name, kind in zip(names, types))
        try:
            run(
                connection,
                f"CREATE TABLE {log} (log_seq bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, "
                "log_batch bigint unsigned NULL, log_writer bigint unsigned NOT NULL, "
                "log_at timestamp(6) NOT NULL DEFAULT current_timestamp(6), log_op char(1) NOT NULL"
                f"{kept}, INDEX (log_batch)) ENGINE = InnoDB CHARACTER SET utf8mb4",
                f"CREATE TABLE {self._full(self.state)} (epoch varchar(40) NOT NULL, key_columns text NOT NULL, "
                "purged bigint unsigned NOT NULL, untidy int NOT NULL, batch bigint unsigned NOT NULL, "
                "key_types text NOT NULL) ENGINE = InnoDB CHARACTER SET utf8mb4",
            )
            self._create_triggers(connection, log, place, names)
        except Exception as cause:
            if number_of(getattr(cause, "orig", cause)) in DENIED | {_NO_SUPER}:
                raise self.denied(self._grants(connection)) from cause
            raise
        first = {**self._first_state(), "batch": 0, "key_types": " ".join(types)}
        connection.execute(insert(self.states).values(first))

    def _create_triggers(self, connection: Connection, log: str, place: str, names: Sequence[str]) -> None:
        """They keep the session's mode: without a strict one, no value of a key makes somebody's write fail."""
        columns = [self._quoted(self.node.column(field)) for field in self.keys]
        moved = " OR ".join(f"NOT (CAST(NEW.{name} AS BINARY) <=> CAST(OLD.{name} AS BINARY))" for name in columns)

        def line(op: str, row: str) -> str:
            values = ", ".join(f"{row}.{name}" for name in columns)
            into = f"INSERT INTO {log} (log_op, log_writer, {', '.join(names)})"
            return f"{into} VALUES ('{op}', CONNECTION_ID(), {values});"

        bodies = {
            "insert": line("I", "NEW"),
            "update": f"{line('U', 'NEW')} IF {moved} THEN {line('U', 'OLD')} END IF;",
            "delete": line("D", "OLD"),
        }
        lost = (
            "DECLARE CONTINUE HANDLER FOR 1146 BEGIN END;"  # nobody's write fails because the change table was dropped
        )
        run(connection, "SET SESSION sql_mode = ''", f"SET SESSION lock_wait_timeout = {WAIT}")
        try:
            for event, body in bodies.items():
                name = self._full(f"{self.name}_{event}")
                made = f"CREATE TRIGGER {name} AFTER {event.upper()} ON {place} FOR EACH ROW BEGIN {lost} {body} END"
                run(connection, made)
        finally:
            run(
                connection, f"SET SESSION sql_mode = '{SESSION['sql_mode']}'", "SET SESSION lock_wait_timeout = DEFAULT"
            )

    def uninstall(self, connection: Connection) -> None:
        tables = {}
        for name in (self.name, self.state):
            found = connection.execute(_COLUMNS, {"place": self.schema, "name": name}).mappings().all()
            if found:
                tables[name] = [column["COLUMN_NAME"] for column in found]
        self._refuse_strangers(tables)
        there = text(
            "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = coalesce(:place, DATABASE()) "
            "AND TRIGGER_NAME IN (:insert, :update, :delete)"
        )
        given = {event: f"{self.name}_{event}" for event in TRIGGERS}
        triggers = connection.execute(there, {"place": self.schema, **given}).scalars().all()
        run(connection, f"SET SESSION lock_wait_timeout = {WAIT}")
        try:
            run(
                connection,
                *(f"DROP TRIGGER IF EXISTS {self._full(name)}" for name in triggers),
                *(f"DROP TABLE IF EXISTS {self._full(name)}" for name in tables),
            )
        finally:
            run(connection, "SET SESSION lock_wait_timeout = DEFAULT")

    def _refuse_unfit(self, connection: Connection) -> None:
        given = {"place": self.schema, "name": self.table}
        kind = connection.execute(
            text(
                "SELECT TABLE_TYPE, ENGINE FROM information_schema.TABLES "
                "WHERE TABLE_SCHEMA = coalesce(:place, DATABASE()) AND TABLE_NAME = :name"
            ),
            given,
        ).first()
        cascades = connection.execute(_CASCADES, given).scalars().all()
        todo = "改为 capture: cursor 或 snapshot / set `capture: cursor` or `snapshot`"
        if kind is not None and kind[0] == "VIEW":
            raise self.mismatch(
                f"{self.table} is a view: triggers there do not see its rows change",
                f"{self.table} 是视图，触发器无法捕获其变化",
                "改为 capture: cursor 或 snapshot，或将 table 指向基表"
                " / set `capture: cursor` or `snapshot`, or name the base table under `table`",
            )
        if kind is not None and kind[1] != "InnoDB":
            raise self.mismatch(
                f"{self.table} is a table of {kind[1]}, whose changes do not belong to a transaction",
                f"{self.table} 使用 {kind[1]} 引擎，不支持事务",
                f"改用 InnoDB，或{todo}; or convert the table to InnoDB",
            )
        if cascades:
            raise self.mismatch(
                f"{self.table} has foreign keys that change its rows without firing a trigger: {', '.join(cascades)}",
                f"{self.table} 的外键级联修改不触发触发器：{', '.join(cascades)}",
                todo,
            )

    def _key_types(self, connection: Connection) -> list[str]:
        """The types of the key in the change table: as the data table's, and as wide as they may become.

        A column that the account has no right to is not listed at all.
        """
        found = connection.execute(_COLUMNS, {"place": self.schema, "name": self.table}).mappings()
        columns = {column["COLUMN_NAME"]: column for column in found}
        if any(self.node.column(field) not in columns for field in self.keys):
            raise self.denied(self._grants(connection))
        return [_widest(dict(columns[self.node.column(field)])) for field in self.keys]

    def _grants(self, connection: Connection) -> list[str]:
        """The documented rights: which of them is missing, the server says by halves only."""
        me, place = connection.execute(select(func.current_user(), func.coalesce(self.schema, func.database()))).one()
        user, _, host = me.rpartition("@")
        whom = f"'{user}'@'{host}'"
        rights = [
            f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP ON {self._quoted(place)}.{self._quoted(name)} TO {whom}"
            for name in (self.name, self.state)
        ]
        trusting = connection.execute(text("SELECT @@log_bin AND NOT @@log_bin_trust_function_creators")).scalar()
        return [
            f"GRANT TRIGGER ON {self._quoted(place)}.{self._quoted(self.table)} TO {whom}",
            *rights,
            *(["SET GLOBAL log_bin_trust_function_creators = 1"] if trusting else []),
        ]

    # --- numbering

    def catch_up(self) -> None:
        """In transactions of `AT_ONCE` lines, up to the last that is there now: nobody can write faster than this ends."""
        marked = self.marked
        with self.database.reading() as connection:
            last = connection.execute(select(func.max(marked.c.log_seq)).where(marked.c.log_batch.is_(None))).scalar()
        while last is not None:
            with self.database.writing() as connection:
                batch = self._locked(connection)["batch"] + 1
                waiting = select(marked.c.log_seq).where(marked.c.log_batch.is_(None), marked.c.log_seq <= last)
                lines = connection.execute(waiting.order_by(marked.c.log_seq).limit(AT_ONCE)).scalars().all()
                self._number(connection, lines, batch)
            if len(lines) < AT_ONCE:
                return

    def _locked(self, connection: Connection) -> Mapping[str, Any]:
        """The state, which nobody else can change until the transaction ends."""
        return dict(connection.execute(select(*self.states.c).with_for_update()).mappings().one())

    def _number(self, connection: Connection, lines: Sequence[int], batch: int) -> None:
        marked = self.marked
        for start in range(0, len(lines), 1_000):
            some = marked.c.log_seq.in_(lines[start : start + 1_000])
            connection.execute(update(marked).where(some).values(log_batch=batch))
        if lines:
            connection.execute(update(self.states).values(batch=batch))

    # --- reading it

    def since(self, lines: Table, position: str) -> Any:
        return lines.c.log_batch > int(position)

    def reaches(self, position: str, standing: Standing) -> bool:
        return int(position) + 1 >= standing.purged

    def remembers(self, connection: Connection, anchor: str) -> bool:
        seq, _, at = anchor.partition("@")
        marked = self.marked
        same = select(literal(1)).where(marked.c.log_seq == int(seq), cast(marked.c.log_at, String) == at)
        return connection.execute(same).first() is not None

    def _distinct(self, picked: Sequence[Any], lines: Table, position: str) -> Any:
        """By their bytes: a collation takes different keys for equal."""
        exact = [cast(lines.c[name], LargeBinary) for name in self.keys.values()]
        return select(*(func.min(value) for value in picked)).where(self.since(lines, position)).group_by(*exact)

    # --- our own writes

    def ours(
        self, connection: Connection, data: Table, before: Standing | None, token: str, touched: int
    ) -> Standing | None:
        """Under the lock of the state: whatever others have committed without a number would be visible, and what they commit from
        now on gets a later one. The lines with our connection's number are ours, since it has one transaction at a time and
        others that it left behind unnumbered would make one too many.
        """
        now = self.look(connection, data)
        if now is None:
            return None
        marked = self.marked
        state = self._locked(connection)
        batch = int(state["batch"])
        waiting = marked.c.log_batch.is_(None)
        mine = marked.c.log_writer == func.connection_id()
        lines = connection.execute(select(marked.c.log_seq).where(waiting, mine)).scalars().all()
        others = connection.execute(select(literal(1)).where(waiting, ~mine).limit(1)).first()
        told = token.removesuffix(":empty")
        if others is not None or len(lines) != touched or told != f"{now.epoch}:{batch}":
            return None
        self._number(connection, lines, batch + 1)
        return self.look(connection, data)

    # --- keeping it small

    def purge(self, days: float) -> None:
        marked = self.marked
        batch = marked.c.log_batch
        age = f"current_timestamp(6) - INTERVAL {int(days * 86_400_000_000)} MICROSECOND"
        young = marked.c.log_at >= literal_column(age)
        with self.database.reading() as connection:
            first = connection.execute(select(batch).where(batch.is_not(None), young).order_by(batch).limit(1)).scalar()
            old = select(func.max(batch)) if first is None else select(func.max(batch)).where(batch < first)
            limit, oldest = connection.execute(old).scalar(), connection.execute(select(func.min(batch))).scalar()
        if limit is None or oldest >= limit:
            return
        with self.database.writing() as connection:
            purged = self._locked(connection)["purged"]
            connection.execute(update(self.states).values(purged=max(int(purged), limit)))
        lines = select(marked.c.log_seq).where(batch < limit).limit(AT_ONCE)
        while True:
            with self.database.writing() as connection:
                gone = connection.execute(lines).scalars().all()
                for start in range(0, len(gone), 1_000):
                    connection.execute(marked.delete().where(marked.c.log_seq.in_(gone[start : start + 1_000])))
            if len(gone) < AT_ONCE:
                return

    # --- names

    def _quoted(self, name: str) -> str:
        return "`" + name.replace("`", "``") + "`"

    def _full(self, name: str) -> str:
        return self._quoted(name) if self.schema is None else f"{self._quoted(self.schema)}.{self._quoted(name)}"


def _widest(column: Mapping[str, Any]) -> str:
    """As the data table's type and collation, wide enough for what that column may grow to."""
    kind = str(column["DATA_TYPE"]).lower()
    declared = str(column["COLUMN_TYPE"])
    letters = f" CHARACTER SET {column['CHARACTER_SET_NAME']} COLLATE {column['COLLATION_NAME']}"
    if kind in _NARROW:
        return f"varchar(768){letters}"
    if kind in _TEXTS:
        return f"longtext{letters}"
    if kind in _INTEGERS:
        return "bigint unsigned" if "unsigned" in declared else "bigint"
    return declared + (letters if column["CHARACTER_SET_NAME"] else "")
