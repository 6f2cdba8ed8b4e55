"""Ports for servers that tests start by number."""

from __future__ import annotations

import random
import socket

BELOW_OUTGOING = range(20_000, 32_000)  # Linux gives outgoing connections those from 32768


def free_port() -> int:
    """Return a port nobody listens on now, and that no outgoing connection takes before it is used."""
    for port in random.sample(BELOW_OUTGOING, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free")
