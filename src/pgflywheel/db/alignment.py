"""Alignment: how far judges agree with people, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pgflywheel.db.connect import Database, columns_of
from pgflywheel.errors import ValidatorNotFound


@dataclass(frozen=True, slots=True)
class JudgeVersion:
    """A version of a judge or a vote of neighbours."""

    validator: str
    version: int
    version_id: UUID
    kind: str
    lane: str
    status: str


@dataclass(frozen=True, slots=True)
class Alignment:
    """A row of flywheel.alignment: pass is the positive class; a rate of nothing is None."""

    validator: str
    version: int
    status: str
    split: str
    labels: int
    tp: int
    fp: int
    fn: int
    tn: int
    unscored: int
    accuracy: float | None
    tpr: float | None
    tpr_low: float
    tpr_high: float
    tnr: float | None
    tnr_low: float
    tnr_high: float
    fail_precision: float | None
    mcc: float | None
    kappa: float | None
    n_pass: int
    n_fail: int
    disagreements: int
    drawn: int
    weighted_tpr: float | None
    weighted_tnr: float | None


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a judge version may decide, and why."""

    validator: str
    version: int
    provisional: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Spans a version waits for: work of the next minute, and what is put off, held or dead."""

    soon: int
    stuck: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two judge versions on the spans both judged; cost is the mean, latency the median of a verdict."""

    labels: int
    both_right: int
    only_a_right: int
    only_b_right: int
    both_wrong: int
    mcnemar_p: float
    log_e: float
    tpr_a: float | None
    tpr_b: float | None
    tnr_a: float | None
    tnr_b: float | None
    cost_usd_a: float | None
    cost_usd_b: float | None
    latency_ms_a: float | None
    latency_ms_b: float | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """A row of flywheel.judge_calibration; ``threshold`` None = no verdict is trusted."""

    validator: str
    version: int
    status: str
    method: str
    labels: int
    brier: float
    calibration_error: float
    threshold: float | None
    alpha: float
    delta: float
    trusted: int | None
    errors: int | None
    basis: str
    fitted_at: datetime
    stale: bool


_ALIGNMENT = columns_of(Alignment)


async def judge(database: Database, name: str, version: int | None = None) -> JudgeVersion:
    """Return a version, the newest unless numbered; raises ValidatorNotFound, also for a validator of code."""
    query = """
        select validator, version, version_id, kind, lane, status from flywheel.validator_status
         where validator = %s and (%s::integer is null or version = %s) and kind in ('judge', 'neighbours')
         order by status = 'retired', version desc limit 1
    """
    found = await database.row(JudgeVersion, query, [name, version, version])
    if found is None:
        wanted = name if version is None else f"{name} version {version}"
        raise ValidatorNotFound(f"there is no judge {wanted}", hint="List them: pgflywheel judges list.")
    return found


async def queue_labelled(database: Database, version_id: UUID, splits: Sequence[str]) -> int:
    """Queue labelled spans the version has not judged, and return how many."""
    return int(await database.value("select flywheel._queue_labelled(%s, %s)", [version_id, list(splits)]))


async def waiting(database: Database, version_id: UUID) -> Waiting:
    """Return what a version waits for."""
    found = await database.row(Waiting, "select * from flywheel._waiting_for(%s)", [version_id])
    assert found is not None  # the function returns one row
    return found


async def alignment(database: Database, name: str, version: int) -> list[Alignment]:
    """Return one row for each split that may be seen and has labels, and one over all of them."""
    query = f"""
        select {_ALIGNMENT} from flywheel.alignment where (validator, version) = (%s, %s)
         order by array_position(array['train', 'dev', 'all'], split)
    """
    return await database.rows(Alignment, query, [name, version])


async def read_test_split(database: Database, name: str, version: int, again: bool) -> list[Alignment]:
    """Return agreement on the test split; raises TestSplitRead the second time, unless ``again``."""
    query = f"select {_ALIGNMENT} from flywheel.read_test_split(%s, %s, %s)"
    return await database.rows(Alignment, query, [name, version, again])


async def standing(database: Database, name: str, version: int) -> Standing:
    """Ask the labels again whether a version may decide."""
    async with database.transaction() as session:
        await session.value("select flywheel._refresh_standings()")
        query = """
            select validator, version, provisional, reason from flywheel.judge_standing
             where (validator, version) = (%s, %s)
        """
        found = await session.row(Standing, query, [name, version])
    return found or Standing(name, version, True, "it is retired")


async def provisional(database: Database) -> list[Standing]:
    """Ask the labels again which judges that judge now may not decide yet."""
    async with database.transaction() as session:
        await session.value("select flywheel._refresh_standings()")
        query = """
            select validator, version, provisional, reason
              from flywheel.judge_standing join flywheel.validator_status using (validator, version)
             where provisional and validator_status.status = 'active' order by validator
        """
        return await session.rows(Standing, query)


async def compare(database: Database, a: JudgeVersion, b: JudgeVersion, split: str) -> Comparison:
    """Pair two versions on the spans both judged; raises InvalidArgument unless they answer one question."""
    query = "select * from flywheel.compare_judges(%s, %s, %s, %s, %s)"
    found = await database.row(Comparison, query, [a.validator, a.version, b.version, split, b.validator])
    assert found is not None  # the function returns one row or raises
    return found


async def calibrate(
    database: Database, name: str, version: int, alpha: float | None, delta: float | None, any_lane: bool
) -> Calibration:
    """Fit what a version's verdicts are worth, store and return it; raises InvalidArgument without labels."""
    query = "select * from flywheel.calibrate_judge(%s, %s, %s::double precision, %s::double precision, %s)"
    found = await database.row(Calibration, query, [name, version, alpha, delta, any_lane])
    assert found is not None  # the function returns one row or raises
    return found
