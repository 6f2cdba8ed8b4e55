"""Make the table of metrics that are declared by name, and the settings of the views of quality.

Safe while workers run: they do not read it.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

METRICS = """
    create table flywheel.metrics (
      name text not null,
      definition jsonb not null,
      storage text not null default 'rollup',
      refresh_seconds integer not null default 300,
      defined_by text not null default session_user,
      defined_at timestamptz not null default now(),
      refreshed_at timestamptz,
      refresh_ms double precision,
      error text,
      constraint metrics_pkey primary key (name),
      constraint metric_name_is_plain check (name ~ '^[a-z][a-z0-9_]{0,40}$' and name <> 'status'),
      constraint metric_storage_is_known check (storage in ('live', 'rollup', 'materialized')),
      constraint metric_refresh_is_positive check (refresh_seconds > 0)
    )
"""

TABLE_COMMENT = "Metrics declared by name; each is a view metric_<name> for BI tools. Written by define_metric()."

COLUMN_COMMENTS = {
    "name": "Name of the metric.",
    "definition": "What is measured, with its defaults.",
    "storage": "live (counted from raw rows), rollup (exact, from rollups) or materialized (refreshed by a worker).",
    "refresh_seconds": "Seconds between refreshes, where it is materialized.",
    "defined_by": "Database user who defined it last.",
    "defined_at": "When it was defined last.",
    "refreshed_at": "When it was refreshed last; null = it is never stale.",
    "refresh_ms": "Milliseconds the last refresh took; null = none yet.",
    "error": "Why the last refresh failed; null = it did not.",
}

SETTINGS = {
    "quality_window_days": ("30", "Days (UTC, today among them) that quality_by_validator and its like look back."),
}


def comments() -> list[str]:
    columns = [
        f"comment on column flywheel.metrics.{column} is '{text.replace(chr(39), chr(39) * 2)}'"
        for column, text in COLUMN_COMMENTS.items()
    ]
    return [f"comment on table flywheel.metrics is '{TABLE_COMMENT}'", *columns]


def settings() -> list[str]:
    return [
        f"insert into flywheel.settings (name, value, description) values ('{name}', '{value}', '{text}')"
        for name, (value, text) in SETTINGS.items()
    ]


def upgrade() -> None:
    for statement in [METRICS, *comments(), *settings()]:
        op.execute(statement.replace(":", r"\:"))


def downgrade() -> None:
    op.execute("drop table if exists flywheel.metrics cascade")
    op.execute(f"delete from flywheel.settings where name in ({', '.join(repr(name) for name in SETTINGS)})")


def verify() -> None:
    op.execute(f"select {', '.join(COLUMN_COMMENTS)} from flywheel.metrics where false")
