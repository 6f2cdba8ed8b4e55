"""Checks for personal data; each ``contains_`` is the twin of the SQL function of the same name in 25_checks.sql."""

from __future__ import annotations

import re
from itertools import accumulate

_LUHN_FORM = re.compile(r"[0-9](?:[ -]?[0-9]){1,31}")
_DOUBLED = str.maketrans("0123456789", "0246813579")
_CARD = re.compile(  # 16 digits in fours or together, 19 together, 4-6-5 (Amex), 4-6-4 (Diners Club)
    r"(?:^|[^0-9A-Za-z.])("
    r"(?:4[0-9]{3}|5[0-9]{3}|6[0-9]{3}|2[2-7][0-9]{2}|35[0-9]{2})(?:[ -]?[0-9]{4}){3}"
    r"|[456][0-9]{18}|3[47][0-9]{2}[ -]?[0-9]{6}[ -]?[0-9]{5}|3[0689][0-9]{2}[ -]?[0-9]{6}[ -]?[0-9]{4}"
    r")(?![0-9A-Za-z])"
)
_SSN = re.compile(
    r"(?:^|[^0-9A-Za-z-])"
    r"(?:00[1-9]|0[1-9][0-9]|[1-578][0-9]{2}|6[0-57-9][0-9]|66[0-57-9])"
    r"(?:-(?:0[1-9]|[1-9][0-9])-| (?:0[1-9]|[1-9][0-9]) )"
    r"(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})(?:\Z|[^0-9A-Za-z-])"
)
_EMAIL = re.compile(r"[A-Za-z0-9_%+-]@[A-Za-z0-9-]++(?:\.[A-Za-z0-9-]++)*\.[A-Za-z]{2,}+(?:\Z|[^A-Za-z0-9_-])")
_PHONE = re.compile(
    r"(?:^ ?|[^0-9A-Za-z.+ -]|[^0-9] )(?:"
    r"\+[1-9](?:[ ./()-]{0,2}[0-9]){6,14}"  # +49 30 901820
    r"|00[1-9][0-9]{0,2}[ ./-](?:[ ./()-]{0,2}[0-9]){5,13}"  # 0049 30 901820
    r"|(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}"  # (212) 555-0123
    r"|(?:0[1-9][0-9]{1,4}[ /-]|\(0[1-9][0-9]{1,4}\) ?)[0-9]{3,4}[ -]?[0-9]{3,5}"  # 020 7946 0958
    r"|0[1-9](?:[ .][0-9]{2}){4}"  # 01 23 45 67 89
    r")(?:\Z|[^0-9A-Za-z])"
)
_IBAN = re.compile(r"(?:^|[^0-9A-Za-z])([A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?)(?![0-9A-Za-z])")
_IBAN_COUNTRIES = {  # length of the whole IBAN: countries (the SWIFT registry of ISO 13616)
    15: "NO",
    16: "BE",
    18: "DK FI FK FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
_IBAN_LENGTHS = {country: length for length, countries in _IBAN_COUNTRIES.items() for country in countries.split()}


def passes_luhn(text: str) -> bool:
    """Tell whether a text is 2 to 32 digits, with single spaces or hyphens between, that end in the Luhn digit."""
    if not _LUHN_FORM.fullmatch(text):
        return False
    digits = text.replace(" ", "").replace("-", "")[::-1]
    return sum(map(int, digits[::2] + digits[1::2].translate(_DOUBLED))) % 10 == 0


def contains_card(text: str) -> bool:
    """Tell whether a text holds a payment card number: an issuer's format and a right Luhn digit."""
    return any(passes_luhn(found[1]) for found in _CARD.finditer(text))


def contains_ssn(text: str) -> bool:
    """Tell whether a text holds a US social security number of an area, group and serial that are issued."""
    return _SSN.search(text) is not None


def contains_email(text: str) -> bool:
    """Tell whether a text holds an e-mail address at a domain of two or more labels."""
    return _EMAIL.search(text) is not None


def contains_iban(text: str) -> bool:
    """Tell whether a text holds an IBAN in capitals: a country's length and right check digits (ISO 13616)."""
    return any(_iban_checks(found[1]) for found in _IBAN.finditer(text))


def contains_phone(text: str) -> bool:
    """Tell whether a text holds what is written like a phone number; no_phone_number knows each country's plan."""
    return _PHONE.search(text) is not None


def no_phone_number(text: str, region: str | None = None) -> bool:
    """Pass a text without a valid phone number, by each country's numbering plan (library phonenumbers).

    Numbers without a country code count only where ``region`` (ISO 3166, such as "US") says how to read them.
    """
    import phonenumbers

    return not phonenumbers.PhoneNumberMatcher(text, region).has_next()


def _iban_checks(candidate: str) -> bool:
    """Judge the groups that make up the country's length, without what follows them."""
    wanted = _IBAN_LENGTHS.get(candidate[:2], 0)
    lengths = accumulate(map(len, candidate.split(" ")))
    iban = candidate.replace(" ", "")[:wanted]
    return wanted in lengths and int("".join(str(int(place, 36)) for place in iban[4:] + iban[:4])) % 97 == 1
