"""Embeddings: each text gets its vector once, and again when it changes; embedders switch without a gap."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from pgflywheel.judge.embed import Hashing
from tests.sql.support import Connection, claim, define, insert, refused, rows, value, version_id, worker

EMBEDDED = "select count(*) from flywheel._example_embeddings where embedder_id = %s"


@pytest.fixture
def question(connection: Connection) -> uuid.UUID:
    """A validator that examples are about."""
    define(connection, "polite")
    found: uuid.UUID = value(connection, "select validator_id from flywheel.validators")
    return found


def example(
    connection: Connection, question: uuid.UUID, output: str | None = "Thank you.", **columns: Any
) -> uuid.UUID:
    """Insert an example past the labels that make them in life; its label is of the dev split, which makes none."""
    span: dict[str, Any] = {"validator_id": question, "span_id": uuid.uuid4(), "trace_id": uuid.uuid4(), "revision": 1}
    span |= {"started_at": "now", "project": "p", "group_key": "g", "passed": True, "label_id": uuid.uuid4()}
    add(connection, "labels", span | {"annotator": "ann", "split": "dev"})
    given: dict[str, Any] = {
        "example_id": uuid.uuid4(),
        "kind": "label",
        "node": "app",
        "author": "ann",
        "tokens": 9,
        "status": "servable",
    }
    texts = {"input": "Hello?", "output": output, "content_hash": hashed(output)}
    add(connection, "examples", span | given | texts | columns)
    example_id: uuid.UUID = given["example_id"]
    return example_id


def add(connection: Connection, table: str, row: dict[str, Any]) -> None:
    statement = f"insert into flywheel.{table} ({', '.join(row)}) values ({', '.join(['%s'] * len(row))})"
    connection.execute(statement.encode(), list(row.values()))


def hashed(text: str | None) -> str:
    return hashlib.sha256((text or "").encode()).hexdigest()


def read(connection: Connection, fences: list[uuid.UUID]) -> list[tuple[Any, ...]]:
    query = "select embedder_id, subject_id, part, content_hash, body from flywheel._read_embeddings(%s) order by 2, 3"
    return rows(connection, query, [fences])


def write(connection: Connection, worker_id: uuid.UUID, fences: list[uuid.UUID], texts: list[tuple[Any, ...]]) -> int:
    """Embed texts of one embedder as a worker does; return how many jobs ended."""
    size = value(connection, "select dimensions from flywheel.embedders where embedder_id = %s", [texts[0][0]])
    numbers = [number for row in texts for number in Hashing("h", size).vector(row[4])]
    query = "select flywheel._write_embeddings(%s, %s, %s, %s, %s, %s, %s::real[])"
    given = [texts[0][0], *([row[place] for row in texts] for place in (1, 2, 3)), numbers]
    return int(value(connection, query, [worker_id, fences, *given]))


def embed_all(connection: Connection) -> int:
    """Do what is queued; return how many texts got a vector."""
    worker_id, made = worker(connection), 0
    for priority in (1, 2):
        for fence, *_ in claim(connection, worker_id, lane="embed", priority=priority):
            texts = read(connection, [fence])
            made += len(texts)
            if texts:
                assert write(connection, worker_id, [fence], texts) == 1
            else:
                connection.execute("select flywheel._finish(%s, %s)", [worker_id, [fence]])
    return made


def embedder(connection: Connection, name: str = "hashing") -> uuid.UUID:
    found: uuid.UUID = value(connection, "select embedder_id from flywheel.embedders where name = %s", [name])
    return found


def state(connection: Connection, name: str) -> tuple[str, int, int]:
    """Return status, embedded and waiting of an embedder."""
    query = "select status, embedded, waiting from flywheel.embedder_status where name = %s"
    status, embedded, waiting = rows(connection, query, [name])[0]
    return status, embedded, waiting


def test_an_install_begins_with_an_embedder_that_needs_nothing(connection: Connection) -> None:
    query = "select name, kind, dimensions, status from flywheel.embedder_status"
    assert rows(connection, query) == [("hashing", "hashing", 384, "serving")]


def test_an_example_gets_a_vector_of_what_is_judged_and_of_its_input(
    connection: Connection, question: uuid.UUID
) -> None:
    one = example(connection, question)
    assert embed_all(connection) == 2
    query = "select part, servable, validator_id, content_hash from flywheel._example_embeddings order by part"
    whole = "Hello?\n\nThank you."
    assert rows(connection, query) == [
        ("input", True, question, hashed("Hello?")),
        ("item", True, question, hashed(whole)),
    ]
    stored = value(connection, "select embedding::real[] from flywheel._example_embeddings where part = 'item'")
    assert stored == pytest.approx(list(Hashing().vector(whole)), abs=1e-3)
    assert state(connection, "hashing") == ("serving", 1, 0)
    assert value(connection, "select count(*) from flywheel._running") == 0
    assert one


def test_a_question_about_the_input_embeds_the_input_alone(connection: Connection) -> None:
    define(connection, "allowed", target="input")
    asked = value(connection, "select validator_id from flywheel.validators where name = 'allowed'")
    example(connection, asked)
    embed_all(connection)
    hashes = rows(connection, "select distinct content_hash from flywheel._example_embeddings")
    assert hashes == [(hashed("Hello?"),)]


def test_an_example_without_texts_has_a_vector_too(connection: Connection, question: uuid.UUID) -> None:
    example(connection, question, None, input=None)
    assert embed_all(connection) == 1
    assert state(connection, "hashing") == ("serving", 1, 0)


def test_only_a_text_that_changes_is_embedded_again(connection: Connection, question: uuid.UUID) -> None:
    one = example(connection, question)
    embed_all(connection)
    connection.execute("update flywheel.examples set trust = 1")
    assert value(connection, "select count(*) from flywheel._ready") == 0
    change = "update flywheel.examples set output = 'Go away.', content_hash = 'x' where example_id = %s"
    connection.execute(change, [one])
    assert embed_all(connection) == 1  # its input is the same
    query = "select content_hash from flywheel._example_embeddings where part = 'item'"
    assert value(connection, query) == hashed("Hello?\n\nGo away.")


def test_vectors_follow_the_status_of_their_example(connection: Connection, question: uuid.UUID) -> None:
    example(connection, question, status="candidate")
    embed_all(connection)
    query = "select distinct servable from flywheel._example_embeddings"
    assert rows(connection, query) == [(False,)]
    connection.execute("update flywheel.examples set status = 'servable'")
    assert rows(connection, query) == [(True,)]
    connection.execute("update flywheel.examples set status = 'revoked', revoked_reason = 'wrong'")
    assert rows(connection, query) == [(False,)]


def test_a_status_that_changes_while_the_vector_is_written_is_not_lost(
    connection: Connection, question: uuid.UUID, connect: Callable[[], Connection]
) -> None:
    example(connection, question, status="candidate")
    worker_id = worker(connection)
    fences = [claim(connection, worker_id, lane="embed")[0][0]]
    texts, other = read(connection, fences), connect()
    with connection.transaction():
        write(connection, worker_id, fences, texts)
        other.execute("set lock_timeout = '200ms'")
        diag = refused(other, "update flywheel.examples set status = 'servable'")
        assert diag.sqlstate == "55P03"
    other.execute("update flywheel.examples set status = 'servable'")
    assert rows(connection, "select distinct servable from flywheel._example_embeddings") == [(True,)]


def test_a_text_that_changed_meanwhile_keeps_out_the_old_vector(connection: Connection, question: uuid.UUID) -> None:
    example(connection, question)
    worker_id = worker(connection)
    fences = [claim(connection, worker_id, lane="embed")[0][0]]
    texts = read(connection, fences)
    connection.execute("update flywheel.examples set output = 'Go away.', content_hash = 'x'")
    assert write(connection, worker_id, fences, texts) == 1
    assert rows(connection, "select part from flywheel._example_embeddings") == [("input",)]
    assert embed_all(connection) == 1


def test_an_example_queued_twice_is_embedded_once_for_both(connection: Connection, question: uuid.UUID) -> None:
    example_id = example(connection, question, "Yes.")
    embedder_id = embedder(connection)
    query = "select flywheel._queue_subjects(%s, %s, 1, now() - interval '1 hour', now(), 'reconcile')"
    connection.execute(query, [embedder_id, [example_id]])
    worker_id = worker(connection)
    fences = [fence for fence, *_ in claim(connection, worker_id, lane="embed")]
    texts = read(connection, fences)
    assert [text[1:3] for text in texts] == [(example_id, "input"), (example_id, "item")]
    assert write(connection, worker_id, fences, texts) == 2
    assert state(connection, "hashing") == ("serving", 1, 0)


def test_a_worker_that_lost_its_claim_writes_nothing(connection: Connection, question: uuid.UUID) -> None:
    example(connection, question)
    worker_id = worker(connection)
    fences = [claim(connection, worker_id, lane="embed")[0][0]]
    texts = read(connection, fences)
    connection.execute("select flywheel._leave(%s)", [worker_id])
    assert write(connection, worker_id, fences, texts) == 0
    assert state(connection, "hashing") == ("serving", 0, 1)
    assert embed_all(connection) == 2


def test_a_very_long_text_is_read_at_both_ends(connection: Connection, question: uuid.UUID) -> None:
    example(connection, question, "a" * 50_000 + "the end")
    worker_id = worker(connection)
    texts = read(connection, [claim(connection, worker_id, lane="embed")[0][0]])
    body = next(text for _, _, part, _, text in texts if part == "item")
    assert (len(body), body[:6], body[-7:]) == (32_769, "Hello?", "the end")


def test_a_new_embedder_fills_while_the_old_one_serves_and_follows_it(
    connection: Connection, question: uuid.UUID
) -> None:
    example(connection, question)
    embed_all(connection)
    connection.execute("select flywheel.add_embedder('wide', 'hashing', dimensions => 512)")
    assert state(connection, "wide") == ("filling", 0, 1)
    diag = refused(connection, "select flywheel.serve_embedder('wide')")
    assert (diag.sqlstate, diag.message_detail) == ("WF004", "1 examples have no vector of it yet.")
    assert embed_all(connection) == 2
    example(connection, question, "You are welcome.")  # both are kept up to date
    assert embed_all(connection) == 4
    connection.execute("select flywheel.serve_embedder('wide')")
    assert state(connection, "wide") == ("serving", 2, 0)
    assert state(connection, "hashing") == ("filling", 2, 0)
    assert value(connection, "select flywheel.retire_embedder('hashing')") == 4
    assert value(connection, EMBEDDED, [embedder(connection)]) == 0
    example(connection, question, "Bye.")
    assert embed_all(connection) == 2


def test_an_embedder_told_to_switch_serves_once_it_is_complete(connection: Connection, question: uuid.UUID) -> None:
    example(connection, question)
    embed_all(connection)
    connection.execute("""select flywheel.add_embedder('wide', 'hashing', parameters => '{"switch": true}')""")
    connection.execute("select flywheel._queue_embeddings()")
    assert state(connection, "hashing")[0] == "serving"
    embed_all(connection)
    connection.execute("select flywheel._queue_embeddings()")
    assert (state(connection, "hashing")[0], state(connection, "wide")[0]) == ("filling", "serving")
    assert value(connection, "select parameters from flywheel.embedders where name = 'wide'") == {}


def test_what_came_past_the_triggers_is_queued_once_a_minute(connection: Connection, question: uuid.UUID) -> None:
    with connection.transaction():
        connection.execute("set local session_replication_role = replica")
        example(connection, question)
    connection.execute("update flywheel.embedders set checked_at = now()")
    assert value(connection, "select flywheel._queue_embeddings()") == 0
    connection.execute("update flywheel.embedders set checked_at = now() - interval '2 minutes'")
    assert value(connection, "select flywheel._queue_embeddings()") == 1
    connection.execute("update flywheel.embedders set checked_at = now() - interval '2 minutes'")
    assert value(connection, "select flywheel._queue_embeddings()") == 0  # it is on its way
    assert embed_all(connection) == 2


def test_spans_of_sampled_traces_are_embedded_from_then_on(connection: Connection) -> None:
    insert(connection, "before", ingested_at="2026-01-01")
    connection.execute("select flywheel.sample_embedder('hashing', 1000)")
    one = insert(connection, "after")
    connection.execute("update flywheel.embedders set checked_at = now() - interval '61 seconds'")
    assert value(connection, "select flywheel._queue_embeddings()") == 1
    assert embed_all(connection) == 3
    query = "select span_id, part, revision from flywheel.span_embeddings order by part"
    assert rows(connection, query) == [(one, "input", 1), (one, "item", 1), (one, "output", 1)]


def test_a_sample_takes_whole_traces_and_about_its_share(connection: Connection) -> None:
    connection.execute("select flywheel.sample_embedder('hashing', 100)")
    connection.execute(
        "insert into flywheel.spans (trace_id, input) select traces.id, 'in'"
        "  from (select gen_random_uuid() as id from generate_series(1, 2000)) as traces, generate_series(1, 2)"
    )
    traces, spans = rows(
        connection,
        "select count(distinct trace_id), count(*)"
        "  from flywheel.embedders, flywheel._sampled_spans(embedders, 10000) join flywheel.spans using (span_id)",
    )[0]
    assert spans == 2 * traces
    assert 130 < traces < 270


def test_an_embedder_a_judge_names_is_not_retired(connection: Connection) -> None:
    connection.execute("select flywheel.add_embedder('wide', 'hashing')")
    definition = {
        "kind": "neighbours",
        "shots": {"embedder": "wide"},
        "question": "?",
        "pass_when": "x",
        "fail_when": "y",
    }
    define(connection, "near", **definition)
    connection.execute("select flywheel.activate_validator('near')")
    assert version_id(connection, "near")
    assert refused(connection, "select flywheel.retire_embedder('wide')").message_detail == "Validator near names it."
    assert (
        refused(connection, "select flywheel.retire_embedder('hashing')").message_detail == "It is the one that serves."
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("'hashing', 'hashing'", "there is one of this name"),
        ("'Wide', 'hashing'", "Wide is no name of 1 to 63 lower-case letters, digits, - and _"),
        ("'wide', 'glove'", "glove is not one of hashing, openai, sentence_transformers"),
        ("'wide', 'openai', 'm'", "kind openai needs a provider"),
        ("'wide', 'hashing', 'm'", "kind hashing has no model"),
        ("'wide', 'sentence_transformers'", "kind sentence_transformers needs a model"),
        ("'wide', 'hashing', dimensions => 4001", "4001 dimensions are not from 8 to 4000"),
        ("'wide', 'hashing', parameters => '[]'", "parameters are not an object"),
    ],
)
def test_an_embedder_that_cannot_be_is_refused(connection: Connection, arguments: str, said: str) -> None:
    diag = refused(connection, f"select flywheel.add_embedder({arguments})")
    assert diag.sqlstate == "WF009"
    assert (diag.message_primary or "").endswith(f"cannot be added: {said}")


def test_an_embedder_of_an_unknown_provider_is_refused(connection: Connection) -> None:
    diag = refused(connection, "select flywheel.add_embedder('small', 'openai', 'm', 'nowhere', 256)")
    assert (diag.sqlstate, diag.message_primary) == ("WF013", "there is no provider nowhere")
    assert refused(connection, "select flywheel.serve_embedder('x')").message_primary == "there is no embedder x"


def test_a_question_with_many_examples_gets_an_index_and_loses_it(connection: Connection, question: uuid.UUID) -> None:
    def work() -> list[tuple[str, str]]:
        """Do what is to be done; return action and statement of each."""
        done = rows(connection, "select action, statement, index_name from flywheel._index_work()")
        for _, statement, name in done:
            connection.execute(statement.encode())
            connection.execute("select flywheel._index_done(%s)", [name])
        return [(action, statement) for action, statement, _ in done]

    connection.execute("update flywheel.settings set value = '4' where name = 'index_examples_from'")
    for place in range(4):
        example(connection, question, f"answer {place}")
    assert work() == []
    embed_all(connection)
    assert [action for action, _ in work()] == ["create", "create"]
    assert work() == []
    comment = "select min(obj_description(oid)) from pg_class where relname like '\\_hnsw%'"
    assert value(connection, comment).startswith("Internal: vectors of one question; ")
    connection.execute(
        "update flywheel.examples set status = 'revoked', revoked_reason = 'old'"
        " where example_id in (select example_id from flywheel.examples limit 3)"
    )
    assert [action for action, _ in work()] == ["drop", "drop"]
