"""Make the tables whose locks say whose turn it is, keep scores that come before their span, when budgets were changed,
and costs to numbers.

Safe while workers run. Calls wait for a moment while their table gets its rule; rows that are there are not read.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# One table each, always empty: any login can take an advisory lock, only who may write a table can lock it.
TURNS = {
    "maintenance": "Internal: always empty; the worker that does the chores holds its lock.",
    "dispatch": "Internal: always empty; who compiles the dispatch, or pauses a validator, holds its lock.",
    "purge": "Internal: always empty; who purges holds its lock.",
    "fold": "Internal: always empty; who changes rollups holds its lock.",
    "clusters": "Internal: always empty; who changes clusters holds its lock.",
    "metrics": "Internal: always empty; who declares or drops a metric holds its lock.",
    "monitors": "Internal: always empty; who steps the monitors of drift holds its lock.",
    "windows": "Internal: always empty; who compares days with their windows holds its lock.",
    "novelty": "Internal: always empty; who looks for novel inputs holds its lock.",
}

SETTINGS = {
    "purge_wait_seconds": (
        "30",
        "Seconds for which purge() tries to get the days it drops to itself, half a second at a time.",
    ),
    "people_are_logins": (
        "false",
        "Whether who labels or signs must be the login of the session (true, false); admins may give any name.",
    ),
}

# Columns of _score_changes, and since when a fold may forget a row.
EARLY_SCORES = """
    create table flywheel._early_scores (
      early_id uuid not null default gen_random_uuid(),
      span_id uuid not null,
      version_id uuid not null,
      started_at timestamptz not null,
      value double precision,
      cost_usd double precision,
      latency_ms double precision,
      revision integer not null,
      input_tokens integer,
      output_tokens integer,
      sign smallint not null,
      passed boolean,
      unscored_reason text,
      waits_for xid8,
      constraint _early_scores_pkey primary key (early_id)
    )
"""

EARLY_COMMENTS = {
    "early_id": "Its id.",
    "span_id": "Span of the score.",
    "version_id": "Version that gave it.",
    "started_at": "Start of the span.",
    "value": "Its value; null = none.",
    "cost_usd": "Its cost; null = unknown or free.",
    "latency_ms": "Time it took; null = unknown.",
    "revision": "Revision it is about.",
    "input_tokens": "Tokens read for it; null = unknown.",
    "output_tokens": "Tokens written for it; null = unknown.",
    "sign": "1 written, -1 taken away.",
    "passed": "Its verdict; null = unscored.",
    "unscored_reason": "Why there is no verdict.",
    "waits_for": "Every transaction below this one may still bring the span unnoticed; null = not known yet.",
}

COST = "cost_usd >= 0 and cost_usd < 1e15"


def turns() -> list[str]:
    made = []
    for chore, text in TURNS.items():
        table = f"flywheel._turn_{chore}"
        made += [
            f"create table {table} (nothing boolean constraint _turn_{chore}_pkey primary key)",
            f"comment on table {table} is '{text}'",
            f"comment on column {table}.nothing is 'No row is ever written.'",
        ]
    return made


def early_scores() -> list[str]:
    text = "Internal: changes of scores that a fold met without their span, which may be on its way."
    return [
        EARLY_SCORES,
        f"comment on table flywheel._early_scores is '{text}'",
        *(f"comment on column flywheel._early_scores.{name} is '{said}'" for name, said in EARLY_COMMENTS.items()),
    ]


def budget_changes() -> list[str]:
    table = "flywheel._budget_changes"
    return [
        f"""create table {table} (
              single boolean not null default true,
              changed_at timestamptz not null default '-infinity',
              constraint _budget_changes_pkey primary key (single),
              constraint budget_change_is_one_row check (single)
            )""",
        f"comment on table {table} is 'Internal: one row: when a budget or a price was last changed.'",
        f"comment on column {table}.single is 'Always true.'",
        f"comment on column {table}.changed_at is 'When.'",
        f"insert into {table} default values",
    ]


def settings() -> list[str]:
    return [
        f"insert into flywheel.settings (name, value, description) values ('{name}', '{value}', '{text}')"
        for name, (value, text) in SETTINGS.items()
    ]


def costs() -> list[str]:
    """Rows of the default partition move to a day of their own one day, so they must keep the rule; others may not."""
    return [
        f"update flywheel.calls_default set cost_usd = null where not ({COST})",
        f"alter table flywheel.calls add constraint call_cost_is_a_number check ({COST}) not valid",
    ]


def upgrade() -> None:
    for statement in [*turns(), *early_scores(), *budget_changes(), *settings(), *costs()]:
        op.execute(statement.replace(":", r"\:"))


def downgrade() -> None:
    op.execute("alter table flywheel.calls drop constraint call_cost_is_a_number")
    for name in SETTINGS:
        op.execute(f"delete from flywheel.settings where name = '{name}'")
    op.execute("drop table flywheel._budget_changes")
    op.execute("drop table flywheel._early_scores")
    for chore in TURNS:
        op.execute(f"drop table flywheel._turn_{chore}")


def verify() -> None:
    for chore in TURNS:
        op.execute(f"select nothing from flywheel._turn_{chore} where false")
    op.execute("select early_id, waits_for from flywheel._early_scores where false")
    op.execute("select 1 / count(*), max(changed_at) from flywheel._budget_changes")
    op.execute(
        "select 1 / count(*) from pg_constraint"
        " where conname = 'call_cost_is_a_number' and conrelid = 'flywheel.calls'\\:\\:regclass"
    )
