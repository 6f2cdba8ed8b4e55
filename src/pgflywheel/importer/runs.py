"""One line holds a whole run: a root span for the run, and a child span for each step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid5

from pgflywheel.importer import values
from pgflywheel.importer.mapping import ColumnMap, Line, LineIds
from pgflywheel.importer.paths import Path
from pgflywheel.importer.rows import SpanRow
from pgflywheel.importer.values import Rejected

STOP_MARKS = frozenset({"TERMINATE", "###STOP###", "DONE", "FINISH", "FINISHED", "STOP"})
STEP = timedelta(milliseconds=1)  # between steps whose times the file does not have: only their order is known


@dataclass(frozen=True)
class Step:
    """A step of a run, before it has ids and a time."""

    place: str
    node: str
    node_kind: str
    input: Any
    output: Any
    model: bool = False
    error: bool = False


@dataclass
class SpansPerRun:
    """Make a root span and child spans of each line."""

    columns: ColumnMap
    imported_at: datetime
    line_ids: LineIds = field(default_factory=LineIds)

    def __call__(self, line: Line) -> list[SpanRow]:
        """Return the run's spans, the root first; raises Rejected."""
        root = self._root(line)
        steps = list(self.steps(line.item, root.input))
        children = [_child(root, place, step) for place, step in enumerate(steps, start=1)]
        root = replace(
            root,
            input=root.input if root.input is not None else self.asked(line.item),
            output=root.output if root.output is not None else _final_answer(steps),
        )
        return [root, *children]

    def steps(self, item: dict[str, Any], asked: str | None) -> Iterator[Step]:
        """Yield the steps of a run in order."""
        raise NotImplementedError

    def asked(self, item: dict[str, Any]) -> str | None:
        """Return what the run was asked, where no path says so."""
        return None

    def _root(self, line: Line) -> SpanRow:
        found = self.columns.columns(line.item)
        project = found.get("project", "default")
        ids = self.columns.ids(line.item, project, partial(self.line_ids, line, project))
        return SpanRow(**{"started_at": self.imported_at, **found, **ids}, timed="started_at" in found)


@dataclass
class MessagesRun(SpansPerRun):
    """Read chat messages as OpenAI writes them: an assistant's turn is a span, and so is each tool call."""

    messages: Path = field(default_factory=lambda: Path.parse("messages"))

    def __post_init__(self) -> None:
        self.columns = replace(self.columns, read_elsewhere=frozenset(self.messages.steps[:1]))

    def __call__(self, line: Line) -> list[SpanRow]:
        """Return the run's spans; the root keeps the messages as they are."""
        root, *children = super().__call__(line)
        messages = values.as_json(self.messages.find(line.item), self.messages.text)
        return [replace(root, messages=messages), *children]

    def steps(self, item: dict[str, Any], asked: str | None) -> Iterator[Step]:
        """Yield a step for each assistant message, each of its tool calls, and each result no call asked for."""
        messages = _objects(self.messages, item)
        results = _Results(messages)
        before: Any = asked
        for number, message in enumerate(messages):
            place, role, content = f"{self.messages.text}[{number}]", message.get("role"), message.get("content")
            if role == "assistant":
                calls = message.get("tool_calls") or []
                said = _content(content) if content else calls or None
                yield Step(place, "assistant", "agent", before, said, model=True)
                yield from _tool_calls(place, number, calls, results)
            elif role in ("tool", "function") and number not in results.taken:
                yield Step(place, str(message.get("name") or "tool"), "tool", None, _content(content))
            if role != "system":
                before = _content(content) if content else before

    def asked(self, item: dict[str, Any]) -> str | None:
        """Return the first thing the user said."""
        said = (message for message in _objects(self.messages, item) if message.get("role") == "user")
        first = next(said, {}).get("content")
        return values.as_text(_content(first), "input")


@dataclass
class StepsRun(SpansPerRun):
    """Read a list of steps, each with the name of who acted and what came out."""

    step_list: Path = field(default_factory=lambda: Path.parse("steps"))
    step_node: Path = field(default_factory=lambda: Path.parse("name"))
    step_input: Path | None = None
    step_output: Path = field(default_factory=lambda: Path.parse("content"))
    tools: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.columns = replace(self.columns, read_elsewhere=frozenset(self.step_list.steps[:1]))

    def steps(self, item: dict[str, Any], asked: str | None) -> Iterator[Step]:
        """Yield the listed steps; where no path says what went in, it is what came out of the step before."""
        before: Any = asked
        for number, step in enumerate(_objects(self.step_list, item)):
            node = str(self.step_node.find(step) or step.get("role") or "step")
            is_tool = node in self.tools or step.get("role") in ("tool", "function")
            output = self.step_output.find(step)
            given = self.step_input.find(step) if self.step_input else before
            place = f"{self.step_list.text}[{number}]"
            yield Step(place, node, "tool" if is_tool else "agent", given, _content(output), model=not is_tool)
            before = _content(output)


@dataclass
class _Results:
    """The tool results of a run; each answers one call before it, for ids are not always unique in one run."""

    messages: list[dict[str, Any]]
    taken: set[int] = field(default_factory=set)

    def take(self, call_id: Any, after: int) -> Any:
        """Return the content of the first result for a call that no other call has taken; None when there is none."""
        for number in range(after + 1, len(self.messages)):
            message = self.messages[number]
            if message.get("role") == "tool" and message.get("tool_call_id") == call_id and number not in self.taken:
                self.taken.add(number)
                return _content(message.get("content"))
        return None


def _tool_calls(place: str, after: int, calls: Any, results: _Results) -> Iterator[Step]:
    for number, call in enumerate(calls):
        if not isinstance(call, dict):
            raise Rejected(f"{place}.tool_calls[{number}] is not an object")
        function = call.get("function") or {}
        node = str(function.get("name") or call.get("name") or "tool")
        result = results.take(call.get("id"), after)
        yield Step(f"{place}.tool_calls[{number}]", node, "tool", function.get("arguments"), result)


def _objects(path: Path, item: dict[str, Any]) -> list[dict[str, Any]]:
    found = path.find(item)
    if not isinstance(found, list) or not found:
        raise Rejected(f"there is no list with something in it at {path.text}")
    for number, member in enumerate(found):
        if not isinstance(member, dict):
            raise Rejected(f"{path.text}[{number}] is not an object")
    return found


def _content(content: Any) -> Any:
    """Return the text of a message whose content is a list of parts; other content as it is."""
    if not isinstance(content, list):
        return content
    parts = [part.get("text") if isinstance(part, dict) else part for part in content]
    texts = [part for part in parts if isinstance(part, str)]
    return "\n".join(texts) if len(texts) == len(parts) else content


def _final_answer(steps: list[Step]) -> str | None:
    """Return the last thing said that is more than a mark of the end."""
    for step in reversed(steps):
        text = step.output if step.node_kind != "tool" and isinstance(step.output, str) else ""
        if text.strip() and text.strip().upper() not in STOP_MARKS:
            return values.as_text(text, "output")
    return None


def _child(root: SpanRow, place: int, step: Step) -> SpanRow:
    return SpanRow(
        span_id=uuid5(root.span_id, f"step {place}"),
        trace_id=root.trace_id,
        parent_span_id=root.span_id,
        started_at=root.started_at + place * STEP,
        timed=root.timed,
        project=root.project,
        environment=root.environment,
        release=root.release,
        session_id=root.session_id,
        user_id=root.user_id,
        node=values.as_text(step.node, f"{step.place} name") or "step",
        node_kind=step.node_kind,
        input=values.as_text(step.input, f"{step.place} input"),
        output=values.as_text(step.output, f"{step.place} output"),
        model=root.model if step.model else None,
        provider=root.provider if step.model else None,
    )
