"""Begin the command line: ``pgflywheel``, or ``python -m pgflywheel``.

Nothing is imported above, so that Ctrl-C in the first moments, while modules are read, says no more than later on.
"""


def main() -> None:
    """Run the command line; what interrupts its start ends it with exit code 130."""
    try:
        from pgflywheel.cli.main import cli

        cli(prog_name="pgflywheel")
    except KeyboardInterrupt:
        import sys

        sys.stderr.write("interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
