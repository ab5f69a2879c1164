"""The page of `patchword learn`: the panels, in order, in one language."""

from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from patchword.lessons import chrome
from patchword.lessons.drawing import draw
from patchword.lessons.panel import Lesson, NotForThisModel, Panel
from patchword.lessons.panels import PANELS
from patchword.lessons.subject import Subject
from patchword.lessons.words import Language, Text, filled
from patchword.reports.html import filled as filled_page

Progress = Callable[[int, int], None]


def panels_of(
    subject: Subject, progress: Progress | None = None, lessons: Sequence[Lesson] = PANELS
) -> list[tuple[Lesson, Panel | Text]]:
    """Compute the panels of the page. In place of one that the model or image cannot have is the reason."""
    found: list[tuple[Lesson, Panel | Text]] = []
    for index, lesson in enumerate(lessons):
        try:
            found.append((lesson, lesson.make(subject)))
        except NotForThisModel as error:
            found.append((lesson, error.reason))
        if progress:
            progress(index + 1, len(lessons))
    return found


def page(
    subject: Subject,
    panels: list[tuple[Lesson, Panel | Text]],
    language: Language,
    setup: str = "subject = open_subject()",
) -> str:
    """The page as text. setup: the line of Python that opens the same subject again."""
    shown = [_shown(*panel, number, language) for number, panel in enumerate(panels, 1)]
    words = {name: text.said(language) for name, text in chrome.WORDS.items()}
    facts = chrome.facts_of(subject)
    values: dict[str, Any] = {
        "language": "zh-CN" if language == "zh" else "en",
        "words": words,
        "panels": shown,
        "skipped": [panel for panel in shown if panel["reason"]],
        "setup": ("from patchword.lessons import open_subject", setup),
        "about": [filled(text, language, numbers) for text, numbers in chrome.about(subject)],
        "facts": [(name.said(language), value) for name, value in facts],
        "image": draw(chrome.picture(subject), language, "image", {}),
    }
    return filled_page("learn.html.j2", values, style="learn.css", script="learn.js")


def _shown(lesson: Lesson, panel: Panel | Text, number: int, language: Language) -> dict[str, Any]:
    """What the template shows of a panel."""
    head = {"slug": lesson.slug, "number": number, "title": lesson.title.said(language)}
    if isinstance(panel, Text):
        return {**head, "reason": panel.said(language)}

    def said(text: Text | None) -> Markup | None:
        return None if text is None else filled(text, language, panel.numbers)

    figures = [
        {
            "picture": draw(figure.picture, language, f"{lesson.slug}-{index}", panel.numbers),
            "caption": said(figure.caption),
        }
        for index, figure in enumerate(panel.figures)
    ]
    steps = [
        {
            "name": step.name.said(language),
            "shape": step.shape,
            "op": step.op.said(language) if step.op else "",
        }
        for step in panel.steps
    ]
    return {
        **head,
        "reason": "",
        "notes": said(panel.notes),
        "lead": [said(text) for text in panel.lead],
        "kindly": said(panel.kindly),
        "steps": steps,
        "figures": figures,
        "question": said(panel.question),
        "answer": said(panel.answer),
        "check": panel.check,
        "places": panel.places,
        "sources": panel.sources,
    }
