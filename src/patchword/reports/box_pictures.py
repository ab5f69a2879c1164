"""Images with the boxes of their objects, in one picture: annotations here, predictions in the same way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from patchword.data.box_targets import Boxes
from patchword.data.dataset import Dataset
from patchword.errors import ImageError, plural
from patchword.images.decode import decode
from patchword.images.stored import Pixels
from patchword.inference.detections import Detections, name_of
from patchword.inference.output import whole_file

COUNT, COLUMNS = 16, 4
# Pixels: longer side of an image, gap around it, of text lines, of a box's line.
SIDE, MARGIN, LINE, STROKE = 400, 16, 20, 2
# Height of a name. Where names would cover more than this share of an image, the colours stand for them.
NAME, MOST_COVERED = 15, 0.08
# Longer side in pixels of an image in a file of its own.
LEAST_SIDE, MOST_SIDE = 640, 1600
PAPER, INK, FAINT = "white", "#1a1a1a", "#6b6b6b"
# Light, strong and far apart on photographs; then they repeat.
COLOURS = (
    "#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#f032e6", "#9a6324",
    "#808000", "#000075", "#bf5b17", "#1f9ed1", "#d4a017", "#7f0000", "#2e8b57", "#6a3d9a",
)  # fmt: skip
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, kw_only=True)
class Annotated:
    """An image [h, w, C] with boxes. corners [n, 4] in its pixels, labels [n]. dashed [n]: how its line is drawn. scores [n]: of predictions."""

    name: str
    pixels: Pixels
    corners: NDArray[np.float64]
    labels: NDArray[np.int64]
    dashed: NDArray[np.bool_]
    scores: NDArray[np.float64] | None = None


def write_annotated(dataset: Dataset, path: Path) -> int:
    """Draw up to sixteen images of a data set with their boxes into a PNG; return how many. Raises: OutputError."""
    images = [
        image for place in chosen_images(dataset, COUNT) if (image := _read(dataset, *place)) is not None
    ]
    splits = ", ".join(f"{name} {len(split)}" for name, split in dataset.splits.items())
    title = (
        f"{len(images)} of {plural(sum(map(len, dataset.splits.values())), 'image')} of {Path(dataset.path).name} ({splits})",
        f"boxes as read from {dataset.kind}; dashed: not scored (a group of objects, or difficult)",
    )
    with whole_file(path, text=False) as file:
        draw_annotated(images, dataset.classes, title).save(file, "PNG")
    return len(images)


def chosen_images(dataset: Dataset, count: int) -> list[tuple[str, int]]:
    """Splits and indices: the rarest classes first, an image without boxes, then some from everywhere."""
    places = [(name, i) for name, split in dataset.splits.items() for i in range(len(split))]
    parts = [
        s.targets.present(len(dataset.classes))
        for s in dataset.splits.values()
        if isinstance(s.targets, Boxes)
    ]
    present = np.concatenate(parts) if parts else np.zeros((0, 0), np.bool_)
    chosen: list[int] = []
    totals = present.sum(axis=0)
    for label in np.argsort(totals, kind="stable"):
        rows = np.flatnonzero(present[:, label])
        if len(chosen) < count // 2 and len(rows) and not present[chosen, label].any():
            chosen.append(int(rows[len(rows) // 2]))
    empty = np.flatnonzero(~present.any(axis=1))
    if len(empty):
        chosen.append(int(empty[len(empty) // 2]))
    rest = [i for i in range(len(places)) if i not in chosen]
    wanted = min(count - len(chosen), len(rest))
    chosen += [rest[int((k + 0.5) * len(rest) / wanted)] for k in range(wanted)]
    return [places[i] for i in sorted(chosen)]


def _read(dataset: Dataset, split_name: str, index: int) -> Annotated | None:
    """None for an image that cannot be read, which the check lists."""
    split = dataset.splits[split_name]
    if not isinstance(split.targets, Boxes):
        return None
    boxes = split.targets.image(index)
    try:
        pixels = decode(split.source(index), name=split.names[index], max_pixels=split.max_pixels)
    except ImageError:
        return None
    return Annotated(
        name=split.names[index],
        pixels=pixels,
        corners=boxes.corners,
        labels=boxes.labels,
        dashed=boxes.unscored,
    )


@dataclass(frozen=True, kw_only=True)
class Style:
    """side: pixels of the longer side of the image. stroke: of a box's line. name: height of a class name."""

    font: Font
    side: int = SIDE
    stroke: int = STROKE
    name: int = NAME


def draw_boxes(image: Annotated, classes: Sequence[str]) -> Image.Image:
    """One image with its boxes and their names, as large as it is, within limits at which names can be read."""
    side = min(max(image.pixels.shape[:2]), MOST_SIDE)
    side = max(side, LEAST_SIDE)
    size = max(round(side / 55), 13)
    style = Style(
        font=ImageFont.load_default(size=size), side=side, stroke=max(round(side / 400), 2), name=size + 3
    )
    return _drawn(image, classes, style, {label: colour_of(label) for label in image.labels.tolist()})


def write_detections(found: Detections, path: Path) -> None:
    """Draw the objects found in an image into a JPEG. Raises: ImageError if it can no longer be read; OutputError."""
    image = Annotated(
        name=found.name,
        pixels=found.pixels(),
        corners=found.boxes,
        labels=found.labels,
        dashed=np.zeros(len(found), np.bool_),
        scores=found.scores,
    )
    with whole_file(path, text=False) as file:
        draw_boxes(image, list(map(name_of, found.classes))).save(file, "JPEG", quality=92)


def draw_annotated(images: Sequence[Annotated], classes: Sequence[str], title: Sequence[str]) -> Image.Image:
    """title: lines above the images. Below them, the colours of the classes that occur."""
    large, small = ImageFont.load_default(size=18), ImageFont.load_default(size=13)
    used = sorted({int(label) for image in images for label in image.labels})
    colours = {label: colour_of(i) for i, label in enumerate(used)}
    style = Style(font=small)
    shown = [_drawn(image, classes, style, colours) for image in images]
    width = MARGIN + min(COLUMNS, max(len(shown), 2)) * (SIDE + MARGIN)
    rows = [shown[i : i + COLUMNS] for i in range(0, len(shown), COLUMNS)]
    heights = [max(image.height for image in row) + 2 * LINE for row in rows]
    legend = _legend(used, classes, small, width)
    top = MARGIN + len(title) * (LINE + 4)
    bottom = legend[-1][1] + LINE if legend else 0
    page = Image.new("RGB", (width, top + sum(heights) + MARGIN + bottom + MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    for i, text in enumerate(title):
        draw.text((MARGIN, MARGIN + i * (LINE + 4)), _cut(text, large if i == 0 else small, width - 2 * MARGIN), INK if i == 0 else FAINT, large if i == 0 else small)  # fmt: skip
    y = top + MARGIN // 2
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            x, image = MARGIN + c * (SIDE + MARGIN), images[r * COLUMNS + c]
            page.paste(picture, (x, y))
            count = plural(len(image.labels), "box", "boxes")
            text = _cut(f"{count}  {image.name}", small, SIDE)
            draw.text((x, y + picture.height + 3), text, INK, small)
        y += heights[r]
    for label, at, x in legend:
        draw.rectangle((x, y + at + 3, x + 12, y + at + 15), fill=colours[label])
        draw.text((x + 18, y + at), _printable(classes[label]), INK, small)
    return page


def colour_of(place: int) -> str:
    """place: of the class among those in the picture."""
    return COLOURS[place % len(COLOURS)]


def _legend(
    labels: Sequence[int], classes: Sequence[str], font: Font, width: int
) -> list[tuple[int, int, int]]:
    """(class, vertical place, horizontal place), in lines that fit."""
    places, x, y = [], MARGIN, 0
    for label in labels:
        needed = 18 + int(font.getlength(_printable(classes[label]))) + 20
        if x + needed > width and x > MARGIN:
            x, y = MARGIN, y + LINE
        places.append((label, y, x))
        x += needed
    return places


def _drawn(image: Annotated, classes: Sequence[str], style: Style, colours: Mapping[int, str]) -> Image.Image:
    pixels = image.pixels
    if pixels.dtype != np.uint8:
        pixels = (pixels.clip(0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).convert("RGB")
    scale = style.side / max(picture.size)
    size = max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)
    stretch = np.array([size[0] / picture.width, size[1] / picture.height] * 2)
    picture = picture.resize(size, Image.Resampling.NEAREST if scale > 3 else Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    # Large boxes first, so that small ones stay visible on them.
    corners = image.corners * stretch
    order = np.argsort(-(corners[:, 2:] - corners[:, :2]).prod(axis=1), kind="stable")
    taken: list[tuple[float, float, float, float]] = []
    for row in order.tolist():
        _outline(
            draw,
            corners[row].tolist(),
            colours[int(image.labels[row])],
            style.stroke,
            dashed=bool(image.dashed[row]),
        )
    names = [_text(image, row, classes) for row in range(len(image.labels))]
    covered = sum((style.font.getlength(name) + 4) * style.name for name in names) / (size[0] * size[1])
    if covered > MOST_COVERED and image.scores is None and len(colours) <= len(COLOURS):
        return picture
    for row in reversed(order.tolist()):
        text = names[row]
        _name(draw, text, corners[row].tolist(), colours[int(image.labels[row])], style, size, taken)
    return picture


def _text(image: Annotated, row: int, classes: Sequence[str]) -> str:
    score = "" if image.scores is None else f" {image.scores[row]:.2f}"
    return _printable(classes[int(image.labels[row])]) + score


def _outline(
    draw: ImageDraw.ImageDraw, corners: Sequence[float], colour: str, stroke: int, *, dashed: bool
) -> None:
    left, top, right, bottom = (round(value) for value in corners)
    right, bottom = max(right - 1, left), max(bottom - 1, top)
    if not dashed:
        draw.rectangle((left, top, right, bottom), outline=colour, width=stroke)
        return
    for x in range(left, right, 12):
        for y in (top, bottom):
            draw.line((x, y, min(x + 6, right), y), fill=colour, width=stroke)
    for y in range(top, bottom, 12):
        for x in (left, right):
            draw.line((x, y, x, min(y + 6, bottom)), fill=colour, width=stroke)


def _name(
    draw: ImageDraw.ImageDraw,
    text: str,
    corners: Sequence[float],
    colour: str,
    style: Style,
    size: tuple[int, int],
    taken: list[tuple[float, float, float, float]],
) -> None:
    """The class at a corner of its box, where it covers no other name; without such a place the colour must do."""
    width, height = style.font.getlength(text) + 4, style.name
    left, top, right, bottom = corners
    for x, y in (
        (left, top - height),
        (left, top),
        (left, bottom - height),
        (right - width, bottom),
        (left, bottom),
    ):
        x = min(max(x, 0), max(size[0] - width, 0))
        place = (x, y, x + width, y + height)
        if y < 0 or y + height > size[1]:
            continue
        if any(place[0] < t[2] and t[0] < place[2] and place[1] < t[3] and t[1] < place[3] for t in taken):
            continue
        taken.append(place)
        draw.rectangle(place, fill=colour)
        draw.text((x + 2, y), text, "white", style.font)
        return


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _cut(text: str, font: Font, width: int) -> str:
    """The text, shortened at the front if it is wider than `width` pixels: paths differ at their end."""
    text = _printable(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength("…" + text) > width:
        text = text[1:]
    return "…" + text
