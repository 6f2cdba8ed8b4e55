"""A report as one page of HTML: nothing is loaded, nothing runs, everything is escaped."""

from __future__ import annotations

from pgflywheel.report.markup import element, text
from pgflywheel.report.model import Note, Page, Plot, Quote, Section, Table
from pgflywheel.report.svg import COLOURS, draw

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6470; --line: #d5dae0; --paper: #fff; --warn: #9a4b00;
  --c0: #1f6feb; --c1: #c2410c; --c2: #15803d; --c3: #7e22ce; --c4: #0f766e; --c5: #be185d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #9aa4b0; --line: #38404a; --paper: #14181d;
  --warn: #f0a35b; --c0: #6ea8fe; --c1: #fb923c; --c2: #4ade80; --c3: #c084fc; --c4: #5eead4; --c5: #f9a8d4; } }
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin-top: 2.4rem; }
.facts, .meaning, figcaption { color: var(--soft); } .important { color: var(--warn); font-weight: 600; }
figure { display: inline-block; margin: 1rem 1rem 0 0; max-width: 100%; } svg { max-width: 100%; height: auto; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; } .grid { stroke: var(--line); stroke-width: 1; }
.line { fill: none; stroke-width: 2; } .band { opacity: .18; stroke: none; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; margin-top: .8rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; } .number { text-align: right; } .key { margin-right: .9rem; white-space: nowrap; }
.key svg { vertical-align: -1px; margin-right: .3rem; }
blockquote { margin: .8rem 0; padding-left: .9rem; border-left: 3px solid var(--line); white-space: pre-wrap; }
blockquote b { color: var(--soft); font-weight: 600; } @media print { body { margin: 0; max-width: none; } }
"""


def render(page: Page) -> str:
    """Return the page as one document."""
    head = '<meta charset="utf-8">' + f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head += '<meta name="referrer" content="no-referrer">'
    head += text("title", page.title) + element("style", _STYLE + _colours())
    body = text("h1", page.title) + "".join(text("p", fact, class_="facts") for fact in page.facts)
    body += "".join(_section(section) for section in page.sections)
    document = element("html", element("head", head) + element("body", element("main", body)), lang="en")
    return f"<!doctype html>\n{document}\n"


def _colours() -> str:
    rules = ".line.c{0} {{ stroke: var(--c{0}); }} .c{0}:not(.line) {{ fill: var(--c{0}); }}"
    return "\n".join(rules.format(number) for number in range(COLOURS))


def _section(section: Section) -> str:
    inside = text("h2", section.title) + text("p", section.meaning, class_="meaning")
    return element("section", inside + ("".join(map(_part, section.parts)) or text("p", "no data")))


def _part(part: Plot | Table | Quote | Note) -> str:
    if isinstance(part, Plot):
        return _figure(part)
    if isinstance(part, Table):
        return _table(part)
    if isinstance(part, Quote):
        return _quote(part)
    return text("p", part.text, class_="important" if part.important else "note")


def _figure(plot: Plot) -> str:
    keys = ""
    for number, line in enumerate(plot.lines if len(plot.lines) > 1 else ()):
        square = element("rect", width=10, height=10, class_=f"c{number % COLOURS}")
        square = element("svg", square, width=10, height=10, viewBox="0 0 10 10", aria_hidden="true")
        keys += element("span", square + text("span", line.name), class_="key")
    caption = element("figcaption", text("div", plot.title) + keys)
    return element("figure", draw(plot) + caption)


def _table(table: Table) -> str:
    head = "".join(_cell("th", name, place in table.numeric) for place, name in enumerate(table.columns))
    rows = "".join(
        element("tr", "".join(_cell("td", value, place in table.numeric) for place, value in enumerate(row)))
        for row in table.rows
    )
    whole = element("table", element("thead", element("tr", head)) + element("tbody", rows))
    return element("div", whole, class_="scroll")


def _cell(name: str, value: str, numeric: bool) -> str:
    return text(name, value, class_="number") if numeric else text(name, value)


def _quote(quote: Quote) -> str:
    said = "\n".join(f"{text('b', name)} {text('span', value)}" for name, value in quote.texts)
    return element("blockquote", text("div", quote.where, class_="meaning") + said)
