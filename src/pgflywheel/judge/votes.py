"""Several votes on one item: each sees other examples, the majority decides."""

from __future__ import annotations

from collections.abc import Sequence

from pgflywheel.judge.records import Judgement, Shot


def shot_subsets(shots: Sequence[Shot], votes: int) -> list[tuple[Shot, ...]]:
    """Return the examples of each vote: each of several votes leaves out others; a single example is shown to all."""
    if votes <= 1:
        return [tuple(shots)]
    return [
        tuple(shot for place, shot in enumerate(shots) if place % votes != vote or len(shots) == 1)
        for vote in range(votes)
    ]


def combine(judgements: Sequence[Judgement]) -> Judgement:
    """Return the judgement of the majority of those that gave a verdict; one judgement stands as it is.

    ``value`` is the mean probability of a pass, by logprobs where there are any, else by votes; ``confidence`` is the
    majority's share after one vote more for each verdict (Laplace). ValueError when there are none.
    """
    if not judgements:
        raise ValueError("there is no judgement to combine")
    scored = [each for each in judgements if each.passed is not None]
    if len(judgements) == 1 or not scored:
        return judgements[0]
    passes = sum(each.passed is True for each in scored)
    if 2 * passes == len(scored):
        detail = f"{passes} of {len(scored)} votes say pass; {len(judgements) - len(scored)} gave no verdict"
        return Judgement(None, reason="no_verdict", detail=detail)
    passed = 2 * passes > len(scored)
    majority = passes if passed else len(scored) - passes
    critique = next((each.critique for each in scored if each.passed is passed and each.critique), None)
    values = [float(each.passed is True) if each.value is None else each.value for each in scored]
    confidence = (majority + 1) / (len(scored) + 2)
    return Judgement(passed, sum(values) / len(values), critique, confidence)
