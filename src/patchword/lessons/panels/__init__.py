"""The steps of the page, in the order of the notes. To add one, write a file and add its line."""

from patchword.lessons.panel import Lesson
from patchword.lessons.panels import (
    border,
    convolution,
    corrections,
    depth,
    explanations,
    fields,
    filters,
    head,
    heads,
    holes,
    matching,
    mistakes,
    norms,
    order,
    patches,
    positions,
    redundancy,
    stream,
)

PANELS: tuple[Lesson, ...] = (
    order.LESSON,
    positions.LESSON,
    norms.LESSON,
    depth.LESSON,
    patches.LESSON,
    convolution.LESSON,
    filters.LESSON,
    head.LESSON,
    heads.LESSON,
    stream.LESSON,
    border.LESSON,
    fields.LESSON,
    redundancy.LESSON,
    explanations.LESSON,
    holes.LESSON,
    matching.LESSON,
    mistakes.LESSON,
    corrections.LESSON,
)
