"""Opening the ledger: a relational database, SQLite by default, PostgreSQL in a deployment; migrated when opened."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from federation.errors import FedsyncError, Permanent, Transient
from federation.ledger import schema

HEAD = "0007"
"""The newest migration; a ledger that says so needs no Alembic at start-up."""

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


class Ledger:
    """The connection to the ledger. One per process; safe to share between threads."""

    def __init__(self, url: str, clock: Clock = utc_now) -> None:
        self.clock = clock
        self.engine = open_engine(url)
        self._busy = threading.local()
        with _wrapped():
            self._migrate()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction that may write. Driver errors come out as Transient (busy, unreachable) or Permanent.

        Never inside another one of the same thread: the embedded ledger has one writer, which would wait for itself.
        """
        assert not getattr(self._busy, "writes", False), "a transaction inside a transaction"
        self._busy.writes = True
        try:
            with _wrapped(), self.engine.begin() as connection:
                yield connection
        finally:
            self._busy.writes = False

    def audit(self, connection: Connection, actor: str, action: str, subject: str, detail: str = "") -> None:
        """Add a line to the audit trail, inside the caller's transaction."""
        connection.execute(
            schema.audit.insert().values(at=self.clock(), actor=actor, action=action, subject=subject, detail=detail)
        )

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()

    def _migrate(self) -> None:
        with self.engine.connect() as connection:
            if inspect(connection).has_table("alembic_version"):
                version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
                if version == HEAD:
                    return
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(727366)"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def open_engine(url: str) -> Engine:
    """The engine of a database of ours: PostgreSQL, or SQLite as one writer among many readers."""
    if not url.startswith("sqlite"):
        return create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), pool_pre_ping=True)
    path = url.removeprefix("sqlite:///")
    if path and path != url:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": 60})

    @event.listens_for(engine, "connect")
    def _configure(driver: Any, _record: Any) -> None:
        driver.isolation_level = (
            None  # SQLAlchemy begins transactions itself, below: the driver would begin them too late
        )
        driver.execute("PRAGMA journal_mode=WAL")
        driver.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # IMMEDIATE: two settling runs queue for the write lock instead of failing when one upgrades its read lock
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@contextmanager
def _wrapped() -> Iterator[None]:
    try:
        yield
    except FedsyncError:
        raise
    except OperationalError as cause:
        raise Transient(
            f"the ledger does not answer: {cause.orig}",
            "台账数据库无响应",
            todo="检查台账数据库 / check the ledger's database",
        ) from cause
    except SQLAlchemyError as cause:
        raise Permanent(
            f"the ledger refused: {cause}", "台账数据库出错", todo="检查台账数据库 / check the ledger's database"
        ) from cause


def rows(connection: Connection, statement: Any) -> list[dict[str, Any]]:
    """The result of a select as plain dictionaries."""
    return [dict(row) for row in connection.execute(statement).mappings()]


def chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    """`items` in parts that fit into one statement."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
