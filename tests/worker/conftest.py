"""A fake endpoint for each test that asks for one, and the worker's whole log beside a test that failed."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from pgflywheel.worker.logs import KeyValue
from tests.worker.judging import fake

__all__ = ["fake", "worker_log"]


@pytest.fixture(autouse=True)
def worker_log() -> Iterator[None]:
    """Write what the worker logs to stderr, which pytest keeps for tests that fail."""
    handler = logging.StreamHandler()
    handler.setFormatter(KeyValue())
    logger = logging.getLogger("pgflywheel")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield
    logger.removeHandler(handler)
