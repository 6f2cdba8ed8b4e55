"""The SQL functions of 25_checks.sql and their Python twins say the same of any text Postgres can store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from hypothesis import given, settings
from hypothesis import strategies as st

from pgflywheel.checks import personal, structured, text

Connection = psycopg.Connection[tuple[Any, ...]]

TWINS: dict[str, Callable[[str], object]] = {
    "is_blank": text.is_blank,
    "word_count": text.word_count,
    "is_refusal": text.is_refusal,
    "is_json": structured.is_json,
    "passes_luhn": personal.passes_luhn,
    "contains_card": personal.contains_card,
    "contains_ssn": personal.contains_ssn,
    "contains_email": personal.contains_email,
    "contains_iban": personal.contains_iban,
    "contains_phone": personal.contains_phone,
}
PIECES = [
    *"0123456789-+.@()[]{},:;_/ \n\t\v\"\\'’—\u00a0éßİſK🚀abAZ",
    *("4111", "1111", "4111111111111111", "378282246310005", "3056 930902 5904", "123-45-6789", "000-12-3456"),
    *("078 05 1120", "GB82", "WEST", "12345698765432", "NO93 8601 1117 947", "DE89", "--", "++", ".."),
    *("me", "@example", ".com", ".co", "+1", "+49", "0044", "(212)", "555-0123", "020 7946 0958", "01 23 45 67 89"),
    *(
        "I can",
        "can't",
        "cannot",
        " help",
        "unable to ",
        "i am ",
        "As an AI",
        "against my policy",
        "decline",
        "i must ",
    ),
    *('{"a":', "1e5", "-0", "01", "true", "null", "NaN", '"\\u00', '\\ud800"', '"\\n"', "[]", "{}", "delve", "DELVE"),
]
texts = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.lists(st.sampled_from(PIECES), max_size=24).map("".join),
    st.lists(st.sampled_from("0123456789 -"), max_size=40).map("".join),
)
generous = settings(max_examples=150)


@generous
@given(examples=st.lists(texts, min_size=1, max_size=30))
def test_sql_and_python_agree_on_every_text(connection: Connection, examples: list[str]) -> None:
    calls = ", ".join(f"flywheel.{name}(example)" for name in TWINS)
    query = f"select {calls} from unnest(%s::text[]) with ordinality as examples (example, at) order by at"
    in_sql = connection.execute(query, (examples,)).fetchall()
    in_python = [tuple(check(example) for check in TWINS.values()) for example in examples]
    assert in_sql == in_python, [(e, s, p) for e, s, p in zip(examples, in_sql, in_python, strict=True) if s != p]


@generous
@given(example=texts, words=st.lists(texts.filter(lambda word: len(word) < 20), max_size=5))
def test_sql_and_python_find_the_same_whole_words(connection: Connection, example: str, words: list[str]) -> None:
    row = connection.execute("select flywheel.contains_any_word(%s, %s::text[])", (example, words)).fetchone()
    assert row == (text.contains_any_word(example, words),)


@generous
@given(before=texts, word=st.sampled_from(["delve", "c++", "rich tapestry", "naïve"]), after=texts)
def test_a_word_between_spaces_is_always_found(connection: Connection, before: str, word: str, after: str) -> None:
    example = f"{before} {word} {after}"
    row = connection.execute("select flywheel.contains_any_word(%s, array[%s])", (example, word)).fetchone()
    assert row == (True,)
    assert text.contains_any_word(example, [word.upper().replace("Ï", "ï")])
