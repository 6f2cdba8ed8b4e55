"""Numbers computed by public statistics libraries; each file of tests/reference names its source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "reference"
Case = dict[str, Any]


def cases(file: str, beginning: str = "") -> list[Any]:
    """Return the cases whose name begins so, each as a pytest parameter with its name."""
    known = json.loads((FOLDER / f"{file}.json").read_text())["cases"]
    return [pytest.param(case, id=case["name"]) for case in known if case["name"].startswith(beginning)]


def case(file: str, name: str) -> Case:
    """Return the input and expected numbers of one case."""
    (found,) = cases(file, name)
    return dict(found.values[0])


def close(expected: Any, tolerance: float = 1e-9) -> Any:
    """Compare with the reference: the same within 1e-9, and null where it has null."""
    return pytest.approx(expected, abs=tolerance, rel=0) if expected is not None else None
