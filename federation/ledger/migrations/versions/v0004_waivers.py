"""Waivers: one version of one record may pass one rule until a date."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "waiver",
        sa.Column("waiver_id", sa.String(32), nullable=False),
        sa.Column("item_id", sa.String(32), nullable=False),
        sa.Column("link_id", sa.String(100), nullable=False),
        sa.Column("dataset", sa.String(64), nullable=False),
        sa.Column("direction", sa.String(4), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("rule", sa.String(200), nullable=False),
        sa.Column("waived_by", sa.String(100), nullable=False),
        sa.Column("reason", sa.LargeBinary(), nullable=False),
        sa.Column("until", sa.Date(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("waiver_id", name="pk_waiver"),
    )
    op.create_index("ix_waiver_item_id", "waiver", ["item_id"])
    op.create_index("ix_waiver_dataset", "waiver", ["dataset"])
