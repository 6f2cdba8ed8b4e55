"""pgflywheel judges tune: which examples a judge should be shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from pgflywheel.cli.judge_name import JudgeName
from pgflywheel.cli.options import dsn_option, json_option, run_call, schema_option
from pgflywheel.cli.text import clean, echo_table, note, to_json
from pgflywheel.errors import InvalidArgument

if TYPE_CHECKING:
    from array import array

    from pgflywheel.db.connect import Database
    from pgflywheel.db.tuning import Bench

Policy = dict[str, Any]
Votes = list[bool | None]
ROUNDS = 2
FEWEST = 20
# One at a time, in this order; a strategy brings diversity and weights of its own along.
CHOICES: dict[str, tuple[Any, ...]] = {
    "strategy": ("similar", "recent", "similar_recent", "disagreement_first", "diverse"),
    "count": (4, 8, 16),
    "diversity": (0.0, 0.3, 0.7),
    "half_life_days": (7, 30, 120),
    "weights.similarity": (0.3, 0.6, 0.9),
    "weights.recency": (0.0, 0.15, 0.4),
    "weights.disagreement": (0.0, 0.15, 0.4),
    "weights.trust": (0.0, 0.1, 0.3),
}


@dataclass(frozen=True, slots=True)
class Tried:
    """A policy and what it scored."""

    policy: Policy
    balanced_accuracy: float
    right: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The policy the judge has and the best one found; nothing was changed."""

    judge: str
    labels: int
    policies_tried: int
    present: Policy
    present_balanced_accuracy: float
    best: Policy
    best_balanced_accuracy: float
    only_present_right: int
    only_best_right: int


@click.command("tune")
@click.argument("judge", type=JudgeName(), metavar="NAME[@VERSION]")
@dsn_option
@schema_option
@json_option
def tune(judge: tuple[str, int | None], dsn: str, schema: str, as_json: bool) -> None:
    """Search the policy by which a judge's examples are chosen; change nothing.

    Each policy is scored by how the examples it finds would vote on the labels of dev: no model is
    called. Confirm the best one as a new version: pgflywheel judges compare.

    \b
    Example:
        pgflywheel judges tune polite
    """
    outcome = run_call(_tune, dsn, schema, judge)
    if as_json:
        click.echo(to_json(outcome))
        return
    echo_table(
        ("policy", "balanced accuracy", "only it right"),
        [
            ("present", outcome.present_balanced_accuracy, outcome.only_present_right),
            ("best found", outcome.best_balanced_accuracy, outcome.only_best_right),
        ],
    )
    note(f"{outcome.policies_tried} policies, {outcome.labels:,} labels. The best of many looks better than it is.")
    click.echo("\n" + clean(_toml(outcome.best)))


async def _tune(database: Database, judge: tuple[str, int | None]) -> Outcome:
    from pgflywheel.cli.progress import progress_bar
    from pgflywheel.db import alignment, tuning

    version = await alignment.judge(database, *judge)
    bench = await tuning.bench(database, version.version_id)
    truth = bench.passes or []
    if len(truth) < FEWEST or len(set(truth)) < 2:
        raise InvalidArgument(
            f"{version.validator} has {len(truth)} labels of dev, {sum(truth)} of them pass",
            f"A policy is chosen by {FEWEST} labels and more, of both verdicts.",
            f"Label some: pgflywheel labels next {version.validator}.",
        )
    vectors = await _vectors(database, bench)
    await warn_of_missing_vectors(database)
    with progress_bar("policies", sum(map(len, CHOICES.values())) * ROUNDS) as update:

        async def attempt(policy: Policy) -> Tried:
            votes = await tuning.votes(database, version.version_id, policy, bench, vectors)
            tried.append(scored(policy, votes, truth))
            update(len(tried), f"{max(each.balanced_accuracy for each in tried):.3f} at best")
            return tried[-1]

        tried: list[Tried] = []
        best = await search(bench.policy, attempt)
    return _outcome(f"{version.validator}@{version.version}", tried, best)


async def warn_of_missing_vectors(database: Database) -> None:
    """Say on stderr that examples lack the vectors by which they are found."""
    from pgflywheel.db import embedders

    for each in await embedders.status(database):
        if each.status == "serving" and each.waiting:
            note(
                f"{each.name}: {each.embedded:,} of {each.examples:,} examples have a vector; the others are not "
                "found by what is alike. Let a worker make them first: pgflywheel worker run."
            )


async def _vectors(database: Database, bench: Bench) -> list[array[float]]:
    from pgflywheel.db import judgements
    from pgflywheel.judge.embed import make
    from pgflywheel.worker.endpoints import Endpoints

    row = await judgements.shot_embedder(database, bench.embedder)
    if row is None:
        raise InvalidArgument("no embedder serves", hint="See them: select * from flywheel.embedder_status.")
    endpoints = Endpoints(database)
    try:
        endpoint = await endpoints.of(row.provider) if row.provider else None
        embedder = make(row, endpoint.provider, endpoint.client) if endpoint else make(row)
        return await embedder.embed(bench.texts or [])
    finally:
        await endpoints.close()


async def search(present: Policy, attempt: Callable[[Policy], Awaitable[Tried]]) -> Tried:
    """Change one part at a time and keep what scores strictly better, until a round changes nothing."""
    best, known = await attempt(present), [present]
    for _ in range(ROUNDS):
        before = best
        for part in CHOICES:
            for policy in _variants(best.policy, part):
                if policy not in known:
                    known.append(policy)
                    found = await attempt(policy)
                    best = max(best, found, key=lambda each: each.balanced_accuracy)
        if best is before:
            break
    return best


def _variants(policy: Policy, part: str) -> Iterator[Policy]:
    """Yield the policy with other values of one part."""
    key, _, weight = part.partition(".")
    for choice in CHOICES[part]:
        if key == "strategy":
            own = {name: value for name, value in policy.items() if name not in ("diversity", "weights")}
            yield own | {"strategy": choice}
        elif weight:
            yield policy | {key: {**policy.get(key, {}), weight: choice}}
        else:
            yield policy | {key: choice}


def scored(policy: Policy, votes: Votes, truth: list[bool]) -> Tried:
    """Return the mean of TPR and TNR; a span without a vote is one the policy has wrong."""
    right = tuple(vote is verdict for vote, verdict in zip(votes, truth, strict=True))
    rates = [
        sum(hit for hit, verdict in zip(right, truth, strict=True) if verdict is wanted) / truth.count(wanted)
        for wanted in (True, False)
    ]
    return Tried(policy, sum(rates) / 2, right)


def _outcome(judge: str, tried: list[Tried], best: Tried) -> Outcome:
    present = tried[0]
    pairs = list(zip(present.right, best.right, strict=True))
    return Outcome(
        judge,
        len(present.right),
        len(tried),
        present.policy,
        present.balanced_accuracy,
        best.policy,
        best.balanced_accuracy,
        pairs.count((True, False)),
        pairs.count((False, True)),
    )


def _toml(policy: Policy) -> str:
    """Return a policy as a line of a definition file."""

    def inline(value: Any) -> str:
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{key} = {inline(each)}" for key, each in value.items()) + " }"
        return f'"{value}"' if isinstance(value, str) else str(value)

    return f"shots = {inline(policy)}"
