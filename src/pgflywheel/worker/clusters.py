"""Clusters formed anew at night, and their words: a process of its own groups vectors, for that may take minutes.

Grouping needs scikit-learn (extra ``analysis``). Without it clusters only grow and merge, and cluster_status says so.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from pgflywheel.analysis.clusters import HEADER_BYTES, kept, named
from pgflywheel.db import clusters
from pgflywheel.db.clusters import Due, Sampled
from pgflywheel.db.connect import Database
from pgflywheel.worker.site import Site

log = logging.getLogger(__name__)
LOOK_SECONDS = 120.0
RUN_SECONDS = 1800.0
MISSING = "scikit-learn is not installed where this worker runs: pip install 'pgflywheel[analysis]'"


def installed() -> bool:
    """Tell whether vectors can be grouped here."""
    return find_spec("sklearn") is not None


async def recluster(database: Database, *, forced: bool = False, project: str | None = None) -> int:
    """Form the clusters of what is due anew, unless another worker is at it; return of how many projects."""
    formed = 0
    for due in await clusters.due(database, forced=forced):
        if project in (None, due.project) and await clusters.take(database, due, RUN_SECONDS):
            await _form(database, due)
            formed += 1
    return formed


async def _form(database: Database, due: Due) -> None:
    """Group a project's sample and say what came of it; who is stopped leaves it for when the turn is over."""
    sampled = await clusters.sample(database, due)
    groups: list[int] = []
    note = None if installed() else MISSING
    if note:
        log.warning("clusters only grow and merge", extra={"project": due.project, "problem": note})
    try:
        if note is None:
            groups = await _groups(sampled, await clusters.minimum(database))
            await clusters.regroup(database, due, sampled, groups, kept([each.cluster_id for each in sampled], groups))
    except GroupingFailed as failure:
        note = f"the grouping failed: {failure}"
        log.warning("vectors are not grouped", extra={"project": due.project, "problem": str(failure)})
    merged = await clusters.tidy(database, due)
    await clusters.note_run(database, due, len(sampled), max(groups, default=-1) + 1, groups.count(-1), note)
    log.info("clusters formed anew", extra={"project": due.project, "sampled": len(sampled), "merged": merged})


class GroupingFailed(Exception):
    """The process that groups vectors ended with an error."""


async def _groups(sampled: Sequence[Sampled], minimum: int) -> list[int]:
    """Return the group of each vector; the process ends with us."""
    if not sampled:
        return []
    dimensions = (len(sampled[0].embedding) - HEADER_BYTES) // 2
    data = b"".join(each.embedding for each in sampled)
    try:
        status, said, problem = await _child(data, str(dimensions), str(minimum))
    except (OSError, TimeoutError) as error:
        raise GroupingFailed(f"{type(error).__name__} {error}") from error
    if status:
        raise GroupingFailed(problem.decode(errors="replace").strip()[-300:] or f"exit code {status}")
    groups: list[int] = json.loads(said)
    return groups


async def _child(data: bytes, *words: str) -> tuple[int | None, bytes, bytes]:
    """Run the grouping; return exit code, stdout and stderr."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "pgflywheel.analysis.clusters", *words)
    child = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(RUN_SECONDS / 2):
            said, problem = await child.communicate(data)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return child.returncode, said, problem


async def word(database: Database) -> int:
    """Look for the words of clusters that have none, or have doubled; return how many got some."""
    worded = 0
    for project in await clusters.projects(database):
        of = await clusters.texts(database, project)
        if of:
            words = await asyncio.to_thread(named, {each.cluster_id: each.texts for each in of})
            worded += await clusters.write_words(database, of, words)
    return worded


@dataclass
class Clusters:
    """Look every other minute for what is due; not all workers at the same moment."""

    site: Site

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS * random.uniform(0.5, 1.5))
            with self.site.going_on("clusters"):
                await recluster(self.site.database)
                await word(self.site.database)
