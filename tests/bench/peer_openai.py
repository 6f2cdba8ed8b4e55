"""The bare loop: the OpenAI client, a semaphore, and nothing that remembers; prints the seconds as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI


async def ask_all(url: str, requests: list[dict[str, Any]], concurrency: int) -> float:
    """Send all requests, so many at once; return the seconds."""
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        free = asyncio.Semaphore(concurrency)

        async def ask(request: dict[str, Any]) -> bool:
            async with free:
                reply = await client.chat.completions.create(**request)
            return bool(json.loads(reply.choices[0].message.content or "{}")["verdict"] == "pass")

        await ask(requests[0])
        began = time.perf_counter()
        verdicts = await asyncio.gather(*map(ask, requests))
        seconds = time.perf_counter() - began
    if not all(verdicts):
        raise RuntimeError("verdicts are missing")
    return seconds


def main() -> None:
    """Send the requests of a file."""
    url, path, concurrency = sys.argv[1:]
    requests = [json.loads(line)["request"] for line in Path(path).read_text().splitlines()]
    print(json.dumps({"seconds": asyncio.run(ask_all(url, requests, int(concurrency)))}))


if __name__ == "__main__":
    main()
