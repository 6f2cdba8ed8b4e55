"""Ask the fake with the real client, once, and close it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion

SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "verdict",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"critique": {"type": "string"}, "verdict": {"type": "string", "enum": ["pass", "fail"]}},
            "required": ["critique", "verdict"],
            "additionalProperties": False,
        },
    },
}
T = TypeVar("T")
GOOD, BAD = "an item", "an item with zzfail in it"


def call(url: str, use: Callable[[AsyncOpenAI], Awaitable[T]], **options: Any) -> T:
    """Use a client, and close it."""

    async def run() -> T:
        async with AsyncOpenAI(
            **{"base_url": url, "api_key": "key", "max_retries": 0, "timeout": 20, **options}
        ) as client:
            return await use(client)

    return asyncio.run(run())


def chat(url: str, text: str = GOOD, **more: Any) -> ChatCompletion:
    """Ask for one completion."""
    timeout = more.pop("timeout", 20)
    return call(url, lambda client: ask(client, text, **more), timeout=timeout)


async def ask(client: AsyncOpenAI, text: str, **more: Any) -> ChatCompletion:
    """Ask for one completion with a client at hand."""
    messages = [{"role": "system", "content": "Answer in json."}, {"role": "user", "content": text}]
    completion: ChatCompletion = await client.chat.completions.create(
        **{"model": "judge", "messages": messages, **more}
    )
    return completion


def content(completion: ChatCompletion) -> str:
    """Return the first choice's text."""
    text = completion.choices[0].message.content
    assert text is not None
    return text
