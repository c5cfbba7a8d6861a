"""Corrections with a life cycle, contested keys, tombstones, intents, and what waits for a neighbouring link."""

import sqlalchemy as sa
from alembic import op

from federation.ledger import schema

revision = "0002"
down_revision = "0001"

OLD = {
    "correction_id",
    "link_id",
    "dataset",
    "key",
    "kind",
    "raised_by",
    "fields",
    "payload",
    "state",
    "raised",
    "last_seen",
}
LATER = {"asked_fp"}


def upgrade() -> None:
    op.add_column("link", sa.Column("intent", sa.Text()))
    with op.batch_alter_table("correction") as batch:
        batch.alter_column("state", type_=sa.String(12), existing_type=sa.String(10), existing_nullable=False)
        for column in schema.correction.columns:
            if column.name not in OLD | LATER:
                batch.add_column(sa.Column(column.name, column.type, nullable=True))
        batch.create_index("ix_correction_at", ["at"])
        batch.create_index("ix_correction_dataset_closed", ["dataset", "closed"])
    # What was raised before had no way to a ruling: it is kept for the log and raised anew where it still stands.
    op.execute(sa.text("UPDATE correction SET state = 'logged'"))
    for table in (schema.contest, schema.tombstone, schema.waiting):
        table.create(op.get_bind())
