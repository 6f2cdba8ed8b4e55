"""Print what every test run ended with, and fail when a test failed, was skipped without leave, or never ran."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
LEAVE_WITHOUT_DATA = "shared/data"


def outcome(case: ElementTree.Element) -> tuple[str, str]:
    """Return how a test ended, and why where it did not pass."""
    for tag, name in (("failure", "failed"), ("error", "error"), ("skipped", "skipped")):
        found = case.find(tag)
        if found is not None:
            return name, found.get("message") or ""
    return "passed", ""


def outcomes(report: Path) -> Iterator[tuple[str, str, str]]:
    for case in ElementTree.parse(report).iter("testcase"):
        yield f"{case.get('classname')}::{case.get('name')}", *outcome(case)


def is_excused(name: str, reason: str) -> bool:
    """Return whether a skip is one for the lack of the recorded data, which a clone of its own does not have."""
    return name == "skipped" and LEAVE_WITHOUT_DATA in reason and not DATA.exists()


def read(report: Path) -> tuple[Counter[str], list[str]]:
    """Return the number of tests by outcome, and a line for each that the run must not end with."""
    if not report.exists():
        return Counter(), [f"{report.stem}: no test ran"]
    ended: Counter[str] = Counter()
    complaints = []
    for test, name, reason in outcomes(report):
        ended[name] += 1
        if name != "passed" and not is_excused(name, reason):
            complaints.append(f"{report.stem}: {name} {test}: {reason.splitlines()[0] if reason else ''}")
    return ended, complaints if ended["passed"] else [*complaints, f"{report.stem}: no test passed"]


def counted(ended: Counter[str]) -> str:
    return ", ".join(f"{ended[name]} {name}" for name in ("failed", "passed", "skipped", "error") if ended[name])


def main(seconds: str, *reports: str) -> int:
    total: Counter[str] = Counter()
    complaints: list[str] = []
    for report in map(Path, reports):
        ended, bad = read(report)
        print(f"{report.stem:12} {counted(ended)}")
        total += ended
        complaints += bad
    print(*complaints, sep="\n", end="\n" if complaints else "")
    print(f"{' ' + counted(total) + f' in {float(seconds):.2f}s ':=^100}")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
