"""What an account may do with one table of a database, found out by asking the catalogue, never by trying."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, bindparam, text

from connectors.files import may

READ, WRITE = ("select",), ("insert", "update", "delete")
TEMPORARY, CREATE, TRIGGER = "temporary tables", "create", "trigger"


@dataclass(frozen=True)
class Rights:
    """`granted`: right → whether there is it; None: cannot be told. `locked`: why nothing can be written here, whatever the rights.

    `hidden`: rows may be hidden from this account (row security). `sees_others`: whether transactions of others can be seen.
    """

    granted: Mapping[str, bool | None] = field(default_factory=dict)
    locked: tuple[str, str] | None = None
    hidden: bool = False
    sees_others: bool | None = None


def rights_of(connection: Connection, table: str, schema: str | None, columns: list[str]) -> Rights:
    """The rights on a table, there or not. `columns`: those that the node uses."""
    asked = {"postgresql": _postgres, "mysql": _mysql, "mariadb": _mysql, "sqlite": _sqlite}.get(
        connection.dialect.name
    )
    return Rights() if asked is None else asked(connection, table, schema, columns)


def clock_of(connection: Connection) -> datetime | None:
    """The server's clock; None where it is this machine's, or unknown."""
    asked = {
        "postgresql": "SELECT clock_timestamp()",
        "mysql": "SELECT UTC_TIMESTAMP(6)",
        "mariadb": "SELECT UTC_TIMESTAMP(6)",
    }.get(connection.dialect.name)
    if asked is None:
        return None
    found = connection.execute(text(asked)).scalar_one()
    moment = found if isinstance(found, datetime) else datetime.fromisoformat(str(found))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _postgres(connection: Connection, table: str, schema: str | None, columns: list[str]) -> Rights:
    quote = connection.dialect.identifier_preparer.quote_identifier
    name = f"{quote(schema)}.{quote(table)}" if schema else quote(table)
    here = connection.execute(
        text(
            "SELECT to_regclass(:name)::oid, has_database_privilege(current_database(), 'TEMPORARY'), pg_is_in_recovery(),"
            " current_setting('default_transaction_read_only') = 'on',"
            " (SELECT has_schema_privilege(nspname, 'CREATE') FROM pg_namespace"
            "  WHERE nspname = coalesce(:schema, current_schema())),"
            " pg_has_role(current_user, 'pg_read_all_stats', 'MEMBER')"
        ),
        {"name": name, "schema": schema},
    ).one()
    oid, temporary, standby, read_only, create, sees = here
    granted: dict[str, bool | None] = {TEMPORARY: temporary, CREATE: bool(create)}
    hidden = False
    if oid is not None:
        whole = "has_table_privilege(c.oid, '{0}')"
        each = "(SELECT bool_and(has_column_privilege(c.oid, a.attnum, '{0}')) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname IN :columns)"
        parts = [f"{whole} OR {each}".format(word.upper()) for word in ("select", "insert", "update")]
        parts += [
            "has_table_privilege(c.oid, 'DELETE')",
            "has_table_privilege(c.oid, 'TRIGGER')",
            "row_security_active(c.oid)",
        ]
        asked = text(f"SELECT {', '.join(parts)} FROM pg_class c WHERE c.oid = :oid")
        found = connection.execute(
            asked.bindparams(bindparam("columns", expanding=True)), {"oid": oid, "columns": columns}
        ).one()
        granted |= dict(zip(("select", "insert", "update", "delete", TRIGGER), found))
        hidden = bool(found[-1])
    locked = None
    if standby:
        locked = ("该服务器为只读备机", "this server is a read-only standby")
    elif read_only:
        locked = ("该账号的事务默认只读", "transactions of this account are read-only by default")
    return Rights(granted, locked, hidden, bool(sees))


def _mysql(connection: Connection, table: str, schema: str | None, columns: list[str]) -> Rights:
    """Where a role is active, what it grants is not listed to everybody: a right that is not seen is then unknown, not missing."""
    me, database, role, locked = connection.execute(
        text(
            "SELECT CONCAT('''', SUBSTRING_INDEX(CURRENT_USER(), '@', 1), '''@''',"
            " SUBSTRING_INDEX(CURRENT_USER(), '@', -1), ''''), COALESCE(:schema, DATABASE()), CURRENT_ROLE(), @@read_only"
        ),
        {"schema": schema},
    ).one()
    given = {"me": me, "database": database, "table": table}
    # the names of databases are patterns there, with \_ for an underscore that means itself
    listed = connection.execute(
        text(
            "SELECT privilege_type, NULL FROM information_schema.user_privileges WHERE grantee = :me"
            " UNION ALL SELECT privilege_type, NULL FROM information_schema.schema_privileges"
            "  WHERE grantee = :me AND :database LIKE table_schema"
            " UNION ALL SELECT privilege_type, NULL FROM information_schema.table_privileges"
            "  WHERE grantee = :me AND table_schema = :database AND table_name = :table"
            " UNION ALL SELECT privilege_type, column_name FROM information_schema.column_privileges"
            "  WHERE grantee = :me AND table_schema = :database AND table_name = :table"
        ),
        given,
    ).fetchall()
    whole = {str(word).lower() for word, column in listed if column is None}
    by_column = {(str(word).lower(), column) for word, column in listed if column is not None}
    missing = None if role not in (None, "", "NONE") else False

    def has(word: str) -> bool | None:
        return word in whole or all((word, name) in by_column for name in columns) or missing

    granted: dict[str, bool | None] = {word: has(word) for word in (*READ, *WRITE[:2])}
    granted |= {word: word in whole or missing for word in (WRITE[2], CREATE, TRIGGER)}
    granted[TEMPORARY] = "create temporary tables" in whole or missing
    # MySQL has 0 and 1, MariaDB 12 words
    read_only = str(locked).upper() not in ("0", "OFF") and not {"super", "read only admin", "read_only admin"} & whole
    return Rights(
        granted,
        ("该服务器只读", "this server is read-only") if read_only else None,
        sees_others="process" in whole,
    )


def _sqlite(connection: Connection, table: str, schema: str | None, columns: list[str]) -> Rights:
    """The journal lies beside the file, so writing needs the folder, too."""
    path = Path(connection.engine.url.database or "")
    writes = may(path, os.W_OK) and may(path.parent, os.W_OK)
    words = dict.fromkeys((*WRITE, CREATE, TRIGGER), writes)
    return Rights({READ[0]: may(path, os.R_OK), TEMPORARY: True, **words}, sees_others=True)
