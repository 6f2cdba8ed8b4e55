"""What doctor says of optional packages: those there is work for here, and chores workers left for want of one."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pgflywheel.cli.text import one_line

if TYPE_CHECKING:
    from pgflywheel.cli.doctor import Report
    from pgflywheel.db.connect import Database


@dataclass(frozen=True, slots=True)
class Need:
    """A package, the extra that brings it, and what a worker without it does not do."""

    package: str
    name: str
    extra: str
    lost: str


NEEDS = {
    "judges": (
        Need("openai", "openai", "judge", "calls no model"),
        Need("jinja2", "jinja2", "judge", "builds no prompt from a template"),
    ),
    "sentences": (Need("sentence_transformers", "sentence-transformers", "embed", "makes no vectors with it"),),
    "vectors": (Need("sklearn", "scikit-learn", "analysis", "forms no clusters anew and compares no weeks"),),
    "pgflywheel.checks.structured:matches_schema": (
        Need("jsonschema", "jsonschema", "checks", "compares no output with a schema"),
    ),
    "pgflywheel.checks.language:is_language": (Need("py3langid", "py3langid", "checks", "recognises no language"),),
    "pgflywheel.checks.personal:no_phone_number": (
        Need("phonenumbers", "phonenumbers", "checks", "recognises no phone number"),
    ),
}


async def check_packages(database: Database, report: Report) -> None:
    """Report packages that are missing here, and what workers said they could not do."""
    from pgflywheel.db import health

    wanted = [need for use in await health.uses(database) for need in NEEDS.get(use, ())]
    missing = [need for need in wanted if find_spec(need.package) is None]
    for need in missing:
        found = f"{need.name} is not installed here: a worker of this environment {need.lost}"
        report.add("packages", found, "warn", f"python -m pip install 'pgflywheel[{need.extra}]'")
    if not missing:
        report.add("packages", "what this install uses is there")
    for chore in await health.chores_left(database):
        found = f"{chore.chore}: {one_line(chore.note)}"
        report.add("chores", found, "warn", "Install it where workers run; the worker's image brings it.")
