"""A line that holds a run becomes a root span and a child for each step, in order."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgflywheel.importer.mapping import ColumnMap, parse_line
from pgflywheel.importer.paths import Path
from pgflywheel.importer.rows import SpanRow
from pgflywheel.importer.runs import MessagesRun, SpansPerRun, StepsRun
from pgflywheel.importer.values import Rejected

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CALL: dict[str, Any] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "find_order", "arguments": '{"id": 7}'},
}
CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Where is order 7?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "name": "find_order", "content": "in transit"},
    {"role": "assistant", "content": "It is on its way."},
    {"role": "user", "content": "Thanks! ###STOP###"},
]


def spans(run: SpansPerRun, item: dict[str, Any]) -> list[SpanRow]:
    return run(parse_line(1, json.dumps(item).encode()))


def messages_run(**paths: str) -> MessagesRun:
    return MessagesRun(ColumnMap({column: Path.parse(path) for column, path in paths.items()}), NOW)


def steps_run(**options: Any) -> StepsRun:
    return StepsRun(ColumnMap({"input": Path.parse("question")}), NOW, **options)


def test_messages_become_a_root_a_span_for_each_turn_and_one_for_each_tool_call() -> None:
    root, asked_tool, tool, answered = spans(messages_run(model="model"), {"model": "m", "messages": CHAT})
    assert (root.input, root.output, root.parent_span_id) == ("Where is order 7?", "It is on its way.", None)
    assert json.loads(root.messages or "") == CHAT
    assert (tool.node, tool.node_kind, tool.input, tool.output) == ("find_order", "tool", '{"id": 7}', "in transit")
    assert (asked_tool.node, asked_tool.node_kind, asked_tool.model) == ("assistant", "agent", "m")
    assert json.loads(asked_tool.output or "") == [CALL]
    assert (answered.input, answered.output) == ("in transit", "It is on its way.")
    assert tool.model is None


def test_children_hang_on_the_root_and_follow_it_in_order() -> None:
    root, *children = spans(messages_run(), {"messages": CHAT})
    assert {child.parent_span_id for child in children} == {root.span_id}
    assert {child.trace_id for child in children} == {root.trace_id}
    assert [child.started_at - NOW for child in children] == [timedelta(milliseconds=at) for at in (1, 2, 3)]
    assert all(child.ended_at is None for child in children)


def test_a_run_read_twice_has_the_same_ids() -> None:
    first, second = (spans(messages_run(), {"messages": CHAT}) for _ in range(2))
    assert [span.span_id for span in first] == [span.span_id for span in second]


def test_an_id_that_names_two_calls_gives_each_its_own_result() -> None:
    chat = [*CHAT[:4], CHAT[2], {**CHAT[3], "content": "delivered"}]
    tools = [span for span in spans(messages_run(), {"messages": chat}) if span.node_kind == "tool"]
    assert [tool.output for tool in tools] == ["in transit", "delivered"]


def test_a_call_without_result_and_a_result_without_call_are_spans_too() -> None:
    chat = [CHAT[1], CHAT[2], {"role": "tool", "tool_call_id": "other", "name": "clock", "content": "noon"}]
    _root, _turn, unanswered, orphan = spans(messages_run(), {"messages": chat})
    assert (unanswered.node, unanswered.output) == ("find_order", None)
    assert (orphan.node, orphan.input, orphan.output) == ("clock", None, "noon")


def test_content_in_parts_is_read_as_one_text() -> None:
    chat = [{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}]
    assert spans(messages_run(), {"messages": chat})[0].input == "one\ntwo"


def test_steps_take_what_went_before_as_input_and_the_last_word_that_is_no_mark_as_answer() -> None:
    item = {
        "question": "How many?",
        "steps": [
            {"name": "Planner", "role": "assistant", "content": "Run it."},
            {"name": "Terminal", "role": "user", "content": "4"},
            {"name": "Planner", "role": "assistant", "content": "Four."},
            {"name": "Planner", "role": "assistant", "content": "TERMINATE"},
        ],
    }
    root, plan, tool, answer, _end = spans(steps_run(tools=frozenset({"Terminal"})), item)
    assert (root.input, root.output) == ("How many?", "Four.")
    assert (plan.node, plan.node_kind, plan.input) == ("Planner", "agent", "How many?")
    assert (tool.node, tool.node_kind, tool.input, tool.output) == ("Terminal", "tool", "Run it.", "4")
    assert answer.input == "4"


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"messages": "hello"}, "there is no list with something in it at messages"),
        ({"messages": []}, "there is no list with something in it at messages"),
        ({"messages": ["hello"]}, "messages[0] is not an object"),
        ({"messages": [{"role": "assistant", "tool_calls": ["x"]}]}, "messages[0].tool_calls[0] is not an object"),
        ({"messages": [{"role": "assistant", "content": "a\0"}]}, "messages[0] output holds the character U+0000"),
        ({"messages": [{"role": "user", "content": "a\ud800"}]}, "input holds the lone surrogate U+D800"),
    ],
)
def test_a_run_that_cannot_be_read_is_rejected_with_the_place(item: dict[str, Any], said: str) -> None:
    with pytest.raises(Rejected) as rejected:
        spans(messages_run(), item)
    assert said in str(rejected.value)
