"""pgflywheel doctor: check an install and say how to mend it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from pgflywheel.cli.options import dsn_option, json_option, run, schema_option
from pgflywheel.cli.text import clean, one_line, to_json
from pgflywheel.errors import CheckFailed, FlywheelError, SchemaMismatch, Unreachable

if TYPE_CHECKING:
    from pgflywheel.db.connect import Database

MINIMUM_VERSION = 160000
OLD_JOB_SECONDS = 300
OLD_TRANSACTION_SECONDS = 600
SKEW_SECONDS = 5
MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: ok, warn or fail, and how to mend it."""

    check: str
    state: str
    found: str
    hint: str | None = None


@dataclass
class Report:
    """The findings so far, and the exit code they call for."""

    findings: list[Finding] = field(default_factory=list)
    exit_code: int = 0

    def add(self, check: str, found: str, problem: str | None = None, hint: str | None = None) -> None:
        """Add a finding: ok without a problem, else warn or fail."""
        self.findings.append(Finding(check, problem or "ok", found, hint if problem else None))
        if problem == "fail":
            self.exit_code = self.exit_code or CheckFailed.exit_code

    def add_error(self, check: str, error: FlywheelError) -> None:
        """Add an error a check ended with; a check this role may not make is a warning."""
        permitted = getattr(error.__cause__, "sqlstate", None) != "42501"
        self.add(
            check,
            error.message + (f" ({one_line(error.detail)})" if error.detail else ""),
            "fail" if permitted else "warn",
            error.hint if permitted else "Run doctor as the owner of the install, or as a member of its admin role.",
        )
        if isinstance(error, Unreachable | SchemaMismatch):
            self.exit_code = error.exit_code


Check = Callable[["Database", Report], Awaitable[None]]


@click.command("doctor")
@dsn_option
@schema_option
@json_option
def doctor(dsn: str, schema: str, as_json: bool) -> None:
    """Check an install and say how to mend it.

    Exit code 1 when something fails, 3 when the database cannot be reached, 4 when the schema is missing or old.

    \b
    Example:
        pgflywheel doctor --dsn postgresql://app@localhost/app
    """
    report = run(_examine(dsn, schema))
    if as_json:
        click.echo(to_json(report.findings))
    else:
        for finding in report.findings:
            click.echo(f"{MARKS[finding.state]}  {finding.check:<13} {clean(finding.found)}")
            if finding.hint:
                click.echo(f"      {'':<13} → {clean(finding.hint)}")
    click.get_current_context().exit(report.exit_code)


async def _examine(dsn: str, schema: str) -> Report:
    from pgflywheel.db.connect import described, open_database

    report = Report()
    try:
        async with open_database(dsn, schema) as database:
            report.add("connection", described(dsn))
            await _examine_install(database, report, dsn)
    except Unreachable as error:
        report.add_error("connection", error)
    return report


async def _examine_install(database: Database, report: Report, dsn: str) -> None:
    from pgflywheel.cli import doctor_judges, doctor_packages
    from pgflywheel.db import health

    async def _listen(database: Database, report: Report) -> None:
        arrives = await health.listening(database, dsn)
        report.add(
            "listen",
            "a notification arrives" if arrives else "a notification of another session does not arrive",
            None if arrives else "warn",
            "Workers poll instead. Behind pgbouncer in transaction mode this is normal; "
            "give workers a direct connection to be woken at once.",
        )

    await _guarded("server", _server, database, report)
    if not await _guarded("schema", _schema, database, report):
        return
    for name, check in (
        ("functions", _functions),
        ("roles", _roles),
        ("partitions", _partitions),
        ("triggers", _triggers),
        ("listen", _listen),
        ("workers", _workers),
        ("queue", _queue),
        ("rollups", _rollups),
        ("validators", _validators),
        ("transactions", _transactions),
        ("providers", doctor_judges.check_providers),
        ("budgets", doctor_judges.check_budgets),
        ("judges", doctor_judges.check_judges),
        ("examples", doctor_judges.check_examples),
        ("embedders", doctor_judges.check_embedders),
        ("packages", doctor_packages.check_packages),
    ):
        await _guarded(name, check, database, report)


async def _guarded(name: str, check: Check, database: Database, report: Report) -> bool:
    """Make one check; an error of it is a finding, and the others go on."""
    try:
        await check(database, report)
    except FlywheelError as error:
        report.add_error(name, error)
        return False
    return True


async def _server(database: Database, report: Report) -> None:
    from pgflywheel.db import health

    asked = datetime.now(UTC)
    server = await health.server(database)
    answered = datetime.now(UTC)
    report.add(
        "server",
        f"PostgreSQL {server.version}",
        "fail" if server.version_num < MINIMUM_VERSION else None,
        "pgflywheel needs PostgreSQL 16 or later.",
    )
    report.add(
        "extension",
        f"vector {server.pgvector}" if server.pgvector else "the extension vector is not created",
        None if server.pgvector else "fail",
        "Let a superuser run: create extension vector;",
    )
    skew = max((asked - server.clock).total_seconds(), (server.clock - answered).total_seconds(), 0.0)
    report.add(
        "clock",
        f"{skew:.1f} s between this machine and the server" if skew > SKEW_SECONDS else "agrees with the server's",
        "warn" if skew > SKEW_SECONDS else None,
        "Spans stamped by an application whose clock is off land in wrong days: run an NTP client.",
    )


async def _schema(database: Database, report: Report) -> None:
    from pgflywheel.db.version import require_current

    await require_current(database)
    report.add("schema", f"{database.schema} is of this version")


async def _functions(database: Database, report: Report) -> None:
    from pgflywheel import assets
    from pgflywheel.db.version import INSTALLED, Installed

    installed = await database.row(Installed, INSTALLED)
    same = installed is not None and installed.sql_hash == assets.sql_hash()
    found = "as this package has them" if same else "differ from this package's"
    hint = f"Run `pgflywheel db upgrade --schema {database.schema}`."
    report.add("functions", found, None if same else "warn", hint)


async def _roles(database: Database, report: Report) -> None:
    from pgflywheel.db import health

    missing = await health.missing_roles(database)
    found = f"{', '.join(missing)} not there" if missing else f"{database.schema}_writer and the others are there"
    hint = "Upgrade as a role with CREATEROLE: pgflywheel db upgrade --reapply."
    report.add("roles", found, "warn" if missing else None, hint)


async def _partitions(database: Database, report: Report) -> None:
    from pgflywheel.db import health

    parts = await health.partitions(database)
    ensure = f"select {database.schema}.ensure_partitions(current_date, current_date + 7);"
    if not parts.today or not parts.tomorrow:
        day = "tomorrow" if parts.today else "today"
        report.add("partitions", f"there is none for {day}", "warn", f"A running worker makes them. By hand: {ensure}")
    else:
        report.add("partitions", f"made until {parts.last_day}")
    if parts.default_rows:
        report.add(
            "default",
            f"{parts.default_rows:,} spans lie in spans_default, outside the daily partitions",
            "warn",
            f"Make the partitions of their days; rows move into them: select {database.schema}.ensure_partitions("
            f"min(started_at)::date, max(started_at)::date) from {database.schema}.spans_default;",
        )


async def _triggers(database: Database, report: Report) -> None:
    from pgflywheel.db import health

    lost = await health.lost_triggers(database)
    found = f"{', '.join(lost)} missing or disabled: new spans are not judged" if lost else "enabled"
    hint = (
        f"alter table {database.schema}.spans enable trigger all; "
        f"or pgflywheel db upgrade --reapply --schema {database.schema}."
    )
    report.add("triggers", found, "fail" if lost else None, hint)


async def _workers(database: Database, report: Report) -> None:
    from pgflywheel.db import health

    alive = [worker for worker in await health.workers(database) if worker.alive]
    deaf = [worker.name for worker in alive if not worker.listening]
    found = f"{len(alive)} alive: {', '.join(worker.name for worker in alive)}" if alive else "no worker is alive"
    report.add("workers", found, None if alive else "warn", "Start one: pgflywheel worker run.")
    if deaf:
        report.add(
            "polling", f"{', '.join(deaf)} cannot LISTEN", "warn", "Give it a direct connection, past the pooler."
        )


async def _queue(database: Database, report: Report) -> None:
    from pgflywheel.db import health

    backlog = await health.backlog(database)
    age = backlog.oldest_ready_seconds or 0
    found = f"the oldest job waits for {age:,.0f} s" if age else "no job waits"
    hint = "Start more workers: pgflywheel worker run. Jobs of a blocked provider wait, too: see below."
    report.add("queue", found, "warn" if age > OLD_JOB_SECONDS else None, hint)
    if backlog.dead_spans:
        hint = "See why: pgflywheel queue dead. Once mended: pgflywheel queue replay --all."
        report.add("dead jobs", f"{backlog.dead_spans:,} spans were given up", "warn", hint)
    if backlog.paused_lanes:
        report.add("lanes", f"paused: {', '.join(backlog.paused_lanes)}", "warn", "pgflywheel queue resume LANE.")


async def _rollups(database: Database, report: Report) -> None:
    from pgflywheel.db import rollups

    for behind in await rollups.status(database):
        if behind.waiting_days:
            found = f"{behind.waiting_days:,} days wait to be counted anew; until then their rates are not right"
            report.add("rollups", found, "warn", "A running worker counts them: pgflywheel worker run.")


async def _validators(database: Database, report: Report) -> None:
    from pgflywheel.db import health

    paused = await health.paused_validators(database)
    for each in paused:
        found = f"{each.validator} was paused for {each.paused_reason}: {one_line(each.paused_detail)}"
        report.add("validators", found, "warn", f"Mend it, then: pgflywheel validators activate {each.validator}.")
    faulty = await health.faulty_validators(database)
    for one in faulty:
        found = (
            f"{one.validator} v{one.version} gave no verdict on {one.unscored:,} of {one.n:,} spans "
            f"since yesterday; most: {one.reason}"
        )
        hint = (
            f"See them: pgflywheel scores show --validator {one.validator} --verdict unscored. "
            f"Once it is mended: pgflywheel backfill {one.validator} --since 2d --unscored."
        )
        report.add("validators", found, "warn", hint)
    if not paused and not faulty:
        report.add("validators", "none was paused for errors or slowness")


async def _transactions(database: Database, report: Report) -> None:
    from pgflywheel.db import health

    oldest = await health.oldest_transaction(database)
    if oldest is None or oldest.seconds < OLD_TRANSACTION_SECONDS:
        report.add("transactions", "none is open for long")
        return
    found = f"one is open for {oldest.seconds:,.0f} s: pid {oldest.pid} {oldest.who}"
    hint = f"It keeps vacuum from cleaning the queue. End it: select pg_terminate_backend({oldest.pid});"
    report.add("transactions", found, "warn", hint)
