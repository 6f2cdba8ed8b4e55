"""The reference page of the catalogue: every ready-made definition with its parameters."""

from __future__ import annotations

import json

from pgflywheel.checks.catalogue import Entry, Parameter, entries

INTRODUCTION = """# Catalogue

Ready-made validators. Name one with `use` in a [definition file](validators.md#files), its parameters in `with`:

```toml
# brief.toml
[[validator]]
name = "answers_are_brief"
use = "maximum_length"
with = { limit = 800 }
```

Everything else of a definition (`filter`, `where`, `lane`, `action`, `severity`, `sample`) may stand beside it.
`{text}` in an expression is the target: `span.output` unless the definition says `target = "input"`.
"""


def page() -> str:
    """Return the page: each entry with what it asks and what may be said of it."""
    return "\n".join([INTRODUCTION, *map(_section, entries().values())])


def _section(entry: Entry) -> str:
    definition = entry.definition
    asked = definition.get("expression") or definition["callable"]
    said = f"Kind `{definition['kind']}`, target `{definition['target']}`, severity `{definition['severity']}`."
    parts = [f"## {entry.name}", entry.description, f"```text\n{asked.strip()}\n```", said]
    parts += ["\n".join(map(_line, entry.parameters.values()))] if entry.parameters else []
    return "\n\n".join(parts) + "\n"


def _line(parameter: Parameter) -> str:
    default = "required" if parameter.default is None else f"default `{json.dumps(parameter.default)}`"
    return f"- `{parameter.name}` ({parameter.type}, {default}): {parameter.description}"
