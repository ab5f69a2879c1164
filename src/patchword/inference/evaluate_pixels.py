"""The result of pre-training: the error on hidden patches, beside what arithmetic alone gives."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

# The baselines that do not know the truth.
BLIND = ("nearest", "bilinear")


@dataclass(frozen=True, kw_only=True)
class PixelEvaluation:
    """The error on the hidden patches of the held-out images, in the units of the loss.

    pixels: of the model. baselines: as in `model.baselines`. knn, start_knn: the k-NN accuracy on the watched images after the
    last epoch and before the first; None without them. pictures: of the gallery.
    """

    data: str
    split: str
    images: int
    scored: int
    pixels: float
    baselines: dict[str, float]
    mask_ratio: float
    norm_targets: bool
    knn: float | None = None
    start_knn: float | None = None
    task: str = "mae"
    notice: str = ""
    pictures: list[dict[str, str]] = field(default_factory=list)

    @property
    def headline(self) -> str:
        units = "of standardised patches" if self.norm_targets else "of normalised pixels"
        text = f"squared error {self.pixels:.3f} {units} ({100 * self.mask_ratio:.0f} % hidden)"
        if self.knn is not None and self.start_knn is not None:
            text += f", k-NN {100 * self.knn:.1f} %, before training {100 * self.start_knn:.1f} %"
        return text

    @property
    def lines(self) -> list[str]:
        """What to compare the error with, a line each."""
        words = {
            "patch_mean": "each patch's own mean (which knows the truth)",
            "nearest": "nearest visible patch",
            "bilinear": "bilinear interpolation of visible patches",
        }
        return [f"{words.get(name, name)}  {value:.3f}" for name, value in self.baselines.items()]

    def to_dict(self) -> dict[str, Any]:
        """As `evaluation.json` of a run folder."""
        return {**dataclasses.asdict(self), "headline": self.headline, "lines": self.lines}


def verdict(pixels: float, baselines: dict[str, float]) -> str:
    """What is wrong with a model that is no better than arithmetic; "" if it is better."""
    blind = {name: baselines[name] for name in BLIND if name in baselines}
    best = min(blind, key=lambda name: blind[name], default=None)
    if best is not None and pixels >= blind[best]:
        what = {"nearest": "copying the nearest visible patch", "bilinear": "interpolating visible patches"}[
            best
        ]
        return f"the model is no better than {what} ({pixels:.3f} against {blind[best]:.3f}): train for more epochs"
    mean = baselines.get("patch_mean")
    if mean is not None and pixels >= mean:
        return (
            f"the model is no better than each patch's mean ({pixels:.3f} against {mean:.3f}): it draws no detail; "
            "train for more epochs"
        )
    return ""
