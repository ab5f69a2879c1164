"""Settings of the methods that explain an answer. Does not import torch."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from patchword.errors import SettingsError, near_text

Fuse = Literal["mean", "max", "min"]
Fill = Literal["mean", "blur", "drop"]
FUSES: tuple[Fuse, ...] = get_args(Fuse)
# What a removed patch shows: the mean colour of the training images, or a blurred picture.
PIXEL_FILLS: tuple[Fill, ...] = ("mean", "blur")
FILLS: tuple[Fill, ...] = get_args(Fill)
# Of more images than this, fewer are measured.
MANY = 100


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """Settings of all methods; each reads those that `Method.uses` names.

    layers: blocks from 0, negative ones from the end; "all"; None for the one that the head reads.
    heads: as layers; None for their mean.
    fuse, discard: of rollout: how heads become one matrix, and the share of its smallest weights that is dropped.
    start: the first block of rollout and both kinds of relevance.
    steps: of integrated gradients and integrated relevance. fill: what replaces a patch in occlusion, and where the two start;
    "mean" is the mean colour (zero after normalisation), "blur" the blurred image, "drop" leaves the token out
    (occlusion only).
    Raises: SettingsError for a value out of range.
    """

    layers: tuple[int, ...] | Literal["all"] | None = None
    heads: tuple[int, ...] | Literal["all"] | None = None
    fuse: Fuse = "mean"
    discard: float = 0.0
    start: int = 0
    steps: int = 64
    fill: Fill = "mean"

    def __post_init__(self) -> None:
        for name, value, known in (("fuse", self.fuse, FUSES), ("fill", self.fill, FILLS)):
            if value not in known:
                raise SettingsError(
                    f"{name} is {value!r}{near_text(str(value), known)}", f"use one of: {', '.join(known)}"
                )
        if not (math.isfinite(self.discard) and 0 <= self.discard < 1):
            raise SettingsError(f"discard is {self.discard}", "give a share of at least 0 and below 1")
        if self.steps < 1:
            raise SettingsError(f"steps is {self.steps}", "give 1 or more; 64 is accurate to about 1 %")


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """How faithfulness is measured: on how many images, with which fills, in how many steps per curve."""

    images: int = 4
    fills: tuple[Fill, ...] = PIXEL_FILLS
    steps: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.images < 0:
            raise SettingsError(f"faithfulness on {self.images} images", "give 1 or more, or 0 for none")
        if not self.fills or any(fill not in PIXEL_FILLS for fill in self.fills):
            raise SettingsError(
                f"faithfulness with fills {', '.join(self.fills) or 'none'}",
                f"use one or more of: {', '.join(PIXEL_FILLS)}",
            )
        if self.steps < 2:
            raise SettingsError(f"{self.steps} steps per curve of faithfulness", "use at least 2")


def score_settings(
    count: int, images: int | None = None, fills: tuple[Fill, ...] | None = None, seed: int = 0
) -> ScoreSettings:
    """How faithfulness is measured for `count` images: of many, on fewer of them, so that it takes a small part of the time."""
    many = count > MANY
    return ScoreSettings(
        images=(2 if many else 4) if images is None else images,
        fills=(PIXEL_FILLS[:1] if many else PIXEL_FILLS) if fills is None else fills,
        seed=seed,
    )
