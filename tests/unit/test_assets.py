"""The files of an install, and the one word that is renamed in them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflywheel import assets
from pgflywheel.errors import UsageError

names = st.from_regex(r"\A[a-z_][a-z0-9_]{0,30}\Z")


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("select from flywheel.spans", "select from acme.spans"),
        ("grant flywheel_writer to x", "grant acme_writer to x"),
        ("notify flywheel_wake", "notify acme_wake"),
        ("'flywheel'::regnamespace", "'acme'::regnamespace"),
        ("flywheel_bi.scores, flywheel.scores", "acme_bi.scores, acme.scores"),
        ("the pgflywheel command", "the pgflywheel command"),
        ("my_flywheel.spans flywheels", "my_flywheel.spans flywheels"),
    ],
)
def test_only_the_whole_word_is_renamed(text: str, rendered: str) -> None:
    assert assets.render(text, "acme") == rendered
    assert assets.render(text, "flywheel") == text


@given(schema=names)
def test_every_object_of_an_install_follows_its_name(schema: str) -> None:
    assert assets.render("flywheel.x flywheel_bi", schema) == f"{schema}.x {schema}_bi"


@pytest.mark.parametrize(
    "name", ["", "Acme", "1a", "a-b", "pg_x", "public", 'a"; drop', "x" * 49, "information_schema"]
)
def test_a_name_that_would_need_quotes_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        assets.checked_schema(name)


def test_files_are_applied_in_the_order_of_their_numbers() -> None:
    numbers = [int(path.name[:2]) for path in assets.sql_files()]
    assert numbers == sorted(numbers)


def test_a_wheel_holds_sql_and_migrations(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=root, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "from pgflywheel import assets; from pgflywheel.db import schema; "
        "print(assets.sql_hash(), *assets.revisions(), len(schema.script()), len(assets.catalogue_files()))"
    )
    outputs = {
        subprocess.check_output([sys.executable, "-P", "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(source)})
        for source in (tmp_path / "site", root / "src")
    }
    assert len(outputs) == 1
