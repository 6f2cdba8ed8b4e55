"""pgflywheel validators: define, try, approve, activate, pause and retire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from pgflywheel.cli.definitions import (
    Applied,
    Question,
    apply_definitions,
    ask,
    difference,
    entry_text,
    file_pairs,
    read,
    version_pair,
)
from pgflywheel.cli.files import TOML_FILE
from pgflywheel.cli.numbers import COUNT
from pgflywheel.cli.options import dsn_option, json_option, reason_option, run_call, schema_option
from pgflywheel.cli.text import clean, echo, echo_rows, one_line, to_json
from pgflywheel.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from pgflywheel.db.connect import Database
    from pgflywheel.db.validators import ListedVersion, Trial, VersionStatus

version_option = click.option("--version", type=COUNT, metavar="N", help="Which version (default: newest).")


@click.group("validators")
def validators() -> None:
    """Define, try, activate, pause and retire validators."""


@validators.command("apply")
@click.argument("file", type=TOML_FILE)
@click.option("--activate", "activating", is_flag=True, help="Let each judge new spans at once.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@dsn_option
@schema_option
@json_option
def apply(file: Path, activating: bool, dry_run: bool, dsn: str, schema: str, as_json: bool) -> None:
    """Store the definitions of a TOML file as new drafts; those stored already are left as they are.

    \b
    Example:
        pgflywheel validators apply validators.toml --activate
    """
    applied = run_call(apply_definitions, dsn, schema, read(file, schema), activating, dry_run)
    if as_json:
        echo_rows(applied, as_json)
        return
    lines = [
        {"validator": done.validator, "version": done.version, "status": done.status, "change": _change(done, dry_run)}
        for done in applied
    ]
    echo_rows(lines, as_json, empty=f"{file} defines no validator")


@validators.command("list")
@click.option("--all", "every_version", is_flag=True, help="Every version, retired ones too.")
@dsn_option
@schema_option
@json_option
def list_validators(every_version: bool, dsn: str, schema: str, as_json: bool) -> None:
    """List validators with the version that runs, or else the newest.

    \b
    Example:
        pgflywheel validators list
    """
    from pgflywheel.db import validators as calls

    found = run_call(calls.listed, dsn, schema, every_version)
    if as_json:
        echo_rows(found, as_json)
        return
    echo_rows([_listed(row) for row in found], as_json, empty="no validator is defined")


@validators.command("show")
@click.argument("name")
@version_option
@dsn_option
@schema_option
@json_option
def show(name: str, version: int | None, dsn: str, schema: str, as_json: bool) -> None:
    """Show a version's whole definition, with defaults filled in.

    \b
    Example:
        pgflywheel validators show no_email --version 2
    """
    from pgflywheel.db import validators as calls

    found = run_call(calls.definition, dsn, schema, name, version)
    text = f"{found.validator} version {found.version} ({found.status})\n{to_json(found.definition)}"
    echo(found, as_json, text)


@validators.command("test")
@click.argument("name")
@click.option("--file", type=TOML_FILE, help="Take NAME from this file.")
@click.option("--span", "span_id", type=click.UUID, metavar="ID", help="Ask about a stored span.")
@click.option("--input", "input_text", metavar="TEXT", help="Ask about this input.")
@click.option("--output", "output_text", metavar="TEXT", help="Ask about this output.")
@version_option
@dsn_option
@schema_option
@json_option
def test(
    name: str,
    file: Path | None,
    span_id: UUID | None,
    input_text: str | None,
    output_text: str | None,
    version: int | None,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Ask a validator about a span or a text; writes nothing, exit code 1 when the answer is not pass.

    NAME is a stored validator, or FILE#NAME for one that is not stored yet.

    \b
    Example:
        pgflywheel validators test no_email --output "Write to ada@example.org"
    """
    if (span_id is None) == (input_text is None and output_text is None):
        raise UsageError("name either --span, or --input and --output", hint="One of the two texts is enough.")
    if version is not None and (file is not None or "#" in name):
        raise UsageError("--version is of stored validators, not of a file", hint="Leave one of the two out.")
    if file is None and "#" in name:
        given, _, name = name.rpartition("#")
        file = Path(given)
    definitions = None if file is None else read(file, schema)
    question = Question(span_id, input_text, output_text)
    trial = run_call(ask, dsn, schema, name, version, definitions, question)
    echo({"validator": name, **asdict(trial)}, as_json, _told(name, trial))
    if trial.passed is not True:
        click.get_current_context().exit(CheckFailed.exit_code)


def _status_command(verb: str, help_text: str, done: str, *, numbered: bool = True) -> Callable[..., None]:
    """Make the command for one change of status."""

    @validators.command(verb, help=f"{help_text}\n\n\b\nExample:\n    pgflywheel validators {verb} no_email")
    @click.argument("name")
    @dsn_option
    @schema_option
    @json_option
    def command(name: str, dsn: str, schema: str, as_json: bool, version: int | None = None) -> None:
        from pgflywheel.db import validators as calls

        act: Callable[[Database, str, int | None], Any] = getattr(calls, verb)
        changed: VersionStatus = run_call(act, dsn, schema, name, version)
        echo(changed, as_json, f"Version {changed.version} of {changed.validator} {done}.")

    return version_option(command) if numbered else command


approve = _status_command("approve", "Approve a draft, so that it may be activated.", "is approved")
activate = _status_command(
    "activate", "Let a version judge new spans from the next statement on; a paused one resumes.", "judges new spans"
)
shadow = _status_command(
    "shadow", "Let a version judge new spans for show: it blocks nothing and stands apart.", "runs as a shadow"
)


@validators.command("pause")
@click.argument("name")
@reason_option("Why; others will read it in the list.")
@dsn_option
@schema_option
@json_option
def pause(name: str, reason: str, dsn: str, schema: str, as_json: bool) -> None:
    """Stop the active version from the next statement on, and hold its queued jobs.

    \b
    Example:
        pgflywheel validators pause no_email --reason "too many false alarms"
    """
    from pgflywheel.db import validators as calls

    changed = run_call(calls.pause, dsn, schema, name, reason)
    echo(changed, as_json, f"Version {changed.version} of {changed.validator} is paused: {reason}")


@validators.command("retire")
@click.argument("name")
@dsn_option
@schema_option
@json_option
def retire(name: str, dsn: str, schema: str, as_json: bool) -> None:
    """End every version of a validator; its scores stay.

    \b
    Example:
        pgflywheel validators retire no_email
    """
    from pgflywheel.db import validators as calls

    changed = run_call(calls.retire, dsn, schema, name)
    numbers = ", ".join(str(each.version) for each in changed)
    echo(changed, as_json, f"{name} is retired (version {numbers})." if changed else f"{name} was retired already.")


@validators.command("diff")
@click.argument("name_or_file")
@click.option("--from", "older", type=COUNT, metavar="N", help="Older version (default: the one before).")
@click.option("--to", "newer", type=COUNT, metavar="N", help="Newer version (default: the newest).")
@dsn_option
@schema_option
@json_option
def diff(name_or_file: str, older: int | None, newer: int | None, dsn: str, schema: str, as_json: bool) -> None:
    """Show what changed between two versions, or between the stored validators and a file.

    \b
    Example:
        pgflywheel validators diff no_email --from 1 --to 2
        pgflywheel validators diff validators.toml
    """
    if Path(name_or_file).is_file():
        if older or newer:
            raise UsageError("--from and --to are of stored versions, not of a file", hint="Leave them out.")
        pairs = run_call(file_pairs, dsn, schema, read(Path(name_or_file), schema))
    else:
        pairs = [run_call(version_pair, dsn, schema, name_or_file, older, newer)]
    changed = [pair for pair in pairs if pair["before"] != pair["after"]]
    if as_json:
        click.echo(to_json(changed))
        return
    for pair in changed:
        click.echo(clean("\n".join(difference(pair))))
    if not changed:
        click.echo("no difference")


@validators.command("catalogue")
@click.argument("name", required=False)
@json_option
def catalogue(name: str | None, as_json: bool) -> None:
    """List the ready-made definitions, or print one as a table to copy into a file.

    \b
    Example:
        pgflywheel validators catalogue
        pgflywheel validators catalogue max_length >> validators.toml
    """
    from pgflywheel.checks import catalogue as entries

    if name is not None:
        entry = entries.entry(name)
        click.echo(to_json(entry) if as_json else entry_text(entry))
        return
    found = entries.entries().values()
    lines = [
        {"name": entry.name, "kind": entry.definition["kind"], "description": entry.description} for entry in found
    ]
    echo_rows(list(found) if as_json else lines, as_json)


@validators.command("install-plpython")
@click.argument("name")
@dsn_option
@schema_option
@json_option
def install_plpython(name: str, dsn: str, schema: str, as_json: bool) -> None:
    """Install the Python check of a validator as a plpython3u function, for servers that have it.

    \b
    Example:
        pgflywheel validators install-plpython valid_json
    """
    from pgflywheel.db import plpython

    function = run_call(plpython.install, dsn, schema, name)
    echo({"function": function}, as_json, f"Function {function} is installed; a sql validator may name it.")


def _listed(row: ListedVersion) -> dict[str, Any]:
    paused = f" ({one_line(': '.join(filter(None, (row.paused_reason, row.paused_detail))), 60)})"
    return {
        "validator": row.validator,
        "version": row.version,
        "status": row.status + (paused if row.status == "paused" else ""),
        "kind": row.kind,
        "target": row.target,
        "lane": row.lane,
        "action": row.action,
        "severity": row.severity,
        "sample": row.sample,
        "description": one_line(row.description, 60),
    }


def _told(name: str, trial: Trial) -> str:
    verdict = "no verdict" if trial.passed is None else "pass" if trial.passed else "fail"
    lines = [f"{name}: {verdict}"]
    if trial.value is not None:
        lines.append(f"value: {trial.value:g}")
    for label, text in (("why", trial.critique), ("unscored", trial.unscored_reason), ("detail", trial.detail)):
        if text:
            lines.append(f"{label}: {text}")
    if trial.eligible is False:
        lines.append("Its filter leaves this span out: in the table it would not be judged.")
    return "\n".join(lines)


def _change(done: Applied, dry_run: bool) -> str:
    if not done.changed:
        return "none"
    return "would change" if dry_run else "changed"
