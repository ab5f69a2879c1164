"""What is drawn of a detector's queries: each object in a row, with its box, and where its query looked."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from patchword.errors import SettingsError, plural
from patchword.explaining.detection import ATTENTION, POINTS, RELEVANCE, Look, Looked
from patchword.images.frame import Frame
from patchword.images.stored import Pixels
from patchword.reports.sheet import Column, Row, Sheet

MOST_ROWS = 100
# Pixels of the longer side of a cell of the sheet.
SIDE = 320
HEADINGS = {ATTENTION: "attention", RELEVANCE: "relevance for the class", POINTS: "points that are read"}
NOTES = {
    ATTENTION: "Attention: how much the object's query reads from each place in the last layer, mean of the heads. It does not "
    "depend on the class, and what is read may have come there from elsewhere.",
    RELEVANCE: "Relevance (Chefer et al. 2021): attention times its gradient of the class's score, followed through all layers. "
    "It shows what speaks for the class that was found.",
    POINTS: "Points: the places of the feature maps that the object's query reads in the last layer; larger means more weight. "
    "Each stands for what the backbone has gathered there.",
}
# Dark to light, as of a map of heat: colours between which is interpolated.
_HEAT = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float64)
_BOX, _POINT = "#00d5ff", "#ffd400"


def check_number(rows: int) -> None:
    """Raises: SettingsError if one picture cannot hold so many objects."""
    if rows > MOST_ROWS:
        raise SettingsError(
            f"{rows} objects are too many for one picture, which holds {MOST_ROWS}",
            "add --images 20 to draw a sample, --objects for fewer of each image, or --json for the numbers alone",
        )


def detection_sheet(images: Sequence[Looked], model: str, conf: float) -> Sheet:
    """A row for each object of each image. Raises: SettingsError for more rows than one picture holds."""
    check_number(sum(len(image.looks) for image in images))
    methods = _methods(images)
    rows = [
        Row(f"{image.name}: {look.name} {look.score:.2f}", _note(look), tuple(_cells(image, look, methods)))
        for image in images
        for look in image.looks
    ]
    more = sum(image.more for image in images)
    shown = (
        f"{plural(len(rows), 'object')} with a score of at least {conf:g} in {plural(len(images), 'image')}"
    )
    return Sheet(
        title=(f"Where the queries of {model} look", f"{shown}{f'; {more} more not drawn' if more else ''}."),
        columns=[Column("detected"), *(Column(HEADINGS[method]) for method in methods)],
        rows=rows,
        notes=[NOTES[method] for method in methods],
        side=SIDE,
    )


def _methods(images: Sequence[Looked]) -> list[str]:
    look = next(look for image in images for look in image.looks)
    return [*look.maps, *([POINTS] if look.points is not None else [])]


def _note(look: Look) -> str:
    return f"query {look.query}; box {', '.join(f'{side:.0f}' for side in look.box)}"


def _cells(image: Looked, look: Look, methods: Sequence[str]) -> Iterator[Pixels]:
    """The image with the object's box, then one picture for each method, all of the size of the model's input."""
    plain = _as_rgb(image.pixels)
    box = _in_input(image, look)
    yield _outlined(plain, box)
    for method in methods:
        if method == POINTS and look.points is not None:
            yield _with_points(plain, box, look.points)
        else:
            yield _outlined(heated(plain, look.maps[method]), box)


def _as_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pixels if pixels.shape[2] == 3 else np.repeat(pixels[..., :1], 3, axis=2))


def _in_input(image: Looked, look: Look) -> list[float]:
    """The box in pixels of the model's input."""
    frame = Frame.of(image.preprocess.plan(image.size), image.size)
    moved: list[float] = frame.forward(look.box[None])[0].tolist()
    return moved


def heated(pixels: NDArray[np.uint8], values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The image [H, W, 3] under the colours of a map [h, w], which is stretched over it and scaled to its highest value."""
    height, width = pixels.shape[:2]
    stretched = Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    heat = np.asarray(stretched, np.float64).clip(0)
    heat = heat / max(float(heat.max()), 1e-30)
    places = heat * (len(_HEAT) - 1)
    below = np.minimum(places.astype(np.int64), len(_HEAT) - 2)
    part = (places - below)[..., None]
    colours = _HEAT[below] * (1 - part) + _HEAT[below + 1] * part
    grey = pixels.mean(axis=2, keepdims=True)
    return np.asarray(np.rint(0.4 * grey + 0.6 * colours).clip(0, 255), np.uint8)


def _outlined(pixels: NDArray[np.uint8], box: Sequence[float]) -> Pixels:
    picture = Image.fromarray(pixels)
    _outline(picture, box)
    return np.asarray(picture)


def _outline(picture: Image.Image, box: Sequence[float]) -> None:
    stroke = max(round(max(picture.size) / 160), 1)
    left, top, right, bottom = box
    ImageDraw.Draw(picture).rectangle(
        (left, top, max(right - 1, left), max(bottom - 1, top)), outline=_BOX, width=stroke
    )


def _with_points(pixels: NDArray[np.uint8], box: Sequence[float], points: NDArray[np.float64]) -> Pixels:
    """Discs whose area is the weight, the lightest first."""
    picture = Image.fromarray((pixels * 0.6).astype(np.uint8))
    _outline(picture, box)
    draw = ImageDraw.Draw(picture)
    unit = max(picture.size) / 12
    for x, y, weight in points[np.argsort(points[:, 2])].tolist():
        radius = max(unit * weight**0.5, 1.0)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_POINT, outline="black")
    return np.asarray(picture)
