"""The tables of the ledger. They hold keys and fingerprints, never attribute values, except encrypted payloads."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
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
    Column("intent", Text, comment="file of what the last run was about to write, until it settles"),
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
    Column("state", String(10), nullable=False, comment="open, replay, released, closed"),
    Column("closed", _TIME),
    Column(
        "shown",
        String(10),
        comment="state that its origin was last told: open, replay, closed; nowhere: no place for it",
    ),
    Index(None, "link_id", "direction", "state"),
)

waiver = Table(
    "waiver",
    metadata,
    Column(
        "waiver_id", String(32), primary_key=True, comment="keyed hash of the version of the record, and of the rule"
    ),
    Column("item_id", String(32), nullable=False, index=True, comment="the quarantined record that was waived"),
    Column("link_id", String(100), nullable=False, comment="the link that had set it aside"),
    Column("dataset", String(64), nullable=False, index=True),
    Column("direction", String(4), nullable=False, comment="down, up"),
    Column("key", Text, nullable=False),
    Column("rule", String(200), nullable=False),
    Column("waived_by", String(100), nullable=False, comment="who answers for it"),
    Column("reason", LargeBinary, nullable=False, comment="encrypted"),
    Column("until", Date, nullable=False, comment="the last day on which it may pass"),
    Column("at", _TIME, nullable=False),
)

correction = Table(
    "correction",
    metadata,
    Column("correction_id", String(32), primary_key=True),
    Column("link_id", String(100), nullable=False, index=True, comment="the link that noticed it"),
    Column("dataset", String(64), nullable=False),
    Column("key", Text, nullable=False),
    Column("kind", String(10), nullable=False, comment="edit, create, delete, carry; lost: for the log only"),
    Column("raised_by", String(12), nullable=False, comment="region that proposes"),
    Column("target", String(12), comment="region of the authority's node, which rules"),
    Column("at", String(12), index=True, comment="region where it stands on its way"),
    Column("group", String(64), comment="field group of the link that noticed it"),
    Column("fields", Text, nullable=False, comment="JSON list of field names"),
    Column("payload", LargeBinary, nullable=False, comment="encrypted: proposed and current values"),
    Column("proposed_fp", LargeBinary, comment="fingerprint of the proposed values of the fields"),
    Column("basis_fp", LargeBinary, comment="fingerprint of the values that the proposal was made against"),
    Column("group_fp", LargeBinary, comment="fingerprint of the whole group at the end that proposes"),
    Column(
        "asked_fp",
        LargeBinary,
        comment="of a carried edit: fingerprint of what stood at the authority when last compared",
    ),
    Column(
        "state",
        String(12),
        nullable=False,
        comment="raised (on its way), waiting, accepted, rejected, superseded, withdrawn; logged",
    ),
    Column("checked", Boolean, comment="compared with the value at the authority since it arrived there"),
    Column("applied", Boolean, comment="an accepted proposal was written at the authority"),
    Column("restored", Boolean, comment="after a refusal, the proposing end holds the authority's value again"),
    Column("raised", _TIME, nullable=False),
    Column("due", Date),
    Column("last_seen", _TIME, nullable=False),
    Column("ruled", _TIME),
    Column("ruled_by", String(100)),
    Column("ruling", LargeBinary, comment="encrypted: the reason of the ruling"),
    Column("closed", _TIME, comment="the outcome is back where the proposal came from"),
    Column("trail", Text, comment="JSON list of [region, time]: the way so far"),
    Index(None, "dataset", "closed"),
)

contest = Table(
    "contest",
    metadata,
    Column("contest_id", String(32), primary_key=True),
    Column("dataset", String(64), nullable=False, index=True),
    Column("key", Text, nullable=False),
    Column(
        "link_id", String(100), nullable=False, index=True, comment="the link whose lower end claims the key as well"
    ),
    Column("parent", String(12), nullable=False, comment="the common parent, which rules"),
    Column("incumbent", String(12), nullable=False, comment="child whose record the parent holds"),
    Column("challenger", String(12), nullable=False, comment="child that claims the key as well"),
    Column("payload", LargeBinary, nullable=False, comment="encrypted: both records"),
    Column("state", String(10), nullable=False, comment="open, awarded (to the challenger), refused, ended"),
    Column("raised", _TIME, nullable=False),
    Column("last_seen", _TIME, nullable=False),
    Column("ruled", _TIME),
    Column("ruled_by", String(100)),
    Column("ruling", LargeBinary, comment="encrypted: the reason of the ruling"),
)

tombstone = Table(
    "tombstone",
    metadata,
    Column("dataset", String(64), primary_key=True),
    Column("region", String(12), primary_key=True, comment="the node concerned"),
    Column("key", String(500), primary_key=True),
    Column("link_id", String(100), primary_key=True, comment="the link that has yet to act on it; empty: none has to"),
    Column(
        "kind",
        String(10),
        nullable=False,
        comment="deleted, moved: removed here by the engine; arrived: came back since; left: its child changed, it stays here",
    ),
    Column("destination", String(12), comment="jurisdiction that the record moved to"),
    Column("fps", Text, comment="JSON, group to fingerprint: what was agreed on with the child that it left"),
    Column("by_link", String(100), nullable=False),
    Column("at", _TIME, nullable=False),
    Column("acknowledged", _TIME, index=True),
    Index(None, "link_id", "acknowledged"),
)

waiting = Table(
    "waiting",
    metadata,
    Column("link_id", String(100), primary_key=True),
    Column("side", String(5), primary_key=True),
    Column("key", String(500), primary_key=True),
    Column(
        "mark", String(64), nullable=False, comment="hash of what the links beyond had agreed on: another one wakes"
    ),
)

quality = Table(
    "quality",
    metadata,
    Column("dataset", String(64), primary_key=True),
    Column("region", String(12), primary_key=True, comment="the node that was examined"),
    Column("checked_at", _TIME, primary_key=True),
    Column("rule", String(200), primary_key=True),
    Column("severity", String(10), nullable=False, comment="critical, warning, info"),
    Column(
        "evaluated", BigInteger, nullable=False, comment="records that the rule judged; 1 if it judges the whole table"
    ),
    Column("failing", BigInteger, nullable=False),
)

pause = Table(
    "pause",
    metadata,
    Column("kind", String(10), primary_key=True, comment="link, region (with all below it), system"),
    Column("subject", String(100), primary_key=True, comment="link id, region code or name of a system"),
    Column("reason", Text, nullable=False, comment="for whoever asks why; names no person"),
    Column("paused_by", String(100), nullable=False),
    Column("at", _TIME, nullable=False),
    Column("until", _TIME, comment="moment at which it is over by itself; null: until it is resumed"),
)

erasure = Table(
    "erasure",
    metadata,
    Column("erasure_id", String(32), primary_key=True),
    Column("dataset", String(64), nullable=False, index=True),
    Column("key", Text, nullable=False, comment="emptied once the record is gone everywhere"),
    Column("key_fp", String(64), nullable=False, comment="keyed fingerprint of the key: what stays"),
    Column("asked_by", String(100), nullable=False, comment="who answers for it"),
    Column("reason", LargeBinary, nullable=False, comment="encrypted"),
    Column("state", String(10), nullable=False, comment="pending, done"),
    Column("waits", Text, nullable=False, comment="JSON: node or link to what it waits for"),
    Column("at", _TIME, nullable=False),
    Column("tried", _TIME),
    Column("finished", _TIME),
)

alert = Table(
    "alert",
    metadata,
    Column("subject", String(200), primary_key=True, comment="what it is about: <kind>:<link, node or run>"),
    Column("channel", String(64), primary_key=True, comment="whom it is told; each channel is told on its own"),
    Column("kind", String(10), nullable=False, comment="held, failed, overdue, run, deadline"),
    Column("dataset", String(64), index=True),
    Column("title_zh", String(300), nullable=False),
    Column("title_en", String(300), nullable=False),
    Column("raised", _TIME, nullable=False),
    Column("seen", _TIME, nullable=False, index=True),
    Column("sent", _TIME, comment="when a message about it was last sent, or is being sent"),
    Column("told", Boolean, nullable=False, default=False, comment="the channel was told since it was raised"),
    Column("swallowed", Integer, nullable=False, default=0, comment="how often it was seen and not told since `sent`"),
    Column("cleared", _TIME, comment="when it was over"),
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
