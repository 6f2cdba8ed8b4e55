"""2,000 judgements of 200 ms at concurrency 64, against a bare loop of the OpenAI client with the same prompts."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pgflywheel.judge.definition import JudgeDefinition
from pgflywheel.judge.prompt import build
from pgflywheel.judge.records import Item
from tests.bench import judge_peers, spans
from tests.bench.figures import Options, Result, interleaved, medians
from tests.bench.server import connected, installed_database, value
from tests.bench.worker import drain, drain_from_pause, running_worker
from tests.fakes.process import Remote, running

BAR = 0.9
CALLS, CALL_SECONDS, CONCURRENCY = 2_000, 0.2, 64
PEER_CALLS = 500  # of those that take minutes
MOST_SECONDS = 600
DEFINITION = {
    "kind": "judge",
    "question": "Does the output answer the input?",
    "pass_when": "the output speaks to what the input asks",
    "fail_when": "it speaks of something else, or says nothing",
    "provider": "fake",
    "model": "small",
}


def measure(options: Options) -> Result:
    """Return the bare loop's time over that of the worker, and the same of the peers that can be installed."""
    calls = max(CONCURRENCY, int(CALLS * options.scale))
    with running("--mind", "tests.bench.judge_peers:mind", delay=CALL_SECONDS) as fake, _prompts(calls) as prompts:
        sides = {
            "bare": lambda: calls / _bare_seconds(fake, prompts),
            "pgflywheel": lambda: calls / _seconds(options, fake, calls),
        }
        notes = [
            "judgements a second, until the last score is written; ideal: calls at once over their time",
            f"peers: the first {PEER_CALLS} items; GEval makes a client for each call",
        ]
        for peer in [] if options.quick else judge_peers.available(notes):
            sides[peer.name] = partial(_peer_rate, peer, fake, prompts)
        figures = interleaved(options.runs, sides)
    middle = medians(figures)
    ratio = middle["pgflywheel"] / middle["bare"]
    ahead = all(middle["pgflywheel"] > middle[name] for name in sides if name not in ("bare", "pgflywheel"))
    return Result(
        "judge_calls",
        ratio,
        f">= {BAR} of the bare loop, and ahead of the peers",
        ratio >= BAR and ahead,
        {"judgements_per_second": figures, "ideal": CONCURRENCY / CALL_SECONDS},
        middle,
        notes,
    )


def _peer_rate(peer: judge_peers.Peer, fake: Remote, prompts: Path) -> float:
    """Return the judgements of a peer a second."""
    few = prompts.with_name("few.jsonl")
    lines = prompts.read_text().splitlines(keepends=True)[:PEER_CALLS]
    few.write_text("".join(lines))
    return len(lines) / peer.seconds(fake.url, few, CONCURRENCY)


@contextmanager
def _prompts(calls: int) -> Iterator[Path]:
    """Write the requests a judge would send, one a line, for the others to send."""
    definition = JudgeDefinition.of("answers", DEFINITION)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prompts.jsonl"
        with path.open("w") as file:
            for row in b"".join(spans.blocks(calls)).decode().splitlines():
                asked, answered = row.split("\t")
                request = build(definition, Item(asked, answered)).request
                file.write(json.dumps({"input": asked, "output": answered, "request": request}) + "\n")
        yield path


def _bare_seconds(fake: Remote, prompts: Path) -> float:
    command = [sys.executable, "-m", "tests.bench.peer_openai", fake.url, str(prompts), str(CONCURRENCY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS)
    if done.returncode:
        raise RuntimeError(f"the bare loop failed\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def _seconds(options: Options, fake: Remote, calls: int) -> float:
    with installed_database(options.server_dsn) as dsn, connected(dsn) as session:
        models = {"small": {"input_usd": 1, "output_usd": 2}}
        provider = {"base_url": fake.url, "max_in_flight": 4 * CONCURRENCY, "models": models}
        session.execute("select flywheel.set_provider('fake', %s)", [json.dumps(provider)])
        spans.activate(session, "answers", **DEFINITION)
        with running_worker(dsn, "--lanes", "judge", "--concurrency", str(CONCURRENCY)):
            session.execute("insert into flywheel.spans (input, output) values ('first', 'first')")
            drain(session)
            session.execute("select flywheel.pause_lane('judge', 'loading')")
            spans.copy(session, spans.blocks(calls))
            seconds = drain_from_pause(session, "judge")
        if value(session, "select count(*) from flywheel.scores where passed and cost_usd > 0") != calls + 1:
            raise RuntimeError("scores are missing")
        return seconds
