"""Text in every language of `patchword learn`, and numbers inside it.

All languages of a sentence lie next to each other in the source, so that one cannot change without the other.
"""

import math
import re
import typing
from collections.abc import Mapping
from typing import NamedTuple, get_args

from markupsafe import Markup, escape

Language = typing.Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

# A name, a format, or both: {share:.0%}.
FIELD = re.compile(r"\{(\w+)(?::([^{}]*))?\}")
_POWER = re.compile(r"(-?[\d.]+)e([+-]\d+)")
_CODE = re.compile(r"`([^`]+)`")
_STRONG = re.compile(r"\*\*([^*]+)\*\*")

# Words of the user, such as the name of a class, are among them: they are shown as they are.
Numbers = Mapping[str, float | int | str]


class Text(NamedTuple):
    """A sentence in each language. `code`, **strong** and {name:format} are the only markup."""

    en: str
    zh: str

    def said(self, language: Language) -> str:
        return self.zh if language == "zh" else self.en


class Literal(Text):
    """Text without markup: a name that the user chose."""


def same(text: str) -> Text:
    """Text that all languages share, such as a symbol or the name of a network."""
    return Text(text, text)


def literal(text: str) -> Text:
    """A name that the user chose, in all languages."""
    return Literal(text, text)


def shown(value: float, how: str = "") -> str:
    """A number as the page shows it: "99.2 %", "1.9 · 10⁻⁷", "1,437", "−0.3".

    how: a format as of `format`; without one, whole numbers get thousands separators and others three digits.
    """
    if not math.isfinite(value):
        return "–"
    if not how:
        how = ",d" if isinstance(value, int) else ".3g"
    text = format(value, how).replace("%", "\u00a0%")
    if text.startswith("-") and not text.strip("-0.,%\u00a0"):
        text = text[1:]  # no "−0.00"
    if found := _POWER.fullmatch(text):
        # Zero has no power of ten.
        return (
            "0" if value == 0 else f"{found[1]}\u00a0·\u00a010{_raised(int(found[2]))}".replace("-", "\u2212")
        )
    return text.replace("-", "\u2212")


def filled(text: Text, language: Language, numbers: Numbers) -> Markup:
    """The text as HTML. Each number is a <data> element with its exact value.

    Raises: KeyError for a number that the text names and `numbers` lacks.
    """
    said = str(escape(text.said(language)))
    if isinstance(text, Literal):
        return Markup(said)
    html = _STRONG.sub(r"<strong>\1</strong>", _CODE.sub(r"<code>\1</code>", said))

    # After the markup, so that a name with asterisks in it stays what it is.
    def put(field: re.Match[str]) -> str:
        name, value = field[1], numbers[field[1]]
        if isinstance(value, str):
            return f"<bdi>{escape(value)}</bdi>"
        return f'<data value="{value!r}" data-name="{name}">{escape(shown(value, field[2] or ""))}</data>'

    return Markup(FIELD.sub(put, html))


def _raised(power: int) -> str:
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
