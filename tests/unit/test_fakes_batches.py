"""Batches of the fake OpenAI server, from file to output."""

from __future__ import annotations

import json
from typing import Any

from openai import AsyncOpenAI
from openai.types import Batch

from tests.fakes.asking import call
from tests.fakes.openai import Fake


def lines_of(texts: list[str]) -> bytes:
    """Return an input file."""
    bodies = [{"model": "judge", "messages": [{"role": "user", "content": text}]} for text in texts]
    return b"".join(
        json.dumps(
            {"custom_id": f"line {number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        ).encode()
        + b"\n"
        for number, body in enumerate(bodies)
    )


async def begin(client: AsyncOpenAI, content: bytes) -> Batch:
    """Upload a file and begin a batch."""
    file = await client.files.create(file=("input.jsonl", content), purpose="batch")
    assert (file.bytes, file.purpose) == (len(content), "batch")
    return await client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
    )


async def finished(client: AsyncOpenAI, batch: Batch) -> tuple[list[str], Batch]:
    """Poll a batch to its end; return the states it went through, and the batch."""
    states = [batch.status]
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        batch = await client.batches.retrieve(batch.id)
        states.append(batch.status)
    return list(states), batch


async def results(client: AsyncOpenAI, file_id: str | None) -> dict[str, Any]:
    """Return the lines of an output or error file by custom_id."""
    if file_id is None:
        return {}
    text = (await client.files.content(file_id)).text
    return {line["custom_id"]: line for line in map(json.loads, text.splitlines())}


Outcome = tuple[list[str], Batch, dict[str, Any], dict[str, Any]]


def run_batch(fake: Fake, content: bytes, cancel: bool = False) -> Outcome:
    """Run a batch to its end; return its states, itself, its output and its errors."""

    async def use(client: AsyncOpenAI) -> Outcome:
        batch = await begin(client, content)
        if cancel:
            await client.batches.retrieve(batch.id)
            batch = await client.batches.cancel(batch.id)
        states, batch = await finished(client, batch)
        return states, batch, await results(client, batch.output_file_id), await results(client, batch.error_file_id)

    return call(fake.url, use)


def test_a_batch_goes_from_file_to_output(fake: Fake) -> None:
    fake.set(when={"item 2": "server_error"})
    states, batch, output, errors = run_batch(fake, lines_of([f"item {number}" for number in range(4)]))
    assert states == ["validating", "in_progress", "finalizing", "completed"]
    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (3, 1)
    assert set(output) == {"line 0", "line 1", "line 3"}
    assert output["line 0"]["response"]["body"]["choices"][0]["message"]["content"].endswith("verdict: pass")
    assert errors["line 2"]["response"]["status_code"] == 500


def test_a_batch_expires_with_part_of_its_output(fake: Fake) -> None:
    fake.set(batch_expires_after=3)
    states, _, output, errors = run_batch(fake, lines_of([f"item {number}" for number in range(5)]))
    assert states[-1] == "expired"
    assert set(output) == {"line 0", "line 1", "line 2"}
    assert {line["error"]["code"] for line in errors.values()} == {"batch_expired"}


def test_a_cancelled_batch_keeps_what_was_done(fake: Fake) -> None:
    states, _, output, errors = run_batch(fake, lines_of(["a", "b", "c", "d"]), cancel=True)
    assert states == ["cancelling", "cancelled"]
    assert (set(output), set(errors)) == ({"line 0", "line 1"}, {"line 2", "line 3"})


def test_a_batch_of_wrong_lines_fails(fake: Fake) -> None:
    twice = lines_of(["a"]) * 2
    for content, code in [(twice, "duplicate_custom_id"), (b"{", "invalid_json_line"), (b"", "empty_file")]:
        states, batch, _, _ = run_batch(fake, content)
        assert states == ["validating", "failed"]
        assert batch.errors is not None
        assert batch.errors.data is not None
        assert [error.code for error in batch.errors.data] == [code]
    fake.set(batch_fails="too many tokens are enqueued")
    assert run_batch(fake, lines_of(["a"]))[0][-1] == "failed"
