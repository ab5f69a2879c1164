"""Check where the page goes, and write it."""

from collections.abc import Sequence
from pathlib import Path

from patchword.errors import OutputError, near_text, plural
from patchword.inference.output import check_place, whole_file
from patchword.lessons.page import page
from patchword.lessons.panel import Lesson, Panel
from patchword.lessons.subject import Subject
from patchword.lessons.words import Language, Text


def check_out(path: Path) -> None:
    """Raises: OutputError for an ending other than .html, or a place that is not writable."""
    ending = path.suffix.lower()
    if ending != ".html":
        problem = f"unknown file extension {ending!r}" if ending else "no file extension"
        raise OutputError(f"{path}: {problem}{near_text(ending, ['.html'])}", "use .html")
    check_place(path)


def write_page(
    subject: Subject,
    panels: Sequence[tuple[Lesson, Panel | Text]],
    path: Path,
    language: Language,
    given: tuple[object, object] = (None, None),
) -> list[str]:
    """Write the page; return lines that say what was written and which steps were left out.

    given: model and image as the user named them. Raises: OutputError.
    """
    text = page(subject, list(panels), language, setup_line(*given, subject.seed))
    with whole_file(path, text=True) as file:
        file.write(text)
    left_out = [(lesson, reason) for lesson, reason in panels if isinstance(reason, Text)]
    lines = [f"left out: {lesson.title.en} ({reason.en.rstrip('.')})" for lesson, reason in left_out]
    return [*lines, f"{plural(len(panels) - len(left_out), 'step')} written: {path}"]


def setup_line(model: object, image: object, seed: int) -> str:
    """The Python that opens the same subject again."""
    arguments = [repr(str(value)) if value is not None else "None" for value in (model, image)]
    while arguments and arguments[-1] == "None":
        arguments.pop()
    if seed:
        arguments.append(f"seed={seed}")
    return f"subject = open_subject({', '.join(arguments)})"
