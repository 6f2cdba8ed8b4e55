"""The embed lane: what is queued gets its vector, whoever makes it; a refused text holds up no other."""

from __future__ import annotations

import asyncio
import sys
from uuid import UUID

import pytest
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from pgflywheel.db.connect import open_database
from pgflywheel.db.embedders import IndexWork
from pgflywheel.worker.embed import MOST_SUBJECTS
from pgflywheel.worker.index_upkeep import IndexUpkeep, keep_indexes
from pgflywheel.worker.site import Options, Site
from tests.fakes.openai import Fake
from tests.sql.test_embeddings import example, state
from tests.worker.support import Connection, activate, insert, set_setting, value, waiting, work


@pytest.fixture
def question(connection: Connection) -> UUID:
    """A validator that examples are about."""
    activate(connection, "polite", kind="sql", expression="true")
    found: UUID = value(connection, "select validator_id from flywheel.validators")
    return found


def add_openai(connection: Connection, fake: Fake, dimensions: int = 64) -> None:
    definition = {"base_url": f"{fake.url}/v1" if not fake.url.endswith("/v1") else fake.url}
    connection.execute("select flywheel.set_provider('fake', %s)", [Jsonb(definition)])
    connection.execute(
        "select flywheel.add_embedder('small', 'openai', 'text-embedding-3-small', 'fake', %s)", [dimensions]
    )


def test_examples_get_their_vectors(dsn: str, connection: Connection, question: UUID) -> None:
    for number in range(30):
        example(connection, question, f"answer {number}")
    work(dsn)
    assert state(connection, "hashing") == ("serving", 30, 0)
    assert value(connection, "select count(*) from flywheel._example_embeddings where servable") == 60
    assert waiting(connection) == 0


def test_more_texts_than_fit_one_write_are_embedded(dsn: str, connection: Connection, question: UUID) -> None:
    one = example(connection, question)
    connection.execute("alter table flywheel.examples drop constraint example_label")
    connection.execute("drop index flywheel.example_of_label")
    copies = MOST_SUBJECTS * 2 + 10
    columns = value(
        connection,
        "select string_agg(quote_ident(attname), ', ') from pg_attribute"
        " where attrelid = 'flywheel.examples'::regclass and attnum > 0 and attname not in ('example_id', 'output')",
    )
    connection.execute(
        f"insert into flywheel.examples (example_id, output, {columns})"
        f" select gen_random_uuid(), 'answer ' || n, {columns} from flywheel.examples, generate_series(1, %s) as n"
        "  where example_id = %s".encode(),
        [copies, one],
    )
    work(dsn)
    assert state(connection, "hashing") == ("serving", copies + 1, 0)


def test_an_endpoint_embeds_beside_the_embedder_that_serves(
    dsn: str, connection: Connection, question: UUID, fake: Fake
) -> None:
    for number in range(5):
        example(connection, question, f"answer {number}")
    add_openai(connection, fake)
    work(dsn)
    assert (state(connection, "hashing"), state(connection, "small")) == (("serving", 5, 0), ("filling", 5, 0))
    sizes = "select array_agg(distinct cardinality(embedding::real[])) from flywheel._example_embeddings"
    assert value(connection, sizes) == [64, 384]
    texts = [text for request in fake.requests for text in request.body["input"]]
    assert sorted(texts) == sorted({*texts})  # "Hello?" five times, embedded once for all that came together
    assert all(request.body["dimensions"] == 64 for request in fake.requests)


def test_an_embedder_told_to_switch_serves_when_the_worker_is_done(
    dsn: str, connection: Connection, question: UUID
) -> None:
    example(connection, question)
    connection.execute("""select flywheel.add_embedder('wide', 'hashing', parameters => '{"switch": true}')""")
    work(dsn)
    assert state(connection, "wide") == ("serving", 1, 0)


def test_a_text_that_is_dead_keeps_a_worker_from_no_end(
    dsn: str, connection: Connection, question: UUID, fake: Fake
) -> None:
    set_setting(connection, "max_attempts", 1)
    example(connection, question)
    fake.set(mix={"bad_request": 1.0})
    add_openai(connection, fake)
    connection.execute("""update flywheel.embedders set parameters = '{"switch": true}' where name = 'small'""")
    work(dsn)
    assert state(connection, "small") == ("filling", 0, 1)
    assert value(connection, "select count(*) from flywheel._dead") == 1


def test_a_limit_of_the_endpoint_costs_no_attempt(dsn: str, connection: Connection, question: UUID, fake: Fake) -> None:
    set_setting(connection, "max_attempts", 1)
    example(connection, question)
    fake.set(first=["rate_limited"])
    add_openai(connection, fake)
    work(dsn)
    assert state(connection, "small") == ("filling", 1, 0)


@pytest.mark.parametrize("jobs", ["one job", "a job each"])
def test_a_refused_text_is_dead_and_holds_up_no_other(
    dsn: str, connection: Connection, question: UUID, fake: Fake, jobs: str
) -> None:
    set_setting(connection, "max_attempts", 1)
    fake.set(when={"poison": "bad_request"})
    if jobs == "a job each":
        add_openai(connection, fake)
    for output in ("a", "b", "poison", "c", "d"):
        example(connection, question, output)
    if jobs == "one job":
        add_openai(connection, fake)
    work(dsn)
    assert state(connection, "small") == ("filling", 4, 1)
    assert value(connection, "select dead from flywheel.embedder_status where name = 'small'") == 1
    assert value(connection, "select reason || cardinality(span_ids) from flywheel._dead") == "rejected1"


def test_an_endpoint_without_quota_is_asked_once_for_all_that_waits(
    dsn: str, connection: Connection, question: UUID, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgflywheel.worker.embed.MOST_SUBJECTS", 1)
    fake.set(first=["insufficient_quota"] * 9)
    add_openai(connection, fake)
    for number in range(5):  # each is a job of its own
        example(connection, question, f"answer {number}")
    work(dsn)
    assert len(fake.requests) == 1
    assert value(connection, "select count(*) from flywheel._later where attempt = 0") == 5
    assert state(connection, "hashing") == ("serving", 5, 0)


def test_a_missing_package_puts_off_and_says_so(
    dsn: str, connection: Connection, question: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    example(connection, question)
    connection.execute("select flywheel.add_embedder('deep', 'sentence_transformers', '/nowhere')")
    work(dsn)
    assert "pip install 'pgflywheel[embed]'" in value(connection, "select detail from flywheel._later")
    assert state(connection, "hashing") == ("serving", 1, 0)


def test_sampled_spans_are_embedded(dsn: str, connection: Connection) -> None:
    connection.execute("select flywheel.sample_embedder('hashing', 1000)")
    insert(connection, ["a", "b"])
    connection.execute("update flywheel.embedders set checked_at = now() - interval '61 seconds'")
    connection.execute("select flywheel._queue_embeddings()")
    work(dsn)
    assert value(connection, "select count(*) from flywheel.span_embeddings") == 6


def test_indexes_are_built_dropped_and_rebuilt_when_that_pays(dsn: str, connection: Connection, question: UUID) -> None:
    def kept() -> list[IndexWork]:
        async def keep() -> list[IndexWork]:
            async with open_database(dsn) as database:
                return await keep_indexes(database)

        return asyncio.run(keep())

    set_setting(connection, "index_examples_from", 4)
    for number in range(8):
        example(connection, question, f"answer {number}")
    work(dsn)
    assert [done.action for done in kept()] == ["create", "create"]
    assert kept() == []
    newest = "select example_id from flywheel.examples where status = 'servable' order by example_id desc limit %s"
    revoke = f"update flywheel.examples set status = 'revoked', revoked_reason = 'old' where example_id in ({newest})"
    connection.execute(revoke.encode(), [1])
    for number in range(2):
        example(connection, question, f"later answer {number}")
    work(dsn)
    assert [done.action for done in kept()] == ["reindex", "reindex"]  # 1 of 9 is dead
    assert kept() == []
    connection.execute("update flywheel.examples set status = 'revoked', revoked_reason = 'old'")
    assert [done.action for done in kept()] == ["drop", "drop"]


def test_a_worker_of_the_plain_role_embeds_and_leaves_indexes_to_the_owner(
    dsn: str, connection: Connection, question: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgflywheel.worker.index_upkeep.LOOK_SECONDS", 0.001)
    plain = make_conninfo(dsn, options="-c role=flywheel_worker")
    set_setting(connection, "index_examples_from", 1)
    example(connection, question)
    work(plain)
    assert state(connection, "hashing") == ("serving", 1, 0)

    async def keep() -> None:
        async with open_database(plain) as database:
            async with asyncio.timeout(30):
                await IndexUpkeep(Site.of(database, Options())).run()  # it returns: it may not

    asyncio.run(keep())
    assert value(connection, "select count(*) from flywheel._kept_indexes()") == 0
