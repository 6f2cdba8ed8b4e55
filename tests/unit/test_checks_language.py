"""The language of a text."""

from __future__ import annotations

import pytest

from pgflywheel.checks.language import is_language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Your order left us yesterday and arrives tomorrow morning.", "en"),
        ("Ihre Bestellung wurde gestern versandt und kommt morgen an.", "de"),
        ("Votre commande a été expédiée hier et arrivera demain matin.", "fr"),
        ("Su pedido salió ayer y llegará mañana por la mañana.", "es"),
        ("ご注文の商品は昨日発送され、明日の朝に到着する予定でございます。", "ja"),
    ],
)
def test_a_text_passes_in_its_own_language_only(text: str, language: str) -> None:
    own = is_language(text, [language])
    other = is_language(text, ["it", "pt"])
    assert own is not None
    assert own.passed
    assert other is not None
    assert not other.passed
    assert other.critique == f"it reads as {language}"


@pytest.mark.parametrize("text", ["", "ok", "12345 67890 !!! 12345 67890 !!!", "🚀" * 100])
def test_too_few_letters_give_no_verdict(text: str) -> None:
    assert is_language(text, ["en"]) is None


def test_only_the_beginning_of_a_long_text_is_read() -> None:
    verdict = is_language("The kettle boils and the tea is ready. " * 200 + "Der Tee ist fertig. " * 100_000, ["en"])
    assert verdict is not None
    assert verdict.passed
