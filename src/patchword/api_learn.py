"""`learn` of `import patchword as pw`: the page of `patchword learn`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from patchword.errors import SettingsError, near_text
from patchword.formats.facts import Options
from patchword.python_words import in_python

if TYPE_CHECKING:
    from patchword.lessons.subject import Subject


@in_python
def learn(
    model: str | Path | None = None,
    image: Any = None,
    *,
    out: str | Path = "learn.html",
    language: Literal["en", "zh"] = "en",
    seed: int = 0,
    offline: bool = False,
    options: Options | None = None,
) -> "Subject":
    """Write a page that shows how a Vision Transformer works, and return the model and image that it is about.

    model: as for `load`; None for a small ViT that is trained on handwritten digits. image: one image, or the path of many,
    of which the seed chooses one; None for a digit. out: a new or existing .html file. language: "en" or "zh".
    Raises: CheckpointError, ImageError, DataError; OutputError; SettingsError for an unknown language or a negative seed.
    """
    from patchword.lessons.page import panels_of
    from patchword.lessons.subject import open_subject
    from patchword.lessons.words import LANGUAGES
    from patchword.lessons.write import check_out, write_page

    if language not in LANGUAGES:
        raise SettingsError(
            f"unknown language {language!r}{near_text(str(language), LANGUAGES)}",
            f"use one of: {', '.join(LANGUAGES)}",
        )
    check_out(Path(out))
    subject = open_subject(model, image, seed=seed, options=options, offline=offline)
    write_page(subject, panels_of(subject), Path(out), language, (model, image))
    return subject
