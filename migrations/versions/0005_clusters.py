"""Make the tables of semantic clusters and their members."""

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""


def downgrade() -> None:
    """Drop them."""


def verify() -> None:
    """Read every column."""
