"""The validators the tests of faults run: every kind and lane at once."""

from __future__ import annotations

from tests.sql.support import Connection, activate


def activate_all_kinds(connection: Connection) -> None:
    """Activate sql inline and bulk, python bulk, and a judge on a tenth."""
    activate(connection, "inline_length", lane="inline", expression="length(span.output) < 100")
    activate(connection, "bulk_length", expression="length(span.output) < 150")
    activate(connection, "bulk_words", expression="span.output ~ 'answer$'", sample=0.5)
    activate(connection, "python_slow", kind="python", callable="tests.faults.checks:slowish", target="output")
    activate(connection, "python_fine", kind="python", callable="tests.faults.checks:fine", target="output", sample=0.3)
    activate(
        connection,
        "judge",
        kind="python",
        callable="tests.faults.checks:call",
        target="output",
        lane="judge",
        sample=0.1,
    )
