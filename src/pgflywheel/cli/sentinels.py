"""pgflywheel sentinels: labelled items a judge is asked about every day; who changed, it or the application?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from pgflywheel.cli import figures
from pgflywheel.cli.numbers import COUNT
from pgflywheel.cli.options import confirm, dsn_option, json_option, run_call, run_list, schema_option, yes_option
from pgflywheel.cli.text import echo, echo_rows, echo_table, one_line

if TYPE_CHECKING:
    from pgflywheel.db.drift import Sentinel, SentinelRun

ENOUGH = 30
ITEMS = ("span", "validator", "people say", "judge says", "agrees", "version", "asked (UTC)")
RUNS = ("asked (UTC)", "judge", "n", "unscored", "agreement", "p value", "changed", "model", "cost")
VERDICTS = {True: "pass", False: "fail", None: ""}
CHANGED = {True: "ALARM", False: "no", None: figures.NO_DATA}
validator_option = click.option("--validator", metavar="NAME", help="Of this judge only.")
limit_option = click.option("--limit", type=COUNT, default=50, show_default=True, help="So many at most.")


@click.group("sentinels")
def sentinels() -> None:
    """Choose labelled items a judge is asked about every day, to know when it changes."""


@sentinels.command("choose")
@click.argument("validator")
@click.option("--n", "-n", type=click.IntRange(2, 1000), default=40, show_default=True, help="So many, half a verdict.")
@dsn_option
@schema_option
@json_option
def choose(validator: str, n: int, dsn: str, schema: str, as_json: bool) -> None:
    """Choose labelled items of a judge, half of them passes, that it is asked about every day.

    They come of the dev split. Those that were chosen before stay. Each run is paid calls, as many as there are items.

    \b
    Example:
        pgflywheel sentinels choose polite --n 40
    """
    from pgflywheel.db import drift

    chosen = run_call(drift.choose_sentinels, dsn, schema, validator, n)
    echo({"validator": validator, "sentinels": chosen}, as_json, _chosen(validator, chosen))


@sentinels.command("list")
@validator_option
@click.option("--all", "all_of_them", is_flag=True, help="Retired ones too.")
@limit_option
@dsn_option
@schema_option
@json_option
def list_sentinels(validator: str | None, all_of_them: bool, limit: int, dsn: str, schema: str, as_json: bool) -> None:
    """List sentinels and what the judge said of each when it was asked last, disagreements first.

    \b
    Example:
        pgflywheel sentinels list --validator polite
    """
    from pgflywheel.db import drift

    found = run_list(drift.sentinel_status, dsn, schema, validator, validator, limit, all_of_them=all_of_them)
    if as_json or not found:
        echo_rows(found, as_json, empty="there is no sentinel: pgflywheel sentinels choose VALIDATOR")
    else:
        echo_table(ITEMS, map(_item, found))


@sentinels.command("runs")
@validator_option
@limit_option
@dsn_option
@schema_option
@json_option
def runs(validator: str | None, limit: int, dsn: str, schema: str, as_json: bool) -> None:
    """List when judges were asked, how far they agreed with people, and whether they changed; the newest first.

    \b
    Example:
        pgflywheel sentinels runs --validator polite
    """
    from pgflywheel.db import drift

    found = run_list(drift.sentinel_history, dsn, schema, validator, validator, limit)
    if as_json or not found:
        echo_rows(found, as_json, empty="no judge was asked about its sentinels yet; workers ask once a day")
    else:
        echo_table(RUNS, map(_run, found))


@sentinels.command("retire")
@click.argument("validator")
@yes_option
@dsn_option
@schema_option
@json_option
def retire(validator: str, yes: bool, dsn: str, schema: str, as_json: bool) -> None:
    """Ask a judge about its sentinels no more; what it said of them stays, and the same items are not chosen again.

    \b
    Example:
        pgflywheel sentinels retire polite --yes
    """
    from pgflywheel.db import drift

    confirm(yes, f"Ask {validator} about its sentinels no more?")
    retired = run_call(drift.retire_sentinels, dsn, schema, validator)
    text = f"{retired} sentinels of {validator} are retired."
    echo({"validator": validator, "retired": retired}, as_json, text)


def _chosen(validator: str, chosen: int) -> str:
    """Return what was chosen, and what is lacking."""
    text = f"{validator} has {chosen} sentinels; workers ask it about them once a day."
    if chosen < ENOUGH:
        lack = f"A change shows from {ENOUGH} on. Label more, then choose again: pgflywheel labels draw {validator}."
        return f"{text}\n{lack}"
    return text


def _item(each: Sentinel) -> Sequence[object]:
    said = VERDICTS[each.said] or (each.unscored_reason or "")
    agrees = "" if each.agrees is None else "yes" if each.agrees else "NO"
    asked = figures.moment(each.run_at) if each.run_at else ""
    return [each.span_id, one_line(each.validator, 40), VERDICTS[each.passed], said, agrees, each.version, asked]


def _run(each: SentinelRun) -> Sequence[object]:
    judge = one_line(f"{each.validator} v{each.version}", 40)
    agreement = figures.rate(each.agreement, each.agreement_low, each.agreement_high)
    numbers = [each.n, each.unscored, agreement, each.p_value]
    model, cost = one_line(each.answered_by, 40), figures.money(each.cost_usd)
    return [figures.moment(each.run_at), judge, *numbers, CHANGED[each.drifted], model, cost]
