"""What the pages show is what happens."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from pgflywheel.worker.metrics import Metrics
from tests.bench.__main__ import NAMES
from tests.conftest import Connection
from tests.docs.blocks import BEGIN_WITH_QUICKSTART, ROOT, blocks, pages
from tests.docs.commands_page import commands
from tests.docs.masking import masked, same
from tests.docs.outputs import expectation
from tests.docs.running import Reader
from tests.docs.server import quickstart

README = ROOT / "README.md"
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
FENCED = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
SHOWS_SLOWNESS = "docs/how-to/guardrail.md"  # a check that sleeps 200 ms is too slow there
LESS_PATIENCE = "update flywheel.settings set value = '190' where name = 'inline_limit_ms'"
EVERY_PAGE = sorted({README, *(ROOT / "docs").rglob("*.md")})


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _read_aloud(page: Path, reader: Reader) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        actual = reader.output(block)
        _, shown = expectation(block)
        if actual is not None and shown is not None:
            assert same(shown, actual), f"{_name(page)}:{block.line} shows\n{masked(shown)}\nand gets\n{masked(actual)}"
        elif actual is not None:
            assert "ERROR:" not in actual, f"{_name(page)}:{block.line} fails\n{actual}"


@pytest.mark.parametrize("page", [page for page in pages() if _name(page) not in BEGIN_WITH_QUICKSTART], ids=_name)
def test_every_block_of_a_page_runs_and_says_what_the_page_says(page: Path, dsn: str, tmp_path: Path) -> None:
    if _name(page) == SHOWS_SLOWNESS:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(LESS_PATIENCE)
    _read_aloud(page, Reader(dsn, tmp_path))


@pytest.mark.parametrize("name", sorted(BEGIN_WITH_QUICKSTART))
def test_quickstart_and_all_that_follows_says_what_the_page_says(name: str, run_dir: Path, tmp_path: Path) -> None:
    data = run_dir / f"quickstart-{uuid4().hex[:8]}"  # not in tmp_path, which the server's system user cannot reach
    with quickstart(data) as dsn:
        _read_aloud(ROOT / name, Reader(dsn, tmp_path, {"PGFLYWHEEL_DATA_DIR": str(data)}))


@pytest.mark.parametrize("command", ["pgflywheel quickstart", "python -m pytest -n auto"])
def test_readme_sets_up_in_one_line(command: str) -> None:
    install = r"^ *(?:\$ )?python -m pip install \S+(?: \S+)* && (.+)$"
    lines = re.findall(install, README.read_text("utf-8"), re.MULTILINE)
    assert command in lines


@pytest.mark.parametrize("page", EVERY_PAGE, ids=_name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{_name(page)} links to {link}"
        assert not anchor or anchor in _anchors(target), f"{_name(page)} links to {link}"


def _anchors(page: Path) -> set[str]:
    headings = HEADING.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", EVERY_PAGE, ids=_name)
def test_every_page_can_be_reached_from_the_index(page: Path) -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in LINK.findall(index.read_text("utf-8"))}
    assert page in {index, *linked}


@pytest.mark.parametrize("path", [path for path, _ in commands()])
def test_every_command_has_help_with_an_example(path: str) -> None:
    command = dict(commands())[path]
    assert command.help
    assert hasattr(command, "commands") or path == "pgflywheel" or "Example" in command.help


def test_a_definition_has_the_keys_that_validators_md_lists(connection: Connection) -> None:
    text = (ROOT / "docs/reference/validators.md").read_text("utf-8")
    keys, filters = (_first_column(part) for part in text.split("## F")[:2])
    row = connection.execute("select flywheel._definition_keys(), flywheel._filter_keys()").fetchone()
    assert row is not None
    assert (keys, filters) == (set(row[0]), set(row[1]))


def _first_column(markdown: str) -> set[str]:
    return set(re.findall(r"^\| `(\w+)` \|", markdown, re.MULTILINE))


def test_every_metric_is_in_the_docs() -> None:
    text = (ROOT / "docs/how-to/run-in-production.md").read_text("utf-8")
    collected: list[Any] = list(Metrics().registry.collect())
    assert [metric.name for metric in collected if metric.name not in text] == []


def _settings_read(read: Callable[[Path], str]) -> set[str]:
    sources = (ROOT / "src").rglob("*.py")
    return {name for source in sources for name in re.findall(r'"(PGFLYWHEEL_[A-Z_]+)"', read(source))}


def test_every_environment_variable_is_in_the_docs() -> None:
    text = (ROOT / "docs/reference/settings.md").read_text("utf-8")
    assert {name for name in _settings_read(Path.read_text) if name not in text} == set()


@pytest.mark.parametrize("page", EVERY_PAGE, ids=_name)
def test_every_benchmark_a_page_names_can_be_run(page: Path) -> None:
    named = set(re.findall(r"python -m tests\.bench (\w+)", page.read_text("utf-8")))
    assert named - {"NAME"} <= set(NAMES)


def test_every_benchmark_is_in_the_docs() -> None:
    text = (ROOT / "docs/explanation/performance.md").read_text("utf-8")
    assert _first_column(text) == set(NAMES)
