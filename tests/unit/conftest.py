"""A fake endpoint for the tests of a file that ask for one, as if new for each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.openai import Fake, serving


@pytest.fixture(scope="module")
def served() -> Iterator[Fake]:
    with serving() as fake:
        yield fake


@pytest.fixture
def fake(served: Fake) -> Fake:
    served.reset()
    return served
