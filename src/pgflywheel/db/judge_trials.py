"""What it takes to try a judge outside of the queue: its version, a span or a text, the examples it would be shown."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pgflywheel.db import wire
from pgflywheel.db.connect import Database
from pgflywheel.db.judgements import Shown, Subject
from pgflywheel.errors import SpanNotFound, ValidatorNotFound


@dataclass(frozen=True, slots=True)
class JudgeVersion:
    """A version of a judge; ``version_id`` is None for one that is not stored."""

    validator: str
    version: int | None
    status: str
    version_id: UUID | None
    definition: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ListedJudge:
    """A version of a judge or a vote of neighbours that runs, or the newest of its validator."""

    validator: str
    version: int
    status: str
    kind: str
    provider: str | None
    model: str | None
    votes: int | None
    shots: str
    provisional: bool
    reason: str
    question: str | None


async def judges(database: Database) -> list[ListedJudge]:
    """Return judges and votes of neighbours, by name."""
    query = """
        select distinct on (known.validator)
               known.validator, known.version, known.status, known.kind, known.definition ->> 'provider' as provider,
               known.definition ->> 'model' as model,
               case known.kind when 'judge' then coalesce((known.definition ->> 'votes')::integer, 1) end as votes,
               coalesce('set ' || (known.definition #>> '{shots,shot_set}'),
                        concat_ws(' ', policy ->> 'count', policy ->> 'strategy')) as shots,
               coalesce(standing.provisional, true) as provisional, coalesce(standing.reason, '') as reason,
               known.definition ->> 'question' as question
          from flywheel.validator_status as known
          left join flywheel.judge_standing as standing using (validator, version)
         cross join lateral flywheel._shot_policy(known.definition -> 'shots') as policy
         where known.kind in ('judge', 'neighbours')
         order by known.validator, known.status in ('active', 'paused') desc, known.status = 'shadow' desc,
                  known.version desc
    """
    return await database.rows(ListedJudge, query)


async def version(database: Database, name: str, number: int | None) -> JudgeVersion:
    """Return one version, the newest unless numbered; raises ValidatorNotFound."""
    query = """
        select validators.name as validator, versions.version, versions.status, versions.version_id, versions.definition
          from flywheel.validators join flywheel.validator_versions as versions using (validator_id)
         where validators.name = %s and (%s::integer is null or versions.version = %s)
         order by versions.status = 'retired', versions.version desc limit 1
    """
    found = await database.row(JudgeVersion, query, [name, number, number])
    if found is None:
        wanted = name if number is None else f"{name} version {number}"
        raise ValidatorNotFound(f"there is no validator {wanted}", hint="List judges: pgflywheel judges list.")
    return found


async def subject(database: Database, span_id: UUID, turns: int) -> Subject:
    """Return a span with all that may be shown around it; raises SpanNotFound."""
    query = """
        select gen_random_uuid() as fence, span.span_id, span.revision, span.started_at, span.trace_id, span.project,
               span.node, span.input, span.output, span.messages, span.documents,
               flywheel._parent_steps(span.trace_id, span.parent_span_id, span.started_at) as parents,
               flywheel._session_turns(row(span.*)::flywheel.spans, %s) as session,
               true as sampled, true as exemplified
          from flywheel.spans as span where span.span_id = %s order by span.started_at desc limit 1
    """
    found = await database.row(Subject, query, [turns, span_id])
    if found is None:
        raise SpanNotFound(f"there is no span {span_id}", hint="Find one: pgflywheel traces list.")
    return found


async def shots_for_text(database: Database, version_id: UUID, vector: array[float] | None) -> list[Shown]:
    """Return the examples a judge would be shown for a text that is no span, the most relevant last."""
    query = """
        with judge as (
          select policy, flywheel._question_of(versions) as question,
                 (flywheel._vector_of(%(vector)s::real[], %(dimensions)s, 1)) as vector
            from flywheel.validator_versions as versions
           cross join lateral flywheel._shot_policy(versions.definition -> 'shots') as policy
           where versions.version_id = %(version_id)s
        ), chosen as (
          select shot.example_id, shot.rank, shot.similarity, shot.recency, shot.disagreement, shot.trust,
                 shot.relevance
            from judge
           cross join lateral flywheel._shot_embedder(judge.policy) as embedder
           cross join lateral flywheel._retrieve(
             case when judge.policy ->> 'strategy' not in ('recent', 'random') and embedder.dimensions = %(dimensions)s
                  then flywheel._near_sql(judge.question, null, null, 'item', embedder.embedder_id, %(dimensions)s) end,
             judge.policy, judge.vector, embedder.embedder_id, 'item', judge.question, null, null, null, null, null,
             null, ((judge.policy ->> 'count')::integer + 1) / 2, '') as shot
           where not judge.policy ? 'shot_set' and judge.policy ->> 'strategy' <> 'none'
             and judge.policy ->> 'count' <> '0'
          union all
          select listed.example_id, -listed.place, null, null, null, null, null
            from judge
           cross join lateral unnest(flywheel._frozen_shots(judge.policy ->> 'shot_set'))
                      with ordinality as listed(example_id, place)
           where judge.policy ? 'shot_set'
        )
        select e.example_id, e.input, e.output, e.corrected_output, coalesce(e.passed, false) as passed,
               coalesce(e.critique, '') as critique, chosen.similarity, chosen.recency, chosen.disagreement,
               chosen.trust, chosen.relevance, e.tokens
          from chosen join flywheel.examples as e using (example_id)
         order by chosen.rank desc
    """
    given = {
        "version_id": version_id,
        "vector": None if vector is None else wire.reals([vector]),
        "dimensions": 0 if vector is None else len(vector),
    }
    return await database.rows(Shown, query, given)
