"""Judges under faults: providers that are fakes, and what the books of calls and of money must say after."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from tests.conftest import Connection
from tests.fakes.books import CHAT
from tests.fakes.openai import Fake
from tests.faults.books import Books, wait_until
from tests.faults.conftest import Started
from tests.faults.workers import LEASE_SECONDS, WorkerProcess
from tests.sql.support import activate, rows, value

LANES = ("--lanes", "judge")
LEASE = ("--lease-seconds", str(LEASE_SECONDS))
MODELS = {"small": {"input_usd": 1.0, "cached_input_usd": 0.5, "output_usd": 2.0, "batch_share": 0.5}}
QUESTION = {
    "kind": "judge",
    "question": "Is the answer polite?",
    "pass_when": "it is polite",
    "fail_when": "it is rude",
    "provider": "fake",
    "model": "small",
}
# Kept beside the product's own books, in the transactions that write these: what each call had set aside, under
# which ids a worker worked, and how much of a budget was spent and reserved at any moment.
WITNESSES = """
    create table public.set_aside (call_id uuid, usd double precision, provider text, tokens integer, at timestamptz);
    create function public.note_set_aside() returns trigger language plpgsql as 'begin
      insert into public.set_aside values (new.call_id, new.usd, new.provider, new.tokens, new.reserved_at);
      return null;
    end';
    create trigger note_set_aside after insert on flywheel._reservations
      for each row execute function public.note_set_aside();

    create table public.entered (worker_id uuid, name text);
    create function public.note_entered() returns trigger language plpgsql as
    'begin insert into public.entered values (new.worker_id, new.name); return null; end';
    create trigger note_entered after insert on flywheel._workers
      for each row execute function public.note_entered();

    create table public.funded (budget_id uuid, usd double precision, at timestamptz default clock_timestamp());
    create function public.note_funded() returns trigger language plpgsql as
    'begin insert into public.funded values (new.budget_id, new.spent_usd + new.reserved_usd); return null; end';
    create trigger note_funded after insert or update on flywheel._budget_periods
      for each row execute function public.note_funded();
"""
# What a budget pays: the cost of a call, or all it had set aside when its usage is not known.
PAID = """
    select coalesce(sum(coalesce(calls.cost_usd, set_aside.usd)), 0)
      from flywheel.calls left join public.set_aside using (call_id) where calls.provider = %s
"""


def provide(connection: Connection, fake: Fake, name: str = "fake", **definition: Any) -> None:
    """Name a fake as a provider, with a budget nobody reaches."""
    given = {"base_url": fake.url, "max_in_flight": 256, "time_limit_ms": 5000, "models": MODELS, **definition}
    connection.execute("select flywheel.set_provider(%s, %s)", [name, Jsonb(given)])
    cap(connection, name, 1000)


def cap(connection: Connection, provider: str, usd: float) -> None:
    """Set the budget of a provider."""
    connection.execute("select flywheel.set_budget('provider', %s, 'day', %s)", [provider, usd])


def judge(connection: Connection, name: str = "polite", provider: str = "fake", **definition: Any) -> None:
    """Activate a judge."""
    activate(connection, name, **QUESTION | {"provider": provider} | definition)


def watch_money(connection: Connection) -> None:
    """Have witnesses of what is set aside, and of how full budgets are."""
    connection.execute(WITNESSES.encode())


def outcomes(connection: Connection, provider: str = "fake") -> Counter[str]:
    """Count the recorded calls by outcome."""
    query = "select outcome, count(*) from flywheel.calls where provider = %s group by 1"
    return Counter(dict(rows(connection, query, [provider])))


def recorded(connection: Connection, provider: str = "fake") -> Counter[str]:
    """Count the recorded calls by request."""
    query = "select request_hash, count(*) from flywheel.calls where provider = %s group by 1"
    return Counter(dict(rows(connection, query, [provider])))


def seen(fake: Fake, provider: str = "fake") -> Counter[str]:
    """Count the calls a fake saw by request; votes are told apart by their seed."""
    return Counter(
        hashlib.sha256(f"{provider} {(request.body or {}).get('seed', 1)}\n".encode() + request.raw).hexdigest()
        for request in fake.requests
        if request.path == CHAT
    )


def asked_again(requests: Iterable[int]) -> int:
    """Return how many calls were made for requests that had been made before."""
    return sum(count - 1 for count in requests)


def wait_until_settled(connection: Connection, seconds: float = 60) -> None:
    """Wait until no call has money set aside: what was lost is settled once its time limit and more is over."""

    def settled() -> bool:
        connection.execute("select flywheel._settle_lost()")
        return bool(value(connection, "select count(*) from flywheel._reservations") == 0)

    wait_until("every call is settled", settled, seconds)


def assert_paid(connection: Connection, provider: str = "fake") -> float:
    """Nothing is set aside any more, and a provider's budget has paid what its calls cost; return that."""
    assert value(connection, "select count(*) from flywheel._reservations where provider = %s", [provider]) == 0
    status = "select spent_usd, reserved_usd from flywheel.budget_status where scope = 'provider' and name = %s"
    ((spent, reserved),) = rows(connection, status, [provider])
    assert reserved == 0
    assert spent == pytest.approx(value(connection, PAID, [provider]), rel=1e-9, abs=1e-12)
    return float(spent)


def assert_all_scored(connection: Connection) -> Books:
    """Every eligible pair has its score, once."""
    books = assert_accounted(connection)
    assert (books.unscored, books.dead) == (0, 0), books
    return books


def assert_accounted(connection: Connection) -> Books:
    """Every eligible pair is scored, unscored or dead, once and with a reason."""
    books = Books.of(connection)
    twice = "select count(*) - count(distinct (span_id, revision, version_id)) from flywheel.scores"
    assert value(connection, twice) == 0
    assert (books.missing, books.waiting) == (0, 0), books
    assert books.eligible == books.scored + books.unscored + books.dead > 0, books
    assert rows(connection, "select * from flywheel.accounts where not balanced") == []
    assert value(connection, "select count(*) from flywheel._dead where reason is null") == 0
    assert (
        value(connection, "select count(*) from flywheel.scores where passed is null and unscored_reason is null") == 0
    )
    return books


class Named:
    """Workers whose connections bear a name of their own, so that what a killed one had on its way can be told."""

    def __init__(self, connection: Connection, dsn: str, start: Started, *options: str) -> None:
        self.connection, self.dsn, self.start_worker, self.options = connection, dsn, start, options
        self.started = 0

    def start(self) -> WorkerProcess:
        """Start a worker."""
        self.started += 1
        dsn = make_conninfo(self.dsn, application_name=f"worker-{self.started - 1}")
        return self.start_worker(*LANES, *LEASE, *self.options, dsn=dsn)

    def on_their_way(self, worker: WorkerProcess) -> int:
        """Return how many calls of a worker have money set aside."""
        query = (
            """select count(*) from flywheel._reservations join flywheel._workers using (worker_id) where name = %s"""
        )
        return int(value(self.connection, query, [worker.name]))

    def kill(self, worker: WorkerProcess) -> int:
        """SIGKILL a worker; return how many calls it had on their way, after the last thing it sent was done."""
        worker.kill()
        sessions = "select count(*) from pg_stat_activity where application_name = %s"
        wait_until("its sessions end", lambda: value(self.connection, sessions, [worker.name]) == 0)
        return self.on_their_way(worker)
