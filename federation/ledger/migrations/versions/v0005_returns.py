"""Which state of a quarantined record its origin was last told, so that the end of a return reaches it wherever it was noticed."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("quarantine", sa.Column("shown", sa.String(10)))
    # What stands may have been shown before, so its end is told as well.
    op.execute(sa.text("UPDATE quarantine SET shown = state WHERE state IN ('open', 'replay')"))
