"""Text in every language of `patchword learn`, and numbers inside it.

All languages of a sentence lie next to each other in the source, so that one cannot change without the other.
"""

import math
import re
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

from markupsafe import Markup, escape

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

# A name, a format, or both: {share:.0%}.
FIELD = re.compile(r"\{(\w+)(?::([^{}]*))?\}")
_POWER = re.compile(r"(-?[\d.]+)e([+-]\d+)")
_CODE = re.compile(r"`([^`]+)`")
_STRONG = re.compile(r"\*\*([^*]+)\*\*")

Numbers = Mapping[str, float | int]


class Text(NamedTuple):
    """A sentence in each language. `code`, **strong** and {name:format} are the only markup."""

    en: str
    zh: str

    def said(self, language: Language) -> str:
        return self.zh if language == "zh" else self.en


def same(text: str) -> Text:
    """Text that all languages share: a name, a symbol."""
    return Text(text, text)


def shown(value: float, how: str = "") -> str:
    """A number as the page shows it: "99.2 %", "1.9 · 10⁻⁷", "1,437", "−0.3".

    how: a format as of `format`; without one, whole numbers get thousands separators and others three digits.
    """
    if not math.isfinite(value):
        return "–"
    if not how:
        how = ",d" if isinstance(value, int) else ".3g"
    text = format(value, how).replace("%", "\u00a0%")
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
    parts, last, said = [], 0, text.said(language)
    for field in FIELD.finditer(said):
        name, how = field[1], field[2] or ""
        value = numbers[name]
        parts.append(str(escape(said[last : field.start()])))
        parts.append(f'<data value="{value!r}" data-name="{name}">{escape(shown(value, how))}</data>')
        last = field.end()
    parts.append(str(escape(said[last:])))
    html = _STRONG.sub(r"<strong>\1</strong>", _CODE.sub(r"<code>\1</code>", "".join(parts)))
    # Everything above is escaped, or made here.
    return Markup(html)


def _raised(power: int) -> str:
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
