"""Batches at an endpoint: asked for ever more rarely, read when they have ended.

due ──taken──> asked ──not yet──> left until it is due again
  │              ├─ ended ──> files read, calls settled ──> scores, or spans queued again ──> closed
  │              └─ failed, unknown there ──> given back
  └─ nobody knows whether it was handed in ──> found there by its id, or given back
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pgflywheel.db import batches
from pgflywheel.db.batches import Back, Open
from pgflywheel.errors import FlywheelError
from pgflywheel.judge.client import Client
from pgflywheel.judge.failures import CallFailed
from pgflywheel.judge.records import storable
from pgflywheel.worker.batch_answers import MOST_DETAIL, answer_of, end_of, unreadable, without_score
from pgflywheel.worker.batch_endpoint import OUR_KEY, Desk
from pgflywheel.worker.endpoints import Endpoint
from pgflywheel.worker.faults import fault_of

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.5
FIND_SECONDS = 5.0  # a batch that was made just now may not be listed yet
FAILED_SECONDS = 30.0
PAGE = 500
UNDERWAY = ("validating", "in_progress", "finalizing")
ENDED = ("completed", "expired", "cancelled")
FILES = ("output_file_id", "error_file_id")


class Polls:
    """Ask for batches that are due, beside the lanes."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.site = desk.site

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            with self.site.going_on("batches"):
                await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Ask for all batches that are due."""
        worker_id = await self.site.lease.held()
        due = await batches.take(self.site.database, worker_id, self.desk.in_hand)
        await asyncio.gather(*(self._take(worker_id, batch) for batch in due))

    async def _take(self, worker_id: UUID, batch: Open) -> None:
        """Look at one batch; whatever goes wrong, it is due again."""
        self.desk.in_hand.add(batch.batch_id)
        self.site.in_hand.add(batch.batch_id)  # a worker that reads a batch is not idle
        try:
            with self.site.going_on("batches", batch=str(batch.batch_id)):
                await self._look_at(worker_id, batch)
        finally:
            self.desk.in_hand.discard(batch.batch_id)
            self.site.put_down([batch.batch_id])

    async def _look_at(self, worker_id: UUID, batch: Open) -> None:
        endpoint = await self.desk.endpoints.of(batch.provider)
        if endpoint is None:
            await batches.leave(self.site.database, batch.batch_id, None, f"there is no provider {batch.provider}")
            return
        try:
            if batch.remote_id is None:
                await self._find(batch, endpoint.client)
            else:
                await self._ask(worker_id, batch, batch.remote_id, endpoint)
        except CallFailed as failure:
            log.warning("no news of a batch", extra={"batch": str(batch.batch_id), "detail": failure.detail})
            await batches.leave(self.site.database, batch.batch_id, None, failure.detail)

    async def _find(self, batch: Open, client: Client) -> None:
        """Look for a batch whose worker ended between making it and noting it; give its spans back if it never was."""
        if batch.age_seconds < FIND_SECONDS:
            await batches.leave(self.site.database, batch.batch_id, None)
            return
        for told in await client.batches():
            if _ours(told) == str(batch.batch_id):
                await batches.submitted(self.site.database, batch.batch_id, told["id"])
                return
        await self._give_back(batch, 0, "not_handed_in", "its worker ended before the endpoint had it")

    async def _ask(self, worker_id: UUID, batch: Open, remote_id: str, endpoint: Endpoint) -> None:
        try:
            told = await endpoint.client.batch(remote_id)
        except CallFailed as failure:
            if failure.http_status != 404:
                raise
            await self._give_back(batch, 0, "batch_failed", failure.detail)
            return
        status = str(told.get("status"))
        if status in ENDED or (status == "failed" and any(told.get(name) for name in FILES)):
            await self._read(worker_id, batch, told, endpoint)
        elif status == "failed":
            await self._give_back(batch, FAILED_SECONDS, "batch_failed", _errors(told))
        else:
            await batches.leave(self.site.database, batch.batch_id, status if status in UNDERWAY else "in_progress")

    async def _give_back(self, batch: Open, seconds: float, reason: str, detail: str) -> None:
        spans = await batches.give_back(self.site.database, batch.batch_id, "batch", seconds, reason, detail)
        log.warning("a batch is given back", extra={"batch": str(batch.batch_id), "spans": spans, "detail": detail})

    async def _read(self, worker_id: UUID, batch: Open, told: Mapping[str, Any], endpoint: Endpoint) -> None:
        """Enter what came of every line, then of every span, and close the batch."""
        prices = endpoint.provider.prices.get(batch.model)
        for name in FILES:
            if isinstance(file_id := told.get(name), str):
                answers: list[dict[str, Any]] = []
                async for raw in endpoint.client.download(file_id):
                    if (answer := answer_of(raw, prices)) is not None:
                        answers.append(answer)
                    if len(answers) >= PAGE:
                        await self._enter(batch, answers)
                        answers = []
                await self._enter(batch, answers)
        status = str(told.get("status"))
        await batches.miss(self.site.database, batch.batch_id, f"the batch has {status} without it")
        while backs := await batches.answered(self.site.database, batch.batch_id, PAGE):
            await self._end(worker_id, batch, backs)
        await batches.close(self.site.database, batch.batch_id, status, _errors(told) or None)
        log.info("a batch is read", extra={"batch": str(batch.batch_id), "status": status})

    async def _enter(self, batch: Open, answers: list[dict[str, Any]]) -> None:
        """Enter a page of answers; one that cannot be stored with the others is entered as one nobody can read."""
        try:
            await batches.answer(self.site.database, batch.batch_id, answers)
        except FlywheelError as error:
            if fault_of(error) is None:
                raise
            if len(answers) > 1:
                for answer in answers:
                    await self._enter(batch, [answer])
                return
            await batches.answer(self.site.database, batch.batch_id, [unreadable(answers[0]["call_id"], error.message)])

    async def _end(self, worker_id: UUID, batch: Open, backs: list[Back]) -> None:
        """End a page of spans; what cannot be stored with the others is ended by itself, at last without its score."""
        began = datetime.now(UTC)
        try:
            spans, scores = await batches.end(
                self.site.database, worker_id, batch.batch_id, [end_of(back) for back in backs], began
            )
        except FlywheelError as error:
            if fault_of(error) is None:
                raise
            if len(backs) > 1:
                for back in backs:
                    await self._end(worker_id, batch, [back])
                return
            ends = [without_score(backs[0], error.message)]
            spans, scores = await batches.end(self.site.database, worker_id, batch.batch_id, ends, began)
        metrics = self.site.metrics
        metrics.jobs.labels("batch", "completed").inc(spans)
        metrics.spans.labels("batch").inc(spans)
        metrics.scores.labels("batch").inc(scores)


def _errors(told: Mapping[str, Any]) -> str:
    """Return what the endpoint says is wrong with a batch as a whole."""
    errors = told.get("errors")
    data = errors.get("data") if isinstance(errors, Mapping) else None
    found = [each for each in data if isinstance(each, Mapping)] if isinstance(data, list) else []
    said = [each.get("message") or each.get("code") for each in found[:3]]
    return storable("; ".join(each[:MOST_DETAIL] for each in said if isinstance(each, str)))


def _ours(told: Mapping[str, Any]) -> Any:
    """Return which batch of ours one at the endpoint says it is."""
    metadata = told.get("metadata")
    return metadata.get(OUR_KEY) if isinstance(metadata, Mapping) else None
