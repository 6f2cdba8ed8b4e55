"""Files and batches: a batch goes one state further each time it is asked for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tests.fakes.behaviour import Behaviour
from tests.fakes.faults import Fault

Json = dict[str, Any]
Answer = Callable[[str, Json], tuple[int, Any]]  # of an endpoint and a body: a status and the answer
ENDPOINTS = ("/v1/chat/completions", "/v1/embeddings")
ENDED = ("completed", "failed", "expired", "cancelled")
EXPIRED = ("batch_expired", "This request could not be executed before the completion window expired.")
CANCELLED = ("batch_cancelled", "This request was not executed: the batch was cancelled.")


@dataclass
class File:
    """An uploaded or written file."""

    id: str
    name: str
    purpose: str
    content: bytes
    created: int = field(default_factory=lambda: int(time.time()))

    def as_json(self) -> Json:
        """Return it as the API tells it."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.content),
            "created_at": self.created,
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
        }


@dataclass
class Batch:
    """A batch: what is told of it, the lines still to answer, and those answered."""

    told: Json
    waiting: list[Json]
    errors: list[Json]
    polls: int = 0
    output: list[Json] = field(default_factory=list)
    failed: list[Json] = field(default_factory=list)

    def enter(self, state: str) -> None:
        """Go to a state and note when."""
        self.told["status"] = state
        if state != "validating":
            self.told[f"{state}_at"] = int(time.time())


class Office:
    """Keep files and batches, and answer a batch's lines while it is in progress."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.files: dict[str, File] = {}
        self.batches: dict[str, Batch] = {}
        self.numbers = count(1)

    def store(self, name: str, purpose: str, content: bytes) -> File:
        """Keep a file."""
        file = File(f"file-{next(self.numbers):06d}", name, purpose, content)
        self.files[file.id] = file
        return file

    def upload(self, content_type: str, raw: bytes) -> Json:
        """Take a file from a multipart form."""
        parts = form_parts(content_type, raw)
        if "file" not in parts or "purpose" not in parts:
            raise Fault(400, "'file' and 'purpose' are required.", "missing_required_parameter")
        name, content = parts["file"]
        return self.store(name or "upload", parts["purpose"][1].decode(), content).as_json()

    def file(self, file_id: str) -> File:
        """Return a file, or refuse."""
        if file_id not in self.files:
            raise Fault(404, f"No such File object: {file_id}", param="id")
        return self.files[file_id]

    def delete(self, file_id: str) -> Json:
        """Forget a file."""
        del self.files[self.file(file_id).id]
        return {"id": file_id, "object": "file", "deleted": True}

    def create(self, body: Any, settings: Behaviour) -> Json:
        """Begin a batch."""
        if not isinstance(body, dict) or body.get("endpoint") not in ENDPOINTS:
            raise Fault(400, "Invalid value: 'endpoint'.", "invalid_value", param="endpoint")
        lines, errors = read_lines(self.file(str(body.get("input_file_id"))).content, body["endpoint"])
        if settings.batch_fails is not None:
            errors.append({"code": "token_limit_exceeded", "message": settings.batch_fails, "line": None})
        now = int(time.time())
        told = {
            "id": f"batch_{next(self.numbers):06d}",
            "object": "batch",
            "endpoint": body["endpoint"],
            "input_file_id": body["input_file_id"],
            "completion_window": body.get("completion_window", "24h"),
            "metadata": body.get("metadata"),
            "status": "validating",
            "created_at": now,
            "expires_at": now + 86400,
            "output_file_id": None,
            "error_file_id": None,
            "errors": None,
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
        }
        self.batches[str(told["id"])] = Batch(told, lines, errors)
        return told

    def batch(self, batch_id: str) -> Batch:
        """Return a batch, or refuse."""
        if batch_id not in self.batches:
            raise Fault(404, f"No batch found with id '{batch_id}'.", param="id")
        return self.batches[batch_id]

    def poll(self, batch_id: str, settings: Behaviour) -> Json:
        """Return a batch after it went on, if its polls in this state are used up."""
        batch = self.batch(batch_id)
        batch.polls += 1
        if batch.polls >= settings.batch_polls and batch.told["status"] not in ENDED:
            batch.polls = 0
            self.go_on(batch, settings)
        return batch.told

    def cancel(self, batch_id: str) -> Json:
        """Begin to cancel a batch."""
        batch = self.batch(batch_id)
        if batch.told["status"] not in ("validating", "in_progress", "finalizing"):
            raise Fault(409, f"Cannot cancel a batch with status '{batch.told['status']}'.")
        batch.polls = 0
        batch.enter("cancelling")
        return batch.told

    def go_on(self, batch: Batch, settings: Behaviour) -> None:
        """Take a batch to its next state; in progress half of its lines are answered."""
        state = batch.told["status"]
        most = settings.batch_expires_after
        if state == "validating" and batch.errors:
            batch.told["errors"] = {"object": "list", "data": batch.errors}
            batch.enter("failed")
        elif state == "validating":
            half = len(batch.waiting) // 2
            self.answer_lines(batch, half if most is None else min(half, most))
            batch.enter("in_progress")
        elif state == "in_progress" and most is not None:
            self.answer_lines(batch, most - len(batch.output) - len(batch.failed))
            self.finish(batch, "expired", EXPIRED)
        elif state == "in_progress":
            self.answer_lines(batch, len(batch.waiting))
            batch.enter("finalizing")
        else:
            self.finish(batch, "completed" if state == "finalizing" else "cancelled", CANCELLED)

    def answer_lines(self, batch: Batch, most: int) -> None:
        """Answer so many of the waiting lines."""
        for line in batch.waiting[: max(0, most)]:
            status, body = self.answer(batch.told["endpoint"], line["body"])
            response = {"status_code": status, "request_id": f"req_{next(self.numbers)}", "body": body}
            (batch.output if status == 200 else batch.failed).append(result(line, response, None))
        del batch.waiting[: max(0, most)]
        batch.told["request_counts"] |= {"completed": len(batch.output), "failed": len(batch.failed)}

    def finish(self, batch: Batch, state: str, reason: tuple[str, str]) -> None:
        """End a batch: what still waits goes to the error file, the output in no promised order."""
        error = {"code": reason[0], "message": reason[1]}
        batch.failed += [result(line, None, error) for line in batch.waiting]
        batch.waiting = []
        batch.told["request_counts"]["failed"] = len(batch.failed)
        for field_name, lines in (("output_file_id", batch.output[::-1]), ("error_file_id", batch.failed)):
            if lines:
                content = "".join(json.dumps(line) + "\n" for line in lines).encode()
                batch.told[field_name] = self.store(f"{batch.told['id']}.jsonl", "batch_output", content).id
        batch.enter(state)


def result(line: Mapping[str, Any], response: Json | None, error: Json | None) -> Json:
    """Return a line of an output or error file."""
    return {
        "id": f"batch_req_{line['custom_id']}",
        "custom_id": line["custom_id"],
        "response": response,
        "error": error,
    }


def read_lines(content: bytes, endpoint: str) -> tuple[list[Json], list[Json]]:
    """Return the requests of an input file, and what is wrong with it."""
    lines: list[Json] = []
    errors: list[Json] = []
    seen: set[str] = set()
    for number, text in enumerate(content.decode().splitlines(), 1):
        problem, line = problem_of(text, endpoint, seen)
        if problem:
            errors.append({"code": problem, "message": f"line {number}: {problem}", "line": number, "param": None})
        else:
            lines.append(line)
    if not lines and not errors:
        errors.append({"code": "empty_file", "message": "The input file is empty.", "line": None, "param": None})
    return lines, errors


def problem_of(text: str, endpoint: str, seen: set[str]) -> tuple[str | None, Json]:
    """Return what is wrong with a line of an input file, and the line."""
    try:
        line = json.loads(text)
    except ValueError:
        return "invalid_json_line", {}
    if not isinstance(line, dict) or not {"custom_id", "method", "url", "body"} <= set(line):
        return "missing_required_parameter", {}
    if line["url"] != endpoint:
        return "mismatched_url", line
    if line["custom_id"] in seen:
        return "duplicate_custom_id", line
    seen.add(line["custom_id"])
    return None, line


def form_parts(content_type: str, raw: bytes) -> dict[str, tuple[str | None, bytes]]:
    """Return file name and content of each part of a multipart form."""
    boundary = b"--" + content_type.partition("boundary=")[2].strip('"').encode()
    parts: dict[str, tuple[str | None, bytes]] = {}
    for part in raw.split(boundary)[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        names = dict(each.split("=", 1) for each in head.decode().replace("\r\n", ";").split(";") if "=" in each)
        fields = {name.strip().lower(): value.strip().strip('"') for name, value in names.items()}
        parts[fields.get("name", "")] = (fields.get("filename"), content.removesuffix(b"\r\n"))
    return parts
