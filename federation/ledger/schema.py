"""The tables of the ledger. They hold keys and fingerprints, never attribute values, except encrypted payloads."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.engine import Dialect

metadata = MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s"})


class _UtcTime(TypeDecorator[datetime]):
    """A moment in UTC: SQLite forgets the zone, so it is put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value if value is None or value.tzinfo else value.replace(tzinfo=UTC)


_TIME = _UtcTime()

link = Table(
    "link",
    metadata,
    Column("link_id", String(100), primary_key=True, comment="<dataset>/<lower region>"),
    Column("dataset", String(64), nullable=False, index=True),
    Column("upper", String(12), nullable=False),
    Column("lower", String(12), nullable=False),
    Column("identity", String(64), comment="hash of contract, suite and scope; another one forces a full merge"),
    Column("baseline", Text, comment="manifest (JSON) of the baseline's immutable files"),
    Column("upper_cursor", Text),
    Column("lower_cursor", Text),
    Column("upper_token", Text, comment="probe token taken before the last settled read"),
    Column("lower_token", Text),
    Column("state", String(10), nullable=False, default="new", comment="new, ok, held, failed"),
    Column("reason_zh", Text),
    Column("reason_en", Text),
    Column("released", Boolean, nullable=False, default=False, comment="an operator let the next run pass its guards"),
    Column("fence", BigInteger, nullable=False, default=0, comment="fencing token: grows with each lease"),
    Column("holder", String(100)),
    Column("lease_until", _TIME),
    Column("last_run", _TIME),
    Column("last_ok", _TIME),
    Column("last_full", _TIME),
    Column("last_moved", _TIME, comment="when the link last delivered anything"),
)

run = Table(
    "run",
    metadata,
    Column("run_id", String(32), primary_key=True),
    Column("link_id", String(100), nullable=False, index=True),
    Column("started", _TIME, nullable=False),
    Column("finished", _TIME, nullable=False, index=True),
    Column("outcome", String(10), nullable=False, comment="ok, held, failed"),
    Column("counts", Text, nullable=False, comment="JSON: per side read = delivered + unchanged + …"),
    Column("error", Text),
)

receipt = Table(
    "receipt",
    metadata,
    Column("receipt_id", Integer, primary_key=True, autoincrement=True),
    Column("run_id", String(32), nullable=False, index=True),
    Column("link_id", String(100), nullable=False, index=True),
    Column("region", String(12), nullable=False, comment="the node that now holds the batch"),
    Column("written", Integer, nullable=False),
    Column("deleted", Integer, nullable=False),
    Column("content", String(64), nullable=False, comment="hash of the batch's keys and fingerprints"),
    Column("at", _TIME, nullable=False),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("item_id", String(32), primary_key=True),
    Column(
        "link_id", String(100), nullable=False, comment="the link, or the node, whose read or gate set the record aside"
    ),
    Column("dataset", String(64), nullable=False, index=True),
    Column("direction", String(4), nullable=False, comment="down, up; read: the row could not be typed"),
    Column("origin", String(12), nullable=False, index=True, comment="region whose people can mend it"),
    Column("key", Text, nullable=False),
    Column("field", String(64)),
    Column("rule", String(200), nullable=False),
    Column("payload", LargeBinary, nullable=False, comment="encrypted: the record, and the reason, which quotes it"),
    Column("first_seen", _TIME, nullable=False),
    Column("last_seen", _TIME, nullable=False),
    Column("state", String(10), nullable=False, comment="open, replay, released"),
    Column("closed", _TIME),
    Index(None, "link_id", "direction", "state"),
)

correction = Table(
    "correction",
    metadata,
    Column("correction_id", String(32), primary_key=True),
    Column("link_id", String(100), nullable=False, index=True),
    Column("dataset", String(64), nullable=False),
    Column("key", Text, nullable=False),
    Column("kind", String(10), nullable=False, comment="edit, create, delete, lost"),
    Column("raised_by", String(12), nullable=False, comment="region that proposes"),
    Column("fields", Text, nullable=False, comment="JSON list of field names"),
    Column("payload", LargeBinary, nullable=False, comment="encrypted: proposed and current values"),
    Column("state", String(10), nullable=False, comment="raised, ended"),
    Column("raised", _TIME, nullable=False),
    Column("last_seen", _TIME, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("audit_id", Integer, primary_key=True, autoincrement=True),
    Column("at", _TIME, nullable=False),
    Column("actor", String(100), nullable=False),
    Column("action", String(40), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("detail", Text, nullable=False, default=""),
)
