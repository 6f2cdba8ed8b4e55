"""What labels are worth: balanced accuracy of neighbours by strategy and number of labels, on labelled public data."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import statistics
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgflywheel.db import wire
from pgflywheel.judge.embed import Hashing
from tests.bench.figures import Options, Result
from tests.bench.server import Session, connected, installed_database, value

DATA = Path(__file__).parents[3] / "shared" / "data"
SIZES = (20, 50, 100, 500)
STRATEGIES = ("random", "recent", "similar", "similar_recent", "diverse")
DEFAULT = "similar"
SEEDS = range(1, 6)  # the vote's weights were chosen on seeds 1000 to 1005
TARGETS = 200
_DAYS = 60


@dataclass(frozen=True, slots=True)
class Item:
    """A text people labelled; those of one group are never on both sides."""

    group: str
    text: str
    passed: bool


def _xstest(row: dict[str, Any]) -> Item:
    return Item(
        row["group"], f"{row['input']['prompt']}\n\n{row['output']}", row["human"]["label"] == "full_compliance"
    )


def _toxicchat(row: dict[str, Any]) -> Item:
    return Item(row["group"], row["input"]["prompt"], not row["human"]["toxicity"])


def _halueval(row: dict[str, Any]) -> Item:
    return Item(row["group"], f"{row['input']['query']}\n\n{row['output']}", not row["human"]["hallucinated"])


def _banking(row: dict[str, Any]) -> Item:
    return Item(row["group"], row["text"], "card" in row["intent"])


SETS: dict[str, tuple[str, Callable[[dict[str, Any]], Item]]] = {
    "xstest": ("xstest_items", _xstest),
    "toxicchat": ("toxicchat_items", _toxicchat),
    "halueval_general": ("halueval_general_items", _halueval),
    "banking77": ("banking77", _banking),
}
Found = dict[tuple[str, int], dict[str, list[float]]]


def measure(options: Options) -> Result:
    """Return in how many of the settings the default strategy beats random examples; print the table on stderr."""
    found: Found = {}
    seeds = list(SEEDS)[: max(1, round(len(SEEDS) * options.scale))]
    with installed_database(options.server_dsn) as dsn, connected(dsn) as session:
        versions = _versions(session)
        for name in SETS:
            for size, by_strategy in _of_set(session, versions, name, seeds):
                found[name, size] = by_strategy
    print(_table(found), file=sys.stderr)
    better = {
        size: sum(_mean(found[name, size][DEFAULT]) > _mean(found[name, size]["random"]) for name in SETS)
        for size in SIZES
    }
    figures = {f"{name} {size}": {each: _mean(got) for each, got in by.items()} for (name, size), by in found.items()}
    return Result(
        "few_shot_value",
        None,
        f"{DEFAULT} beats random at every size on most sets",
        all(count > len(SETS) / 2 for count in better.values()),
        {"sets_better_than_random": better, "seeds": len(seeds), "balanced_accuracy": figures},
    )


def _versions(session: Session) -> dict[str, uuid.UUID]:
    """Define one vote for each strategy, all with the examples of one question."""
    for strategy in STRATEGIES:
        definition = {
            "kind": "neighbours",
            "question": "Does it pass?",
            "pass_when": "it does",
            "fail_when": "it does not",
            "shots": {"strategy": strategy},
        } | ({"labels_of": STRATEGIES[0]} if strategy != STRATEGIES[0] else {})
        session.execute("select flywheel.define_validator(%s, %s)", [strategy, json.dumps(definition)])
    query = "select validator, version_id from flywheel.validator_status"
    return dict(session.execute(query).fetchall())


def _of_set(
    session: Session, versions: dict[str, uuid.UUID], name: str, seeds: Sequence[int]
) -> Iterator[tuple[int, dict[str, list[float]]]]:
    """Yield for each number of labels the balanced accuracies of each strategy, one for each seed."""
    items, vectors = _embedded(name)
    drawn = [_drawn(items, seed) for seed in seeds]
    for size in SIZES:
        found: dict[str, list[float]] = {strategy: [] for strategy in STRATEGIES}
        for seed, (examples, targets) in zip(seeds, drawn, strict=True):
            _load(session, items, vectors, examples[:size], targets, seed)
            truth = [items[place].passed for place in targets]
            for strategy, version_id in versions.items():
                said = _votes(session, version_id, [vectors[place] for place in targets])
                found[strategy].append(balanced_accuracy(truth, said))
        yield size, found


def _embedded(name: str) -> tuple[list[Item], list[Any]]:
    file, item = SETS[name]
    with gzip.open(DATA / f"{file}.jsonl.gz", "rt") as lines:
        items = [item(json.loads(line)) for line in lines]
    return items, asyncio.run(Hashing("hashing", 384).embed([each.text for each in items]))


def _drawn(items: Sequence[Item], seed: int) -> tuple[list[int], list[int]]:
    """Return places of examples and of targets; half of the groups is on either side."""
    choose = random.Random(seed)
    groups = sorted({item.group for item in items})
    choose.shuffle(groups)
    first = set(groups[: len(groups) // 2])
    places = list(range(len(items)))
    choose.shuffle(places)
    ours = [place for place in places if items[place].group in first]
    theirs = [place for place in places if items[place].group not in first]
    return ours[: max(SIZES)], theirs[:TARGETS]


def _load(
    session: Session, items: Sequence[Item], vectors: Sequence[Any], examples: list[int], targets: list[int], seed: int
) -> None:
    """Put labelled items in as servable examples, past the triggers, and the others as spans."""
    choose = random.Random(seed)
    session.execute("truncate flywheel.examples, flywheel.spans cascade")
    with session.transaction():
        session.execute("set local session_replication_role = replica")
        with session.cursor().copy(_COPY_SPANS) as rows:
            for number, place in enumerate(targets, 1):
                rows.write_row([uuid.UUID(int=number), json.dumps({"group_key": items[place].group})])
        session.execute(
            "create temp table loaded (example_id uuid, group_key text, passed boolean, content_hash text, age text)"
        )
        with session.cursor().copy(_COPY_EXAMPLES) as rows:
            for place in examples:
                age = f"{choose.uniform(0, _DAYS):.3f} days"
                rows.write_row([uuid.UUID(int=place + 1), items[place].group, items[place].passed, str(place), age])
        session.execute(_FILL_EXAMPLES)
        for place in examples:
            session.execute(_INSERT_VECTOR, [wire.reals([vectors[place]]), uuid.UUID(int=place + 1)])
        session.execute("drop table loaded")
    session.execute("analyze flywheel.examples, flywheel._example_embeddings")


_COPY_SPANS = "copy flywheel.spans (span_id, attributes) from stdin"
_COPY_EXAMPLES = "copy loaded (example_id, group_key, passed, content_hash, age) from stdin"
_FILL_EXAMPLES = """
insert into flywheel.examples (example_id, kind, validator_id, label_id, span_id, started_at, revision, trace_id, project, node,
       group_key, passed, critique, author, trust, tokens, content_hash, status, created_at)
select example_id, 'label', validator_id, example_id, example_id, now(), 1, example_id, 'p', 'n', group_key, passed, '', 'people',
       0.5, 1, content_hash, 'servable', now() - age::interval
  from loaded, flywheel.validators where validators.name = 'random'
"""  # noqa: E501
_INSERT_VECTOR = """
insert into flywheel._example_embeddings
       (example_id, embedder_id, part, validator_id, servable, content_hash, embedding)
select example_id, embedder_id, 'item', validator_id, true, content_hash, %s::real[]::halfvec
  from flywheel.examples, flywheel.embedders where example_id = %s and embedders.status = 'serving'
"""
_VOTE = """
select array_agg(vote.passed order by vote.place)
  from (select array_agg(span_id order by span_id) as ids, array_agg(started_at order by span_id) as times from flywheel.spans) as asked
 cross join lateral flywheel._vote_neighbours(%s, asked.ids, asked.times, %s::real[], 384) as vote
"""  # noqa: E501


def _votes(session: Session, version_id: uuid.UUID, vectors: Sequence[Any]) -> list[bool | None]:
    said: list[bool | None] = value(session, _VOTE, version_id, wire.reals(vectors))
    return said


def balanced_accuracy(truth: Sequence[bool], said: Sequence[bool | None]) -> float:
    """Return the mean of the shares of passes and of fails called so; no verdict is right half of the time."""
    shares = []
    for side in (True, False):
        right = [
            0.5 if verdict is None else float(verdict is side)
            for real, verdict in zip(truth, said, strict=True)
            if real is side
        ]
        shares.append(statistics.fmean(right) if right else 0.5)
    return statistics.fmean(shares)


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values)


def _table(found: Found) -> str:
    """Return the table that stands in the docs."""
    lines = [f"| set | labels | majority | {' | '.join(STRATEGIES)} |", f"|---|---:|---:|{'---:|' * len(STRATEGIES)}"]
    for (name, size), by_strategy in found.items():
        best = max(_mean(got) for got in by_strategy.values())
        cells = [f"**{_mean(got):.3f}**" if _mean(got) == best else f"{_mean(got):.3f}" for got in by_strategy.values()]
        lines.append(f"| {name} | {size} | 0.500 | {' | '.join(cells)} |")
    return "\n".join(lines)
