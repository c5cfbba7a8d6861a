"""The function and the triggers that fill a change table in PostgreSQL, as statements. Names come quoted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MARK = "-- fedsync: 变更日志 / change log"
"""By which the function is known to be ours."""
LOADING = "fedsync.loading"
"""The setting of a transaction in which what it inserts is one line (L) in the change table that it names."""
_SEEN = {
    "INSERT": "NEW TABLE AS fresh",
    "UPDATE": "OLD TABLE AS stale NEW TABLE AS fresh",
    "DELETE": "OLD TABLE AS stale",
}


@dataclass(frozen=True)
class Triggers:
    """What to fill from where. `log`: the change table, and the function's name. `table`: the data table.

    `names`: the names of the triggers on insert, update and delete. `columns`: the key's in the data table; `kept`: in the change
    table. `by_row`: one call per row instead of one per statement. `times`: the key holds days or times.
    """

    log: str
    table: str
    names: tuple[str, str, str]
    columns: Sequence[str]
    kept: Sequence[str]
    by_row: bool
    times: bool

    def statements(self) -> list[str]:
        """Create all of it. Only the triggers, not the whole world, may call the function."""
        made = [self._function(), f"REVOKE ALL ON FUNCTION {self.log}() FROM PUBLIC"]
        for (event, tables), name in zip(_SEEN.items(), self.names):
            each = "FOR EACH ROW" if self.by_row else f"REFERENCING {tables} FOR EACH STATEMENT"
            made.append(f"CREATE TRIGGER {name} AFTER {event} ON {self.table} {each} EXECUTE FUNCTION {self.log}()")
        return made

    def _function(self) -> str:
        """Days and times as text are the same whatever the writer's session says."""
        settings = "SET search_path = pg_catalog, pg_temp"
        if self.times:
            settings += " SET datestyle = 'ISO' SET timezone = 'UTC'"
        log = self.log.replace("'", "''")
        return (
            f"CREATE FUNCTION {self.log}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER {settings} AS $fedsync$\n"
            f"BEGIN  {MARK}\n"
            f"  IF to_regclass('{log}') IS NULL THEN RETURN NULL; END IF;  -- nobody's write fails for its loss\n"
            f"{self._rows() if self.by_row else self._tables()}  RETURN NULL;\nEND $fedsync$"
        )

    def _tables(self) -> str:
        """From transition tables. The UNION leaves one line of an update that does not change the key."""
        line = f"INSERT INTO {self.log} (log_op, {', '.join(self.kept)})"
        name = self.log.replace("'", "''")
        return (
            f"  IF TG_OP = 'INSERT' AND current_setting('{LOADING}', true) = '{name}' THEN\n"
            f"    INSERT INTO {self.log} (log_op) VALUES ('L');\n"
            f"  ELSIF TG_OP = 'INSERT' THEN {line} SELECT 'I', {self._texts('fresh')} FROM fresh;\n"
            f"  ELSIF TG_OP = 'UPDATE' THEN {line} SELECT 'U', {self._texts('fresh')} FROM fresh"
            f" UNION SELECT 'U', {self._texts('stale')} FROM stale;\n"
            f"  ELSE {line} SELECT 'D', {self._texts('stale')} FROM stale;\n  END IF;\n"
        )

    def _rows(self) -> str:
        line = f"INSERT INTO {self.log} (log_op, {', '.join(self.kept)}) VALUES (left(TG_OP, 1), "
        old, new = self._texts("OLD"), self._texts("NEW")
        return (
            f"  IF TG_OP <> 'DELETE' THEN {line}{new}); END IF;\n"
            f"  IF TG_OP = 'DELETE' THEN {line}{old});\n"
            f"  ELSIF TG_OP = 'UPDATE' THEN\n"
            f"    IF ROW({new}) IS DISTINCT FROM ROW({old}) THEN {line}{old}); END IF;\n  END IF;\n"
        )

    def _texts(self, row: str) -> str:
        """Compared as they are: a column's own collation may take different keys for equal."""
        return ", ".join(f'CAST({row}.{name} AS text) COLLATE "C"' for name in self.columns)
