"""The validators the tests of faults run: every kind and lane at once."""

from __future__ import annotations

from typing import Any

from tests.sql.support import Connection, activate

PATIENT_MS = 60_000  # on a busy machine nobody of these is to be slow


def python(name: str, **more: Any) -> dict[str, Any]:
    """Return the definition of a check in checks.py."""
    return {"kind": "python", "target": "output", "callable": f"tests.faults.checks:{name}", **more}


def activate_all_kinds(connection: Connection) -> None:
    """Activate sql inline and bulk, python bulk, and a judge on a tenth."""
    activate(connection, "inline_length", lane="inline", expression="length(span.output) < 100")
    activate(connection, "bulk_length", expression="length(span.output) < 150")
    activate(connection, "bulk_words", expression="span.output ~ 'answer$'", sample=0.5)
    activate(connection, "python_slow", **python("slowish", time_limit_ms=PATIENT_MS))
    activate(connection, "python_fine", **python("fine", time_limit_ms=PATIENT_MS, sample=0.3))
    activate(connection, "judge", **python("call", time_limit_ms=PATIENT_MS, lane="judge", sample=0.1))
