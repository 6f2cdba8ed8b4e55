"""Chat completions: from a request and a judgement to what a model would have sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from tests.fakes import tokens
from tests.fakes.behaviour import Behaviour
from tests.fakes.faults import Fault
from tests.fakes.mind import Asked, Judgement
from tests.fakes.misbehaviours import CHANGES, FINISH, REWRITES, misjudge
from tests.fakes.shapes import check_format, content_of, tool_call

numbers = count(1)


def check_body(body: Any) -> Asked:
    """Return what is asked; refuse what the real API refuses."""
    if not isinstance(body, dict):
        raise Fault(400, "We could not parse the JSON body of your request.")
    for name in ("model", "messages"):
        if not body.get(name):
            raise Fault(400, f"Missing required parameter: '{name}'.", "missing_required_parameter", param=name)
    if body.get("stream"):
        raise Fault(400, "Streaming is not supported here.", "unsupported_value", param="stream")
    top = body.get("top_logprobs")
    if top is not None and not body.get("logprobs"):
        raise Fault(400, "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.", param="logprobs")
    if not 0 <= (top or 0) <= 20:
        raise Fault(400, f"Invalid value: '{top}'.", "invalid_value", param="top_logprobs")
    asked = Asked(body)
    check_format(asked)
    return asked


class Completer:
    """Write completions; the cache of prompt prefixes is its memory."""

    def __init__(self) -> None:
        self.cache = tokens.PrefixCache()

    def completion(
        self, asked: Asked, judge: Callable[[Asked], Judgement], misbehaviour: str | None, settings: Behaviour
    ) -> dict[str, Any]:
        """Return a chat completion, misbehaving as told."""
        body = asked.body
        choices = [
            choice(Asked(body, index), judge, misbehaviour, settings, index) for index in range(body.get("n") or 1)
        ]
        answer = {
            "id": f"chatcmpl-{next(numbers):08d}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body["model"] + settings.snapshot,
            "choices": choices,
            "usage": self.usage(asked, choices),
            "service_tier": "default",
            "system_fingerprint": "fp_fake",
        }
        if misbehaviour in CHANGES:
            CHANGES[misbehaviour](answer)
        return answer

    def usage(self, asked: Asked, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the tokens used."""
        prompt = prompt_tokens(asked)
        written = sum(tokens.count(choice["message"]["content"] or "") + 4 for choice in choices)
        cached = min(self.cache.cached(str(asked.body["model"]), asked.prompt), prompt)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        }


def prompt_tokens(asked: Asked) -> int:
    """Return the tokens of a prompt: those of its messages, and four for each."""
    return sum(tokens.count(text) + 4 for _, text in asked.messages)


def choice(
    asked: Asked, judge: Callable[[Asked], Judgement], misbehaviour: str | None, settings: Behaviour, index: int
) -> dict[str, Any]:
    """Return one choice of a completion."""
    judgement = misjudge(misbehaviour, judge(asked))
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    call = tool_call(asked, judgement)
    if call is not None:
        message["tool_calls"] = [call]
        return {"index": index, "message": message, "logprobs": None, "finish_reason": "tool_calls"}
    content = content_of(asked, judgement)
    if misbehaviour in REWRITES:
        content = REWRITES[misbehaviour](content, settings.endless_characters)
    finish = FINISH.get(misbehaviour or "", "stop")
    if misbehaviour != "endless":
        content, finish = stopped(asked.body, content, finish)
    message["content"] = content
    likely = logprobs(asked.body, content, judgement, settings.verdict_token)
    return {"index": index, "message": message, "logprobs": likely, "finish_reason": finish}


def stopped(body: Mapping[str, Any], content: str, finish: str) -> tuple[str, str]:
    """Cut a content at the tokens the request allows."""
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    if most is not None and tokens.count(content) > most:
        return content[: most * 4], "length"
    return content, finish


def logprobs(body: Mapping[str, Any], content: str, judgement: Judgement, manner: str) -> dict[str, Any] | None:
    """Return logprobs when they are asked for."""
    if not body.get("logprobs"):
        return None
    return tokens.logprobs(content, judgement.probability, body.get("top_logprobs") or 0, manner)
