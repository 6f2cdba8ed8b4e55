"""Index feedback by day, and spans of classifiers that carry the class that was expected of them.

Safe while workers run, but applications wait to insert spans and feedback while the tables are read once.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

INDEXES = [
    # The expression of the view feedback_by_day, so that a day asked for is a day read.
    "create index feedback_day on flywheel.feedback (date_bin('1 day', created_at, '2000-01-01 00:00:00+00'))",
    """
    create index spans_expected on flywheel.spans (started_at)
      where node_kind = 'classifier' and attributes ? 'expected'
    """,
]


def upgrade() -> None:
    for statement in INDEXES:
        op.execute(statement.replace(":", r"\:"))


def downgrade() -> None:
    op.execute("drop index flywheel.feedback_day")
    op.execute("drop index flywheel.spans_expected")


def verify() -> None:
    op.execute("select 'flywheel.feedback_day'\\:\\:regclass, 'flywheel.spans_expected'\\:\\:regclass")
