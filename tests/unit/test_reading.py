"""Files of lines: plain, compressed, damaged; and what became of the rejected ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from pgflywheel.errors import UsageError
from pgflywheel.importer import mapping, reading
from pgflywheel.importer.mapping import parse_line
from pgflywheel.importer.reading import MOST_REASONS, OTHER_REASONS, RejectFile, opened
from pgflywheel.importer.values import Rejected


def lines(path: Path) -> list[tuple[int, bytes]]:
    with opened(str(path)) as source:
        return list(source.lines())


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
def test_a_file_is_read_by_what_it_is_and_not_by_its_name(tmp_path: Path, compress: bool) -> None:
    content = b'\xef\xbb\xbf{"a":1}\r\n\n  \n{"a":2}'
    path = tmp_path / "lines"
    path.write_bytes(gzip.compress(content) if compress else content)
    assert [(number, json.loads(line)["a"]) for number, line in lines(path)] == [(1, 1), (4, 2)]


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert lines(tmp_path / "empty") == []


def test_a_file_cut_off_says_after_which_line(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(b'{"a":1}\n' * 50_000)[:-40])
    with pytest.raises(UsageError, match="is damaged after line"):
        lines(path)


def test_a_line_without_end_is_cut_and_refused_and_the_next_ones_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (reading, mapping):
        monkeypatch.setattr(module, "MOST_LINE_BYTES", 1000)
    path = tmp_path / "lines"
    path.write_bytes(b"[" + b"1," * 5000 + b'1]\n{"a":1}\n')
    found = lines(path)
    assert [(number, len(line)) for number, line in found] == [(1, 1001), (2, 8)]
    with pytest.raises(Rejected, match="longer than"):
        parse_line(*found[0])


def test_a_file_the_system_cannot_read_is_said_to_be_damaged() -> None:
    with pytest.raises(UsageError, match="is damaged after line 0"):
        lines(Path("/proc/self/mem"))


def test_a_full_disk_is_said_of_the_reject_file() -> None:
    rejects = RejectFile(Path("/dev/full"))
    with pytest.raises(UsageError, match="/dev/full cannot be written"):
        rejects.add(1, "why", "x" * 100_000)
    with pytest.raises(UsageError, match="/dev/full cannot be written"):
        rejects.close()


def test_a_file_that_is_not_there_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        lines(tmp_path / "none")


def test_the_reject_file_is_made_with_the_first_line_and_holds_number_reason_and_line(tmp_path: Path) -> None:
    rejects = RejectFile(tmp_path / "bad.jsonl")
    rejects.close()
    assert not rejects.path.exists()
    rejects.add(7, "not JSON", '{"a": \ud800')
    rejects.close()
    assert json.loads(rejects.path.read_text()) == {"line": 7, "reason": "not JSON", "content": '{"a": \ud800'}


def test_reasons_that_all_differ_fill_no_memory(tmp_path: Path) -> None:
    rejects = RejectFile(tmp_path / "bad.jsonl")
    for number in range(MOST_REASONS + 50):
        rejects.add(number, f"cost_usd is {number}", "{}")
    rejects.close()
    assert len(rejects.reasons) == MOST_REASONS + 1
    assert rejects.reasons[OTHER_REASONS] == 50
