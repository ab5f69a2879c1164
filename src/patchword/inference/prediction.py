"""A classifier's prediction for one image."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.errors import DataError, ImageError
from patchword.images.decode import Source, decode
from patchword.images.preprocess import ValueRange
from patchword.inference.target_scores import DEFAULT_THRESHOLD, Thresholds, above

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def without_thresholds() -> DataError:
    return DataError(
        "the model's file has no best thresholds, which training chooses for classes with at least ten held-out images",
        "use a probability instead, such as 0.5",
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Prediction:
    """The probability of every class for one image, or the reason why there is none.

    name: the file, or the name given to the image. probabilities: [classes] float32 in the order of
    `classes`, summing to 1, or each on its own if the model gives several classes; None if the image could not be read, with the reason and fix in `error`.
    source, value_range: for `plot`, which reads the image again. true: the image's class, if it was compared with
    labels; see `correct`. numbers: what a model of numbers predicts, by name; it has no probabilities.
    thresholds: the best ones of a model of several classes, empty if its file has none; None for other models; see `present`.
    true_classes, true_numbers: like `true`, of an image with several classes or numbers.
    """

    name: str
    classes: tuple[str, ...]
    probabilities: NDArray[np.float32] | None = None
    error: str = ""
    source: Source | Callable[[], Source] | None = field(default=None)
    value_range: ValueRange | None = None
    true: str | None = None
    numbers: Mapping[str, float] | None = None
    thresholds: tuple[float, ...] | None = None
    true_classes: tuple[str, ...] | None = None
    true_numbers: Mapping[str, float] | None = None

    @property
    def correct(self) -> bool | None:
        """Whether the most probable class is the true one; None without a true class or a prediction."""
        return None if self.true is None or self.probabilities is None else self.label == self.true

    @property
    def label(self) -> str:
        """The name of the most probable class. Raises: ImageError if the image could not be read."""
        return self.top(1)[0][0]

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the k most probable classes (or all, if there are fewer), best first: [("tulip", 0.93), …].

        Raises: ImageError if the image could not be read.
        """
        return [(self.classes[i], p) for i, p in self.ranked(k)]

    def ranked(self, k: int = 5) -> list[tuple[int, float]]:
        """Like `top`, but with class indices instead of names."""
        if self.numbers is not None:
            raise DataError("this model predicts numbers, not classes", "read .numbers")
        if self.probabilities is None:
            raise ImageError(f"{self.name}: {self.error}", "check .error before reading the prediction")
        # A stable sort keeps equal probabilities in class order.
        order = np.argsort(-self.probabilities, kind="stable")[: max(k, 0)]
        return [(int(i), float(self.probabilities[i])) for i in order]

    def present(self, thresholds: Thresholds = DEFAULT_THRESHOLD) -> tuple[str, ...]:
        """The classes of an image that may have several, most probable first: those that reach their threshold.

        thresholds: a probability for all classes, or "best" for those with the best F1 on the images held out in training.
        Raises: DataError if the model gives one class per image, or numbers, or "best" thresholds are not in its file;
            ImageError if the image could not be read.
        """
        if self.thresholds is None:
            raise DataError("this model does not give several classes per image", "read .label or .numbers")
        if thresholds == "best" and not self.thresholds:
            raise without_thresholds()
        order = [index for index, _ in self.ranked(len(self.classes))]
        assert self.probabilities is not None
        reached = above(self.probabilities, self.thresholds if thresholds == "best" else thresholds)
        return tuple(self.classes[i] for i in order if reached[i])

    def to_dict(self, k: int = 5, thresholds: Thresholds = DEFAULT_THRESHOLD) -> dict[str, Any]:
        """Return a dict for JSON: {"file", "predictions": [{"class", "index", "probability"}]} or {"file", "error"}.

        With a true class also "true" and, if there is a prediction, "correct". Of a model of several classes also "present".
        """
        found: dict[str, Any] = {"file": self.name}
        true = next((t for t in (self.true, self.true_classes, self.true_numbers) if t is not None), None)
        if true is not None:
            found["true"] = list(true) if isinstance(true, tuple) else true
        if self.numbers is not None:
            return {**found, "numbers": dict(self.numbers)}
        if self.probabilities is None:
            return {**found, "error": self.error}
        if self.true is not None:
            found["correct"] = self.correct
        if self.thresholds is not None:
            found["present"] = list(self.present(thresholds))
        ranked = [{"class": self.classes[i], "index": i, "probability": p} for i, p in self.ranked(k)]
        return {**found, "predictions": ranked}

    def plot(self, k: int = 5) -> "Figure":
        """Plot the image next to bars for its k most probable classes, as a matplotlib figure.

        Raises: ImageError if the image could not be read.
        """
        # A figure without pyplot opens no window and needs no display.
        from matplotlib.figure import Figure

        found = self.top(k)
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.imshow(pixels_again(self.name, self.source, self.value_range))
        left.set_axis_off()
        left.set_title(self.name, fontsize=9)
        names, shares = [name for name, _ in found], [share for _, share in found]
        bars = right.barh(range(len(found)), shares, color="#4269d0")
        right.bar_label(bars, [f"{100 * share:.1f} %" for share in shares], padding=3)
        right.set_yticks(range(len(found)), names)
        right.invert_yaxis()
        right.set_xlim(0, 1.15)
        right.set_xticks([])
        right.spines[["top", "right", "bottom"]].set_visible(False)
        return figure

    def __repr__(self) -> str:
        if self.numbers is not None:
            return f"<Prediction {self.name}: {', '.join(f'{n} {v:.4g}' for n, v in self.numbers.items())}>"
        if self.probabilities is None:
            return f"<Prediction {self.name}: {self.error}>"
        return f"<Prediction {self.name}: {', '.join(f'{n} {p:.2f}' for n, p in self.top(3))}>"


def pixels_again(
    name: str, source: Source | Callable[[], Source] | None, value_range: ValueRange | None
) -> NDArray[Any]:
    """The upright image [h, w, 3] that was predicted on. Raises: ImageError if it is no longer available."""
    source = source() if callable(source) else source
    if source is None:  # images from an iterator are not kept, but a file can be opened again
        if not Path(name).is_file():
            raise ImageError(
                f"{name}: images from an iterator are not kept, so it cannot be plotted",
                "pass a list or file paths to `predict`",
            )
        source = name
    elif hasattr(source, "seek") and not isinstance(source, Image.Image):
        source.seek(0)  # `predict` has read it to the end
    return decode(source, name=name, value_range=value_range)
