"""Phoenix evals over the items of a file; prints the seconds as JSON. Runs in an environment of its own."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import pandas
from phoenix.evals import LLM, async_evaluate_dataframe, create_classifier

TEMPLATE = (
    "Does the output answer the input?\nPass when it speaks to what the input asks; fail when it speaks of "
    "something else.\n\nInput: {input}\n\nOutput: {output}"
)


async def judge_all(url: str, items: list[dict[str, Any]], concurrency: int) -> float:
    """Judge all items, so many at once; return the seconds."""
    llm = LLM(provider="openai", client="openai", model="gpt-4o-mini", base_url=url, api_key="none")
    judge = create_classifier("answers", TEMPLATE, llm, choices={"pass": 1, "fail": 0})
    rows = pandas.DataFrame([{"input": item["input"], "output": item["output"]} for item in items])
    how = {"evaluators": [judge], "concurrency": concurrency, "hide_tqdm_bar": True}
    await async_evaluate_dataframe(dataframe=rows.head(1), **how)
    began = time.perf_counter()
    judged = await async_evaluate_dataframe(dataframe=rows, **how)
    seconds = time.perf_counter() - began
    scores = [each["score"] for each in judged["answers_score"]]
    if len(scores) != len(items) or min(scores) < 1:
        raise RuntimeError("verdicts are missing")
    return seconds


if __name__ == "__main__":
    given = [json.loads(line) for line in Path(sys.argv[2]).read_text().splitlines()]
    print(json.dumps({"seconds": asyncio.run(judge_all(sys.argv[1], given, int(sys.argv[3])))}))
