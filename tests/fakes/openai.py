"""A server that speaks the OpenAI API and can be told to misbehave.

In a thread::

    with serving(first=["rate_limited"] * 3) as fake:    # any fields of behaviour.Behaviour
        client = AsyncOpenAI(base_url=fake.url, api_key="any", max_retries=0)
        ...
        fake.set(mix={"reset": 0.1, "prose": 0.1}, delay=0.2)
        fake.limits(max_in_flight=8, requests_per_minute=600)
        ...
        assert fake.most_in_flight <= 8 and not fake.violations

An item with the word zzfail in it fails, others pass; ``mind=`` a function or ``verdicts=`` a table says otherwise.
As a process: ``with process.running(delay=0.2) as fake``, the same names, or ``python -m tests.fakes.openai --port 0``,
which prints its URL and is steered by ``POST /_fake/plan`` and ``/_fake/reset``, read at ``GET /_fake/requests``
and ``/_fake/stats``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from typing import Any

from tests.fakes.batches import Office
from tests.fakes.behaviour import CHOICE, Behaviour
from tests.fakes.books import CHAT, Books, Limits
from tests.fakes.completions import Completer, check_body, prompt_tokens
from tests.fakes.embeddings import embeddings, inputs_of
from tests.fakes.faults import Fault, rate_limited
from tests.fakes.mind import Asked, Judgement
from tests.fakes.misbehaviours import WIRE, refuse
from tests.fakes.wire import Connection, Reply, Request, as_json

EMBEDDINGS = "/v1/embeddings"
CALLS = (CHAT, EMBEDDINGS)
__all__ = ["Asked", "Fake", "Judgement", "Request", "serving"]


class Fake:
    """The fake: what it is told, what it was asked, and how it answers."""

    def __init__(self, **behaviour: Any) -> None:
        self.books = Books()
        self.bounds = Limits()
        self.completer = Completer()
        self.office = Office(self.answer_line)
        self.url = ""
        self.behaviour = Behaviour(**behaviour)
        self.mind, self.chooser = self.behaviour.thinking(), self.behaviour.chooser()

    # steering

    def set(self, **changes: Any) -> None:
        """Change settings of Behaviour by name; a change of mix, first, when, seed or at_most chooses anew."""
        behaviour = replace(self.behaviour, **changes)
        if CHOICE.isdisjoint(changes):
            self.behaviour, self.mind = behaviour, behaviour.thinking()
        else:
            self.set_all(behaviour)

    def set_all(self, behaviour: Behaviour) -> None:
        """Behave so from now on."""
        self.behaviour, self.mind, self.chooser = behaviour, behaviour.thinking(), behaviour.chooser()

    def limits(self, **limits: Any) -> None:
        """Set limits (fields of Limits) and begin to count violations of them."""
        self.bounds = Limits(**limits)
        self.books.violations = Counter()

    def reset(self) -> None:
        """Behave as at first, without limits, and forget all requests, files and batches."""
        self.books.reset()
        self.bounds, self.completer, self.office = Limits(), Completer(), Office(self.answer_line)
        self.set_all(Behaviour())

    # reading

    @property
    def requests(self) -> list[Request]:
        """Return every request since the last reset, in the order they came."""
        return list(self.books.requests)

    @property
    def most_in_flight(self) -> int:
        """Return how many calls were in flight at once, at most."""
        return self.books.most_in_flight

    @property
    def violations(self) -> dict[str, int]:
        """Return how many requests were beyond each limit."""
        return dict(self.books.violations)

    def most_in_window(self, seconds: float, path: str = CHAT) -> int:
        """Return the most requests that began within any window of so many seconds."""
        return self.books.most_in_window(seconds, path)

    def stats(self) -> dict[str, Any]:
        """Return counts by path, status and misbehaviour."""
        return self.books.stats()

    # answering

    def begin(self, request: Request) -> Reply:
        """Answer a request; in flight until ended() is told."""
        if request.path.startswith("/_fake/"):
            return self.steer(request)
        self.books.begin(request, request.path in CALLS)
        try:
            reply = self.route(request)
        except Fault as fault:
            reply = fault.reply()
        except Exception as error:  # also of a broken mind: seen as a refusal, not as a lost connection
            reply = Fault(400, f"the fake cannot read this request: {error!r}", "unreadable").reply()
        if request.path in CALLS:
            reply.wait += self.behaviour.delay
            reply.headers["x-request-id"] = f"req_{len(self.books.requests):08d}"
            if self.behaviour.ratelimit_headers:
                reply.headers |= self.bounds.headers()
        return reply

    def ended(self, request: Request) -> None:
        """Note that a request is over."""
        self.books.end(request.path in CALLS)

    def route(self, request: Request) -> Reply:
        """Answer by path."""
        key = self.behaviour.api_key
        if key is not None and request.headers.get("authorization") != f"Bearer {key}":
            raise Fault(401, "Incorrect API key provided.", "invalid_api_key")
        if request.path in CALLS:
            if request.method != "POST":
                raise Fault(405, f"Not allowed to {request.method} on {request.path}.", "method_not_supported")
            return self.call(request)
        return self.desk(request.method, request.path.removeprefix("/v1/").split("/"), request)

    def call(self, request: Request) -> Reply:
        """Answer a call of a model, within the limits and in the manner of its misbehaviour."""
        asked = asked_of(request.path, request.body)
        request.misbehaviour = name = self.chooser.choose(asked)
        self.check_limits(tokens_of(request.path, asked))
        answer = self.answer(request.path, asked, name)
        reply = as_json(answer)
        behaviour = self.behaviour
        if name == "half_json":
            reply.body = reply.body[: len(reply.body) // 2]
        elif name == "slow_first_byte":
            reply.wait = behaviour.slow_seconds
        elif name in WIRE:
            reply.manner, reply.drip_seconds = name, behaviour.drip_seconds
        return reply

    def check_limits(self, tokens: int) -> None:
        """Count what is beyond a limit, and refuse it if told to."""
        beyond = self.bounds.broken(self.books.in_flight, tokens)
        self.books.violations.update(beyond)
        if beyond and self.bounds.enforce:
            wait = self.bounds.wait_seconds() if beyond != ["in_flight"] else self.behaviour.retry_after
            raise rate_limited(retry_after=f"{wait:.3f}", retry_after_ms=f"{wait * 1000:.0f}")

    def answer(self, path: str, asked: Asked, misbehaviour: str | None) -> dict[str, Any]:
        """Return what a model answers; Fault when it refuses."""
        behaviour, body = self.behaviour, asked.body
        refuse(misbehaviour, body, behaviour.retry_after, behaviour.unsupported)
        if behaviour.models is not None and body.get("model") not in behaviour.models:
            raise Fault(404, f"The model '{body.get('model')}' does not exist.", "model_not_found")
        if path == EMBEDDINGS:
            return embeddings(body, behaviour.dimensions)
        most = behaviour.context_tokens
        if most is not None and prompt_tokens(asked) > most:
            message = f"This model's maximum context length is {most} tokens."
            raise Fault(400, message, "context_length_exceeded", param="messages")
        return self.completer.completion(asked, self.judge, misbehaviour, behaviour)

    def judge(self, asked: Asked) -> Judgement:
        """Ask the mind."""
        try:
            return self.mind(asked)
        except LookupError as error:
            raise Fault(400, str(error), "no_recorded_verdict") from error

    def answer_line(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Answer a line of a batch: misbehaviours of content and errors, not of the wire."""
        try:
            asked = asked_of(path, body)
            return 200, self.answer(path, asked, self.chooser.choose(asked))
        except Fault as fault:
            return fault.status, json.loads(fault.reply().body)

    def desk(self, method: str, parts: list[str], request: Request) -> Reply:
        """Answer what is not a call: models, files, batches."""
        office, behaviour = self.office, self.behaviour
        match method, *parts:
            case "GET", "models":
                return as_json(listed([model(name) for name in behaviour.models or ("fake-small", "fake-large")]))
            case "GET", "models", name:
                return as_json(model(name))
            case "POST", "files":
                return as_json(office.upload(request.headers.get("content-type", ""), request.raw))
            case "GET", "files":
                return as_json(listed([file.as_json() for file in office.files.values()]))
            case "GET", "files", file_id:
                return as_json(office.file(file_id).as_json())
            case "DELETE", "files", file_id:
                return as_json(office.delete(file_id))
            case "GET", "files", file_id, "content":
                return Reply(200, office.file(file_id).content, "application/octet-stream")
            case "POST", "batches":
                return as_json(office.create(request.body, behaviour))
            case "GET", "batches":
                return as_json(listed([batch.told for batch in office.batches.values()]))
            case "GET", "batches", batch_id:
                return as_json(office.poll(batch_id, behaviour))
            case "POST", "batches", batch_id, "cancel":
                return as_json(office.cancel(batch_id))
        raise Fault(404, f"Invalid URL ({method} {request.path})", "unknown_url")

    def steer(self, request: Request) -> Reply:
        """Answer what another process asks of the fake itself."""
        told = request.body or {}
        try:
            match request.method, request.path:
                case "POST", "/_fake/plan":
                    self.plan(told)
                case "POST", "/_fake/reset":
                    self.reset()
                case "GET", "/_fake/requests":
                    return as_json([each.as_json() for each in self.requests])
                case "GET", "/_fake/stats":
                    return as_json(self.stats())
                case _:
                    return as_json({"error": "no such page"}, 404)
        except (TypeError, ValueError, OSError) as error:
            return as_json({"error": str(error)}, 422)
        return as_json({})

    def plan(self, told: dict[str, Any]) -> None:
        """Change settings, and limits when they are among them."""
        if "limits" in told:
            self.limits(**told.pop("limits"))
        if told:
            self.set(**told)


def asked_of(path: str, body: Any) -> Asked:
    """Return what a call asks; the texts to embed are as one message."""
    if path == CHAT:
        return check_body(body)
    if not isinstance(body, dict) or not body.get("model"):
        raise Fault(400, "Missing required parameter: 'model'.", "missing_required_parameter", param="model")
    return Asked({**body, "messages": [{"role": "user", "content": "\n".join(inputs_of(body))}]})


def tokens_of(path: str, asked: Asked) -> int:
    """Return the tokens a call counts against a limit: the prompt's and those it may write, as OpenAI does."""
    written = asked.body.get("max_completion_tokens") or asked.body.get("max_tokens") or 0
    return prompt_tokens(asked) + (written if path == CHAT else 0)


def model(name: str) -> dict[str, Any]:
    """Return a model as the API lists it."""
    return {"id": name, "object": "model", "created": 1_790_000_000, "owned_by": "fake"}


def listed(data: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a page that is the only one."""
    return {"object": "list", "data": data, "has_more": False}


async def serve(fake: Fake, port: int, ready: Callable[[], None], stop: asyncio.Event) -> None:
    """Serve until stopped; fake.url is set when ready is called."""
    connections: set[Connection] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(fake.begin, fake.ended, connections), "127.0.0.1", port, backlog=1024
    )
    fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    ready()
    await stop.wait()
    server.close()
    for connection in list(connections):
        connection.transport.abort()
    await server.wait_closed()
    await asyncio.sleep(0)  # the aborted transports close their sockets


@contextmanager
def serving(port: int = 0, **behaviour: Any) -> Iterator[Fake]:
    """Serve in a thread of this process."""
    fake, ready, stop = Fake(**behaviour), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(
        target=loop.run_until_complete, args=(serve(fake, port, ready.set, stop),), name="fake openai", daemon=True
    )
    thread.start()
    try:
        assert ready.wait(10), "the fake did not start"
        yield fake
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


async def serve_process(fake: Fake, port: int) -> None:
    """Serve until a signal, printing the URL first."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(fake, port, lambda: print(fake.url, flush=True), stop)


def main() -> None:
    """Run as a process."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--plan", type=json.loads, default={}, help="settings, and limits, as JSON")
    options.add_argument("--mind", help="module:function that judges")
    given = options.parse_args()
    fake = Fake()
    fake.plan(given.plan)
    if given.mind:
        module, _, name = given.mind.partition(":")
        fake.set(mind=getattr(import_module(module), name))
    with suppress(KeyboardInterrupt):
        asyncio.run(serve_process(fake, given.port))


if __name__ == "__main__":
    main()
