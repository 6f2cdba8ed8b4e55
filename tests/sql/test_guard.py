"""guard(): the inline checks of a project and node, asked about a text before it is stored."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from tests.sql.support import Connection, activate, define, inline, insert, refused, rows, scores, value

GUARD = """select validator, version, action, severity, passed, value, critique, unscored_reason, detail
             from flywheel.guard(%s, %s, %s, %s)"""


def guard(connection: Connection, text: str | None, target: str = "output", **where: str) -> list[tuple[Any, ...]]:
    return rows(connection, GUARD, [where.get("project", "default"), where.get("node", "app"), target, text])


def test_one_row_for_each_inline_validator(connection: Connection) -> None:
    inline(connection, "short", action="block", severity="high")
    inline(connection, "graded", expression="row(span.output = 'x', 0.5, 'why')::flywheel.verdict")
    inline(connection, "raising", expression="1 / (length(span.output) - 4) > 0")
    inline(connection, "silent", expression="span.output = span.user_id")
    inline(connection, "misused", expression="row(true, 3, 'x')::flywheel.verdict")
    inline(connection, "about_input", target="input", expression="true")
    activate(connection, "queued")
    assert guard(connection, "fine") == [
        ("graded", 1, "flag", "medium", False, 0.5, "why", None, None),
        ("misused", 1, "flag", "medium", None, None, "x", "wrong_type", None),
        ("raising", 1, "flag", "medium", None, None, None, "raised", "division by zero"),
        ("short", 1, "block", "high", True, None, None, None, None),
        ("silent", 1, "flag", "medium", None, None, None, "no_verdict", None),
    ]
    assert [row[0] for row in guard(connection, "fine", "input")] == ["about_input"]


def test_a_check_that_raises_hides_no_row_of_another(connection: Connection) -> None:
    inline(connection, "a_raises", expression="1 / (length(span.output) - 3) > 0")
    inline(connection, "b_blocks", action="block", expression="span.output <> 'bad'")
    inline(connection, "c_raises", expression="1 / (length(span.output) - 3) > 0")
    assert [(row[0], row[4], row[7]) for row in guard(connection, "bad")] == [
        ("a_raises", None, "raised"),
        ("b_blocks", False, None),
        ("c_raises", None, "raised"),
    ]


def test_project_node_and_environment_choose_the_validators(connection: Connection) -> None:
    inline(connection, "everywhere", expression="true")
    inline(connection, "shop_writer", expression="true", filter={"project": "shop", "node": ["writer"]})
    inline(connection, "staging", expression="true", filter={"environment": "staging"})
    inline(connection, "tools", expression="true", filter={"node_kind": "tool", "release": "7"})
    assert [row[0] for row in guard(connection, "x")] == ["everywhere", "tools"]
    assert [row[0] for row in guard(connection, "x", project="shop", node="writer")] == [
        "everywhere",
        "shop_writer",
        "tools",
    ]
    staging = rows(connection, "select validator from flywheel.guard('p', 'n', 'output', 'x', 'staging')")
    assert staging == [("everywhere",), ("staging",), ("tools",)]


def test_a_guard_does_not_sample(connection: Connection) -> None:
    inline(connection, "rarely", sample=0.0001)
    assert [row[0] for row in guard(connection, "x")] == ["rarely"]


def test_paused_shadow_and_span_checks_do_not_answer(connection: Connection) -> None:
    inline(connection, "paused")
    connection.execute("select flywheel.pause_validator('paused', 'x')")
    define(connection, "shadow", lane="inline")
    connection.execute("select flywheel.shadow_validator('shadow')")
    inline(connection, "whole_span", target="span", expression="true")
    assert guard(connection, "x") == []


def test_no_text_means_no_rows(connection: Connection) -> None:
    inline(connection, "short")
    assert guard(connection, None) == []
    assert [row[0] for row in guard(connection, "")] == ["short"]


@pytest.mark.parametrize("target", ["span", "trace", "", None])
def test_another_target_is_refused(connection: Connection, target: str | None) -> None:
    said = refused(connection, GUARD, ["p", "n", target, "x"])
    assert said.sqlstate == "WF009"
    assert (said.message_primary or "").startswith(f"target is {'null' if target is None else target}, neither")


def test_a_guard_writes_nothing(connection: Connection) -> None:
    inline(connection, "raising", expression="1 / (length(span.output) - 1) > 0")
    for _ in range(5):
        assert guard(connection, "x")[0][7] == "raised"
    counts = "select (select count(*) from flywheel._faults), (select count(*) from flywheel.scores)"
    assert rows(connection, counts) == [(0, 0)]


def test_a_guard_and_an_insert_agree(connection: Connection) -> None:
    inline(connection, "a", expression="span.output !~ 'bad'")
    inline(
        connection, "b", expression="row(length(span.output) > 3, length(span.output) / 10.0, null)::flywheel.verdict"
    )
    inline(connection, "c", expression="10 / (length(span.output) - 3) > 1", where="span.output <> 'left out'")
    for text in ("bad", "fine", "left out", "", "much longer than the others"):
        connection.execute("delete from flywheel.spans")
        connection.execute("delete from flywheel.scores")
        insert(connection, text)
        asked = [(row[0], row[4], row[7]) for row in guard(connection, text)]
        assert asked == scores(connection), text


def every_plane() -> str:
    """Two characters of each of the 17 planes of Unicode that Postgres can store, and the odd ones of the first."""
    planes = "".join(chr(plane * 0x10000 + offset) for plane in range(17) for offset in (0x41, 0xFFFD))
    return planes + "".join(map(chr, (1, 0x7F, 0x85, 0xA0, 0x200B, 0x202E, 0x2028, 0xFEFF, 0xFFFE, 0xFFFF)))


@pytest.mark.parametrize(
    "text",
    [
        every_plane(),
        unicodedata.normalize("NFD", "é" * 1000),
        "'; drop table flywheel.spans; --",
        "\\u0000 \\x00 %s %1$s $1",
        '{"a": [' * 5000,
        "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
        "x" * 10_000_000,
    ],
    ids=["planes", "combining", "injection", "escapes", "deep json", "emoji", "10 MB"],
)
def test_hostile_texts_arrive_unchanged(connection: Connection, text: str) -> None:
    """The check compares with the stored copy, so a single changed character would be seen."""
    connection.execute("create table public.copy as select %s::text as body", [text])
    expression = "span.output = (select copy.body from public.copy) and octet_length(span.output) > 0"
    inline(connection, "same", expression=expression)
    inline(connection, "same_json", expression="to_jsonb(span.output) #>> '{}' = span.output")
    assert [(row[0], row[4], row[8]) for row in guard(connection, text)] == [
        ("same", True, None),
        ("same_json", True, None),
    ]
    insert(connection, text)
    assert scores(connection) == [("same", True, None), ("same_json", True, None)]
    assert value(connection, "select output from flywheel.spans") == text
