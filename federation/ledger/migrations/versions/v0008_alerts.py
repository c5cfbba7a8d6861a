"""Which alerts each channel was told, so that many workers together tell it once, and tell it when it is over."""

from alembic import op

from federation.ledger import schema

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    schema.alert.create(op.get_bind())
