"""The score of a detector as a page, and its worst images drawn: on the left what was to be found, on the right what was."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from patchword.data.dataset import Split
from patchword.errors import ImageError
from patchword.images.decode import decode
from patchword.images.stored import Pixels
from patchword.inference.box_scores import BoxEvaluation, WorstImage
from patchword.inference.output import whole_file
from patchword.reports import detection
from patchword.reports.box_pictures import Annotated, draw_boxes
from patchword.reports.html import MAX_FAILURES, filled
from patchword.reports.views import FAINT, GAP, INK, LINE, PAPER, cut

# Longer side in pixels of each half on the page.
_ON_PAGE = 320


def draw_worst(image: WorstImage, split: Split, classes: Sequence[str]) -> Image.Image | None:
    """True boxes and detections next to each other; None if the image can no longer be read."""
    try:
        pixels = decode(split.source(image.index), name=image.name, max_pixels=split.max_pixels)
    except ImageError:
        return None
    truths, found = image.truths, image.found
    none = np.zeros(len(found.labels), np.bool_)
    halves = [
        draw_boxes(_annotated(image.name, pixels, truths.corners, truths.labels, truths.unscored), classes),
        draw_boxes(_annotated(image.name, pixels, found.boxes, found.labels, none, found.scores), classes),
    ]
    width, height = halves[0].size
    page = Image.new("RGB", (2 * width + 3 * GAP, height + 2 * LINE + 2 * GAP), PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=14)
    titles = f"{len(truths)} true", f"{len(found.labels)} detected"
    for i, (half, title) in enumerate(zip(halves, titles, strict=True)):
        left = GAP + i * (width + GAP)
        draw.text((left, GAP // 2), title, INK, font)
        page.paste(half, (left, LINE + GAP))
    draw.text((GAP, height + LINE + GAP), cut(image.name, font, 2 * width), FAINT, font)
    return page


def _annotated(
    name: str, pixels: Pixels, corners: Any, labels: Any, dashed: Any, scores: Any = None
) -> Annotated:
    return Annotated(name=name, pixels=pixels, corners=corners, labels=labels, dashed=dashed, scores=scores)


def write_worst(found: BoxEvaluation, folder: Path) -> int:
    """Draw the images with the lowest F1 into a folder, the worst first; return how many. Raises: OutputError."""
    from patchword.inference.output import cannot_write

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder / "image.jpg", error) from error
    assert found.images_of is not None
    drawn = 0
    for image in found.worst:
        picture = draw_worst(image, found.images_of, found.class_names)
        if picture is not None:
            drawn += 1
            with whole_file(folder / f"{drawn:02}-{Path(image.name).stem}.jpg", text=False) as file:
                picture.save(file, "JPEG", quality=92)
    return drawn


def thumbnails(found: BoxEvaluation) -> list[str]:
    """The worst images as data: URLs, the worst first; "" for one that can no longer be read."""
    assert found.images_of is not None
    urls = []
    for image in found.worst:
        picture = draw_worst(image, found.images_of, found.class_names)
        encoded = io.BytesIO()
        if picture is not None:
            picture.thumbnail((2 * _ON_PAGE, 2 * _ON_PAGE))
            picture.save(encoded, "JPEG", quality=85)
        data = base64.b64encode(encoded.getvalue()).decode()
        urls.append(f"data:image/jpeg;base64,{data}" if data else "")
    return urls


def write_box_page(found: BoxEvaluation, path: Path) -> None:
    """One offline page: scores, curves, kinds of errors, the worst images drawn. Raises: OutputError."""
    section = detection.section(found.to_dict())
    assert section is not None
    for entry, picture in zip(section["worst"], thumbnails(found), strict=True):
        if picture:
            entry["thumbnail"] = picture
    values = {
        "title": Path(found.data).name,
        "weights": found.weights,
        "detection": section,
        "page_notes": [text for text in (found.matched, found.notice, *found.notes) if text],
        "most_failures": MAX_FAILURES,
        "scores_file": "the JSON of the scores",
    }
    with whole_file(path, text=True) as file:
        file.write(filled("boxes.html.j2", values))
