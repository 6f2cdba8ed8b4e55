"""DeepEval's GEval over the items of a file; prints the seconds as JSON. Runs in an environment of its own."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from deepeval.metrics import GEval
from deepeval.models import OpenAIModel
from deepeval.test_case import LLMTestCase, SingleTurnParams

STEPS = ["Read the output.", "Pass when it speaks to what the input asks; fail when it speaks of something else."]


async def judge_all(url: str, items: list[dict[str, Any]], concurrency: int) -> float:
    """Judge all items, so many at once; return the seconds."""
    model = OpenAIModel(model="gpt-4o-mini", api_key="none", base_url=url)
    free = asyncio.Semaphore(concurrency)

    async def judge(item: dict[str, Any]) -> float:
        case = LLMTestCase(input=item["input"], actual_output=item["output"])
        metric = GEval(
            name="answers",
            evaluation_steps=STEPS,
            evaluation_params=[SingleTurnParams.INPUT, SingleTurnParams.ACTUAL_OUTPUT],
            model=model,
        )
        async with free:
            return float(await metric.a_measure(case, _show_indicator=False))

    await judge(items[0])
    began = time.perf_counter()
    scores = await asyncio.gather(*map(judge, items))
    seconds = time.perf_counter() - began
    if min(scores) < 0.5:
        raise RuntimeError("verdicts are missing")
    return seconds


if __name__ == "__main__":
    given = [json.loads(line) for line in Path(sys.argv[2]).read_text().splitlines()]
    print(json.dumps({"seconds": asyncio.run(judge_all(sys.argv[1], given, int(sys.argv[3])))}))
