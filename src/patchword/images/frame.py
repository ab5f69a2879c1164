"""Where an image lies in what a model is fed, so that boxes can follow it there and back.

Corners are [left, top, right, bottom] in pixels; the left edge of the first pixel is 0. Sizes are (h, w).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchword.images.geometry import Plan, Size

Corners = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The map of a `Plan`: x of the input = x of the image * scale_x - left; likewise y.

    image: size of the upright image. output: size of the model's input.
    """

    image: Size
    output: Size
    scale_x: float
    scale_y: float
    left: int
    top: int

    @classmethod
    def of(cls, plan: Plan, image: Size) -> "Frame":
        """plan: that of an image of this size (`Preprocess.plan`)."""
        return cls(
            image=image,
            output=plan.output,
            scale_x=plan.resized[1] / image[1],
            scale_y=plan.resized[0] / image[0],
            left=plan.left,
            top=plan.top,
        )

    def forward(self, corners: Corners) -> Corners:
        """Corners [n, 4] in pixels of the image → in pixels of the input; they may lie outside it."""
        moved: Corners = corners * self._scales - self._shifts
        return moved

    def back(self, corners: Corners) -> Corners:
        """Corners [n, 4] in pixels of the input → in pixels of the image, cut off at its edges."""
        height, width = self.image
        moved: Corners = (corners + self._shifts) / self._scales
        return np.clip(moved, 0.0, [width, height, width, height])

    def shares_to_pixels(self, shares: Corners) -> Corners:
        """Corners [n, 4] as shares of the input, as detectors answer → in pixels of the image."""
        height, width = self.output
        return self.back(shares * [width, height, width, height])

    @property
    def _scales(self) -> list[float]:
        return [self.scale_x, self.scale_y] * 2

    @property
    def _shifts(self) -> list[int]:
        return [self.left, self.top] * 2
