"""Texts nobody expects, from applications and from files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from pgflywheel.checks import catalogue
from tests.conftest import Connection
from tests.faults.books import assert_settled
from tests.faults.conftest import Started, Tell
from tests.faults.scale import scaled
from tests.faults.workers import command
from tests.sql.support import activate, insert, rows, value

TEN_MEGABYTES = 10 * 2**20
LONG = scaled(1, 10) * 2**20
SURROGATES = range(0xD800, 0xE000)
DEPTH = 100_000
GIVEN: dict[str, dict[str, Any]] = {
    "matches_json_schema": {"schema": {"type": "object"}},
    "regex_absent": {"pattern": "(a+)+$"},
    "regex_present": {"pattern": "(a|aa)+!"},
}


def planes() -> Iterator[str]:
    """Every character of Unicode but NUL, plane by plane."""
    for plane in range(17):
        points = range(plane * 0x10000, (plane + 1) * 0x10000)
        yield "".join(chr(point) for point in points if point and point not in SURROGATES)


def hostile_texts() -> dict[str, str]:
    return {
        "ten megabytes": "word " * (TEN_MEGABYTES // 5),
        "megabytes without a break": "a" * LONG,
        "megabytes of four-byte characters": "\U0001f600" * (LONG // 4),
        "megabytes of digits": "4111 1111 1111 1111 " * (LONG // 20),
        "deep JSON": "[" * DEPTH + "]" * DEPTH,
        "deep JSON objects": '{"a":' * DEPTH + "1" + "}" * DEPTH,
        "broken JSON": '{"a": [' * 1000,
        "a huge number": "9" * 100_000,
        "nothing": "",
        "white space": " \t\r\n\u00a0\u2028\ufeff",
        "control characters": "".join(map(chr, range(1, 32))) + "\x7f",
        "both directions": "\u202ereversed\u202c \u2066isolated\u2069",
        "combining marks": "a" + "\u0301" * 10_000,
        "SQL": "'; drop table flywheel.spans; --",
        "format marks": "%s %(x)s {0} $1 :x \\x00 \\u0000",
        **{f"plane {number}": text for number, text in enumerate(planes())},
    }


def activate_the_catalogue(connection: Connection) -> int:
    """Activate every entry of the catalogue; return how many there are."""
    names = list(catalogue.entries())
    for name in names:
        definition = catalogue.definition(name, GIVEN.get(name, {}))
        activate(connection, f"all_{name}", **definition)
    return len(names)


def test_hostile_texts_are_stored_and_judged(connection: Connection, start_worker: Started, tell: Tell) -> None:
    checks = activate_the_catalogue(connection)
    counts = "tests.faults.checks:counts_characters"
    activate(connection, "characters", kind="python", callable=counts, time_limit_ms=60_000)
    connection.execute("update flywheel.settings set value = '1000' where name = 'faults_before_pause'")
    texts = hostile_texts()
    made = {insert(connection, text, input=text): text for text in texts.values()}
    start_worker("--until-idle").finish(280)
    for span_id, text in made.items():
        stored = rows(connection, "select input, output from flywheel.spans where span_id = %s", [span_id])
        assert stored == [(text, text)]
        counted = rows(
            connection,
            "select critique from flywheel.current_scores where span_id = %s and validator = 'characters'",
            [span_id],
        )
        assert counted == [(str(len(text)),)]
    books = assert_settled(connection, list(made))
    reasons = rows(
        connection,
        "select unscored_reason, count(*) from flywheel.scores where passed is null group by 1 order by 1",
    )
    tell(
        f"{len(texts)} hostile texts, {checks} checks of the catalogue: {books.scored} scored, "
        f"unscored {dict(reasons)}, 0 missing"
    )


def test_nulls_everywhere_are_no_verdict_and_no_error(
    connection: Connection, start_worker: Started, tell: Tell
) -> None:
    activate_the_catalogue(connection)
    activate(connection, "whole", kind="python", target="span", callable="tests.faults.checks:says_nothing")
    nullable = [
        name
        for (name,) in rows(
            connection,
            """select attname from pg_attribute where attrelid = 'flywheel.spans'::regclass
                and attnum > 0 and not attnotnull and attgenerated = ''""",
        )
    ]
    made = [insert(connection, **dict.fromkeys(nullable)) for _ in range(10)]
    start_worker("--until-idle").finish()
    assert_settled(connection, made)
    reasons = rows(connection, "select distinct unscored_reason from flywheel.scores where passed is null")
    assert reasons == [("no_verdict",)]
    tell(f"{len(nullable)} columns null at once: no verdict, no error")


def test_a_text_postgres_cannot_store_is_refused_before_anything_is_lost(
    connection: Connection, start_worker: Started, tell: Tell
) -> None:
    activate(connection, "short")
    for text in ("nul \x00", "lone \ud800", "lone \udfff low"):
        with pytest.raises((psycopg.DataError, UnicodeEncodeError)):
            insert(connection, text)
    made = insert(connection, "stored")
    start_worker("--until-idle").finish()
    assert_settled(connection, [made])
    assert value(connection, "select count(*) from flywheel.spans") == 1
    tell("NUL and lone surrogates from Python: refused at once, the connection goes on")


def test_the_importer_rejects_what_cannot_be_stored_with_line_and_reason(
    dsn: str, connection: Connection, start_worker: Started, tmp_path: Path, tell: Tell
) -> None:
    activate(connection, "short")
    lines = [
        '{"input": "q", "output": "fine"}',
        '{"input": "q", "output": "nul \\u0000 inside"}',
        '{"input": "q", "output": "lone \\ud800 surrogate"}',
        '{"input": "q", "output": "pair \\ud83d\\ude00"}',
        "{broken",
        '{"input": ' + "[" * DEPTH + "]" * DEPTH + "}",
        '["no", "object"]',
        "",
        json.dumps({"input": "q", "output": "x" * TEN_MEGABYTES}),
    ]
    file = tmp_path / "hostile.jsonl"
    file.write_bytes("\n".join(lines).encode() + b'\n{"input": "q", "output": "\xff\xfe"}\n')
    rejects = tmp_path / "rejects.jsonl"
    done = command(
        "traces",
        "import",
        str(file),
        "--input",
        "input",
        "--output",
        "output",
        "--dsn",
        dsn,
        "--reject",
        str(rejects),
        "--json",
    )
    assert done.returncode == 0, done.stderr
    rejected = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert all(reject["line"] and reject["reason"] for reject in rejected)
    assert {2, 3, 5, 7} <= {reject["line"] for reject in rejected}
    loaded = [output for (output,) in rows(connection, "select left(output, 10) from flywheel.spans order by 1")]
    assert {"fine", "pair \U0001f600", "xxxxxxxxxx"} <= set(loaded)
    start_worker("--until-idle").finish()
    assert_settled(connection, [])
    tell(f"importer: {len(loaded)} lines loaded, {len(rejected)} rejected with line and reason")


def test_hostile_json_columns_reach_a_python_check(connection: Connection, start_worker: Started, tell: Tell) -> None:
    columns = ["messages", "documents", "attributes"]
    activate(
        connection, "whole", kind="python", target="span", columns=columns, callable="tests.faults.checks:says_nothing"
    )
    depth = 5000  # Postgres takes some thousands, Python's reader fewer
    deep = psycopg.types.json.Jsonb("deep", dumps=lambda _: "[" * depth + "]" * depth)
    odd = Jsonb({"": None, "\U0001f600": [1e308, -0.0, "\u2028"], "big": 10**400}, dumps=json.dumps)
    made = [
        insert(connection, "x", attributes=attributes, documents=deep, messages=odd)
        for attributes in (Jsonb({}), odd, Jsonb({"deep": 1}))
    ]
    start_worker("--until-idle").finish()
    books = assert_settled(connection, made)
    tell(f"JSON {depth} levels deep and numbers of 400 digits: {books.scored + books.unscored} answers, 0 missing")
