"""The trend of quality: what the scheduled report found, per node and rule."""

from alembic import op

from federation.ledger import schema

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    schema.quality.create(op.get_bind())
