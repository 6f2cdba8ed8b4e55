"""Begin the command line: ``pgflywheel``, or ``python -m pgflywheel``.

Nothing is imported above, so that Ctrl-C in the first moments, while modules are read, says no more than later on.
"""


def main() -> None:
    """Run the command line; what interrupts its start ends it with exit code 130."""
    try:
        _open_streams()
        from pgflywheel.cli.main import cli

        cli(prog_name="pgflywheel")
    except KeyboardInterrupt:
        import sys

        sys.stderr.write("interrupted\n")
        sys.exit(130)


def _open_streams() -> None:
    """Let a closed stream be an empty one, and show what the output's encoding lacks as escapes."""
    import os
    import sys

    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115 - in this order, so that each takes its own number
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
