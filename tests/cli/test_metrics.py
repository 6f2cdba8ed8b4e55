"""pgflywheel metrics: rates as they are, no data where there is none, and nothing a terminal or a sheet would obey."""

from __future__ import annotations

import csv
import io
import os
import pty
import select
import signal
import subprocess
import sys
import time
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from psycopg.conninfo import make_conninfo

from pgflywheel.cli.csv_text import to_csv
from pgflywheel.cli.figures import percent, rate, rate_plot
from pgflywheel.cli.main import cli
from tests.sql.measured import NOW, YESTERDAY, Spot, judge
from tests.sql.support import Connection

from .conftest import CommandLine

EARLIER = NOW - timedelta(days=3)
HOSTILE = '=1+1\x1b[2J\u202e,"x"\n<b>'


@pytest.fixture
def judged(connection: Connection) -> Connection:
    """A judge with labels on two releases, and one that never gave a verdict."""
    version = judge(connection)
    for release, failed, at in (("r1", 5, EARLIER), ("r2", 40, NOW - timedelta(hours=2))):
        spot = Spot(at, project="shop", release=release)
        spot.score(connection, version, 60, True, 0.9)
        spot.score(connection, version, failed, False, 0.1)
        spot.label(connection, version, 20, 1, 0, 4)
    Spot(EARLIER, project="shop", release="r2").score(connection, version, 5, None)
    Spot(project="bank").score(connection, judge(connection, "mute"), 3, None)
    return connection


def sheet(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_rates_have_intervals_and_what_labels_make_of_them(pgflywheel: CommandLine, judged: Connection) -> None:
    (line,) = [line for line in pgflywheel.json("metrics", "show") if line["validator"] == "polite"]
    assert (line["n"], line["judged"], line["passed"], line["unscored"]) == (170, 165, 120, 5)
    assert line["pass_rate"] == pytest.approx(120 / 165)
    assert line["pass_low"] < line["pass_rate"] < line["pass_high"]
    assert (line["labels"], line["method"], line["provisional"]) == (50, "post_stratified", True)
    assert line["corrected_low"] < line["corrected_rate"] < line["corrected_high"]
    shown = pgflywheel("metrics", "show", "polite").stdout
    assert "72.7 % [" in shown
    assert "provisional" in shown
    assert "97.1 %" in shown  # judged of n: what is unscored is seen
    assert shown.count("●") == 2  # two days


def test_nothing_judged_is_no_data_and_never_zero(pgflywheel: CommandLine, judged: Connection) -> None:
    shown = pgflywheel("metrics", "show", "mute").stdout
    assert "no data" in shown
    assert " 0.0 % [" not in shown
    (line,) = sheet(pgflywheel("metrics", "show", "mute", "--csv").stdout)
    assert (line["n"], line["judged"], line["pass_rate"], line["unscored"]) == ("3", "0", "", "3")
    assert pgflywheel("metrics", "show", "mute", "--project", "none").stdout == "no data\n"
    assert pgflywheel.json("metrics", "show", "mute", "--project", "none") == []


@pytest.mark.parametrize("by", ["node", "release", "environment", "project"])
def test_slices_add_up(pgflywheel: CommandLine, judged: Connection, by: str) -> None:
    lines = pgflywheel.json("metrics", "show", "polite", "--by", by)
    assert sum(line["n"] for line in lines) == 170
    assert (lines[0]["labels"] is None) == (by == "node")
    assert lines[0]["slice"] in pgflywheel("metrics", "show", "polite", "--by", by).stdout


def test_a_project_and_a_time_narrow_what_is_shown(pgflywheel: CommandLine, judged: Connection) -> None:
    assert {line["validator"] for line in pgflywheel.json("metrics", "show", "--project", "bank")} == {"mute"}
    (line,) = pgflywheel.json("metrics", "show", "polite", "--since", "6h")
    assert line["n"] == 100
    assert len(pgflywheel.json("metrics", "show", "polite", "--grain", "hour")) == 2
    assert "time (UTC)" in pgflywheel("metrics", "show", "polite", "--grain", "day").stdout


def test_of_many_slices_the_largest_are_corrected_and_that_is_said(
    pgflywheel: CommandLine, connection: Connection
) -> None:
    version = judge(connection)
    for number in range(52):
        Spot(EARLIER, release=f"r{number}").score(connection, version, 1 + (number == 51), True)
    done = pgflywheel("metrics", "show", "--by", "release", "--csv")
    corrected = [line["slice"] for line in sheet(done.stdout) if line["method"]]
    assert len(corrected) == 50
    assert "r51" in corrected
    assert "the 50 largest" in pgflywheel("metrics", "show", "--by", "release").stderr


def test_releases_are_compared_in_words(pgflywheel: CommandLine, judged: Connection) -> None:
    (row,) = pgflywheel.json("metrics", "compare", "polite", "r1", "r2")
    assert row["difference_high"] < 0
    assert row["verdict"] in pgflywheel("metrics", "compare", "polite", "r1", "r2").stdout
    assert "worse by" in row["verdict"]
    assert "no data" in pgflywheel("metrics", "compare", "polite", "r1", "gone\x1b").stdout
    (line,) = sheet(pgflywheel("metrics", "compare", "polite", "r1", "r2", "--csv").stdout)
    assert float(line["difference"]) == pytest.approx(row["difference"])


def test_low_scores_come_with_reasons_that_no_terminal_obeys(pgflywheel: CommandLine, judged: Connection) -> None:
    judged.execute("update flywheel.scores set critique = %s where not passed", [HOSTILE])
    shown = pgflywheel("metrics", "top-failures", "polite", "-n", 3).stdout
    assert shown.count("FAIL (provisional)") == 3
    assert "\\x1b[2J" in shown
    assert not {"\x1b", "\u202e"} & set(shown)
    (line,) = sheet(pgflywheel("metrics", "top-failures", "-n", 1, "--csv").stdout)
    assert line["critique"].startswith("'=1+1\\x1b")


def test_who_may_not_read_content_gets_the_list_without_critiques(
    pgflywheel: CommandLine, judged: Connection, dsn: str
) -> None:
    judged.execute("update flywheel.scores set critique = 'secret words' where not passed")
    analyst = CommandLine(make_conninfo(dsn, options="-c role=flywheel_analyst"))
    done = analyst("metrics", "top-failures", "-n", 2)
    assert done.stdout.count("FAIL") == 2
    assert "secret" not in done.output
    assert "this role may not read content" in done.stderr
    for command in (["show"], ["compare", "polite", "r1", "r2"], ["drift"], ["watch"]):
        analyst("metrics", *command)


def test_low_scores_of_a_project_are_found_behind_any_number_of_others(
    pgflywheel: CommandLine, connection: Connection, dsn: str
) -> None:
    version = judge(connection)
    Spot(NOW - timedelta(hours=2), project="shop").score(connection, version, 1100, False, 0.1)
    Spot(NOW - timedelta(hours=3), project="bank").score(connection, version, 2, False, 0.1)
    analyst = CommandLine(make_conninfo(dsn, options="-c role=flywheel_analyst"))
    asked = ("--project", "bank", "--since", (NOW - timedelta(days=1)).isoformat())
    for who in (pgflywheel, analyst):
        found = who.json("metrics", "top-failures", *asked)
        page = who("report", "-o", "-", *asked).stdout
        assert [(score["project"], score["span_id"] in page) for score in found] == [("bank", True), ("bank", True)]


def test_drift_tells_the_judge_from_the_application(pgflywheel: CommandLine, connection: Connection) -> None:
    assert pgflywheel("metrics", "drift").stdout.startswith("no data")
    connection.execute(
        """insert into flywheel.drift_tests
             (test_id, tested_at, kind, subject, slice, project, statistic, threshold, n_current, drifted)
           values (flywheel.new_id(), now(), 'psi', %s, 'node=app', 'shop', 0.31, 0.2, 400, true),
                  (flywheel.new_id(), now(), 'ks', 'lengths', 'node=app', 'bank', null, 0.2, 3, null)""",
        ["=cmd\x1b[2J"],
    )
    shown = pgflywheel("metrics", "drift").stdout.splitlines()
    assert [line.split()[0] for line in shown[1:]] == ["ALARM", "no"]
    assert "\x1b" not in "".join(shown)
    told = pgflywheel.json("metrics", "drift", "--project", "shop")
    assert [each["drifted"] for each in told["monitors"]] == [True]
    assert told["judges"] == []
    assert sheet(pgflywheel("metrics", "drift", "--csv").stdout)[0]["subject"] == "'=cmd\\x1b[2J"


def test_a_pipe_gets_one_look(pgflywheel: CommandLine, judged: Connection) -> None:
    shown = pgflywheel("metrics", "watch").stdout
    assert shown.count("open alerts") == 1
    assert "nothing is wrong" in shown
    assert "60.0 % [" in shown
    assert "\x1b" not in shown


def test_watching_in_a_terminal_is_drawn_again_and_ends_at_ctrl_c(dsn: str, judged: Connection) -> None:
    main, child = pty.openpty()
    command = [sys.executable, "-c", "from pgflywheel.cli.main import cli; cli()", "metrics", "watch", "--every", "0.2"]
    given = {**os.environ, "PGFLYWHEEL_DSN": dsn, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    with subprocess.Popen(
        command, stdin=child, stdout=child, stderr=child, env=given, start_new_session=True
    ) as screen:
        os.close(child)
        shown = read_until(main, lambda text: text.count(b"open alerts") >= 3)
        screen.send_signal(signal.SIGINT)
        shown += read_until(main, lambda text: b"stopped" in text)
        assert screen.wait(20) == 0
    os.close(main)
    assert shown.index(b"\x1b[?1049h") < shown.index(b"\x1b[?1049l") < shown.index(b"stopped")
    assert b"Traceback" not in shown
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")  # the cursor is back


def read_until(end: int, enough: Any) -> bytes:
    """Read from a terminal until it has shown enough; a minute is for the slowest of machines."""
    text, last = b"", time.monotonic() + 60
    while not enough(text) and time.monotonic() < last:
        if select.select([end], [], [], 1)[0]:
            try:
                text += os.read(end, 65536)
            except OSError:  # the other side is closed
                break
    assert enough(text), text[-2000:]
    return text


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", " =1", "\t=1", "＝1", "\n-2"])
def test_text_like_a_formula_is_no_formula(text: str) -> None:
    (row,) = sheet(to_csv(["a", "b"], [[text, -1.5]]))
    assert row["a"][0] == "'"
    assert row["b"] == "-1.5"


def test_csv_is_quoted_and_ends_lines_as_rfc_4180_says() -> None:
    assert to_csv(["a", "b"], [['say "x", y', None], ["two\nlines", True]]) == (
        'a,b\r\n"say ""x"", y",\r\n"two\nlines",true\r\n'
    )


def test_json_and_csv_exclude_each_other() -> None:
    given = {"PGFLYWHEEL_DSN": "postgresql://nowhere.invalid/x"}
    assert CliRunner(env=given).invoke(cli, ["metrics", "show", "--json", "--csv"]).exit_code == 2


@pytest.mark.parametrize("count", [0, 1, 2, 500])
def test_plots_fit_a_terminal_whatever_there_is(count: int) -> None:
    plot = rate_plot("polite\x1b[2J", [(YESTERDAY + timedelta(hours=n), 1.0, 0.2, 1.0) for n in range(count)])
    assert "\x1b" not in plot
    assert max(len(line) for line in plot.splitlines()) <= 80
    assert plot.count("●") == min(count, 67) or count == 0
    assert "no data" in rate_plot("x", [(NOW, None, 0.0, 1.0)])


def test_nearly_all_is_not_shown_as_all_nor_hardly_any_as_none() -> None:
    assert rate(1.0, 0.99979, 1.0) == "100.0 % [99.98, 100.0]"
    assert rate(0.0, 0.0, 0.00021) == "0.0 % [0.0, 0.02]"
    assert [percent(share) for share in (0.99996, 0.931, 0.00004, None)] == ["99.996 %", "93.1 %", "0.004 %", "no data"]


def test_days_that_wait_to_be_counted_are_told_beside_the_numbers(pgflywheel: CommandLine, judged: Connection) -> None:
    assert "count them anew" not in pgflywheel("metrics", "show").stderr
    judged.execute("insert into flywheel._rollup_rebuilds (day, reason) values (current_date - 1, 'asked')")
    assert "days that wait for a worker to count them anew: 1;" in pgflywheel("metrics", "show").stderr
