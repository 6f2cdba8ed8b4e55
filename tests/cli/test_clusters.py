"""pgflywheel clusters: listed, shown with examples, named, formed anew; nothing hostile reaches the terminal."""

from __future__ import annotations

from typing import Any

from tests.sql.support import Connection
from tests.worker.test_clusters import ask

from .conftest import CommandLine

HOSTILE = "\x1b[31m<b>my card {} is lost</b>"


def sampled(connection: Connection, **texts: Any) -> None:
    connection.execute("update flywheel.embedders set span_permille = 1000")
    ask(connection, **texts)


def test_without_clusters_it_says_how_to_get_some(pgflywheel: CommandLine) -> None:
    assert "pgflywheel embedders sample" in pgflywheel("clusters", "list").stdout
    assert pgflywheel.json("clusters", "list") == []
    assert pgflywheel.json("clusters", "recluster") == {"projects": 0, "note": None}
    assert "there is no cluster" in pgflywheel("clusters", "show", "card", exit_code=1).stderr


def test_clusters_are_formed_listed_shown_and_named(connection: Connection, pgflywheel: CommandLine) -> None:
    sampled(connection)
    assert "1 project are formed anew" in pgflywheel("clusters", "recluster").stdout
    listed = pgflywheel.json("clusters", "list")
    assert sum(cluster["n"] for cluster in listed) == 24
    assert pgflywheel.json("clusters", "list", "--project", "none") == []
    one = listed[0]
    assert one["name"] in pgflywheel("clusters", "list").stdout
    renamed = pgflywheel.json("clusters", "rename", one["cluster_id"][-8:], "what we call it")
    assert renamed["name"] == "what we call it"
    assert renamed["named_by"]
    shown = pgflywheel.json("clusters", "show", "what we call it", "--examples", 2)
    assert shown["cluster"]["cluster_id"] == one["cluster_id"]
    assert len(shown["examples"]) == 2
    assert pgflywheel.json("clusters", "rename", "what we call it")["name"] == one["name"]


def test_hostile_names_and_texts_do_not_move_the_cursor(connection: Connection, pgflywheel: CommandLine) -> None:
    sampled(connection, text=HOSTILE)
    pgflywheel("clusters", "recluster")
    (cluster_id,) = {cluster["cluster_id"] for cluster in pgflywheel.json("clusters", "list")}
    pgflywheel("clusters", "rename", cluster_id, "\x1b[2Jgone")
    for words in (("list",), ("show", cluster_id), ("show", cluster_id, "--json"), ("list", "--json")):
        said = pgflywheel("clusters", *words).stdout
        assert "\x1b" not in said
        assert "gone" in said
