"""What doctor says of judges: whether they can be asked, what they may cost, and what people know of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgflywheel.cli import figures
from pgflywheel.cli.text import at, one_line

if TYPE_CHECKING:
    from pgflywheel.cli.doctor import Report
    from pgflywheel.db.connect import Database


async def check_providers(database: Database, report: Report) -> None:
    """Report providers that are not called."""
    from pgflywheel.db import providers

    known = await providers.status(database)
    blocked = [each for each in known if each.blocked_until]
    for each in blocked:
        found = f"{each.provider} is not called until {at(each.blocked_until)} UTC: {each.blocked_reason}"
        detail = f", {one_line(each.blocked_detail)}" if each.blocked_detail else ""
        report.add("providers", found + detail, "warn", f"Mended? pgflywheel providers release {each.provider}.")
    if not blocked:
        report.add("providers", f"{len(known)} may be called" if known else "none is defined")


async def check_budgets(database: Database, report: Report) -> None:
    """Report budgets that stop judges, and judges a budget stops because their price is unknown."""
    from pgflywheel.db import budgets, judge_health

    known = await budgets.status(database)
    reached = [each for each in known if each.reached]
    for each in reached:
        found = f"{each.scope}:{each.name} has used its {figures.cap(each.cap_usd)} a {each.period}; spans wait"
        hint = f"They go on at {at(each.resumes_at)} UTC, or: pgflywheel budgets set {each.scope}:{each.name}"
        report.add("budgets", found, "warn", f"{hint} {each.period} USD.")
    unpriced = await judge_health.unpriced(database)
    for judge in unpriced:
        found = f"a budget lets no call of {judge.validator} through: model {judge.model} has no price"
        report.add("budgets", found, "warn", f"Give it one: pgflywheel providers set, in {judge.provider}'s table.")
    if not reached and not unpriced:
        report.add("budgets", "none is reached")


async def check_judges(database: Database, report: Report) -> None:
    """Report judges without labels: nobody knows how often they are right."""
    from pgflywheel.db import judge_health

    names = await judge_health.without_labels(database)
    found = f"{', '.join(names)}: no label says how often it is right" if names else "each active one has labels"
    hint = f"Label some: pgflywheel labels draw {names[0]} --number 100, then labels next." if names else None
    report.add("judges", found, "warn" if names else None, hint)


async def check_examples(database: Database, report: Report) -> None:
    """Report examples that wait for people."""
    from pgflywheel.db import judge_health

    pool = await judge_health.pool(database)
    if pool.quarantined:
        hint = "Look: pgflywheel examples list --status quarantined; then release or revoke."
        report.add("examples", f"in quarantine: {pool.quarantined:,}", "warn", hint)
    if pool.unsigned:
        hint = "Look: pgflywheel examples list --status candidate; then sign."
        report.add("examples", f"waiting for a signature: {pool.unsigned:,}", "warn", hint)
    if not pool.quarantined and not pool.unsigned:
        report.add("examples", "none waits for a person")


async def check_embedders(database: Database, report: Report) -> None:
    """Report embedders that lack vectors, and texts that were given up."""
    from pgflywheel.db import embedders

    known = [each for each in await embedders.status(database) if each.status != "retired"]
    behind = [each for each in known if each.waiting or each.dead]
    for each in behind:
        found = f"{each.name} ({each.status}): {each.embedded:,} of {each.examples:,} examples have a vector"
        given_up = f", {each.dead:,} were given up" if each.dead else ""
        hint = (
            "See why: pgflywheel queue dead." if each.dead else "Run a worker with lane embed: pgflywheel worker run."
        )
        report.add("embedders", found + given_up, "warn", hint)
    if not behind:
        report.add("embedders", "every example has its vectors")
