"""Personal data in text: what counts as a card, an account, a number of a person, and what only looks like one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflywheel.checks import personal

CARDS = ["4111 1111 1111 1111", "5555-5555-5555-4444", "378282246310005", "3782 822463 10005", "30569309025904"]
IBANS = [
    "DE89 3704 0044 0532 0130 00",
    "GB82WEST12345698765432",
    "NO93 8601 1117 947",
    "MT84MALT011000012345MTLCAST001S",
]


@pytest.mark.parametrize("number", [*CARDS, "6011111111111117", "2223003122003222"])
def test_luhn_accepts_the_networks_test_numbers(number: str) -> None:
    assert personal.passes_luhn(number)


@given(digits=st.text("0123456789", min_size=1, max_size=31))
def test_one_last_digit_of_ten_passes_luhn(digits: str) -> None:
    assert sum(personal.passes_luhn(f"{digits}{last}") for last in range(10)) == 1


@given(digits=st.text("0123456789", min_size=1, max_size=30), place=st.integers(0, 30), step=st.integers(1, 9))
def test_luhn_notices_any_one_wrong_digit(digits: str, place: int, step: int) -> None:
    number = next(f"{digits}{last}" for last in range(10) if personal.passes_luhn(f"{digits}{last}"))
    at = place % len(number)
    wrong = number[:at] + str((int(number[at]) + step) % 10) + number[at + 1 :]
    assert not personal.passes_luhn(wrong)


@pytest.mark.parametrize("text", ["", "7", "4111  1111", "4111-", "-4111", "４１１１", "41a1", "0" * 33, "1.8"])
def test_luhn_refuses_what_is_no_number(text: str) -> None:
    assert not personal.passes_luhn(text)


@pytest.mark.parametrize("number", CARDS)
@pytest.mark.parametrize("around", ["{}", "pay with {}.", "card:{}!", "({})", "a {} 12 b", "{}, {}"])
def test_a_card_is_found_in_any_surroundings(number: str, around: str) -> None:
    assert personal.contains_card(around.replace("{}", number))


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",
        "order 1234567890123456",
        "x4111111111111111",
        "4111111111111111a",
        "0.4111111111111111",
        "41111111111111111",
        "4111  1111 1111 1111",
        "9111 1111 1111 1111",
        "2025-11-20 10:15:00",
        "",
    ],
)
def test_what_only_looks_like_a_card_is_none(text: str) -> None:
    assert not personal.contains_card(text)


@pytest.mark.parametrize("number", IBANS)
@pytest.mark.parametrize("around", ["{}", "to {}, please", "IBAN:{}", "from {} AND MORE"])
def test_an_iban_is_found_in_any_surroundings(number: str, around: str) -> None:
    assert personal.contains_iban(around.format(number))


@pytest.mark.parametrize("number", IBANS)
@pytest.mark.parametrize("step", range(1, 10))
def test_an_iban_with_one_wrong_digit_is_none(number: str, step: int) -> None:
    assert not personal.contains_iban(number[:2] + str((int(number[2]) + step) % 10) + number[3:])


@pytest.mark.parametrize(
    "text", ["DE89370400440532013", "ZZ89370400440532013000", "de89370400440532013000", "XGB82WEST1234"]
)
def test_wrong_length_country_or_case_is_no_iban(text: str) -> None:
    assert not personal.contains_iban(text)


@pytest.mark.parametrize("text", ["123-45-6789", "my SSN is 078 05 1120.", "(899-99-9999)", "001-01-0001"])
def test_an_issued_ssn_is_found(text: str) -> None:
    assert personal.contains_ssn(text)


@pytest.mark.parametrize(
    "text",
    [
        "000-12-3456",
        "666-12-3456",
        "900-12-3456",
        "123-00-4567",
        "123-45-0000",
        "123456789",
        "123-45 6789",
        "1123-45-6789",
        "123-45-67890",
        "call 212-555-0147",
    ],
)
def test_numbers_never_issued_are_no_ssn(text: str) -> None:
    assert not personal.contains_ssn(text)


@pytest.mark.parametrize("text", ["bob@example.com", "write to <a.b+c@mail.example.co.uk>.", "x_1@example.org,y"])
def test_an_email_address_is_found(text: str) -> None:
    assert personal.contains_email(text)


@pytest.mark.parametrize(
    "text", ["@example.com", "me@localhost", "react@18.2.0", "a @ b.com", "me@.com", "me@example.c", ""]
)
def test_what_is_no_address_is_not_found(text: str) -> None:
    assert not personal.contains_email(text)


@pytest.mark.parametrize(
    "text",
    [
        "+49 30 901820",
        "call (212) 555-0147",
        "020 7946 0958",
        "01 23 45 67 89",
        "0044 20 7946 0958",
        "1-202-555-0143",
        "+44 (0)20 7946 0958",
        "030/901820",
        "+442079460958",
    ],
)
def test_common_ways_to_write_a_phone_number_are_found(text: str) -> None:
    assert personal.contains_phone(text)


@pytest.mark.parametrize(
    "text",
    [
        "order FK-10442",
        "2025-11-20",
        "1 000 000",
        "192.168.100.1000",
        "DE89 3704 0044 0532 0130 00",
        "98 °C for 4 minutes",
    ],
)
def test_dates_amounts_and_accounts_are_no_phone_numbers(text: str) -> None:
    assert not personal.contains_phone(text)


@pytest.mark.parametrize(("text", "region"), [("+1 212-555-0123", None), ("ring 020 7946 0958", "GB")])
def test_a_valid_number_of_a_country_fails(text: str, region: str | None) -> None:
    assert not personal.no_phone_number(text, region)


@pytest.mark.parametrize(("text", "region"), [("ring 020 7946 0958", None), ("order 10442 of 2025-11-20", "US")])
def test_a_number_of_no_countrys_plan_passes(text: str, region: str | None) -> None:
    assert personal.no_phone_number(text, region)
