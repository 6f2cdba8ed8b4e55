"""From the commit of a label to its being shown to a judge, beside 500 other examples, hashing embedder."""

from __future__ import annotations

import json
import random
import time
import uuid

from tests.bench import spans
from tests.bench.figures import Options, Result, quantile
from tests.bench.judge_calls import DEFINITION
from tests.bench.server import Session, connected, installed_database, value
from tests.bench.worker import drain, running_worker
from tests.fakes.process import Remote, running

P99_MS = 500.0
LABELS, EXAMPLES = 100, 500
LOOK_SECONDS = 0.002
MOST_SECONDS = 20.0
_TRAIN = (
    "select n from generate_series(1, 40000) as n where flywheel._split('group ' || n) = 'train' order by n limit %s"
)
_SPAN = """
insert into flywheel.spans (span_id, input, output, session_id, environment) values (%s, %s, %s, %s, %s)
"""
_SHOWN = "select shots @> array[%s]::uuid[] from flywheel.scores where span_id = %s and shots is not null"


def measure(options: Options) -> Result:
    """Return how long labels take to be seen; a span about the same is judged until its prompt holds the example."""
    labels = max(5, int(LABELS * options.scale))
    with running("--mind", "tests.bench.judge_peers:mind") as fake:
        waits = [wait for _ in range(options.runs) for wait in _waits(options, fake, labels)]
    figures = {"p50_ms": quantile(waits, 0.5), "p90_ms": quantile(waits, 0.9), "p99_ms": quantile(waits, 0.99)}
    return Result(
        "example_fresh",
        None,
        f"p99 <= {P99_MS:g} ms",
        figures["p99_ms"] <= P99_MS,
        figures | {"labels": len(waits)},
        notes=["until the score that was made with the example is committed: the call is part of the wait"],
    )


def _waits(options: Options, fake: Remote, labels: int) -> list[float]:
    with installed_database(options.server_dsn) as dsn, connected(dsn) as session:
        provider = {"base_url": fake.url, "max_in_flight": 16, "models": {"small": {"input_usd": 1, "output_usd": 2}}}
        session.execute("select flywheel.set_provider('fake', %s)", [json.dumps(provider)])
        spans.activate(session, "answers", **DEFINITION, filter={"environment": "judged"})
        groups = [row[0] for row in session.execute(_TRAIN, [EXAMPLES + labels]).fetchall()]
        choose = random.Random(5)
        with running_worker(dsn, "--lanes", "judge,embed"):
            for group in groups[:EXAMPLES]:
                _label(session, group, spans.text(choose))
            session.execute(_SPAN, [uuid.uuid4(), "first", "first", "target", "judged"])
            drain(session)
            return [_wait(session, group, spans.text(choose), spans.text(choose)) for group in groups[EXAMPLES:]]


def _label(session: Session, group: int, text: str) -> uuid.UUID:
    """Label a span of a group of the train split; return the id of the span."""
    span_id = uuid.uuid4()
    session.execute(_SPAN, [span_id, text, text, f"group {group}", "labelled"])
    passed = bool(group % 2)
    session.execute("select flywheel.record_label(%s, 'answers', %s, 'ada', 'so it is')", [span_id, passed])
    return span_id


def _wait(session: Session, group: int, text: str, answer: str) -> float:
    """Return the milliseconds from the commit of a label to the first score made with its example.

    The answers differ: what nearly equals an example is not shown it in the dev and test splits.
    """
    span_id = _label(session, group, text)
    began = time.perf_counter()
    example = value(session, "select example_id from flywheel.examples where span_id = %s", span_id)
    while time.perf_counter() - began < MOST_SECONDS:
        asked = uuid.uuid4()
        session.execute(_SPAN, [asked, text, answer, f"target {asked}", "judged"])
        while (shown := value(session, _SHOWN, example, asked)) is None:
            time.sleep(LOOK_SECONDS)
            if time.perf_counter() - began > MOST_SECONDS:
                break
        if shown:
            return (time.perf_counter() - began) * 1000
    raise RuntimeError("the example was not shown")
