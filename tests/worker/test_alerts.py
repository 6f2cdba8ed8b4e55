"""Messages of alerts: signed, tried again under one id, sent by one worker, and never in the way of others."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from pgflywheel.db.connect import open_database
from pgflywheel.worker.alerts import Deliveries
from pgflywheel.worker.site import Options, Site
from pgflywheel.worker.webhook import Address, NotSent, post, signature
from tests.worker.support import Connection, process, until, value

SECRET = "a secret of both"
ENVIRON = {"HOOK_SECRET": SECRET}


@dataclass
class Receiver:
    """A real HTTP server that answers as told, and remembers what it was sent."""

    answers: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    def answer(self) -> int:
        """Return the next status; 200 when none is told."""
        return self.answers.pop(0) if self.answers else 200


@contextmanager
def receiving(*answers: int) -> Iterator[Receiver]:
    receiver = Receiver(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.got.append((dict(self.headers), body))
            self.send_response(receiver.answer())
            self.send_header("Location", f"{receiver.url}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            receiver.got.append(({"method": "GET"}, b""))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield receiver
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def hanging(drip: bytes = b"") -> Iterator[str]:
    """Listen, accept, and never answer; or answer a byte at a time, without end."""
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)

    def serve() -> None:
        held = []
        while not over.is_set():
            try:
                held.append(listener.accept()[0])
            except TimeoutError:
                for one in held if drip else ():
                    with suppress(OSError):  # who sent has given up
                        one.sendall(drip)
        for one in held:
            one.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    over.set()
    thread.join()
    listener.close()


def channel(connection: Connection, name: str, url: str, **definition: Any) -> None:
    given = {"url": url, "insecure": True, **definition}
    connection.execute("select flywheel.set_alert_channel(%s, %s)", [name, Jsonb(given)])


def message(connection: Connection, name: str, **body: Any) -> Any:
    """Queue a message to a channel and return its id."""
    made = value(connection, "select flywheel.test_alert_channel(%s)", name)
    connection.execute("update flywheel._deliveries set body = body || %s where delivery_id = %s", [Jsonb(body), made])
    return made


def deliver(dsn: str, times: int = 1, seconds: float = 5.0, environ: dict[str, str] | None = None) -> None:
    """Send what waits, and wait for what comes of it."""

    async def look() -> None:
        async with open_database(dsn, max_connections=2) as database:
            deliveries = Deliveries(Site.of(database, Options()), environ or ENVIRON, seconds)
            for _ in range(times):
                await deliveries.look()
                await asyncio.gather(*deliveries.sending)

    asyncio.run(look())


def due_again(connection: Connection) -> None:
    connection.execute("update flywheel._deliveries set run_at = now(), leased_until = null where sent_at is null")


def problem(connection: Connection) -> str:
    return str(value(connection, "select last_problem from flywheel._deliveries order by created_at desc limit 1"))


def test_a_message_is_signed_and_has_an_id(dsn: str, connection: Connection) -> None:
    with receiving() as receiver:
        channel(connection, "team", f"{receiver.url}/hook?a=b", secret_variable="HOOK_SECRET")
        delivery_id = message(connection, "team")
        deliver(dsn)
    ((headers, body),) = receiver.got
    at = headers["X-Pgflywheel-Signature"].partition(",")[0].removeprefix("t=")
    expected = hmac.new(SECRET.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    assert headers["X-Pgflywheel-Signature"] == f"t={at},v1={expected}"
    assert abs(int(at) - time.time()) < 60
    assert headers["Idempotency-Key"] == str(delivery_id) == json.loads(body)["id"]
    assert value(connection, "select sent_at is not null from flywheel._deliveries")


def test_the_secret_is_in_the_environment_and_without_it_nothing_is_sent(dsn: str, connection: Connection) -> None:
    with receiving() as receiver:
        channel(connection, "team", receiver.url, secret_variable="HOOK_SECRET")
        message(connection, "team")
        deliver(dsn, environ={"OTHER": "x"})
        assert receiver.got == []
        assert "HOOK_SECRET is not set" in problem(connection)
    stored = value(
        connection, "select string_agg(row_to_json(channels)::text, '') from flywheel.alert_channels as channels"
    )
    assert SECRET not in stored


def test_an_address_can_be_a_secret_too(dsn: str, connection: Connection) -> None:
    with receiving() as receiver:
        given = Jsonb({"url_variable": "HOOK_URL", "insecure": True})
        connection.execute("select flywheel.set_alert_channel('team', %s)", [given])
        message(connection, "team")
        deliver(dsn, environ={"HOOK_URL": f"{receiver.url}/T000/secret"})
    assert len(receiver.got) == 1


def test_a_refused_message_is_tried_again_under_the_same_id(dsn: str, connection: Connection) -> None:
    with receiving(500, 404, 200) as receiver:
        channel(connection, "team", receiver.url)
        message(connection, "team")
        for _ in range(3):
            deliver(dsn)
            due_again(connection)
    assert len({headers["Idempotency-Key"] for headers, _ in receiver.got}) == 1
    assert len(receiver.got) == 3
    assert value(connection, "select attempt from flywheel._deliveries where sent_at is not null") == 3


def test_waits_grow_and_end_after_a_day(dsn: str, connection: Connection) -> None:
    wait = "select extract(epoch from run_at - created_at)::float8 from flywheel._deliveries"
    with receiving(*[503] * 3) as receiver:
        channel(connection, "team", receiver.url)
        message(connection, "team")
        deliver(dsn)
        first = value(connection, wait)
        connection.execute("update flywheel._deliveries set attempt = 9, run_at = now()")
        deliver(dsn)
        assert 0 < first < 300 < 600 < value(connection, wait) < 1600
        connection.execute("update flywheel._deliveries set run_at = now(), created_at = now() - interval '25 hours'")
        deliver(dsn)
        due_again(connection)
        deliver(dsn)
    assert len(receiver.got) == 3, "what is dead is left alone"
    assert value(connection, "select dead from flywheel.alert_channel_status") == 1


def test_redirects_are_not_followed(dsn: str, connection: Connection) -> None:
    with receiving(302, 307) as receiver:
        channel(connection, "team", receiver.url)
        message(connection, "team")
        for _ in range(2):
            deliver(dsn)
            due_again(connection)
    assert [headers.get("method") for headers, _ in receiver.got] == [None, None]
    assert "redirects are not followed" in problem(connection)


@pytest.mark.parametrize("drip", [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"x"])
def test_a_channel_that_hangs_keeps_no_other_waiting(dsn: str, connection: Connection, drip: bytes) -> None:
    with hanging(drip) as url, receiving() as receiver:
        channel(connection, "stuck", url)
        channel(connection, "team", receiver.url)
        message(connection, "stuck")
        message(connection, "team")
        deliver(dsn, seconds=2)
    assert len(receiver.got) == 1
    query = "select last_problem from flywheel._deliveries where channel = 'stuck'"
    assert value(connection, query) == "no answer within 2 seconds"


def test_nobody_at_the_address_is_a_problem_like_any_other(dsn: str, connection: Connection) -> None:
    channel(connection, "team", "http://127.0.0.1:9/")
    message(connection, "team")
    deliver(dsn)
    assert "refused" in problem(connection).lower() or "ConnectionRefused" in problem(connection)


def test_two_workers_send_each_message_once(dsn: str, connection: Connection) -> None:
    with receiving() as receiver:
        for number in range(8):
            channel(connection, f"team{number}", receiver.url)
            message(connection, f"team{number}")
        threads = [threading.Thread(target=deliver, args=(dsn, 3)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(receiver.got) == len({headers["Idempotency-Key"] for headers, _ in receiver.got}) == 8


def test_a_worker_killed_between_claim_and_send_is_followed_by_another_with_the_same_id(
    dsn: str, connection: Connection
) -> None:
    with hanging() as url:
        channel(connection, "team", url)
        delivery_id = message(connection, "team")
        with process(dsn, "--lanes", "bulk") as worker:
            until(lambda: value(connection, "select fence is not null from flywheel._deliveries"))
            worker.kill()
            worker.wait()
    with receiving() as receiver:
        channel(connection, "team", receiver.url)
        deliver(dsn)
        assert receiver.got == [], "its lease still holds"
        connection.execute("update flywheel._deliveries set leased_until = now() - interval '1 second'")
        deliver(dsn)
    assert [headers["Idempotency-Key"] for headers, _ in receiver.got] == [str(delivery_id)]


def test_an_answer_after_the_lease_changes_nothing(dsn: str, connection: Connection) -> None:
    channel(connection, "team", "http://127.0.0.1:9/")
    message(connection, "team")
    claim = "select delivery_id, fence from flywheel._claim_deliveries(0)"
    late = connection.execute(claim).fetchone()
    connection.execute(claim)
    assert late is not None
    assert not value(connection, "select flywheel._settle_delivery(%s, %s, null)", *late)
    assert value(connection, "select sent_at is null from flywheel._deliveries")


def test_hostile_text_arrives_as_plain_json(dsn: str, connection: Connection) -> None:
    text = '\u202e\x1b[2J"}\r\nX-Other: 1\r\n\r\n<!channel>'
    with receiving() as receiver:
        channel(connection, "team", receiver.url)
        message(connection, "team", node=text)
        deliver(dsn)
    ((headers, body),) = receiver.got
    assert "X-Other" not in headers
    assert body.isascii()
    assert json.loads(body)["node"] == text
    assert not {"\x1b", "\r", "\n"} & set(body.decode())


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/",
        "http://host/",
        "https://",
        "https://user:word@host/",
        "https://host:port/",
        "https://ho st/",
        "//host",
        "https://host/\r\nX: 1",
    ],
)
def test_addresses_that_may_not_be_called_are_refused_before_the_call(url: str) -> None:
    with pytest.raises(NotSent):
        Address.of(url, insecure=False)


def test_the_host_header_names_the_port_where_it_is_no_usual_one() -> None:
    assert Address.of("https://[::1]:8443/a", False).header == "[::1]:8443"
    assert Address.of("https://bücher.example/ü?ö", False).header == "xn--bcher-kva.example"


def test_a_certificate_nobody_vouches_for_is_no_channel(dsn: str) -> None:
    with receiving() as receiver:
        address = Address.of(receiver.url.replace("http:", "https:"), False)
        with pytest.raises(NotSent):
            asyncio.run(post(address, b"{}", {}, 2))


def test_a_signature_can_be_checked_from_its_description() -> None:
    digest = hmac.new(b"key", b'5.{"a":1}', hashlib.sha256).hexdigest()
    assert signature("key", b'{"a":1}', 5) == f"t=5,v1={digest}"


def test_a_worker_looks_at_rules_and_delivers(dsn: str, connection: Connection) -> None:
    with receiving() as receiver:
        channel(connection, "team", receiver.url)
        connection.execute("select flywheel.set_budget('project', 'shop', 'day', 0)")
        connection.execute("select flywheel.set_alert_rule('budget', '{\"metric\": \"budget_used\"}')")
        with process(dsn, "--lanes", "bulk"):
            until(lambda: receiver.got)
    ((_, body),) = receiver.got
    told = json.loads(body)
    assert (told["kind"], told["state"], told["alert"]["rule"]) == ("alert", "opened", "budget")
