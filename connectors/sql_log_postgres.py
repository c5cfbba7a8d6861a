"""The change table in PostgreSQL: positions are snapshots.

Each line carries the number of the transaction that wrote it (`txid_current()`, the 64-bit number). A position is the snapshot in
which it was read, as PostgreSQL writes it: `xmin:xmax:those in progress`. By it, the database itself tells of each transaction
whether it was visible then (`txid_visible_in_snapshot`). So the lines after a position are exactly those that are visible now and
were not then: a transaction that was open at one read, however long before it had begun, is in the next one, and none is read twice.
Lines below `xmin` were all visible or will never be, hence the index makes it a short search.

The token is how many lines have ever become visible: with each new one it grows, whichever transaction was at work beside it. Lines
of transactions below some `xmin` are counted once for all (`counted`, in the state); only those above are counted at each probe.

Snapshots are comparable within one run of the server: the epoch holds the moment of its start. It holds the file nodes of the data
table and its partitions as well, which TRUNCATE, a rewriting ALTER TABLE, attaching and detaching change, none of which fire row
triggers. (So does VACUUM FULL: everything is compared once more than needed.)

Keys are kept as text, so that a column whose type becomes wider never makes a trigger fail, and are cast to the column's type when
they are read. The triggers run once per statement, from transition tables; in a partitioned table or a partition, where those see
too little, once per row. They run with the rights of who installed them, so that people's programs need no right on the change table.
There is no sequence: `lastval()` in those programs must not change its meaning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    Connection,
    MetaData,
    String,
    Table,
    Text,
    and_,
    cast,
    column,
    func,
    insert,
    literal,
    not_,
    select,
    text,
    true,
    type_coerce,
)
from sqlalchemy.types import UserDefinedType

from connectors.sql_log_postgres_snapshot import Snapshot
from connectors.sql_log_postgres_triggers import LOADING, MARK, Triggers
from connectors.sql_log_table import AT_ONCE, STATE, TRIGGERS, ChangeTable, Standing, run
from federation.contract import FieldSpec
from federation.errors import Permanent

WAIT = "3s"
"""How long a trigger's creation waits for the table's running writers; those behind it wait as long."""
FEW_KEYS = 20_000
"""Up to so many, the planner is told which keys they are: it knows nothing of a change table that was analysed long ago."""

_TEXT = FieldSpec(type="string", label="主键", authority="shared", normalise=())

_LOOK = text("""
SELECT CAST(c.oid AS bigint) AS oid, CAST(c.relkind AS text) AS kind, n.nspname AS place,
    c.relkind = 'p' OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid) AS by_row,
    c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid) AS has_heirs,
    (SELECT count(*) FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')
        AND p.proname = :name AND p.pronamespace = n.oid) AS triggers,
    (SELECT count(*) FROM pg_class o WHERE o.relnamespace = n.oid AND o.relname IN (:name, :state)
        AND o.relkind = 'r') AS tables,
    pg_is_in_recovery() AS standby, CAST(pg_postmaster_start_time() AS text) AS started,
    (SELECT string_agg(m.member, ',' ORDER BY m.member) FROM (
        SELECT CAST(CAST(p.relid AS oid) AS text) || '.' || coalesce(CAST(pg_relation_filenode(p.relid) AS text), '')
            FROM pg_partition_tree(c.oid) p
        UNION SELECT CAST(c.oid AS text) || '.' || coalesce(CAST(pg_relation_filenode(c.oid) AS text), '')
        UNION SELECT a.attname || '.' || CAST(a.attnum AS text) FROM pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.attname = ANY(:columns)) AS m(member)) AS shape
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(:table)
""")
_TYPES = text("""
SELECT a.attname, format_type(a.atttypid, -1) AS kind, y.typcategory = 'D' AS is_time
FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
WHERE a.attrelid = to_regclass(:table) AND a.attnum > 0 AND a.attname = ANY(:columns)
""")
_FUNCTION = text(
    "SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
    "WHERE n.nspname = :place AND p.proname = :name AND position(:mark IN p.prosrc) > 0"
)
"""Whether there is a function of that name with this mark in it."""
_KINDS = {
    "v": ("a view", "视图"),
    "m": ("a materialised view", "物化视图"),
    "f": ("a foreign table", "外部表"),
}


class _Named(UserDefinedType[Any]):
    """A type of the database by its name."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        return self.name


class PostgresChanges(ChangeTable):
    """See the module."""

    marks: ClassVar[tuple[str, ...]] = ("log_xid", "log_at", "log_op")
    stated: ClassVar[tuple[str, ...]] = (*STATE, "counted", "counted_below")

    # --- making it and removing it

    def look(self, connection: Connection, data: Table) -> Standing | None:
        found = self._looked(connection, [name.name for name in data.c])
        if found is None or found["tables"] < 2 or found["triggers"] < len(TRIGGERS):
            return None
        if found["standby"]:
            raise Permanent(
                "this server is a standby, where snapshots do not tell who is still at work",
                "该服务器为只读备机，其快照无法分辨进行中的事务",
                todo="将 url 指向主库，或改为 capture: cursor / point `url` at the primary, or set `capture: cursor`",
                **self._where,
            )
        marked, states = self.marked, self.states
        newest = select(marked.c.log_xid, marked.c.log_at).order_by(marked.c.log_xid.desc()).limit(1).subquery()
        asked = select(
            *states.c,
            cast(func.txid_current_snapshot(), Text).label("snapshot"),
            newest.c.log_xid,
            cast(newest.c.log_at, Text).label("log_at"),
            select(func.count()).where(marked.c.log_xid >= states.c.counted_below).scalar_subquery().label("lines"),
        ).select_from(states.outerjoin(newest, true()))
        state = connection.execute(asked).mappings().first()
        if state is None:
            return None
        self._checked(dict(state))
        shape = hashlib.sha256(f"{found['shape']}|{found['started']}".encode()).hexdigest()[:12]
        epoch = f"{state['epoch']}.{shape}"
        return Standing(
            epoch,
            state["snapshot"],
            None if state["log_xid"] is None else f"{state['log_xid']}@{state['log_at']}",
            f"{epoch}:{state['counted'] + state['lines']}",
            int(state["purged"]),
            bool(state["untidy"]),
            behind=state["lines"] > AT_ONCE and Snapshot.parse(state["snapshot"]).xmin > state["counted_below"],
        )

    def _looked(self, connection: Connection, columns: Sequence[str]) -> Mapping[str, Any] | None:
        """What the catalogue says of the data table; from then on, its schema is known."""
        given = {"name": self.name, "state": self.state, "table": self._full(self.table), "columns": list(columns)}
        found = connection.execute(_LOOK, given).mappings().first()
        if found is not None:
            self.schema = found["place"]
        return None if found is None else dict(found)

    def install(self, connection: Connection, data: Table) -> None:
        found = self._looked(connection, ())
        assert found is not None, "the data table was looked up before"
        self._refuse_unfit(found)
        self._check_rights(connection)
        connection.execute(text(f"SET LOCAL lock_timeout = '{WAIT}'"))
        wanted = [self.node.column(field) for field in self.keys]
        asked = connection.execute(_TYPES, {"table": self._full(self.table), "columns": wanted}).mappings()
        times = any(kind["is_time"] for kind in asked)
        log, state = self._full(self.name), self._full(self.state)
        kept = [self._quoted(name) for name in self.keys.values()]
        insert_, update, delete = (self._quoted(f"{self.name}_{event}") for event in TRIGGERS)
        triggers = Triggers(
            log,
            self._full(self.table),
            (insert_, update, delete),
            [self._quoted(name) for name in wanted],
            kept,
            by_row=found["by_row"],
            times=times,
        )
        statements = [
            f"CREATE TABLE {log} (log_xid bigint NOT NULL DEFAULT txid_current(), log_at timestamptz NOT NULL "
            f"DEFAULT now(), log_op text NOT NULL, {', '.join(f'{name} text' for name in kept)})",
            f"CREATE INDEX ON {log} (log_xid)",
            f"CREATE TABLE {state} (epoch text NOT NULL, key_columns text NOT NULL, purged bigint NOT NULL, "
            "untidy integer NOT NULL, counted bigint NOT NULL, counted_below bigint NOT NULL)",
            *triggers.statements(),
        ]
        run(connection, *statements)
        connection.execute(insert(self.states).values({**self._first_state(), "counted": 0, "counted_below": 0}))

    def uninstall(self, connection: Connection) -> None:
        self._looked(connection, ())
        place = self.schema or connection.execute(select(func.current_schema())).scalar_one()
        self.schema = place
        columns = text(
            "SELECT o.relname, array_agg(CAST(a.attname AS text)) FROM pg_class o JOIN pg_namespace n ON n.oid = o.relnamespace "
            "JOIN pg_attribute a ON a.attrelid = o.oid WHERE n.nspname = :place AND o.relname IN (:name, :state) "
            "AND a.attnum > 0 GROUP BY o.relname"
        )
        given = {"place": place, "name": self.name, "state": self.state}
        self._refuse_strangers(dict(map(tuple, connection.execute(columns, given))))
        connection.execute(text(f"SET LOCAL lock_timeout = '{WAIT}'"))
        if connection.execute(_FUNCTION, {**given, "mark": MARK}).scalar_one():
            # with its triggers: dropping these by name is the table's owner's right alone
            run(connection, f"DROP FUNCTION {self._full(self.name)}() CASCADE")
        run(connection, f"DROP TABLE IF EXISTS {self._full(self.name)}, {self._full(self.state)}")

    def _refuse_unfit(self, found: Mapping[str, Any]) -> None:
        en, zh = _KINDS.get(found["kind"], ("", ""))
        if found["has_heirs"]:
            en, zh = "a table with inheriting tables", "含继承子表的表"
        if en:
            raise self.mismatch(
                f"{self.table} is {en}: triggers there do not see its rows change",
                f"{self.table} 是{zh}，触发器无法捕获其变化",
                "改为 capture: cursor 或 snapshot，或将 table 指向基表"
                " / set `capture: cursor` or `snapshot`, or name the base table under `table`",
            )

    def _check_rights(self, connection: Connection) -> None:
        asked = text(
            "SELECT has_schema_privilege(:place, 'CREATE'), has_table_privilege(to_regclass(:table), 'TRIGGER'), "
            "CAST(current_user AS text)"
        )
        table = self._full(self.table)
        creates, triggers, me = connection.execute(asked, {"place": self.schema, "table": table}).one()
        assert self.schema is not None
        missing = []
        if not creates:
            missing.append(f"GRANT CREATE ON SCHEMA {self._quoted(self.schema)} TO {self._quoted(me)}")
        if not triggers:
            missing.append(f"GRANT TRIGGER ON TABLE {table} TO {self._quoted(me)}")
        if missing:
            raise self.denied(missing)

    # --- counting

    def catch_up(self) -> None:
        """Count the lines below the present `xmin`, whose transactions have all ended."""
        xid, states = self.marked.c.log_xid, self.states
        below = func.txid_snapshot_xmin(func.txid_current_snapshot())
        with self.database.writing() as connection:
            held, now = connection.execute(select(states.c.counted_below, below).with_for_update()).one()
            new = select(func.count()).where(xid >= held, xid < now).scalar_subquery()
            if now > held:
                counted = states.update().values(counted=states.c.counted + new, counted_below=now)
                connection.execute(counted)

    # --- reading it

    def since(self, lines: Table, position: str) -> Any:
        then = Snapshot.parse(position)
        xid = lines.c.log_xid
        seen = func.txid_visible_in_snapshot(xid, cast(literal(then.text, String), _Named("txid_snapshot")))
        after = and_(xid >= then.xmin, not_(seen))
        return after if then.own is None else and_(after, xid != then.own)

    def reaches(self, position: str, standing: Standing) -> bool:
        """What was at work then and still is has no line yet that could have been purged."""
        then, now = Snapshot.parse(position), Snapshot.parse(standing.position)
        return then.xmax >= standing.purged and all(
            xid >= standing.purged or xid in now.running for xid in then.running
        )

    def remembers(self, connection: Connection, anchor: str) -> bool:
        xid, _, at = anchor.partition("@")
        marked = self.marked
        same = select(literal(1)).where(
            marked.c.log_xid == int(xid), marked.c.log_at == cast(literal(at, String), _Named("timestamptz"))
        )
        return connection.execute(same.limit(1)).first() is not None

    def loaded(self, connection: Connection, position: str) -> bool:
        marked = self.marked
        found = select(literal(1)).where(self.since(marked, position), marked.c.log_op == "L").limit(1)
        return connection.execute(found).first() is not None

    def changed_keys(self, connection: Connection, data: Table, position: str) -> pa.Table:
        """With the texts as they are kept, in `_text<n>`."""
        lines = self._texts()
        names = list(self.keys.values())
        once = select(*(lines.c[name] for name in names)).where(self.since(lines, position)).distinct().subquery()
        types = self._types(connection, data)
        picked, columns, specs = [], {}, dict(self.node.dataset.fields)
        for field, name in self.keys.items():
            kept = data.c[self.node.column(field)]
            typed: Any = type_coerce(cast(once.c[name], types[field]), kept.type)
            picked.append(self.database.plain(typed, specs[field], self.node.timezone))
            columns[field] = kept
        for place, name in enumerate(names):
            picked.append(once.c[name])
            columns[f"_text{place}"] = Column(name, Text)
            specs[f"_text{place}"] = _TEXT
        return self.database.read(connection, select(*picked), columns, specs)

    def changed_rows(self, data: Table, keys: pa.Table, position: str) -> Any:
        places = range(len(self.keys))
        types = list(self._known_types.values())
        if keys.num_rows > FEW_KEYS:
            lines = self._texts()
            kept = zip(self.keys.values(), types)
            named = select(*(cast(lines.c[name], kind) for name, kind in kept))
            return self._among(data, named.where(self.since(lines, position)))
        texts = [cast(literal(_as_array(keys.column(f"_text{place}")), String), ARRAY(Text)) for place in places]
        given = (
            func.unnest(*texts).table_valued(*(column(f"k{place}", Text) for place in places)).render_derived("given")
        )
        return self._among(data, select(*(cast(given.c[f"k{place}"], types[place]) for place in places)))

    def _types(self, connection: Connection, data: Table) -> dict[str, _Named]:
        """Key field → the type of its column, without its length."""
        columns = {field: self.node.column(field) for field in self.keys}
        given = {"table": self._full(data.name), "columns": list(columns.values())}
        kinds = {found["attname"]: found["kind"] for found in connection.execute(_TYPES, given).mappings()}
        self._known_types = {field: _Named(kinds[name]) for field, name in columns.items()}
        return self._known_types

    def _texts(self) -> Table:
        """The change table with its keys as they are kept."""
        columns: list[Column[Any]] = [Column(name, BigInteger) for name in self.marks]
        columns += [Column(name, Text) for name in self.keys.values()]
        return Table(self.name, MetaData(schema=self.schema), *columns)

    # --- our own writes

    @contextmanager
    def loading(self, connection: Connection) -> Iterator[bool]:
        """A function that was made by an older version, or that runs once per row, notes each row."""
        given = {"place": self.schema, "name": self.name, "mark": LOADING}
        one_line = bool(connection.execute(_FUNCTION, given).scalar_one())
        if one_line:
            connection.execute(select(func.set_config(LOADING, self._full(self.name), true())))
        yield one_line
        if one_line:
            connection.execute(select(func.set_config(LOADING, "", true())))

    def ours(
        self, connection: Connection, data: Table, before: Standing | None, token: str, touched: int
    ) -> Standing | None:
        """In one statement, hence in one snapshot: what others had committed must be as much as `token` says, and what they have
        not yet committed lies after the new position, and makes another token.
        """
        xid, states = self.marked.c.log_xid, self.states
        me = func.txid_current()
        others = select(func.count()).where(xid >= states.c.counted_below, xid != me).scalar_subquery()
        asked = select(
            me.label("me"),
            cast(func.txid_current_snapshot(), Text).label("snapshot"),
            (states.c.counted + others).label("others"),
            select(func.count()).where(xid == me).scalar_subquery().label("lines"),
            cast(func.now(), Text).label("at"),
        )
        found = connection.execute(asked.select_from(states)).one()
        now = self.look(connection, data)
        if now is None or found.lines != touched or f"{now.epoch}:{found.others}" != token:
            return None
        if not touched:
            return now if now.token == token else None
        return Standing(
            now.epoch,
            f"{found.snapshot}+{found.me}",
            f"{found.me}@{found.at}",
            f"{now.epoch}:{found.others + touched}",
            now.purged,
            now.untidy,
        )

    # --- keeping it small

    def purge(self, days: float) -> None:
        """All of a transaction's lines have its time: the newest old transaction stays whole."""
        marked, states = self.marked, self.states
        xid = marked.c.log_xid
        young = marked.c.log_at >= func.now() - func.make_interval(0, 0, 0, 0, 0, 0, days * 86_400.0)
        with self.database.writing() as connection:
            first = connection.execute(select(xid).where(young).order_by(xid).limit(1)).scalar()
            old = select(func.max(xid)) if first is None else select(func.max(xid)).where(xid < first)
            limit = connection.execute(old).scalar()
            oldest = connection.execute(select(func.min(xid))).scalar()
            if limit is None or oldest >= limit:
                return
            connection.execute(states.update().values(purged=func.greatest(states.c.purged, limit)))
        while self._delete(limit) == AT_ONCE:
            pass

    def _delete(self, limit: int) -> int:
        """Some lines of transactions before that one, which from now on count as counted. How many."""
        log = self._full(self.name).replace(":", chr(92) + ":")
        delete = text(
            f"DELETE FROM {log} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {log} WHERE log_xid < :below "
            "ORDER BY log_xid LIMIT :most)) RETURNING log_xid"
        )
        with self.database.writing() as connection:
            states = self.states
            below = connection.execute(select(states.c.counted_below).with_for_update()).scalar_one()
            gone = connection.execute(delete, {"below": limit, "most": AT_ONCE}).scalars().all()
            new = sum(xid >= below for xid in gone)
            if new:
                connection.execute(states.update().values(counted=states.c.counted + new))
        return len(gone)

    # --- names

    def _quoted(self, name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    def _full(self, name: str) -> str:
        return self._quoted(name) if self.schema is None else f"{self._quoted(self.schema)}.{self._quoted(name)}"


def _as_array(texts: pa.ChunkedArray) -> str:
    """Texts as PostgreSQL writes an array of them: the driver takes its time to quote one value after the other."""
    escaped = pc.replace_substring(pc.replace_substring(texts, "\\", "\\\\"), '"', '\\"')
    quoted = pc.fill_null(pc.binary_join_element_wise('"', escaped, '"', ""), "NULL").combine_chunks()
    whole = pa.ListArray.from_arrays(pa.array([0, len(quoted)], pa.int32()), quoted)
    return "{" + str(pc.binary_join(whole, ",")[0].as_py()) + "}"
