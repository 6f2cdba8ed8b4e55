"""pgflywheel providers, budgets, and the price of a backfill."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.openai import serving
from tests.sql.paying import begin, calls, end, judge
from tests.sql.support import Connection, insert_many, value

from .conftest import CommandLine

PROVIDER = """
[[provider]]
name = "fake"
base_url = "{url}"
requests_per_minute = 600

[provider.abilities]
json_schema = true

[provider.models."small"]
input_usd = 1.0
output_usd = 2.0
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of one provider nobody listens at."""
    path = tmp_path / "providers.toml"
    path.write_text(PROVIDER.format(url="http://127.0.0.1:9/v1"), encoding="utf-8")
    return path


def test_providers_of_a_file_are_set_and_listed(pgflywheel: CommandLine, file: Path) -> None:
    assert pgflywheel.json("providers", "set", file) == [{"provider": "fake", "changed": True}]
    assert pgflywheel.json("providers", "set", file) == [{"provider": "fake", "changed": False}]
    (listed,) = pgflywheel.json("providers", "list")
    assert (listed["provider"], listed["requests_per_minute"], listed["models"]) == ("fake", 600, 1)
    assert "fake" in pgflywheel("providers", "list").stdout


@pytest.mark.parametrize("text", ["", "provider = 1", "[[provider]]\nbase_url = 'x'", "[[provider", "[[judge]]"])
def test_a_file_without_providers_is_refused(pgflywheel: CommandLine, file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    assert str(file) in pgflywheel("providers", "set", file, exit_code=1).stderr


def test_of_a_file_with_a_wrong_provider_none_is_set(pgflywheel: CommandLine, file: Path) -> None:
    file.write_text(file.read_text() + "\n[[provider]]\nname = 'other'\nbase_url = 'ftp://here'\n", encoding="utf-8")
    assert "provider other is not valid: base_url" in pgflywheel("providers", "set", file, exit_code=1).stderr
    assert pgflywheel.json("providers", "list") == []


def test_check_makes_one_call(pgflywheel: CommandLine, file: Path) -> None:
    with serving() as fake:
        file.write_text(PROVIDER.format(url=fake.url), encoding="utf-8")
        pgflywheel("providers", "set", file)
        said = pgflywheel.json("providers", "check", "fake")
        assert (said["provider"], said["model"]) == ("fake", "small")
        assert "fake answers as" in pgflywheel("providers", "check", "fake", "--model", "large").stdout


def test_check_says_what_is_wrong(pgflywheel: CommandLine, file: Path) -> None:
    pgflywheel("providers", "set", file)
    assert "fake does not answer: connection_lost" in pgflywheel("providers", "check", "fake", exit_code=1).stderr
    assert "there is no provider gone" in pgflywheel("providers", "check", "gone", exit_code=1).stderr


def test_a_blocked_provider_is_released(pgflywheel: CommandLine, file: Path, connection: Connection) -> None:
    pgflywheel("providers", "set", file)
    connection.execute("select flywheel._block_provider('fake', null, 'unauthorized', 'bad key')")
    assert pgflywheel.json("providers", "list")[0]["blocked_reason"] == "unauthorized"
    assert pgflywheel("providers", "release", "fake").stdout == "fake is called again.\n"
    assert pgflywheel("providers", "release", "fake").stdout == "fake was not blocked.\n"


def test_a_budget_is_set_listed_and_dropped(pgflywheel: CommandLine, file: Path) -> None:
    pgflywheel("providers", "set", file)
    assert (
        pgflywheel("budgets", "set", "provider:fake", "month", 20).stdout
        == "provider:fake may cost 20.00 USD a month.\n"
    )
    assert not pgflywheel.json("budgets", "set", "provider:fake", "month", 20)["changed"]
    (listed,) = pgflywheel.json("budgets", "list")
    assert (listed["scope"], listed["name"], listed["cap_usd"], listed["reached"]) == ("provider", "fake", 20, False)
    assert pgflywheel.json("budgets", "drop", "provider:fake", "month")["dropped"]
    assert "had no cap" in pgflywheel("budgets", "drop", "provider:fake", "month").stdout
    assert "names no budget" in pgflywheel("budgets", "set", "fake", "day", 1, exit_code=2).stderr
    assert "there is no validator" in pgflywheel("budgets", "set", "validator:gone", "day", 1, exit_code=1).stderr


def test_a_dry_run_prices_the_calls(pgflywheel: CommandLine, file: Path, connection: Connection) -> None:
    insert_many(connection, 20)
    pgflywheel("providers", "set", file)
    polite = judge(connection, votes=3)
    dry_run = ["backfill", "polite", "--since", "1h", "--dry-run"]
    price = pgflywheel.json(*dry_run)["price"]
    assert price["calls"] == 60
    assert price["usd"] == pytest.approx((price["input_tokens"] * 1.0 + price["output_tokens"] * 2.0) / 1e6, rel=1e-3)
    assert "no calls of this version yet" in price["basis"]
    for asked in calls(4, polite, span_id="0190c0de-0000-7000-8000-000000000001"):
        begin(connection, [asked])
        end(connection, [asked], input_tokens=2000, output_tokens=50)
    price = pgflywheel.json(*dry_run)["price"]
    assert (price["calls"], price["input_tokens"], price["output_tokens"]) == (80, 160_000, 4000)
    assert price["usd"] == pytest.approx(0.168)
    assert "4 calls of this version" in price["basis"]
    assert pgflywheel.json(*dry_run, "--batch")["price"]["usd"] == pytest.approx(0.084)
    assert "80 calls with 160,000 tokens in and 4,000 out: 0.1680 USD." in pgflywheel(*dry_run).stdout
    connection.execute("delete from flywheel.provider_models")
    assert "an unknown sum" in pgflywheel(*dry_run).stdout


def test_a_dry_run_of_a_check_has_no_price(pgflywheel: CommandLine, connection: Connection) -> None:
    connection.execute("""select flywheel.define_validator('short', '{"kind": "sql", "expression": "true"}')""")
    assert "price" not in pgflywheel.json("backfill", "short", "--since", "1h", "--dry-run")
    assert value(connection, "select count(*) from flywheel.price_backfill('short', now() - interval '1 hour')") == 0
