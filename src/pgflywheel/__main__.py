"""Run the command line with ``python -m pgflywheel``."""

from pgflywheel.cli.main import cli

cli(prog_name="pgflywheel")
