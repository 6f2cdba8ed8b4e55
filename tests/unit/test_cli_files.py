"""Files of TOML and files that are written: what is wrong with one is said with its name, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgflywheel.cli.alert_rules import read_alerts
from pgflywheel.cli.files import read_toml, write_text
from pgflywheel.cli.providers import read_providers
from pgflywheel.errors import InvalidArgument, UsageError


def test_a_file_of_an_editor_that_begins_with_a_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "providers.toml"
    file.write_bytes(b'\xef\xbb\xbf[[provider]]\r\nname = "one"\r\n')
    assert read_providers(file) == [{"name": "one"}]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff", "is not TOML"),
        (b"a = ", "is not TOML"),
        (b"", "holds nothing instead of providers"),
        (b"provider = []", "holds nothing instead of providers"),
        (b"[[rule]]", "holds rule instead of providers"),
        (b"provider = 1", "provider is no list of tables"),
        (b"[[provider]]", "provider 1 has no name"),
    ],
)
def test_what_is_no_file_of_providers_says_why(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "providers.toml"
    file.write_bytes(content)
    with pytest.raises(InvalidArgument, match=said) as wrong:
        read_providers(file)
    assert "providers.toml" in wrong.value.message
    assert wrong.value.hint


def test_a_rule_without_a_name_is_told_its_place(tmp_path: Path) -> None:
    file = tmp_path / "alerts.toml"
    file.write_text('[[rule]]\nname = "one"\n[[rule]]\n')
    with pytest.raises(InvalidArgument, match="rule 2 has no name"):
        read_alerts(file)


def test_a_file_that_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be read"):
        read_toml(tmp_path)
    with pytest.raises(UsageError, match="cannot be written"):
        write_text(tmp_path / "missing" / "labels.jsonl", "")
