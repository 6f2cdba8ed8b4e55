"""What tests of drift say often: verdicts at a time and rate, monitors that began hours ago, what drift_status says."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from tests.sql.support import Connection, rows, value

GOOD, BAD = "good", "much too long an answer"


def judged(
    connection: Connection, start: datetime, verdicts: Sequence[bool], minutes: float = 1, **columns: str
) -> None:
    """Insert spans spread over some minutes, in the order of their verdicts, by an inline check on their length."""
    names = "".join(f", {name}" for name in columns)
    places = ", %s" * len(columns)
    connection.execute(
        f"""insert into flywheel.spans (started_at, output{names})
            select %s + make_interval(secs => %s * (place - 1)), case when passed then %s else %s end{places}
              from unnest(%s::boolean[]) with ordinality as given(passed, place)""".encode(),
        [start, minutes * 60 / max(1, len(verdicts)), GOOD, BAD, *columns.values(), list(verdicts)],
    )


def coins(seed: int, rate: float, count: int) -> list[bool]:
    """Return verdicts that pass with this chance."""
    source = random.Random(seed)
    return [source.random() < rate for _ in range(count)]


def minutes_ago(minutes: float) -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=minutes)


def days_ago(days: int, hour: int = 12) -> datetime:
    return datetime.now(UTC).replace(hour=hour, minute=0, second=0, microsecond=0) - timedelta(days=days)


def advance(connection: Connection) -> int:
    return int(value(connection, "select flywheel._advance_drift()"))


def watch(connection: Connection, seed: int = 1, rate: float = 0.95, count: int = 3000, **columns: str) -> None:
    """Let monitors learn from yesterday, and count the last twelve hours as if they had begun then."""
    judged(connection, days_ago(1, 0), coins(seed, rate, count), minutes=60, **columns)
    advance(connection)
    connection.execute("update flywheel._monitors set counted_from = counted_from - interval '12 hours'")


def status(connection: Connection, kind: str = "cusum") -> dict[tuple[str, str], tuple[Any, ...]]:
    """Return drifted, effect, n_current and statistic by subject and slice."""
    query = "select subject, slice, drifted, effect, n_current, statistic from flywheel.drift_status where kind = %s"
    return {(row[0], row[1]): row[2:] for row in rows(connection, query, [kind])}


def drifted(connection: Connection, kind: str = "cusum") -> list[str]:
    return sorted(subject for (subject, _), said in status(connection, kind).items() if said[0])


def embedded(connection: Connection, vectors: Iterable[Sequence[float]], at: datetime, **columns: str) -> None:
    """Insert spans whose inputs have these vectors, padded to the size of the embedder that serves."""
    names = "".join(f", {name}" for name in columns)
    places = ", %s" * len(columns)
    connection.execute(
        f"""with given as materialized (
              select gen_random_uuid() as span_id, vector from jsonb_array_elements(%s) as vector
            ), added as (
              insert into flywheel.spans (span_id, started_at, input{names})
              select span_id, %s, 'in'{places} from given)
            insert into flywheel.span_embeddings
                   (span_id, started_at, revision, embedder_id, part, content_hash, embedding)
            select span_id, %s, 1, embedder_id, 'input', '',
                   public.l2_normalize((array(select number::real from jsonb_array_elements_text(vector) as number)
                     || array_fill(0::real, array[dimensions - jsonb_array_length(vector)]))::public.halfvec)
              from given, flywheel.embedders where embedders.status = 'serving'""".encode(),
        [Jsonb([list(each) for each in vectors]), at, *columns.values(), at],
    )


def cloud(seed: int, count: int, centre: Sequence[float], width: float = 0.6) -> list[list[float]]:
    """Return vectors around a centre, in a dozen dimensions."""
    source = random.Random(seed)
    padded = [*centre, *[0.0] * (12 - len(centre))]
    return [[number + source.gauss(0, width / 3) for number in padded] for _ in range(count)]
