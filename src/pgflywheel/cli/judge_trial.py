"""Ask a judge from the terminal: one that is stored or one of a file, about a span or about texts."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Any

from pgflywheel.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from array import array

    from pgflywheel.cli.definitions import Named, Question
    from pgflywheel.db.connect import Database
    from pgflywheel.db.judge_trials import JudgeVersion
    from pgflywheel.db.judgements import Shown, Subject
    from pgflywheel.judge.client import Client
    from pgflywheel.judge.definition import JudgeDefinition
    from pgflywheel.judge.failures import CallFailed
    from pgflywheel.judge.judgement import Reading
    from pgflywheel.judge.ladder import Ladder
    from pgflywheel.judge.records import Item, Judgement, Prompt, Reply, Shot
    from pgflywheel.records import Provider

MOST_PATIENCE_SECONDS = 10.0
_HINTS = {
    "wait": "The provider asks to wait: try again in a while.",
    "quota": "The provider says that its quota is used up.",
    "unauthorized": "Set the variable that holds the key: pgflywheel providers list names it.",
    "too_long": "The item is too long for the model.",
    "retry": "Try again: pgflywheel providers check shows whether it answers at all.",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which judge: a stored one by name and number, or one of a file."""

    name: str
    number: int | None
    definitions: Named | None


@dataclass(frozen=True, slots=True)
class Case:
    """A judge, what it is asked about, and the examples it is shown."""

    judge: JudgeVersion
    definition: JudgeDefinition
    provider: Provider
    item: Item
    shots: list[Shot]


@dataclass(frozen=True, slots=True)
class Asked:
    """One call and what came of it."""

    prompt: Prompt
    reply: Reply
    reading: Reading
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Trial:
    """All calls of one trial, and the judgement they come to."""

    case: Case
    calls: list[Asked]
    judgement: Judgement

    def total(self, name: str) -> Any:
        """Return the sum of a column of usage, or of cost_usd; None when one call does not know it."""
        values = [each.cost_usd if name == "cost_usd" else getattr(each.reply.usage, name) for each in self.calls]
        return None if None in values else sum(values)


async def prepare(database: Database, wanted: Wanted, question: Question) -> Case:
    """Return a judge with what it would be shown; one of a file is stored, looked at, and taken back."""
    from pgflywheel.db import judge_trials, providers
    from pgflywheel.judge.definition import JudgeDefinition
    from pgflywheel.judge.records import Shot
    from pgflywheel.worker.judgements import item_of

    judge = await _judge(database, wanted)
    definition = JudgeDefinition.of(judge.validator, judge.definition)
    provider = await providers.provider(database, definition.provider)
    about = None
    if question.span_id is not None:
        about = await judge_trials.subject(database, question.span_id, definition.context.session)
    item = _item_of_texts(question) if about is None else item_of(about)
    vector = await _vector(database, definition, item) if definition.shots.wanted else None
    shown = await _shots(database, judge, about, vector, wanted.definitions or [])
    return Case(judge, definition, provider, item, [Shot(*astuple(each)) for each in shown])


async def ask(database: Database, wanted: Wanted, question: Question) -> Trial:
    """Ask a judge and record its calls, with purpose test; no score is written."""
    from pgflywheel.judge.client import Client
    from pgflywheel.judge.ladder import Ladder
    from pgflywheel.judge.votes import combine, shot_subsets

    case = await prepare(database, wanted, question)
    subsets = shot_subsets(case.shots, case.definition.votes)
    async with Client(case.provider) as client:
        caller = _Caller(database, client, case, Ladder())
        judgements = [await caller.vote(shown, vote) for vote, shown in enumerate(subsets, start=1)]
    return Trial(case, caller.calls, combine(judgements))


@dataclass(frozen=True, slots=True)
class _Caller:
    database: Database
    client: Client
    case: Case
    ladder: Ladder
    calls: list[Asked] = field(default_factory=list)

    async def vote(self, shots: tuple[Shot, ...], vote: int) -> Judgement:
        """Return one vote, after one repair at most."""
        from pgflywheel.judge.failures import CallFailed
        from pgflywheel.judge.judgement import repair

        try:
            asked = await self._ask(shots, vote)
            if not asked.reading.scored:
                asked = await self._call(repair(asked.prompt, asked.reply, asked.reading))
        except CallFailed as failure:
            raise _as_error(failure, self.case.provider.name) from failure
        return asked.reading.judgement

    async def _ask(self, shots: tuple[Shot, ...], vote: int) -> Asked:
        """Ask without what the endpoint turns out not to know."""
        from pgflywheel.judge.failures import CallFailed

        while True:
            prompt = built(self.case, shots, self.ladder, vote)
            try:
                return await self._call(prompt)
            except CallFailed as failure:
                if not self.ladder.step_down(prompt, failure):
                    raise

    async def _call(self, prompt: Prompt) -> Asked:
        """Make a call within the limits and budgets all workers share, and record it."""
        from pgflywheel.db import calls
        from pgflywheel.judge.entry import announced, answered, failed
        from pgflywheel.judge.failures import CallFailed
        from pgflywheel.judge.judgement import read
        from pgflywheel.judge.price import cost_usd

        of_test = {"fence": None, "version_id": self.case.judge.version_id, "attempt": 1, "purpose": "test"}
        call = announced(prompt, self.case.item) | of_test
        await self._begin(call)
        try:
            reply = await self.client.complete(prompt, self.case.definition.time_limit_ms)
        except CallFailed as failure:
            await calls.end_calls(self.database, [call | failed(failure)])
            raise
        reading = read(reply)
        await calls.end_calls(self.database, [call | answered(reply, reading)])
        cost = cost_usd(reply.usage, self.case.provider.prices.get(prompt.model))
        asked = Asked(prompt, reply, reading, cost)
        self.calls.append(asked)
        return asked

    async def _begin(self, call: dict[str, Any]) -> None:
        import asyncio  # here, for the sake of --help

        from pgflywheel.db import calls

        waited = 0.0
        while True:
            begun = (await calls.begin_calls(self.database, call["call_id"], [call]))[0]
            if begun.decision == "go":
                return
            if begun.decision != "wait" or waited + begun.wait_seconds > MOST_PATIENCE_SECONDS:
                why = begun.detail or begun.decision
                raise CheckFailed(f"the call may not be made now: {why}", hint="See pgflywheel budgets list.")
            waited += begun.wait_seconds
            await asyncio.sleep(begun.wait_seconds)


def built(case: Case, shots: tuple[Shot, ...], ladder: Ladder, vote: int = 1) -> Prompt:
    """Return the prompt of a vote; a template that cannot be rendered is the definition's fault."""
    from pgflywheel.judge.prompt import build
    from pgflywheel.judge.template import TemplateFailed

    try:
        return build(case.definition, case.item, shots, ladder.form(case.provider, case.definition), vote)
    except TemplateFailed as error:
        raise UsageError(
            f"the template of judge {case.definition.name} cannot be rendered", str(error), "Mend the template."
        ) from error


async def _judge(database: Database, wanted: Wanted) -> JudgeVersion:
    """Return the stored version, or the one of the file, which has no number and no id."""
    from pgflywheel.db import judge_trials

    if wanted.definitions is None:
        return await judge_trials.version(database, wanted.name, wanted.number)
    found = [each for each in wanted.definitions if wanted.name in ("", each[0]) and each[1].get("kind") == "judge"]
    if len(found) != 1:
        names = ", ".join(name for name, definition in wanted.definitions if definition.get("kind") == "judge")
        what = f"defines no judge {wanted.name}" if wanted.name else f"defines {len(found)} judges"
        raise UsageError(f"the file {what}", hint=f"Name one of them as FILE#NAME: {names or 'there is none'}.")
    return judge_trials.JudgeVersion(found[0][0], None, "not stored", None, found[0][1])


async def _shots(
    database: Database, judge: JudgeVersion, about: Subject | None, vector: array[float] | None, definitions: Named
) -> list[Shown]:
    """Return the examples the judge is shown; one of a file is stored meanwhile, with what it names."""
    from pgflywheel.cli.definitions import Undo, named_by
    from pgflywheel.db import judge_trials, judgements, validators

    if judge.version_id is not None:
        if about is None:
            return await judge_trials.shots_for_text(database, judge.version_id, vector)
        vectors = None if vector is None else [vector]
        return (await judgements.shots_for(database, judge.version_id, [about], vectors))[0]
    try:
        async with database.transaction() as session:
            for name, definition in named_by(judge.validator, definitions):
                defined = await validators.define(session, name, dict(definition))
                if name == judge.validator:
                    stored = await judge_trials.version(session, name, defined.version)
            shown = await _shots(session, stored, about, vector, [])
            raise Undo
    except Undo:
        return shown


async def _vector(database: Database, definition: JudgeDefinition, item: Item) -> array[float] | None:
    """Return the vector by which examples are compared with an item; None when nothing is compared."""
    from pgflywheel.db import judgements, providers
    from pgflywheel.judge.embed import make
    from pgflywheel.judge.failures import CallFailed

    row = await judgements.shot_embedder(database, definition.shots.embedder)
    if row is None or definition.shots.shot_set is not None:
        return None
    provider = await providers.provider(database, row.provider) if row.provider else None
    texts = [item.input] if definition.target == "input" else [item.input, item.output]
    text = "\n\n".join(each for each in texts if each is not None)
    try:
        return (await make(row, provider).embed([text]))[0]
    except CallFailed as failure:
        raise _as_error(failure, row.provider or row.name) from failure


def _item_of_texts(question: Question) -> Item:
    from pgflywheel.judge.records import Item

    return Item(question.input, question.output)


def _as_error(failure: CallFailed, provider: str) -> CheckFailed:
    return CheckFailed(
        f"provider {provider} did not answer: {failure.outcome}", failure.detail, _HINTS.get(failure.treatment)
    )
