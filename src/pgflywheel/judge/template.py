"""Templates of items: Jinja2 in its sandbox; every value it inserts is JSON that cannot break out."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pgflywheel.errors import InvalidDefinition, UsageError
from pgflywheel.judge.escape import as_data
from pgflywheel.judge.records import storable

if TYPE_CHECKING:
    from jinja2 import Environment, Template

MOST_DETAIL = 500
NAMES = ("input", "output", "documents", "session", "parents", "span")
_UNESCAPED_FILTERS = ("safe", "xmlattr", "urlize", "pprint", "random")  # the last two differ from call to call


class TemplateFailed(Exception):
    """A template could not be rendered for an item."""


@lru_cache(maxsize=1)
def _environment() -> Environment:
    try:
        from jinja2 import StrictUndefined, Undefined
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise UsageError(
            "a judge's template needs the package jinja2", hint="pip install 'pgflywheel[judge]'"
        ) from error

    def inserted(value: Any) -> str:
        if isinstance(value, Undefined):
            return str(value)  # raises: it is strict
        return as_data(value)

    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, finalize=inserted, autoescape=False)
    for name in _UNESCAPED_FILTERS:
        environment.filters.pop(name, None)
    environment.filters["tojson"] = lambda value: value  # what is inserted becomes JSON anyway
    environment.globals.clear()
    return environment


@lru_cache(maxsize=256)
def compiled(template: str, name: str) -> Template:
    """Return the template of a judge, compiled; InvalidDefinition says where it is wrong."""
    environment = _environment()
    from jinja2 import TemplateSyntaxError

    try:
        return environment.from_string(template)
    except TemplateSyntaxError as error:
        raise InvalidDefinition(
            f"judge {name}: template is not valid: {error.message}", f"It is line {error.lineno} of the template."
        ) from error


def require_known_names(template: str, name: str) -> None:
    """Raise InvalidDefinition when a judge's template asks for a name no item ever has."""
    from jinja2 import meta

    unknown = meta.find_undeclared_variables(_environment().parse(template)).difference(NAMES)
    if unknown:
        raise InvalidDefinition(
            f"judge {name}: the template asks for {', '.join(sorted(unknown))}", f"It has {', '.join(NAMES)}."
        )


def rendered(template: str, name: str, values: dict[str, Any]) -> str:
    """Render a judge's template; TemplateFailed when it asks for what the item does not have."""
    made = compiled(template, name)
    try:
        return made.render(values)
    except Exception as error:  # whatever a filter raises for one item is that item's
        raise TemplateFailed(storable(f"{type(error).__name__}: {error}"[:MOST_DETAIL])) from error
