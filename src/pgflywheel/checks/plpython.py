"""A Python check as a plpython3u function: the same file runs in the worker and in the database."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from pgflywheel.checks.literals import sql_literal
from pgflywheel.errors import InvalidDefinition

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_CALLABLE = re.compile(r"([\w.]+):(\w+)")
_FUNCTION = """\
create or replace function {schema}.{name}(text text) returns {schema}.verdict
language plpython3u immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as {quote}
{body}{quote};
comment on function {schema}.{name}(text) is {comment};
"""
# The server's Python need not have pgflywheel: the check's whole file travels in the function, and is run once a
# session. A stand-in of pgflywheel.records is put in only where the real one is missing.
_BODY = """\
source = {source}
check = GD.get({key})
if check is None:
    import json, sys, types
    try:
        import pgflywheel.records
    except ImportError:
        records = types.ModuleType("pgflywheel.records")
        exec({records}, records.__dict__)
        sys.modules.update({{"pgflywheel": types.ModuleType("pgflywheel"), "pgflywheel.records": records}})
    module = sys.modules[{module}] = types.ModuleType({module})
    exec(compile(source, {file}, "exec", dont_inherit=True), module.__dict__)
    parameters = json.loads({parameters})
    check = GD[{key}] = lambda text: module.{function}(text, **parameters)
answer = check(text)
if answer is None or isinstance(answer, bool):
    return None if answer is None else (answer, None, None)
return answer.passed, answer.value, answer.critique
"""
_RECORDS = """\
from collections import namedtuple
Verdict = namedtuple("Verdict", "passed value critique", defaults=(None, None))
"""


def plpython_function(
    name: str, callable_path: str, parameters: Mapping[str, Any] | None = None, schema: str = "flywheel"
) -> str:
    """Return the SQL that makes function ``name(text)`` in a schema of the check ``module:function``.

    Its module may import the standard library, ``Verdict`` of pgflywheel.records, and inside functions whatever the
    server's own Python has. Raise InvalidDefinition for a check that cannot travel so.
    """
    if not _NAME.fullmatch(name):
        raise InvalidDefinition(
            f'function name "{name}" cannot be used', hint="Use lower-case letters, digits and underscores."
        )
    module, function = _load(callable_path)
    body = _body(inspect.getsource(module), module.__name__, function.__name__, parameters or {})
    comment = sql_literal(f"{inspect.getdoc(function) or callable_path}".split("\n")[0]).removesuffix("::text")
    return _FUNCTION.format(schema=schema, name=name, body=body, quote=_quote(body), comment=comment)


def _load(callable_path: str) -> tuple[ModuleType, Callable[..., Any]]:
    form = _CALLABLE.fullmatch(callable_path)
    if form is None:
        raise InvalidDefinition(f'callable "{callable_path}" is not module:function')
    try:
        module = importlib.import_module(form[1])
        function = getattr(module, form[2])
    except (ImportError, AttributeError) as error:
        raise InvalidDefinition(f"callable {callable_path} cannot be imported", str(error)) from error
    if not inspect.isfunction(function) or inspect.iscoroutinefunction(function) or function.__module__ != form[1]:
        raise InvalidDefinition(
            f"callable {callable_path} cannot be installed in the database",
            "It must be a plain function defined in that module, not a coroutine function, class or import.",
        )
    return module, function


def _body(source: str, module: str, function: str, parameters: Mapping[str, Any]) -> str:
    stored = json.dumps(parameters, sort_keys=True)
    key = hashlib.sha256("\0".join((source, function, stored)).encode()).hexdigest()
    return _BODY.format(
        source=_lines(source),
        key=repr(f"pgflywheel check {key}"),
        records=repr(_RECORDS),
        module=repr(f"{module.replace('.', '_')}_{key[:12]}"),
        file=repr(f"{module}.py"),
        parameters=repr(stored),
        function=function,
    )


def _lines(source: str) -> str:
    """Write a source as one string literal a line, so that \\sf shows it as it is read."""
    return "(\n" + "".join(f"    {line!r}\n" for line in source.splitlines(keepends=True)) + ")"


def _quote(body: str) -> str:
    """Return a dollar quote that does not end in the body."""
    tag = "check"
    while f"${tag}$" in body:
        tag += "_"
    return f"${tag}$"
