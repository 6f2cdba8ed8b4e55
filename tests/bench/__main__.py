"""Benchmarks: ``python -m tests.bench NAME`` prints one JSON object; without a name, the names."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from types import ModuleType

from tests.bench.figures import Options, Result
from tests.bench.server import server

NAMES = (
    "copy_overhead",
    "inline_overhead",
    "commit_overhead",
    "insert_cost",
    "pickup",
    "drain",
    "bulk_sql",
    "slow_calls",
    "judge_calls",
    "held_xmin",
    "index_upkeep",
    "retrieve",
    "example_fresh",
    "few_shot_value",
    "delta_overhead",
    "fold_cost",
    "writers",
    "interval_truth",
    "alert_truth",
    "dashboard",
    "views",
)


def main() -> int:
    """Measure one benchmark; exit code 1 when its bar is not met."""
    given = _arguments()
    if given.name is None:
        for name in NAMES:
            print(f"{name:16} {(_module(name).__doc__ or '').splitlines()[0]}")
        return 0
    with server(given.postgres) as dsn:
        options = Options(dsn, given.runs, given.postgres, given.scale, given.quick)
        result: Result = _module(given.name).measure(options)
    print(json.dumps({"postgres": given.postgres} | result.as_dict(), indent=2))
    return 1 if result.met is False else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", nargs="?", choices=NAMES)
    parser.add_argument("--runs", type=int, default=3, help="repetitions of each side, interleaved (default 3)")
    parser.add_argument("--postgres", type=int, choices=(16, 18), default=18, help="embedded server (default 18)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows or seconds, to try a benchmark")
    parser.add_argument("--quick", action="store_true", help="leave the peers out")
    return parser.parse_args()


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"tests.bench.{name}")


if __name__ == "__main__":
    sys.exit(main())
