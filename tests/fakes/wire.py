"""HTTP/1.1 on an asyncio protocol: requests in, replies out, and every way an answer may arrive badly."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

JSON = "application/json"
UNSEEN = ("reset", "closed", "hang")  # manners in which not even a status is sent
UNENDING_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
    b'{"id":"chatcmpl-0","object":"chat.completion","created":0,"model":"judge",'
    b'"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"'
)
BABBLE = b"and so on " * 6_000
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # linger for no time at all: the kernel sends RST, not FIN


@dataclass
class Request:
    """A request as it came; times are of time.monotonic(), and ended is None while it is in flight."""

    method: str
    target: str
    headers: dict[str, str]
    raw: bytes = field(repr=False)
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    status: int | None = None
    misbehaviour: str | None = None

    @property
    def path(self) -> str:
        """Return the path without its query."""
        return urlsplit(self.target).path

    @cached_property
    def body(self) -> Any:
        """Return the body read as JSON; None when it is empty or no JSON."""
        try:
            return json.loads(self.raw) if self.raw else None
        except ValueError:
            return None

    def as_json(self) -> dict[str, Any]:
        """Return what is told to another process."""
        return {
            "method": self.method,
            "path": self.path,
            "headers": self.headers,
            "body": self.body,
            "began": self.began,
            "ended": self.ended,
            "status": self.status,
            "misbehaviour": self.misbehaviour,
        }


@dataclass
class Reply:
    """What is sent back: after wait seconds, in a manner (see Connection.send)."""

    status: int = 200
    body: bytes = b""
    kind: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    manner: str = "whole"
    wait: float = 0.0
    drip_seconds: float = 0.0

    def head(self, keep: bool) -> bytes:
        """Return the status line and headers; the length told is that of the whole body."""
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            f"content-type: {self.kind}",
            f"content-length: {len(self.body)}",
            f"connection: {'keep-alive' if keep else 'close'}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def as_json(value: Any, status: int = 200, **headers: str) -> Reply:
    """Return a reply of JSON."""
    return Reply(status, json.dumps(value).encode(), headers=headers)


class Connection(asyncio.Protocol):
    """One kept-alive connection: one request at a time, in the order they came."""

    transport: asyncio.Transport

    def __init__(
        self,
        answer: Callable[[Request], Reply],
        ended: Callable[[Request], None],
        connections: set[Connection],
    ) -> None:
        self.answer, self.told, self.connections = answer, ended, connections
        self.received = bytearray()
        self.needed = 0  # bytes of head and body, once the head is read
        self.request: Request | None = None
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the request in hand: its client is gone."""
        self.connections.discard(self)
        if self.timer:
            self.timer.cancel()
        self.end()

    def data_received(self, data: bytes) -> None:
        """Take bytes, and answer when they make a request."""
        self.received += data
        self.next()

    def next(self) -> None:
        """Answer the next request, if it is all there and none is in hand."""
        if self.request is not None or len(self.received) < self.needed:
            return
        split = self.received.find(b"\r\n\r\n")
        if split < 0:
            return
        method, target, headers = read_head(bytes(self.received[:split]))
        length = int(headers.get("content-length", 0))
        if "transfer-encoding" in headers:
            self.transport.write(Reply(411).head(keep=False))
            self.transport.close()
            return
        self.needed = split + 4 + length
        if len(self.received) < self.needed:
            return
        self.request = Request(method, target, headers, bytes(self.received[split + 4 : self.needed]))
        del self.received[: self.needed]
        self.needed = 0
        self.start(self.request)

    def start(self, request: Request) -> None:
        """Answer a request, now or after the reply's wait."""
        reply = self.answer(request)
        request.status = None if reply.manner in UNSEEN else reply.status
        if reply.manner == "hang":
            return
        if reply.wait > 0:
            self.timer = asyncio.get_running_loop().call_later(reply.wait, self.send, request, reply)
        else:
            self.send(request, reply)

    def send(self, request: Request, reply: Reply) -> None:
        """Send a reply in its manner."""
        if self.transport.is_closing():
            return
        keep = request.headers.get("connection", "").lower() != "close"
        if reply.manner == "reset":
            self.reset()
        elif reply.manner == "closed":
            self.close()
        elif reply.manner == "closed_midway":
            self.transport.write(reply.head(keep) + reply.body[: len(reply.body) // 2])
            self.close()
        elif reply.manner == "unending":
            self.transport.write(UNENDING_HEAD)
            self.babble()
        elif reply.manner == "reset_midway":
            self.transport.write(reply.head(keep) + reply.body[: len(reply.body) // 2])
            self.later(0.02, self.reset)  # the half is read before the reset discards it
        elif reply.manner == "drip":
            self.transport.write(reply.head(keep))
            self.drip(reply, 0, keep)
        else:
            self.end()  # before the client can know, so that its next request is not counted beside this one
            self.transport.write(reply.head(keep) + reply.body)
            self.done(keep)

    def later(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        """Do something after a time, unless the connection is lost before."""
        self.timer = asyncio.get_running_loop().call_later(seconds, call, *args)

    def drip(self, reply: Reply, sent: int, keep: bool) -> None:
        """Send one byte, and the rest after a pause."""
        if sent == len(reply.body) - 1:
            self.end()
        self.transport.write(reply.body[sent : sent + 1])
        if sent + 1 < len(reply.body):
            self.later(reply.drip_seconds / len(reply.body), self.drip, reply, sent + 1, keep)
        else:
            self.done(keep)

    def done(self, keep: bool) -> None:
        """Go on with the next request of the connection, or close it."""
        self.timer = None
        if keep:
            self.next()
        else:
            self.transport.close()

    def babble(self) -> None:
        """Send text, and more as soon as it is read, until the client leaves."""
        if self.transport.get_write_buffer_size() < len(BABBLE):
            self.transport.write(BABBLE)
        self.later(0.001, self.babble)

    def close(self) -> None:
        """Close the connection as if all had been said."""
        self.end()
        self.transport.close()

    def reset(self) -> None:
        """Break the connection off with a TCP reset."""
        self.end()
        sock: socket.socket | None = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.transport.abort()

    def end(self) -> None:
        """Note that the request in hand is over."""
        if self.request is not None:
            self.request.ended = time.monotonic()
            self.told(self.request)
            self.request = None


def read_head(head: bytes) -> tuple[str, str, dict[str, str]]:
    """Return method, target and headers (names in lower case)."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    pairs = (line.partition(":") for line in lines)
    return method, target, {name.strip().lower(): value.strip() for name, _, value in pairs}
