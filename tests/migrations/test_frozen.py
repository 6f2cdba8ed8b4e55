"""A shipped migration never changes: databases that ran it would differ from those that run it tomorrow."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from pgflywheel import assets

# One line for each shipped file, as `sha256sum *.py` prints it in migrations/versions.
FROZEN = Path(__file__).with_name("frozen.sha256")


def versions() -> list[Path]:
    return sorted((assets.migrations_dir() / "versions").glob("*.py"))


def test_every_migration_is_what_was_shipped() -> None:
    lines = (line.split() for line in FROZEN.read_text().splitlines())
    shipped = {name: digest for digest, name in lines}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in versions()}
    assert found == shipped


def test_revisions_form_one_line_in_the_order_of_their_file_names() -> None:
    config = Config()
    config.set_main_option("script_location", str(assets.migrations_dir()))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    newest_first = [revision.revision for revision in script.walk_revisions()]
    assert newest_first[::-1] == assets.revisions()
    assert len(script.get_heads()) == 1


def test_every_revision_can_be_undone_and_verified() -> None:
    for path in versions():
        text = path.read_text()
        assert {"upgrade", "downgrade", "verify"} <= set(re.findall(r"^def (\w+)\(\) -> None:", text, re.MULTILINE))


def test_migrations_make_no_function_view_or_trigger() -> None:
    for path in versions():
        made = re.search(r"create\s+(or replace\s+)?(function|procedure|view|trigger)", path.read_text(), re.IGNORECASE)
        assert made is None, f"{path.name} makes a {made}"
