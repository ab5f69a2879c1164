"""What a detector found in one image, and how it follows from the model's output.

Shapes: n boxes that were found, Q queries, C classes. Boxes are [left, top, right, bottom] in pixels of the upright image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from patchword.errors import ImageError
from patchword.images.decode import Source
from patchword.images.frame import Frame
from patchword.images.geometry import Size
from patchword.images.preprocess import Preprocess, ValueRange
from patchword.inference.prediction import pixels_again
from patchword.weights.detector_card import DetectionClass

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NO_BOXES = np.zeros((0, 4))
# As many as COCO's evaluation counts.
_LEAST_ANSWERS = 100


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Detections:
    """The objects found in one image, the highest score first, or the reason why it could not be read.

    name: the file, or the name given to the image. classes: all classes of the detector. size: (h, w) of the upright image.
    boxes [n, 4] float64: left, top, right, bottom in its pixels, cut at its edges. labels [n] int64: index into `classes`.
    scores [n] float64, from 0 to 1. error: why there is no answer, with the fix; "" if there is one. source, value_range: for
    `plot`, which reads the image again.
    """

    name: str
    classes: tuple[DetectionClass, ...]
    size: Size | None = None
    boxes: NDArray[np.float64] = field(default_factory=lambda: _NO_BOXES)
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    scores: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    error: str = ""
    source: Source | Callable[[], Source] | None = None
    value_range: ValueRange | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """The class name of each box."""
        return tuple(name_of(self.classes[label]) for label in self.labels)

    @property
    def ids(self) -> tuple[int, ...]:
        """The number of each box's category in the data that the detector was trained on."""
        return tuple(self.classes[label].id for label in self.labels)

    def above(self, conf: float) -> "Detections":
        """Only the boxes with a score of at least `conf`."""
        kept = self.scores >= conf
        return replace(self, boxes=self.boxes[kept], labels=self.labels[kept], scores=self.scores[kept])

    def to_dict(self) -> dict[str, Any]:
        """For JSON: {"file", "width", "height", "objects": [{"class", "id", "score", "left", "top", "right", "bottom"}]}, or {"file", "error"}."""
        if self.size is None:
            return {"file": self.name, "error": self.error}
        height, width = self.size
        return {
            "file": self.name,
            "width": width,
            "height": height,
            "objects": [
                {"class": name, "id": one, "score": score, **dict(zip(SIDES, box, strict=True))}
                for name, one, score, box in zip(
                    self.names, self.ids, self.scores.tolist(), self.boxes.round(2).tolist(), strict=True
                )
            ],
        }

    def pixels(self) -> NDArray[Any]:
        """The upright image [h, w, C]. Raises: ImageError if it is no longer available."""
        return pixels_again(self.name, self.source, self.value_range)

    def plot(self) -> "Figure":
        """The image with its boxes, as a matplotlib figure. Raises: ImageError if the image could not be read."""
        # A figure without pyplot opens no window and needs no display.
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle

        if self.size is None:
            raise ImageError(f"{self.name}: {self.error}", "check .error before reading the boxes")
        pixels = self.pixels()
        figure = Figure(figsize=(7, 7 * self.size[0] / self.size[1] + 0.4), layout="constrained")
        axes = figure.subplots()
        axes.imshow(pixels if pixels.shape[2] == 3 else pixels[..., 0], cmap="gray")
        axes.set_axis_off()
        axes.set_title(self.name, fontsize=9)
        for name, score, label, box in zip(self.names, self.scores, self.labels, self.boxes, strict=True):
            left, top, right, bottom = box.tolist()
            colour = f"C{label % 10}"
            axes.add_patch(
                Rectangle((left, top), right - left, bottom - top, fill=False, color=colour, linewidth=2)
            )
            axes.text(
                left,
                top,
                f"{name} {score:.2f}",
                color="white",
                backgroundcolor=colour,
                fontsize=8,
                va="bottom",
            )
        return figure

    def __repr__(self) -> str:
        if self.error:
            return f"<Detections {self.name}: {self.error}>"
        shown = ", ".join(
            f"{name} {score:.2f}" for name, score in zip(self.names[:3], self.scores, strict=False)
        )
        more = f" and {len(self) - 3} more" if len(self) > 3 else ""
        return f"<Detections {self.name}: {shown or 'nothing'}{more}>"


SIDES = ("left", "top", "right", "bottom")


def name_of(one: DetectionClass) -> str:
    """Its name, or its number if no file states a name."""
    return one.name or f"class {one.id}"


@dataclass(frozen=True, kw_only=True)
class Found:
    """The answers for one image, of all scores: boxes [n, 4], labels [n], scores [n], the highest first.

    queries [n]: the query of the model that gave each, or of the tile with the highest score.
    """

    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    queries: NDArray[np.int64]

    def taken(self, rows: Any) -> "Found":
        return Found(
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            scores=self.scores[rows],
            queries=self.queries[rows],
        )


def found_in(
    values: NDArray[np.floating], preprocess: Preprocess, size: Size, *, one_class_each: bool
) -> Found:
    """The answers in a model's output for one image.

    values [Q, C + 4]: the score of each class, then centre x, centre y, width and height as shares of the model's input.
    one_class_each: a query has its best class only, as in DETR; else the best pairs of query and class are taken, Q of them but at
    least 100, as in Deformable DETR. size: (h, w) of the upright image. Boxes are cut at its edges; one that lies outside of it is left out.
    """
    scores, shares = values[:, :-4].astype(np.float64), values[:, -4:].astype(np.float64)
    if one_class_each:
        queries, labels = np.arange(len(scores)), scores.argmax(axis=1)
    else:
        best = np.argsort(-scores.ravel(), kind="stable")[: max(len(scores), _LEAST_ANSWERS)]
        queries, labels = np.divmod(best, scores.shape[1])
    boxes = upright_boxes(shares[queries], preprocess, size)
    chosen = Found(
        boxes=boxes, labels=labels.astype(np.int64), scores=scores[queries, labels], queries=queries
    )
    order = np.argsort(-chosen.scores, kind="stable")
    return chosen.taken(order[has_area(boxes[order])])


def has_area(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[n]: whether each box covers something."""
    return np.asarray((boxes[:, 2:] > boxes[:, :2]).all(axis=1), dtype=np.bool_)


def upright_boxes(shares: NDArray[np.float64], preprocess: Preprocess, size: Size) -> NDArray[np.float64]:
    """Centres and sides as shares of the model's input [n, 4] → corners in pixels of the upright image, cut at its edges."""
    half = shares[:, 2:] / 2
    corners = np.concatenate([shares[:, :2] - half, shares[:, :2] + half], axis=1)
    return Frame.of(preprocess.plan(size), size).shares_to_pixels(corners)


def joined_found(parts: Sequence[Found]) -> Found:
    """All answers together, the highest score first."""
    whole = Found(
        boxes=np.concatenate([_NO_BOXES, *(part.boxes for part in parts)]),
        labels=np.concatenate([np.zeros(0, np.int64), *(part.labels for part in parts)]),
        scores=np.concatenate([np.zeros(0), *(part.scores for part in parts)]),
        queries=np.concatenate([np.zeros(0, np.int64), *(part.queries for part in parts)]),
    )
    return whole.taken(np.argsort(-whole.scores, kind="stable"))
