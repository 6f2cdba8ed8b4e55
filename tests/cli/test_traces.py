"""pgflywheel traces: a file goes in once, whatever is in it; spans are shown, and days dropped."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import psycopg
import pytest

from pgflywheel.cli.traces import _depths

from .conftest import CommandLine, Connection

BAD_LINES = ['{"q": "a', "[1]", '{"q": "a\\u0000b"}', '{"q": "a\\ud800"}', '{"q": "x", "ts": "never"}', '{"o": 1}']


def write(path: Path, *lines: object) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    content = ("\n".join(texts) + "\n").encode("utf-8", "surrogatepass")
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def count(connection: Connection, where: str = "true") -> int:
    row = connection.execute(f"select count(*) from flywheel.spans where {where}".encode()).fetchone()
    assert row is not None
    return int(row[0])


def test_a_mapped_file_is_loaded_and_a_second_import_changes_nothing(
    pgflywheel: CommandLine, connection: Connection, tmp_path: Path
) -> None:
    lines = [{"in": {"q": f"question {n}"}, "out": "answer", "at": 1715778000 + n * 86400} for n in range(20)]
    file = write(tmp_path / "log.jsonl.gz", *lines)
    mapping = (
        "--input",
        "in.q",
        "--output",
        "out",
        "--started-at",
        "at",
        "--set",
        "project=shop",
        "--set",
        "node=answer",
    )
    first = pgflywheel.json("traces", "import", file, *mapping)
    second = pgflywheel.json("traces", "import", file, *mapping)
    assert first == {"lines": 20, "loaded": 20, "already_there": 0, "rejected": 0}
    assert second == {"lines": 20, "loaded": 0, "already_there": 20, "rejected": 0}
    assert count(connection, "project = 'shop' and node = 'answer' and input like 'question %'") == 20


def test_old_days_get_partitions_of_their_own(pgflywheel: CommandLine, connection: Connection, tmp_path: Path) -> None:
    file = write(tmp_path / "old.jsonl", {"q": "a", "at": "2019-01-31"}, {"q": "b", "at": "2024-02-29T23:59:59Z"})
    pgflywheel("traces", "import", file, "--input", "q", "--started-at", "at")
    assert connection.execute("select count(*) from flywheel.spans_default").fetchone() == (0,)
    assert connection.execute("select count(*) from flywheel.spans_20190131").fetchone() == (1,)
    assert connection.execute("select count(*) from flywheel.spans_20240229").fetchone() == (1,)
    assert connection.execute("select to_regclass('flywheel.spans_20190201')").fetchone() == (None,)


def test_lines_without_id_and_time_are_not_loaded_twice(
    pgflywheel: CommandLine, connection: Connection, tmp_path: Path
) -> None:
    file = write(tmp_path / "log.jsonl", {"q": "same"}, {"q": "same"}, {"q": "other"})
    for expected in ((3, 0), (0, 3)):
        done = pgflywheel.json("traces", "import", file, "--input", "q")
        assert (done["loaded"], done["already_there"]) == expected
    assert count(connection) == 3


def test_bad_lines_go_to_the_reject_file_and_the_rest_is_loaded(
    pgflywheel: CommandLine, connection: Connection, tmp_path: Path
) -> None:
    good = {"q": "good", "ts": "2024-05-15"}
    file = write(tmp_path / "log.jsonl", good, *BAD_LINES, {**good, "q": "also good"})
    result = pgflywheel("traces", "import", file, "--input", "q", "--started-at", "ts", "--reject", "bad.jsonl")
    rejected = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [(each["line"], each["content"]) for each in rejected] == list(enumerate(BAD_LINES, start=2))
    assert "U+0000" in rejected[2]["reason"]
    assert "lone surrogate" in rejected[3]["reason"]
    assert count(connection) == 2
    assert "6 lines were rejected" in result.stdout
    assert "bad.jsonl" in result.stderr


def test_strict_makes_a_rejected_line_exit_code_1(pgflywheel: CommandLine, tmp_path: Path) -> None:
    file = write(tmp_path / "log.jsonl", {"q": "good"}, "nonsense")
    pgflywheel("traces", "import", file, "--input", "q", "--strict", exit_code=1)
    assert (tmp_path / "log.rejected.jsonl").exists()


def test_an_import_of_which_nothing_can_be_loaded_fails(pgflywheel: CommandLine, tmp_path: Path) -> None:
    file = write(tmp_path / "log.json", "[", '{"q": "a"}', "]")
    pgflywheel("traces", "import", file, "--input", "q")
    said = pgflywheel("traces", "import", file, "--input", "wrong", exit_code=1)
    assert "0 spans from 3 lines" in said.stdout
    assert "no line of" in said.stderr
    assert "jq -c" in said.stderr


def test_the_file_that_is_read_is_not_written_over(pgflywheel: CommandLine, tmp_path: Path) -> None:
    file = write(tmp_path / "log.jsonl", "nonsense")
    said = pgflywheel("traces", "import", file, "--input", "q", "--reject", "./log.jsonl", exit_code=2).stderr
    assert "is the file that is read" in said
    assert file.read_text() == "nonsense\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--tool", "search"], "--tool is of --format steps"), (["--output", ""], 'path "" cannot be read')],
)
def test_an_option_that_would_do_nothing_is_refused(
    pgflywheel: CommandLine, tmp_path: Path, options: list[str], said: str
) -> None:
    file = write(tmp_path / "log.jsonl", {"q": "a"})
    assert said in pgflywheel("traces", "import", file, "--input", "q", *options, exit_code=2).stderr


def test_an_import_that_ends_early_says_what_is_loaded_and_the_next_one_loads_the_rest(
    pgflywheel: CommandLine, connection: Connection, tmp_path: Path
) -> None:
    file = tmp_path / "log.jsonl.gz"
    whole = gzip.compress(b"".join(b'{"q": %d}\n' % n for n in range(20_000)), 0)
    file.write_bytes(whole[:-5000])
    said = pgflywheel("traces", "import", file, "--input", "q", exit_code=2).stderr
    loaded = count(connection)
    assert 5_000 <= loaded < 20_000
    assert f"Loaded {loaded:,} spans" in said
    assert "what is loaded stays as it is" in said
    file.write_bytes(whole)
    assert pgflywheel.json("traces", "import", file, "--input", "q")["already_there"] == loaded
    assert count(connection) == 20_000


def test_a_row_only_the_database_refuses_is_rejected_alone(
    pgflywheel: CommandLine, connection: Connection, tmp_path: Path
) -> None:
    random = "".join(chr(0x4E00 + (n * 7919) % 20000) for n in range(8000))  # too large for the index on sessions
    lines: list[dict[str, Any]] = [{"q": f"q {n}", "s": "short"} for n in range(50)]
    lines[17]["s"] = random
    file = write(tmp_path / "log.jsonl", *lines)
    pgflywheel("traces", "import", file, "--input", "q", "--session", "s")
    (rejected,) = (json.loads(line) for line in (tmp_path / "log.rejected.jsonl").read_text().splitlines())
    assert rejected["line"] == 18
    assert "index row" in rejected["reason"]
    assert count(connection) == 49


def test_a_line_a_guardrail_blocks_is_rejected_with_the_validator(
    pgflywheel: CommandLine, connection: Connection, tmp_path: Path
) -> None:
    connection.execute("""
        select flywheel.define_validator('no_secret', '{"kind": "sql", "lane": "inline", "action": "block",
          "target": "input", "expression": "span.input not like ''%secret%''"}')""")
    connection.execute("select flywheel.activate_validator('no_secret')")
    file = write(tmp_path / "log.jsonl", {"q": "fine"}, {"q": "a secret"}, {"q": "fine too"})
    pgflywheel("traces", "import", file, "--input", "q")
    (rejected,) = (json.loads(line) for line in (tmp_path / "log.rejected.jsonl").read_text().splitlines())
    assert (rejected["line"], "validator no_secret" in rejected["reason"]) == (2, True)
    assert count(connection) == 2


def test_a_file_comes_through_standard_input(pgflywheel: CommandLine, dsn: str, connection: Connection) -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "pgflywheel", "traces", "import", "-", "--input", "q", "--dsn", dsn, "--json"]
    done = subprocess.run(command, input=b'{"q": "a"}\n{"q": "b"}\n', capture_output=True, check=True)
    assert json.loads(done.stdout)["loaded"] == 2
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no path is given"),
        (("--input", "a..b"), "cannot be read"),
        (("--input", "q", "--set", "node"), 'has no "="'),
        (("--input", "q", "--set", "colour=red"), 'no column "colour"'),
        (("--input", "q", "--parent", "p"), "--trace-id is not"),
    ],
)
def test_a_wrong_mapping_is_wrong_use(
    pgflywheel: CommandLine, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    file = write(tmp_path / "log.jsonl", {"q": "a"})
    assert said in pgflywheel("traces", "import", file, *arguments, exit_code=2).stderr


def test_a_run_of_messages_is_shown_as_a_tree(pgflywheel: CommandLine, tmp_path: Path) -> None:
    call = {"id": "1", "function": {"name": "find_order", "arguments": '{"id": 7}'}}
    chat = [
        {"role": "user", "content": "Where is order 7?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "in transit\x1b[31m"},
        {"role": "assistant", "content": "On its way."},
    ]
    file = write(tmp_path / "runs.jsonl", {"id": "run 1", "messages": chat})
    pgflywheel("traces", "import", file, "--format", "openai-messages", "--trace-id", "id")
    (trace,) = pgflywheel.json("traces", "list")
    assert (trace["input"], trace["output"], trace["spans"]) == ("Where is order 7?", "On its way.", 4)
    spans = pgflywheel.json("traces", "show", trace["trace_id"])
    assert [span["node"] for span in spans] == ["app", "assistant", "find_order", "assistant"]
    shown = pgflywheel("traces", "show", spans[2]["span_id"]).stdout
    assert "\x1b" not in shown
    assert "  find_order (tool)" in shown
    assert "in transit\\x1b[31m" in shown


def test_an_unknown_trace_is_an_error_with_a_hint(pgflywheel: CommandLine) -> None:
    result = pgflywheel("traces", "show", "0198f2c4-8a00-7000-8000-000000000001", exit_code=1)
    assert "hint: List traces" in result.stderr


def test_purge_asks_and_drops_whole_days(pgflywheel: CommandLine, connection: Connection, tmp_path: Path) -> None:
    days = [datetime.now(UTC) - timedelta(days=age) for age in (100, 95, 3)]
    file = write(tmp_path / "log.jsonl", *({"q": "a", "at": day.isoformat()} for day in days))
    pgflywheel("traces", "import", file, "--input", "q", "--started-at", "at")
    asked = pgflywheel("traces", "purge", "--before", "90d", input="n\n", exit_code=1)
    assert "2 days before" in asked.stderr
    assert count(connection) == 3
    dropped = pgflywheel.json("traces", "purge", "--before", "90d", "--yes")
    assert {row["day"] for row in dropped} == {day.date().isoformat() for day in days[:2]}
    assert count(connection) == 1


def test_a_missing_schema_is_exit_code_4_before_anything_is_read(empty_dsn: str, tmp_path: Path) -> None:
    file = write(tmp_path / "log.jsonl", {"q": "a"})
    result = CommandLine(empty_dsn)("traces", "import", file, "--input", "q", exit_code=4)
    assert "db upgrade" in result.stderr


def test_large_texts_and_every_plane_of_unicode_come_out_as_they_went_in(
    pgflywheel: CommandLine, connection: Connection, tmp_path: Path
) -> None:
    planes = "".join(chr(plane * 0x10000 + offset) for plane in range(17) for offset in (0x20, 0xA9, 0xFFFD))
    texts = [planes, "x" * 10_000_000, "\u202e\u0000".replace("\0", "\x01"), ""]
    file = write(tmp_path / "log.jsonl.gz", *({"q": text, "id": place} for place, text in enumerate(texts)))
    assert pgflywheel.json("traces", "import", file, "--input", "q", "--span-id", "id")["loaded"] == 4
    stored = connection.execute("select input from flywheel.spans order by (attributes ->> 'id')::integer").fetchall()
    assert [row[0] for row in stored] == texts


def test_an_import_goes_into_the_schema_it_is_told(empty_dsn: str, tmp_path: Path) -> None:
    command = CommandLine(empty_dsn)
    command("db", "upgrade", "--schema", "acme")
    file = write(tmp_path / "log.jsonl", {"q": "a", "at": "2024-05-15"})
    command("traces", "import", file, "--input", "q", "--started-at", "at", "--schema", "acme")
    assert command.json("traces", "list", "--schema", "acme")[0]["input"] == "a"
    assert command("traces", "purge", "--before", "2024-06-01", "--schema", "acme", input="y\n").exit_code == 0
    assert command.json("traces", "list", "--schema", "acme") == []


def test_purge_gives_up_rather_than_keep_applications_waiting(
    pgflywheel: CommandLine, connection: Connection, dsn: str
) -> None:
    connection.execute("select flywheel.ensure_partitions('2024-05-06', '2024-05-06')")
    connection.execute("update flywheel.settings set value = '1' where name = 'purge_wait_seconds'")
    with psycopg.connect(dsn) as reader:
        reader.execute("select count(*) from flywheel.scores")  # and goes on reading
        said = pgflywheel("traces", "purge", "--before", "2024-06-01", "--yes", exit_code=1).stderr
        assert "error: the days cannot be dropped while spans or scores are in use" in said
    assert len(pgflywheel.json("traces", "purge", "--before", "2024-06-01", "--yes")) == 5


def test_a_trace_is_indented_by_its_parents_however_deep_and_odd_they_are() -> None:
    ids = [UUID(int=number) for number in range(20_000)]
    chain = dict(zip(ids, [UUID(int=99_999), *ids], strict=False))
    assert depths(chain) == {span_id: number for number, span_id in enumerate(ids)}
    assert depths({ids[0]: ids[1], ids[1]: ids[0], ids[2]: ids[2], ids[3]: None}) == dict.fromkeys(ids[:4], 0)


def depths(parents: dict[UUID, Any]) -> dict[UUID, int]:
    spans: list[Any] = [SimpleNamespace(span_id=each, parent_span_id=above) for each, above in parents.items()]
    return _depths(spans)
