"""The generated pages are those the code would generate now."""

from __future__ import annotations

import psycopg

from tests.docs.reference import FOLDER, generated

BY_HAND = {"validators.md"}


def test_reference_pages_are_fresh(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:  # which tests have more patience than an install
        connection.execute("update flywheel.settings set value = '50' where name = 'inline_limit_ms'")
    stale = [path.name for path, text in generated(dsn).items() if not path.exists() or path.read_text("utf-8") != text]
    assert stale == [], "write them: python -m tests.docs.reference"


def test_every_reference_page_is_generated_or_known_to_be_written_by_hand(dsn: str) -> None:
    assert {path.name for path in FOLDER.glob("*.md")} == {path.name for path in generated(dsn)} | BY_HAND


def test_every_relation_column_and_function_says_what_it_is(dsn: str) -> None:
    pages = "".join(generated(dsn).values())
    assert "|  |\n" not in pages.replace("| yes |", "").replace("|  |  |", "| |")
    assert "None" not in pages
