"""Calls to an endpoint that speaks the OpenAI API, with all retries left to the queue."""

from __future__ import annotations

import asyncio
import json
import os
import re
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from contextvars import ContextVar
from math import isfinite
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, cast
from urllib.request import getproxies

from pgflywheel.errors import UsageError
from pgflywheel.judge.failures import CallFailed, connection_lost, failure_of, keyless, timed_out
from pgflywheel.judge.reading import error_in, reply_of, usage_of
from pgflywheel.judge.records import Embeddings, Prompt, Reply
from pgflywheel.records import Provider

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

CHAT = "/chat/completions"
CONNECT_SECONDS = 10.0
KEPT_ALIVE = 256
MOST_OBJECT_BYTES = 1 << 20
MOST_FILE_BYTES, MOST_LINE_BYTES = 1 << 30, 16 << 20
MOST_FILE_SECONDS = 3600.0  # however slowly a file comes, its worker has other batches
FILE_MS = 600_000  # a file of requests takes longer than a request
_VECTOR_BYTES = 32 * 4096  # of one vector as JSON
_ID = re.compile(r"(?!\.{1,2}$)[\w.~:@+=,-]{1,500}", re.ASCII)
_most_bytes: ContextVar[int] = ContextVar("most_bytes", default=MOST_OBJECT_BYTES)


class _TooLong(Exception):
    """A response is longer than its call may read."""


class Client:
    """Make calls to one provider, over connections it keeps; for one event loop."""

    def __init__(self, provider: Provider, environment: Mapping[str, str] | None = None) -> None:
        self.provider = provider
        self._environment = os.environ if environment is None else environment
        self._made: AsyncOpenAI | None = None

    async def __aenter__(self) -> Client:
        """Return itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close its connections."""
        await self.close()

    def prepare(self) -> None:
        """Load what calls need, before one is announced: a limit a minute counts from then, not from its sending."""
        with suppress(CallFailed, UsageError):  # which the call will say
            self._client()

    async def complete(self, prompt: Prompt, time_limit_ms: float | None = None) -> Reply:
        """Make a judge's call; CallFailed says what went wrong. A reply longer than it may be is a length stop."""
        began = perf_counter()
        try:
            response = await self._send("POST", CHAT, prompt.body, prompt.most_reply_bytes, time_limit_ms)
            return reply_of(_json(response), response.status_code, _since(began), response.headers)
        except _TooLong:
            return Reply(None, finish_reason="length", latency_ms=_since(began))
        except CallFailed as failure:
            self._discreet(failure).latency_ms = _since(began)
            raise

    async def embed(self, texts: Sequence[str], model: str, dimensions: int | None = None) -> Embeddings:
        """Return a vector for each text, all of one length; ``dimensions`` is asked for unless None."""
        request: dict[str, Any] = {"model": model, "input": list(texts), "encoding_format": "float"}
        if dimensions is not None:
            request["dimensions"] = dimensions
        most = MOST_OBJECT_BYTES + len(texts) * _VECTOR_BYTES
        payload = await self._object("POST", "/embeddings", json.dumps(request).encode(), most)
        return Embeddings(_vectors(payload, len(texts)), usage_of(payload.get("usage")))

    async def upload(self, name: str, content: bytes) -> str:
        """Store a file of batch lines and return its id."""
        files = {"file": (name, content, "application/jsonl")}
        response = await self._send("POST", "/files", None, MOST_OBJECT_BYTES, form=({"purpose": "batch"}, files))
        return _id(_json(response))

    async def create_batch(self, file_id: str, metadata: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Begin a batch of chat completions; what is returned has an id."""
        request = {"input_file_id": file_id, "endpoint": f"/v1{CHAT}", "completion_window": "24h"}
        body = json.dumps({**request, "metadata": dict(metadata or {})}).encode()
        told = await self._object("POST", "/batches", body)
        return {**told, "id": _id(told)}

    async def batch(self, batch_id: str) -> dict[str, Any]:
        """Return a batch as the endpoint tells it now."""
        return await self._object("GET", f"/batches/{batch_id}")

    async def cancel_batch(self, batch_id: str) -> dict[str, Any]:
        """Ask to end a batch early."""
        return await self._object("POST", f"/batches/{batch_id}/cancel", b"{}")

    async def batches(self, most: int = 100) -> list[dict[str, Any]]:
        """Return the newest batches that have an id, to find one whose id was lost."""
        found = (await self._object("GET", f"/batches?limit={most}")).get("data")
        return [each for each in found if _named(each)] if isinstance(found, list) else []

    async def download(self, file_id: str) -> AsyncIterator[bytes]:
        """Yield the lines of a file as they come."""
        rest = b""
        async with aclosing(self._content(file_id)) as chunks:
            async for chunk in chunks:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(bytes.strip, lines):
                    yield line
                if len(rest) > MOST_LINE_BYTES:
                    raise failure_of(200, f"a line of the file is longer than {MOST_LINE_BYTES:,} bytes", {})
        if rest.strip():
            yield rest

    async def _content(self, file_id: str) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a file as they come, as long as a file may take."""
        headers = _options(keyless=self.provider.key_variable is None, form=False)["headers"]
        files, until = self._client().files.with_streaming_response, monotonic() + MOST_FILE_SECONDS
        _most_bytes.set(MOST_FILE_BYTES)
        try:
            with self._classified("the file did not come in time"):
                async with files.content(file_id, extra_headers=headers) as response:
                    async for chunk in response.iter_bytes():
                        yield chunk
                        if monotonic() > until:
                            raise TimeoutError
        except _TooLong as error:
            raise failure_of(200, f"the file is longer than {MOST_FILE_BYTES:,} bytes", {}) from error

    async def close(self) -> None:
        """Close the connections."""
        if self._made is not None:
            made, self._made = self._made, None
            await made.close()

    async def _object(
        self, method: str, path: str, body: bytes | None = None, most_bytes: int = MOST_OBJECT_BYTES
    ) -> dict[str, Any]:
        try:
            response = await self._send(method, path, body, most_bytes)
        except _TooLong as error:
            raise failure_of(200, f"the reply is longer than {most_bytes} bytes", {}) from error
        payload = _json(response)
        if not isinstance(payload, dict):
            raise failure_of(200, "the reply is no JSON object", {})
        if failure := error_in(payload, response.headers):
            raise self._discreet(failure)
        return payload

    async def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        most_bytes: int,
        time_limit_ms: float | None = None,
        form: tuple[dict[str, str], Any] | None = None,
    ) -> httpx2.Response:
        """Send a request within the time limit; CallFailed unless the status is good."""
        client = self._client()
        import httpx2

        _most_bytes.set(most_bytes)
        limit_ms = min(self.provider.time_limit_ms, time_limit_ms or self.provider.time_limit_ms)
        limit_ms = max(limit_ms, FILE_MS) if form else limit_ms
        with self._classified(f"no whole reply within {limit_ms:g} ms"):
            async with asyncio.timeout(limit_ms / 1000):
                options = _options(keyless=self.provider.key_variable is None, form=form is not None)
                if method == "GET":
                    return await client.get(path, cast_to=httpx2.Response, options=options)
                fields, files = form or (None, None)
                return await client.post(
                    path, cast_to=httpx2.Response, content=body, body=fields, files=files, options=options
                )

    @contextmanager
    def _classified(self, late: str) -> Iterator[None]:
        """Turn what a request ends with into CallFailed, save a reply that is too long."""
        import httpx2
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        try:
            yield
        except APIStatusError as error:
            raise self._discreet(_failure(error.response)) from error
        except (TimeoutError, APITimeoutError, httpx2.TimeoutException) as error:
            raise timed_out(late) from error
        except (APIConnectionError, httpx2.TransportError) as error:
            if isinstance(error.__cause__, _TooLong):  # early releases of openai 3 wrap every exception
                raise error.__cause__ from None
            raise connection_lost(_cause(error)) from error

    def _discreet(self, failure: CallFailed) -> CallFailed:
        """Take the key out of what an endpoint said: some repeat it, and it is stored and logged."""
        key = self._environment.get(self.provider.key_variable or "", "").strip()
        if key:
            failure.detail = failure.detail.replace(key, "[key]")
        return failure

    def _client(self) -> AsyncOpenAI:
        if self._made is None:
            self._made = _openai(self.provider, self._key())
        return self._made

    def _key(self) -> str | None:
        variable = self.provider.key_variable
        if variable is None:
            return None
        key = self._environment.get(variable, "").strip()
        if not key:
            raise keyless(variable)
        return key


def _openai(provider: Provider, key: str | None) -> AsyncOpenAI:
    """Make the client: no retries, no redirects to where the prompt was not meant to go, bounded responses."""
    try:
        import httpx2
        from openai import AsyncOpenAI

        from pgflywheel.judge.pools import Pools
    except ImportError as error:
        raise UsageError("calling a model needs the package openai", hint="pip install 'pgflywheel[judge]'") from error
    seconds = provider.time_limit_ms / 1000
    timeout = httpx2.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=KEPT_ALIVE)
    http = httpx2.AsyncClient(
        timeout=timeout,
        limits=limits,
        transport=None if getproxies() else Pools(KEPT_ALIVE),  # with a transport, proxies are not looked for
        event_hooks={"response": [_bound]},
        headers={"Accept-Encoding": "identity"},
    )
    return AsyncOpenAI(
        api_key=key or "none",
        base_url=provider.base_url,
        http_client=http,
        timeout=timeout,
        max_retries=0,
        default_headers={"Accept-Encoding": "identity"},  # what is decompressed cannot be bounded as it comes
    )


async def _bound(response: httpx2.Response) -> None:
    """Let no more be read of a response than its call asked for, and that as UTF-8."""
    import httpx2

    stream, most = cast(httpx2.AsyncByteStream, response.stream), _most_bytes.get()

    class Bounded(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            left = most
            async for chunk in stream:
                left -= len(chunk)
                if left < 0:
                    raise _TooLong
                yield chunk

        async def aclose(self) -> None:
            await stream.aclose()

    response.stream = Bounded()
    response.encoding = "utf-8"  # as JSON is; what a header names may be a codec that gives no text, or none


def _options(*, keyless: bool, form: bool) -> Any:
    """Return the headers of a request that are not the client's."""
    from openai import Omit

    headers: dict[str, Any] = {"Authorization": Omit()} if keyless else {}
    return {"headers": headers | {"Content-Type": "multipart/form-data"} if form else headers}


def _json(response: httpx2.Response) -> Any:
    """Return a response's JSON; CallFailed when it is none."""
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError) as error:
        raise failure_of(response.status_code, f"the reply is no JSON: {response.text[:200]}", {}) from error


def _failure(response: httpx2.Response) -> CallFailed:
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        body = response.text
    return failure_of(response.status_code, body, response.headers)


def _vectors(payload: Mapping[str, Any], wanted: int) -> list[Sequence[float]]:
    data = payload.get("data")
    rows = [each for each in data if isinstance(each, Mapping)] if isinstance(data, list) else []
    rows.sort(key=_place)
    vectors = [each.get("embedding") for each in rows]
    lengths = {_length(each) for each in vectors}
    if len(vectors) != wanted or len(lengths) > 1 or 0 in lengths:
        raise failure_of(200, f"{len(vectors)} vectors of lengths {sorted(lengths)} came for {wanted} texts", {})
    return cast(list[Sequence[float]], vectors)


def _place(row: Mapping[str, Any]) -> int:
    """Return which text a vector is of; without a number, vectors stand in the order of their texts."""
    index = row.get("index")
    return index if isinstance(index, int) else 0


def _length(vector: Any) -> int:
    """Return how many numbers a vector has; 0 where one of them is none, or not finite."""
    try:
        return len(vector) if isinstance(vector, list) and all(map(isfinite, array("f", vector))) else 0
    except (TypeError, OverflowError):
        return 0


def _id(payload: Any) -> str:
    if not _named(payload):
        raise failure_of(200, "the reply names no id", {})
    return cast(str, payload["id"])


def _named(payload: Any) -> bool:
    """Tell whether an object has an id that can stand in an address."""
    found = payload.get("id") if isinstance(payload, dict) else None
    return isinstance(found, str) and _ID.fullmatch(found) is not None


def _cause(error: BaseException) -> str:
    """Return what lies under a connection error."""
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {cause}".rstrip(": ")


def _since(began: float) -> float:
    return (perf_counter() - began) * 1000
