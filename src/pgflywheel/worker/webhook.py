"""One signed POST: no redirects, nothing read but the status, and over when its time is over.

By hand on asyncio's streams, since a time limit must hold for all of it: name, connection, handshake, and an answer
that comes byte by byte.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

SIGNATURE = "X-Pgflywheel-Signature"
LINE_BYTES = 65536
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: |\r?\n|$)")
_UNFIT = re.compile(r"[\x00-\x20\x7f]")


class NotSent(Exception):
    """Say why a message was not taken."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a request goes."""

    secure: bool
    host: str
    port: int
    target: str

    @classmethod
    def of(cls, url: str, insecure: bool) -> Address:
        """Read an address; raises NotSent for one that may not be called."""
        try:
            parts = urlsplit(url)
            port = parts.port
            host = (parts.hostname or "").encode("idna").decode()
        except ValueError as error:  # UnicodeError too
            raise NotSent("the address cannot be read") from error
        if parts.scheme not in ("http", "https") or not host or _UNFIT.search(url):
            raise NotSent("the address is no http address")
        if parts.username is not None or parts.password is not None:
            raise NotSent("the address holds a user or a password")
        if parts.scheme == "http" and not insecure:
            raise NotSent("the address is not https, and the channel does not say insecure")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        secure = parts.scheme == "https"
        return cls(secure, host, port or (443 if secure else 80), target)

    @property
    def header(self) -> str:
        """Return what the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def signature(secret: str, body: bytes, at: int) -> str:
    """Return t=<unix>,v1=<HMAC-SHA-256 of "t.body">; a receiver checks both, and that t is not old."""
    signed = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256)
    return f"t={at},v1={signed.hexdigest()}"


async def post(address: Address, body: bytes, headers: Mapping[str, str], seconds: float) -> int:
    """Return the status of the answer; raises NotSent when none came in time."""
    try:
        async with asyncio.timeout(seconds):
            return await _exchange(address, _request(address, body, headers))
    except TimeoutError as error:
        raise NotSent(f"no answer within {seconds:g} seconds") from error
    except (OSError, EOFError, ValueError) as error:  # ssl's errors are OSErrors; a line without end is a ValueError
        raise NotSent(f"{type(error).__name__}: {error}"[:300]) from error


def _request(address: Address, body: bytes, headers: Mapping[str, str]) -> bytes:
    all_headers = {
        "Host": address.header,
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        "User-Agent": "pgflywheel",
        **headers,
    }
    if any(_UNFIT.sub("", value.replace(" ", "")) != value.replace(" ", "") for value in all_headers.values()):
        raise NotSent("a header holds a control character")
    lines = [f"POST {_ascii(address.target)} HTTP/1.1", *(f"{name}: {value}" for name, value in all_headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body


def _ascii(target: str) -> str:
    """Return a target with what is not ASCII percent-encoded."""
    return "".join(
        character if character.isascii() else "".join(f"%{byte:02X}" for byte in character.encode())
        for character in target
    )


async def _exchange(address: Address, request: bytes) -> int:
    context = ssl.create_default_context() if address.secure else None
    reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context, limit=LINE_BYTES)
    try:
        writer.write(request)
        with suppress(ConnectionError):  # it may have answered before it had read everything
            await writer.drain()
        return await _status(reader)
    finally:
        writer.transport.abort()


async def _status(reader: asyncio.StreamReader) -> int:
    """Return the final status; what is informational is passed over."""
    while True:
        found = _STATUS.match(await reader.readline())
        if not found:
            raise NotSent("the answer is not HTTP")
        if (status := int(found[1])) >= 200:
            return status
        while (await reader.readline()).strip():
            pass
