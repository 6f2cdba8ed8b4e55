"""Make the tables of alert rules, alerts, channels and deliveries.

Workers of earlier releases stop with exit code 4 until they are replaced. There are no rules until somebody sets one.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

RULES = [
    """
    create table flywheel.alert_rules (
      rule text not null,
      metric text not null,
      severity text not null,
      definition jsonb not null,
      created_at timestamptz not null default now(),
      changed_at timestamptz not null default now(),
      constraint alert_rules_pkey primary key (rule),
      constraint alert_rule_severity_is_known check (severity in ('info', 'low', 'medium', 'high', 'critical'))
    )
    """,
    """
    create table flywheel.alert_channels (
      channel text not null,
      url text,
      url_variable text,
      secret_variable text,
      insecure boolean not null default false,
      created_at timestamptz not null default now(),
      changed_at timestamptz not null default now(),
      constraint alert_channels_pkey primary key (channel),
      constraint alert_channel_has_one_address check (num_nonnulls(url, url_variable) = 1)
    )
    """,
    """
    create table flywheel._alert_evaluations (
      rule text not null,
      next_at timestamptz not null default '-infinity',
      evaluated_at timestamptz,
      took_ms double precision,
      slices bigint,
      problem text,
      constraint _alert_evaluations_pkey primary key (rule)
    ) with (fillfactor = 50)
    """,
    """
    create table flywheel._alert_states (
      rule text not null,
      slice jsonb not null,
      firing_since timestamptz,
      clear_since timestamptz,
      counts_from timestamptz,
      constraint _alert_states_pkey primary key (rule, slice)
    )
    """,
]

ALERTS = [
    """
    create table flywheel._incidents (
      incident_id uuid not null,
      project text not null,
      release text not null,
      opened_at timestamptz not null,
      closed_at timestamptz,
      constraint _incidents_pkey primary key (incident_id)
    )
    """,
    "create unique index incident_is_open_once on flywheel._incidents (project, release) where closed_at is null",
    """
    create table flywheel.alerts (
      alert_id uuid not null,
      rule text not null,
      metric text not null,
      severity text not null,
      slice jsonb not null,
      opened_at timestamptz not null,
      last_seen_at timestamptz not null,
      closed_at timestamptz,
      closed_because text,
      value double precision,
      threshold double precision,
      effect double precision,
      n bigint,
      evidence jsonb not null,
      reopened integer not null default 0,
      incident_id uuid,
      verdict text,
      note text,
      acknowledged_by text,
      acknowledged_at timestamptz,
      snoozed_until timestamptz,
      snoozed_by text,
      changed_at timestamptz not null default clock_timestamp(),
      constraint alerts_pkey primary key (alert_id),
      constraint alert_verdict_is_known check (verdict in ('real', 'noise')),
      constraint closed_alert_says_why check ((closed_at is null) = (closed_because is null)),
      constraint alert_is_of_an_incident foreign key (incident_id) references flywheel._incidents (incident_id)
    )
    """,
    "create unique index alert_is_open_once on flywheel.alerts (rule, slice) where closed_at is null",
    "create index alerts_closed_at on flywheel.alerts (rule, closed_at) where closed_at is not null",
    "create index alerts_changed_at on flywheel.alerts (changed_at)",
    "create index alerts_incident_id on flywheel.alerts (incident_id) where incident_id is not null",
]

DELIVERIES = [
    """
    create table flywheel._deliveries (
      delivery_id uuid not null,
      channel text not null,
      kind text not null,
      body jsonb not null,
      created_at timestamptz not null,
      run_at timestamptz not null,
      attempt integer not null default 0,
      fence uuid,
      leased_until timestamptz,
      sent_at timestamptz,
      dead_at timestamptz,
      last_problem text,
      constraint _deliveries_pkey primary key (delivery_id),
      constraint delivery_kind_is_known check (kind in ('alert', 'incident', 'summary', 'test'))
    )
    """,
    "create index deliveries_waiting on flywheel._deliveries (run_at) where sent_at is null and dead_at is null",
    "create index deliveries_created_at on flywheel._deliveries (created_at)",
]

TABLE_COMMENTS = {
    "alert_rules": "What is watched, and when it is an alert; set by set_alert_rule().",
    "alert_channels": "Where alerts are sent to; set by set_alert_channel().",
    "_alert_evaluations": "Internal: when each rule was looked at, when it is next, and what is wrong with it.",
    "_alert_states": "Internal: slices of rules that fire, become clear, or are counted anew since a time.",
    "_incidents": "Internal: alerts of one release that are told as one.",
    "alerts": "What was or is wrong, at most one open row for each rule and slice.",
    "_deliveries": "Internal: webhook messages to send, sent and given up.",
}

COLUMN_COMMENTS = {
    "alert_rules": {
        "rule": "Name of the rule.",
        "metric": "What it watches.",
        "severity": "info, low, medium, high or critical.",
        "definition": "The whole rule with its defaults.",
        "created_at": "When it was set first.",
        "changed_at": "When its definition changed last.",
    },
    "alert_channels": {
        "channel": "Name of the channel.",
        "url": "Where its messages are posted to; null = see url_variable.",
        "url_variable": "Environment variable of the workers that holds the address, where it is a secret.",
        "secret_variable": "Environment variable of the workers that holds the secret messages are signed with.",
        "insecure": "Whether http without TLS is allowed.",
        "created_at": "When it was set first.",
        "changed_at": "When it changed last.",
    },
    "_alert_evaluations": {
        "rule": "The rule.",
        "next_at": "When it is due.",
        "evaluated_at": "When it was looked at last.",
        "took_ms": "How long that took.",
        "slices": "How many slices it has.",
        "problem": "Why it could not be evaluated; null = it could.",
    },
    "_alert_states": {
        "rule": "The rule.",
        "slice": "The slice.",
        "firing_since": "Since when it fires without a break.",
        "clear_since": "Since when it is clear without a break, while an alert is open.",
        "counts_from": "Rows before are of an alert that is closed.",
    },
    "_incidents": {
        "incident_id": "Its id.",
        "project": "Project of the release; empty = of no project alone.",
        "release": "The release.",
        "opened_at": "When it had enough alerts.",
        "closed_at": "When its last alert closed; null = open.",
    },
    "alerts": {
        "alert_id": "Its id.",
        "rule": "Name of the rule.",
        "metric": "What the rule watches.",
        "severity": "info, low, medium, high or critical.",
        "slice": "Of what: validator, project, node, release and so on.",
        "opened_at": "When it was opened.",
        "last_seen_at": "When the rule fired last.",
        "closed_at": "When it closed by itself; null = open.",
        "closed_because": "cleared, no data, rule changed or rule dropped; null = open.",
        "value": "The metric when the rule fired last.",
        "threshold": "What it was compared with.",
        "effect": "How far the value is on the wrong side.",
        "n": "Rows the value is made of.",
        "evidence": "What the statistic was made of: interval, baseline, since when.",
        "reopened": "How often it was opened again within an hour after it had closed.",
        "incident_id": "The incident it is told with; null = it is told alone.",
        "verdict": "What people say of it: real or noise; null = nobody has looked.",
        "note": "What they note.",
        "acknowledged_by": "Who looked.",
        "acknowledged_at": "When.",
        "snoozed_until": "No message before; null = none is held back.",
        "snoozed_by": "Who asked for that.",
        "changed_at": "When the row changed last.",
    },
    "_deliveries": {
        "delivery_id": "Its id, the same at every attempt.",
        "channel": "Where it goes.",
        "kind": "alert, incident, summary or test.",
        "body": "What is posted.",
        "created_at": "Since when it waits.",
        "run_at": "When it is tried next.",
        "attempt": "How often it was tried.",
        "fence": "The claim that may end it.",
        "leased_until": "Until when that claim holds.",
        "sent_at": "When it was taken.",
        "dead_at": "When it was given up.",
        "last_problem": "Why the last attempt failed.",
    },
}

SETTINGS = {
    "false_alarms_per_month": (
        "2",
        "False alarms a month that all alert rules together may raise on rates; split evenly over rules and slices.",
    ),
    "alerts_per_rule": ("20", "Open alerts of one rule; further slices that fire are told as one."),
    "alert_notifications_per_hour": ("20", "Messages one channel gets in an hour; the rest is told in one."),
    "incident_alerts": ("3", "Open alerts of one release that make an incident, which is told as one."),
    "alert_stale_days": ("7", "Days without data after which an open alert closes."),
}


def comments() -> list[str]:
    tables = [f"comment on table flywheel.{table} is '{text}'" for table, text in TABLE_COMMENTS.items()]
    columns = [
        f"comment on column flywheel.{table}.{column} is '{text}'"
        for table, texts in COLUMN_COMMENTS.items()
        for column, text in texts.items()
    ]
    return tables + columns


def settings() -> list[str]:
    return [
        f"insert into flywheel.settings (name, value, description) values ('{name}', '{value}', '{text}')"
        for name, (value, text) in SETTINGS.items()
    ]


def upgrade() -> None:
    for statement in RULES + ALERTS + DELIVERIES + comments() + settings():
        op.execute(statement.replace(":", r"\:"))


def downgrade() -> None:
    for table in (
        "_deliveries",
        "alerts",
        "_incidents",
        "_alert_states",
        "_alert_evaluations",
        "alert_channels",
        "alert_rules",
    ):
        op.execute(f"drop table if exists flywheel.{table} cascade")
    op.execute(f"delete from flywheel.settings where name in ({', '.join(repr(name) for name in SETTINGS)})")


def verify() -> None:
    for table, columns in COLUMN_COMMENTS.items():
        op.execute(f"select {', '.join(columns)} from flywheel.{table} where false")
