"""pgflywheel report: a page that a real browser opens offline, with plots, and that runs nothing of what it shows."""

from __future__ import annotations

import html
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import isfinite
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgflywheel.report.markup import element, escaped
from pgflywheel.report.model import Line, Page, Plot, Point, Section, Table
from pgflywheel.report.page import render
from pgflywheel.report.svg import draw, round_above
from tests.sql.measured import NOW, Spot, judge
from tests.sql.support import Connection, rows

from .chromium import Tab, browser
from .conftest import CommandLine

ATTACK = (
    "</title></style></svg><script>document.title='owned';document.body.id='owned'</script>"
    '<img src="http://127.0.0.1:9/x.png" onerror="document.title=\'owned\'">'
    '"\' onmouseover="document.title=1" <iframe src="http://127.0.0.1:9/"></iframe>'
    "<style>@import 'http://127.0.0.1:9/a.css';</style><!-- \u202e\x1b[2J ]]> &lt; {{7*7}}"
)
MOMENT = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def attacked(server_dsn: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Days of scores, labels, costs, clusters and drift, in which every text is an attack; nobody changes it."""
    name = f"attacked_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(server_dsn, autocommit=True) as session:
        session.execute(
            sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        dsn = make_conninfo(server_dsn, dbname=name)
        with psycopg.connect(dsn, autocommit=True) as opened:
            fill(opened)
        yield dsn
        session.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def fill(connection: Connection) -> None:
    version = judge(connection)
    for days in (1, 2, 9):
        spot = Spot(NOW - timedelta(days=days), ATTACK, "production", ATTACK, ATTACK)
        spot.score(connection, version, 30, True, 0.9)
        spot.score(connection, version, 3 + days, False, 0.1)
        spot.label(connection, version, 10, 1, 1, 3)
    connection.execute("update flywheel.scores set critique = %s where not passed", [ATTACK])
    connection.execute("update flywheel.spans set cost_usd = 0.01, ended_at = started_at + interval '70 ms'")
    with connection.transaction():  # past the triggers, for which other texts would be other revisions
        connection.execute("set local session_replication_role = replica")
        connection.execute("update flywheel.spans set input = %s, output = %s", [ATTACK, ATTACK])
    connection.execute(
        """insert into flywheel.drift_tests
             (test_id, tested_at, kind, subject, slice, statistic, threshold, n_current, drifted)
           values (flywheel.new_id(), now(), 'psi', %s, %s, 0.3, 0.2, 400, true)""",
        [ATTACK, ATTACK],
    )
    cluster(connection)


def cluster(connection: Connection) -> None:
    """Let all spans be of one cluster with a hostile name."""
    connection.execute("update flywheel.embedders set span_permille = 1000")
    connection.execute(
        """insert into flywheel.span_embeddings
             (span_id, started_at, revision, embedder_id, part, content_hash, embedding)
           select span_id, started_at, 1, embedder_id, 'input', span_id::text,
                  ('{1}'::real[] || array_fill(0::real, array[dimensions - 1]))::public.halfvec
             from flywheel.spans, flywheel.embedders where embedders.status = 'serving'"""
    )
    connection.execute("select flywheel._assign_clusters(1000)")
    (found,) = rows(connection, "select cluster_id from flywheel.clusters where status = 'open'")
    connection.execute("select flywheel.rename_cluster(%s, %s, 'ann')", [found[0], f"<b>{ATTACK[:60]}"])


@pytest.fixture
def written(attacked: str, tmp_path: Path) -> Path:
    """The report of the attacked database."""
    path = tmp_path / "report.html"
    done = CommandLine(attacked)("report", "-o", path)
    assert done.stdout == ""
    return path


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    """A page of a real browser."""
    with browser(tmp_path / "profile") as opened:
        yield opened


def test_a_browser_shows_the_report_and_runs_nothing_of_it(written: Path, tab: Tab) -> None:
    tab.open(written.as_uri())
    assert tab.value("document.title") == "pgflywheel: quality report"
    assert tab.value("document.body.id") == ""
    assert tab.value("document.querySelectorAll('script,img,iframe,object,link,a,form').length") == 0
    assert tab.value(
        "[...document.querySelectorAll('*')].every(e => [...e.attributes].every(a => !/^on/.test(a.name)))"
    )
    assert tab.value("document.querySelectorAll('main > section').length") == 9
    assert tab.requested() == [written.as_uri()]
    assert tab.value("document.body.innerText").count("owned") > 20  # it is all there, as text


def test_every_plot_has_a_size_and_shapes_inside_it(written: Path, tab: Tab) -> None:
    tab.open(written.as_uri())
    sizes = tab.value(
        """[...document.querySelectorAll('figure > svg')].map(svg => {
             const box = svg.getBoundingClientRect();
             const shapes = [...svg.querySelectorAll('circle,rect,polyline,polygon,text')];
             const inside = shapes.map(shape => shape.getBoundingClientRect());
             return [box.width, box.height, inside.length, inside.every(r => r.left >= box.left - 1
               && r.right <= box.right + 1 && r.top >= box.top - 1 && r.bottom <= box.bottom + 1)];
           })"""
    )
    assert len(sizes) >= 4  # quality, alignment, cost, latency
    assert all(width > 300 and height > 100 and shapes > 0 and inside for width, height, shapes, inside in sizes)
    assert tab.value("document.documentElement.scrollWidth <= window.innerWidth")  # tables scroll by themselves


def test_the_page_is_seen_in_light_and_in_dark(written: Path, tab: Tab) -> None:
    tab.open("about:blank")
    blank = tab.screenshot()
    tab.open(written.as_uri())
    seen = {}
    for scheme in ("light", "dark"):
        tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        seen[scheme] = tab.value("getComputedStyle(document.body).backgroundColor")
        assert len(tab.screenshot()) > 5 * len(blank)
    assert seen == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 29)"}


def test_the_policy_forbids_everything_but_its_own_style(written: Path, tab: Tab) -> None:
    changed = written.with_name("changed.html")
    changed.write_text(
        written.read_text("utf-8").replace(
            "</main>", "<script>document.title='ran'</script><img src='http://127.0.0.1:9/x'></main>"
        ),
        "utf-8",
    )
    tab.open(changed.as_uri())
    assert tab.value("document.title") == "pgflywheel: quality report"
    assert tab.value("document.scripts.length") == 1
    blocked = [each for each in tab.events if each.get("method") == "Log.entryAdded" and "violates" in str(each)]
    assert len(blocked) >= 2


def test_nothing_in_the_file_names_another_resource(written: Path) -> None:
    page = written.read_text("utf-8")
    assert "default-src 'none'" in page
    assert not re.search(r"<(script|img|link|iframe|object|embed|a|form)\b", page)
    assert not re.search(r"<[^>]*\s(href|src|srcset|action|on\w+)=", page)
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_content_is_left_out_and_said_so_where_the_role_may_not_read_it(attacked: str) -> None:
    analyst = CommandLine(make_conninfo(attacked, options="-c role=flywheel_analyst"))
    page = html.unescape(re.sub("<style>.*?</style>", "", analyst("report", "-o", "-").stdout, flags=re.S))
    assert page.count("may not read content") == 2
    assert "<blockquote>" not in page
    assert "<blockquote>" in CommandLine(attacked)("report", "-o", "-").stdout


def test_an_empty_install_has_a_report_without_a_number(pgflywheel: CommandLine) -> None:
    pgflywheel("report")
    page = Path("pgflywheel-report.html").read_text("utf-8")
    assert page.count("<p>no data</p>") >= 6
    assert "0.0 %" not in page
    assert "<svg" not in page


def test_a_project_and_a_time_are_named_and_narrow(attacked: str) -> None:
    page = CommandLine(attacked)("report", "-o", "-", "--project", "other", "--since", "2026-01-01").stdout
    assert "2026-01-01 00:00" in page
    assert "project other" in page
    assert page.count("<p>no data</p>") >= 4


@pytest.mark.parametrize("since", ["0001-01-02", "2999-01-01"])
def test_any_time_has_a_report(attacked: str, since: str) -> None:
    assert CommandLine(attacked)("report", "-o", "-", "--since", since).stdout.count("<section>") == 9


def test_a_file_that_cannot_be_written_is_an_error(pgflywheel: CommandLine, tmp_path: Path) -> None:
    assert "cannot be written" in pgflywheel("report", "-o", tmp_path / "no" / "x.html", exit_code=2).stderr


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_escaped_text_is_inert_and_can_be_read_back(text: str) -> None:
    shown = escaped(text)
    assert not set("<>\"'") & set(shown)
    shown.encode("utf-8")
    if text.isascii() and text.isprintable():
        assert html.unescape(shown) == text


def test_attributes_are_escaped() -> None:
    assert element("p", class_='"><script>') == '<p class="&quot;&gt;&lt;script&gt;"></p>'


@pytest.mark.parametrize("bars", [False, True])
@given(values=st.lists(st.none() | st.floats(0), max_size=20))
def test_plots_hold_every_value_there_is_within_their_frame(values: list[float | None], bars: bool) -> None:
    points = [Point(MOMENT + timedelta(days=day), value) for day, value in enumerate(values)]
    drawn = draw(Plot("cost", [Line("x", points)], "USD", bars=bars))
    known = [value for value in values if value is not None and isfinite(value)]
    assert len(re.findall(r"<rect|<circle", drawn)) == len(known)
    assert ("no data" in drawn) == (not known)
    assert all(0 <= float(y) <= 220 for y in re.findall(r' c?y="([^"]+)"', drawn))


@given(st.floats(1e-9, 1e15))
def test_a_scale_ends_little_above_the_largest_value(value: float) -> None:
    assert value <= round_above(value) <= 2.01 * value


def test_a_gap_is_no_line() -> None:
    points = [Point(MOMENT + timedelta(days=day), None if day == 2 else 50, 40, 60) for day in range(5)]
    assert draw(Plot("x", [Line("x", points)], top=100)).count("<polyline") == 2


def test_a_page_without_anything_is_a_page() -> None:
    page = render(Page("t", [], [Section("s", "m"), Section("u", "v", [Table(["a"], [])])]))
    assert page.startswith("<!doctype html>")
    assert page.count("no data") == 1
