"""A name that is mistyped is said to be none, wherever a list would only be empty."""

from __future__ import annotations

import pytest

from tests.sql.support import Connection, activate

from .conftest import CommandLine

LISTS = [
    ("metrics", "show", "polte"),
    ("metrics", "top-failures", "polte"),
    ("metrics", "compare", "polte", "v1", "v2"),
    ("scores", "show", "--validator", "polte"),
    ("scores", "rates", "--validator", "polte"),
    ("labels", "list", "polte"),
    ("labels", "export", "-", "--validator", "polte"),
    ("examples", "list", "--validator", "polte"),
    ("examples", "retrieve", "shop", "answer", "hello", "--validator", "polte"),
    ("sentinels", "list", "--validator", "polte"),
    ("sentinels", "runs", "--validator", "polte"),
]


@pytest.mark.parametrize("words", LISTS, ids=lambda words: " ".join(words[:2]))
def test_nothing_of_a_validator_that_is_not_there_is_an_error(
    pgflywheel: CommandLine, connection: Connection, words: tuple[str, ...]
) -> None:
    said = pgflywheel(*words, exit_code=1)
    assert "there is no validator polte" in said.stderr
    assert said.stdout == ""
    activate(connection, "polte", kind="sql", expression="true")
    pgflywheel(*words)
