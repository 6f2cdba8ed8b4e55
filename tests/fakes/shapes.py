"""The shape an answer is asked in: prose, a JSON object, a JSON schema, the arguments of a tool."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.fakes.faults import Fault
from tests.fakes.mind import Asked, Judgement

VERDICTS = {"pass", "fail"}
Schema = Mapping[str, Any]


def content_of(asked: Asked, judgement: Judgement) -> str:
    """Return the message in the shape the request asks."""
    if judgement.content is not None:
        return judgement.content
    form = asked.body.get("response_format") or {"type": "text"}
    if form["type"] == "text":
        return f"{judgement.critique}\n\nverdict: {judgement.verdict}"
    if form["type"] == "json_object":
        return compact({"critique": judgement.critique, "verdict": judgement.verdict})
    return compact(filled(form["json_schema"]["schema"], judgement))


def compact(value: Any) -> str:
    """Return JSON as models write it under a schema."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def filled(schema: Schema, judgement: Judgement, name: str = "", root: Schema | None = None) -> Any:
    """Return a value of a schema that says what the judgement says."""
    root = root if root is not None else schema
    schema = resolved(schema, root)
    if "const" in schema:
        return schema["const"]
    if name == "verdict" or VERDICTS.issubset(map(str, schema.get("enum", ()))):
        return judgement.verdict == "pass" if schema.get("type") == "boolean" else judgement.verdict
    if schema.get("enum"):
        choices = schema["enum"]
        return choices[0] if judgement.verdict == "pass" else choices[-1]
    return by_type(schema, judgement, root)


def by_type(schema: Schema, judgement: Judgement, root: Schema) -> Any:
    """Return a value of the schema's type."""
    passed = judgement.verdict == "pass"
    kind = schema.get("type")
    kind = next((each for each in kind if each != "null"), "null") if isinstance(kind, list) else kind
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        return {name: filled(part, judgement, name, root) for name, part in properties.items()}
    if kind == "array":
        return [filled(schema.get("items", {"type": "string"}), judgement, "", root)]
    if kind == "boolean":
        return passed
    if kind == "integer":
        return clamped(9 if passed else 1, schema)
    if kind == "number":
        return clamped(judgement.probability if passed else 1 - judgement.probability, schema)
    return None if kind == "null" else judgement.critique


def clamped(value: float, schema: Schema) -> float:
    """Return the number of a schema's range that is nearest."""
    low: float = schema.get("minimum", value)
    high: float = schema.get("maximum", value)
    return min(max(value, low), high)


def resolved(schema: Schema, root: Schema) -> Schema:
    """Follow references, and take the first of several schemas that is not null."""
    while True:
        if "$ref" in schema:
            target: Any = root
            for step in schema["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            schema = target
        elif schema.get("anyOf"):
            schema = next(part for part in schema["anyOf"] if part.get("type") != "null")
        else:
            return schema


def check_format(asked: Asked) -> None:
    """Refuse a response format that the real API refuses."""
    form = asked.body.get("response_format")
    if form is None or form.get("type") == "text":
        return
    if form.get("type") == "json_object":
        if "json" not in asked.prompt.lower():
            message = "'messages' must contain the word 'json' in some form, to use 'response_format' of 'json_object'."
            raise Fault(400, message, param="messages")
    elif form.get("type") == "json_schema":
        wanted = form.get("json_schema") or {}
        if not wanted.get("name") or "schema" not in wanted:
            raise schema_fault("'name' and 'schema' are required", "missing_required_parameter")
        if wanted.get("strict"):
            check_strict(wanted["schema"])
    else:
        raise Fault(400, f"Invalid value: '{form.get('type')}'.", "invalid_value", param="response_format.type")


def check_strict(schema: Any) -> None:
    """Refuse objects that leave fields open or optional: strict schemas may not."""
    if isinstance(schema, list):
        for part in schema:
            check_strict(part)
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("properties"), dict):
        if schema.get("additionalProperties") is not False:
            raise schema_fault("'additionalProperties' is required to be supplied and to be false")
        if set(schema.get("required", ())) != set(schema["properties"]):
            raise schema_fault("'required' is required to be an array including every key in properties")
    for part in schema.values():
        check_strict(part)


def schema_fault(what: str, code: str | None = None) -> Fault:
    """Return the error for a schema that is not accepted."""
    return Fault(400, f"Invalid schema for response_format: {what}.", code, param="response_format")


def tool_call(asked: Asked, judgement: Judgement) -> dict[str, Any] | None:
    """Return a call of the first tool (or the one demanded); None when the request offers none."""
    tools = [tool["function"] for tool in asked.body.get("tools") or () if tool.get("type") == "function"]
    choice = asked.body.get("tool_choice")
    if isinstance(choice, dict):
        tools = [tool for tool in tools if tool["name"] == choice["function"]["name"]]
    if not tools or choice == "none":
        return None
    arguments = compact(filled(tools[0].get("parameters", {"type": "object"}), judgement))
    return {"id": "call_1", "type": "function", "function": {"name": tools[0]["name"], "arguments": arguments}}
