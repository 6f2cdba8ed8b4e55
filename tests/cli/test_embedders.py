"""pgflywheel embedders: add one, wait for it, let it serve, retire the other."""

from __future__ import annotations

from .conftest import CommandLine


def listed(pgflywheel: CommandLine) -> dict[str, str]:
    return {row["name"]: row["status"] for row in pgflywheel.json("embedders", "list")}


def test_an_embedder_is_added_serves_and_is_retired(pgflywheel: CommandLine) -> None:
    assert listed(pgflywheel) == {"hashing": "serving"}
    pgflywheel("embedders", "add", "wide", "--kind", "hashing", "--dimensions", 512)
    assert listed(pgflywheel) == {"hashing": "serving", "wide": "filling"}
    pgflywheel("embedders", "serve", "wide")
    assert "is retired" in pgflywheel("embedders", "retire", "hashing", "--yes").output
    assert listed(pgflywheel) == {"hashing": "retired", "wide": "serving"}


def test_retiring_asks_first(pgflywheel: CommandLine) -> None:
    pgflywheel("embedders", "add", "wide", "--kind", "hashing")
    pgflywheel("embedders", "retire", "wide", input="n\n", exit_code=1)
    assert listed(pgflywheel)["wide"] == "filling"


def test_options_become_parameters(pgflywheel: CommandLine) -> None:
    pgflywheel("embedders", "add", "wide", "--kind", "hashing", "--switch", "--spans", 10)
    wide = pgflywheel.json("embedders", "list")[1]
    assert (wide["name"], wide["span_permille"]) == ("wide", 10)
    pgflywheel("embedders", "sample", "wide", 0)
    assert pgflywheel.json("embedders", "list")[1]["span_permille"] == 0


def test_what_is_wrong_is_said_with_what_to_do(pgflywheel: CommandLine) -> None:
    said = pgflywheel("embedders", "add", "small", "--kind", "openai", exit_code=1).output
    assert "error: embedder small cannot be added: kind openai needs a model" in said
    assert "hint:" in said


def test_without_many_examples_no_index_is_built(pgflywheel: CommandLine) -> None:
    assert "nothing to do" in pgflywheel("embedders", "index").output
