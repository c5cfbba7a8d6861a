"""What stood at the authority when a carried edit became a question there: what its people type later is newer than their ruling."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("correction", sa.Column("asked_fp", sa.LargeBinary()))
